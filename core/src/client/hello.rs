//! The opening of a connection: sessions, what the server knows of this replica's writes, and what
//! follows when that can't be.

use alloc::vec::Vec;

use super::edit::Edit;
use super::event::{EventKind, Transport};
use super::machine::Client;
use super::peer::Peer;
use super::plain::Work;
use super::records::{Records, Taken};
use crate::protocol::hash::Digest;
use crate::protocol::message::Welcome;
use crate::protocol::name::{MutationNumber, SessionNumber, WriteId};
use crate::protocol::time::Timestamp;
use crate::rules::row::{Entry, OutboxRow};
use crate::store::{Scan, StoreError};

/// The meaning of the server's `lastMutation` for the outbox.
enum Reckoning {
    /// These places were taken, and the last of them is the write that the server means.
    Taken(Vec<(WriteId, OutboxRow)>),
    /// The server has forgotten writes that it had confirmed.
    ServerLost,
    /// The server has taken writes under this id that this replica did not make.
    Copied,
}

impl Records<'_> {
    /// A write is confirmed that is folded into a state that may be newer: it may have changed
    /// nothing, or may have been overwritten. So everything that happened to its record since its
    /// base is asked for again.
    fn ask_again(&mut self, edit: &mut Edit<'_>, entry: &Entry) -> Result<(), StoreError> {
        if let Some(base) = self.forget_since_base(edit, &entry.record_id)? {
            self.stream.rewind(base);
            self.save(edit);
        }
        Ok(())
    }
}

impl Client {
    /// A connection is up: the next session is stored before it is offered.
    pub(super) fn on_connected(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let pauses = |work: &Work| work.throttle.paused_until().is_some();
        let asks = self.exchange.is_some()
            || self.work_deadline().is_some()
            || self.peer.work().is_some_and(pauses);
        if asks {
            self.drop_exchange(edit);
            self.fallback.set_poll(Some(self.now.mono));
        }
        self.store_next_session(edit);
        self.doubt_cursors(edit)?;
        self.portions.begin();
        self.link.connected(self.now.mono);
        Ok(())
    }

    /// The next session is durable before it is offered, and never offered twice.
    pub(super) fn store_next_session(&mut self, edit: &mut Edit<'_>) {
        self.identity.session = self.identity.session.next();
        self.put_identity(edit);
        edit.gates = true;
        edit.flush = true;
    }

    /// Holds back the subscriptions whose cursors depend on what the hello will tell.
    fn doubt_cursors(&mut self, edit: &Edit<'_>) -> Result<(), StoreError> {
        self.streams.values_mut().for_each(|stream| stream.doubt_cursor(false));
        for (collection, _) in edit.deferred()? {
            if let Some(stream) = self.streams.get_mut(&collection) {
                stream.doubt_cursor(true);
            }
        }
        Ok(())
    }

    /// The server has answered the hello of a connection.
    pub(super) fn welcomed(
        &mut self,
        edit: &mut Edit<'_>,
        welcome: Welcome,
        timestamp: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        if let Some(other) = self.other_than_known(welcome.database.as_ref()) {
            self.meet_other_database(edit, other);
            return Ok(());
        }
        let hello = self.link.answered_ping();
        if hello.is_none_or(|hello| self.is_of_this_run(hello.run)) {
            // the hello was the last thing sent before the pong
            self.settle_clock(edit, timestamp, self.link.sent_at());
        }
        if !self.take_welcome(edit, welcome)? {
            return Ok(());
        }
        let reached = self.fallback.reaches();
        self.turn_to_websocket();
        self.link.ready(self.now.mono);
        self.pacing.await_verdict(self.now.mono);
        edit.remote_event(EventKind::RealtimeConnected);
        if !reached {
            edit.remote_event(EventKind::ConnectivityChanged { online: true });
        }
        self.falls_short(edit);
        Ok(())
    }

    /// Learns from the answer to a hello what became of the writes. Says whether the session is
    /// this replica's to use.
    pub(super) fn take_welcome(
        &mut self,
        edit: &mut Edit<'_>,
        welcome: Welcome,
    ) -> Result<bool, StoreError> {
        self.peer.forget_plain();
        self.token_needed = false;
        self.remember_resumable();
        self.remember_database(&welcome);
        match self.reckon(edit, &welcome)? {
            Reckoning::Copied => {
                self.become_another(edit)?;
                return Ok(false);
            }
            Reckoning::Taken(places) => {
                self.compare_memory(edit, &welcome)?;
                self.confirm_all(edit, places)?;
            }
            Reckoning::ServerLost => {
                self.compare_memory(edit, &welcome)?;
                self.start_over(edit)?;
            }
        }
        self.identity.confirmed = welcome.last_mutation;
        self.identity.digest = welcome.last_digest;
        self.put_identity(edit);
        self.outbox.thaw();
        self.rebase_deferred(edit)?;
        self.reject_given_up(edit)?;
        for (collection, stream) in self.streams.iter_mut() {
            stream.meet_epoch(&welcome.epoch);
            edit.put_stream(collection, &stream.row);
        }
        self.peer = Peer::of(welcome);
        Ok(true)
    }

