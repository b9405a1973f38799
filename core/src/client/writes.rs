//! Writes of the app: row and outbox entry in one commit.

use alloc::vec::Vec;

use super::edit::Edit;
use super::interface::{Misuse, Write, Written};
use super::machine::Client;
use super::output::{Output, Outputs, StoreAction};
use super::server_time::seen;
use super::step::StepError;
use crate::protocol::delta::Delta;
use crate::protocol::document::{Document, DocumentError};
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::time::{Now, Timestamp};
use crate::protocol::times::{FieldTimes, others};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::row::{Entry, LossDecision, Pending, Rejected, Row};
use crate::store::{Rows, StoreError};

impl Client {
    /// See [`Replica::write`](crate::client::replica::Replica::write).
    pub(crate) fn write(
        &mut self,
        now: Now,
        write: Write,
        store: &dyn Rows,
        out: &mut Outputs,
    ) -> Result<Written, Misuse> {
        self.ratchet(now);
        let (mut outcome, mut shares, before) = (Ok(None), None, self.last_commit());
        let mut transaction = None;
        self.step(store, out, |client, edit| {
            outcome = client.make(edit, write);
            (shares, transaction) = (edit.shares, edit.transaction);
            match &outcome {
                Err(Misuse::Store(error)) => Err(StepError::Store(error.clone())),
                Ok(_) | Err(_) => Ok(()),
            }
        })?;
        let (write, commit) = (outcome?, self.last_commit());
        if commit == before && !self.commits.is_durable(commit) {
            // the state that needed no change is to be durable too, and nothing else asks for it
            out.push(Output::Store(StoreAction::Flush { up_to: commit }));
        }
        Ok(Written { commit, write, shares: write.or(shares), transaction })
    }

    /// Makes a write; nothing changes where it fails.
    fn make(&mut self, edit: &mut Edit<'_>, write: Write) -> Result<Option<WriteId>, Misuse> {
        match write {
            Write::Save(collection, id, document) => self.enqueue(edit, &collection, &id, |row| {
                Ok(Change::between(row.view(), Some(&document)))
            }),
            Write::Update(collection, id, delta) => self.enqueue(edit, &collection, &id, |row| {
                updated(&collection, &id, row.view(), &delta)
            }),
            Write::Modify(collection, id, change) => self.enqueue(edit, &collection, &id, |row| {
                Ok(Change::between(row.view(), change(row.view())?.as_ref()))
            }),
            Write::Delete(collection, id) => {
                self.enqueue(edit, &collection, &id, |row| Ok(Change::between(row.view(), None)))
            }
            Write::Transaction(body) => self.transact(edit, body),
            Write::RetryRejected(write) => self.retry_rejected(edit, write),
            Write::DiscardRejected(write) => {
                let rejected = self.find(edit, write)?;
                for write in self.rejected_with(edit, &rejected)? {
                    self.take_off(edit, write.write);
                }
                Ok(None)
            }
            Write::RejectStalled(write) => self.reject_stalled(edit, write).map(|()| None),
            Write::Adopt => Ok(self.decide_losses(edit, LossDecision::Adopt).map(|()| None)?),
            Write::Offer => Ok(self.decide_losses(edit, LossDecision::Offer).map(|()| None)?),
        }
    }

    fn retry_rejected(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
    ) -> Result<Option<WriteId>, Misuse> {
        let rejected = self.find(edit, write)?;
        if rejected.unit.is_some() {
            let members = self.rejected_with(edit, &rejected)?;
            let made = self.make_again(edit, &members)?;
            members.iter().for_each(|member| self.take_off(edit, member.write));
            return Ok(made);
        }
        let old = rejected.entry();
        let Entry { collection, record_id: id, change, .. } = &old;
        let made = self.enqueue_as(edit, collection, id, Some(&old), |row| match change.kind {
            WriteKind::Insert => Ok(Change::between(row.view(), Some(&change.delta.set))),
            WriteKind::Update => updated(collection, id, row.view(), &change.delta),
            WriteKind::Delete => Ok(Change::between(row.view(), None)),
        })?;
        self.take_off(edit, write);
        Ok(made)
    }

    /// Puts a change of a record into the outbox, and lets the record show it.
    fn enqueue(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        change: impl FnOnce(&Row) -> Result<Option<Change>, Misuse>,
    ) -> Result<Option<WriteId>, Misuse> {
        self.enqueue_as(edit, collection, id, None, change)
    }

