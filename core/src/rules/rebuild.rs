//! Rebuilding of a server's rows from the readable rows of a damaged store.
//!
//! Some rows may be missing, and others may be of an earlier time. So only the records themselves
//! are trusted. The change index, counts and checksums are computed from them, and three statements
//! are made that hold whatever was lost (PROTOCOL 11.11):
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
    self, ClientRow, DATABASE, Head, RecordRow, client_key, head_key, index_key, name_in,
    record_id, record_key,
};
use crate::protocol::name::{ClientId, Collection, DatabaseId, RecordId, Seq};
use crate::store::{Batch, Overlay, Rows, StoreError};

/// The largest seq of the protocol.
const MAX_SEQ: u64 = (1 << 53) - 1;

/// A rebuilding in progress. The new store begins empty and commits every batch before the next
/// step.
#[derive(Debug, Default)]
pub struct Rebuild {
    heads: BTreeMap<Collection, Found>,
    database: Option<DatabaseId>,
    /// Records with an impossible seq; they get a new one at the end.
    displaced: Vec<(Collection, RecordId, RecordRow)>,
    kept: Kept,
    lost: Lost,
}

/// The rows of a collection that were found so far.
#[derive(Debug, Default)]
struct Found {
    head: Head,
    /// The number of records according to the stored head.
    said: u64,
    /// Changes in the index whose records are lost.
    missing: u64,
}

/// The contents of the new store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Records.
    pub records: u64,
    /// Tombstones of deleted records.
    pub tombstones: u64,
    /// Clients with their numbers.
    pub clients: u64,
}

/// The known losses. There may be more: a record without any trace is not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Lost records, and lost tombstones that can't be told from records.
    pub records: u64,
    /// Records of which only an earlier state was found.
    pub outdated: u64,
    /// Clients with impossible numbers.
    pub clients: u64,
}

/// The result of a rebuilding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rebuilt {
    /// The last batch for the new store.
    pub batch: Batch,
    /// The contents of the new store.
    pub kept: Kept,
    /// The known losses.
    pub lost: Lost,
    /// The database's identity; `None` if it was not found. Then the next opening assigns one.
    pub database: Option<DatabaseId>,
}

impl Rebuild {
    /// A rebuilding of a database. `database` is its identity from another source, if known; an
    /// identity among the rows takes precedence.
    #[must_use]
    pub fn new(database: Option<DatabaseId>) -> Self {
        Self { database, ..Self::default() }
    }

    /// Reads some rows of the damaged store, which must come in the order of their keys, and
    /// returns the batch for the new one, whose rows are `new`.
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
                // epochs, scopes and indexes (the next opening builds them anew), and rows that no server
                // wrote
                Some(_) | None => {}
            }
        }
        Ok(new.into_batch())
    }

    /// Ends the rebuilding, after every row was read.
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
        let mut batch = Batch::default();
        for (collection, Found { mut head, said, missing }) in self.heads {
            self.lost.records += missing.max(said.saturating_sub(head.count));
            (head.horizon, head.swept, head.measured) = (head.seq, Seq(0), head.seq);
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

    /// Reads the seq and the time of a stored head. Count and checksum are recomputed.
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
        let Ok(record) = RecordRow::from_row(row) else { return Ok(()) };
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
        record: RecordRow,
        new: &mut Overlay<'_>,
    ) {
        // their numbers name no scopes of the new store
        let record = RecordRow { left: Vec::new(), ..record };
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
        let row = record.to_row();
        head.bytes += record::size_of_record(id, &row);
        let mut batch = Batch::default();
        batch.put(index_key(collection, record.last.seq), id.as_bytes().to_vec());
        batch.put(record_key(collection, id), row);
        new.apply(&batch);
    }

    fn client(&mut self, key: &[u8], row: Bytes, new: &mut Overlay<'_>) {
        let id = name_in(key, |name| ClientId::new(name).ok());
        let (Ok(id), Ok(client)) = (id, ClientRow::from_row(row)) else {
            self.lost.clients += 1;
            return;
        };
        self.kept.clients += 1;
        let mut batch = Batch::default();
        batch.put(client_key(&id), client.to_row());
        new.apply(&batch);
    }

    /// Reads an entry of the old index, only to find records whose change is lost.
    fn indexed(&mut self, key: &[u8], id: &[u8], new: &Overlay<'_>) -> Result<(), StoreError> {
        let Some((collection, seq)) = split(key) else { return Ok(()) };
        let (Ok(seq), Ok(id)) = (record::to_u64(seq), record_id(id)) else { return Ok(()) };
        let seq = Seq(seq.min(MAX_SEQ));
        let stored = RecordRow::load(new, &collection, &id)?;
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

/// A record without times of fields, as if its last change had inserted it.
fn whole(record: RecordRow) -> RecordRow {
    RecordRow { whole: record.last, fields: Vec::new(), removed: Vec::new(), ..record }
}

/// The collection in a key, and the rest of the key.
fn split(key: &[u8]) -> Option<(Collection, &[u8])> {
    let rest = key.get(1..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = core::str::from_utf8(&rest[..end]).ok()?;
    Some((Collection::new(name).ok()?, &rest[end + 1..]))
}

#[cfg(test)]
mod tests;
