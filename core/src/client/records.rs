//! Records with and without pending writes: how server states and verdicts fold into them.

use alloc::vec::Vec;

use super::config::OnServerLoss;
use super::edit::{Edit, LostBy};
use super::event::EventKind;
use super::outbox::Outbox;
use super::peer::Peer;
use super::stream::Stream;
use super::times::remote_times;
use crate::protocol::document::Document;
use crate::protocol::message::ServerChange;
use crate::protocol::name::{Collection, RecordId, Seq, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::conflict::ConflictStrategy;
use crate::rules::row::{Deferred, Entry, Row};
use crate::store::StoreError;

/// The records of one collection, with all parts of the machine that a change of them touches.
pub(super) struct Records<'a> {
    pub(super) collection: &'a Collection,
    pub(super) stream: &'a mut Stream,
    pub(super) outbox: &'a mut Outbox,
    pub(super) strategy: &'a ConflictStrategy,
    pub(super) on_server_loss: Option<OnServerLoss>,
    /// The server's epoch.
    pub(super) peer: &'a mut Peer,
    /// `true` if conflicts wait for the server's time.
    pub(super) decides_later: bool,
}

/// The way in which the server's taking of a write became known.
pub(super) enum Taken<'a> {
    /// In its place in the live stream.
    InPlace { seq: Seq, version: Option<u64> },
    /// Out of place, with every field that changed above the write's base.
    Echoed(&'a ServerChange),
    /// It changed nothing, and the live stream may by now have shown later changes.
    WithoutEffect,
    /// Without any word on the record's state.
    Bare,
}

