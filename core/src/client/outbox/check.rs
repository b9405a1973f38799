//! The invariants of the outbox, for tests.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Outbox;
use crate::client::edit::Edit;
use crate::client::pending::PendingWrites;
use crate::client::units::Units;
use crate::protocol::name::WriteId;
use crate::rules::row::{Entry, OutboxRow};
use crate::store::Scan;

impl Outbox {
    /// Checks what must always hold between the outbox and its store.
    ///
    /// # Errors
    /// Says which invariant is broken.
    pub(in super::super) fn check(&self, edit: &Edit<'_>) -> Result<(), String> {
        let (mut writes, mut entries) = (Vec::new(), Vec::new());
        edit.stored_places(WriteId(0), &mut |write, place| {
            writes.push(write);
            if let OutboxRow::Entry(entry) = place {
                entries.push((write, entry));
            }
            Ok(Scan::Next)
        })
        .map_err(|error| error.message)?;
        let mut pending = PendingWrites::default();
        for (write, Entry { collection, record_id, .. }) in &entries {
            pending.add(collection, record_id, *write);
        }
        let range = self.unsent..self.ahead.until();
        let unsent = entries.iter().filter(|(write, _)| range.contains(write));
        let sent = |(write, entry): &(WriteId, Entry)| {
            let index = self.in_flight.binary_search_by_key(write, |sent| sent.write);
            let sent = index.ok().and_then(|index| self.in_flight.get(index));
            sent.is_none_or(|sent| sent.acked || sent.entry.0.as_ref().is_none_or(|it| it == entry))
        };
        let mut units = Units::default();
        for (_, entry) in &entries {
            if let Some(unit) = entry.unit {
                units.add(unit, entry.expects.is_some());
            }
        }
        let in_place = |(write, entry): &(WriteId, Entry)| {
            entry.unit.is_none_or(|unit| (unit.first..unit.end).contains(write))
        };
        let in_flight: Vec<_> = self.in_flight.iter().map(|sent| sent.write).collect();
        let invariants = [
            (writes.len() == self.len, "the outbox is as long as it says"),
            (writes.starts_with(&in_flight), "what is in flight is the head of the outbox"),
            (writes.iter().all(|p| *p >= self.head), "nothing lies in front of the head"),
            (writes.iter().all(|p| *p < self.next), "ids are not used again"),
            (in_flight.iter().all(|p| self.is_frozen(*p)), "what is in flight is frozen"),
            (pending == self.pending, "the writes of each record are known"),
            (unsent.eq(self.ahead.iter()), "what goes out next is as the store has it"),
            (self.ahead.until() >= self.unsent, "what goes out next is not in front of the rest"),
            (units == self.units, "the transactions that wait are known"),
            (entries.iter().all(in_place), "members lie in their transaction's places"),
            (entries.iter().all(sent), "what is in flight is as the store has it"),
        ];
        match invariants.iter().find(|(holds, _)| !holds) {
            Some((_, invariant)) => Err(invariant.to_string()),
            None => Ok(()),
        }
    }

    /// Checks that nothing is left in it.
    ///
    /// # Errors
    /// Says what is left.
    pub(in super::super) fn check_at_rest(&self) -> Result<(), String> {
        let left = [
            (self.len > 0, "writes are in the outbox"),
            (!self.in_flight.is_empty(), "writes are in flight"),
            (!self.marks.is_empty(), "commits of writes are remembered"),
        ];
        match left.iter().find(|(is_left, _)| *is_left) {
            Some((_, what)) => Err(what.to_string()),
            None => Ok(()),
        }
    }
}
