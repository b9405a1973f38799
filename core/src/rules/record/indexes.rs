//! The rows of a server's indexes: the records of a collection by the values of their fields.
//!
//! | key | value |
//! | --- | --- |
//! | `j` collection | [`DeclaredIndexes`]: the collection's indexes |
//! | `y` collection 0 number fields id | the length of the fields, in 2 bytes |
//!
//! The number of an index takes 4 bytes, and the fields are encoded as its [`Index`] says. The rows change
//! in the transaction that changes the record.

use alloc::vec::Vec;

use super::declared::{Built, Declarable, Declaration, Declarations, Stored};
use super::{Head, RecordRow};
use crate::protocol::name::{Collection, RecordId};
use crate::rules::query::{Branch, Index, Query};
use crate::store::{Batch, StoreError};

/// The maximal number of indexes of a collection.
const MAX_INDEXES: usize = 16;

/// The indexes of a collection.
pub(crate) type DeclaredIndexes = Declarations<Index>;
type DeclaredIndex = Declaration<Index>;

impl Declarable for Index {
    const TAG: u8 = b'j';
    const NAME: &'static str = "indexes";
    const MOST: usize = MAX_INDEXES;
    const ROWS: u8 = b'y';

    fn are_in_use(head: &Head) -> bool {
        head.indexed
    }

    fn set_in_use(head: &mut Head, are_in_use: bool) {
        head.indexed = are_in_use;
    }

    fn build(
        index: &DeclaredIndex,
        _: &DeclaredIndexes,
        of: &Stored<'_>,
        left: &mut usize,
    ) -> Result<(Built, Batch), StoreError> {
        let (prefix, _) = Self::range(of.collection, index.number);
        let mut batch = Batch::default();
        let built = index.build(of, left, &mut |id, record| {
            if let Some(document) = &record.document {
                let (key, value) = index.key.entry(prefix.clone(), id, document);
                batch.put(key, value);
            }
            Ok(())
        })?;
        Ok((built, batch))
    }
}

impl DeclaredIndexes {
    /// Follows a change of a record.
    pub(crate) fn change(
        &self,
        collection: &Collection,
        id: &RecordId,
        before: Option<&RecordRow>,
        after: &RecordRow,
    ) -> Batch {
        let mut batch = Batch::default();
        for index in &self.keys {
            let old = before.and_then(|before| index.entry(collection, id, before));
            let new = index.entry(collection, id, after);
            if old == new {
                continue;
            }
            if let Some((key, _)) = old {
                batch.delete(key);
            }
            if let Some((key, value)) = new {
                batch.put(key, value);
            }
        }
        batch
    }

    /// The indexes by which a query, or each of its alternatives, is carried out best, with the beginnings
    /// of their rows' keys; `None` if it is better to read all records.
    pub(crate) fn branches(
        &self,
        collection: &Collection,
        query: &Query,
    ) -> Option<Vec<(Vec<u8>, &Index, Branch)>> {
        let is_whole = |index: &&DeclaredIndex| matches!(index.built, Built::Since(_));
        let whole: Vec<_> = self.keys.iter().filter(is_whole).collect();
        let indexes: Vec<_> = whole.iter().map(|index| &index.key).collect();
        let found = |branch: Branch| {
            let index = whole.get(branch.index)?;
            Some((Index::range(collection, index.number).0, &index.key, branch))
        };
        Branch::choose(query, &indexes)?.into_iter().map(found).collect()
    }
}

impl DeclaredIndex {
    /// The row that says that the index has a record; `None` if it has not.
    pub(crate) fn entry(
        &self,
        collection: &Collection,
        id: &RecordId,
        record: &RecordRow,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let document = record.document.as_ref().filter(|_| self.covers(record.last.seq))?;
        Some(self.key.entry(Index::range(collection, self.number).0, id, document))
    }
}
