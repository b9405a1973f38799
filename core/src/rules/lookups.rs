//! Records that a policy looks at while it judges another one.

use core::cell::RefCell;

use super::policy::Records;
use super::record::RecordRow;
use crate::protocol::name::{Collection, RecordId};
use crate::store::{Rows, StoreError};

/// The rows of a view, as a policy sees them.
pub(crate) struct LookUps<'a> {
    rows: &'a dyn Rows,
    error: RefCell<Option<StoreError>>,
}

impl<'a> LookUps<'a> {
    pub(crate) fn new(rows: &'a dyn Rows) -> Self {
        Self { rows, error: RefCell::default() }
    }

    /// Ends the look-ups.
    ///
    /// # Errors
    /// When a record could not be read: then the judgement of the policy does not count.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}

impl Records for LookUps<'_> {
    fn exists(&self, collection: &Collection, id: &RecordId) -> bool {
        match RecordRow::load(self.rows, collection, id) {
            Ok(record) => record.is_some_and(|record| record.document.is_some()),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                false
            }
        }
    }
}
