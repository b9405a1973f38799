//! A plain server's WebSocket: how it is recognised, what is said on it and what is heard.

use alloc::format;
use alloc::vec::Vec;

use super::super::config::PlainServers;
use super::super::edit::Edit;
use super::super::event::EventKind;
use super::super::interface::{NetAction, Timer};
use super::super::link::LinkState;
use super::super::machine::Client;
use super::super::step::StepError;
use super::super::stream::{Stream, StreamError};
use super::records::{Learnt, Verdict, hash_of};
use super::{ARRIVAL, LONGEST_GATHERING, Plain, Proof, READ_AGAIN};
use crate::protocol::message::{
    ClientMessage, ErrorCode, ErrorMessage, Mutation, ServerChange, ServerMessage, SyncRecord,
};
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::rest::PlainRecord;
use crate::protocol::time::{Mono, Timestamp};
use crate::rules::row::{Entry, OutboxRow};
use crate::store::{Scan, StoreError};

impl Client {
    /// Returns `true` if a message that came instead of the answer to the hello can only be of a plain
    /// server: one of level 2 says none of this before it.
    pub(in super::super) fn is_plain_word(message: &ServerMessage) -> bool {
        match message {
            ServerMessage::Pong { welcome, .. } => welcome.is_none(),
            ServerMessage::Subscribed { mode, .. } => mode.is_none(),
            ServerMessage::Sync { range, .. } => range.is_none(),
            ServerMessage::Change { change, .. } => change.seq.is_none(),
            ServerMessage::Authenticated { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Error(_)
            | ServerMessage::Unknown { .. } => false,
        }
    }

    /// The server does not answer the hello. Says whether it is taken for a plain one.
    pub(in super::super) fn meet_silence(
        &mut self,
        edit: &mut Edit<'_>,
    ) -> Result<bool, StoreError> {
        let silent = match self.config.plain {
            PlainServers::Silent => true,
            // a server of level 2 may be slow to answer, but was never met as a plain one
            PlainServers::Detect | PlainServers::AllowDowngrade => {
                self.link.has_answered_probe() && self.peer.is_plain()
            }
            PlainServers::Never => false,
        };
        if !silent || self.refuses_plain().is_some() {
            return Ok(false);
        }
        self.plain_connected(edit)?;
        Ok(true)
    }

    /// The server shows to be a plain one.
    pub(in super::super) fn meet_plain(&mut self, edit: &mut Edit<'_>) -> Result<(), StepError> {
        if let Some(why) = self.refuses_plain() {
            return Err(StepError::Peer(format!("the server speaks level 1 only: {why}")));
        }
        Ok(self.plain_connected(edit)?)
    }

    /// A plain connection is ready.
    fn plain_connected(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.become_plain(edit)?;
        let now = self.now.mono;
        let reached = self.fallback.reaches();
        self.turn_to_websocket();
        self.link.ready(now);
        self.link.forget_ping();
        edit.remote_event(EventKind::RealtimeConnected);
        if !reached {
            edit.remote_event(EventKind::ConnectivityChanged { online: true });
        }
        if self.falls_short(edit) {
            return Ok(());
        }
        let names = self.streams.names();
        for collection in &names {
            if let Some(stream) = self.streams.get_mut(collection)
                && stream.go_live()
            {
                self.ask_whole(edit, collection);
            }
            self.show_status(edit, collection);
        }
        self.outbox.send_again();
        if !self.outbox.frozen_records(edit)?.is_empty() {
            let timeout = match self.config.http {
                // the first reading by HTTP tells, at the latest when its requests are given up
                true => self.config.request_timeout,
                false => self.config.catch_up_timeout,
            };
            if let Some(plain) = self.peer.plain_mut() {
                plain.settling_until = Some(now + timeout);
            }
        }
        self.begin_poll();
        Ok(())
    }

    /// A collection is subscribed; what it holds by now is asked for, where HTTP does not tell.
    pub(in super::super) fn ask_whole(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let (now, may_poll) = (self.now.mono, self.may_poll());
        let Some(stream) = self.streams.get_mut(collection) else { return };
        // a server may send it without being asked
        stream.plain.asked_whole = Some(now);
        if self.config.http {
            if self.peer.work().is_some() || !may_poll {
                stream.plain.incomplete = true;
                if let Some(plain) = self.peer.plain_mut() {
                    plain.confirm_at = Some(now);
                }
            } else if self.link.ready_since().is_some() {
                self.begin_work([collection.clone()].into());
            }
        } else {
            edit.remote_event(EventKind::SyncStarted { collection: collection.clone() });
            self.send(edit, &whole(collection));
        }
    }

    /// Takes in a message of a plain server.
    pub(in super::super) fn on_plain_message(
        &mut self,
        edit: &mut Edit<'_>,
        message: ServerMessage,
    ) -> Result<(), StepError> {
        match message {
            ServerMessage::Pong { timestamp, welcome } => {
                if welcome.is_some() {
                    self.remember_resumable();
                    self.put_identity(edit);
                    self.peer.forget_plain();
                    return Err(StepError::peer("the server speaks level 2 after all"));
                }
                if let Some(plain) = self.peer.plain_mut() {
                    plain.json_pong = true;
                }
                let ping = self.link.answered_ping();
                if ping.is_none_or(|ping| self.is_of_this_run(ping.run)) {
                    self.hear_time(edit, timestamp, self.link.sent_at());
                }
            }
            ServerMessage::Change { collection, record_id, change, .. } => {
                self.plain_changed(edit, &collection, &record_id, &change)?;
            }
            ServerMessage::Sync { collection, records, .. } => {
                self.whole_collection(edit, &collection, records)?;
            }
            ServerMessage::Error(error) => self.plain_error(edit, error)?,
            ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Authenticated { .. } => {}
            ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Unknown { .. } => {
                edit.ignore();
            }
        }
        Ok(())
    }

    fn plain_changed(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        change: &ServerChange,
    ) -> Result<(), StoreError> {
        if !self.streams.get(collection).is_some_and(Stream::is_wanted_whole) {
            edit.ignore();
            return Ok(());
        }
        let key = (collection.clone(), id.clone());
        let Some(plain) = self.peer.plain_mut() else { return Ok(()) };
        match plain.echoes.hear(&key, change, self.now.mono) {
            Some(change) => self.take_plain_change(edit, collection, id, &change),
            None => {
                self.touch(collection, id);
                Ok(())
            }
        }
    }

    pub(super) fn take_plain_change(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        change: &ServerChange,
    ) -> Result<(), StoreError> {
        self.touch(collection, id);
        match self.learn_plain(edit, collection, id, change)? {
            Learnt::News => {
                self.save_stream(edit, collection);
                edit.remote_event(EventKind::realtime(change.change.kind, collection, id));
            }
            Learnt::Known => {}
            Learnt::Unfit => self.read_again(edit, collection),
        }
        Ok(())
    }

    /// Something is amiss that another reading clears up.
    fn read_again(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let now = self.now.mono;
        let Some(stream) = self.streams.get_mut(collection) else { return };
        if self.config.http {
            stream.plain.incomplete = true;
            if let Some(plain) = self.peer.plain_mut() {
                plain.confirm_by(now + ARRIVAL);
            }
        } else if stream.plain.asked_whole.is_none() {
            stream.plain.asked_whole = Some(now);
            self.send(edit, &whole(collection));
        } else {
            // the answer under way may be of before
            self.read_again_later(collection);
        }
    }

    fn read_again_later(&mut self, collection: &Collection) {
        let later = self.now.mono + READ_AGAIN;
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.incomplete = true;
        }
        if let Some(plain) = self.peer.plain_mut() {
            plain.confirm_by(later);
        }
    }

