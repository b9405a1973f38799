//! HTTP: one exchange after another, strictly one request at a time. An exchange is a hello where
//! one is needed, then pages of every collection up to its `synced`, then pushes until the outbox
//! is empty. What the answers say takes the same ways as what comes over a WebSocket.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::access::{code_of, speaks_of_access};
use super::edit::Edit;
use super::event::{Event, EventKind, Transport};
use super::interface::{
    ClientConfig, HttpAnswer, HttpRequest, HttpTicket, Method, NetAction, PlainServers, RequestId,
    SyncId,
};
use super::machine::{Client, Fault};
use super::stream::{Phase, Stream};
use crate::words::limits::Limits;
use crate::words::message::{ErrorCode, ErrorMessage, Features, Hello, ServerMessage, Welcome};
use crate::words::name::Collection;
use crate::words::store::StoreError;
use crate::words::time::Mono;
use crate::words::wire::http::{
    PULL_PATH, PUSH_PATH, PageAnswer, PageFrom, PageQuery, PushAnswer, PushHead, SESSION_PATH,
    encode_pull, encode_push, encode_session, refusal,
};
use crate::words::wire::{Incoming, WireError, decode_server};

/// The most writes and bytes of documents in one push, below every server's default limits.
const PUSH_WRITES: usize = 1024;
const PUSH_BYTES: usize = 1 << 20;
/// The longest answer to a push: it may hold the whole of every record.
const ANSWER_BYTES: usize = 20 << 20;
/// How many pages in a row may be declined before the whole exchange is given up: so many are not
/// the fault of single collections.
pub(super) const MOST_DECLINED: u32 = 16;
/// How much later than the request itself the machine gives an answer up.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What is under way by HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Exchange {
    /// Which one it is: a stream that was pulled in it notes the number.
    number: u64,
    /// Where the hello stands that opens the right to push.
    hello: HelloState,
    /// Whether the server has answered well.
    succeeded: bool,
    /// Whether something else than the whole exchange has failed.
    troubled: bool,
    /// How many pages in a row were declined.
    declined: u32,
    asked: Option<Asked>,
    /// Calls of `synced` before this one were made before the exchange began.
    syncs: SyncId,
    /// How many bytes of documents a push may have.
    push_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum HelloState {
    /// A pull needs none.
    NotNeeded,
    /// One has to be said; its session is not stored yet.
    Needed,
    /// The session is stored as soon as the step that did it is durable.
    Stored,
    /// The server has answered it.
    Answered,
}

/// The request that is out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked {
    request: RequestId,
    at: Mono,
    /// The run of the clock in which it was asked.
    run: u64,
    /// Until when it has to be answered, because its connection may have died unnoticed.
    hurry: Option<Mono>,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum What {
    Hello,
    Page { collection: Collection, from: PageFrom },
    Push,
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            Self::Hello => "a hello",
            Self::Page { .. } => "a pull",
            Self::Push => "a push",
        }
    }
}

impl Exchange {
    /// Whether the server has answered the exchange's hello.
    pub(super) fn is_greeted(&self) -> bool {
        self.hello == HelloState::Answered
    }

    pub(super) fn deadline(&self, config: &ClientConfig) -> Option<Mono> {
        let asked = self.asked.as_ref()?;
        let usual = asked.at + config.request_timeout + GRACE;
        Some(asked.hurry.map_or(usual, |hurry| hurry.min(usual)))
    }

    /// What was asked is given up at a time, if it is not answered by then.
    pub(super) fn hurry(&mut self, until: Mono) {
        if let Some(asked) = &mut self.asked {
            asked.hurry = Some(asked.hurry.map_or(until, |hurry| hurry.min(until)));
        }
    }
}

impl Stream {
    fn from(&self) -> PageFrom {
        PageFrom { cursor: self.row.cursor.clone(), resume: self.row.resume.clone() }
    }

    fn is_due(&self, exchange: u64) -> bool {
        self.wanted && self.pulled != exchange && self.retry_at.is_none()
    }
}

