//! A transaction while the app makes it: several writes of records, and expectations, with one fate.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::interface::Misuse;
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::unit::Unit;
use crate::protocol::write::Change;
use crate::store::StoreError;

type Place = (Collection, RecordId);

/// The records as they are at the transaction's begin.
pub(super) type Seeing<'a> =
    dyn Fn(&Collection, &RecordId) -> Result<Option<Document>, StoreError> + 'a;

/// A transaction in the making, for [`Write::Transaction`](super::interface::Write::Transaction).
///
/// It sees what the app sees, its own writes included, and nothing comes in between. Its members are one
/// write and one expectation of a record at most: two writes of a record become one.
pub struct TransactionDraft<'a> {
    seeing: &'a Seeing<'a>,
    /// Each record that is written, as it was and as it is to be.
    writes: Vec<(Place, States)>,
    index: BTreeMap<Place, usize>,
    expected: BTreeMap<Place, Option<Document>>,
    keeps_won: bool,
}

/// A record before a transaction and after it.
pub(super) struct States {
    pub(super) before: Option<Document>,
    pub(super) after: Option<Document>,
}

/// The content of a transaction.
pub(super) struct Made {
    pub(super) expected: Vec<(Place, Option<Document>)>,
    pub(super) writes: Vec<(Place, Change, Option<Document>)>,
    pub(super) keeps_won: bool,
}

impl<'a> TransactionDraft<'a> {
    /// The most members of a transaction.
    pub const MAX_MEMBERS: usize = Unit::MAX_MEMBERS;

    pub(super) fn new(seeing: &'a Seeing<'a>) -> Self {
        let (writes, index, expected) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { seeing, writes, index, expected, keeps_won: false }
    }

    /// A record as the app sees it, with the transaction's own writes made.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn get(&self, collection: &Collection, id: &RecordId) -> Result<Option<Document>, Misuse> {
        match self.written(collection, id) {
            Some(states) => Ok(states.after.clone()),
            None => Ok((self.seeing)(collection, id)?),
        }
    }

    /// Makes a record be this document, whether it exists or not.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn save(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        document: Document,
    ) -> Result<(), Misuse> {
        self.set(collection, id, Some(document))
    }

    /// Sets and removes some fields of an existing record.
    ///
    /// # Errors
    /// When there is no such record, or the store can't be read.
    pub fn update(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        delta: &Delta,
    ) -> Result<(), Misuse> {
        let Some(seen) = self.get(collection, id)? else {
            let (collection, record_id) = (collection.clone(), id.clone());
            return Err(Misuse::NoSuchRecord { collection, record_id });
        };
        self.set(collection, id, Some(delta.apply(&seen)))
    }

    /// Removes a record. Nothing happens where there is none.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn delete(&mut self, collection: &Collection, id: &RecordId) -> Result<(), Misuse> {
        self.set(collection, id, None)
    }

    /// Lets the transaction fail where a record is no longer as it is now, at its begin, when the server
    /// takes it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn expect_unchanged(
        &mut self,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<(), Misuse> {
        let seen = self.at_begin(collection, id)?;
        self.expected.insert((collection.clone(), id.clone()), seen);
        Ok(())
    }

    /// The same, of a state that the app was shown earlier; `None`: there was no record.
    ///
    /// # Errors
    /// When the record is another already, or the store can't be read.
    pub fn expect(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        seen: Option<&Document>,
    ) -> Result<(), Misuse> {
        let found = self.at_begin(collection, id)?;
        let (collection, record_id) = (collection.clone(), id.clone());
        if found.as_ref() != seen {
            return Err(Misuse::PreconditionFailed { collection, record_id });
        }
        self.expected.insert((collection, record_id), found);
        Ok(())
    }

    /// Lets the other members go on where a conflict strategy gives one of them up. Otherwise the
    /// transaction is rejected whole then, with the reason `LOST`.
    pub fn keep_what_won(&mut self) {
        self.keeps_won = true;
    }

    fn set(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        after: Option<Document>,
    ) -> Result<(), Misuse> {
        let place = (collection.clone(), id.clone());
        if let Some((_, states)) =
            self.index.get(&place).and_then(|index| self.writes.get_mut(*index))
        {
            states.after = after;
            return Ok(());
        }
        let before = (self.seeing)(collection, id)?;
        self.index.insert(place.clone(), self.writes.len());
        self.writes.push((place, States { before, after }));
        Ok(())
    }

    fn at_begin(&self, collection: &Collection, id: &RecordId) -> Result<Option<Document>, Misuse> {
        match self.written(collection, id) {
            Some(states) => Ok(states.before.clone()),
            None => Ok((self.seeing)(collection, id)?),
        }
    }

    /// The states of a record that this transaction has written.
    fn written(&self, collection: &Collection, id: &RecordId) -> Option<&States> {
        let index = self.index.get(&(collection.clone(), id.clone()))?;
        self.writes.get(*index).map(|(_, states)| states)
    }

    /// Its content: the records that it changes, and the expectations.
    pub(super) fn finish(self) -> Made {
        let change = |(place, States { before, after }): (Place, States)| {
            let change = Change::between(before.as_ref(), after.as_ref())?;
            Some((place, change, after))
        };
        Made {
            expected: self.expected.into_iter().collect(),
            writes: self.writes.into_iter().filter_map(change).collect(),
            keeps_won: self.keeps_won,
        }
    }
}
