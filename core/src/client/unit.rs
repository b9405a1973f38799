//! Transactions of the app: all their writes in one commit, and neighbours in the outbox.

use alloc::vec::Vec;

use super::edit::Edit;
use super::exchange::Exchange;
use super::interface::{Misuse, TransactionBody};
use super::machine::Client;
use super::transaction::TransactionDraft;
use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::row::{Entry, Rejected, Row, Seen, Unit};
use crate::store::StoreError;

impl Client {
    /// Makes a transaction; nothing changes where it fails.
    pub(super) fn transact(
        &mut self,
        edit: &mut Edit<'_>,
        body: TransactionBody,
    ) -> Result<Option<WriteId>, Misuse> {
        let made = {
            let seeing = |collection: &Collection, id: &RecordId| seen(edit, collection, id);
            let mut draft = TransactionDraft::new(&seeing);
            body(&mut draft)?;
            draft.finish()
        };
        let mut entries = Vec::new();
        for ((collection, id), state) in made.expected {
            entries.push((collection, id, Member::Expected(Seen::of(state.as_ref()))));
        }
        for ((collection, id), change, state) in made.writes {
            entries.push((collection, id, Member::Written(change, state)));
        }
        self.put_unit(edit, entries, made.keeps_won)
    }

    /// Makes a rejected transaction again, with what it expected.
    pub(super) fn make_again(
        &mut self,
        edit: &mut Edit<'_>,
        members: &[Rejected],
    ) -> Result<Option<WriteId>, Misuse> {
        let keeps_won = members.iter().any(|it| it.unit.is_some_and(|unit| unit.keeps_won));
        let mut entries = Vec::new();
        for member in members {
            let Rejected { collection, record_id: id, change, .. } = member;
            let state = seen(edit, collection, id)?;
            let (collection, id) = (collection.clone(), id.clone());
            if let Some(expects) = member.expects {
                if expects != Seen::of(state.as_ref()) {
                    return Err(Misuse::PreconditionFailed { collection, record_id: id });
                }
                entries.push((collection, id, Member::Expected(expects)));
                continue;
            }
            if change.kind == WriteKind::Update && state.is_none() {
                return Err(Misuse::NoSuchRecord { collection, record_id: id });
            }
            let after = change.apply(state.as_ref());
            if let Some(change) = Change::between(state.as_ref(), after.as_ref()) {
                entries.push((collection, id, Member::Written(change, after)));
            }
        }
        self.put_unit(edit, entries, keeps_won)
    }

    /// The rejected writes of a transaction, or of none.
    pub(super) fn rejected_with(
        &self,
        edit: &Edit<'_>,
        rejected: &Rejected,
    ) -> Result<Vec<Rejected>, StoreError> {
        let Some(unit) = rejected.unit else { return Ok([rejected.clone()].into()) };
        let mut members = Vec::new();
        for write in unit.first.0..unit.end.0 {
            let write = WriteId(write);
            let Some(row) = edit.get(&self.keys.rejected(write))? else { continue };
            let member = Rejected::decode(write, row)?;
            if member.unit.is_some_and(|of| of.first == unit.first) {
                members.push(member);
            }
        }
        Ok(members)
    }

    /// Puts a transaction into the outbox, and lets its records show it.
    fn put_unit(
        &mut self,
        edit: &mut Edit<'_>,
        members: Vec<(Collection, RecordId, Member)>,
        keeps_won: bool,
    ) -> Result<Option<WriteId>, Misuse> {
        if members.is_empty() {
            return Ok(None);
        }
        self.check_unit(&members)?;
        let first = self.outbox.end();
        let end = WriteId(first.0 + members.len() as u64);
        let unit = Unit { first, end, keeps_won };
        edit.flush = true;
        for (collection, id, member) in members {
            self.put_member(edit, unit, &collection, &id, member)?;
        }
        edit.transaction = Some(first);
        Ok(Some(first))
    }

