//! A sorted list whose members know their places.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::definition::{Query, QueryCursor};
use crate::protocol::name::RecordId;
use crate::store::StoreError;

/// The place of a record in a query's order. It ends with the record's id.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    bytes: Arc<[u8]>,
    id_at: usize,
}

impl Key {
    pub(super) fn new(bytes: &[u8], id: &RecordId) -> Self {
        Self { id_at: bytes.len() - id.len(), bytes: bytes.into() }
    }

    /// The place, for queries of the same order.
    pub(super) fn cursor(&self, query: &Query) -> QueryCursor {
        query.cursor_at(self.bytes.to_vec(), self.bytes.len() - self.id_at)
    }

    /// The record.
    pub(super) fn id(&self) -> Result<RecordId, StoreError> {
        let id = core::str::from_utf8(&self.bytes[self.id_at..]).ok();
        let id = id.and_then(|id| RecordId::new(id).ok());
        id.ok_or_else(|| StoreError::damaged("a live query holds an id that is none"))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

/// The maximal number of keys in a chunk.
const CHUNK: usize = 512;

/// Keys in their order, in chunks: a change moves one chunk, and a place is found by counting them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranked {
    /// None is empty.
    chunks: Vec<Vec<Key>>,
    len: usize,
}

impl Ranked {
    /// The list of these keys, which must be sorted.
    pub(super) fn of_sorted(keys: &[Key]) -> Self {
        let chunks = keys.chunks(CHUNK / 2).map(<[Key]>::to_vec).collect();
        Self { chunks, len: keys.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of keys below this one.
    pub(super) fn rank(&self, key: &Key) -> usize {
        let chunk = self.chunk_of(key);
        let before: usize = self.chunks[..chunk].iter().map(Vec::len).sum();
        before + self.chunks.get(chunk).map_or(0, |keys| keys.partition_point(|one| one < key))
    }

    /// The key at a place.
    pub(super) fn get(&self, mut rank: usize) -> Option<&Key> {
        for chunk in &self.chunks {
            if rank < chunk.len() {
                return chunk.get(rank);
            }
            rank -= chunk.len();
        }
        None
    }

    /// Inserts a key that is not there.
    pub(super) fn insert(&mut self, key: Key) {
        let last = self.chunks.len().saturating_sub(1);
        let at = self.chunk_of(&key).min(last);
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(at) else {
            return self.chunks.push(alloc::vec![key]);
        };
        chunk.insert(chunk.partition_point(|one| *one < key), key);
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Removes a key, if it is there.
    pub(super) fn remove(&mut self, key: &Key) {
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if let Ok(place) = chunk.binary_search(key) {
            chunk.remove(place);
            self.len -= 1;
        }
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
    }

    /// Removes the keys from a place on, and returns them.
    pub(super) fn split_off(&mut self, rank: usize) -> Vec<Key> {
        let (mut at, mut left) = (0, rank);
        while let Some(chunk) = self.chunks.get(at).filter(|chunk| left >= chunk.len()) {
            left -= chunk.len();
            at += 1;
        }
        let mut removed = Vec::new();
        for mut chunk in self.chunks.split_off(at) {
            removed.append(&mut chunk.split_off(core::mem::take(&mut left).min(chunk.len())));
            if !chunk.is_empty() {
                self.chunks.push(chunk);
            }
        }
        self.len -= removed.len();
        removed
    }

    /// The first chunk that does not end below a key.
    fn chunk_of(&self, key: &Key) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last < key))
    }
}