impl Records<'_> {
    /// The seq of the server state on which a record's pending writes stand.
    pub(super) fn base_of(&self, row: Option<&Row>) -> Seq {
        match row.and_then(Row::deferred) {
            Some(deferred) if deferred.withheld && !self.is_of_now(row) => Seq(0),
            Some(deferred) => deferred.seq,
            None => self.known(row),
        }
    }

    /// Returns `true` if a record was learnt in the present generation of the stream.
    fn is_of_now(&self, row: Option<&Row>) -> bool {
        row.is_some_and(|row| row.generation == self.stream.row.generation)
    }

    /// The seq up to which a record's server state is known.
    fn known(&self, row: Option<&Row>) -> Seq {
        // the cursor vouches for nothing that the server has not shown
        if row.is_some_and(|row| self.stream.row.is_held(row)) {
            return Seq(0);
        }
        let learnt = self.stream.row.learnt(row);
        // a cursor of a stream with gaps, or that may have some, vouches only for what is held, and one of
        // scopes for what was shown in its generation
        let is_held = row.is_some_and(|row| row.server.is_some());
        let is_shown = !self.stream.is_scoped() || self.is_of_now(row);
        let vouched = self.stream.is_complete() || is_held && is_shown;
        if vouched { learnt.max(self.stream.reached()) } else { learnt }
    }

    /// Takes in a change that the server tells of a record, which was stored as `before`. Returns
    /// `true` if it was news.
    pub(super) fn learn(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        before: Option<Row>,
        news: &ServerChange,
    ) -> Result<bool, StoreError> {
        let seq = news.seq.unwrap_or_default();
        let known = self.stream.row.learnt(before.as_ref());
        // what comes in sight again need not have changed
        let shown = seq == known && before.as_ref().is_some_and(Row::is_withheld);
        if seq <= known && !shown {
            return Ok(false);
        }
        let mut row = before.clone().unwrap_or_default();
        self.defer(&mut row);
        self.take_state(id, &mut row, news, seq);
        self.rebase(edit, id, &mut row)?;
        self.fit(id, &mut row);
        edit.put_row(self.collection, id, before.as_ref(), &row);
        // what lies outside of what is held is never shown
        Ok(news.change.kind != WriteKind::Insert || row.server.is_some())
    }

    /// Takes in the state that a CONFLICT about a write carries, unless the stream has shown a newer
    /// one. `before` is the row of its record. A `forgotten` write may have been applied before.
    pub(super) fn learn_conflict(
        &mut self,
        edit: &mut Edit<'_>,
        entry: &Entry,
        current: &ServerChange,
        before: Option<Row>,
        forgotten: bool,
    ) -> Result<(), StoreError> {
        let id = &entry.record_id;
        let gone = current.change.kind == WriteKind::Delete;
        let offered = |row: &Row| gone && self.is_offered(row);
        let undecided = |row: &Row| gone && entry.expects.is_some() && self.stream.row.is_held(row);
        let before = match before {
            Some(before) if offered(&before) => return self.offer(edit, id, before),
            Some(before) if undecided(&before) => {
                // the server does not have what was seen; if the record goes, another decides
                edit.lost.extend(entry.unit.map(|unit| (unit, LostBy::Expectation)));
                return Ok(());
            }
            before => before,
        };
        let seq = current.seq.unwrap_or_default();
        let live = self.stream.follows();
        // of what is withheld the stream does not tell that it is gone
        let silent = !live || before.as_ref().is_some_and(Row::is_withheld);
        let unknown = seq == Seq(0) && silent;
        let mut row = before.clone().unwrap_or_default();
        let undone = forgotten && gone && self.stream.may_show_applied(seq);
        if undone {
            presume_applied(&mut row, entry);
        }
        if unknown || seq >= self.stream.row.learnt(before.as_ref()) {
            let was_there = row.server.is_some();
            self.defer(&mut row);
            self.take_state(id, &mut row, current, seq);
            self.stream.hold(seq);
            // that a record is gone without a trace says nothing of when it went
            let vanished = seq == Seq(0) && was_there && row.server.is_none();
            self.stream.row.behind |= vanished;
        }
        self.rebase(edit, id, &mut row)?;
        self.fit(id, &mut row);
        edit.put_row(self.collection, id, before.as_ref(), &row);
        Ok(())
    }

    /// A snapshot's page lacks a record that lies in its range.
    pub(super) fn learn_absence(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        snapshot_seq: Seq,
    ) -> Result<(), StoreError> {
        let Some(before) = edit.row(self.collection, id)? else { return Ok(()) };
        // of a lost tail: it goes, or does not, when everything is known
        let held = self.stream.row.is_held(&before);
        // learnt after the snapshot began: the changes that follow it will tell
        if before.server.is_none() || held || self.stream.row.learnt(Some(&before)) > snapshot_seq {
            return Ok(());
        }
        self.take_absence(edit, id, before, snapshot_seq)
    }

    /// The server does not have a record, as of `snapshot_seq`.
    pub(super) fn take_absence(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        before: Row,
        snapshot_seq: Seq,
    ) -> Result<(), StoreError> {
        let mut row = before.clone();
        self.defer(&mut row);
        if self.stream.is_partial() || self.stream.is_scoped() {
            // it may be there and withheld, as it was at any time, or in another scope
            self.stream.row.withhold(id, &mut row, Seq(0));
        } else {
            self.stream.row.set_server(id, &mut row, None, snapshot_seq);
            if let Some(deferred) = row.deferred_mut() {
                deferred.at.clear();
                deferred.undated = true;
            }
        }
        self.rebase(edit, id, &mut row)?;
        edit.put_row(self.collection, id, Some(&before), &row);
        Ok(())
    }

    /// Takes a record, stored as `before`, out of this user's sight as of `seq`, which is no change
    /// of it. Returns `true` if it was news.
    pub(super) fn lose_sight(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        before: Option<Row>,
        seq: Seq,
    ) -> Result<bool, StoreError> {
        let Some(before) = before else { return Ok(false) };
        // what is known of a later state was in sight
        let outdated = seq < self.stream.row.learnt(Some(&before));
        if outdated {
            return Ok(false);
        }
        let mut row = before.clone();
        self.defer(&mut row);
        self.stream.row.withhold(id, &mut row, seq);
        self.rebase(edit, id, &mut row)?;
        edit.put_row(self.collection, id, Some(&before), &row);
        Ok(true)
    }

    /// Folds a write that the server has taken into its record, at once into the base, so that
    /// the view never loses it.
    pub(super) fn fold(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        taken: &Taken<'_>,
    ) -> Result<(), StoreError> {
        if entry.expects.is_some() {
            return self.fold_expectation(edit, write, entry);
        }
        let Entry { record_id: id, change, .. } = entry;
        let before = edit.row(self.collection, id)?;
        let mut row = before.clone().unwrap_or_default();
        let base = change.apply(row.base());
        let known = self.known(before.as_ref());
        let mut withheld = row.is_withheld();
        let mut times = Vec::new();
        match taken {
            Taken::InPlace { seq, version } => {
                let server = change.apply(row.server.as_ref());
                self.stream.row.set_server(id, &mut row, server, *seq);
                row.version = version.unwrap_or(row.version + 1);
                row.updated_at = row.updated_at.max(entry.written_at);
            }
            Taken::Echoed(news) => {
                let seq = news.seq.unwrap_or_default();
                withheld |= row.server.is_none() && self.stream.has_withheld(id, seq);
                if seq >= self.stream.row.learnt(before.as_ref()) {
                    let usual = news.timestamp.unwrap_or(row.updated_at);
                    remote_times(&mut times, row.server.as_ref(), news, usual);
                    self.take_state(id, &mut row, news, seq);
                    self.stream.hold(seq);
                }
            }
            // of a record outside of its set a stream tells nothing
            Taken::WithoutEffect if row.server.is_some() || !self.stream.is_scoped() => {}
            Taken::WithoutEffect | Taken::Bare => {
                let server = change.apply(row.server.as_ref());
                let seq = row.seq;
                self.stream.row.set_unlearnt(id, &mut row, server, seq);
                // the next write has to be stamped later than this one, which has been seen
                row.updated_at = row.updated_at.max(entry.written_at);
            }
        }
        // out of place an ack brings nothing into sight: the stream has told of it, or will
        let in_place = matches!(taken, Taken::InPlace { .. });
        if withheld && !(in_place && row.server.is_some()) {
            let seq = self.stream.row.learnt(Some(&row));
            self.stream.row.withhold(id, &mut row, seq);
        }
        fold_base(&mut row, base, known, times);
        self.rebase(edit, id, &mut row)?;
        self.fit(id, &mut row);
        edit.put_row(self.collection, id, before.as_ref(), &row);
        self.tell_synced(edit, write, entry);
        Ok(())
    }

    /// Takes a confirmed expectation off its record, of which it says nothing new.
    pub(super) fn fold_expectation(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        self.rebase_row(edit, &entry.record_id)?;
        self.tell_synced(edit, write, entry);
        Ok(())
    }

    fn tell_synced(&self, edit: &mut Edit<'_>, write: WriteId, entry: &Entry) {
        let level = self.peer.level();
        let transaction = entry.unit.map(|unit| unit.first);
        if entry.expects.is_none() {
            edit.remote_event(EventKind::OperationSynced {
                collection: self.collection.clone(),
                record_id: entry.record_id.clone(),
                write,
                level,
                transaction,
            });
        }
        if let Some(unit) = entry.unit.filter(|unit| !self.outbox.waits(*unit)) {
            let transaction = unit.first;
            edit.remote_event(EventKind::TransactionSynced { transaction, level });
        }
    }

    /// Lets what is known of a record count up to the base of its pending writes only, where its
    /// state has moved on from there. Returns the base then.
    pub(super) fn forget_since_base(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
    ) -> Result<Option<Seq>, StoreError> {
        let Some(before) = edit.row(self.collection, id)?.filter(|row| !row.is_withheld()) else {
            return Ok(None);
        };
        let Some(base) = before.deferred().map(|deferred| deferred.seq) else { return Ok(None) };
        let mut row = before.clone();
        let (server, seq) = (row.server.clone(), row.seq.min(base));
        self.stream.row.set_unlearnt(id, &mut row, server, seq);
        edit.put_row(self.collection, id, Some(&before), &row);
        Ok(Some(base))
    }

    /// Keeps the state beneath pending writes, before the server's moves on from it.
    pub(super) fn defer(&self, row: &mut Row) {
        let seq = self.known(Some(row));
        if let Some(pending) = &mut row.pending
            && pending.deferred.is_none()
        {
            pending.deferred = Some(Deferred::new(row.server.clone(), seq, Vec::new()));
        }
    }

    fn take_state(&mut self, id: &RecordId, row: &mut Row, news: &ServerChange, seq: Seq) {
        let before = row.server.as_ref();
        let server = news.change.apply(before);
        let written_at = news.timestamp.unwrap_or(row.updated_at);
        let before = row.server.clone().filter(|_| row.pending.is_some());
        if let Some(deferred) = row.deferred_mut() {
            remote_times(&mut deferred.at, before.as_ref(), news, written_at);
        }
        self.stream.row.set_server(id, row, server, seq);
        row.version = news.version.unwrap_or(row.version + 1);
        row.updated_at = written_at;
        if let Some(deferred) = row.deferred_mut() {
            let undated = news.change.kind == WriteKind::Delete && news.timestamp.is_none();
            deferred.undated = undated;
        }
    }

    /// Sets the state that a plain server tells of.
    pub(super) fn take_plain_state(
        &mut self,
        id: &RecordId,
        row: &mut Row,
        news: &ServerChange,
        state: Option<Document>,
        at: Timestamp,
    ) {
        let changed = Change::between(row.server.as_ref(), state.as_ref());
        self.stream.row.set_server(id, row, state, Seq(0));
        row.updated_at = at;
        if let (Some(deferred), Some(change)) = (row.deferred_mut(), changed) {
            let undated = change.kind == WriteKind::Delete && news.timestamp.is_none();
            deferred.undated = undated;
            remote_times(&mut deferred.at, None, &ServerChange { change, ..news.clone() }, at);
        }
    }
}

/// Sets the base after a confirmed write; where the server's state differs from it, others have changed
/// the record meanwhile, in these fields at these times.
fn fold_base(row: &mut Row, base: Option<Document>, known: Seq, times: FieldTimes) {
    let server_differs = row.server != base;
    let Some(pending) = &mut row.pending else { return };
    match &mut pending.deferred {
        Some(deferred) => deferred.base = base,
        None if server_differs => pending.deferred = Some(Deferred::new(base, known, times)),
        None => {}
    }
}

/// Bases the pending writes of a record on the outcome of its insert, which somebody has deleted since.
fn presume_applied(row: &mut Row, insert: &Entry) {
    let Some(pending) = &mut row.pending else { return };
    let deferred = pending.deferred.get_or_insert_with(|| Deferred::new(None, Seq(0), Vec::new()));
    deferred.base = insert.change.apply(None);
}
