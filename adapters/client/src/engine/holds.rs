//! The uses of collections by handles and watches. When nothing uses one any more, the replica may
//! leave it.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::{Collection, NamedScope};

/// The collections in use.
pub(super) struct Holds {
    /// The collections that the configuration names.
    named: BTreeSet<Collection>,
    /// The number of handles and watches of each collection.
    counts: BTreeMap<Collection, usize>,
    /// The number of handles and watches of each scope, and one for each that the configuration names.
    scopes: BTreeMap<(Collection, NamedScope), usize>,
}

impl Holds {
    /// The collections and scopes that the configuration names, which are always in use.
    pub(super) fn new(
        named: &[Collection],
        scopes: &BTreeMap<Collection, Vec<NamedScope>>,
    ) -> Self {
        let of = |(name, scopes): (&Collection, &Vec<NamedScope>)| -> Vec<_> {
            scopes.iter().map(|scope| ((name.clone(), scope.clone()), 1)).collect()
        };
        let scopes = scopes.iter().flat_map(of).collect();
        Self { named: named.iter().cloned().collect(), counts: BTreeMap::new(), scopes }
    }

    /// Counts one more user of a scope. Returns `true` if it is the first.
    pub(super) fn add_scope(&mut self, scope: (Collection, NamedScope)) -> bool {
        let count = self.scopes.entry(scope).or_default();
        *count += 1;
        *count == 1
    }

    /// Counts one user of a scope less. Returns `true` if it was the last.
    pub(super) fn remove_scope(&mut self, scope: &(Collection, NamedScope)) -> bool {
        let Some(count) = self.scopes.get_mut(scope) else { return false };
        *count = count.saturating_sub(1);
        let is_unused = *count == 0;
        if is_unused {
            self.scopes.remove(scope);
        }
        is_unused
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
