//! Messages to the server: which go out, and when they may.

use alloc::vec::Vec;

use bytes::Bytes;

use super::edit::Edit;
use super::interface::{NetAction, Timer};
use super::link::PingKind;
use super::machine::Client;
use super::stream::{Phase, Stream};
use crate::protocol::message::{ClientMessage, Hello, Mutation};
use crate::protocol::name::{Collection, MutationNumber, Seq, WriteId};
use crate::protocol::time::Mono;
use crate::protocol::unit::{Expectation, Member};
use crate::protocol::wire::encode_unit;
use crate::protocol::write::WriteKind;
use crate::rules::row::{Entry, Row, Unit};
use crate::store::{Scan, StoreError};

/// Writes of the outbox, each with its place.
pub(super) type Writes = Vec<(WriteId, Entry)>;

/// The writes that are sent next, those of a transaction whole.
#[derive(Default)]
struct NextWrites {
    sent: Vec<Writes>,
    /// The number of writes in all but the last of them, if that is of a transaction, else in all.
    whole: usize,
    /// The transaction of the last one.
    unit: Option<Unit>,
    len: usize,
}

impl NextWrites {
    fn len(&self) -> usize {
        self.len
    }

    /// The next write is of this transaction, or of none.
    fn begin(&mut self, unit: Option<Unit>) {
        if unit.is_none() || self.unit != unit {
            self.whole = self.len;
        }
    }

    fn push(&mut self, write: WriteId, entry: Entry, unit: Option<Unit>) {
        match self.sent.last_mut().filter(|_| unit.is_some() && self.unit == unit) {
            Some(whole) => whole.push((write, entry)),
            None => self.sent.push(Writes::from([(write, entry)])),
        }
        self.unit = unit;
        self.len += 1;
    }

    /// Returns them. If more could not be sent, a transaction that is not whole stays behind.
    fn finish(mut self, is_all: bool) -> Vec<Writes> {
        let more = self.len > self.whole;
        if !is_all && more && self.unit.is_some() {
            self.sent.pop();
        }
        self.sent
    }
}

/// The state of a collection in regard to the sending of its writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// When the wait for its catch-up is over.
    At(Mono),
    /// When the server has said more about it.
    Later,
}

impl Client {
    /// Sends what there is to send. Called when every change of the outbox that has to be durable
    /// first is.
    pub(super) fn pump(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.link.take_hello() {
            let client_id = self.identity.client_id.clone();
            let hello = Hello { client_id, session: self.identity.session };
            self.note_ping(PingKind::Hello);
            self.send(edit, &ClientMessage::Ping { hello: Some(hello) });
        }
        if !self.link.is_up() {
            return self.pump_exchange(edit);
        }
        self.send_token(edit);
        self.refuse_sets(edit);
        let suspects = self.send_subscriptions(edit);
        if self.link.ready_since().is_some() {
            self.ask_time(edit);
            if self.peer.is_plain() {
                return self.pump_plain(edit);
            }
            self.send_writes(edit)?;
            if let Some(collection) = self.next_suspect(suspects) {
                let subscribe = self.subscribe(&collection);
                subscribe.iter().for_each(|subscribe| self.send(edit, subscribe));
                // what has waited for this has another end of its wait
                self.send_writes(edit)?;
            }
            self.send_barrier(edit)?;
        }
        Ok(())
    }

    /// Returns the times at which something is done for the writes that wait.
    pub(super) fn outbox_deadlines(&self) -> [Option<(Mono, Timer)>; 5] {
        let ready = self.link.ready_since();
        let verdict = ready.is_some() && self.is_in_flight();
        let catch_up = ready.and(self.pacing.catch_up_until());
        let hold = ready.and(self.pacing.held_until());
        [
            verdict.then(|| {
                let timeout = self.config.verdict_timeout.saturating_mul(self.patience());
                (self.pacing.verdict_since() + timeout, Timer::Verdict)
            }),
            catch_up.map(|until| (until, Timer::CatchUp)),
            hold.map(|until| (until, Timer::Retry)),
            ready.and(self.resubscribe_at()).map(|at| (at, Timer::Resubscribe)),
            self.time_deadline().map(|at| (at, Timer::PingTimeout)),
        ]
    }

    /// The factor by which times are longer for the write that waits for its verdict first.
    pub(super) fn patience(&self) -> u32 {
        self.pacing.patience(self.outbox.first_in_flight().map(|(write, _)| write))
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.outbox.awaits_verdict()
    }

