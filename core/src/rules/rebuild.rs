//! A server's rows made sound again out of what could be read of a damaged store.
//!
//! The rows come as they could be read: some may be missing, and others of an earlier time. So
//! nothing is believed but the records themselves. The change index, counts and checksums are made
//! from them, and three things are said that are true whatever is lost:
//!
//! * No earlier epoch is known, so every cursor is invalid, and every replica compares what it
//!   holds with a snapshot.
//! * The horizon of each collection is its head: tombstones up to there may be gone.
//! * The head is the largest seq that shows anywhere, so that it goes back as little as possible.
//!
//! The database's identity and the numbers of the clients stay.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::record::{
    self, Client, DATABASE, Head, Record, client_key, head_key, index_key, name_in, record_id,
    record_key,
};
use crate::words::name::{ClientId, Collection, DatabaseId, RecordId, Seq};
use crate::words::store::{Batch, Overlay, Rows, StoreError};

/// The largest seq that the protocol can say.
const MAX_SEQ: u64 = (1 << 53) - 1;

/// A rebuilding under way. The new store begins empty and takes every batch before the next step.
#[derive(Debug, Default)]
pub struct Rebuild {
    heads: BTreeMap<Collection, Found>,
    database: Option<DatabaseId>,
    /// Records whose seq can't be theirs; they get a new one at the end.
    displaced: Vec<(Collection, RecordId, Record)>,
    kept: Kept,
    lost: Lost,
}

/// A collection as far as it was found.
#[derive(Debug, Default)]
struct Found {
    head: Head,
    /// How many records the stored head says that there are.
    said: u64,
    /// Changes of which the index knows, and nothing else is left.
    missing: u64,
}

/// What a new store got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Records.
    pub records: u64,
    /// Tombstones of deleted records.
    pub tombstones: u64,
    /// Clients with their numbers.
    pub clients: u64,
}

/// What is known to be lost. There may be more: what nothing is left of is not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Records that were there, and tombstones where it can't be told.
    pub records: u64,
    /// Records of which only an earlier state was found.
    pub outdated: u64,
    /// Clients whose numbers make no sense.
    pub clients: u64,
}

/// What came of a rebuilding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// The last batch for the new store.
    pub batch: Batch,
    /// What the new store got.
    pub kept: Kept,
    /// What is known to be lost.
    pub lost: Lost,
    /// The database's identity; `None` where it was not found, so that the next opening gives one.
    pub database: Option<DatabaseId>,
}

impl Rebuild {
    /// A rebuilding of a database. `database` is its identity, as far as it is known from elsewhere;
    /// one that is found among the rows counts more.
    #[must_use]
    pub fn new(database: Option<DatabaseId>) -> Self {
        Self { database, ..Self::default() }
    }

    /// Takes some rows of the damaged store, which have to come in the order of their keys, and
    /// says what to put into the new one, whose rows are `new`.
    ///
    /// # Errors
    /// When the new store can't be read.
    pub fn step(
        &mut self,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
        new: &dyn Rows,
    ) -> Result<Batch, StoreError> {
        let mut new = Overlay::new(new);
        for (key, row) in rows {
            match key.first() {
                Some(b'c') => self.head(&key, row),
                Some(b'd') if *key == *DATABASE => {
                    let database = core::str::from_utf8(&row).ok();
                    let database = database.and_then(|name| DatabaseId::new(name).ok());
                    self.database = database.or(self.database.take());
                }
                Some(b'r') => self.record(&key, row, &mut new)?,
                Some(b'u') => self.client(&key, row, &mut new),
                Some(b'x') => self.indexed(&key, &row, &new)?,
                Some(b'e' | b'g' | b'i') if planted!(RebuiltEpochsKept) => new.put(key, row),
                // epochs, and what no server wrote
                Some(_) | None => {}
            }
        }
        Ok(new.into_batch())
    }

