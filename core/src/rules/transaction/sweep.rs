//! Removal of rows that are older than the retention, and the beginning of epochs.

use core::time::Duration;

use alloc::vec::Vec;

use super::counting::{Census, measure};
use super::{Decision, TransactionAnswer};
use crate::protocol::name::{ClientId, Collection, DatabaseId, Epoch, RecordId, Seq};
use crate::protocol::time::Timestamp;
use crate::rules::record::declared::{Declarable, Declarations, Stored};
use crate::rules::record::indexes::DeclaredIndexes;
use crate::rules::record::scopes::{Declared, ScopeRows};
use crate::rules::record::{self, ClientRow, Counted, EpochRow, Head, RecordRow, Totals};
use crate::store::{Batch, Rows, Scan, StoreError};

/// Removes tombstones, clients and epochs that are older than the retention, a bounded number of
/// rows at a time. The removal of tombstones raises their collection's horizon, and those of the scopes
/// that the records have left. In a store from before the sizes of collections and the numbers of
/// clients were stored, it counts them too; and it builds the rows of scope keys and indexes
/// that are new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sweep {
    /// The retention of tombstones, silent clients and past epochs.
    pub retention: Duration,
    /// The position to go on from: [`SweepPlace::default`] at first, then the one in the last
    /// [`Swept`].
    pub from: SweepPlace,
    /// The maximal number of rows to read; at least 1 is read.
    pub budget: usize,
}

/// The position of a sweep.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SweepPlace {
    /// At the start.
    #[default]
    Start,
    /// In this collection.
    Collection(Collection),
    /// Behind this collection.
    AfterCollection(Collection),
    /// Behind all collections.
    Clients,
    /// Behind this client.
    AfterClient(ClientId),
    /// Behind all clients.
    Epochs,
}

/// The result of one sweep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swept {
    /// The number of removed tombstones, clients and epochs.
    pub removed: usize,
    /// The position from which to go on at once; `None` at the end. Then the next sweep is due much
    /// later.
    pub next: Option<SweepPlace>,
}

impl Sweep {
    pub(super) fn decide(&self, rows: &dyn Rows, now: Timestamp) -> Result<Decision, StoreError> {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let mut broom = Broom {
            rows,
            cutoff: Timestamp(now.0.saturating_sub(retention)),
            left: self.budget.max(1),
            batch: Batch::default(),
            removed: 0,
            census: Census::begin(rows)?,
        };
        let mut next = Some(self.from.clone());
        while let Some(place) = next.take_if(|_| broom.left > 0) {
            next = broom.step(&place)?;
        }
        let answer = TransactionAnswer::Swept(Swept { removed: broom.removed, next });
        let mut batch = broom.batch;
        broom.census.finish(rows, &mut batch)?;
        Ok(Decision { batch, answer, published: Vec::new() })
    }
}

struct Broom<'a> {
    rows: &'a dyn Rows,
    cutoff: Timestamp,
    left: usize,
    batch: Batch,
    removed: usize,
    census: Census,
}