    fn send_token(&mut self, edit: &mut Edit<'_>) {
        if core::mem::take(&mut self.token_due)
            && let Some(token) = self.config.token.clone()
        {
            self.send(edit, &ClientMessage::Auth { token });
        }
    }

    /// Asks for collections and leaves others. Returns those that are to be asked for alone.
    fn send_subscriptions(&mut self, edit: &mut Edit<'_>) -> Vec<Collection> {
        // a plain server need not confirm anything
        let plain = self.is_plain_and_ready();
        let takes_scopes = self.link.ready_since().is_some() && self.peer.takes_scopes();
        let (mut due, mut left, mut suspects) = (Vec::new(), Vec::new(), Vec::new());
        for collection in self.streams.due() {
            let Some(stream) = self.streams.get_mut(&collection) else { continue };
            if stream.is_scoped() && stream.is_subscribe_due(plain) && !takes_scopes {
                // the pong tells whether the server has them
            } else if stream.is_subscribe_due(plain) {
                if stream.is_suspected() && !plain {
                    suspects.push(collection);
                } else {
                    due.extend(self.subscribe(&collection));
                }
            } else if stream.is_unsubscribe_due() {
                if stream.unsubscribe_sent(plain) {
                    left.push(collection.clone());
                }
                due.push(ClientMessage::Unsubscribe { collection });
            }
        }
        left.iter().for_each(|collection| self.show_status(edit, collection));
        for message in due {
            self.send(edit, &message);
            if let (ClientMessage::Subscribe { collection, .. }, true) = (&message, plain) {
                self.ask_whole(edit, collection);
                self.show_status(edit, collection);
            }
        }
        suspects
    }

    fn is_plain_and_ready(&self) -> bool {
        self.peer.is_plain() && self.link.ready_since().is_some()
    }

    /// The message that asks for a collection, which is to be sent.
    fn subscribe(&mut self, collection: &Collection) -> Option<ClientMessage> {
        let (plain, now) = (self.is_plain_and_ready(), self.now.mono);
        let page_bytes = self.portions.pages.limit();
        let stream = self.streams.get_mut(collection)?;
        if stream.is_doubtful() && self.link.ready_since().is_some() {
            stream.vouch();
        }
        stream.subscribe_sent(plain, now);
        let (set, scopes) = stream.ask_set();
        let (cursor, resume) = (stream.row.cursor.clone(), stream.row.resume.clone());
        let rights = stream.row.rights;
        Some(ClientMessage::Subscribe {
            collection: collection.clone(),
            cursor,
            resume,
            rights,
            page_bytes,
            filter: Vec::new(),
            set,
            scopes,
        })
    }

    fn send_writes(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.pacing.wait_for_catch_up(None);
        if self.pacing.holds(self.now.mono) {
            return Ok(());
        }
        let (writes, until) = self.next_writes(edit)?;
        self.pacing.wait_for_catch_up(until);
        for whole in writes {
            if !self.outbox.awaits_verdict() {
                self.pacing.await_verdict(self.now.mono);
            }
            let frame = self.write_frame(edit, whole, encode_unit)?;
            self.send_frame(edit, frame);
        }
        Ok(())
    }

    /// The next writes that fit into the window, are durable as they are, and whose collection is
    /// ready for them, those of a transaction together; and until when the one behind them waits for
    /// its collection.
    pub(super) fn next_writes(
        &mut self,
        edit: &Edit<'_>,
    ) -> Result<(Vec<Writes>, Option<Mono>), StoreError> {
        let in_flight = self.outbox.in_flight();
        let (window, window_bytes) = match self.exchange {
            Some(_) => self.push_window(),
            None => (self.config.window, self.config.window_bytes),
        };
        let window_bytes =
            self.portions.writes.limit().map_or(window_bytes, |most| most.min(window_bytes));
        let room = window.saturating_sub(in_flight);
        let mut bytes = self.outbox.bytes_in_flight();
        let (mut next, mut wait_until) = (NextWrites::default(), None);
        if room == 0 || self.outbox.len() == in_flight || self.awaits_time() {
            return Ok((Vec::new(), wait_until));
        }
        let takes_units = self.peer.takes_units();
        self.outbox.read_ahead(edit)?;
        let mut is_all = true;
        self.outbox.each_unsent(edit, &mut |write, entry| {
            let unit = entry.unit.filter(|_| takes_units);
            next.begin(unit);
            // what nothing is in front of goes out, however large it is
            let first = in_flight == 0 && next.whole == 0 && (unit.is_some() || next.len() == 0);
            bytes += entry.change.delta.set.size();
            let fits = first || next.len() < room && bytes <= window_bytes;
            let durable = self.outbox.is_durable(write);
            // a server without transactions knows no expectations: they are looked at here first
            if !fits || !durable || entry.expects.is_some() && !takes_units {
                is_all = false;
                return Scan::Stop;
            }
            let readiness = match self.readiness(&entry.collection) {
                Readiness::Ready => self.turn_of(write),
                waits @ (Readiness::At(_) | Readiness::Later) => waits,
            };
            match readiness {
                Readiness::Ready => {}
                Readiness::At(at) => {
                    (wait_until, is_all) = (Some(at), false);
                    return Scan::Stop;
                }
                Readiness::Later => {
                    is_all = false;
                    return Scan::Stop;
                }
            }
            next.push(write, entry, unit);
            Scan::Next
        })?;
        Ok((next.finish(is_all), wait_until))
    }

