//! The requests of a client, served in their order.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::queue::{Barrier, QueuedRequest};
use super::verdicts::Admission;
use super::{Handshake, InputContext, PendingTransaction, Session, SessionAction, Ticket};
use crate::protocol::message::{ErrorCode, ErrorMessage, Hello, ServerMessage};
use crate::protocol::name::{Collection, MutationNumber, RecordId, Seq};
use crate::protocol::unit::Submission;
use crate::rules::policy::Access;
use crate::rules::transaction::{Run, Transaction};
use crate::server::sets::{Filter, Place};

/// The number of pings that may wait for the streams, or of `sync`s for their read, before the
/// requests behind them wait too.
const WAITING: usize = 16;

impl Session {
    /// Serves what can be served. A transaction that is under way holds everything up.
    pub(super) fn advance(&mut self, cx: &mut InputContext<'_, '_>) {
        while self.is_serving() {
            if self.pending_transaction.is_some() {
                return;
            }
            match self.queue.front() {
                None => return,
                Some(QueuedRequest::Write(_)) if self.read_comes_first() => return,
                Some(QueuedRequest::Write(_)) => self.serve_writes(cx),
                Some(QueuedRequest::Ping) if self.barriers.len() >= WAITING => return,
                Some(QueuedRequest::Sync(..)) if self.wanted.len() >= WAITING => return,
                Some(_) => {
                    if let Some(request) = self.queue.pop() {
                        self.serve(request, cx);
                    }
                }
            }
        }
    }

    fn serve(&mut self, request: QueuedRequest, cx: &mut InputContext<'_, '_>) {
        match request {
            QueuedRequest::Hello(hello) => self.serve_hello(hello, cx),
            QueuedRequest::Ping => self.serve_ping(cx),
            QueuedRequest::Subscribe {
                collection,
                cursor,
                resume,
                rights,
                set: (number, Some(set)),
                page_bytes,
                filter: _,
            } => {
                let place = Place { cursor, resume, rights };
                self.serve_set(collection, place, (number, set), page_bytes, cx);
            }
            QueuedRequest::Subscribe {
                collection,
                cursor,
                resume,
                rights,
                filter,
                set,
                page_bytes,
            } => {
                self.settle_level();
                let place = Place { cursor, resume, rights };
                self.serve_subscribe(collection, place, (filter, set.0), page_bytes, cx);
            }
            QueuedRequest::Unsubscribe(collection) => self.serve_unsubscribe(collection, cx),
            QueuedRequest::Sync(collection, filter) => {
                self.settle_level();
                self.serve_sync(collection, filter, cx);
            }
            QueuedRequest::Refused(number, error) => self.refuse_write(number, error, cx),
            QueuedRequest::Write(_) => {}
        }
    }

    /// Settles on level 1: the client asks for something and has not said hello.
    fn settle_level(&mut self) {
        if self.handshake == Handshake::Undecided {
            self.handshake = Handshake::Plain;
        }
    }

    fn serve_hello(&mut self, hello: Hello, cx: &mut InputContext<'_, '_>) {
        if self.handshake != Handshake::Undecided {
            let message = "a hello must be the first message, and the only one";
            self.error(ErrorCode::InvalidMessage, message, cx);
            self.count_bad(cx);
            return;
        }
        let Hello { client_id: client, session } = hello;
        let user = self.auth.user().cloned();
        self.handshake = Handshake::Opening { client: client.clone(), session };
        let hello = Transaction::Hello { client, user, session };
        self.transact(hello, Vec::new(), MutationNumber(0), cx);
    }

    fn serve_ping(&mut self, cx: &mut InputContext<'_, '_>) {
        if !matches!(self.handshake, Handshake::Resumable { .. }) {
            self.pong(cx);
            return;
        }
        let rings = cx.env.rings;
        let head = |collection: &Collection| (collection.clone(), rings.head(collection));
        let targets = self.subscriptions.keys().map(head).collect();
        self.barriers.push_back(Barrier { targets, below: self.verdicts.received_below() });
        self.lift_barriers(cx);
    }

    fn pong(&mut self, cx: &mut InputContext<'_, '_>) {
        let timestamp = Some(cx.now.wall);
        self.send_message(&ServerMessage::Pong { timestamp, welcome: None }, cx);
    }

    /// Answers the pings whose time has come.
    pub(super) fn lift_barriers(&mut self, cx: &mut InputContext<'_, '_>) {
        if !self.barriers.is_empty() {
            self.pass_others(cx.env.rings);
        }
        while let Some(barrier) = self.barriers.front() {
            let passed = |(collection, seq): &(Collection, Seq)| {
                self.subscriptions
                    .get(collection)
                    .is_none_or(|subscription| subscription.live_at().is_some_and(|at| at >= *seq))
            };
            if self.verdicts.any_below(barrier.below) || !barrier.targets.iter().all(passed) {
                return;
            }
            self.barriers.pop_front();
            self.pong(cx);
        }
        self.barriers = VecDeque::new();
    }

    fn serve_unsubscribe(&mut self, collection: Collection, cx: &mut InputContext<'_, '_>) {
        self.unsubscribe(&collection, cx);
        self.send_message(&ServerMessage::Unsubscribed { collection, scopes: Vec::new() }, cx);
        self.lift_barriers(cx);
    }

    fn serve_sync(
        &mut self,
        collection: Collection,
        filter: Option<Filter>,
        cx: &mut InputContext<'_, '_>,
    ) {
        if matches!(self.handshake, Handshake::Resumable { .. }) {
            let message = "`sync` is for level 1: subscribe without a cursor instead";
            self.refuse(&collection, ErrorCode::InvalidMessage, message, cx);
        } else if self.access(&collection, filter.as_ref(), cx) == Access::None {
            let message = "this user may not read the collection";
            self.refuse(&collection, ErrorCode::Unauthorized, message, cx);
        } else {
            self.wanted.push_back((collection, filter));
        }
    }

