//! The frames of a client, taken apart into requests.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::queue::QueuedRequest;
use super::{InputContext, Session, SessionAction, Ticket, TicketAnswer};
use crate::protocol::message::{ClientMessage, ErrorCode, ErrorMessage, ServerMessage, Token};
use crate::protocol::name::MutationNumber;
use crate::protocol::scopes::AskedScope;
use crate::protocol::unit::Submission;
use crate::protocol::wire::{Incoming, WireError, decode_client};
use crate::rules::policy::User;
use crate::server::sets::{AskedSet, Filter};

impl Session {
    pub(super) fn receive_frame(&mut self, frame: &[u8], cx: &mut InputContext<'_, '_>) {
        if self.closed {
            return;
        }
        self.last_heard = self.mono;
        self.counters.frames_in += 1;
        let max = self.limits.input.frame_bytes;
        if frame.len() > max {
            let message =
                alloc::format!("the frame has {} bytes, at most {max} are read", frame.len());
            self.error(ErrorCode::PayloadTooLarge, message, cx);
            self.close(1009, "the frame is too large", cx);
            return;
        }
        match decode_client(frame, &self.limits.input) {
            Ok(Incoming::One(message)) => self.receive_message(message, frame.len(), cx),
            Ok(Incoming::Batch(_)) if !self.expects_batches() => {
                self.error(ErrorCode::InvalidMessage, "a batch needs level 2: say hello first", cx);
                self.count_bad(cx);
            }
            Ok(Incoming::Batch(messages)) => {
                let share = frame.len() / messages.len().max(1);
                for message in messages {
                    if self.closed {
                        return;
                    }
                    match message {
                        Ok(message) => self.receive_message(message, share, cx),
                        Err(error) => self.refuse_unreadable(error, cx),
                    }
                }
            }
            Err(error) => self.refuse_unreadable(error, cx),
        }
        self.advance(cx);
    }

    /// A message that makes no sense. One that would have been a numbered write keeps its place
    /// among the verdicts.
    fn refuse_unreadable(&mut self, error: WireError, cx: &mut InputContext<'_, '_>) {
        match error.mutation.filter(|_| self.expects_batches()) {
            Some(number) => self.queue.push(QueuedRequest::Refused(number, error.into()), 0),
            None => {
                let error = ErrorMessage { mutation: None, ..error.into() };
                self.send_message(&ServerMessage::Error(error), cx);
            }
        }
        self.count_bad(cx);
    }

    pub(super) fn count_bad(&mut self, cx: &mut InputContext<'_, '_>) {
        self.counters.bad_messages += 1;
        self.bad_in_a_row += 1;
        if self.bad_in_a_row >= self.limits.bad_frames {
            self.close(1008, "too many bad frames in a row", cx);
        }
    }

    fn receive_message(
        &mut self,
        message: ClientMessage,
        bytes: usize,
        cx: &mut InputContext<'_, '_>,
    ) {
        if let ClientMessage::Auth { token } = message {
            self.auth(token, cx);
            return;
        }
        if self.auth.refuses() {
            self.error(ErrorCode::AuthFailed, "send an `auth` message with a token first", cx);
            self.count_bad(cx);
            return;
        }
        self.bad_in_a_row = 0;
        let wait = match &message {
            ClientMessage::Ping { .. } | ClientMessage::Auth { .. } => None,
            ClientMessage::Subscribe { .. }
            | ClientMessage::Unsubscribe { .. }
            | ClientMessage::Sync { .. } => self.take_tokens(1, cx),
            ClientMessage::Write(mutation) => self.take_for(mutation.number, 1, cx),
            ClientMessage::Unit(unit) => self.take_for(unit.first(), unit.members.len(), cx),
        };
        if let Some(wait) = wait {
            self.slow_down(message, wait, cx);
            return;
        }
        let request = match message {
            ClientMessage::Subscribe {
                collection,
                cursor,
                resume,
                rights,
                page_bytes,
                filter,
                set,
                scopes,
            } => {
                let wanted = self.filter(filter).and_then(|filter| Ok((filter, self.set(scopes)?)));
                match wanted {
                    Ok((filter, asked)) => QueuedRequest::Subscribe {
                        collection,
                        cursor,
                        resume,
                        rights,
                        filter,
                        set: (set, asked),
                        page_bytes,
                    },
                    Err(problem) => {
                        return self.refuse(&collection, ErrorCode::InvalidMessage, problem, cx);
                    }
                }
            }
            ClientMessage::Unsubscribe { collection } => QueuedRequest::Unsubscribe(collection),
            ClientMessage::Sync { collection, filter } => match self.filter(filter) {
                Ok(filter) => QueuedRequest::Sync(collection, filter),
                Err(problem) => {
                    return self.refuse(&collection, ErrorCode::InvalidMessage, problem, cx);
                }
            },
            ClientMessage::Write(mutation) => QueuedRequest::Write(mutation.into()),
            ClientMessage::Unit(unit) => QueuedRequest::Write(Submission::Unit(unit)),
            ClientMessage::Ping { hello: Some(hello) } => QueuedRequest::Hello(hello),
            ClientMessage::Ping { hello: None } => QueuedRequest::Ping,
            ClientMessage::Auth { .. } => return,
        };
        self.queue.push(request, bytes);
    }

