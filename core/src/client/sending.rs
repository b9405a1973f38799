//! What goes to the server, and when it may.

use alloc::vec::Vec;

use bytes::Bytes;

use super::edit::Edit;
use super::interface::NetAction;
use super::link::LinkState;
use super::machine::Client;
use super::outbox::InFlight;
use super::stream::{Phase, Stream};
use crate::rules::row::{Entry, Place};
use crate::words::message::{ClientMessage, Hello, Mutation};
use crate::words::name::{Collection, MutationNumber, Position};
use crate::words::store::{Scan, StoreError};

/// Whether the writes of a collection can be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// When the patience with its catch-up is over.
    Soon,
    /// When the server has said more about it.
    Later,
}

impl Client {
    /// Sends what there is to send. Called when every change of the outbox that has to be durable
    /// first is.
    pub(super) fn pump(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if let LinkState::Greeting { since, hello_sent: false } = self.link.state {
            let client_id = self.identity.client_id.clone();
            let hello = Hello { client_id, session: self.identity.session };
            self.send(edit, &ClientMessage::Ping { hello: Some(hello) });
            self.link.state = LinkState::Greeting { since, hello_sent: true };
        }
        if !self.link.is_up() {
            return self.pump_exchange(edit);
        }
        self.send_token(edit);
        self.send_subscriptions(edit);
        if self.link.ready_since().is_some() {
            if self.plain.active {
                return self.pump_plain(edit);
            }
            self.send_writes(edit)?;
            self.send_barrier(edit)?;
        }
        Ok(())
    }

    /// A pong that answers a barrier: every change that was committed before it has come.
    pub(super) fn barrier_passed(&mut self, edit: &mut Edit<'_>) {
        let Some(last) = self.barrier.take() else { return };
        if self.is_in_step() {
            edit.synced.extend(self.syncs.iter().map(|(id, _)| *id).filter(|id| *id <= last));
            self.syncs.retain(|(id, _)| *id > last);
        }
    }

    fn send_token(&mut self, edit: &mut Edit<'_>) {
        if core::mem::take(&mut self.token_due)
            && let Some(token) = self.config.token.clone()
        {
            self.send(edit, &ClientMessage::Auth { token });
        }
    }

    fn send_subscriptions(&mut self, edit: &mut Edit<'_>) {
        // a plain server need not confirm anything
        let plain = self.plain.active && self.link.ready_since().is_some();
        let (subscribing, unsubscribing) =
            if plain { (Phase::Live, Phase::Idle) } else { (Phase::Subscribing, Phase::Refused) };
        let mut due = Vec::new();
        for (collection, stream) in &mut self.streams {
            let idle = stream.phase == Phase::Idle && stream.retry_at.is_none();
            if stream.wanted && idle && (plain || !stream.in_doubt) {
                stream.phase = subscribing;
                due.push(ClientMessage::Subscribe {
                    collection: collection.clone(),
                    cursor: stream.row.cursor.clone(),
                    resume: stream.row.resume.clone(),
                    filtered: false,
                });
            } else if !stream.wanted && (stream.follows() || stream.phase == Phase::CatchingUp) {
                stream.phase = unsubscribing;
                stream.refreshing = false;
                due.push(ClientMessage::Unsubscribe { collection: collection.clone() });
            }
        }
        for message in due {
            self.send(edit, &message);
            if let (ClientMessage::Subscribe { collection, .. }, true) = (&message, plain) {
                self.ask_whole(edit, collection);
                self.show_status(edit, collection);
            }
        }
    }

    fn send_writes(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.patient = false;
        if self.hold_until.is_some_and(|until| until > self.now.mono) {
            return Ok(());
        }
        let (writes, patient) = self.next_writes(edit)?;
        self.patient = patient;
        for (position, entry) in writes {
            self.vouch(edit, &entry.collection);
            if self.outbox.in_flight.iter().all(|sent| sent.hollow) {
                self.verdict_at = self.now.mono;
            }
            let frame = self.write_frame(edit, position, entry)?;
            self.send_frame(edit, frame);
        }
        Ok(())
    }