impl Broom<'_> {
    fn step(&mut self, place: &SweepPlace) -> Result<Option<SweepPlace>, StoreError> {
        Ok(match place {
            SweepPlace::Start => Some(self.collection_from(b"c")?),
            SweepPlace::AfterCollection(last) => {
                Some(self.collection_from(&after(record::head_key(last)))?)
            }
            SweepPlace::Collection(collection) => Some(self.sweep_collection(collection)?),
            SweepPlace::Clients => Some(self.sweep_clients(b"u")?),
            SweepPlace::AfterClient(last) => {
                Some(self.sweep_clients(&after(record::client_key(last)))?)
            }
            SweepPlace::Epochs => {
                self.sweep_epochs()?;
                None
            }
        })
    }

    fn collection_from(&mut self, from: &[u8]) -> Result<SweepPlace, StoreError> {
        self.left = self.left.saturating_sub(1);
        let mut found = SweepPlace::Clients;
        self.rows.scan(from, b"d", &mut |key, _| {
            let collection = record::name_in(key, |name| Collection::new(name).ok())?;
            found = SweepPlace::Collection(collection);
            Ok(Scan::Stop)
        })?;
        Ok(found)
    }

    /// Reads the change index from the last sweep's end to the first change that is young enough.
    /// Before that position no old tombstones are left.
    fn sweep_collection(&mut self, collection: &Collection) -> Result<SweepPlace, StoreError> {
        let stored = Head::load(self.rows, collection)?;
        let mut head = stored;
        // first, so that what is removed was counted
        if !measure(self.rows, collection, &mut head, &mut self.left)? {
            self.batch.put(record::head_key(collection), head.to_row());
            return Ok(SweepPlace::Collection(collection.clone()));
        }
        let declared = Declared::of(self.rows, collection, Some(&head))?;
        let indexes = DeclaredIndexes::of(self.rows, collection, Some(&head))?;
        // what comes next reads these rows
        if self.build(collection, &mut head, declared.as_ref())?
            || self.build(collection, &mut head, indexes.as_ref())?
        {
            self.left = 0;
            return Ok(SweepPlace::Collection(collection.clone()));
        }
        let declared = declared.unwrap_or_default();
        let mut scopes = ScopeRows::new(self.rows, collection, &declared);
        let (from, to) =
            (record::index_key(collection, head.swept.next()), record::index_of(collection).1);
        let mut due: Vec<(Seq, RecordId, RecordRow, u64)> = Vec::new();
        let (mut left, mut done) = (self.left, true);
        let (rows, cutoff) = (self.rows, self.cutoff);
        rows.scan(&from, &to, &mut |key, id| {
            let seq = Seq(record::to_u64(&key[key.len().saturating_sub(8)..])?);
            let id = record::record_id(&id)?;
            let (record, size) = RecordRow::load_sized(rows, collection, &id)?;
            let record = record
                .ok_or_else(|| StoreError::damaged("the change index names a missing record"))?;
            if record.committed_at >= cutoff {
                return Ok(Scan::Stop);
            }
            if left == 0 {
                done = false;
                return Ok(Scan::Stop);
            }
            left -= 1;
            head.swept = seq;
            let has_left = !record.left.is_empty();
            if record.document.is_none() || !record.removed.is_empty() || has_left {
                due.push((seq, id, record, size));
            }
            Ok(Scan::Next)
        })?;
        self.left = left;
        let moved = stored != head;
        for (seq, id, record, size) in due {
            self.removed += 1;
            head.bytes = head.bytes.saturating_sub(size);
            self.remove_tombstones(collection, &mut head, &mut scopes, (seq, &id, record))?;
        }
        self.batch.append(scopes.into_batch());
        if moved {
            self.batch.put(record::head_key(collection), head.to_row());
        }
        Ok(if done {
            SweepPlace::AfterCollection(collection.clone())
        } else {
            SweepPlace::Collection(collection.clone())
        })
    }

    /// Builds and removes rows for what is declared of a collection. Returns `true` if there was something
    /// to do.
    fn build<K: Declarable>(
        &mut self,
        collection: &Collection,
        head: &mut Head,
        declared: Option<&Declarations<K>>,
    ) -> Result<bool, StoreError> {
        let stored = Stored { rows: self.rows, collection, head: *head };
        let built = declared.map(|declared| declared.build(&stored, &mut self.left));
        let Some((declared, batch)) = built.transpose()?.flatten() else { return Ok(false) };
        K::set_in_use(head, declared.is_in_use());
        declared.put(collection, &mut self.batch);
        self.batch.append(batch);
        self.batch.put(record::head_key(collection), head.to_row());
        Ok(true)
    }

    fn remove_tombstones(
        &mut self,
        collection: &Collection,
        head: &mut Head,
        scopes: &mut ScopeRows<'_>,
        (seq, id, mut record): (Seq, &RecordId, RecordRow),
    ) -> Result<(), StoreError> {
        let key = record::record_key(collection, id);
        scopes.forget_left(&mut record)?;
        if record.document.is_none() {
            head.horizon = head.horizon.max(seq);
            self.batch.delete(key);
            self.batch.delete(record::index_key(collection, seq));
            return Ok(());
        }
        if let Some(last) = record.removed.drain(..).map(|(_, stamp)| stamp.seq).max() {
            head.horizon = head.horizon.max(last);
            scopes.raise(&record, last)?;
        }
        let row = record.to_row();
        head.bytes += record::size_of_record(id, &row);
        self.batch.put(key, row);
        Ok(())
    }

    fn sweep_clients(&mut self, from: &[u8]) -> Result<SweepPlace, StoreError> {
        if !self.census.count(self.rows, &mut self.left)? {
            return Ok(SweepPlace::Clients);
        }
        let mut place = SweepPlace::Epochs;
        let (mut left, mut removed) = (self.left, 0);
        let (cutoff, batch, census) = (self.cutoff, &mut self.batch, &mut self.census);
        self.rows.scan(from, b"v", &mut |key, row| {
            let id = record::name_in(key, |name| ClientId::new(name).ok())?;
            let client = ClientRow::from_row(row)?;
            if client.seen_at < cutoff {
                batch.delete(key.to_vec());
                census.remove(&id, client.user);
                removed += 1;
            }
            left = left.saturating_sub(1);
            if left == 0 {
                place = SweepPlace::AfterClient(id);
                return Ok(Scan::Stop);
            }
            Ok(Scan::Next)
        })?;
        self.removed += removed;
        self.left = left;
        Ok(place)
    }

    /// Removes an epoch if the one after it is older than the retention. Of the heads at the
    /// beginnings of epochs, each collection keeps the last one that a kept epoch needs.
    fn sweep_epochs(&mut self) -> Result<(), StoreError> {
        let mut epochs: Vec<(u64, EpochRow)> = Vec::new();
        self.rows.scan(b"e", b"f", &mut |key, row| {
            epochs.push((record::to_u64(&key[1..])?, EpochRow::from_row(row)?));
            Ok(Scan::Next)
        })?;
        let over = epochs.windows(2).take_while(|pair| pair[1].1.started_at < self.cutoff).count();
        let Some((oldest, _)) = epochs.get(over).filter(|_| over > 0) else { return Ok(()) };
        for (number, epoch) in &epochs[..over] {
            self.removed += 1;
            self.batch.delete(record::epoch_key(*number));
            self.batch.delete(record::epoch_id_key(&epoch.id));
        }
        let (oldest, batch) = (*oldest, &mut self.batch);
        let mut before: Option<Vec<u8>> = None;
        self.rows.scan(b"g", b"h", &mut |key, _| {
            let (name, number) = key.split_at(key.len().saturating_sub(8));
            // the row before is superseded by this one for every epoch that is kept
            if record::to_u64(number)? <= oldest
                && let Some(before) = before.take_if(|before| before.starts_with(name))
            {
                batch.delete(before);
            }
            before = Some(key.to_vec());
            Ok(Scan::Next)
        })
    }
}

