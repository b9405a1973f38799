//! Pending writes and a server state that moves on: writes that a remote change does not meet are
//! rebased onto it, the strategy decides about others.

use super::edit::Edit;
use super::event::EventKind;
use super::records::Records;
use super::times::{latest, local_times, outcome_times};
use crate::protocol::document::Document;
use crate::protocol::name::{RecordId, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::Change;
use crate::rules::conflict::{Conflict, ResolverFailure};
use crate::rules::row::{Deferred, Entry, Pending, Row};
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
        let Some(pending) = &mut row.pending else { return Ok(()) };
        if frozen && pending.deferred.is_some() {
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
        if let (Some(deferred), Some(remote)) = (deferred, remote)
            && entries.iter().any(|(_, entry)| entry.change.meets(&remote))
        {
            if self.decides_later {
                pending.view = applied(deferred.base.as_ref(), &entries);
                pending.written_at = latest(&entries);
                pending.deferred = Some(deferred);
                return Ok(());
            }
            self.resolve(edit, id, row, &deferred, &entries);
            return Ok(());
        }
        pending.view = applied(row.server.as_ref(), &entries);
        pending.written_at = latest(&entries);
        Ok(())
    }

    /// Lets the strategy decide, and collapses the record's pending writes into one that brings
    /// the outcome to the server.
    fn resolve(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        row: &mut Row,
        deferred: &Deferred,
        entries: &[(WriteId, Entry)],
    ) {
        let local_at = latest(entries);
        // a deletion counts for itself, edits by the latest of them
        let remote_at = match row.server {
            None if deferred.undated => Timestamp::MAX,
            None => row.updated_at,
            Some(_) => deferred.at.iter().map(|(_, at)| *at).fold(row.updated_at, Timestamp::max),
        };
        // not what is shown, which a write that was just rejected may still be part of
        let local = applied(deferred.base.as_ref(), entries);
        let conflict = Conflict {
            collection: self.collection,
            record_id: id,
            base: deferred.base.as_ref(),
            local: local.as_ref(),
            remote: row.server.as_ref(),
            local_at,
            remote_at,
            local_field_at: &local_times(deferred.base.as_ref(), entries, local_at),
            remote_field_at: &deferred.at,
        };
        let (merged, failure) = match self.strategy.try_resolve(&conflict) {
            Ok(merged) => (merged, None),
            Err(failure) => (conflict.merge_later(), Some(failure)),
        };
        let outcome = Change::between(row.server.as_ref(), merged.as_ref());
        let whole = local_at.max(row.updated_at);
        let times = outcome.as_ref().map(|outcome| outcome_times(&conflict, outcome, whole));
        let (written_at, at) = times.unwrap_or_default();
        edit.gates = true;
        edit.flush = true;
        for (write, entry) in entries {
            self.outbox.remove(edit, *write, entry);
            self.peer.forget_write(*write);
        }
        // what takes the place of a write that a plain server may have is another write
        let first = entries.first().map(|(write, _)| *write);
        let fresh = self.peer.is_plain() && first.is_some_and(|it| self.outbox.is_frozen(it));
        let first = if fresh { Some(self.outbox.end()) } else { first };
        let write = first.filter(|_| outcome.is_some());
        if let (Some(write), Some(change)) = (write, outcome) {
            let (collection, record_id) = (self.collection.clone(), id.clone());
            let entry = Entry { collection, record_id, change, written_at, at, stamped: None };
            self.outbox.replace(edit, Some(write).filter(|_| !fresh), entry);
        }
        row.pending = write.map(|_| Pending { view: merged, written_at, deferred: None });
        let merged = entries.iter().map(|(write, _)| *write).collect();
        let place = || (self.collection.clone(), id.clone());
        let ((collection, record_id), remote_version) = (place(), row.version);
        edit.remote_event(EventKind::ConflictDetected { collection, record_id, remote_version });
        if let Some(ResolverFailure { reason }) = failure {
            let (collection, record_id) = place();
            edit.event(EventKind::ResolverFailed { collection, record_id, reason });
        }
        let (collection, record_id) = place();
        edit.event(EventKind::ConflictResolved { collection, record_id, write, merged });
    }
}

fn applied(base: Option<&Document>, entries: &[(WriteId, Entry)]) -> Option<Document> {
    let base = base.cloned();
    entries.iter().fold(base, |state, (_, entry)| entry.change.apply(state.as_ref()))
}

/// Forgets when fields were written that neither the state beneath a record's writes nor the
/// server's has any more: they say nothing, and fields that come and go can't make the list grow.
fn forget_gone_fields(row: &mut Row) {
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
    state.as_ref().is_some_and(|state| state.get(name).is_some())
}