    /// Ends the rebuilding, when every row was taken.
    ///
    /// # Errors
    /// When the new store can't be read.
    pub fn finish(mut self, new: &dyn Rows) -> Result<Rebuilt, StoreError> {
        let mut new = Overlay::new(new);
        for (collection, id, mut record) in core::mem::take(&mut self.displaced) {
            let found = self.heads.entry(collection.clone()).or_default();
            found.head.seq = found.head.seq.next();
            record.last.seq = found.head.seq;
            self.put(&collection, &id, whole(record), &mut new);
        }
        let mut batch = Batch::new();
        for (collection, Found { mut head, said, missing }) in self.heads {
            self.lost.records += missing.max(said.saturating_sub(head.count));
            (head.horizon, head.swept) = (head.seq, Seq(0));
            if planted!(RebuiltHorizonKept) {
                head.horizon = Seq(0);
            }
            batch.put(head_key(&collection), head.to_row());
        }
        if let Some(database) = &self.database {
            batch.put(DATABASE, database.as_bytes().to_vec());
        }
        let mut all = new.into_batch();
        all.append(batch);
        let Self { kept, lost, database, .. } = self;
        Ok(Rebuilt { batch: all, kept, lost, database })
    }

    /// A stored head says how far seqs had come; the rest of it is counted anew.
    fn head(&mut self, key: &[u8], row: Bytes) {
        let name = name_in(key, |name| Collection::new(name).ok());
        let (Ok(collection), Ok(stored)) = (name, Head::from_row(row)) else { return };
        let found = self.heads.entry(collection).or_default();
        found.said = stored.count;
        found.head.committed_at = stored.committed_at;
        if stored.seq.0 <= MAX_SEQ {
            found.head.seq = stored.seq;
        }
    }

    fn record(&mut self, key: &[u8], row: Bytes, new: &mut Overlay<'_>) -> Result<(), StoreError> {
        let Some((collection, id)) = split(key) else { return Ok(()) };
        let Ok(id) = record_id(id) else { return Ok(()) };
        let Ok(record) = Record::from_row(row) else { return Ok(()) };
        let seq = record.last.seq;
        let is_taken = new.get(&index_key(&collection, seq))?.is_some();
        if is_taken || seq == Seq(0) || seq.0 > MAX_SEQ {
            self.displaced.push((collection, id, record));
            return Ok(());
        }
        let head = &mut self.heads.entry(collection.clone()).or_default().head;
        head.seq = head.seq.max(seq);
        let sound = record.faults(*head).is_empty();
        self.put(&collection, &id, if sound { record } else { whole(record) }, new);
        Ok(())
    }

    fn put(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        record: Record,
        new: &mut Overlay<'_>,
    ) {
        let head = &mut self.heads.entry(collection.clone()).or_default().head;
        head.committed_at = head.committed_at.max(record.committed_at);
        match &record.document {
            Some(document) => {
                self.kept.records += 1;
                head.count += 1;
                head.checksum.add(id, record.last.seq, document);
            }
            None => self.kept.tombstones += 1,
        }
        let mut batch = Batch::new();
        batch.put(index_key(collection, record.last.seq), id.as_bytes().to_vec());
        batch.put(record_key(collection, id), record.to_row());
        new.apply(&batch);
    }

    fn client(&mut self, key: &[u8], row: Bytes, new: &mut Overlay<'_>) {
        let id = name_in(key, |name| ClientId::new(name).ok());
        let (Ok(id), Ok(client)) = (id, Client::from_row(row)) else {
            self.lost.clients += 1;
            return;
        };
        self.kept.clients += 1;
        let mut batch = Batch::new();
        batch.put(client_key(&id), client.to_row());
        new.apply(&batch);
    }

    /// The old index is only asked what it knew: that a record had a change which isn't there.
    fn indexed(&mut self, key: &[u8], id: &[u8], new: &Overlay<'_>) -> Result<(), StoreError> {
        let Some((collection, seq)) = split(key) else { return Ok(()) };
        let (Ok(seq), Ok(id)) = (record::to_u64(seq), record_id(id)) else { return Ok(()) };
        let seq = Seq(seq.min(MAX_SEQ));
        let stored = Record::load(new, &collection, &id)?;
        let found = self.heads.entry(collection).or_default();
        found.head.seq = found.head.seq.max(seq);
        match stored {
            None => found.missing += 1,
            Some(record) if record.last.seq < seq => self.lost.outdated += 1,
            Some(_) => {}
        }
        Ok(())
    }
}

/// A record whose fields have no times of their own, as if it had been inserted by its last change.
fn whole(record: Record) -> Record {
    Record { whole: record.last, fields: Vec::new(), removed: Vec::new(), ..record }
}

/// The collection in a key, and what follows it.
fn split(key: &[u8]) -> Option<(Collection, &[u8])> {
    let rest = key.get(1..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = core::str::from_utf8(&rest[..end]).ok()?;
    Some((Collection::new(name).ok()?, &rest[end + 1..]))
}

#[cfg(test)]
mod tests;
