//! Pending writes and a server state that moves on: writes that a remote change does not meet are
//! rebased onto it, the strategy decides about others.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::edit::{Edit, LostBy};
use super::event::EventKind;
use super::records::Records;
use super::times::{latest, local_times, outcome_times};
use crate::protocol::document::Document;
use crate::protocol::name::{RecordId, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::times::{FieldTimes, set_time};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::conflict::{Conflict, ResolverFailure};
use crate::rules::row::{Deferred, Entry, Pending, Row, Seen};
use crate::store::StoreError;

impl Records<'_> {
    /// Rebases a record after some of its pending writes are gone or free again.
    pub(super) fn rebase_row(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        self.rebase_row_if(edit, id, self.outbox.frozen_until())
    }

    /// Rebases a record although writes of it may have reached the server, because it is known by
    /// now that no more becomes of them.
    pub(super) fn rebase_frozen(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        self.rebase_row_if(edit, id, WriteId(0))
    }

    fn rebase_row_if(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        frozen_until: WriteId,
    ) -> Result<(), StoreError> {
        let Some(before) = edit.row(self.collection, id)? else { return Ok(()) };
        let mut row = before.clone();
        self.rebase_if(edit, id, &mut row, frozen_until)?;
        edit.put_row(self.collection, id, Some(&before), &row);
        Ok(())
    }

    /// Brings a record's pending writes onto its server state, once none of them is frozen: writes
    /// that a remote change does not meet are rebased, the strategy decides about others.
    pub(super) fn rebase(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        row: &mut Row,
    ) -> Result<(), StoreError> {
        self.rebase_if(edit, id, row, self.outbox.frozen_until())
    }

    /// The same; entries in front of `frozen_until` are not touched.
    fn rebase_if(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        row: &mut Row,
        frozen_until: WriteId,
    ) -> Result<(), StoreError> {
        if row.pending.is_none() {
            return Ok(());
        }
        forget_gone_fields(row);
        let entries = self.outbox.entries_of(edit, self.collection, id)?;
        let Some((first, _)) = entries.first() else {
            row.pending = None;
            return Ok(());
        };
        let frozen = *first < frozen_until;
        // expectations change nothing: what others make of the record shows before their verdict
        let is_written = entries.iter().any(|(_, entry)| entry.expects.is_none());
        let Some(pending) = &mut row.pending else { return Ok(()) };
        if let Some(deferred) = pending.deferred.as_ref().filter(|_| frozen) {
            if !deferred.withheld && !is_written {
                pending.view.clone_from(&row.server);
            }
            return Ok(());
        }
        if let Some(deferred) = pending.deferred.as_ref().filter(|deferred| deferred.withheld) {
            // out of sight is no change: the writes go out as they were made
            pending.view = applied(deferred.base.as_ref(), &entries);
            pending.written_at = latest(&entries);
            return Ok(());
        }
        let deferred = pending.deferred.take();
        let remote = deferred
            .as_ref()
            .and_then(|old| Change::between(old.base.as_ref(), row.server.as_ref()));
        let mut entries = entries;
        if let (Some(deferred), Some(remote)) = (deferred, remote)
            && entries.iter().any(|(_, entry)| entry.change.meets(&remote))
        {
            if self.decides_later {
                let shown = if is_written { &deferred.base } else { &row.server };
                pending.view = applied(shown.as_ref(), &entries);
                pending.written_at = latest(&entries);
                pending.deferred = Some(deferred);
                return Ok(());
            }
            entries = self.settle(edit, id, row, deferred, entries);
        }
        self.compare_seen(edit, row.server.as_ref(), &entries);
        row.pending = (!entries.is_empty()).then(|| Pending {
            view: applied(row.server.as_ref(), &entries),
            written_at: latest(&entries),
            deferred: None,
        });
        Ok(())
    }

    /// Brings a record's pending writes onto the server's state, part by part: the writes between two
    /// transactions, and the write of each transaction. Returns the entries that are left.
    fn settle(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        row: &Row,
        deferred: Deferred,
        mut entries: Vec<(WriteId, Entry)>,
    ) -> Vec<(WriteId, Entry)> {
        let mut sides = Sides::of(row, deferred);
        let mut left = Vec::new();
        while !entries.is_empty() {
            let later = entries.split_off(self.first_part(&entries));
            let part = core::mem::replace(&mut entries, later);
            let (expected, part): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|(_, entry)| entry.expects.is_some());
            left.extend(expected);
            let base = sides.base_of(&part);
            let local = applied(base.as_ref(), &part);
            let remote = Change::between(base.as_ref(), sides.remote.as_ref());
            let meets = |(_, entry): &(WriteId, Entry)| {
                remote.as_ref().is_some_and(|remote| entry.change.meets(remote))
            };
            if part.iter().any(meets) {
                let states = (base.as_ref(), local.as_ref());
                let outcome = self.resolve(edit, id, row, &mut sides, states, &part);
                sides.pass(&part, outcome.is_empty() && is_whole(&part));
                left.extend(outcome);
            } else {
                sides.remote = applied(sides.remote.as_ref(), &part);
                sides.pass(&part, false);
                left.extend(part);
            }
        }
        left
    }

    /// The number of a record's first entries that are settled together: of one transaction, or of none
    /// with none between them.
    pub(super) fn first_part(&self, entries: &[(WriteId, Entry)]) -> usize {
        let is_one = |pair: &[(WriteId, Entry)]| match pair {
            [(place, entry), (other, later)] => match (entry.unit, later.unit) {
                (Some(one), Some(other)) => one.first == other.first,
                (None, None) => !self.outbox.is_edge_between(*place, *other),
                (Some(_), None) | (None, Some(_)) => false,
            },
            _ => false,
        };
        let same = entries.windows(2).take_while(|pair| is_one(pair)).count();
        entries.len().min(same + 1)
    }

    /// Finds the transactions that expect another state of a record than there will be before them.
    fn compare_seen(
        &self,
        edit: &mut Edit<'_>,
        base: Option<&Document>,
        entries: &[(WriteId, Entry)],
    ) {
        if entries.iter().all(|(_, entry)| entry.expects.is_none()) {
            return;
        }
        let mut state = base.cloned();
        for (_, entry) in entries {
            match (entry.expects, entry.unit) {
                (Some(seen), Some(unit)) if seen != Seen::of(state.as_ref()) => {
                    edit.lost.push((unit, LostBy::Expectation));
                }
                (Some(_), _) => {}
                (None, _) => state = entry.change.apply(state.as_ref()),
            }
        }
    }

    /// Lets the strategy decide, and collapses a part of the record's pending writes into one that
    /// brings the outcome to the server. Returns what is left of them.
    fn resolve(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        row: &Row,
        sides: &mut Sides,
        (base, local): (Option<&Document>, Option<&Document>),
        entries: &[(WriteId, Entry)],
    ) -> Vec<(WriteId, Entry)> {
        let local_at = latest(entries);
        let remote = sides.remote.clone();
        // not what is shown, which a write that was just rejected may still be part of
        let conflict = Conflict {
            collection: self.collection,
            record_id: id,
            base,
            local,
            remote: remote.as_ref(),
            local_at,
            remote_at: sides.remote_at,
            local_field_at: &local_times(base, entries, local_at),
            remote_field_at: &sides.at,
        };
        let (merged, failure) = match self.strategy.try_resolve(&conflict) {
            Ok(merged) => (merged, None),
            Err(failure) => (conflict.merge_later(), Some(failure)),
        };
        let outcome = Change::between(remote.as_ref(), merged.as_ref());
        let whole = local_at.max(row.updated_at);
        let times = outcome.as_ref().map(|outcome| outcome_times(&conflict, outcome, whole));
        let (written_at, at) = times.unwrap_or_default();
        edit.gates = true;
        edit.flush = true;
        let place = || (self.collection.clone(), id.clone());
        let ((collection, record_id), remote_version) = (place(), row.version);
        edit.remote_event(EventKind::ConflictDetected { collection, record_id, remote_version });
        if let Some(ResolverFailure { reason }) = failure {
            let (collection, record_id) = place();
            edit.event(EventKind::ResolverFailed { collection, record_id, reason });
        }
        let first = entries.first().map(|(write, _)| *write);
        let is_frozen = first.is_some_and(|first| self.outbox.is_frozen(first));
        let unit = entries.first().and_then(|(_, entry)| entry.unit);
        if let (Some(unit), None) = (unit.filter(|unit| !unit.keeps_won), &outcome) {
            // it is rejected whole at the end of the step
            edit.lost.push((unit, LostBy::Strategy));
            if !is_frozen {
                return Vec::new();
            }
        }
        for (write, entry) in entries {
            self.outbox.remove(edit, *write, entry);
            self.peer.forget_write(*write);
        }
        // what takes the place of a write that a plain server may have is another write
        let fresh = self.peer.is_plain() && is_frozen;
        let first = if fresh { Some(self.outbox.end()) } else { first };
        let write = first.filter(|_| outcome.is_some());
        let mut left = Vec::new();
        if let (Some(write), Some(change)) = (write, outcome) {
            let (collection, record_id) = place();
            let unit = unit.filter(|_| !fresh);
            edit.made_anew.extend(unit);
            let entry = Entry { at, unit, ..Entry::new(collection, record_id, change, written_at) };
            sides.advance(merged, &entry);
            left.push((write, entry.clone()));
            self.outbox.replace(edit, Some(write).filter(|_| !fresh), entry);
        }
        self.tell_resolved(edit, id, entries, (write, fresh));
        left
    }

    /// Tells the app what became of writes that the strategy has decided about, and of their transaction.
    fn tell_resolved(
        &self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        entries: &[(WriteId, Entry)],
        (write, fresh): (Option<WriteId>, bool),
    ) {
        let unit = entries.first().and_then(|(_, entry)| entry.unit);
        let merged = entries.iter().map(|(write, _)| *write).collect();
        let ended = unit.filter(|unit| !self.outbox.waits(*unit));
        let goes_on = unit.filter(|_| fresh && write.is_some());
        let place = || (self.collection.clone(), id.clone());
        let (collection, record_id) = place();
        edit.event(EventKind::ConflictResolved {
            collection,
            record_id,
            write,
            merged,
            transaction: goes_on.map(|unit| unit.first),
            ends: goes_on.is_some() && ended.is_some(),
        });
        if let Some(unit) = ended.filter(|_| write.is_none()) {
            edit.give_up(unit, place());
        }
    }
}