pub(super) fn begin_epoch(
    id: &Epoch,
    database: &DatabaseId,
    rows: &dyn Rows,
    now: Timestamp,
) -> Result<Decision, StoreError> {
    let mut batch = Batch::default();
    if record::database(rows)?.is_none() {
        batch.put(record::DATABASE, database.as_bytes().to_vec());
    }
    let number = EpochRow::current(rows)?.map_or(1, |(number, _)| number + 1);
    let mut totals = Totals { collections: 0, counted: counted(rows)? };
    rows.scan(b"c", b"d", &mut |key, row| {
        let collection = record::name_in(key, |name| Collection::new(name).ok())?;
        let head = Head::from_row(row)?.seq;
        totals.collections += 1;
        if EpochRow::began_at(rows, &collection, number)? != head {
            batch.put(record::beginning_key(&collection, number), head.0.to_be_bytes().to_vec());
        }
        Ok(Scan::Next)
    })?;
    totals.put(&mut batch);
    let epoch = EpochRow { id: id.clone(), started_at: now };
    batch.put(record::epoch_key(number), epoch.to_row());
    batch.put(record::epoch_id_key(id), number.to_be_bytes().to_vec());
    Ok(Decision { batch, answer: TransactionAnswer::Begun, published: Vec::new() })
}

/// The clients that are counted: all of them in a store without any.
fn counted(rows: &dyn Rows) -> Result<Counted, StoreError> {
    if let Some(totals) = Totals::stored(rows)? {
        return Ok(totals.counted);
    }
    let (from, to) = record::range_of(b'u');
    Ok(if rows.last(&from, &to)?.is_none() { Counted::All } else { Counted::Nobody })
}

/// The next larger key.
pub(super) fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
