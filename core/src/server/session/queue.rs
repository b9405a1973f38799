//! What a client says, served in its order.

use core::time::Duration;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Action, Link, Session, TransactTicket, Transacting, Turn};
use crate::protocol::message::{
    ClientMessage, Cursor, ErrorCode, ErrorMessage, Hello, Mutation, Resume, ServerMessage,
};
use crate::protocol::name::{Collection, MutationNumber, RecordId, Seq};
use crate::protocol::wire::{Incoming, WireError, decode_client};
use crate::rules::policy::Access;
use crate::rules::transaction::{Run, Transaction};

/// How many pings may wait for the streams, or `sync`s for their read, before what is behind them
/// waits too.
const WAITING: usize = 16;

/// What was received and not served yet. Everything is served in its order: a `subscribe` after
/// the verdicts of the writes before it, a write after the `subscribe` before it.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<(Request, usize)>,
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Request {
    Hello(Hello),
    Ping,
    Subscribe {
        collection: Collection,
        cursor: Option<Cursor>,
        resume: Option<Resume>,
    },
    Unsubscribe(Collection),
    Sync(Collection),
    Write(Mutation),
    /// A numbered write that could not be taken.
    Refused(MutationNumber, ErrorMessage),
}

/// A ping whose pong waits until the streams have passed what was committed before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Barrier {
    /// What has to be passed.
    targets: Vec<(Collection, Seq)>,
    /// Verdicts below this number have to be out.
    below: MutationNumber,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn push(&mut self, request: Request, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((request, bytes));
    }

    fn front(&self) -> Option<&Request> {
        self.items.front().map(|(request, _)| request)
    }

    fn pop(&mut self) -> Option<Request> {
        let (request, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        if self.items.is_empty() {
            // an idle connection holds no buffer
            self.items = VecDeque::new();
        }
        Some(request)
    }

    pub(super) fn check(&self) {
        let bytes: usize = self.items.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(bytes, self.bytes, "the queue's bytes");
    }
}

impl Session {
    pub(super) fn frame(&mut self, frame: &[u8], turn: &mut Turn<'_, '_>) {
        if self.closed {
            return;
        }
        self.heard = self.mono;
        self.counters.frames_in += 1;
        let max = self.config.limits.frame_bytes;
        if frame.len() > max {
            let message =
                alloc::format!("the frame has {} bytes, at most {max} are read", frame.len());
            self.error(ErrorCode::PayloadTooLarge, message, turn);
            self.close(1009, "the frame is too large", turn);
            return;
        }
        match decode_client(frame, &self.config.limits) {
            Ok(Incoming::One(message)) => self.message(message, frame.len(), turn),
            Ok(Incoming::Batch(_)) if !self.expects_batches() => {
                self.error(
                    ErrorCode::InvalidMessage,
                    "a batch needs level 2: say hello first",
                    turn,
                );
                self.count_bad(turn);
            }
            Ok(Incoming::Batch(messages)) => {
                let share = frame.len() / messages.len().max(1);
                for message in messages {
                    match message {
                        Ok(message) => self.message(message, share, turn),
                        Err(error) => self.misread(error, turn),
                    }
                }
            }
            Err(error) => self.misread(error, turn),
        }
        self.advance(turn);
    }

    fn expects_batches(&self) -> bool {
        matches!(self.link, Link::Resumable { .. } | Link::Greeting { .. })
    }

    /// A message that makes no sense. One that would have been a numbered write keeps its place
    /// among the verdicts.
    fn misread(&mut self, error: WireError, turn: &mut Turn<'_, '_>) {
        match error.mutation.filter(|_| self.expects_batches()) {
            Some(number) => self.queue.push(Request::Refused(number, error.into()), 0),
            None => {
                let error = ErrorMessage { mutation: None, ..error.into() };
                self.say(&ServerMessage::Error(error), turn);
            }
        }
        self.count_bad(turn);
    }

