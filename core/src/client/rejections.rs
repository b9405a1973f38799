//! Rejected writes: they move to a list, and what can't be without them falls with them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::edit::{Edit, LostBy};
use super::event::EventKind;
use super::machine::Client;
use super::sending::unit_bytes;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::write::WriteKind;
use crate::rules::row::{Entry, Rejected};
use crate::store::StoreError;

/// A write that falls.
struct Fallen {
    write: WriteId,
    entry: Entry,
    /// The later writes of its record, which fall with it or stay.
    later: Vec<WriteId>,
}

impl Client {
    /// Moves a write to the list of rejected ones and takes its effect back. What was written on
    /// top of a rejected insert or delete goes with it; what was written on top of an update stays.
    /// Each of them takes its transaction with it.
    pub(super) fn reject(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: ErrorCode,
        message: String,
    ) -> Result<(), StoreError> {
        let fallen = self.fallen_with(edit, write, entry)?;
        let all: BTreeSet<_> = fallen.iter().map(|fallen| fallen.write).collect();
        let mut records = BTreeSet::<(&Collection, &RecordId)>::new();
        let mut units = BTreeMap::<WriteId, BTreeSet<(Collection, RecordId)>>::new();
        for Fallen { write, entry, .. } in &fallen {
            self.put_aside(edit, *write, entry, &code, &message);
            records.insert((&entry.collection, &entry.record_id));
            if let Some(unit) = entry.unit {
                let place = (entry.collection.clone(), entry.record_id.clone());
                units.entry(unit.first).or_default().insert(place);
            }
        }
        edit.gates = true;
        edit.flush = true;
        for (collection, id) in records {
            if let Some(mut records) = self.records(collection) {
                records.rebase_row(edit, id)?;
            }
        }
        let mut told = BTreeSet::new();
        for Fallen { write, entry, later } in &fallen {
            if entry.expects.is_some() || !told.insert(*write) {
                continue;
            }
            let (with, kept): (Vec<_>, Vec<_>) = later.iter().partition(|it| all.contains(it));
            told.extend(&with);
            edit.remote_event(EventKind::OperationFailed {
                collection: entry.collection.clone(),
                record_id: entry.record_id.clone(),
                write: *write,
                code: code.clone(),
                message: message.clone(),
                with,
                kept,
                transaction: entry.unit.map(|unit| unit.first),
            });
        }
        for (transaction, records) in units {
            let (records, code, message) =
                (records.into_iter().collect(), code.clone(), message.clone());
            edit.remote_event(EventKind::TransactionFailed { transaction, records, code, message });
        }
        Ok(())
    }

    /// Rejects the transactions that can't be any more, and those that fall with them, until no more
    /// does. What of them may be on its way stays.
    pub(super) fn reject_lost(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        loop {
            self.find_outgrown(edit)?;
            if edit.lost.is_empty() {
                return Ok(());
            }
            let mut lost = core::mem::take(&mut edit.lost);
            lost.sort_unstable_by_key(|(unit, by)| (unit.first, *by));
            for (unit, by) in lost {
                let members = self.outbox.members(edit, unit)?;
                let free = members.into_iter().find(|(write, _)| !self.outbox.is_frozen(*write));
                if let Some((write, entry)) = free {
                    self.reject(edit, write, &entry, by.code(), by.message())?;
                }
            }
        }
    }

    /// Finds the transactions that a strategy has let grow larger than a frame: they can't be sent.
    fn find_outgrown(&self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut units = core::mem::take(&mut edit.made_anew);
        units.sort_unstable_by_key(|unit| unit.first);
        units.dedup();
        units.retain(|_| self.peer.takes_units());
        for unit in units {
            let members = self.outbox.members(edit, unit)?.into_iter();
            if unit_bytes(members.map(|(_, entry)| entry)) > self.config.limits.frame_bytes {
                edit.lost.push((unit, LostBy::Size));
            }
        }
        Ok(())
    }

    /// A write that is rejected, with all that falls: its transaction; what stands on an insert or a
    /// delete; and of each of these the same.
    fn fallen_with(
        &self,
        edit: &Edit<'_>,
        write: WriteId,
        entry: &Entry,
    ) -> Result<Vec<Fallen>, StoreError> {
        let mut seen = BTreeSet::from([write]);
        let mut due = Vec::from([(write, entry.clone())]);
        let mut fallen = Vec::new();
        while let Some((write, entry)) = due.pop() {
            let mut more = Vec::new();
            if let Some(unit) = entry.unit {
                let members = self.outbox.members(edit, unit)?.into_iter();
                more.extend(members.filter(|(member, _)| !self.outbox.is_frozen(*member)));
            }
            let mut later = Vec::new();
            if entry.expects.is_none() {
                let own = |of: &Entry| {
                    of.unit.is_some() && of.unit.map(|it| it.first) == entry.unit.map(|it| it.first)
                };
                let entries = self.outbox.entries_of(edit, &entry.collection, &entry.record_id)?;
                for (other, of) in entries.into_iter().filter(|(other, _)| *other > write) {
                    if of.expects.is_none() {
                        later.push(other);
                    }
                    if entry.change.kind != WriteKind::Update && !own(&of) {
                        more.push((other, of));
                    }
                }
            }
            due.extend(more.into_iter().rev().filter(|(other, _)| seen.insert(*other)));
            fallen.push(Fallen { write, entry, later });
        }
        Ok(fallen)
    }

    fn put_aside(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: &ErrorCode,
        message: &str,
    ) {
        self.outbox.remove(edit, write, entry);
        self.pacing.settle(write);
        self.rejected += 1;
        edit.put_rejected(&Rejected::of(write, entry.clone(), code.clone(), message.to_string()));
    }
}
