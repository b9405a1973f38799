//! The record that a write meets, and conflicts with it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::document::Document;
use crate::protocol::message::{Mutation, ServerChange};
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::protocol::unit::Expectation;
use crate::protocol::write::Change;
use crate::rules::record::indexes::DeclaredIndexes;
use crate::rules::record::scopes::{Declared, ScopeRows};
use crate::rules::record::{Head, RecordRow, Totals};
use crate::rules::scope::{MAX_SCOPES, ScopeChange};
use crate::store::{Batch, Rows, StoreError};

/// The present state of the record of a write.
pub(super) struct Subject {
    pub(super) collection: Collection,
    pub(super) id: RecordId,
    pub(super) head: Head,
    pub(super) record: Option<RecordRow>,
    /// The size of that record, as its collection's size counts it.
    pub(super) size: u64,
    /// The totals, if a write would begin the collection.
    pub(super) begins: Option<Totals>,
    /// The collection's scope keys, if it has or had any.
    pub(super) scopes: Option<Declared>,
    /// The collection's indexes, if it has or had any.
    pub(super) indexes: Option<DeclaredIndexes>,
}

impl Subject {
    pub(super) fn document(&self) -> Option<&Document> {
        self.record.as_ref()?.document.as_ref()
    }

    /// The seq of the record's last change. Without any trace of the record it is the horizon, up
    /// to which the record may have been deleted.
    pub(super) fn seq(&self) -> Seq {
        self.record.as_ref().map_or(self.head.horizon, |record| record.last.seq)
    }

    /// The changes of the rows of scopes that follow from a change of the record, and its scopes.
    pub(super) fn move_in_scopes(
        &self,
        rows: &dyn Rows,
        record: &mut RecordRow,
    ) -> Result<(Batch, Option<Box<ScopeChange>>), StoreError> {
        let Some(declared) = &self.scopes else { return Ok((Batch::default(), None)) };
        let mut scopes = ScopeRows::new(rows, &self.collection, declared);
        let change = scopes.change(&self.id, self.record.as_ref(), record)?;
        Ok((scopes.into_batch(), change.map(Box::new)))
    }

    /// The changes of the rows of indexes that follow from a change of the record.
    pub(super) fn move_in_indexes(&self, record: &RecordRow) -> Batch {
        let Some(indexes) = &self.indexes else { return Batch::default() };
        indexes.change(&self.collection, &self.id, self.record.as_ref(), record)
    }

    /// The collection's head, which says whether there are rows of scopes and of indexes.
    pub(super) fn head(&self) -> Head {
        let scoped = self.scopes.as_ref().is_some_and(Declared::is_in_use);
        let indexed = self.indexes.as_ref().is_some_and(DeclaredIndexes::is_in_use);
        Head { scoped, indexed, ..self.head }
    }

    /// The reason why the record may not become this document, if that would be in too many scopes.
    pub(super) fn too_many_scopes(&self, document: &Document) -> Option<String> {
        let key = self.scopes.as_ref()?.too_many(document)?;
        Some(format!(
            "the record would be in more than {MAX_SCOPES} scopes of {key}: a record can't be"
        ))
    }

    /// The state of the record in a `CONFLICT`.
    pub(super) fn state(&self) -> ServerChange {
        self.record.as_ref().map_or_else(
            || ServerChange {
                change: Change::delete(),
                seq: Some(self.seq()),
                version: None,
                timestamp: None,
                at: Vec::new(),
                user_id: None,
            },
            RecordRow::state,
        )
    }
}

/// Returns `true` if something that a write touches was changed above its base by anyone but this
/// connection, or if the base can't be compared (PROTOCOL 9.13).
pub(super) fn conflicts(mutation: &Mutation, subject: &Subject, own: &[Seq]) -> bool {
    let Some(base) = mutation.base else { return false };
    if base > subject.head.seq {
        return true;
    }
    let Some(record) = &subject.record else {
        return forgets_a_delete(base, subject.head.horizon);
    };
    let newer = newer(base, own);
    if newer(record.whole.seq) {
        return true;
    }
    if base < subject.head.horizon && newer(record.last.seq) {
        return true;
    }
    let change = &mutation.change;
    let mut stamps = record.fields.iter().chain(&record.removed);
    stamps.any(|(name, stamp)| newer(stamp.seq) && change.touches(name))
}

/// Returns `true` if a record is not as the writer of an expectation saw it (PROTOCOL 9.38).
pub(super) fn expectation_fails(expectation: &Expectation, subject: &Subject, own: &[Seq]) -> bool {
    let Some(base) = expectation.base else { return subject.document().is_some() };
    let Some(record) = subject.record.as_ref().filter(|record| record.document.is_some()) else {
        return true;
    };
    let newer = newer(base, own);
    let mut stamps = record.fields.iter().chain(&record.removed);
    base > subject.head.seq
        || newer(record.whole.seq)
        || newer(record.last.seq)
        // a removed field may have been forgotten
        || (base < subject.head.horizon && record.last.seq > base)
        || stamps.any(|(_, stamp)| newer(stamp.seq))
}

/// Returns `true` if a record without any trace may have been deleted above a base, with its
/// tombstone gone (PROTOCOL 9.13 c). A writer with base 0 knows nothing of the record, so its
/// insert can't bring it back.
fn forgets_a_delete(base: Seq, horizon: Seq) -> bool {
    base > Seq(0) && base < horizon
}

/// A test for seqs above a base that are not the writer's own.
fn newer(base: Seq, own: &[Seq]) -> impl Fn(Seq) -> bool {
    move |seq| {
        let is_own = own.binary_search(&seq).is_ok();
        seq > base && !is_own
    }
}