    /// Puts the writes at the front of the queue into one transaction.
    fn serve_writes(&mut self, cx: &mut InputContext<'_, '_>) {
        self.settle_level();
        let first = self.verdicts.expected();
        let (mut writes, mut count) = (Vec::new(), 0);
        let most = cx.env.run.map_or(self.limits.run, |run| run.max(1).min(self.limits.run));
        while count < most
            && let Some(QueuedRequest::Write(submission)) = self.queue.front()
        {
            let (number, size) = (submission.first(), submission.size());
            if count > 0 && count + size > most {
                break;
            }
            let taken = |number| first <= number && number < self.verdicts.expected();
            match self.admit(number) {
                // a number that comes twice: the first of them gets its verdict first
                Admission::Take if number.is_some_and(taken) => break,
                Admission::Take => {
                    let Some(QueuedRequest::Write(submission)) = self.queue.pop() else { break };
                    self.verdicts.take(number, size);
                    count += size;
                    writes.push(submission);
                }
                Admission::Ignore => {
                    self.queue.pop();
                    self.counters.ignored_writes += size as u64;
                }
                Admission::Refuse(why) if writes.is_empty() => {
                    let error = match submission {
                        Submission::One(mutation) => ErrorMessage {
                            collection: Some(mutation.collection.clone()),
                            record_id: Some(mutation.record_id.clone()),
                            mutation: number,
                            ..ErrorMessage::new(ErrorCode::InvalidMessage, why)
                        },
                        Submission::Unit(_) => ErrorMessage {
                            mutation: number,
                            ..ErrorMessage::new(ErrorCode::InvalidMessage, why)
                        },
                    };
                    self.queue.pop();
                    self.send_message(&ServerMessage::Error(error), cx);
                    self.count_bad(cx);
                    return;
                }
                Admission::OutOfOrder if writes.is_empty() => {
                    self.out_of_order(number, cx);
                    return;
                }
                // what was taken so far gets its verdicts first
                Admission::Refuse(_) | Admission::OutOfOrder => break,
            }
        }
        if !writes.is_empty() {
            self.run(writes, first, cx);
        }
    }

    fn run(
        &mut self,
        writes: Vec<Submission>,
        first: MutationNumber,
        cx: &mut InputContext<'_, '_>,
    ) {
        let client = match &self.handshake {
            Handshake::Resumable { client, session } => Some((client.clone(), *session)),
            Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. } => None,
        };
        let mut named = Vec::with_capacity(writes.len());
        for submission in &writes {
            match submission {
                Submission::One(m) => {
                    named.push((m.collection.clone(), m.record_id.clone(), m.number));
                }
                Submission::Unit(unit) => named.extend(
                    unit.members
                        .iter()
                        .map(|m| (m.collection().clone(), m.record_id().clone(), m.number())),
                ),
            }
        }
        let run = Run {
            client,
            user: self.auth.identified().cloned(),
            conn: Some(self.conn),
            writes,
            window: self.verdicts.window().clone(),
        };
        self.transact(Transaction::Writes(run), named, first, cx);
    }

    fn transact(
        &mut self,
        transaction: Transaction,
        writes: Vec<(Collection, RecordId, Option<MutationNumber>)>,
        first: MutationNumber,
        cx: &mut InputContext<'_, '_>,
    ) {
        let (conn, generation) = (self.conn, self.next_generation());
        let published = cx.env.rings.published();
        self.pending_transaction =
            Some(PendingTransaction { generation, writes, first, published, outdated: false });
        cx.out.push(SessionAction::Transact(Ticket { conn, generation, question: transaction }));
    }

    fn admit(&self, number: Option<MutationNumber>) -> Admission {
        match (&self.handshake, number) {
            (Handshake::Resumable { .. }, Some(number)) => self.verdicts.admit(number),
            (Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. }, Some(_)) => {
                Admission::Refuse("a numbered write needs level 2: say hello first")
            }
            (_, None) => Admission::Take,
        }
    }

    /// A numbered write that was not even looked at.
    fn refuse_write(
        &mut self,
        number: MutationNumber,
        error: ErrorMessage,
        cx: &mut InputContext<'_, '_>,
    ) {
        match self.admit(Some(number)) {
            Admission::Take if number == self.verdicts.expected() => {
                self.verdicts.fail(number, Seq(0), error);
                self.release(cx);
            }
            // it was applied long ago, so nothing may say that it was not
            Admission::Take => {
                let error = ErrorMessage { mutation: None, ..error };
                self.send_message(&ServerMessage::Error(error), cx);
            }
            Admission::Ignore => self.counters.ignored_writes += 1,
            Admission::Refuse(_) => self.send_message(&ServerMessage::Error(error), cx),
            Admission::OutOfOrder => self.out_of_order(Some(number), cx),
        }
    }

    pub(super) fn out_of_order(
        &mut self,
        number: Option<MutationNumber>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let expected = self.verdicts.expected();
        let message = match number {
            Some(number) => alloc::format!("write {number} came where {expected} was next"),
            None => String::from("a write came out of order"),
        };
        let error =
            ErrorMessage { mutation: number, ..ErrorMessage::new(ErrorCode::OutOfOrder, message) };
        self.send_message(&ServerMessage::Error(error), cx);
        self.close(1008, "a write came out of order", cx);
    }
}