    /// Without HTTP: asks again for what was left out of whole collections.
    pub(super) fn ask_incomplete(&mut self, edit: &mut Edit<'_>) {
        let now = self.now.mono;
        let incomplete = self.streams.iter_mut().filter(|(_, stream)| stream.plain.incomplete);
        let mut due = Vec::new();
        for (collection, stream) in incomplete {
            stream.plain.incomplete = false;
            if stream.is_wanted_whole() {
                stream.plain.asked_whole = Some(now);
                due.push(collection.clone());
            }
        }
        for collection in due {
            self.send(edit, &whole(&collection));
        }
    }

    /// A whole collection has come: what is not in it is gone, except what was learnt since it was
    /// asked for.
    fn whole_collection(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        records: Vec<SyncRecord>,
    ) -> Result<(), StoreError> {
        if !self.streams.get(collection).is_some_and(Stream::is_wanted_whole) {
            edit.ignore();
            return Ok(());
        }
        let now = self.now.mono;
        let asked = self.streams.get_mut(collection).and_then(|it| it.plain.asked_whole.take());
        let asked_at = asked.unwrap_or(now);
        let mut left_out = false;
        let mut is_later = |client: &mut Self, id: &RecordId| {
            let key = (collection.clone(), id.clone());
            let stream = client.streams.get(collection);
            let touched = |stream: &Stream| stream.plain.is_touched(hash_of(id), asked_at);
            let later = stream.is_some_and(touched)
                || asked.is_none()
                    && client.peer.plain().is_some_and(|plain| plain.echoes.expects(&key, now));
            left_out |= later;
            later
        };
        let mut existing: Vec<_> = records.iter().map(|record| hash_of(&record.id)).collect();
        existing.sort_unstable();
        for SyncRecord { id, document, version, updated_at, .. } in records {
            if !is_later(self, &id) {
                let record = PlainRecord { id, document, version, updated_at };
                self.learn_record(edit, collection, &record)?;
            }
        }
        let (mut gone, held) = self.absent(edit, collection, &existing)?;
        gone.retain(|id| !is_later(self, id));
        if !self.take_gone(edit, collection, &gone, held)? {
            self.read_again_later(collection);
        }
        if left_out && !self.config.http {
            self.read_again_later(collection);
        }
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        stream.plain.rest();
        stream.read_whole();
        edit.put_stream(collection, &stream.row);
        let of = collection.clone();
        edit.remote_event(EventKind::RealtimeSync {
            collection: of.clone(),
            records: existing.len(),
        });
        edit.remote_event(EventKind::SyncCompleted { collection: of });
        edit.show_status(collection, stream);
        self.link.forget_attempts();
        if !self.config.http {
            self.judge_by_whole(edit, collection, asked_at)?;
        }
        Ok(())
    }