    fn reckon(&self, edit: &Edit<'_>, welcome: &Welcome) -> Result<Reckoning, StoreError> {
        let last = welcome.last_mutation;
        if last < self.identity.confirmed {
            return Ok(Reckoning::ServerLost);
        }
        let count = last.0 - self.identity.confirmed.0;
        let mut places = Vec::new();
        let mut lost = false;
        self.outbox.each(edit, &mut |write, place| {
            if (places.len() as u64) < count {
                places.push((write, place));
            } else if matches!(place, OutboxRow::Acked(_)) {
                lost = true;
            }
            // an acknowledged place lies at most a window behind the last confirmed one
            let seen = write > self.outbox.frozen_until();
            Ok(if lost || seen && places.len() as u64 >= count { Scan::Stop } else { Scan::Next })
        })?;
        if lost {
            return Ok(Reckoning::ServerLost);
        }
        let told = welcome.last_digest;
        let own = match places.last() {
            Some((_, OutboxRow::Entry(entry))) => told.is_some_and(|told| entry.may_be(told)),
            Some((_, OutboxRow::Acked(digest))) => told == Some(*digest),
            None => told == self.identity.digest,
        };
        let known = last == MutationNumber(0) || own;
        if places.len() as u64 == count && known {
            Ok(Reckoning::Taken(places))
        } else {
            Ok(Reckoning::Copied)
        }
    }

    fn confirm_all(
        &mut self,
        edit: &mut Edit<'_>,
        places: Vec<(WriteId, OutboxRow)>,
    ) -> Result<(), StoreError> {
        // the verdicts of the last connection, which were lost with it
        edit.moved |= !places.is_empty();
        for (write, place) in places {
            if let OutboxRow::Entry(entry) = &place
                && entry.expects.is_none()
                && let Some(mut records) = self.records(&entry.collection)
            {
                records.ask_again(edit, entry)?;
            }
            self.outbox.confirm(edit, write, &place);
            self.pacing.settle(write);
            if let OutboxRow::Entry(entry) = &place
                && let Some(mut records) = self.records(&entry.collection)
            {
                records.fold(edit, write, entry, &Taken::Bare)?;
            }
        }
        Ok(())
    }

    /// The server was restored to an earlier state: nothing that was learnt of it counts any more,
    /// and the outbox is numbered on from where it stands.
    fn start_over(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.outbox.drop_acked(edit)?;
        for (collection, stream) in self.streams.iter_mut() {
            // a subscription that was asked for on the way offered a cursor that no longer counts
            stream.start_over();
            edit.put_stream(collection, &stream.row);
        }
        edit.remote_event(EventKind::ServerLostChanges { collection: None });
        Ok(())
    }

    /// This replica is an old or a second copy of another: the hello has fenced the old id off, and
    /// it goes on under a new one. All its pending writes are sent again with their bases.
    pub(super) fn become_another(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut sent_again = Vec::new();
        self.outbox.each_frozen(edit, &mut |write, place| {
            if let OutboxRow::Entry(_) = place {
                sent_again.push(write);
            }
        })?;
        self.outbox.drop_acked(edit)?;
        let Some(client_id) = self.random.client_id() else { return Ok(()) };
        self.forget_sent(edit)?;
        self.identity.forgotten.first_session = None;
        self.identity.client_id = client_id.clone();
        self.identity.session = SessionNumber(0);
        self.identity.confirmed = MutationNumber(0);
        self.identity.digest = None;
        self.put_identity(edit);
        edit.gates = true;
        edit.flush = true;
        edit.remote_event(EventKind::ReplicaCopied { client_id, sent_again });
        let reason = "this replica is a copy; it connects again under its own id";
        match edit.transport {
            Transport::WebSocket => {
                self.lose_connection(edit, reason);
                self.link.forget_attempts();
                self.link.wait_until(self.now.mono);
            }
            Transport::Http => {
                self.drop_exchange(edit);
                self.poll_later();
            }
        }
        Ok(())
    }

    pub(super) fn put_identity(&mut self, edit: &mut Edit<'_>) {
        self.identity.next_write = self.outbox.end();
        self.identity.attempts = self.pacing.attempts();
        self.identity.clocks.forget(self.outbox.head(), self.outbox.is_empty());
        edit.put(self.keys.identity(), self.identity.encode());
    }

    /// The number under which the write at an index in flight was sent.
    pub(super) fn number_in_flight(&self, index: usize) -> MutationNumber {
        MutationNumber(self.identity.confirmed.0 + 1 + index as u64)
    }

    /// The last write that is confirmed, with every one before it.
    pub(super) fn set_confirmed(&mut self, number: MutationNumber, digest: Digest) {
        self.identity.confirmed = number;
        self.identity.digest = Some(digest);
    }
}
