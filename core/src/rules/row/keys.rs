//! The keys of a replica's rows.

use alloc::vec::Vec;

use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::store::StoreError;

/// The key prefix of a user's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) number: u32,
    /// `true` while everything in the slot is being removed.
    pub(crate) leaving: bool,
}

impl Slot {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut row = self.number.to_be_bytes().to_vec();
        // the row of a user who stays is encoded as before
        if self.leaving {
            row.push(1);
        }
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("a stored slot makes no sense");
        let (number, rest) = row.split_first_chunk().ok_or_else(damaged)?;
        let leaving = match rest {
            [] => false,
            [1] => true,
            [..] => return Err(damaged()),
        };
        Ok(Self { number: u32::from_be_bytes(*number), leaving })
    }
}

/// The keys of one user's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keys {
    slot: u32,
}

impl Keys {
    pub(crate) fn new(slot: u32) -> Self {
        Self { slot }
    }

    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    /// The key of the row that names a user's slot.
    pub(crate) fn user(name: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(name.len() + 1);
        key.push(0);
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// The range of all [`Keys::user`] rows.
    pub(crate) fn users() -> (Vec<u8>, Vec<u8>) {
        (Vec::from([0]), Vec::from([1]))
    }

    /// The range of all rows of the user but the first one.
    pub(crate) fn everything(self) -> (Vec<u8>, Vec<u8>) {
        let mut to = self.tagged(u8::MAX, 0);
        to.push(u8::MAX);
        let mut from = self.tagged(0, 0);
        from.pop();
        (from, to)
    }

    pub(crate) fn identity(self) -> Vec<u8> {
        self.tagged(b'i', 0)
    }

    pub(crate) fn stream(self, collection: &Collection) -> Vec<u8> {
        let mut key = self.tagged(b'c', collection.len());
        key.extend_from_slice(collection.as_bytes());
        key
    }

    /// The range of all [`Keys::stream`] rows.
    pub(crate) fn streams(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'c')
    }

    pub(crate) fn row(self, collection: &Collection, id: &str) -> Vec<u8> {
        self.record(b'd', collection, id)
    }

    /// The range of a collection's rows behind `after` and up to `up_to`; `None` is unbounded.
    pub(crate) fn rows(
        self,
        collection: &Collection,
        after: Option<&RecordId>,
        up_to: Option<&RecordId>,
    ) -> (Vec<u8>, Vec<u8>) {
        let from = after.map_or_else(|| self.row(collection, ""), |id| self.behind(collection, id));
        let to = up_to.map_or_else(|| self.end_of(collection), |id| self.behind(collection, id));
        (from, to)
    }

    /// The range of all [`Keys::row`] rows of the collections behind this one, or of all.
    pub(crate) fn records_behind(self, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        self.behind_collection(b'd', collection)
    }

    /// The range of the rows by which earlier versions found the writes of the collections' records, of
    /// those behind this one, or of all.
    pub(crate) fn pending_behind(self, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        self.behind_collection(b'p', collection)
    }

    pub(crate) fn entry(self, write: WriteId) -> Vec<u8> {
        let mut key = self.tagged(b'o', 8);
        key.extend_from_slice(&write.0.to_be_bytes());
        key
    }

    /// The common prefix of the keys of all [`Keys::entry`] rows.
    pub(crate) fn outbox(self) -> Vec<u8> {
        self.tagged(b'o', 0)
    }

    /// The range of the outbox from an id on.
    pub(crate) fn entries(self, from: WriteId) -> (Vec<u8>, Vec<u8>) {
        (self.entry(from), self.all(b'o').1)
    }

    /// The key of a row by which earlier versions found a record's write.
    #[cfg(test)]
    pub(crate) fn pending(self, collection: &Collection, id: &str, write: WriteId) -> Vec<u8> {
        let mut key = self.record(b'p', collection, id);
        key.push(0);
        key.extend_from_slice(&write.0.to_be_bytes());
        key
    }

    pub(crate) fn deferred(self, collection: &Collection, id: &str) -> Vec<u8> {
        self.record(b'k', collection, id)
    }