    /// The scope that a filter names; `None` if there is none.
    fn filter(&self, filter: Vec<(String, String)>) -> Result<Option<Filter>, String> {
        if !filter.is_empty() && self.expects_batches() {
            return Err("`filter` is for level 1: subscribe without it".into());
        }
        Filter::read(filter)
    }

    /// The scopes of a set; `None` if there is none.
    fn set(&self, scopes: Vec<AskedScope>) -> Result<Option<AskedSet>, String> {
        if !scopes.is_empty() && !self.expects_batches() {
            return Err("`scopes` are for level 2: say hello first".into());
        }
        AskedSet::read(scopes)
    }

    /// Counts messages. Returns the time to wait if the connection or its user has used up its rate.
    fn take_tokens(&mut self, count: usize, cx: &mut InputContext<'_, '_>) -> Option<Duration> {
        let own = self.bucket.as_mut().and_then(|b| b.take_many(self.mono, count).err());
        own.or_else(|| cx.env.user_bucket.as_mut()?.take_many(self.mono, count).err())
    }

    /// The same for writes. What was pipelined behind a write that came too fast is too fast itself, and
    /// uses up nothing: it would take from a unit, again and again, what that waits for.
    fn take_for(
        &mut self,
        number: Option<MutationNumber>,
        count: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> Option<Duration> {
        match self.too_fast {
            Some((first, wait)) if number > Some(first) => return Some(wait),
            Some(_) | None => self.too_fast = None,
        }
        let wait = self.take_tokens(count, cx);
        self.too_fast = number.zip(wait);
        wait
    }

    fn slow_down(&mut self, message: ClientMessage, wait: Duration, cx: &mut InputContext<'_, '_>) {
        // the largest number that every JSON reader takes
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min((1 << 53) - 1);
        let mut error = ErrorMessage {
            retry_after_ms: Some(wait),
            ..ErrorMessage::new(ErrorCode::RateLimitExceeded, "too many messages: slow down")
        };
        match message {
            ClientMessage::Write(mutation) => {
                error.collection = Some(mutation.collection);
                error.record_id = Some(mutation.record_id);
                error.mutation = mutation.number;
            }
            ClientMessage::Unit(unit) => error.mutation = unit.first(),
            ClientMessage::Subscribe { collection, .. }
            | ClientMessage::Unsubscribe { collection }
            | ClientMessage::Sync { collection, .. } => error.collection = Some(collection),
            ClientMessage::Auth { .. } | ClientMessage::Ping { .. } => {}
        }
        match error.mutation {
            Some(number) if self.expects_batches() => {
                self.queue.push(QueuedRequest::Refused(number, error), 0);
            }
            Some(_) | None => self.send_message(&ServerMessage::Error(error), cx),
        }
    }

    pub(super) fn auth(&mut self, token: Token, cx: &mut InputContext<'_, '_>) {
        if self.auth.is_open() {
            self.send_message(&ServerMessage::Authenticated { user_id: None }, cx);
            return;
        }
        let (conn, generation) = (self.conn, self.next_generation());
        self.auth.begin_check(generation);
        cx.out.push(SessionAction::Authenticate(Ticket { conn, generation, question: token }));
    }

    pub(super) fn authenticated(
        &mut self,
        report: TicketAnswer<Option<User>>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let expected = self.conn == report.conn && !self.closed;
        if !expected || !self.auth.end_check(report.generation) {
            self.counters.late_answers += 1;
            return;
        }
        match report.answer {
            Some(user) if self.auth.admit(&user) => {
                self.send_message(&ServerMessage::Authenticated { user_id: Some(user.id) }, cx);
                self.recheck_rights(cx);
                self.release(cx);
                self.advance(cx);
            }
            Some(_) => {
                let message = "the token belongs to another user: open another connection";
                self.error(ErrorCode::AuthFailed, message, cx);
                self.close(1008, "the token belongs to another user", cx);
            }
            None => {
                if self.auth.is_needed() {
                    self.queue.clear();
                }
                self.error(ErrorCode::AuthFailed, "the token is wrong or has expired", cx);
                self.count_bad(cx);
            }
        }
    }

    /// A user with other claims than before has the rights that follow from them.
    pub(super) fn identified(&mut self, user: User, cx: &mut InputContext<'_, '_>) {
        if !self.closed && self.auth.take_claims(user) {
            self.rights_changed(cx);
        }
    }

    /// Nothing is served any more, and nothing forgotten, until a fresh token comes.
    pub(super) fn auth_expired(&mut self, cx: &mut InputContext<'_, '_>) {
        if !self.closed && self.auth.expire(self.mono + self.limits.auth_timeout) {
            self.error(ErrorCode::AuthExpired, "the token has expired: send a fresh one", cx);
        }
    }
}
