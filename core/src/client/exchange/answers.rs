//! The answers of an exchange: what each says, and what follows from it.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::super::access::{cause_of, code_of, speaks_of_access};
use super::super::catchup::Subscribed;
use super::super::edit::Edit;
use super::super::event::Transport;
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::interface::{HttpAnswer, RequestId};
use super::super::machine::Client;
use super::super::plain::HelloFailure;
use super::super::step::StepError;
use super::super::stream::{Phase, Stream};
use super::{ANSWER_BYTES, Asked, Exchange, HelloState, MOST_DECLINED, PUSH_BYTES, What};
use crate::protocol::limits::Limits;
use crate::protocol::message::{ErrorCode, ErrorMessage, ServerMessage, Welcome};
use crate::protocol::name::Collection;
use crate::protocol::wire::http::{PageAnswer, PageFrom, PushAnswer, refusal};
use crate::protocol::wire::{Incoming, WireError, decode_server};

impl Client {
    /// A request was answered.
    pub(in super::super) fn answered(
        &mut self,
        edit: &mut Edit<'_>,
        request: RequestId,
        answer: HttpAnswer,
    ) -> Result<(), StepError> {
        if self.work_answered(edit, request, &answer)? {
            return Ok(());
        }
        let asked = self
            .exchange
            .as_mut()
            .and_then(|exchange| exchange.asked.take_if(|asked| asked.request == request));
        let Some(asked) = asked else {
            edit.ignore();
            return Ok(());
        };
        edit.transport = Transport::Http;
        match answer {
            HttpAnswer::Answered { status: status @ 200..=299, body, .. } => {
                self.told(edit, asked, status, &body)
            }
            HttpAnswer::Answered { body, .. } if self.takes_for_later(edit, &asked.what, &body) => {
                Ok(())
            }
            HttpAnswer::Answered { status, retry_after, body } => {
                self.declined(edit, &asked.what, status, retry_after, &body)
            }
            HttpAnswer::Failed(why) => {
                let what = asked.what.name();
                self.take_less(edit, &asked.what);
                self.fail_exchange(edit, why.of(what));
                // the status tells of the server, and not of the call
                self.note_failure(why);
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
    ) -> Result<(), StepError> {
        let limits = self.config.limits.clone();
        let unreadable = |error: WireError| {
            StepError::Peer(format!("the answer to {} can't be read: {error}", asked.what.name()))
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
                    self.welcomed_by_http(edit, welcome)
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
                    self.fallback.unstick(collection);
                    if !self.page_fits(from, &page) {
                        return self.doubt(edit, "a page does not fit what this replica knows");
                    }
                    match self.turned_page(edit, collection, from, page) {
                        // another collection's page, say, to which a proxy has led
                        Err(StepError::Peer(text)) => {
                            let error = ErrorMessage::new(ErrorCode::ServerError, text);
                            self.not_pulled_now(edit, collection, error);
                            Ok(())
                        }
                        turned => turned,
                    }
                }
                // a portal's page, say
                Err(error) => {
                    let text = format!("the answer to a pull can't be read: {error}");
                    let error = ErrorMessage::new(ErrorCode::ServerError, text);
                    self.not_pulled_now(edit, collection, error);
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
    fn welcomed_by_http(&mut self, edit: &mut Edit<'_>, welcome: Welcome) -> Result<(), StepError> {
        let push_bytes = match usize::try_from(welcome.max_batch_bytes) {
            Ok(0) | Err(_) => PUSH_BYTES,
            // writes have more to them than their documents
            Ok(max) => PUSH_BYTES.min(max / 2),
        };
        if !self.take_welcome(edit, welcome)? || self.falls_short(edit) {
            return Ok(());
        }
        self.fallback.trust();
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        exchange.hello = HelloState::Answered;
        exchange.push_bytes = push_bytes;
        for stream in self.streams.values_mut() {
            stream.pull_unless_trusted();
        }
        Ok(())
    }

    /// A page counts only if it is of the history that the last hello told of, goes on from what was
    /// asked with, and knows of this replica's writes what the replica knows.
    fn page_fits(&self, from: &PageFrom, page: &PageAnswer) -> bool {
        let own = page.last_mutation.unwrap_or_default() == self.identity.confirmed;
        let here = page.from == *from;
        self.peer.epoch() == Some(&page.epoch) && here && own
    }

    /// A page has come that fits.
    fn turned_page(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        from: &PageFrom,
        page: PageAnswer,
    ) -> Result<(), StepError> {
        for message in page.messages {
            self.take_of_page(edit, collection, message)?;
            if self.exchange.is_none() {
                return Ok(());
            }
        }
        let exchange = self.exchanges;
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        match stream.phase() {
            Phase::Live | Phase::Refused => stream.pulled_in(exchange),
            Phase::CatchingUp if stream.from() == *from => {
                return Err(StepError::peer("a page brought the catch-up no further"));
            }
            Phase::Subscribing => return Err(StepError::peer("a page does not say what it is of")),
            Phase::CatchingUp | Phase::Idle | Phase::Leaving => {}
        }
        Ok(())
    }

    fn take_of_page(
        &mut self,
        edit: &mut Edit<'_>,
        asked: &Collection,
        message: ServerMessage,
    ) -> Result<(), StepError> {
        let foreign = |of: &Collection| {
            let what = format!(
                "the answer to a pull is a page of {of}: a proxy on the way may change paths"
            );
            Err(StepError::Peer(what))
        };
        match message {
            ServerMessage::Subscribed {
                collection,
                record_count,
                head,
                mode,
                partial,
                rights,
                set,
                refused,
            } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                let answer = Subscribed { record_count, head, mode, partial, rights, set, refused };
                self.subscribed(edit, asked, &answer)
            }
            ServerMessage::Change { collection, record_id, change, reason, prev } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                match self.records(asked) {
                    Some(mut records) => {
                        records.changed(edit, &record_id, &change, reason.is_some(), prev)
                    }
                    None => Ok(()),
                }
            }
            ServerMessage::Sync { collection, records, range } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                match self.records(asked) {
                    Some(mut of) => of.paged(edit, &records, range.as_ref()),
                    None => Ok(()),
                }
            }
            ServerMessage::Load(page) => {
                if page.collection != *asked {
                    return foreign(&page.collection);
                }
                match self.records(asked) {
                    Some(mut of) => of.loaded(edit, &page),
                    None => Ok(()),
                }
            }
            ServerMessage::Synced { collection, cursor, count, checksum, set } => {
                if collection != *asked {
                    return foreign(&collection);
                }
                self.synced_with(edit, asked, cursor, (count, checksum), set)
            }
            ServerMessage::Unknown { .. } => {
                edit.ignore();
                Ok(())
            }
            ServerMessage::Authenticated { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Error(_)
            | ServerMessage::Pong { .. } => {
                Err(StepError::peer("a page holds what has no place in it"))
            }
        }
    }

    /// The verdicts of a push have come.
    fn judged(&mut self, edit: &mut Edit<'_>, answer: PushAnswer) -> Result<(), StepError> {
        let judged = answer.verdicts.len();
        self.check_whole(answer.verdicts.iter())?;
        for verdict in answer.verdicts {
            match verdict {
                ServerMessage::Ack(ack) => self.acked(edit, ack)?,
                ServerMessage::Error(error) => match error.mutation {
                    Some(number) => self.refused(edit, number, error)?,
                    None => {
                        return Err(StepError::Peer(format!("{}: {}", error.code, error.message)));
                    }
                },
                ServerMessage::Unknown { .. } => edit.ignore(),
                ServerMessage::Authenticated { .. }
                | ServerMessage::Subscribed { .. }
                | ServerMessage::Unsubscribed { .. }
                | ServerMessage::Change { .. }
                | ServerMessage::Sync { .. }
                | ServerMessage::Load(_)
                | ServerMessage::Synced { .. }
                | ServerMessage::Pong { .. } => {
                    return Err(StepError::peer(
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
    fn hear_the_rest(&mut self, judged: usize) -> Result<(), StepError> {
        if judged == 0 {
            return Err(StepError::peer("a push was answered without a verdict"));
        }
        self.outbox.lose_connection();
        if let Some(exchange) = &mut self.exchange {
            exchange.hello = HelloState::Needed;
        }
        Ok(())
    }

    /// An answer contradicts an earlier one: an exchange that begins with a hello clears that up. One that already did has failed.
    fn doubt(&mut self, edit: &mut Edit<'_>, why: &str) -> Result<(), StepError> {
        self.fallback.doubt();
        let welcomed = self.exchange.as_ref().is_some_and(Exchange::is_welcomed);
        if welcomed {
            return Err(StepError::peer(why));
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
    ) -> Result<(), StepError> {
        let told = refusal(body, &self.config.limits);
        let wait = retry_after.or_else(|| told.as_ref()?.retry_after_ms.map(Duration::from_millis));
        self.rest(wait);
        let text = told.as_ref().map_or_else(
            || format!("the server answered {status} to {}", what.name()),
            |told| format!("the server answered {status} to {}: {}", what.name(), told.message),
        );
        let is_limit = |told: &ErrorMessage| told.code == ErrorCode::RateLimitExceeded;
        if status == 429 && told.as_ref().is_none_or(is_limit) && self.pause_exchange(what, wait) {
            edit.error(text);
            return Ok(());
        }
        if let What::Hello = what
            && wait.is_none()
            && is_unclear(status, told.as_ref())
            && self.may_be_plain(status)
        {
            return self.tell_servers_apart(edit, body, HelloFailure { status, message: text });
        }
        match (what, status, told) {
            (What::Hello, 400 | 404 | 405 | 406 | 415 | 422 | 501, _) => {
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
            (What::Page { collection, .. }, _, told) if wait.is_none() => {
                if let 400 | 404 | 405 | 501 = status {
                    // perhaps the server is an earlier version than it was: the next hello tells
                    self.peer.doubt_pulls();
                    self.fallback.doubt();
                }
                if let 401 | 403 = status {
                    self.ask_for_token(edit, code_of(status), text.clone(), false);
                }
                let code =
                    told.map(|told| told.code).filter(|code| self.is_of_set(collection, code));
                let code = code.unwrap_or(ErrorCode::ServerError);
                self.not_pulled_now(edit, collection, ErrorMessage::new(code, text));
            }
            (What::Hello | What::Page { .. } | What::Push, _, _) => {
                let cause = match what {
                    What::Hello => cause_of(status),
                    What::Page { .. } | What::Push => FailureCause::Declined,
                };
                let failure = ConnectFailure::new(cause, text);
                self.fail_exchange(edit, failure);
            }
        }
        Ok(())
    }

    /// A collection can't be pulled; the others can.
    fn not_pulled(&mut self, edit: &mut Edit<'_>, collection: &Collection, error: ErrorMessage) {
        self.subscription_failed(edit, collection, error);
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.pulled_in(self.exchanges);
        }
    }

    /// Takes in a refusal that is about the pulled collection alone, and says when to ask again: the
    /// server serves the others. Returns `false` if it is none.
    fn takes_for_later(&mut self, edit: &mut Edit<'_>, what: &What, body: &[u8]) -> bool {
        let What::Page { collection, .. } = what else { return false };
        let is_later = |told: &ErrorMessage| {
            let is_later = told.code == ErrorCode::ServerError && told.retry_after_ms.is_some();
            is_later && told.collection.as_ref() == Some(collection)
        };
        let Some(told) = refusal(body, &self.config.limits).filter(is_later) else { return false };
        self.in_reach(edit);
        self.not_pulled(edit, collection, told);
        let retry_at = self.streams.get(collection).and_then(Stream::retry_at);
        if let Some(exchange) = &mut self.exchange {
            exchange.again_at = exchange.again_at.into_iter().chain(retry_at).min();
        }
        true
    }

    /// Returns `true` if an error says that the server can't serve the scopes that were pulled.
    fn is_of_set(&self, collection: &Collection, code: &ErrorCode) -> bool {
        *code == ErrorCode::InvalidMessage
            && self.streams.get(collection).is_some_and(Stream::is_scoped)
    }

    /// A collection can't be pulled now, be it because of the server or because of something on the
    /// way. The others go on, once it is known that the server is there.
    fn not_pulled_now(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        error: ErrorMessage,
    ) {
        self.not_pulled(edit, collection, error);
        let Some(exchange) = &mut self.exchange else { return };
        exchange.troubled = true;
        exchange.declined += 1;
        if exchange.declined > MOST_DECLINED {
            self.give_up_exchange(edit);
            return;
        }
        if !exchange.succeeded && exchange.hello == HelloState::NotNeeded {
            exchange.hello = HelloState::Needed;
        }
    }

    /// Where the same pull fails again, the next exchange begins without it: whatever is wrong with
    /// one collection must not hold up the others.
    pub(super) fn pass_over(&mut self, what: &What) {
        let What::Page { collection, .. } = what else { return };
        let again = self.fallback.stick(collection);
        if again.as_ref() == Some(collection)
            && let Some(next) = self.fallback.poll_at()
            && let Some(stream) = self.streams.get_mut(collection)
        {
            stream.ask_again_at(Some(next + self.config.reconnect_delay));
        }
    }

    /// A call was not answered, or its answer broke off, at a server that has answered others: perhaps it
    /// was about too much.
    pub(super) fn take_less(&mut self, edit: &mut Edit<'_>, what: &What) {
        let answers = self.exchange.as_ref().is_some_and(|exchange| exchange.succeeded);
        match what {
            What::Page { collection, .. } if answers => {
                self.break_catch_ups(edit, Some(collection));
            }
            What::Push => {
                self.portions.writes.fail();
                if self.outbox.is_one_in_flight() {
                    self.count_break(edit);
                }
            }
            What::Hello | What::Page { .. } => {}
        }
    }

    /// A push was too large for something on its way. The writes are numbered anew after another
    /// hello, and go in smaller pushes. A single write that is too large waits and is tried again:
    /// whatever has said so, it was no verdict.
    fn push_less(&mut self, edit: &mut Edit<'_>, text: String) -> Result<(), StepError> {
        let sent = self.outbox.in_flight();
        let first = self.outbox.sent(0).map(|(write, _)| write);
        let error = ErrorMessage::new(ErrorCode::PayloadTooLarge, text.clone());
        match first {
            Some(_) if !self.outbox.is_one_in_flight() => self.fallback.limit_pushes(sent / 2),
            Some(write) => {
                let entry = edit.entry(write)?;
                edit.error(text);
                self.postpone(edit, write, &entry, &error);
            }
            None => {}
        }
        self.outbox.lose_connection();
        if let Some(exchange) = &mut self.exchange {
            exchange.hello = HelloState::Needed;
        }
        Ok(())
    }
}

/// Returns `true` if a refusal of a hello says neither that the server has no level 2 nor that it has:
/// plain servers answer so to a path that they don't know, and whatever is out of order.
fn is_unclear(status: u16, told: Option<&ErrorMessage>) -> bool {
    match status {
        403 => !told.is_some_and(speaks_of_access),
        400 | 401 | 404..=407 | 409 | 415 | 422 | 429 | 501 => false,
        status => status >= 400,
    }
}

/// Returns `true` if a body is a JSON object that says its type, as every message does.
fn is_message(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{") && body.windows(6).any(|part| part == b"\"type\"")
}
