//! Verdicts of the server about writes: taken, in conflict, refused, or not now.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::edit::Edit;
use super::event::{EventKind, StalledWrite};
use super::interface::Misuse;
use super::machine::Client;
use super::pacing::{STALLED_CONFLICTS, STALLED_FAILURES};
use super::records::Taken;
use super::step::StepError;
use crate::protocol::message::{Ack, ErrorCode, ErrorMessage, ServerChange, ServerMessage};
use crate::protocol::name::{MutationNumber, WriteId};
use crate::rules::conflict::ConflictStrategy;
use crate::rules::row::Entry;
use crate::store::StoreError;

/// After this many conflicts in a row, client-wins no longer cares what it overwrites.
const CLIENT_WINS_CONFLICTS: u32 = 3;

const APART: &str = "the acks of a transaction do not come together";

/// A refusal of a write, by what is to be done about it.
enum Refusal<'a> {
    /// The record is as given; for a transaction, the records of the members that failed.
    Conflict(Option<&'a ServerChange>),
    /// The write may be sent again, or a later one first.
    ForNow,
    /// The server wants another token.
    Access,
    /// Another copy of this replica is connected.
    Superseded,
    ForGood,
}

impl<'a> Refusal<'a> {
    /// Decides what a refusal means, before anything changes by it.
    fn of(error: &'a ErrorMessage) -> Result<Self, StepError> {
        match (&error.code, &error.current) {
            (ErrorCode::Conflict, Some(current)) => Ok(Self::Conflict(Some(current))),
            (ErrorCode::Conflict, None) if error.failed.iter().any(|it| it.current.is_some()) => {
                Ok(Self::Conflict(None))
            }
            (ErrorCode::Conflict, None) => {
                Err(StepError::peer("a CONFLICT lacks the record's state"))
            }
            (ErrorCode::OutOfOrder, _) => {
                Err(StepError::peer("the server lost count of the writes"))
            }
            (ErrorCode::RateLimitExceeded | ErrorCode::ServerError, _) => Ok(Self::ForNow),
            (ErrorCode::AuthFailed | ErrorCode::AuthExpired, _) => Ok(Self::Access),
            (ErrorCode::SessionSuperseded, _) => Ok(Self::Superseded),
            (
                ErrorCode::Unauthorized
                | ErrorCode::InvalidMessage
                | ErrorCode::CollectionNotFound
                | ErrorCode::RecordNotFound
                | ErrorCode::PayloadTooLarge
                | ErrorCode::Other(_),
                _,
            ) => Ok(Self::ForGood),
        }
    }
}

impl Client {
    /// The server has taken a write.
    pub(super) fn acked(&mut self, edit: &mut Edit<'_>, ack: Ack) -> Result<(), StepError> {
        let Some(index) = self.index_of(ack.mutation) else {
            // a write that the pong has confirmed already
            return if ack.mutation <= self.identity.confirmed {
                Ok(())
            } else {
                Err(StepError::peer("an ack names a write that was not sent"))
            };
        };
        let Some((write, false)) = self.outbox.sent(index) else { return Ok(()) };
        let entry = self.outbox.entry(edit, write)?;
        let first = self.outbox.first_of(edit, &entry.collection, &entry.record_id)?;
        if first != Some(write) {
            return Err(StepError::peer(
                "an ack came before that of an earlier write to its record",
            ));
        }
        let Some(mut records) = self.records(&entry.collection) else { return Ok(()) };
        let stream = &mut records.stream;
        let live = stream.follows();
        // what stands in place of a change must not jump over others' changes either
        let leaves_gap = live
            && !stream.is_partial()
            && !stream.is_scoped()
            && ack.echo.is_none()
            && ack.seq.is_some_and(|seq| seq > stream.reached().next());
        let taken = match (&ack.echo, ack.seq) {
            (Some(news), _) => Taken::Echoed(news),
            (None, Some(seq)) if live => {
                records.advance(seq);
                Taken::InPlace { seq, version: ack.version }
            }
            (None, None) if live => Taken::WithoutEffect,
            (None, Some(_) | None) => Taken::Bare,
        };
        records.outbox.acknowledge(edit, index, &entry);
        records.fold(edit, write, &entry, &taken)?;
        records.save(edit);
        if leaves_gap {
            records.take_snapshot(edit, "the server's changes have a gap");
        }
        self.drop_leading_acked(edit);
        self.pacing.await_verdict(self.now.mono);
        self.pacing.settle(write);
        self.portions.writes.carry(entry.change.delta.set.size());
        edit.moved = true;
        Ok(())
    }

    /// Acknowledged places at the head leave the outbox.
    fn drop_leading_acked(&mut self, edit: &mut Edit<'_>) {
        while let Some(digest) = self.outbox.pop_acked(edit) {
            let number = self.number_in_flight(0);
            self.set_confirmed(number, digest);
            self.put_identity(edit);
        }
    }