    /// As [`enqueue`](Self::enqueue). A write that was `made` before keeps its times.
    fn enqueue_as(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        made: Option<&Entry>,
        change: impl FnOnce(&Row) -> Result<Option<Change>, Misuse>,
    ) -> Result<Option<WriteId>, Misuse> {
        let before = edit.row(collection, id)?;
        let row = before.clone().unwrap_or_default();
        let Some(change) = change(&row)? else {
            edit.shares = self.outbox.last_of(edit, collection, id)?;
            return Ok(None);
        };
        let view = change.apply(row.view());
        self.check_limits(view.as_ref())?;
        let (written_at, at, stamped) = match made {
            None => {
                let (now, stamped) = self.stamp(edit, collection, id, &row)?;
                (now, Vec::new(), stamped)
            }
            Some(made) => {
                let (written_at, at) =
                    again(made, &change, seen(edit, &self.outbox, collection, id, &row)?);
                (written_at, at, None)
            }
        };
        let entry = Entry::new(collection.clone(), id.clone(), change, written_at);
        let entry = Entry { at, stamped, ..entry };
        let operation = entry.change.kind;
        let write = self.append(edit, entry)?;
        let written_at = stamped.map_or(written_at, |it| it.corrected(written_at, 0));
        self.show_pending(edit, collection, id, before.as_ref(), (view, written_at))?;
        edit.queued((collection, id), write, operation, None);
        Ok(Some(write))
    }

    /// Lets a record show the outcome of its pending writes, and when the last of them was made.
    pub(super) fn show_pending(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Row>,
        (view, written_at): (Option<Document>, Timestamp),
    ) -> Result<(), StoreError> {
        let mut row = before.cloned().unwrap_or_default();
        let shows_server = row.view() == row.server.as_ref();
        let mut deferred = row.pending.take().and_then(|pending| pending.deferred);
        if deferred.as_ref().is_some_and(|deferred| !deferred.withheld && shows_server)
            && self.is_first_change(edit, collection, id)?
        {
            // it was made on what is shown of a record that is only expected: the server's state of now
            deferred = None;
        }
        row.pending = Some(Pending { view, written_at, deferred });
        edit.put_row(collection, id, before, &row);
        self.want(collection);
        Ok(())
    }

    /// Returns `true` if the last pending write to a record stands behind nothing but expectations.
    fn is_first_change(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<bool, StoreError> {
        let entries = self.outbox.entries_of(edit, collection, id)?;
        let Some(((_, last), earlier)) = entries.split_last() else { return Ok(false) };
        Ok(last.expects.is_none() && earlier.iter().all(|(_, entry)| entry.expects.is_some()))
    }

    /// Appends an entry, or lets it join the last one where that is of the same record.
    fn append(&mut self, edit: &mut Edit<'_>, entry: Entry) -> Result<WriteId, Misuse> {
        edit.flush = true;
        if let Some(write) = self.outbox.join(edit, &entry)? {
            return Ok(write);
        }
        if self.outbox.len() >= self.config.max_pending_writes {
            return Err(Misuse::OutboxFull { max: self.config.max_pending_writes });
        }
        Ok(self.outbox.append(edit, entry))
    }

    pub(super) fn check_limits(&self, document: Option<&Document>) -> Result<(), DocumentError> {
        let Some(document) = document else { return Ok(()) };
        let limits = &self.config.limits;
        if document.size() > limits.document_bytes {
            return Err(DocumentError::TooLarge {
                bytes: document.size(),
                max: limits.document_bytes,
            });
        }
        if document.len() > limits.fields {
            return Err(DocumentError::TooManyFields { max: limits.fields });
        }
        Ok(())
    }

    fn find(&self, edit: &Edit<'_>, write: WriteId) -> Result<Rejected, Misuse> {
        let row = edit.get(&self.keys.rejected(write))?.ok_or(Misuse::NoSuchRejected(write))?;
        Ok(Rejected::decode(write, row)?)
    }

    pub(super) fn take_off(&mut self, edit: &mut Edit<'_>, write: WriteId) {
        edit.delete(self.keys.rejected(write));
        edit.flush = true;
        self.rejected = self.rejected.saturating_sub(1);
    }
}

/// The times of a write that was made before and is made again, on top of what was seen since.
fn again(made: &Entry, change: &Change, seen: Timestamp) -> (Timestamp, FieldTimes) {
    let earliest = seen.next();
    if change.kind != WriteKind::Update {
        return (made.written_at.max(earliest), Vec::new());
    }
    let time = |name: &str| made.time_of(name).max(earliest);
    let times: Vec<_> = change.delta.fields().map(|(name, _)| (name, time(name))).collect();
    let latest = times.iter().map(|(_, at)| *at).max().unwrap_or(earliest);
    (latest, others(times.into_iter(), latest))
}

fn updated(
    collection: &Collection,
    id: &RecordId,
    view: Option<&Document>,
    delta: &Delta,
) -> Result<Option<Change>, Misuse> {
    let Some(view) = view else {
        let (collection, record_id) = (collection.clone(), id.clone());
        return Err(Misuse::NoSuchRecord { collection, record_id });
    };
    Ok(Change::between(Some(view), Some(&delta.apply(view))))
}
