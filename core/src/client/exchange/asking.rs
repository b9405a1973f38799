//! The requests of an exchange: when one begins and ends, and what is asked next.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::super::edit::Edit;
use super::super::event::{EventKind, Transport};
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::interface::{HttpRequest, HttpTicket, NetAction, RequestId};
use super::super::machine::Client;
use super::super::stream::Stream;
use super::super::throttle::Throttle;
use super::{Asked, Exchange, HelloState, PUSH_BYTES, PUSH_WRITES, What};
use crate::protocol::message::Hello;
use crate::protocol::name::Collection;
use crate::protocol::time::Mono;
use crate::protocol::wire::http::{
    PULL_PATH, PUSH_PATH, PageQuery, PushHead, SESSION_PATH, encode_atomic, encode_pull,
    encode_push, encode_session,
};
use crate::store::StoreError;

impl Client {
    /// Begins an exchange where one is due, and stores the session of its hello, before anything
    /// of the step goes out.
    pub(in super::super) fn prepare_exchange(
        &mut self,
        edit: &mut Edit<'_>,
    ) -> Result<(), StoreError> {
        if self.works_plainly() {
            self.prepare_work(edit)?;
        }
        // a search for a plain server may have ended, and another exchange be due
        if self.works_plainly() || !self.polls() {
            return Ok(());
        }
        if self.exchange.is_none() && self.is_exchange_due(edit)? {
            self.begin_exchange(edit);
        }
        let is_awake = |it: &&Exchange| it.throttle.paused_until().is_none();
        let Some(exchange) = self.exchange.as_ref().filter(is_awake) else { return Ok(()) };
        let needed = match exchange.hello {
            HelloState::Needed => true,
            // a pull needs none; what is pushed needs one, of the present run of the clock
            HelloState::Answered if !self.awaits_time() => false,
            HelloState::NotNeeded | HelloState::Answered => {
                exchange.asked.is_none()
                    && self.next_due(exchange.number).is_none()
                    && self.has_durable_write(edit)?
            }
            HelloState::Stored => false,
        };
        if needed {
            self.store_next_session(edit);
            if let Some(exchange) = &mut self.exchange {
                exchange.hello = HelloState::Stored;
            }
        }
        Ok(())
    }

    /// Tells whether it is time, or something waits that need not wait for the time.
    pub(in super::super) fn is_exchange_due(&self, edit: &Edit<'_>) -> Result<bool, StoreError> {
        if self.fallback.is_due() {
            return Ok(true);
        }
        let held = self.pacing.holds(self.now.mono);
        if self.fallback.failures() > 0 || held || self.resting().is_some() {
            return Ok(false);
        }
        let auto = self.config.enable_auto_sync;
        let asked = !self.syncs.is_empty() && self.fallback.troubles() == 0;
        Ok(asked || auto && self.has_durable_write(edit)?)
    }

    fn has_durable_write(&self, edit: &Edit<'_>) -> Result<bool, StoreError> {
        if self.outbox.is_empty() || self.pacing.is_held() {
            return Ok(false);
        }
        let first = self.outbox.first_unsent(edit)?;
        Ok(first.is_some_and(|first| self.outbox.is_durable(first)))
    }

    pub(super) fn begin_exchange(&mut self, edit: &mut Edit<'_>) {
        self.fallback.begin();
        self.pacing.release();
        self.exchanges += 1;
        let hello = match self.peer.epoch() {
            Some(_) if self.outbox.is_empty() && !self.fallback.is_in_doubt() => {
                HelloState::NotNeeded
            }
            Some(_) | None => HelloState::Needed,
        };
        for (collection, stream) in self.streams.iter_mut() {
            stream.begin_exchange(self.now.mono);
            if let (Some(epoch), HelloState::NotNeeded) = (self.peer.epoch(), hello) {
                stream.meet_epoch(epoch);
                edit.put_stream(collection, &stream.row);
            }
        }
        self.exchange = Some(Exchange {
            number: self.exchanges,
            hello,
            succeeded: false,
            troubled: false,
            moved: false,
            again_at: None,
            declined: 0,
            asked: None,
            throttle: Throttle::default(),
            syncs: self.syncs.next(),
            push_bytes: PUSH_BYTES,
        });
    }