    /// The server has not applied a write, nor anything behind it.
    pub(super) fn refused(
        &mut self,
        edit: &mut Edit<'_>,
        number: MutationNumber,
        error: ErrorMessage,
    ) -> Result<(), StepError> {
        let Some(index) = self.index_of(number) else {
            return if number <= self.identity.confirmed {
                Ok(())
            } else {
                Err(StepError::peer("an error names a write that was not sent"))
            };
        };
        let sent = self.outbox.sent(index).filter(|_| !self.outbox.is_overtaking(index));
        let Some((write, false)) = sent else {
            return Err(StepError::peer("an error came before the verdicts of earlier writes"));
        };
        let refusal = Refusal::of(&error)?;
        let entry = self.outbox.entry(edit, write)?;
        let members = self.failed_members(edit, index, &error)?;
        self.outbox.go_back(index);
        self.pacing.await_verdict(self.now.mono);
        match refusal {
            Refusal::Conflict(current) => {
                if let Some(current) = current {
                    self.conflicted(edit, write, &entry, current)?;
                }
                for (write, entry, current) in members {
                    self.conflicted(edit, write, &entry, current)?;
                }
                self.count_conflict(edit, write, &entry, &error.code);
            }
            Refusal::ForNow => self.postpone(edit, write, &entry, &error),
            Refusal::Access => self.need_token(edit, error.code, error.message),
            Refusal::Superseded => return Ok(self.become_another(edit)?),
            Refusal::ForGood => {
                self.reject(edit, write, &entry, error.code, error.message)?;
                edit.moved = true;
            }
        }
        Ok(self.rebase_deferred(edit)?)
    }

