//! The uses of collections by handles and watches. When nothing uses one any more, the replica may
//! leave it.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::Collection;

/// The collections in use.
pub(super) struct Holds {
    /// The collections that the configuration names.
    named: BTreeSet<Collection>,
    /// The number of handles and watches of each collection.
    counts: BTreeMap<Collection, usize>,
}

impl Holds {
    /// The collections that the configuration names, which are always in use.
    pub(super) fn new(named: &[Collection]) -> Self {
        Self { named: named.iter().cloned().collect(), counts: BTreeMap::new() }
    }

    /// Counts one more user of a collection.
    pub(super) fn add(&mut self, collection: Collection) {
        *self.counts.entry(collection).or_default() += 1;
    }

    /// Counts one user less.
    pub(super) fn remove(&mut self, collection: &Collection) {
        let Some(count) = self.counts.get_mut(collection) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.counts.remove(collection);
        }
    }

    /// Returns `true` if something uses a collection.
    pub(super) fn is_used(&self, collection: &Collection) -> bool {
        self.named.contains(collection) || self.counts.contains_key(collection)
    }
}