/// The two sides of a conflict, as far as the parts of the record's pending writes are settled.
struct Sides {
    /// The state on which the next part was made.
    base: Option<Document>,
    /// The same without what was lost of transactions; `None` if nothing was.
    kept: Option<Option<Document>>,
    /// The server's state, with the parts before made on it.
    remote: Option<Document>,
    remote_at: Timestamp,
    /// The times of the fields that changed from the one to the other.
    at: FieldTimes,
}

impl Sides {
    fn of(row: &Row, deferred: Deferred) -> Self {
        // a deletion counts for itself, edits by the latest of them
        let remote_at = match row.server {
            None if deferred.undated => Timestamp::MAX,
            None => row.updated_at,
            Some(_) => deferred.at.iter().map(|(_, at)| *at).fold(row.updated_at, Timestamp::max),
        };
        let Deferred { base, at, .. } = deferred;
        Self { base, kept: None, remote: row.server.clone(), remote_at, at }
    }

    /// The state on which a part was made. What a transaction that is lost had changed is in it only where
    /// this part touches the same fields: a record that comes back as a whole would bring the rest along.
    fn base_of(&self, part: &[(WriteId, Entry)]) -> Option<Document> {
        let (Some(Some(kept)), Some(base)) = (&self.kept, &self.base) else {
            return self.base.clone();
        };
        let touched = |name: &str| part.iter().any(|(_, entry)| entry.change.touches(name));
        let made_on = base.iter().filter(|(name, _)| touched(name));
        let fields: BTreeMap<&str, &str> =
            kept.iter().filter(|(name, _)| !touched(name)).chain(made_on).collect();
        Some(Document::of_sorted(&Vec::from_iter(fields)))
    }