    /// The members of a transaction in flight, from the `index`-th write on, that were in conflict, each
    /// with its record's state.
    fn failed_members<'e>(
        &self,
        edit: &Edit<'_>,
        index: usize,
        error: &'e ErrorMessage,
    ) -> Result<Vec<(WriteId, Entry, &'e ServerChange)>, StepError> {
        let unit = self.outbox.unit_in_flight(index);
        let mut members = Vec::new();
        for failed in &error.failed {
            let Some(current) = &failed.current else { continue };
            let place = self.index_of(failed.mutation).filter(|place| {
                unit.is_some() && *place >= index && self.outbox.unit_in_flight(*place) == unit
            });
            let Some((write, _)) = place.and_then(|place| self.outbox.sent(place)) else {
                return Err(StepError::peer("an error names a member that was not sent"));
            };
            members.push((write, self.outbox.entry(edit, write)?, current));
        }
        Ok(members)
    }

    /// Checks that the acks which come together take every transaction whole: no crash may find half
    /// of one confirmed.
    pub(super) fn check_whole<'m>(
        &self,
        messages: impl Iterator<Item = &'m ServerMessage>,
    ) -> Result<(), StepError> {
        if !self.outbox.has_units() || !self.peer.takes_units() {
            return Ok(());
        }
        let unit = |index| self.outbox.unit_in_flight(index);
        let goes_on = |index: &usize| unit(*index).is_some() && unit(*index) == unit(*index + 1);
        // the last ack of a transaction of which more have to come
        let mut open: Option<usize> = None;
        for message in messages {
            let ack = if let ServerMessage::Ack(ack) = message { Some(ack) } else { None };
            let index = ack.and_then(|ack| self.index_of(ack.mutation));
            let before = index.and_then(|index| index.checked_sub(1));
            let is_next = match open {
                Some(last) => before == Some(last),
                None => !before.is_some_and(|before| goes_on(&before)),
            };
            if !is_next {
                return Err(StepError::peer(APART));
            }
            open = index.filter(goes_on);
        }
        match open {
            Some(_) => Err(StepError::peer(APART)),
            None => Ok(()),
        }
    }

    /// The app gives up a write that the server keeps turning down.
    pub(super) fn reject_stalled(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
    ) -> Result<(), Misuse> {
        // a transaction has the name of its first write, and any of its writes stands for it
        let write = self.outbox.first_with(write);
        let free = self.outbox.in_flight() == 0
            && (!self.outbox.is_frozen(write) || self.plain_may_drop(write));
        if !free && self.outbox.holds(write) && self.pacing.keeps_breaking(write) {
            self.pacing.give_up(write);
            self.put_identity(edit);
            edit.flush = true;
            self.ask_anew(edit);
            return Ok(());
        }
        let code = self.pacing.stalled(write).filter(|_| free).ok_or(Misuse::NotStalled(write))?;
        Ok(self.reject_by_hand(edit, write, code)?)
    }

    fn reject_by_hand(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        code: ErrorCode,
    ) -> Result<(), StoreError> {
        let entry = self.outbox.entry(edit, write)?;
        let message = String::from(if self.pacing.keeps_breaking(write) {
            "rejected by hand after connections had broken before it was through"
        } else {
            "rejected by hand after the server had turned it down again"
        });
        self.pacing.release();
        self.reject(edit, write, &entry, code, message)
    }

    /// Lets the next hello tell, soon, what the server has of a write that was rejected by hand.
    fn ask_anew(&mut self, edit: &mut Edit<'_>) {
        if self.link.is_up() {
            self.lose_connection(edit, "a write that does not come through was rejected by hand");
            self.link.wait_until(self.now.mono);
        } else if self.exchange.is_some() {
            self.drop_exchange(edit);
            self.fallback.doubt();
            self.fallback.set_poll(Some(self.now.mono));
        }
    }

    /// It is known what the server has: what the app has rejected meanwhile goes, if it is not that.
    pub(super) fn reject_given_up(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let first = self.outbox.first_entry(edit)?.map(|(write, _)| write);
        match self.pacing.take_given_up() {
            Some(write) if first == Some(write) => {
                self.reject_by_hand(edit, write, ErrorCode::PayloadTooLarge)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A connection or a push has broken before the first of its writes had a verdict: perhaps the write
    /// is larger than what the link carries.
    pub(super) fn count_break(&mut self, edit: &mut Edit<'_>) {
        let Some((write, bytes)) = self.outbox.first_in_flight() else { return };
        let stalls = self.pacing.count_break(write, bytes);
        if self.pacing.attempts().is_some() {
            self.put_identity(edit);
        }
        // a store that fails is noticed by what is read next
        if stalls && let Ok(entry) = edit.entry(write) {
            self.tell_stalled(edit, write, &entry, &ErrorCode::PayloadTooLarge);
        }
    }

    /// Goes on with the attempts of before a restart, if the write that they are of still waits.
    pub(super) fn recall_attempts(&mut self, edit: &Edit<'_>) -> Result<(), StoreError> {
        let Some(attempts) = self.identity.attempts else { return Ok(()) };
        let first = self.outbox.first_entry(edit)?;
        if let Some((write, entry)) = first.filter(|(write, _)| *write == attempts.write) {
            self.pacing.recall(attempts);
            if let Some(code) = self.pacing.stalled(write) {
                self.pacing.tell(self.stalled(edit, write, &entry, &code));
            }
        }
        Ok(())
    }

    /// Returns `true` if a write is sent without a base, because it does not matter what it
    /// overwrites.
    pub(super) fn is_unconditional(&self, write: WriteId) -> bool {
        matches!(self.config.conflict_strategy, ConflictStrategy::ClientWins)
            && self.pacing.has_conflicts(write, CLIENT_WINS_CONFLICTS)
    }

    fn conflicted(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        current: &ServerChange,
    ) -> Result<(), StoreError> {
        let row = edit.row(&entry.collection, &entry.record_id)?;
        let forgotten = self.is_forgotten(edit, write, entry, row.as_ref())?;
        self.is_told(edit, write);
        if let Some(mut records) = self.records(&entry.collection) {
            records.learn_conflict(edit, entry, current, row, forgotten)?;
            records.save(edit);
        }
        Ok(())
    }

    /// A write was turned down once more because of what the record is.
    pub(super) fn count_conflict(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: &ErrorCode,
    ) {
        let conflicts = self.pacing.count_conflict(write);
        if conflicts >= STALLED_CONFLICTS {
            self.stall(edit, write, entry, code, conflicts - STALLED_CONFLICTS);
        }
    }

    /// The server can't take the write now.
    pub(super) fn postpone(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        error: &ErrorMessage,
    ) {
        let failures = self.pacing.count_failure(write, &error.code);
        if error.code == ErrorCode::PayloadTooLarge {
            self.put_identity(edit);
        }
        self.back_off_writes(failures, error.retry_after_ms.map(Duration::from_millis));
        if failures >= STALLED_FAILURES {
            self.stall(edit, write, entry, &error.code, failures - STALLED_FAILURES);
        }
    }

    fn stall(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: &ErrorCode,
        again: u32,
    ) {
        self.back_off_writes(again, None);
        if again == 0 {
            self.tell_stalled(edit, write, entry, code);
        }
    }

    fn tell_stalled(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: &ErrorCode,
    ) {
        let stalled = self.stalled(edit, write, entry, code);
        self.pacing.tell(stalled.clone());
        let StalledWrite { write, collection, record_id, bytes, code } = stalled;
        edit.remote_event(EventKind::WriteStalled { collection, record_id, write, code, bytes });
    }

    /// The news that a write is stalled, or a transaction, with the size of all that goes out with it.
    fn stalled(
        &self,
        edit: &Edit<'_>,
        write: WriteId,
        entry: &Entry,
        code: &ErrorCode,
    ) -> StalledWrite {
        let size = |entry: &Entry| entry.change.delta.set.size();
        let members = entry.unit.and_then(|unit| self.outbox.members(edit, unit).ok());
        let together =
            |members: Vec<(WriteId, Entry)>| members.iter().map(|(_, it)| size(it)).sum();
        let bytes = members.map_or_else(|| size(entry), together);
        let (collection, record_id) = (entry.collection.clone(), entry.record_id.clone());
        StalledWrite { write, collection, record_id, bytes, code: code.clone() }
    }

    fn back_off_writes(&mut self, failures: u32, at_least: Option<Duration>) {
        let (now, config, random) = (self.now.mono, &self.config, &mut self.random);
        self.pacing.back_off(now, failures, at_least, config, random);
    }

    fn index_of(&self, number: MutationNumber) -> Option<usize> {
        let index = number.0.checked_sub(self.identity.confirmed.0 + 1)?;
        usize::try_from(index).ok().filter(|index| *index < self.outbox.in_flight())
    }
}