    /// Returns `true` if a collection's writes can go out.
    pub(super) fn is_ready(&self, collection: &Collection) -> bool {
        self.readiness(collection) == Readiness::Ready
    }

    /// Tells if a collection's writes can go out: it has caught up, or it won't, or it takes too
    /// long; then the server's check makes it safe, as long as the bases are of its history. Whether
    /// they are, the server says when it answers the subscription: for that a write waits longer.
    fn readiness(&self, collection: &Collection) -> Readiness {
        // an exchange pulls first
        let stream = self.streams.get(collection).filter(|_| self.exchange.is_none());
        let Some(stream) = stream else { return Readiness::Ready };
        match stream.phase() {
            Phase::Live | Phase::Refused | Phase::Leaving => Readiness::Ready,
            Phase::Idle | Phase::Subscribing if !stream.is_wanted() || stream.follows() => {
                Readiness::Ready
            }
            Phase::Idle if stream.is_suspected() => {
                self.asked_for_until().map_or(Readiness::Later, Readiness::At)
            }
            Phase::Idle => Readiness::Later,
            Phase::Subscribing | Phase::CatchingUp => match self.catch_up_deadline(stream) {
                Some(until) if until > self.now.mono => Readiness::At(until),
                Some(_) | None => Readiness::Ready,
            },
        }
    }

    /// Returns the end of the wait of writes for a collection that is on its way.
    pub(super) fn catch_up_deadline(&self, stream: &Stream) -> Option<Mono> {
        let ready_since = self.link.ready_since()?;
        let since = stream.awaited_since().map_or(ready_since, |since| since.max(ready_since));
        let timeout = match stream.is_trusted() {
            true => self.config.catch_up_timeout,
            false => self.config.verdict_timeout,
        };
        Some(since + timeout)
    }

    /// The wait for a catch-up is over: a cursor of which the server has not said that it still
    /// counts does so no longer.
    pub(super) fn end_catch_up_wait(&mut self, edit: &mut Edit<'_>) {
        self.pacing.wait_for_catch_up(None);
        let now = self.now.mono;
        let is_over = |stream: &Stream| self.catch_up_deadline(stream).is_some_and(|at| at <= now);
        let unsaid = self.streams.names_of(|stream| stream.awaits_judgement() && is_over(stream));
        for collection in unsaid {
            self.subscribe_afresh(edit, &collection);
        }
    }

    /// Gives up a cursor that the server does not judge: the collection is asked for whole.
    fn subscribe_afresh(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        if let Some(mut records) = self.records(collection) {
            records.take_snapshot(edit, "the server does not answer the subscription");
            records.stream.trust();
        }
    }

    /// Lets no base of another history go out where nobody will say whether it still counts. A
    /// subscription that asked to go on from there is made anew, or ended where it is not wanted: its
    /// answer would continue a cursor that is given up.
    pub(super) fn vouch(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let Some(stream) = self.streams.get_mut(collection) else { return };
        let is_asked = stream.awaits_judgement();
        if is_asked && stream.is_wanted() {
            self.subscribe_afresh(edit, collection);
            self.send_subscriptions(edit);
        } else if stream.vouch() {
            edit.put_stream(collection, &stream.row);
            if is_asked {
                stream.unsubscribe_sent(false);
                let collection = collection.clone();
                self.send(edit, &ClientMessage::Unsubscribe { collection });
            }
        }
    }