    /// Without HTTP a whole collection is what says which writes of earlier connections have
    /// arrived. Those that have not are sent again.
    fn judge_by_whole(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        asked_at: Mono,
    ) -> Result<(), StoreError> {
        let frozen = self.outbox.frozen_records(edit)?;
        let sent = self.peer.plain().map(Plain::clone_sent).unwrap_or_default();
        for (_, id) in frozen.iter().filter(|(of, _)| of == collection) {
            let is_old = |write| sent.is_old(write, asked_at);
            match self.judge(edit, collection, id, is_old)? {
                Verdict::Settled | Verdict::Missing | Verdict::Open => {}
            }
        }
        self.outbox.advance_head(edit)?;
        let waits = |stream: &Stream| stream.is_wanted() && stream.plain.asked_whole.is_some();
        if !self.streams.any(waits)
            && let Some(plain) = self.peer.plain_mut()
        {
            plain.settling_until = None;
        }
        Ok(())
    }

    /// An `error` names a write at best by its record.
    fn plain_error(&mut self, edit: &mut Edit<'_>, error: ErrorMessage) -> Result<(), StepError> {
        if matches!(error.code, ErrorCode::AuthFailed | ErrorCode::AuthExpired) {
            self.need_token(edit, error.code, error.message);
            return Ok(());
        }
        let told = format!("{}: {}", error.code, error.message);
        let (collection, record_id) = (error.collection.clone(), error.record_id.clone());
        let event = EventKind::Error { collection, record_id, message: told, cause: None };
        let (Some(collection), Some(id)) = (&error.collection, &error.record_id) else {
            if let Some(collection) = error.collection.filter(|name| self.matters(name))
                && let Some(stream) = self.streams.get_mut(&collection)
            {
                stream.note_error(StreamError::new(&error.code, &error.message));
                stream.lose_confirmation();
                edit.show_status(&collection, stream);
            }
            edit.remote_event(event);
            return Ok(());
        };
        let entries = self.outbox.entries_of(edit, collection, id)?;
        match entries.as_slice() {
            [(write, entry)]
                if self.peer.plain().is_some_and(|plain| plain.has_sent(*write))
                    && is_for_good(&error.code) =>
            {
                self.peer.forget_write(*write);
                self.reject(edit, *write, entry, error.code, error.message)?;
                self.outbox.advance_head(edit)?;
            }
            _ => edit.remote_event(event),
        }
        Ok(())
    }