impl Client {
    /// Begins an exchange where one is due, and stores the session of its hello, before anything
    /// of the step goes out.
    pub(super) fn prepare_exchange(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.works_plainly() {
            return self.prepare_work(edit);
        }
        if !self.polls() {
            return Ok(());
        }
        if self.exchange.is_none() && self.is_exchange_due(edit)? {
            self.begin_exchange(edit);
        }
        let Some(exchange) = &self.exchange else { return Ok(()) };
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

    /// Whether it is time, or something waits that need not wait for the time.
    pub(super) fn is_exchange_due(&self, edit: &Edit<'_>) -> Result<bool, StoreError> {
        if self.fallback.due {
            return Ok(true);
        }
        let held = self.hold_until.is_some_and(|until| until > self.now.mono);
        if self.fallback.failures > 0 || held || self.resting().is_some() {
            return Ok(false);
        }
        let auto = self.config.enable_auto_sync;
        let asked = !self.syncs.is_empty() && self.fallback.troubles == 0;
        Ok(asked || auto && self.has_durable_write(edit)?)
    }

    fn has_durable_write(&self, edit: &Edit<'_>) -> Result<bool, StoreError> {
        if self.outbox.is_empty() || self.hold_until.is_some() {
            return Ok(false);
        }
        let first = self.outbox.first_unsent(edit)?;
        Ok(first.is_some_and(|first| self.outbox.is_durable(first)))
    }

    fn begin_exchange(&mut self, edit: &mut Edit<'_>) {
        (self.fallback.due, self.fallback.again) = (false, false);
        self.fallback.poll_at = None;
        self.hold_until = None;
        self.exchanges += 1;
        let hello = match &self.epoch {
            Some(_) if self.outbox.is_empty() && !self.fallback.in_doubt => HelloState::NotNeeded,
            Some(_) | None => HelloState::Needed,
        };
        for (collection, stream) in &mut self.streams {
            stream.phase = Phase::Idle;
            stream.retry_at = stream.retry_at.filter(|at| *at > self.now.mono);
            if let (Some(epoch), HelloState::NotNeeded) = (&self.epoch, hello) {
                stream.greet(epoch);
                edit.put_stream(collection, &stream.row);
            }
        }
        self.exchange = Some(Exchange {
            number: self.exchanges,
            hello,
            succeeded: false,
            troubled: false,
            declined: 0,
            asked: None,
            syncs: self.next_sync,
            push_bytes: PUSH_BYTES,
        });
    }

    /// Asks for what comes next; ends the exchange where nothing does.
    pub(super) fn pump_exchange(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.works_plainly() {
            return self.pump_work(edit);
        }
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| exchange.asked.is_none())
        else {
            return Ok(());
        };
        match (exchange.hello, self.next_due(exchange.number)) {
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
        streams.find(|(_, stream)| stream.is_due(exchange)).map(|(name, _)| name.clone())
    }

    fn ask_hello(&mut self, edit: &mut Edit<'_>) {
        let client_id = self.identity.client_id.clone();
        let mut body = Vec::new();
        encode_session(&Hello { client_id, session: self.identity.session }, &mut body);
        self.ask(edit, What::Hello, Method::Post, SESSION_PATH.into(), Some(body));
    }

    fn ask_page(&mut self, edit: &mut Edit<'_>, collection: Collection) {
        let stream = self.stream(&collection);
        let from = stream.from();
        if stream.phase != Phase::CatchingUp {
            stream.phase = Phase::Subscribing;
        }
        let client_id = Some(self.identity.client_id.clone());
        let query = PageQuery { from: from.clone(), limit: None, client_id };
        let (method, path, body) = match self.features.pull && !planted!(NamesInPaths) {
            true => {
                let mut body = Vec::new();
                encode_pull(&collection, &query, &mut body);
                (Method::Post, PULL_PATH.into(), Some(body))
            }
            // a server of an earlier version would take that for an insert
            false => (Method::Get, query.target(&collection), None),
        };
        self.ask(edit, What::Page { collection, from }, method, path, body);
    }

    /// Pushes the next writes. Says whether there were any.
    fn ask_push(&mut self, edit: &mut Edit<'_>) -> Result<bool, StoreError> {
        let Some(epoch) = self.epoch.clone() else { return Ok(false) };
        if self.hold_until.is_some() {
            return Ok(false);
        }
        let (writes, _) = self.next_writes(edit)?;
        let mut frames = Vec::with_capacity(writes.len());
        for (position, entry) in writes {
            self.vouch(edit, &entry.collection);
            frames.push(self.write_frame(edit, position, entry)?);
        }
        if frames.is_empty() {
            return Ok(false);
        }
        let client_id = self.identity.client_id.clone();
        let head = PushHead { client_id, session: self.identity.session, epoch };
        let mut body = Vec::new();
        encode_push(&head, frames, &mut body);
        self.ask(edit, What::Push, Method::Post, PUSH_PATH.into(), Some(body));
        Ok(true)
    }

    /// How many writes, and how many bytes of them, a push may have.
    pub(super) fn push_window(&self) -> (usize, usize) {
        let limit = self.fallback.push_limit.unwrap_or(PUSH_WRITES);
        let bytes = self.exchange.as_ref().map_or(PUSH_BYTES, |exchange| exchange.push_bytes);
        (self.config.window.min(limit).max(1), self.config.window_bytes.min(bytes))
    }

    fn ask(
        &mut self,
        edit: &mut Edit<'_>,
        what: What,
        method: Method,
        path: String,
        body: Option<Vec<u8>>,
    ) {
        let request = RequestId(self.next_request.0);
        self.next_request = RequestId(request.0 + 1);
        let Some(exchange) = &mut self.exchange else { return };
        let (at, run) = (self.now.mono, self.clock.run());
        exchange.asked = Some(Asked { request, at, run, hurry: None, what });
        let token = self.config.token.clone();
        let (body, timeout) = (body.map(Bytes::from), self.config.request_timeout);
        let ticket = HttpTicket::new(request, HttpRequest { method, path, body, token, timeout });
        edit.net.push(NetAction::Request(ticket));
    }

    /// A request was answered.
    pub(super) fn answered(
        &mut self,
        edit: &mut Edit<'_>,
        request: RequestId,
        answer: HttpAnswer,
    ) -> Result<(), Fault> {
        if self.work_answered(edit, request, &answer)? {
            return Ok(());
        }
        let asked = self
            .exchange
            .as_mut()
            .and_then(|exchange| exchange.asked.take_if(|asked| asked.request == request));
        let Some(asked) = asked else {
            self.ignored_frames += 1;
            return Ok(());
        };
        edit.transport = Transport::Http;
        match answer {
            HttpAnswer::Answered { status: status @ 200..=299, body, .. } => {
                self.told(edit, asked, status, &body)
            }
            HttpAnswer::Answered { status, retry_after, body } => {
                self.declined(edit, &asked.what, status, retry_after, &body)
            }
            HttpAnswer::Failed(why) => {
                let what = asked.what.name();
                self.fail_exchange(edit, &format!("{what} failed: {why}"), Duration::ZERO);
                self.pass_over(&asked.what);
                Ok(())
            }
        }
    }

    fn told(
        &mut self,
        edit: &mut Edit<'_>,
        asked: Asked,
        status: u16,
        body: &[u8],
    ) -> Result<(), Fault> {
        let limits = self.config.limits.clone();
        let unreadable = |error: WireError| {
            Fault::Peer(format!("the answer to {} can't be read: {error}", asked.what.name()))
        };
        match &asked.what {
            What::Hello if !is_message(body) => self.meet_plain_by_http(edit, status, body),
            What::Hello => match decode_server(body, &limits).map_err(unreadable)? {
                Incoming::One(ServerMessage::Pong { timestamp, welcome: Some(welcome) }) => {
                    if let Some(other) = self.other_than_known(welcome.database.as_ref()) {
                        self.meet_other_database(edit, other);
                        return Ok(());
                    }
                    self.in_reach(edit);
                    if self.is_of_this_run(asked.run) {
                        self.settle_clock(edit, timestamp, asked.at);
                    }
                    self.greeted_by_http(edit, welcome)
                }
                // a plain server may take it for an insert into a collection of that name
                Incoming::One(_) | Incoming::Batch(_) => {
                    self.meet_plain_by_http(edit, status, body)
                }
            },
            What::Page { collection, from } => match PageAnswer::decode(body, &limits) {
                Ok(page) => {
                    if let Some(other) = self.other_than_known(page.database.as_ref()) {
                        self.meet_other_database(edit, other);
                        return Ok(());
                    }
                    self.in_reach(edit);
                    if let Some(exchange) = &mut self.exchange {
                        exchange.declined = 0;
                    }
                    self.fallback.stuck.take_if(|stuck| stuck == collection);
                    if !self.page_fits(from, &page) {
                        return self.doubt(edit, "a page does not fit what this replica knows");
                    }
                    match self.turned_page(edit, collection, from, page) {
                        // another collection's page, say, to which a proxy has led
                        Err(Fault::Peer(text)) if !planted!(UselessPageStopsExchange) => {
                            self.not_pulled_now(edit, collection, text);
                            Ok(())
                        }
                        turned => turned,
                    }
                }
                // a portal's page, say
                Err(error) => {
                    let text = format!("the answer to a pull can't be read: {error}");
                    self.not_pulled_now(edit, collection, text);
                    Ok(())
                }
            },
            What::Push => {
                let limits = Limits { frame_bytes: ANSWER_BYTES, ..limits };
                let answer = PushAnswer::decode(body, &limits).map_err(unreadable)?;
                self.in_reach(edit);
                self.judged(edit, answer)
            }
        }
    }

    /// The server has answered the hello of an exchange.
    fn greeted_by_http(&mut self, edit: &mut Edit<'_>, welcome: Welcome) -> Result<(), Fault> {
        let push_bytes = match usize::try_from(welcome.max_batch_bytes) {
            Ok(0) | Err(_) => PUSH_BYTES,
            // writes have more to them than their documents
            Ok(max) => PUSH_BYTES.min(max / 2),
        };
        if !self.take_welcome(edit, welcome)? || self.falls_short(edit) {
            return Ok(());
        }
        self.fallback.in_doubt = false;
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        exchange.hello = HelloState::Answered;
        exchange.push_bytes = push_bytes;
        for stream in self.streams.values_mut() {
            if stream.phase != Phase::Refused && (!stream.trusted || stream.row.cursor.is_none()) {
                stream.pulled = 0;
            }
        }
        Ok(())
    }

    /// A page counts only if it is of the history that the last hello told of, goes on from what was
    /// asked with, and knows of this replica's writes what the replica knows.
    fn page_fits(&self, from: &PageFrom, page: &PageAnswer) -> bool {
        let own = page.last_mutation.unwrap_or_default() == self.identity.confirmed
            || planted!(PageNumberIgnored);
        let here = page.from == *from || planted!(ForeignPageApplied);
        self.epoch.as_ref() == Some(&page.epoch) && here && own
    }

    /// A page has come that fits.
    fn turned_page(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        from: &PageFrom,
        page: PageAnswer,
    ) -> Result<(), Fault> {
        for message in page.messages {
            self.take_of_page(edit, collection, message)?;
            if self.exchange.is_none() {
                return Ok(());
            }
        }
        let exchange = self.exchanges;
        let stream = self.stream(collection);
        match stream.phase {
            Phase::Live => {
                stream.phase = Phase::Idle;
                stream.pulled = exchange;
            }
            Phase::Refused => stream.pulled = exchange,
            Phase::CatchingUp if stream.from() == *from => {
                return Err(Fault::peer("a page brought the catch-up no further"));
            }
            Phase::Subscribing => return Err(Fault::peer("a page does not say what it is of")),
            Phase::CatchingUp | Phase::Idle | Phase::Leaving => {}
        }
        Ok(())
    }

    fn take_of_page(
        &mut self,
        edit: &mut Edit<'_>,
        asked: &Collection,
        message: ServerMessage,
    ) -> Result<(), Fault> {
        let foreign = |of: &Collection| {
            let what = format!(
                "the answer to a pull is a page of {of}: a proxy on the way may change paths"
            );
            Err(Fault::Peer(what))
        };
        match message {
            ServerMessage::Subscribed { collection, head, mode, partial, .. } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                self.subscribed(edit, asked, head, mode, partial)
            }
            ServerMessage::Change { collection, record_id, change, filtered } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                self.changed(edit, asked, &record_id, &change, filtered)
            }
            ServerMessage::Sync { collection, records, range } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                self.paged(edit, asked, &records, range.as_ref())
            }
            ServerMessage::Synced { collection, cursor, count, checksum } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                self.synced_with(edit, asked, cursor, count, checksum)
            }
            ServerMessage::Unknown { .. } => {
                self.ignored_frames += 1;
                Ok(())
            }
            ServerMessage::Authenticated { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Error(_)
            | ServerMessage::Pong { .. } => {
                Err(Fault::peer("a page holds what has no place in it"))
            }
        }
    }

    /// The verdicts of a push have come.
    fn judged(&mut self, edit: &mut Edit<'_>, answer: PushAnswer) -> Result<(), Fault> {
        let judged = answer.verdicts.len();
        for verdict in answer.verdicts {
            match verdict {
                ServerMessage::Ack(ack) => self.acked(edit, ack)?,
                ServerMessage::Error(error) => match error.mutation {
                    Some(number) => self.refused(edit, number, error)?,
                    None => return Err(Fault::Peer(format!("{}: {}", error.code, error.message))),
                },
                ServerMessage::Unknown { .. } => self.ignored_frames += 1,
                ServerMessage::Authenticated { .. }
                | ServerMessage::Subscribed { .. }
                | ServerMessage::Unsubscribed { .. }
                | ServerMessage::Change { .. }
                | ServerMessage::Sync { .. }
                | ServerMessage::Synced { .. }
                | ServerMessage::Pong { .. } => {
                    return Err(Fault::peer(
                        "a push was answered with something else than verdicts",
                    ));
                }
            }
            if self.exchange.is_none() {
                return Ok(());
            }
        }
        if self.outbox.in_flight() > 0 {
            return self.hear_the_rest(judged);
        }
        if answer.last_mutation != self.identity.confirmed {
            return self.doubt(edit, "the server counts this replica's writes otherwise");
        }
        Ok(())
    }

    /// An answer that would have been too large ends early: the next hello tells the rest.
    fn hear_the_rest(&mut self, judged: usize) -> Result<(), Fault> {
        if judged == 0 {
            return Err(Fault::peer("a push was answered without a verdict"));
        }
        self.outbox.lose_connection();
        if let Some(exchange) = &mut self.exchange {
            exchange.hello = HelloState::Needed;
        }
        Ok(())
    }

    /// What the server says does not fit what it said before: an exchange that begins with a hello
    /// clears that up. One that already did has failed.
    fn doubt(&mut self, edit: &mut Edit<'_>, why: &str) -> Result<(), Fault> {
        self.fallback.in_doubt = true;
        let greeted = self.exchange.as_ref().is_some_and(Exchange::is_greeted);
        if greeted {
            return Err(Fault::peer(why));
        }
        let syncs = self.exchange.as_ref().map(|exchange| exchange.syncs);
        self.drop_exchange(edit);
        self.begin_exchange(edit);
        if let (Some(exchange), Some(syncs)) = (&mut self.exchange, syncs) {
            exchange.syncs = syncs;
        }
        Ok(())
    }

    /// The server, or something before it, has answered with another status than success.
    fn declined(
        &mut self,
        edit: &mut Edit<'_>,
        what: &What,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Result<(), Fault> {
        let told = refusal(body, &self.config.limits);
        let wait = retry_after.or_else(|| told.as_ref()?.retry_after_ms.map(Duration::from_millis));
        let text = told.as_ref().map_or_else(
            || format!("the server answered {status} to {}", what.name()),
            |told| format!("the server answered {status} to {}: {}", what.name(), told.message),
        );
        match (what, status, told) {
            (What::Hello, 400 | 404 | 405 | 406 | 415 | 422 | 501, _) => {
                return self.meet_plain_by_http(edit, status, body);
            }
            (What::Hello, 500, _) if self.config.plain == PlainServers::Silent => {
                return self.meet_plain_by_http(edit, status, body);
            }
            (What::Hello | What::Push, 401 | 403, told) => {
                let told = told.filter(speaks_of_access).map(|told| told.code);
                let by_server = told.is_some();
                let code = told.unwrap_or_else(|| code_of(status));
                self.refuse_access(edit, code, text, by_server);
            }
            (What::Hello | What::Push, 409, Some(told))
                if told.code == ErrorCode::SessionSuperseded =>
            {
                self.become_another(edit)?;
            }
            (What::Push, 413, _) => return self.push_less(edit, text),
            (What::Page { .. }, 401, Some(told)) if speaks_of_access(&told) => {
                self.need_token(edit, told.code, text);
            }
            (What::Page { collection, .. }, 403, Some(told))
                if told.code == ErrorCode::Unauthorized =>
            {
                self.in_reach(edit);
                self.not_pulled(edit, collection, told);
            }
            (What::Page { collection, .. }, _, _)
                if wait.is_none() && !planted!(PageStopsExchange) =>
            {
                if let 400 | 404 | 405 | 501 = status {
                    // perhaps the server is an earlier version than it was: the next hello tells
                    self.features = Features::default();
                    self.fallback.in_doubt = true;
                }
                if let 401 | 403 = status {
                    self.ask_for_token(edit, code_of(status), text.clone(), false);
                }
                self.not_pulled_now(edit, collection, text);
            }
            (What::Hello | What::Page { .. } | What::Push, _, _) => {
                self.fail_exchange(edit, &text, wait.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// A collection can't be pulled; the others can.
    fn not_pulled(&mut self, edit: &mut Edit<'_>, collection: &Collection, error: ErrorMessage) {
        self.subscription_failed(edit, collection, error);
        let exchange = self.exchanges;
        self.stream(collection).pulled = exchange;
    }

    /// A collection can't be pulled now, be it because of the server or because of something on the
    /// way. The others go on, once it is known that the server is there.
    fn not_pulled_now(&mut self, edit: &mut Edit<'_>, collection: &Collection, text: String) {
        self.not_pulled(edit, collection, ErrorMessage::new(ErrorCode::ServerError, text));
        let Some(exchange) = &mut self.exchange else { return };
        exchange.troubled = true;
        exchange.declined += 1;
        if exchange.declined > MOST_DECLINED {
            self.give_up_exchange(edit, Duration::ZERO);
            return;
        }
        if !exchange.succeeded && exchange.hello == HelloState::NotNeeded {
            exchange.hello = HelloState::Needed;
        }
    }

    /// Where the same pull fails again, the next exchange begins without it: whatever is wrong with
    /// one collection must not hold up the others.
    fn pass_over(&mut self, what: &What) {
        let What::Page { collection, .. } = what else { return };
        let again = self.fallback.stuck.replace(collection.clone());
        if again.as_ref() == Some(collection)
            && let Some(next) = self.fallback.poll_at
        {
            let later = next + self.config.reconnect_delay;
            self.stream(collection).retry_at = Some(later);
        }
    }

    /// A push was too large for something on its way. The writes are numbered anew after another
    /// hello, and go in smaller pushes. A single write that is too large waits and is tried again:
    /// whatever has said so, it was no verdict.
    fn push_less(&mut self, edit: &mut Edit<'_>, text: String) -> Result<(), Fault> {
        let sent = self.outbox.in_flight();
        let first = self.outbox.sent(0).map(|(position, _)| position);
        let error = ErrorMessage::new(ErrorCode::PayloadTooLarge, text.clone());
        match first {
            Some(_) if sent > 1 => self.fallback.push_limit = Some(sent / 2),
            Some(_) if planted!(TooLargeRejects) => {
                let number = self.number_in_flight(0);
                return self.refused(edit, number, error);
            }
            Some(position) => {
                let entry = edit.entry(position)?;
                edit.error(text);
                self.postpone(edit, position, &entry, &error);
            }
            None => {}
        }
        self.outbox.lose_connection();
        if let Some(exchange) = &mut self.exchange {
            exchange.hello = HelloState::Needed;
        }
        Ok(())
    }

    /// The server has answered well.
    pub(super) fn in_reach(&mut self, edit: &mut Edit<'_>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.succeeded = true;
        }
        self.token_needed = false;
        if !core::mem::replace(&mut self.fallback.reached, true) {
            edit.event(Event::remote(EventKind::ConnectivityChanged { online: true }));
            self.hasten_websocket();
        }
    }

    fn finish_exchange(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let Some(exchange) = self.exchange.take() else { return Ok(()) };
        self.fallback.failures = 0;
        let first = self.outbox.first_place(edit)?;
        // a collection that could not be pulled now is not known to be in step
        let waits = |stream: &Stream| stream.wanted && stream.retry_at.is_some();
        let troubled = exchange.troubled || self.streams.values().any(waits);
        if let Some(outcome) = self.known_outcome() {
            self.answer_syncs(edit, &outcome, |id, until| id < exchange.syncs && until <= first);
        }
        self.schedule_poll(troubled);
        if core::mem::take(&mut self.fallback.again) {
            self.fallback.due = true;
        }
        if !self.syncs.is_empty() && self.hold_until.is_none() {
            // called while the exchange was under way, or not fulfilled by it
            self.poll_for_syncs();
        }
        Ok(())
    }

    /// The exchange is given up, and another one tried after a while.
    pub(super) fn fail_exchange(&mut self, edit: &mut Edit<'_>, why: &str, at_least: Duration) {
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        edit.error(why.to_string());
        edit.transport = before;
        self.give_up_exchange(edit, at_least);
    }

    /// The same, where it was told already why.
    pub(super) fn give_up_exchange(&mut self, edit: &mut Edit<'_>, at_least: Duration) {
        let before = core::mem::replace(&mut edit.transport, Transport::Http);
        self.drop_exchange(edit);
        self.out_of_reach(edit);
        self.poll_later(at_least);
        self.fallback.in_doubt = true;
        edit.transport = before;
    }

    /// Nothing is listened to any more of what was asked.
    pub(super) fn drop_exchange(&mut self, edit: &mut Edit<'_>) {
        self.drop_work();
        if self.exchange.take().is_some() {
            self.detach(edit);
        }
    }

    pub(super) fn request_timed_out(&mut self, edit: &mut Edit<'_>) {
        if self.works_plainly() {
            self.work_timed_out(edit);
            return;
        }
        let asked = self.exchange.as_ref().and_then(|exchange| exchange.asked.clone());
        let what = asked.as_ref().map_or("a request", |asked| asked.what.name());
        self.fail_exchange(edit, &format!("{what} was not answered in time"), Duration::ZERO);
        if let Some(asked) = asked {
            self.pass_over(&asked.what);
        }
    }
}

/// Whether a body is a JSON object that says its type, as every message does.
fn is_message(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{") && body.windows(6).any(|part| part == b"\"type\"")
}