    /// Asks for what comes next; ends the exchange where nothing does.
    pub(in super::super) fn pump_exchange(
        &mut self,
        edit: &mut Edit<'_>,
    ) -> Result<(), StoreError> {
        if self.works_plainly() {
            return self.pump_work(edit);
        }
        let is_free = |it: &&Exchange| it.asked.is_none() && it.throttle.paused_until().is_none();
        let Some(exchange) = self.exchange.as_ref().filter(is_free) else { return Ok(()) };
        let (hello, number) = (exchange.hello, exchange.number);
        if !matches!(hello, HelloState::Needed | HelloState::Stored) {
            self.refuse_pulled_sets(edit, number);
        }
        match (hello, self.next_due(number)) {
            // stored by the next step
            (HelloState::Needed, _) => {}
            (HelloState::Stored, _) => self.ask_hello(edit),
            (HelloState::NotNeeded | HelloState::Answered, Some(collection)) => {
                self.ask_page(edit, collection);
            }
            (HelloState::Answered, None) => {
                if !self.ask_push(edit)? {
                    self.finish_exchange(edit)?;
                }
            }
            (HelloState::NotNeeded, None) => self.finish_exchange(edit)?,
        }
        Ok(())
    }

    fn next_due(&self, exchange: u64) -> Option<Collection> {
        let mut streams = self.streams.iter();
        streams.find(|(_, stream)| stream.is_pull_due(exchange)).map(|(name, _)| name.clone())
    }

    fn ask_hello(&mut self, edit: &mut Edit<'_>) {
        let client_id = self.identity.client_id.clone();
        let mut body = Vec::new();
        encode_session(&Hello { client_id, session: self.identity.session }, &mut body);
        self.ask(edit, What::Hello, "POST", SESSION_PATH.into(), Some(body));
    }

    fn ask_page(&mut self, edit: &mut Edit<'_>, collection: Collection) {
        let Some(stream) = self.streams.get_mut(&collection) else { return };
        if stream.is_doubtful() {
            stream.vouch();
        }
        stream.ask_set();
        let from = stream.from();
        stream.page_asked();
        let client_id = Some(self.identity.client_id.clone());
        let page_bytes = self.portions.pages.limit();
        let query = PageQuery { from: from.clone(), limit: None, page_bytes, client_id };
        let (method, path, body) = match self.peer.takes_pulls() {
            true => {
                let mut body = Vec::new();
                encode_pull(&collection, &query, &mut body);
                ("POST", PULL_PATH.into(), Some(body))
            }
            // a server of an earlier version would take that for an insert
            false => ("GET", query.target(&collection), None),
        };
        self.ask(edit, What::Page { collection, from }, method, path, body);
    }

    /// Pushes the next writes. Says whether there were any.
    fn ask_push(&mut self, edit: &mut Edit<'_>) -> Result<bool, StoreError> {
        let Some(epoch) = self.peer.epoch().cloned() else { return Ok(false) };
        if self.pacing.is_held() {
            return Ok(false);
        }
        let (writes, _) = self.next_writes(edit)?;
        let mut frames = Vec::with_capacity(writes.len());
        for whole in writes {
            frames.push(self.write_frame(edit, whole, encode_atomic)?);
        }
        if frames.is_empty() {
            return Ok(false);
        }
        let client_id = self.identity.client_id.clone();
        let head = PushHead { client_id, session: self.identity.session, epoch };
        let mut body = Vec::new();
        encode_push(&head, frames, &mut body);
        self.ask(edit, What::Push, "POST", PUSH_PATH.into(), Some(body));
        Ok(true)
    }

    /// Returns the maximal number of writes in a push, and of their bytes.
    pub(in super::super) fn push_window(&self) -> (usize, usize) {
        let limit = self.fallback.push_limit().unwrap_or(PUSH_WRITES);
        let bytes = self.exchange.as_ref().map_or(PUSH_BYTES, |exchange| exchange.push_bytes);
        (self.config.window.min(limit).max(1), self.config.window_bytes.min(bytes))
    }

    fn ask(
        &mut self,
        edit: &mut Edit<'_>,
        what: What,
        method: &'static str,
        path: String,
        body: Option<Vec<u8>>,
    ) {
        let request = RequestId(self.next_request.0);
        self.next_request = RequestId(request.0 + 1);
        let timeout = self.config.request_timeout.saturating_mul(self.patience());
        let Some(exchange) = &mut self.exchange else { return };
        let (at, run) = (self.now.mono, self.clock.run());
        exchange.asked = Some(Asked { request, at, run, moved_at: at, timeout, hurry: None, what });
        let token = self.config.token.clone();
        let body = body.map(Bytes::from);
        let ticket = HttpTicket::new(request, HttpRequest { method, path, body, token, timeout });
        edit.net.push(NetAction::Request(ticket));
    }

