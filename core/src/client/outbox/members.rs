//! The members of transactions in the outbox.

use alloc::vec::Vec;

use super::Outbox;
use crate::client::edit::Edit;
use crate::protocol::name::WriteId;
use crate::rules::row::{Entry, OutboxRow, Unit};
use crate::store::{Scan, StoreError};

impl Outbox {
    /// Returns `true` if a transaction has members that wait.
    pub(in super::super) fn has_units(&self) -> bool {
        !self.units.is_empty()
    }

    /// Returns `true` if members of this transaction wait.
    pub(in super::super) fn waits(&self, unit: Unit) -> bool {
        self.units.has(unit)
    }

    /// Returns `true` if a transaction waits between two places.
    pub(in super::super) fn is_edge_between(&self, one: WriteId, other: WriteId) -> bool {
        self.units.lie_between(one, other)
    }

    /// The members of a transaction that wait, in their order.
    pub(in super::super) fn members(
        &self,
        edit: &Edit<'_>,
        unit: Unit,
    ) -> Result<Vec<(WriteId, Entry)>, StoreError> {
        let mut members = Vec::new();
        edit.places(unit.first.max(self.head), &mut |write, place| {
            if write >= unit.end {
                return Ok(Scan::Stop);
            }
            if let OutboxRow::Entry(entry) = place
                && entry.unit.is_some_and(|of| of.first == unit.first)
            {
                members.push((write, entry));
            }
            Ok(Scan::Next)
        })?;
        Ok(members)
    }
}