    /// The range of all [`Keys::deferred`] rows.
    pub(crate) fn all_deferred(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'k')
    }

    pub(crate) fn rejected(self, write: WriteId) -> Vec<u8> {
        let mut key = self.tagged(b'r', 8);
        key.extend_from_slice(&write.0.to_be_bytes());
        key
    }

    /// The key of the row that names an index.
    pub(crate) fn index(self, number: u32) -> Vec<u8> {
        self.numbered(b'n', number)
    }

    /// The range of all [`Keys::index`] rows.
    pub(crate) fn indexes(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'n')
    }

    /// The bytes with which the keys of an index's rows begin.
    pub(crate) fn indexed(self, number: u32) -> Vec<u8> {
        self.numbered(b'x', number)
    }

    /// The end of the range of an index's rows.
    pub(crate) fn end_of_index(self, number: u32) -> Vec<u8> {
        let mut key = self.indexed(number);
        // no encoding begins with this
        key.push(u8::MAX);
        key
    }

    /// The range of the rows of all indexes.
    pub(crate) fn all_indexed(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'x')
    }

    fn numbered(self, tag: u8, number: u32) -> Vec<u8> {
        let mut key = self.tagged(tag, 4);
        key.extend_from_slice(&number.to_be_bytes());
        key
    }

    /// The range of all [`Keys::rejected`] rows.
    pub(crate) fn all_rejected(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'r')
    }

    fn tagged(self, tag: u8, room: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(6 + room);
        key.push(1);
        key.extend_from_slice(&self.slot.to_be_bytes());
        key.push(tag);
        key
    }

    fn all(self, tag: u8) -> (Vec<u8>, Vec<u8>) {
        (self.tagged(tag, 0), self.tagged(tag + 1, 0))
    }

    fn record(self, tag: u8, collection: &Collection, id: &str) -> Vec<u8> {
        let mut key = self.tagged(tag, collection.len() + id.len() + 10);
        key.extend_from_slice(collection.as_bytes());
        key.push(0);
        key.extend_from_slice(id.as_bytes());
        key
    }

    fn behind(self, collection: &Collection, id: &RecordId) -> Vec<u8> {
        let mut key = self.row(collection, id);
        key.push(0);
        key
    }

    fn end_of(self, collection: &Collection) -> Vec<u8> {
        self.end_of_tagged(b'd', collection)
    }

    fn end_of_tagged(self, tag: u8, collection: &Collection) -> Vec<u8> {
        let mut key = self.tagged(tag, collection.len() + 1);
        key.extend_from_slice(collection.as_bytes());
        key.push(1);
        key
    }

    fn behind_collection(self, tag: u8, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        let (from, to) = self.all(tag);
        (collection.map_or(from, |collection| self.end_of_tagged(tag, collection)), to)
    }
}

/// The collection and record in a `d` or `k` key.
pub(crate) fn record_of(key: &[u8]) -> Result<(Collection, RecordId), StoreError> {
    let damaged = || StoreError::damaged("a stored key names no record");
    let names = core::str::from_utf8(key.get(6..).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let (collection, id) = names.split_once('\0').ok_or_else(damaged)?;
    let collection = Collection::new(collection).map_err(|_| damaged())?;
    Ok((collection, RecordId::new(id).map_err(|_| damaged())?))
}

/// The record in a `d` or `k` key.
pub(crate) fn record_id_of(key: &[u8]) -> Result<RecordId, StoreError> {
    let id = key.get(6..).and_then(|names| names.splitn(2, |byte| *byte == 0).nth(1));
    id.and_then(|id| core::str::from_utf8(id).ok())
        .and_then(|id| RecordId::new(id).ok())
        .ok_or_else(|| StoreError::damaged("a stored key names no record"))
}

/// The collection of the record in a `d`, `k` or `p` key.
pub(crate) fn collection_in(key: &[u8]) -> Result<Collection, StoreError> {
    let name = key.get(6..).and_then(|names| names.split(|byte| *byte == 0).next());
    name.and_then(|name| core::str::from_utf8(name).ok())
        .and_then(|name| Collection::new(name).ok())
        .ok_or_else(|| StoreError::damaged("a stored key names no collection"))
}

/// The collection in a `c` key.
pub(crate) fn collection_of(key: &[u8]) -> Result<Collection, StoreError> {
    key.get(6..)
        .and_then(|name| core::str::from_utf8(name).ok())
        .and_then(|name| Collection::new(name).ok())
        .ok_or_else(|| StoreError::damaged("a stored key names no collection"))
}

/// The number in an `n` or `x` key.
pub(crate) fn index_number_of(key: &[u8]) -> Result<u32, StoreError> {
    let number = key.get(6..).and_then(<[u8]>::first_chunk);
    number
        .map(|number| u32::from_be_bytes(*number))
        .ok_or_else(|| StoreError::damaged("a stored key names no index"))
}

/// The id at the end of an `o`, `p` or `r` key.
pub(crate) fn write_id_of(key: &[u8]) -> Result<WriteId, StoreError> {
    let bytes = key.last_chunk().ok_or_else(|| StoreError::damaged("a stored key is cut short"))?;
    Ok(WriteId(u64::from_be_bytes(*bytes)))
}