    /// The server has answered well.
    pub(in super::super) fn in_reach(&mut self, edit: &mut Edit<'_>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.succeeded = true;
            exchange.throttle.serve();
        }
        self.token_needed = false;
        self.failure = None;
        if !self.fallback.reach() {
            edit.remote_event(EventKind::ConnectivityChanged { online: true });
            self.hasten_websocket();
        }
    }

    fn finish_exchange(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let Some(exchange) = self.exchange.take() else { return Ok(()) };
        self.fallback.forget_failures();
        let first = self.outbox.first_place(edit)?;
        // a collection that could not be pulled now is not known to be in step
        let waits = |stream: &Stream| stream.is_wanted() && stream.retry_at().is_some();
        let troubled = exchange.troubled || self.streams.any(waits);
        if let Some(outcome) = self.streams.known_outcome() {
            let which = |id, until| id < exchange.syncs && until <= first;
            self.syncs.answer(edit, &outcome, which);
        }
        self.schedule_poll(troubled);
        if let Some(again_at) = exchange.again_at.filter(|_| self.config.enable_auto_sync) {
            self.poll_soon(again_at);
        }
        self.fallback.end(self.now.mono);
        if !self.syncs.is_empty() && !self.pacing.is_held() {
            // called while the exchange was under way, or not fulfilled by it
            self.poll_soon(self.now.mono);
        }
        Ok(())
    }

    /// The exchange is given up, and another one tried after a while.
    pub(in super::super) fn fail_exchange(
        &mut self,
        edit: &mut Edit<'_>,
        why: impl Into<ConnectFailure>,
    ) {
        let failure = why.into();
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        edit.unreachable(&failure);
        edit.transport = before;
        self.give_up_exchange(edit);
        self.note_failure(failure);
    }

    /// The same, where it was told already why.
    pub(in super::super) fn give_up_exchange(&mut self, edit: &mut Edit<'_>) {
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        let moved = self.exchange.as_ref().is_some_and(|exchange| exchange.moved);
        self.drop_exchange(edit);
        self.out_of_reach(edit);
        self.poll_later();
        if moved {
            self.go_on_soon();
        }
        self.fallback.doubt();
        edit.transport = before;
    }

    /// The server, or something before it, wants fewer requests: an exchange that was served so far
    /// waits as long as it says, and goes on. Returns `false` where none was served, or it is asked
    /// too often or for too long a wait.
    pub(super) fn pause_exchange(&mut self, what: &What, wait: Option<Duration>) -> bool {
        let Some(exchange) = &mut self.exchange else { return false };
        let wait = exchange.throttle.limit(wait, self.config.max_reconnect_delay);
        let Some(wait) = wait.filter(|_| exchange.succeeded) else { return false };
        if let What::Hello | What::Push = what {
            // what was sent is frozen until the hello tells about it
            exchange.hello = HelloState::Needed;
            self.outbox.lose_connection();
        }
        let until = self.pause(wait);
        if let Some(exchange) = &mut self.exchange {
            exchange.throttle.pause(until);
        }
        true
    }

    /// The server wants to be left alone for so long. Returns the time at which to go on.
    pub(in super::super) fn pause(&mut self, wait: Duration) -> Mono {
        let now = self.now.mono;
        let rest = now + self.fallback.rest(now, wait);
        self.link.postpone(rest);
        let spread = self.config.reconnect_delay.min(wait / 4);
        rest + self.random.below(spread)
    }

    /// Bytes of a request, or of its answer, have moved: its time begins anew.
    pub(in super::super) fn request_moves(&mut self, request: RequestId) {
        let now = self.now.mono;
        if let Some(exchange) = &mut self.exchange {
            exchange.moves(request, now);
        }
        self.work_moves(request);
    }

    /// Nothing is listened to any more of what was asked.
    pub(in super::super) fn drop_exchange(&mut self, edit: &mut Edit<'_>) {
        self.drop_work();
        if self.exchange.take().is_some() {
            self.detach(edit);
        }
    }

    pub(in super::super) fn request_timed_out(&mut self, edit: &mut Edit<'_>) {
        if self.works_plainly() {
            self.work_timed_out(edit);
            return;
        }
        let asked = self.exchange.as_ref().and_then(|exchange| exchange.asked.clone());
        let what = asked.as_ref().map_or("a request", |asked| asked.what.name());
        let why = format!("{what} was not answered in time");
        let failure = ConnectFailure::new(FailureCause::Silent, why);
        if let Some(asked) = &asked {
            self.take_less(edit, &asked.what);
        }
        self.fail_exchange(edit, failure);
        if let Some(asked) = asked {
            self.pass_over(&asked.what);
        }
    }
}
