//! The indexes of a store that are kept, and those of them that are whole.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Mono;
use crate::rules::query::{Branch, Index, IndexRows, Plan, Query};
use crate::rules::row::{IndexRow, Keys};
use crate::store::Rows;

/// An index that is kept in step with the records.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct KeptIndex {
    pub(super) number: u32,
    pub(super) index: Index,
}

/// The indexes that are kept in step, by their collections.
pub(super) type KeptIndexes = BTreeMap<Collection, Vec<KeptIndex>>;

/// The indexes of a store.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Indexes {
    /// `None` where there are none.
    pub(super) kept: Option<Arc<KeptIndexes>>,
    /// The indexes to be built or removed.
    pub(super) unfinished: BTreeMap<u32, Unfinished>,
    /// The time of the next step in that.
    pub(super) due: Option<Mono>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Unfinished {
    pub(super) row: IndexRow,
    /// The number of records that were read since the start.
    pub(super) records: u64,
}

impl KeptIndex {
    /// The row that says that the index has a record with this document.
    pub(super) fn entry(
        &self,
        keys: Keys,
        id: &RecordId,
        document: &Document,
    ) -> (Vec<u8>, Vec<u8>) {
        self.index.entry(keys.indexed(self.number), id, document)
    }
}

impl Indexes {
    /// The indexes that are kept in step with the records.
    pub(super) fn kept(&self) -> Option<Arc<KeptIndexes>> {
        self.kept.clone()
    }

    /// The index by which a query is carried out best, if it is one that is whole.
    pub(super) fn plan(
        &self,
        keys: Keys,
        collection: &Collection,
        query: &Query,
    ) -> Option<(Found<'_>, Plan)> {
        let whole = self.whole(collection)?;
        let (at, plan) = Plan::choose(query, whole.iter().map(|kept| &kept.index))?;
        let found = whole.get(at)?;
        Some((Found { prefix: keys.indexed(found.number), index: &found.index }, plan))
    }

    /// The indexes by which a query, or each of its alternatives, is carried out best.
    pub(super) fn branches(
        &self,
        keys: Keys,
        collection: &Collection,
        query: &Query,
    ) -> Option<Vec<(Found<'_>, Branch)>> {
        let whole = self.whole(collection)?;
        let indexes: Vec<_> = whole.iter().map(|kept| &kept.index).collect();
        let found = |branch: Branch| {
            let kept = whole.get(branch.index)?;
            Some((Found { prefix: keys.indexed(kept.number), index: &kept.index }, branch))
        };
        Branch::choose(query, &indexes)?.into_iter().map(found).collect()
    }

    /// The indexes of a collection that are whole.
    fn whole(&self, collection: &Collection) -> Option<Vec<&KeptIndex>> {
        let of = self.kept.as_ref()?.get(collection)?;
        Some(of.iter().filter(|index| !self.unfinished.contains_key(&index.number)).collect())
    }
}

/// An index that a query is carried out by.
pub(super) struct Found<'a> {
    prefix: Vec<u8>,
    index: &'a Index,
}

impl Found<'_> {
    /// Its rows in a store.
    pub(super) fn rows<'a>(&'a self, rows: &'a dyn Rows) -> IndexRows<'a> {
        IndexRows { rows, prefix: &self.prefix, index: self.index }
    }
}