    /// The next part was made on the state with this one in it.
    fn pass(&mut self, part: &[(WriteId, Entry)], is_lost: bool) {
        // what replaces the whole record is beneath all that follows
        let is_update = |(_, entry): &(WriteId, Entry)| entry.change.kind == WriteKind::Update;
        let is_lost = is_lost && part.iter().all(is_update);
        if is_lost && self.kept.is_none() {
            self.kept = Some(self.base.clone());
        } else if let (Some(kept), false) = (&mut self.kept, is_lost) {
            *kept = applied(kept.as_ref(), part);
        }
        self.base = applied(self.base.as_ref(), part);
    }

    /// A part has its outcome, by this write.
    fn advance(&mut self, merged: Option<Document>, write: &Entry) {
        self.remote = merged;
        if write.change.kind != WriteKind::Update {
            self.remote_at = self.remote_at.max(write.written_at);
        }
        for (name, _) in write.change.delta.fields() {
            set_time(&mut self.at, name, write.time_of(name));
        }
    }
}

/// Returns `true` if a part belongs to a transaction that is lost as soon as nothing is left of one
/// member.
fn is_whole(part: &[(WriteId, Entry)]) -> bool {
    part.first().and_then(|(_, entry)| entry.unit).is_some_and(|unit| !unit.keeps_won)
}

pub(super) fn applied(base: Option<&Document>, entries: &[(WriteId, Entry)]) -> Option<Document> {
    let base = base.cloned();
    entries.iter().fold(base, |state, (_, entry)| entry.change.apply(state.as_ref()))
}

/// Forgets when fields were written that neither the state beneath a record's writes nor the
/// server's has any more: they say nothing, and fields that come and go can't make the list grow.
pub(super) fn forget_gone_fields(row: &mut Row) {
    let deferred = row.pending.as_mut().and_then(|pending| pending.deferred.as_mut());
    if let Some(deferred) = deferred {
        let base = &deferred.base;
        deferred.at.retain(|(name, _)| has_field(base, name) || has_field(&row.server, name));
    }
}

/// Returns `true` if a row keeps the times of removed fields for its pending writes.
pub(super) fn knows_gone_fields(row: &Row) -> bool {
    row.deferred().is_some_and(|deferred| {
        let is_there = |name: &str| has_field(&deferred.base, name) || has_field(&row.server, name);
        !deferred.at.iter().all(|(name, _)| is_there(name))
    })
}

fn has_field(state: &Option<Document>, name: &str) -> bool {
    state.as_ref().is_some_and(|state| state.text(name).is_some())
}