    /// A WebSocket pong has come.
    pub(in super::super) fn plain_heard(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.link.ready_since().is_none() {
            self.link.pong_before_hello();
            return Ok(());
        }
        self.proved(edit)
    }

    /// While the hello has no answer: asks whether there is a WebSocket at all at the other end.
    pub(in super::super) fn probe(&mut self, edit: &mut Edit<'_>) {
        self.link.probe();
        edit.net.push(NetAction::Ping { conn: self.link.conn() });
    }

    /// When the link needs something. A plain server that answers pings in JSON is asked in JSON,
    /// because a hand-written one may count nothing else as a sign of life; and so that an idle
    /// connection stays cheap, shortly before the 60 seconds after which it would hang up.
    pub(in super::super) fn link_deadline(&self) -> Option<(Mono, Timer)> {
        let usual = self.link.deadline(&self.config, self.patience());
        match (self.link.state(), usual) {
            (LinkState::Connected { since, hello_sent: true }, Some((hello, _)))
                if !self.link.is_probed() =>
            {
                let probe = since + self.config.hello_timeout / 2;
                Some(if probe < hello { (probe, Timer::Probe) } else { (hello, Timer::Hello) })
            }
            (LinkState::Ready { .. }, Some((at, Timer::Ping))) if self.pings_in_json() => {
                let later = self.config.ping_interval * 13 / 15;
                Some((at + later, Timer::Ping))
            }
            (_, usual) => usual,
        }
    }

    pub(in super::super) fn pings_in_json(&self) -> bool {
        self.peer.plain().is_some_and(|plain| plain.json_pong)
    }

    /// The writes that were sent before the last ping have arrived.
    pub(super) fn proved(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let Some(plain) = self.peer.plain_mut() else { return Ok(()) };
        let Some(Proof { until, .. }) = plain.proof.take() else { return Ok(()) };
        let arrived: Vec<_> = plain.sent.iter().map(|(write, _)| *write).collect();
        for write in arrived.into_iter().filter(|write| *write < until) {
            // a conflict or a rejection may have taken it meanwhile
            let Some(OutboxRow::Entry(entry)) = edit.place(write)? else {
                self.peer.forget_write(write);
                continue;
            };
            let key = (entry.collection.clone(), entry.record_id.clone());
            let row = edit.row(&key.0, &key.1)?;
            if row.as_ref().is_some_and(|row| row.deferred().is_some()) {
                // someone else has changed the record meanwhile, and whose change came last is
                // for the strategy to say
                let verdict = self.judge(edit, &key.0, &key.1, |_| true)?;
                if verdict == Verdict::Settled {
                    self.read_again(edit, &key.0);
                    // so that two who contest a field do not answer each other in step for ever
                    let wait = self.random.below(self.config.reconnect_delay);
                    self.pacing.hold(self.now.mono + wait);
                    continue;
                }
            }
            if self.outbox.first_of(edit, &key.0, &key.1)? == Some(write) {
                self.confirm_plain(edit, write, &entry, None)?;
            }
        }
        self.outbox.advance_head(edit)?;
        self.link.forget_attempts();
        Ok(())
    }

    /// Sends what is to go over a plain WebSocket.
    pub(in super::super) fn pump_plain(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.pump_work(edit)?;
        self.send_plain_writes(edit)?;
        self.prove(edit);
        self.finish_syncs_by_socket(edit)
    }

    /// Returns `true` if the writes that wait go out now.
    pub(in super::super) fn is_sending_plainly(&self) -> bool {
        let Some(plain) = self.peer.plain() else { return false };
        match self.link.ready_since() {
            Some(_) => !plain.is_busy() && plain.sent.is_empty(),
            None => plain.work.as_ref().is_some_and(|work| work.pushing && work.asked.is_none()),
        }
    }

