//! Records that are held although the server lacks them, or has not shown them yet: they are found, and
//! offered to the server as inserts, a bounded number at a time.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::config::OnServerLoss;
use super::edit::{Edit, LostBy};
use super::event::EventKind;
use super::rebase::applied;
use super::records::Records;
use super::server_time::seen;
use super::times::latest;
use crate::protocol::name::{RecordId, Seq};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::row::{Entry, LossDecision, OutboxRow, Pending, Row};
use crate::store::{Scan, StoreError};

/// The most writes that wait in the outbox while held records are offered: the next ones follow as
/// the server takes them.
pub(super) const OFFERED_AT_ONCE: usize = 256;

impl Records<'_> {
    /// Puts held records into the outbox as inserts, as far as it has room.
    pub(super) fn offer_some(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let before = self.stream.row.clone();
        let mut after = self.stream.take_passed();
        loop {
            let room = OFFERED_AT_ONCE - self.outbox.len();
            let held = self.held(edit, after.as_ref(), room)?;
            for id in &held {
                self.offer_stored(edit, id)?;
            }
            if held.len() == room {
                self.stream.pass(held.last().cloned());
                break;
            }
            if after.take().is_none() {
                // what is left has writes on their way, or waits for the end of a transaction
                if self.held(edit, None, 1)?.is_empty() {
                    self.end_loss(edit);
                }
                break;
            }
        }
        // a commit for nothing would be reported durable, and lead here again, without end
        if self.stream.row != before {
            self.save(edit);
        }
        Ok(())
    }

    /// Offers the held records that have writes which are not on their way: the outcome of these
    /// writes goes out, and no conflict with nothing at all.
    pub(super) fn offer_written(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut written = BTreeSet::new();
        edit.places(self.outbox.frozen_until(), &mut |_, place| {
            if let OutboxRow::Entry(entry) = place
                && entry.collection == *self.collection
            {
                written.insert(entry.record_id);
            }
            Ok(Scan::Next)
        })?;
        for id in written {
            self.offer_stored(edit, &id)?;
        }
        Ok(())
    }

    /// Offers a record, as [`offer`](Self::offer).
    pub(super) fn offer_stored(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        match edit.row(self.collection, id)? {
            Some(row) => self.offer(edit, id, row),
            None => Ok(()),
        }
    }

    /// Turns a held record, with its pending writes, into one that was made here.
    pub(super) fn offer(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        before: Row,
    ) -> Result<(), StoreError> {
        let held = self.peer.is_plain() || self.stream.row.is_held(&before);
        if before.server.is_none() || !held {
            return Ok(());
        }
        let written_at = seen(edit, self.outbox, self.collection, id, &before)?;
        let mut entries = self.outbox.entries_of(edit, self.collection, id)?;
        let first = entries.first().map(|(write, _)| *write);
        if first.is_some_and(|first| self.outbox.is_frozen(first)) {
            return Ok(());
        }
        let later = entries.split_off(self.first_part(&entries));
        let unit = entries.first().and_then(|(_, entry)| entry.unit);
        if let Some(unit) = unit.filter(|_| entries.iter().any(|(_, it)| it.expects.is_some())) {
            // the server does not have what was seen; the record is offered when that is rejected
            edit.lost.push((unit, LostBy::Expectation));
            return Ok(());
        }
        for (write, entry) in &entries {
            self.outbox.remove(edit, *write, entry);
            (edit.gates, edit.flush) = (true, true);
        }
        let view = applied(before.base(), &entries);
        let mut row = Row { pending: None, ..before.clone() };
        self.stream.row.set_server(id, &mut row, None, Seq(0));
        let outcome = first.filter(|_| view.is_some());
        if entries.len() > usize::from(outcome.is_some()) {
            let merged = entries.iter().map(|(write, _)| *write).collect();
            let (collection, record_id) = (self.collection.clone(), id.clone());
            let write = outcome;
            edit.event(EventKind::OperationsMerged { collection, record_id, write, merged });
        }
        if let Some(view) = view {
            let change = Change::insert(view.clone());
            let (collection, record_id) = (self.collection.clone(), id.clone());
            let entry = Entry::new(collection, record_id, change, written_at);
            let entry = Entry { unit, ..entry };
            let write = self.outbox.replace(edit, first, entry);
            let view = applied(Some(&view), &later);
            row.pending = Some(Pending { view, written_at, deferred: None });
            edit.queued((self.collection, id), write, WriteKind::Insert, unit);
        }
        if row.pending.is_none() && !later.is_empty() {
            let (view, written_at) = (applied(None, &later), latest(&later));
            row.pending = Some(Pending { view, written_at, deferred: None });
        }
        edit.put_row(self.collection, id, Some(&before), &row);
        Ok(())
    }

    /// Returns `true` if a record is held and goes to the server, which lacks it.
    pub(super) fn is_offered(&self, row: &Row) -> bool {
        let stream = &self.stream.row;
        let Some(loss) = stream.loss.filter(|_| stream.is_held(row)) else { return false };
        match loss.decision {
            Some(LossDecision::Offer) => true,
            Some(LossDecision::Adopt) => false,
            None => self.on_server_loss == Some(OnServerLoss::Offer),
        }
    }

    /// Returns the records behind `after` that are held without the server having shown them, `limit`
    /// at most.
    pub(super) fn held(
        &self,
        edit: &Edit<'_>,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<RecordId>, StoreError> {
        let mut held = Vec::new();
        edit.rows_behind(self.collection, after, &mut |id, row| {
            if row.server.is_some() && self.stream.row.is_held(&row) {
                held.push(id);
            }
            if held.len() < limit { Scan::Next } else { Scan::Stop }
        })?;
        Ok(held)
    }

    /// Returns the number of records that are held without the server having shown them.
    pub(super) fn count_held(&self, edit: &Edit<'_>) -> Result<u64, StoreError> {
        let mut held = 0;
        edit.each_row(self.collection, &mut |_, row| {
            held += u64::from(row.server.is_some() && self.stream.row.is_held(&row));
        })?;
        Ok(held)
    }

    /// Nothing is held any more that the server lacks.
    pub(super) fn end_loss(&mut self, edit: &mut Edit<'_>) {
        self.stream.row.loss = None;
        if self.stream.follows() {
            self.in_step(edit);
        }
        self.save(edit);
        self.show_status(edit);
    }
}
