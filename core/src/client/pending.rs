//! The writes that each record has in the outbox: kept in memory alone, since the entries say it too.

use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{Hash, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::protocol::name::{Collection, WriteId};

/// The writes of the outbox that are not acknowledged, by record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct PendingWrites {
    /// Each write, behind a hash of its record. Records of one hash are told apart by their entries.
    writes: BTreeSet<(u64, WriteId)>,
    /// The number of writes of each collection that has some.
    collections: BTreeMap<Collection, usize>,
}

/// Says nothing that the store does not say.
impl Hash for PendingWrites {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl PendingWrites {
    pub(super) fn add(&mut self, collection: &Collection, id: &str, write: WriteId) {
        if self.writes.insert((hash(collection, id), write)) {
            *self.collections.entry(collection.clone()).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, collection: &Collection, id: &str, write: WriteId) {
        if !self.writes.remove(&(hash(collection, id), write)) {
            return;
        }
        if let Some(count) = self.collections.get_mut(collection) {
            *count -= 1;
            if *count == 0 {
                self.collections.remove(collection);
            }
        }
    }

    /// The writes that a record may have, in their order.
    pub(super) fn of(
        &self,
        collection: &Collection,
        id: &str,
    ) -> impl DoubleEndedIterator<Item = WriteId> {
        let hash = hash(collection, id);
        let range = (hash, WriteId(0))..=(hash, WriteId(u64::MAX));
        self.writes.range(range).map(|(_, write)| *write)
    }

    /// The number of all of them.
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Returns `true` if a collection has writes.
    pub(super) fn has(&self, collection: &Collection) -> bool {
        self.collections.contains_key(collection)
    }

    /// The collections that have writes.
    pub(super) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collections.keys()
    }
}

fn hash(collection: &str, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), xxh3_64(collection.as_bytes()))
}