    /// A write as it is sent, next in number, or those of a transaction as `join` makes them one.
    pub(super) fn write_frame(
        &mut self,
        edit: &mut Edit<'_>,
        whole: Writes,
        join: fn(Vec<Vec<u8>>, &mut Vec<u8>),
    ) -> Result<Vec<u8>, StoreError> {
        for (_, entry) in &whole {
            self.vouch(edit, &entry.collection);
        }
        // no expectation goes out by itself
        let is_unit = whole.len() > 1 || whole.iter().any(|(_, entry)| entry.expects.is_some());
        let mut messages = Vec::with_capacity(whole.len());
        for (write, entry) in whole {
            messages.push(self.message(edit, write, entry)?);
        }
        if !is_unit {
            return Ok(messages.pop().unwrap_or_default());
        }
        let mut frame = Vec::new();
        join(messages, &mut frame);
        Ok(frame)
    }

    /// A write or an expectation as it is sent, next in number.
    fn message(
        &mut self,
        edit: &Edit<'_>,
        write: WriteId,
        entry: Entry,
    ) -> Result<Vec<u8>, StoreError> {
        let row = edit.row(&entry.collection, &entry.record_id)?;
        let records = self.records(&entry.collection);
        let base = records.map_or(Seq(0), |records| records.base_of(row.as_ref()));
        let number = MutationNumber(self.identity.confirmed.0 + 1 + self.outbox.in_flight() as u64);
        if let Some(expects) = entry.expects {
            let base = (!expects.is_absence()).then_some(base);
            let Entry { collection, record_id, .. } = entry;
            let expectation = Expectation { collection, record_id, number, base };
            let (digest, mut message) = (expectation.digest(), Vec::new());
            Member::Expect(expectation).encode(&mut message);
            self.outbox.send(write, digest, message.len());
            return Ok(message);
        }
        let known = base == Seq(0) && stands_on_a_record(&entry, row.as_ref());
        let asks = known || self.is_forgotten(edit, write, &entry, row.as_ref())?;
        let entry = if asks { entry.into_update() } else { entry };
        let digest = entry.digest();
        // a transaction overwrites nothing of which the strategy has not decided: its conflicts may be
        // those of other members
        let unconditional = entry.unit.is_none() && self.is_unconditional(write);
        let message = ClientMessage::Write(Mutation {
            collection: entry.collection,
            record_id: entry.record_id,
            change: entry.change,
            timestamp: Some(entry.written_at),
            at: entry.at,
            number: Some(number),
            base: (!unconditional).then_some(base),
        });
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.outbox.send(write, digest, frame.len());
        Ok(frame)
    }

    pub(super) fn send(&mut self, edit: &mut Edit<'_>, message: &ClientMessage) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.send_frame(edit, frame);
    }

    fn send_frame(&mut self, edit: &mut Edit<'_>, frame: Vec<u8>) {
        self.link.sent(self.now.mono);
        edit.net.push(NetAction::Send { conn: self.link.conn(), frame: Bytes::from(frame) });
    }
}

/// Returns `true` if a write is an insert that replaces a record that is known from the server.
///
/// With base 0 it would bring the record back without a conflict where it was deleted and its
/// tombstone is gone. An update in its place is in conflict with whatever the server has, and the
/// strategy decides.
fn stands_on_a_record(entry: &Entry, row: Option<&Row>) -> bool {
    let known = row.is_some_and(|row| row.base().is_some());
    entry.change.kind == WriteKind::Insert && known
}

/// The bytes that a transaction takes in a frame at most.
pub(super) fn unit_bytes(members: impl Iterator<Item = Entry>) -> usize {
    let (number, base) = (MutationNumber(u64::MAX), Some(Seq(u64::MAX)));
    let messages = members.map(|entry| {
        let Entry { collection, record_id, change, written_at, at, expects, .. } = entry;
        let mut message = Vec::new();
        match expects {
            Some(_) => {
                Member::Expect(Expectation { collection, record_id, number, base })
                    .encode(&mut message);
            }
            None => {
                let (timestamp, number) = (Some(written_at), Some(number));
                let write = Mutation { collection, record_id, change, timestamp, at, number, base };
                ClientMessage::Write(write).encode(&mut message);
            }
        }
        message
    });
    let mut frame = Vec::new();
    encode_unit(messages, &mut frame);
    frame.len()
}