    fn send_plain_writes(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let Some(plain) = self.peer.plain() else { return Ok(()) };
        let held = self.pacing.holds(self.now.mono);
        if plain.is_busy() || held || self.awaits_time() {
            return Ok(());
        }
        let room = self.config.window.saturating_sub(plain.sent.len());
        let mut bytes = 0;
        let mut writes = Vec::new();
        if room > 0 && self.outbox.len() > plain.sent.len() {
            self.outbox.each_unsent(edit, &mut |write, entry| {
                bytes += entry.change.delta.set.size();
                let fits =
                    writes.len() < room && (writes.is_empty() || bytes <= self.config.window_bytes);
                if !fits || !self.outbox.is_durable(write) || entry.expects.is_some() {
                    return Scan::Stop;
                }
                writes.push((write, entry));
                Scan::Next
            })?;
        }
        for (write, entry) in writes {
            self.send_plain_write(edit, write, entry);
        }
        Ok(())
    }

    fn send_plain_write(&mut self, edit: &mut Edit<'_>, write: WriteId, entry: Entry) {
        let now = self.now.mono;
        let Entry { collection, record_id, change, written_at, .. } = entry;
        self.touch(&collection, &record_id);
        if let Some(plain) = self.peer.plain_mut() {
            plain.echoes.expect((collection.clone(), record_id.clone()), &change, now);
            plain.sent.push_back((write, now));
            if self.config.http {
                let first = plain.sent.front().map_or(now, |(_, at)| *at);
                let at = (now + ARRIVAL).min(first + LONGEST_GATHERING).max(now);
                plain.confirm_at = Some(at);
            }
        }
        let timestamp = Some(written_at);
        // level 1 has no place for the times of fields
        let (number, base, at) = (None, None, Vec::new());
        let mutation = Mutation { collection, record_id, change, timestamp, at, number, base };
        self.send(edit, &ClientMessage::Write(mutation));
        self.outbox.send_unnumbered(write);
    }

    /// Without HTTP a write counts as taken when the server has read it, which a pong proves.
    fn prove(&mut self, edit: &mut Edit<'_>) {
        let Some(plain) = self.peer.plain_mut() else { return };
        if self.config.http || plain.proof.is_some() || plain.sent.is_empty() {
            return;
        }
        let at = self.now.mono;
        plain.proof = Some(Proof { until: self.outbox.unsent(), at });
        self.link.sent(at);
        edit.net.push(NetAction::Ping { conn: self.link.conn() });
    }

    /// Without HTTP, being in step means that every write has arrived and that every collection has
    /// come whole.
    fn finish_syncs_by_socket(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.config.http || self.syncs.is_empty() {
            return Ok(());
        }
        let first = self.outbox.first_place(edit)?;
        let (timeout, now) = (self.config.catch_up_timeout, self.now.mono);
        let awaited = self.streams.values().filter(|stream| stream.is_wanted());
        let awaited = awaited.filter(|stream| stream.error().is_none());
        let until = awaited.filter_map(|stream| Some(stream.plain.asked_whole? + timeout)).max();
        let until = until.filter(|until| *until > now);
        self.pacing.wait_for_catch_up(until);
        if until.is_none() {
            let outcome = self.streams.outcome_at_plain(self.config.http);
            self.syncs.answer(edit, &outcome, |_, until| until <= first);
        }
        Ok(())
    }
}

/// Returns `true` if a code says that a write will never be taken.
pub(super) fn is_for_good(code: &ErrorCode) -> bool {
    match code {
        ErrorCode::Unauthorized
        | ErrorCode::InvalidMessage
        | ErrorCode::CollectionNotFound
        | ErrorCode::PayloadTooLarge => true,
        ErrorCode::AuthFailed
        | ErrorCode::AuthExpired
        | ErrorCode::RecordNotFound
        | ErrorCode::Conflict
        | ErrorCode::RateLimitExceeded
        | ErrorCode::ServerError
        | ErrorCode::OutOfOrder
        | ErrorCode::SessionSuperseded
        | ErrorCode::Other(_) => false,
    }
}

/// The latest stamp that is believed: one far in the future is of a broken clock.
pub(super) fn latest_believed(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_add(24 * 3600 * 1000))
}

/// Asks for a whole collection.
fn whole(collection: &Collection) -> ClientMessage {
    ClientMessage::Sync { collection: collection.clone(), filter: Vec::new() }
}