    pub(super) fn count_bad(&mut self, turn: &mut Turn<'_, '_>) {
        self.counters.bad_messages += 1;
        self.bad_in_a_row += 1;
        if self.bad_in_a_row >= self.config.bad_frames {
            self.close(1008, "too many bad frames in a row", turn);
        }
    }

    fn message(&mut self, message: ClientMessage, bytes: usize, turn: &mut Turn<'_, '_>) {
        if self.closed {
            return;
        }
        if let ClientMessage::Auth { token } = message {
            self.auth(token, turn);
            return;
        }
        if self.auth.refuses() {
            self.error(ErrorCode::AuthFailed, "send an `auth` message with a token first", turn);
            self.count_bad(turn);
            return;
        }
        self.bad_in_a_row = 0;
        let wait = match &message {
            ClientMessage::Ping { .. } | ClientMessage::Auth { .. } => None,
            ClientMessage::Subscribe { .. }
            | ClientMessage::Unsubscribe { .. }
            | ClientMessage::Sync { .. }
            | ClientMessage::Write(_) => self.take_tokens(turn),
        };
        if let Some(wait) = wait {
            self.slow_down(message, wait, turn);
            return;
        }
        let request = match message {
            ClientMessage::Subscribe { collection, filtered: true, .. } => {
                let message = "filters are not supported yet: subscribe to the whole collection";
                self.refuse(&collection, ErrorCode::InvalidMessage, message, turn);
                return;
            }
            ClientMessage::Subscribe { collection, cursor, resume, filtered: false } => {
                Request::Subscribe { collection, cursor, resume }
            }
            ClientMessage::Unsubscribe { collection } => Request::Unsubscribe(collection),
            ClientMessage::Sync { collection } => Request::Sync(collection),
            ClientMessage::Write(mutation) => Request::Write(mutation),
            ClientMessage::Ping { hello: Some(hello) } => Request::Hello(hello),
            ClientMessage::Ping { hello: None } => Request::Ping,
            ClientMessage::Auth { .. } => return,
        };
        self.queue.push(request, bytes);
    }

    /// How long to wait, if the connection or its user has used up its rate.
    fn take_tokens(&mut self, turn: &mut Turn<'_, '_>) -> Option<Duration> {
        let own = self.bucket.as_mut().and_then(|bucket| bucket.take(self.mono).err());
        own.or_else(|| turn.lent.user_bucket.as_mut()?.take(self.mono).err())
    }

