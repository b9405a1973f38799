//! Records with and without pending writes: how server states and verdicts fold into them.

use alloc::vec::Vec;

use super::edit::Edit;
use super::event::{Event, EventKind};
use super::forgotten::presume_applied;
use super::machine::Client;
use super::times::{latest, local_times, outcome_times, remote_times};
use crate::protocol::document::Document;
use crate::protocol::message::ServerChange;
use crate::protocol::name::{Collection, RecordId, Seq, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::conflict::{Conflict, ResolverFailure};
use crate::rules::row::{Entry, Parked, Row, StreamRow};
use crate::store::StoreError;

/// How the server's taking of a write became known.
pub(super) enum Taken<'a> {
    /// In its place in the live stream.
    InPlace { seq: Seq, version: Option<u64> },
    /// Out of place, with every field that changed above the write's base.
    Echoed(&'a ServerChange),
    /// It changed nothing, and the live stream may by now have shown what came after it.
    WithoutEffect,
    /// Without any word on the record's state.
    Bare,
}

impl Client {
    /// The seq of the server state on which a record's pending writes stand.
    pub(super) fn base_of(&self, collection: &Collection, row: Option<&Row>) -> Seq {
        match row.and_then(Row::parked) {
            Some(_) if planted!(BaseCountsParked) => self.known(collection, row),
            Some(parked) if parked.hidden && !self.is_of_now(collection, row) => Seq(0),
            Some(parked) => parked.seq,
            None => self.known(collection, row),
        }
    }

    /// Whether what was learnt of a record still says something about the server's present seqs.
    fn is_of_now(&self, collection: &Collection, row: Option<&Row>) -> bool {
        let generation = self.streams.get(collection).map(|stream| stream.row.generation);
        generation.is_some() && generation == row.map(|row| row.generation)
    }

    /// The seq up to which a record's server state is known.
    fn known(&self, collection: &Collection, row: Option<&Row>) -> Seq {
        let Some(stream) = self.streams.get(collection) else { return Seq(0) };
        // the cursor vouches for nothing that the server has not shown
        if row.is_some_and(|row| stream.row.is_held(row)) && !planted!(HeldRowsVouchedFor) {
            return Seq(0);
        }
        let learnt = learnt(&stream.row, row);
        // a cursor of a stream with gaps, or that may have some, vouches only for what is held
        let vouched = stream.is_complete() || row.is_some_and(|row| row.server.is_some());
        let vouched = vouched && !planted!(BaseWithoutCursor);
        if vouched { learnt.max(stream.reached()) } else { learnt }
    }

    /// Takes in what the server says of a record. Says whether it was news.
    pub(super) fn learn(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        news: &ServerChange,
    ) -> Result<bool, StoreError> {
        let before = edit.row(collection, id)?;
        let stream = self.stream(collection);
        let seq = news.seq.unwrap_or_default();
        let known = learnt(&stream.row, before.as_ref());
        // what comes in sight again need not have changed
        let shown = seq == known && before.as_ref().is_some_and(Row::is_hidden);
        if seq <= known && !shown {
            return Ok(false);
        }
        let mut row = before.clone().unwrap_or_default();
        self.park(collection, &mut row);
        self.take_state(collection, id, &mut row, news, seq);
        self.settle(edit, collection, id, &mut row)?;
        edit.put_row(collection, id, before.as_ref(), &row);
        Ok(true)
    }

    /// Takes in the state that a CONFLICT about a write carries, unless the stream has shown a newer
    /// one. A `forgotten` one may have been applied before.
    pub(super) fn learn_conflict(
        &mut self,
        edit: &mut Edit<'_>,
        entry: &Entry,
        current: &ServerChange,
        forgotten: bool,
    ) -> Result<(), StoreError> {
        let Entry { collection, record_id: id, .. } = entry;
        let before = edit.row(collection, id)?;
        let gone = current.change.kind == WriteKind::Delete && !planted!(OfferLeftToStrategy);
        if gone && before.as_ref().is_some_and(|row| self.is_offered(collection, row)) {
            return self.offer_record(edit, collection, id);
        }
        let stream = self.stream(collection);
        let seq = current.seq.unwrap_or_default();
        let live = stream.follows();
        // of what is withheld the stream does not tell that it is gone
        let silent = !live || before.as_ref().is_some_and(Row::is_hidden);
        let unknown = seq == Seq(0) && silent;
        let mut row = before.clone().unwrap_or_default();
        let undone = forgotten && gone && self.was_applied(collection, seq);
        if undone && !planted!(ForgottenInsertUnasked) {
            presume_applied(&mut row, entry);
        }
        let stream = self.stream(collection);
        if unknown || seq >= learnt(&stream.row, before.as_ref()) {
            let was_there = row.server.is_some();
            self.park(collection, &mut row);
            self.take_state(collection, id, &mut row, current, seq);
            let stream = self.stream(collection);
            stream.hold(seq);
            // that a record is gone without a trace says nothing of when it went
            let vanished = seq == Seq(0) && was_there && row.server.is_none();
            stream.row.behind |= vanished && !planted!(VanishedNotBehind);
        }
        self.settle(edit, collection, id, &mut row)?;
        edit.put_row(collection, id, before.as_ref(), &row);
        Ok(())
    }

    /// A snapshot's page lacks a record that lies in its range.
    pub(super) fn learn_absence(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        snapshot_seq: Seq,
    ) -> Result<(), StoreError> {
        let Some(before) = edit.row(collection, id)? else { return Ok(()) };
        let stream = &self.stream(collection).row;
        // of a lost tail: it goes, or does not, when everything is known
        let held = stream.is_held(&before) && !planted!(HeldRowsDropped);
        // learnt after the snapshot began: the changes that follow it will tell
        if before.server.is_none() || held || learnt(stream, Some(&before)) > snapshot_seq {
            return Ok(());
        }
        self.take_absence(edit, collection, id, before, snapshot_seq)
    }

    /// The server does not have a record, as of `snapshot_seq`.
    pub(super) fn take_absence(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        before: Row,
        snapshot_seq: Seq,
    ) -> Result<(), StoreError> {
        let mut row = before.clone();
        self.park(collection, &mut row);
        let stream = self.stream(collection);
        if stream.is_partial() {
            // it may be there and withheld, as it was at any time
            hide(&mut stream.row, id, &mut row, Seq(0));
        } else {
            set_server(&mut stream.row, id, &mut row, None, snapshot_seq);
            if let Some(parked) = row.parked_mut() {
                parked.at.clear();
                parked.undated = !planted!(UndatedDeleteLoses);
            }
        }
        self.settle(edit, collection, id, &mut row)?;
        edit.put_row(collection, id, Some(&before), &row);
        Ok(())
    }

    /// The record is out of this user's sight as of `seq`, which is no change of it. Says whether
    /// it was news.
    pub(super) fn lose_sight(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        seq: Seq,
    ) -> Result<bool, StoreError> {
        let Some(before) = edit.row(collection, id)? else { return Ok(false) };
        // what is known of a later state was in sight
        let outdated = seq < learnt(&self.stream(collection).row, Some(&before));
        if outdated && !planted!(SightLostByOldNews) {
            return Ok(false);
        }
        let mut row = before.clone();
        self.park(collection, &mut row);
        hide(&mut self.stream(collection).row, id, &mut row, seq);
        self.settle(edit, collection, id, &mut row)?;
        edit.put_row(collection, id, Some(&before), &row);
        Ok(true)
    }

    /// Folds a write that the server has taken into its record, at once into the base, so that
    /// the view never loses it.
    pub(super) fn fold(
        &mut self,
        edit: &mut Edit<'_>,
        position: WriteId,
        entry: &Entry,
        taken: &Taken<'_>,
    ) -> Result<(), StoreError> {
        let Entry { collection, record_id: id, change, .. } = entry;
        let before = edit.row(collection, id)?;
        let mut row = before.clone().unwrap_or_default();
        let base = change.apply(row.base());
        let known = self.known(collection, before.as_ref());
        let hidden = row.is_hidden();
        let mut times = Vec::new();
        let stream = self.stream(collection);
        match taken {
            Taken::InPlace { seq, version } => {
                let server = change.apply(row.server.as_ref());
                set_server(&mut stream.row, id, &mut row, server, *seq);
                row.version = version.unwrap_or(row.version + 1);
                row.updated_at = row.updated_at.max(entry.written_at);
            }
            Taken::Echoed(news) => {
                let seq = news.seq.unwrap_or_default();
                if planted!(EchoIgnored) {
                    let server = change.apply(row.server.as_ref());
                    set_server(&mut stream.row, id, &mut row, server, seq);
                } else if seq >= learnt(&stream.row, before.as_ref()) {
                    let usual = news.timestamp.unwrap_or(row.updated_at);
                    remote_times(&mut times, row.server.as_ref(), news, usual);
                    self.take_state(collection, id, &mut row, news, seq);
                    self.stream(collection).hold(seq);
                }
            }
            Taken::WithoutEffect if planted!(BareAckFolded) => {
                let server = change.apply(row.server.as_ref());
                let seq = row.seq;
                set_unlearnt(&mut stream.row, id, &mut row, server, seq);
            }
            Taken::WithoutEffect => {}
            Taken::Bare => {
                let server = change.apply(row.server.as_ref());
                let seq = row.seq;
                set_unlearnt(&mut stream.row, id, &mut row, server, seq);
                // the next write has to be stamped later than this one, which has been seen
                row.updated_at = row.updated_at.max(entry.written_at);
                if planted!(BareAckSetsSeq) {
                    row.seq = row.seq.next();
                }
            }
        }
        if hidden && row.server.is_none() {
            let stream = &self.stream(collection).row;
            let outdated = planted!(OutdatedSeqHidden);
            let seq = if outdated { row.seq } else { learnt(stream, Some(&row)) };
            hide(&mut self.stream(collection).row, id, &mut row, seq);
        }
        fold_base(&mut row, base, known, times);
        self.settle(edit, collection, id, &mut row)?;
        edit.put_row(collection, id, before.as_ref(), &row);
        let kind = EventKind::OperationSynced { write: position, level: self.level() };
        edit.event(Event::remote(kind).of(collection, id));
        Ok(())
    }

    /// Lets what is known of a record count up to the base of its pending writes only, where its
    /// state has moved on from there. Returns the base then.
    pub(super) fn forget_since_base(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<Seq>, StoreError> {
        let Some(before) = edit.row(collection, id)?.filter(|row| !row.is_hidden()) else {
            return Ok(None);
        };
        let Some(base) = before.parked().map(|parked| parked.seq) else { return Ok(None) };
        let mut row = before.clone();
        let (server, seq) = (row.server.clone(), row.seq.min(base));
        set_unlearnt(&mut self.stream(collection).row, id, &mut row, server, seq);
        edit.put_row(collection, id, Some(&before), &row);
        Ok(Some(base))
    }

    /// Lets a record follow its pending writes after some of them are gone or free again.
    pub(super) fn resettle(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        self.resettle_if(edit, collection, id, self.outbox.frozen_until())
    }

    /// Settles every record whose writes are no longer frozen.
    pub(super) fn settle_parked(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        for (collection, id) in edit.parked()? {
            self.resettle(edit, &collection, &id)?;
        }
        Ok(())
    }

    /// Keeps the state beneath pending writes, before the server's moves on from it.
    pub(super) fn park(&self, collection: &Collection, row: &mut Row) {
        let seq = self.known(collection, Some(row));
        let base = row.server.clone();
        if let Some(pending) = &mut row.pending
            && pending.parked.is_none()
        {
            pending.parked = Some(Parked::new(base, seq, Vec::new()));
        }
    }

    fn take_state(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        row: &mut Row,
        news: &ServerChange,
        seq: Seq,
    ) {
        let before = row.server.as_ref().filter(|_| !planted!(DeltaOverwrites));
        let server = news.change.apply(before);
        let written_at = news.timestamp.unwrap_or(row.updated_at);
        let before = row.server.clone().filter(|_| row.pending.is_some());
        if let Some(parked) = row.parked_mut() {
            remote_times(&mut parked.at, before.as_ref(), news, written_at);
        }
        let stream = self.stream(collection);
        set_server(&mut stream.row, id, row, server, seq);
        row.version = news.version.unwrap_or(row.version + 1);
        row.updated_at = written_at;
        if let Some(parked) = row.parked_mut() {
            let undated = news.change.kind == WriteKind::Delete && news.timestamp.is_none();
            parked.undated = undated && !planted!(UndatedDeleteLoses);
        }
    }

    /// Sets the state that a plain server tells of.
    pub(super) fn take_plain_state(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        row: &mut Row,
        news: &ServerChange,
        state: Option<Document>,
        at: Timestamp,
    ) {
        let changed = Change::between(row.server.as_ref(), state.as_ref());
        let stream = self.stream(collection);
        set_server(&mut stream.row, id, row, state, Seq(0));
        row.updated_at = at;
        if let (Some(parked), Some(change)) = (row.parked_mut(), changed) {
            let undated = change.kind == WriteKind::Delete && news.timestamp.is_none();
            parked.undated = undated && !planted!(UndatedDeleteLoses);
            remote_times(&mut parked.at, None, &ServerChange { change, ..news.clone() }, at);
        }
    }

    /// Brings a record's pending writes onto its server state, once none of them is frozen: writes
    /// that a remote change does not meet are re-based, others are decided by the strategy.
    pub(super) fn settle(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        row: &mut Row,
    ) -> Result<(), StoreError> {
        self.settle_if(edit, collection, id, row, self.outbox.frozen_until())
    }

    /// Settles a record although writes of it may have reached the server, because it is known by
    /// now that no more becomes of them.
    pub(super) fn settle_frozen(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        self.resettle_if(edit, collection, id, WriteId(0))
    }

    fn resettle_if(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        frozen_until: WriteId,
    ) -> Result<(), StoreError> {
        let Some(before) = edit.row(collection, id)? else { return Ok(()) };
        let mut row = before.clone();
        self.settle_if(edit, collection, id, &mut row, frozen_until)?;
        edit.put_row(collection, id, Some(&before), &row);
        Ok(())
    }

    /// Entries in front of `frozen_until` are not touched.
    fn settle_if(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        row: &mut Row,
        frozen_until: WriteId,
    ) -> Result<(), StoreError> {
        if row.pending.is_none() {
            return Ok(());
        }
        forget_gone_fields(row);
        let entries = edit.entries_of(collection, id)?;
        let Some((first, _)) = entries.first() else {
            row.pending = None;
            return Ok(());
        };
        let frozen = *first < frozen_until && !planted!(SettledWhileFrozen);
        let Some(pending) = &mut row.pending else { return Ok(()) };
        if frozen && pending.parked.is_some() {
            return Ok(());
        }
        if let Some(parked) = pending.parked.as_ref().filter(|parked| parked.hidden) {
            // out of sight is no change: the writes go out as they were made
            pending.view = applied(parked.base.as_ref(), &entries);
            pending.written_at = latest(&entries);
            return Ok(());
        }
        let parked = pending.parked.take();
        let remote =
            parked.as_ref().and_then(|old| Change::between(old.base.as_ref(), row.server.as_ref()));
        if let (Some(parked), Some(remote)) = (parked, remote)
            && entries.iter().any(|(_, entry)| entry.change.meets(&remote))
            && !planted!(OverlapIgnored)
        {
            if self.decides_later() {
                pending.view = applied(parked.base.as_ref(), &entries);
                pending.written_at = latest(&entries);
                pending.parked = Some(parked);
                return Ok(());
            }
            self.resolve(edit, collection, id, row, &parked, &entries);
            return Ok(());
        }
        pending.view = applied(row.server.as_ref(), &entries);
        if planted!(ViewWithoutOverlay) {
            pending.view = row.server.clone();
        }
        pending.written_at = latest(&entries);
        Ok(())
    }

    /// Lets the strategy decide, and collapses the record's pending writes into one that brings
    /// the outcome to the server.
    fn resolve(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        row: &mut Row,
        parked: &Parked,
        entries: &[(WriteId, Entry)],
    ) {
        let local_at = latest(entries);
        // a deletion counts for itself, edits by the latest of them
        let remote_at = match row.server {
            None if parked.undated => Timestamp::MAX,
            None => row.updated_at,
            Some(_) => parked.at.iter().map(|(_, at)| *at).fold(row.updated_at, Timestamp::max),
        };
        // not what is shown, which a write that was just rejected may still be part of
        let local = applied(parked.base.as_ref(), entries);
        let conflict = Conflict {
            collection,
            record_id: id,
            base: parked.base.as_ref(),
            local: local.as_ref(),
            remote: row.server.as_ref(),
            local_at,
            remote_at,
            local_field_at: &local_times(parked.base.as_ref(), entries, local_at),
            remote_field_at: &parked.at,
        };
        let (merged, failure) = match self.config.conflict_strategy.try_resolve(&conflict) {
            Ok(merged) => (merged, None),
            Err(failure) => (conflict.merge_later(), Some(failure)),
        };
        let unasked = planted!(DeletesUndone) && row.server.is_none() && entries.len() == 1;
        let merged = if unasked { local.clone() } else { merged };
        let outcome = Change::between(row.server.as_ref(), merged.as_ref());
        let whole = local_at.max(row.updated_at);
        let times = outcome.as_ref().map(|outcome| outcome_times(&conflict, outcome, whole));
        let (written_at, at) = times.unwrap_or_default();
        edit.gates = true;
        edit.flush = true;
        for (position, entry) in entries {
            self.outbox.remove(edit, *position, entry);
            self.plain.forget(*position);
        }
        // what takes the place of a write that a plain server may have is another write
        let first = entries.first().map(|(position, _)| *position);
        let fresh = self.plain.active && first.is_some_and(|it| self.outbox.is_frozen(it));
        let first = if fresh { Some(self.outbox.end()) } else { first };
        let write = first.filter(|_| outcome.is_some() && !planted!(OutcomeNotPushed));
        if let (Some(position), Some(change)) = (write, outcome) {
            let (of, record_id) = (collection.clone(), id.clone());
            let entry = Entry { collection: of, record_id, change, written_at, at, stamped: None };
            self.outbox.replace(edit, Some(position).filter(|_| !fresh), entry);
        }
        row.pending =
            write.map(|_| crate::rules::row::Pending { view: merged, written_at, parked: None });
        let merged = entries.iter().map(|(position, _)| *position).collect();
        if unasked {
            return;
        }
        edit.event(Event::remote(EventKind::ConflictDetected).of(collection, id));
        if let Some(ResolverFailure { reason }) = failure
            && !planted!(ResolverFailureUnsaid)
        {
            edit.event(Event::local(EventKind::ResolverFailed { reason }).of(collection, id));
        }
        edit.event(Event::local(EventKind::ConflictResolved { write, merged }).of(collection, id));
    }
}

/// The base after a confirmed write; where the server's state differs from it, others have changed
/// the record meanwhile, in these fields at these times.
fn fold_base(row: &mut Row, base: Option<Document>, known: Seq, times: FieldTimes) {
    let server_differs = row.server != base;
    let Some(pending) = &mut row.pending else { return };
    match &mut pending.parked {
        Some(parked) => parked.base = base,
        None if server_differs => pending.parked = Some(Parked::new(base, known, times)),
        None => {}
    }
}

/// The seq at which a record's state was last learnt, as far as that still means something.
fn learnt(stream: &StreamRow, row: Option<&Row>) -> Seq {
    row.filter(|row| row.generation == stream.generation || planted!(BaseOfLostTail))
        .map_or(Seq(0), |row| row.seq)
}

/// Sets the server state of a record as it was learnt now, and keeps the collection's count and
/// checksum in step.
pub(super) fn set_server(
    stream: &mut StreamRow,
    id: &RecordId,
    row: &mut Row,
    server: Option<Document>,
    seq: Seq,
) {
    let generation = stream.generation;
    set_server_of(stream, id, row, server, (seq, generation));
}

/// Sets a server state that is known up to a seq of a generation. What is held without the server
/// having shown it is not counted.
fn set_server_of(
    stream: &mut StreamRow,
    id: &RecordId,
    row: &mut Row,
    server: Option<Document>,
    (seq, generation): (Seq, u64),
) {
    if let Some(old) = &row.server {
        if stream.is_held(row) {
            stream.miss(-1);
        } else {
            stream.count = stream.count.saturating_sub(1);
            stream.checksum.remove(id, row.seq, old);
        }
    }
    row.server = server;
    row.seq = seq;
    row.generation = generation;
    if let Some(parked) = row.parked_mut() {
        parked.hidden = false;
    }
    if let Some(new) = &row.server {
        if stream.is_held(row) {
            stream.miss(1);
        } else {
            stream.count += 1;
            stream.checksum.add(id, row.seq, new);
        }
    }
}

/// Takes the server state of a record out of sight, as it has been since `seq`: of what is beneath its
/// pending writes, only what is parked is known.
fn hide(stream: &mut StreamRow, id: &RecordId, row: &mut Row, seq: Seq) {
    let outdated = row.generation != stream.generation;
    set_server(stream, id, row, None, seq);
    if let Some(parked) = row.parked_mut() {
        parked.hidden = true;
        if outdated {
            parked.seq = Seq(0);
        }
    }
}

/// Sets a server state that was not learnt now: it is known up to `seq`, as of the generation in
/// which the record was learnt last.
fn set_unlearnt(
    stream: &mut StreamRow,
    id: &RecordId,
    row: &mut Row,
    server: Option<Document>,
    seq: Seq,
) {
    let generation = row.generation;
    set_server_of(stream, id, row, server, (seq, generation));
}

fn applied(base: Option<&Document>, entries: &[(WriteId, Entry)]) -> Option<Document> {
    let base = base.cloned();
    entries.iter().fold(base, |state, (_, entry)| entry.change.apply(state.as_ref()))
}

/// Forgets when fields were written that neither the state beneath a record's writes nor the
/// server's has any more: they say nothing, and fields that come and go can't make the list grow.
fn forget_gone_fields(row: &mut Row) {
    let parked = row.pending.as_mut().and_then(|pending| pending.parked.as_mut());
    if let Some(parked) = parked.filter(|_| !planted!(GoneFieldsKept)) {
        let base = &parked.base;
        parked.at.retain(|(name, _)| has_field(base, name) || has_field(&row.server, name));
    }
}

/// Whether times are kept beneath a record's writes of fields that are there.
pub(super) fn knows_gone_fields(row: &Row) -> bool {
    row.parked().is_some_and(|parked| {
        let is_there = |name: &str| has_field(&parked.base, name) || has_field(&row.server, name);
        !parked.at.iter().all(|(name, _)| is_there(name))
    })
}

fn has_field(state: &Option<Document>, name: &str) -> bool {
    state.as_ref().is_some_and(|state| state.get(name).is_some())
}
