//! The records of one scope.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::rules::record::scopes::{self, Built, Declared, DeclaredKey};
use crate::rules::record::{RecordRow, record_key};
use crate::rules::scope::ScopeValue;
use crate::store::{Rows, Scan, StoreError};

/// The approximate size of a collected id besides its text, in bytes.
const ID: usize = 40;

/// A scope whose rows are built.
pub(super) struct ScopeAt<'a> {
    rows: &'a dyn Rows,
    collection: &'a Collection,
    key: DeclaredKey,
    /// `None` if no record can have this value.
    value: Option<ScopeValue>,
}

type Visit<'v> = dyn FnMut(&RecordId, &RecordRow) -> Result<Scan, StoreError> + 'v;

/// The reason why there is no scope to read.
pub(super) type NoScope = (ErrorCode, String);

impl<'a> ScopeAt<'a> {
    /// The scope with these values of the parts of its key; `None` if there are no parts.
    pub(super) fn find(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        parts: &[(String, String)],
    ) -> Result<Result<Option<Self>, NoScope>, StoreError> {
        if parts.is_empty() {
            return Ok(Ok(None));
        }
        let declared = Declared::load(rows, collection)?.unwrap_or_default();
        let value_of = |part: &str| {
            let value = parts.iter().find(|(name, _)| name == part);
            value.map(|(_, text)| text.as_str())
        };
        let known = declared.keys.iter().find_map(|declared| {
            let names: Vec<_> = declared.key.parts().collect();
            let values: Option<Vec<_>> = names.iter().map(|part| value_of(part)).collect();
            Some((declared, values.filter(|values| values.len() == parts.len())?))
        });
        let Some((key, values)) = known else {
            let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!(
                "{collection} has no scope key {}: the server has to declare it",
                names.join("+")
            );
            return Ok(Err((ErrorCode::InvalidMessage, message)));
        };
        if let Built::UpTo(_) = key.built {
            let message =
                format!("the scopes of {collection} by {} are being built: try again", key.key);
            return Ok(Err((ErrorCode::ServerError, message)));
        }
        let value = key.key.value(values.into_iter());
        Ok(Ok(Some(Self { rows, collection, key: key.clone(), value })))
    }

    /// Visits the members whose last change is at or above a seq, in the order of the changes.
    pub(super) fn changed(&self, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.members(from, &mut |id| {
            Ok(match self.visit(&id, visit)? {
                Scan::Next => ControlFlow::Continue(()),
                Scan::Stop => ControlFlow::Break(()),
            })
        })
    }

    /// The ids of the members behind an id; `None` if they are more than this many bytes together.
    pub(super) fn ids(
        &self,
        after: Option<&RecordId>,
        mut bytes: usize,
    ) -> Result<Option<BTreeSet<RecordId>>, StoreError> {
        // members come in the order of their changes
        let mut ids = BTreeSet::new();
        let mut fits = true;
        self.members(Seq(0), &mut |id| {
            if after.is_none_or(|after| id > *after) {
                let Some(rest) = bytes.checked_sub(ID + id.len()) else {
                    fits = false;
                    return Ok(ControlFlow::Break(()));
                };
                bytes = rest;
                ids.insert(id);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(fits.then_some(ids))
    }

    /// Returns `true` if a record is in the scope.
    pub(super) fn has(&self, record: &RecordRow) -> bool {
        self.value.as_ref().is_some_and(|value| self.key.scopes_of(record).contains(value))
    }

    fn members(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(RecordId) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(value) = &self.value else { return Ok(()) };
        scopes::members(self.rows, self.collection, self.key.number, value, from, visit)
    }

    /// Reads a record as a scan, so that a long read gives way to others between two of them.
    pub(super) fn visit(&self, id: &RecordId, visit: &mut Visit<'_>) -> Result<Scan, StoreError> {
        let key = record_key(self.collection, id);
        let mut end = key.clone();
        end.push(0);
        let mut next = None;
        self.rows.scan(&key, &end, &mut |_, row| {
            next = Some(visit(id, &RecordRow::from_row(row)?)?);
            Ok(Scan::Stop)
        })?;
        next.ok_or_else(|| StoreError::damaged("a scope names a missing record"))
    }
}