    fn slow_down(&mut self, message: ClientMessage, wait: Duration, turn: &mut Turn<'_, '_>) {
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
            ClientMessage::Subscribe { collection, .. }
            | ClientMessage::Unsubscribe { collection }
            | ClientMessage::Sync { collection } => error.collection = Some(collection),
            ClientMessage::Auth { .. } | ClientMessage::Ping { .. } => {}
        }
        match error.mutation {
            Some(number) if self.expects_batches() => {
                self.queue.push(Request::Refused(number, error), 0);
            }
            Some(_) | None => self.say(&ServerMessage::Error(error), turn),
        }
    }

    /// Serves what can be served. A transaction that is under way holds everything up.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_, '_>) {
        while self.is_serving() {
            let subscribes = matches!(self.queue.front(), Some(Request::Subscribe { .. }));
            if self.transacting.is_some() && !(subscribes && self.is_hasty()) {
                return;
            }
            match self.queue.front() {
                None => return,
                Some(Request::Write(_)) if self.read_comes_first() => return,
                Some(Request::Write(_)) => self.serve_writes(turn),
                Some(Request::Ping) if self.barriers.len() >= WAITING => return,
                Some(Request::Sync(_)) if self.wanted.len() >= WAITING => return,
                Some(_) => {
                    if let Some(request) = self.queue.pop() {
                        self.serve(request, turn);
                    }
                }
            }
        }
    }

    fn serve(&mut self, request: Request, turn: &mut Turn<'_, '_>) {
        match request {
            Request::Hello(hello) => self.serve_hello(hello, turn),
            Request::Ping => self.serve_ping(turn),
            Request::Subscribe { collection, cursor, resume } => {
                self.settle_level();
                self.serve_subscribe(collection, cursor, resume, turn);
            }
            Request::Unsubscribe(collection) => self.serve_unsubscribe(collection, turn),
            Request::Sync(collection) => {
                self.settle_level();
                self.serve_sync(collection, turn);
            }
            Request::Refused(number, error) => self.refuse_write(number, error, turn),
            Request::Write(_) => {}
        }
    }

    /// Who asks for something before a hello speaks level 1.
    fn settle_level(&mut self) {
        if self.link == Link::Undecided {
            self.link = Link::Plain;
        }
    }

    fn serve_hello(&mut self, hello: Hello, turn: &mut Turn<'_, '_>) {
        if self.link != Link::Undecided {
            let message = "a hello must be the first message, and the only one";
            self.error(ErrorCode::InvalidMessage, message, turn);
            self.count_bad(turn);
            return;
        }
        let Hello { client_id: client, session } = hello;
        let user = self.auth.user().cloned();
        self.link = Link::Greeting { client: client.clone(), session };
        let hello = Transaction::Hello { client, user, session };
        self.transact(hello, Vec::new(), MutationNumber(0), turn);
    }

    fn serve_ping(&mut self, turn: &mut Turn<'_, '_>) {
        if !matches!(self.link, Link::Resumable { .. }) {
            self.pong(turn);
            return;
        }
        let rings = turn.lent.rings;
        let head = |collection: &Collection| (collection.clone(), rings.head(collection));
        let targets = self.subscriptions.keys().map(head).collect();
        self.barriers.push_back(Barrier { targets, below: self.verdicts.received_below() });
        self.lift_barriers(turn);
    }

    fn pong(&mut self, turn: &mut Turn<'_, '_>) {
        let timestamp = Some(turn.now.wall);
        self.say(&ServerMessage::Pong { timestamp, welcome: None }, turn);
    }

    /// Answers the pings whose time has come.
    pub(super) fn lift_barriers(&mut self, turn: &mut Turn<'_, '_>) {
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
            self.pong(turn);
        }
        self.barriers = VecDeque::new();
    }

    fn serve_unsubscribe(&mut self, collection: Collection, turn: &mut Turn<'_, '_>) {
        self.unsubscribe(&collection, turn);
        self.say(&ServerMessage::Unsubscribed { collection }, turn);
        self.lift_barriers(turn);
    }

    fn serve_sync(&mut self, collection: Collection, turn: &mut Turn<'_, '_>) {
        if matches!(self.link, Link::Resumable { .. }) {
            let message = "`sync` is for level 1: subscribe without a cursor instead";
            self.refuse(&collection, ErrorCode::InvalidMessage, message, turn);
        } else if turn.lent.policy.read(self.auth.user(), &collection) == Access::None {
            let message = "this user may not read the collection";
            self.refuse(&collection, ErrorCode::Unauthorized, message, turn);
        } else {
            self.wanted.push_back(collection);
        }
    }

    /// Puts the writes at the front of the queue into one transaction.
    fn serve_writes(&mut self, turn: &mut Turn<'_, '_>) {
        self.settle_level();
        let first = self.verdicts.expected();
        let mut mutations = Vec::new();
        while mutations.len() < self.config.run
            && let Some(Request::Write(mutation)) = self.queue.front()
        {
            let taken = |number| first <= number && number < self.verdicts.expected();
            match self.admit(mutation.number) {
                // a number that comes twice: the first of them gets its verdict first
                Admission::Take if mutation.number.is_some_and(taken) => break,
                Admission::Take => {
                    let Some(Request::Write(mutation)) = self.queue.pop() else { break };
                    self.verdicts.take(mutation.number);
                    mutations.push(mutation);
                }
                Admission::Ignore => {
                    self.queue.pop();
                    self.counters.ignored_writes += 1;
                }
                Admission::Refuse(why) if mutations.is_empty() => {
                    let error = ErrorMessage {
                        collection: Some(mutation.collection.clone()),
                        record_id: Some(mutation.record_id.clone()),
                        mutation: mutation.number,
                        ..ErrorMessage::new(ErrorCode::InvalidMessage, why)
                    };
                    self.queue.pop();
                    self.say(&ServerMessage::Error(error), turn);
                    self.count_bad(turn);
                    return;
                }
                Admission::OutOfOrder if mutations.is_empty() => {
                    self.out_of_order(mutation.number, turn);
                    return;
                }
                // what was taken so far gets its verdicts first
                Admission::Refuse(_) | Admission::OutOfOrder => break,
            }
        }
        if !mutations.is_empty() {
            self.run(mutations, first, turn);
        }
    }

    fn run(&mut self, mutations: Vec<Mutation>, first: MutationNumber, turn: &mut Turn<'_, '_>) {
        let client = match &self.link {
            Link::Resumable { client, session } => Some((client.clone(), *session)),
            Link::Undecided | Link::Plain | Link::Greeting { .. } => None,
        };
        let name = |m: &Mutation| (m.collection.clone(), m.record_id.clone(), m.number);
        let writes = mutations.iter().map(name).collect();
        let run = Run {
            client,
            user: self.auth.user().cloned(),
            conn: Some(self.conn),
            mutations,
            window: self.verdicts.window().clone(),
        };
        self.transact(Transaction::Writes(run), writes, first, turn);
    }

    fn transact(
        &mut self,
        transaction: Transaction,
        writes: Vec<(Collection, RecordId, Option<MutationNumber>)>,
        first: MutationNumber,
        turn: &mut Turn<'_, '_>,
    ) {
        let (conn, generation) = (self.conn, self.next_generation());
        self.transacting = Some(Transacting { generation, writes, first });
        turn.out.push(Action::Transact(TransactTicket { conn, generation, transaction }));
    }

    fn admit(&self, number: Option<MutationNumber>) -> Admission {
        match (&self.link, number) {
            (Link::Resumable { .. }, Some(number)) => self.verdicts.admit(number),
            (Link::Undecided | Link::Plain | Link::Greeting { .. }, Some(_)) => {
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
        turn: &mut Turn<'_, '_>,
    ) {
        match self.admit(Some(number)) {
            Admission::Take if number == self.verdicts.expected() => {
                self.verdicts.fail(number, Seq(0), error);
                self.release(turn);
            }
            // it was applied long ago, so nothing may say that it was not
            Admission::Take => {
                let error = ErrorMessage { mutation: None, ..error };
                self.say(&ServerMessage::Error(error), turn);
            }
            Admission::Ignore => self.counters.ignored_writes += 1,
            Admission::Refuse(_) => self.say(&ServerMessage::Error(error), turn),
            Admission::OutOfOrder => self.out_of_order(Some(number), turn),
        }
    }

    pub(super) fn out_of_order(&mut self, number: Option<MutationNumber>, turn: &mut Turn<'_, '_>) {
        let expected = self.verdicts.expected();
        let message = match number {
            Some(number) => alloc::format!("write {number} came where {expected} was next"),
            None => String::from("a write came out of order"),
        };
        let error =
            ErrorMessage { mutation: number, ..ErrorMessage::new(ErrorCode::OutOfOrder, message) };
        self.say(&ServerMessage::Error(error), turn);
        self.close(1008, "a write came out of order", turn);
    }
}

/// What happens to a write that has come to the front of the queue.
pub(super) enum Admission {
    /// It goes into the next transaction.
    Take,
    /// It was pipelined behind one that failed.
    Ignore,
    /// It can't be served.
    Refuse(&'static str),
    /// It is above the next number.
    OutOfOrder,
}
