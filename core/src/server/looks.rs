//! The records at which the rights of a stream have looked.

use crate::protocol::name::Collection;
use crate::rules::lookups::Looked;
use crate::server::ring::Rings;

/// The records that the rights of a stream have looked at.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Looks {
    looked: Looked,
    /// None of them has come or gone by what was published up to this number.
    seen: u64,
}

impl Looks {
    /// Adds what was looked at in a view that has everything up to a number.
    pub(crate) fn add(&mut self, looked: Looked, published: u64) {
        self.seen = if self.looked.is_empty() { published } else { self.seen.min(published) };
        self.looked.add(looked);
    }

    /// Adds what others have looked at.
    pub(crate) fn join(&mut self, others: Self) {
        self.add(others.looked, others.seen);
    }

    pub(crate) fn are_none(&self) -> bool {
        self.looked.is_empty()
    }

    /// The collections of the records.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.looked.collections()
    }

    /// Returns `true` if a record of this collection may be one of them.
    pub(crate) fn cover(&self, collection: &Collection) -> bool {
        self.looked.covers(collection)
    }

    /// Everything was taken in that was published up to a number.
    pub(crate) fn pass(&mut self, published: u64) {
        self.seen = published;
    }

    /// Returns `true` if one of the records may have come or gone since.
    pub(crate) fn have_moved(&self, rings: &Rings) -> bool {
        self.seen < rings.published()
            && self.looked.collections().any(|collection| {
                let is_one = |id: &_| self.looked.holds(collection, id);
                rings.get(collection).is_some_and(|ring| ring.moved_above(self.seen, is_one))
            })
    }
}