    /// The next writes that fit into the window, are durable as they are, and whose collection is
    /// ready for them; and whether the one behind them only waits for its collection.
    pub(super) fn next_writes(
        &self,
        edit: &Edit<'_>,
    ) -> Result<(Vec<(Position, Entry)>, bool), StoreError> {
        let in_flight = self.outbox.in_flight.len();
        let (window, window_bytes) = match self.exchange {
            Some(_) => self.push_window(),
            None => (self.config.window, self.config.window_bytes),
        };
        let mut room = window.saturating_sub(in_flight);
        let mut bytes = self.outbox.bytes_in_flight();
        let (mut writes, mut patient) = (Vec::new(), false);
        if room == 0 || self.outbox.len == in_flight {
            return Ok((writes, patient));
        }
        edit.places(self.outbox.unsent, &mut |position, place| {
            let Place::Entry(entry) = place else { return Ok(Scan::Next) };
            let first = in_flight == 0 && writes.is_empty();
            bytes += entry.change.delta.set.size();
            let fits = room > 0 && (first || bytes <= window_bytes);
            let durable = position < self.outbox.durable_until || planted!(SentBeforeDurable);
            if !fits || !durable {
                return Ok(Scan::Stop);
            }
            let readiness = self.readiness(&entry.collection);
            if readiness != Readiness::Ready {
                patient = readiness == Readiness::Soon;
                return Ok(Scan::Stop);
            }
            room -= 1;
            writes.push((position, entry));
            Ok(Scan::Next)
        })?;
        Ok((writes, patient))
    }

    /// Whether a collection's writes can go out: it has caught up, or it won't, or it takes too
    /// long; then the server's check makes it safe, as long as the bases are of its history.
    fn readiness(&self, collection: &Collection) -> Readiness {
        // an exchange pulls first
        let stream = self.streams.get(collection).filter(|_| self.exchange.is_none());
        let Some(stream) = stream else { return Readiness::Ready };
        let patience = self.link.ready_since().map(|since| since + self.config.catch_up_patience);
        match stream.phase {
            Phase::Live | Phase::Refused => Readiness::Ready,
            Phase::Idle if !stream.wanted || stream.follows() => Readiness::Ready,
            Phase::Idle => Readiness::Later,
            Phase::Subscribing | Phase::CatchingUp if !stream.trusted => Readiness::Later,
            Phase::Subscribing | Phase::CatchingUp => {
                let over = patience.is_none_or(|until| until <= self.now.mono)
                    && !planted!(PatienceForEver);
                if over { Readiness::Ready } else { Readiness::Soon }
            }
        }
    }

    /// Lets no base of another history go out where nobody will say whether it still counts.
    pub(super) fn vouch(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let stream = self.stream(collection);
        if !stream.trusted {
            stream.begin_generation();
            stream.trusted = true;
            edit.put_stream(collection, &stream.row);
        }
    }

    /// A write as it is sent, next in number.
    pub(super) fn write_frame(
        &mut self,
        edit: &Edit<'_>,
        position: Position,
        entry: Entry,
    ) -> Result<Vec<u8>, StoreError> {
        let row = edit.row(&entry.collection, &entry.record_id)?;
        let base = self.base_of(&entry.collection, row.as_ref());
        let number = self.identity.confirmed.0 + 1 + self.outbox.in_flight.len() as u64;
        let digest = entry.digest();
        let message = ClientMessage::Write(Mutation {
            collection: entry.collection,
            record_id: entry.record_id,
            change: entry.change,
            timestamp: Some(entry.written_at),
            number: Some(MutationNumber(number)),
            base: (!self.is_unconditional(position)).then_some(base),
        });
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.outbox.sent(InFlight { position, digest, bytes: frame.len(), hollow: false });
        Ok(frame)
    }

    /// Asks for a pong behind everything, when the writes of some `synced` have their verdicts and
    /// every collection is live.
    fn send_barrier(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.syncs.is_empty() || self.barrier.is_some() || !self.is_in_step() {
            return Ok(());
        }
        let first = self.first_place(edit)?;
        let settled = self.syncs.iter().take_while(|(_, until)| *until <= first);
        if let Some((last, _)) = settled.last() {
            self.barrier = Some(*last);
            self.send(edit, &ClientMessage::Ping { hello: None });
        }
        Ok(())
    }

    /// Where the outbox begins; its end where nothing is in it.
    pub(super) fn first_place(&self, edit: &Edit<'_>) -> Result<Position, StoreError> {
        if let Some(sent) = self.outbox.in_flight.front() {
            return Ok(sent.position);
        }
        let mut first = self.outbox.next;
        edit.places(self.outbox.head, &mut |position, _| {
            first = position;
            Ok(Scan::Stop)
        })?;
        Ok(first)
    }

    fn is_in_step(&self) -> bool {
        let mut wanted = self.streams.values().filter(|stream| stream.wanted);
        // what is asked for again later is not refused for good
        let refused = |stream: &Stream| stream.phase == Phase::Refused && stream.retry_at.is_none();
        wanted.all(|stream| stream.phase == Phase::Live || refused(stream))
    }

    pub(super) fn send(&mut self, edit: &mut Edit<'_>, message: &ClientMessage) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send_frame(edit, frame);
    }

    fn send_frame(&mut self, edit: &mut Edit<'_>, frame: Vec<u8>) {
        self.link.sent_at = self.now.mono;
        edit.net.push(NetAction::Send { conn: self.link.conn, frame: Bytes::from(frame) });
    }
}
