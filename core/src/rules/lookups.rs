//! Records that a policy looks at while it judges another one.

use core::cell::RefCell;

use alloc::collections::{BTreeMap, BTreeSet};

use super::policy::Records;
use super::record::RecordRow;
use crate::protocol::name::{Collection, RecordId};
use crate::store::{Rows, StoreError};

/// The number of records that are noted one by one; beyond it, whole collections are.
const MAX_LOOKED: usize = 1024;

/// The records that a policy has looked at.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Looked {
    /// `None` for any record of the collection.
    collections: BTreeMap<Collection, Option<BTreeSet<RecordId>>>,
    count: usize,
}

impl Looked {
    pub(crate) fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    /// The collections of the records.
    pub(crate) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collections.keys()
    }

    /// Returns `true` if a record of this collection may be one of them.
    pub(crate) fn covers(&self, collection: &Collection) -> bool {
        self.collections.contains_key(collection)
    }

    /// Returns `true` if this record may be one of them.
    pub(crate) fn holds(&self, collection: &Collection, id: &RecordId) -> bool {
        let of_collection = self.collections.get(collection);
        of_collection.is_some_and(|ids| ids.as_ref().is_none_or(|ids| ids.contains(id)))
    }

    pub(crate) fn add(&mut self, others: Self) {
        for (collection, ids) in others.collections {
            match ids {
                Some(ids) => ids.iter().for_each(|id| self.note(&collection, id)),
                None => self.note_any(collection),
            }
        }
    }

    fn note(&mut self, collection: &Collection, id: &RecordId) {
        match self.collections.get_mut(collection) {
            Some(None) => {}
            Some(Some(ids)) if ids.contains(id) => {}
            _ if self.count >= MAX_LOOKED => self.note_any(collection.clone()),
            Some(Some(ids)) => {
                ids.insert(id.clone());
                self.count += 1;
            }
            None => {
                self.collections.insert(collection.clone(), Some([id.clone()].into()));
                self.count += 1;
            }
        }
    }

    fn note_any(&mut self, collection: Collection) {
        let before = self.collections.insert(collection, None);
        self.count -= before.flatten().map_or(0, |ids| ids.len());
    }
}

/// The rows of a view, as a policy sees them.
pub(crate) struct LookUps<'a> {
    rows: &'a dyn Rows,
    looked: RefCell<Looked>,
    error: RefCell<Option<StoreError>>,
}

impl<'a> LookUps<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Self {
        Self { rows, looked: RefCell::default(), error: RefCell::default() }
    }

    /// Notes collections of which any record may have been looked at.
    pub(crate) fn note_all(&self, collections: BTreeSet<Collection>) {
        collections.into_iter().for_each(|it| self.looked.borrow_mut().note_any(it));
    }

    /// Ends the look-ups. Returns the records that were looked at, there or not.
    ///
    /// # Errors
    /// When a record could not be read: then the judgement of the policy does not count.
    pub(crate) fn finish(self) -> Result<Looked, StoreError> {
        let looked = self.looked.into_inner();
        self.error.into_inner().map_or(Ok(looked), Err)
    }
}

impl Records for LookUps<'_> {
    fn exists(&self, collection: &Collection, id: &RecordId) -> bool {
        self.looked.borrow_mut().note(collection, id);
        match RecordRow::load(self.rows, collection, id) {
            Ok(record) => record.is_some_and(|record| record.document.is_some()),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn records_are_noted_one_by_one_up_to_a_number() {
        let [a, b] = ["a", "b"].map(|name| Collection::new(name).unwrap());
        let id = |number: usize| RecordId::new(&format!("{number}")).unwrap();
        let mut looked = Looked::default();
        for number in 0..MAX_LOOKED {
            looked.note(&a, &id(number));
            looked.note(&a, &id(0));
        }
        assert!(looked.holds(&a, &id(7)) && !looked.holds(&a, &id(MAX_LOOKED)));
        assert!(!looked.covers(&b) && !looked.holds(&b, &id(7)));
        looked.note(&b, &id(7));
        assert!(looked.holds(&b, &id(8)), "any record of the other collection");
        looked.note(&a, &id(MAX_LOOKED));
        assert!(looked.holds(&a, &id(MAX_LOOKED + 1)) && looked.count == 0);
        let mut sum = Looked::default();
        sum.note(&a, &id(1));
        sum.add(looked);
        assert!(sum.holds(&a, &id(9)) && sum.holds(&b, &id(9)) && sum.count == 0);
    }
}