    fn check_unit(&self, members: &[(Collection, RecordId, Member)]) -> Result<(), Misuse> {
        let mut bytes = 0;
        for (_, _, member) in members {
            if let Member::Written(change, state) = member {
                self.check_limits(state.as_ref())?;
                bytes += change.delta.set.size();
            }
        }
        let (max_members, max_bytes) =
            (TransactionDraft::MAX_MEMBERS, self.config.limits.frame_bytes / 2);
        let members = members.len();
        if members > max_members || bytes > max_bytes {
            return Err(Misuse::TransactionTooLarge { members, bytes, max_members, max_bytes });
        }
        let max = self.config.max_pending_writes;
        if self.outbox.len() + members > max {
            return Err(Misuse::OutboxFull { max });
        }
        Ok(())
    }

    fn put_member(
        &mut self,
        edit: &mut Edit<'_>,
        unit: Unit,
        collection: &Collection,
        id: &RecordId,
        member: Member,
    ) -> Result<(), StoreError> {
        let before = edit.row(collection, id)?;
        let row = before.clone().unwrap_or_default();
        let (change, view) = match member {
            Member::Written(change, view) => (change, view),
            Member::Expected(expects) => {
                let seen_at = row.seen_at();
                let entry = Entry::expectation(collection.clone(), id.clone(), expects, seen_at);
                self.outbox.append(edit, Entry { unit: Some(unit), ..entry });
                let shown = (row.view().cloned(), seen_at);
                return self.show_pending(edit, collection, id, before.as_ref(), shown);
            }
        };
        let (written_at, stamped) = self.stamp(edit, collection, id, &row)?;
        let operation = change.kind;
        let entry = Entry::new(collection.clone(), id.clone(), change, written_at);
        let write = self.outbox.append(edit, Entry { stamped, unit: Some(unit), ..entry });
        let written_at = stamped.map_or(written_at, |it| it.corrected(written_at, 0));
        self.show_pending(edit, collection, id, before.as_ref(), (view, written_at))?;
        edit.queued((collection, id), write, operation, Some(unit));
        Ok(())
    }
}

impl Client {
    /// Takes the expectations of the transaction that is sent next out of the outbox, where the server
    /// would not know them: they hold here, and the other members go out one by one.
    pub(super) fn drop_expectations(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if !self.outbox.has_units() || self.peer.takes_units() || !self.sends_singly() {
            return Ok(());
        }
        let next = self.outbox.first_unsent_entry(edit)?;
        let Some(unit) = next.filter(|entry| entry.expects.is_some()).and_then(|it| it.unit) else {
            return Ok(());
        };
        let members = self.outbox.members(edit, unit)?;
        if !members.iter().all(|(_, entry)| self.is_ready(&entry.collection)) {
            return Ok(());
        }
        (edit.gates, edit.flush) = (true, true);
        for (write, entry) in members.iter().filter(|(_, entry)| entry.expects.is_some()) {
            self.outbox.remove(edit, *write, entry);
            if let Some(mut records) = self.records(&entry.collection) {
                records.fold_expectation(edit, *write, entry)?;
            }
        }
        if self.peer.is_plain() {
            self.outbox.advance_head(edit)?;
        }
        Ok(())
    }

    /// Returns `true` if what is sent next goes to a server without transactions, and nothing that was
    /// sent before waits for a verdict.
    fn sends_singly(&self) -> bool {
        if self.awaits_time() || self.pacing.holds(self.now.mono) {
            return false;
        }
        if self.peer.is_plain() {
            return self.is_sending_plainly();
        }
        let is_welcomed = self.exchange.as_ref().is_some_and(Exchange::is_welcomed);
        let is_up = self.link.ready_since().is_some() || is_welcomed;
        is_up && self.outbox.in_flight() == 0
    }
}

/// A member of a transaction that is put into the outbox.
enum Member {
    /// A state of a record that was seen.
    Expected(Seen),
    /// A change of a record, and its outcome.
    Written(Change, Option<Document>),
}

/// A record as the app sees it.
fn seen(
    edit: &Edit<'_>,
    collection: &Collection,
    id: &RecordId,
) -> Result<Option<Document>, StoreError> {
    Ok(edit.row(collection, id)?.as_ref().and_then(Row::view).cloned())
}
