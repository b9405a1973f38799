//! One connection, as the server sees it.
//!
//! A [`Session`] owns its connection's identity, subscriptions, write window and limits, and
//! shares no mutable state with others. Besides the rules of all machines its adapter keeps these:
//!
//! 1. After every input it calls [`pump`](super::pump()) with the socket's room, and again whenever
//!    the ring of a followed collection moved or the socket has room again.
//! 2. It hands frames in only while [`Session::wants_frames`] says so and what waits for the
//!    socket is bounded.
//! 3. It answers every ticket once: transactions by way of a
//!    [`Committer`](super::committer::Committer), which publishes their changes first.
//! 4. [`Action::Close`] is the last action. It ends everything that the connection follows.

mod auth;
mod queue;
mod stream;
mod ticket;
mod verdict;

use core::hash::{Hash, Hasher};
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::ring::Rings;
use crate::protocol::limits::Limits;
use crate::protocol::message::{ErrorCode, ErrorMessage, Level, ServerMessage};
use crate::protocol::name::{
    ClientId, Collection, ConnId, MutationNumber, RecordId, SessionNumber, UserId,
};
use crate::protocol::time::{Mono, Now};
use crate::rules::page::PageLimits;
use crate::rules::policy::{Bucket, Policy, Rate};

use auth::Auth;
use queue::{Barrier, Queue};
use stream::{Reading, Subscription};
use verdict::Verdicts;

pub use ticket::{AuthAnswer, AuthTicket, ReadReport, ReadTicket, TransactReport, TransactTicket};

/// What the sessions of a server have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionConfig {
    /// The bounds on what is read.
    pub limits: Limits,
    /// How long a connection may be silent. Default 60 s.
    pub silence: Duration,
    /// How long a connection may take to say who it is. Default 10 s.
    pub auth_patience: Duration,
    /// How many bad frames in a row close the connection. Default 20.
    pub bad_frames: u32,
    /// The most subscriptions of one connection. Each takes less than 1 KiB of memory. Default 4,096.
    pub subscriptions: usize,
    /// The most messages that wait to be served, or for their verdict, before the session wants no
    /// more frames. Default 1,024.
    pub queued: usize,
    /// About the most bytes that wait to be served. Default 4 MiB.
    pub queued_bytes: usize,
    /// The most writes in one transaction. Default 256.
    pub run: usize,
    /// How many of its own last seqs a connection remembers. Default 512.
    pub window: usize,
    /// How much one page of a catch-up holds.
    pub page: PageLimits,
    /// The most bytes of a collection that is sent in one level-1 `sync`. Default 4 MiB.
    pub sync_bytes: usize,
    /// The longest `batch` that clients are told to send, in bytes. Default 256 KiB.
    pub max_batch_bytes: u64,
    /// How many messages a connection may send. Default: any number.
    pub rate: Option<Rate>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            silence: Duration::from_secs(60),
            auth_patience: Duration::from_secs(10),
            bad_frames: 20,
            subscriptions: 4_096,
            queued: 1024,
            queued_bytes: 4 << 20,
            run: 256,
            window: 512,
            page: PageLimits::default(),
            sync_bytes: 4 << 20,
            max_batch_bytes: 256 << 10,
            rate: None,
        }
    }
}

/// What is known of who connects, when the connection begins.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// The server knows no users: everyone is in.
    Open,
    /// The token in the URL or the header was good.
    Known(UserId),
    /// There was no token: it has to come as the first message.
    Unknown,
}

/// What the world says to a session.
#[derive(PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// A text frame came.
    Frame(&'a [u8]),
    /// A WebSocket ping or pong came: a sign of life.
    Ping,
    /// The answer to an [`AuthTicket`].
    Authenticated(AuthAnswer),
    /// The token of this connection has expired.
    AuthExpired,
    /// The answer to a [`TransactTicket`].
    Transacted(TransactReport),
    /// The answer to a [`ReadTicket`].
    Read(ReadReport),
    /// The socket has room for about this many bytes.
    Pump {
        /// How many bytes.
        room: usize,
    },
    /// The deadline has come.
    Timeout,
    /// The server ends.
    Shutdown,
    /// The connection is gone.
    Closed,
}

/// What a session wants from the world.
#[derive(PartialEq, Eq, Debug)]
pub enum Action {
    /// Send one text frame.
    Send(Bytes),
    /// Send what was said, then close the connection.
    Close {
        /// The WebSocket status code.
        code: u16,
        /// The reason, for people.
        reason: &'static str,
    },
    /// Find out whose token this is.
    Authenticate(AuthTicket),
    /// Decide and commit a transaction.
    Transact(TransactTicket),
    /// Read a page.
    Read(ReadTicket),
    /// Pump this session whenever the ring of a collection moves.
    Follow(Collection),
    /// No longer.
    Unfollow(Collection),
}

/// Where a session puts its actions.
pub type Actions = Vec<Action>;

/// What the caller lends for one input.
pub struct Lent<'a> {
    /// The recent changes.
    pub rings: &'a Rings,
    /// Who may do what.
    pub policy: &'a dyn Policy,
    /// What all connections of the session's user may send together; `None` for any number.
    pub user_bucket: Option<&'a mut Bucket>,
}

/// Why a session has a deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// The connection was silent for too long.
    Silence,
    /// The connection did not say who it is.
    Auth,
}

/// What can be seen of a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Status<'a> {
    /// The user, where one is known.
    pub user: Option<&'a UserId>,
    /// The level; `None` while the client has said neither.
    pub level: Option<Level>,
    /// The client and its session, at level 2.
    pub client: Option<(&'a ClientId, SessionNumber)>,
    /// How many subscriptions there are.
    pub subscriptions: usize,
    /// How many of them are live.
    pub live: usize,
    /// How many messages wait to be served.
    pub queued: usize,
    /// How many writes wait for their verdict to be sent.
    pub held: usize,
    /// Whether the connection is closed.
    pub closed: bool,
    /// What was counted.
    pub counters: Counters,
}

/// What a session counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Counters {
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
    /// Frames or messages that were not understood.
    pub bad_messages: u64,
    /// Answers that came late or to the wrong session.
    pub late_answers: u64,
    /// Writes that were ignored because one before them failed.
    pub ignored_writes: u64,
    /// How often a live collection had to be served from the store.
    pub fell_behind: u64,
}

/// One connection's machine.
#[derive(Clone, Hash, Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    conn: ConnId,
    mono: Mono,
    heard: Mono,
    closed: bool,
    auth: Auth,
    link: Link,
    queue: Queue,
    barriers: VecDeque<Barrier>,
    verdicts: Verdicts,
    subscriptions: BTreeMap<Collection, Subscription>,
    /// Level-1 requests for a whole collection.
    wanted: VecDeque<Collection>,
    transacting: Option<Transacting>,
    reading: Option<Reading>,
    /// Whether a wanted read comes before the next writes, so that both have their turn.
    reads_first: bool,
    bucket: Option<Bucket>,
    bad_in_a_row: u32,
    /// The number of the last ticket.
    generation: u64,
    /// Whose turn it is in the live streams.
    turn: usize,
    counters: Counters,
}

/// Which level the connection speaks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Link {
    /// Nothing was said that depends on it.
    Undecided,
    Plain,
    /// A hello waits for its answer.
    Greeting {
        client: ClientId,
        session: SessionNumber,
    },
    Resumable {
        client: ClientId,
        session: SessionNumber,
    },
}

/// The transaction that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Transacting {
    generation: u64,
    /// The writes in it, as (collection, record, number).
    writes: Vec<(Collection, RecordId, Option<MutationNumber>)>,
    /// The first number that was new.
    first: MutationNumber,
}

/// What one input may use.
struct Turn<'a, 'b> {
    now: Now,
    lent: &'a mut Lent<'b>,
    out: &'a mut Actions,
}

impl Session {
    /// A session of a connection that has just been accepted.
    #[must_use]
    pub fn new(config: Arc<SessionConfig>, conn: ConnId, identity: Identity, now: Now) -> Self {
        Self {
            auth: Auth::new(identity, now.mono + config.auth_patience),
            bucket: config.rate.map(|rate| Bucket::new(rate, now.mono)),
            config,
            conn,
            mono: now.mono,
            heard: now.mono,
            closed: false,
            link: Link::Undecided,
            queue: Queue::default(),
            barriers: VecDeque::new(),
            verdicts: Verdicts::default(),
            subscriptions: BTreeMap::new(),
            wanted: VecDeque::new(),
            transacting: None,
            reading: None,
            reads_first: false,
            bad_in_a_row: 0,
            generation: 0,
            turn: 0,
            counters: Counters::default(),
        }
    }

    /// Takes one input. Infallible: whatever is wrong with it becomes an action or is counted.
    pub fn handle(&mut self, now: Now, input: Input<'_>, lent: &mut Lent<'_>, out: &mut Actions) {
        self.mono = self.mono.max(now.mono);
        let turn = &mut Turn { now: Now { mono: self.mono, wall: now.wall }, lent, out };
        match input {
            Input::Frame(frame) => self.frame(frame, turn),
            Input::Ping => self.heard = self.mono,
            Input::Authenticated(answer) => self.authenticated(answer, turn),
            Input::AuthExpired => self.auth_expired(turn),
            Input::Transacted(report) => self.transacted(report, turn),
            Input::Read(report) => self.read(report, turn),
            Input::Pump { room } => self.pump(room, turn),
            Input::Timeout => self.timeout(turn),
            Input::Shutdown => self.close(1001, "the server is shutting down", turn),
            Input::Closed => self.end(),
        }
    }

    /// When to hand in [`Input::Timeout`], and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        if self.closed {
            return None;
        }
        let silence = (self.heard + self.config.silence, Timer::Silence);
        let auth = self.auth.deadline().map(|at| (at, Timer::Auth));
        Some(auth.map_or(silence, |auth| auth.min(silence)))
    }

    /// Whether frames may be handed in.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        let waiting = self.queue.len() + self.in_flight() + self.verdicts.len();
        !self.closed
            && waiting < self.config.queued
            && self.queue.bytes() < self.config.queued_bytes
    }

    /// Whether [`Input::Pump`] would do something.
    #[must_use]
    pub(crate) fn wants_pump(&self, rings: &Rings) -> bool {
        self.is_serving() && (self.wants_read() || self.is_behind(rings))
    }

    /// What can be seen from outside.
    #[must_use]
    pub fn status(&self) -> Status<'_> {
        let client = match &self.link {
            Link::Resumable { client, session } => Some((client, *session)),
            Link::Undecided | Link::Plain | Link::Greeting { .. } => None,
        };
        Status {
            user: self.auth.user(),
            level: match &self.link {
                Link::Undecided | Link::Greeting { .. } => None,
                Link::Plain => Some(Level::Plain),
                Link::Resumable { .. } => Some(Level::Resumable),
            },
            client,
            subscriptions: self.subscriptions.len(),
            live: self.subscriptions.values().filter(|s| s.live_at().is_some()).count(),
            queued: self.queue.len(),
            held: self.verdicts.len(),
            closed: self.closed,
            counters: self.counters,
        }
    }

    /// The connection's id.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// A hash of the whole state: equal runs have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Panics where an invariant is broken. For tests: cheap enough to call after every input.
    #[doc(hidden)]
    pub fn check(&self) {
        self.verdicts.check(&self.subscriptions);
        assert!(self.subscriptions.len() <= self.config.subscriptions, "subscriptions are bounded");
        assert!(
            self.reading.is_none() || self.transacting.is_none(),
            "a page and the acks of the writes that it shows must not cross"
        );
        if self.is_greeting() {
            assert!(self.transacting.is_some() || self.closed, "a hello waits for its answer");
        }
        self.queue.check();
    }

    /// Checks that nothing is left of what was only needed on the way. For tests: when nothing was
    /// said for a while and everything was answered.
    ///
    /// # Errors
    /// Says what is left.
    #[doc(hidden)]
    pub fn check_at_rest(&self) -> Result<(), &'static str> {
        let live = |subscription: &Subscription| subscription.live_at().is_some();
        let left = [
            (self.queue.len() > 0, "messages wait to be served"),
            (self.verdicts.len() > 0, "verdicts wait to be sent"),
            (!self.barriers.is_empty(), "pings wait for their pongs"),
            (!self.wanted.is_empty(), "somebody waits for a whole collection"),
            (self.transacting.is_some(), "a transaction is under way"),
            (self.reading.is_some(), "a page is being read"),
            (!self.subscriptions.values().all(live), "a subscription is not live"),
        ];
        left.iter().find(|(is_left, _)| *is_left).map_or(Ok(()), |(_, what)| Err(what))
    }

    fn timeout(&mut self, turn: &mut Turn<'_, '_>) {
        let Some((at, timer)) = self.deadline() else { return };
        if at > self.mono {
            return;
        }
        match timer {
            Timer::Silence => self.close(1001, "nothing was heard for too long", turn),
            Timer::Auth => self.close(1008, "no valid token came in time", turn),
        }
    }

    /// Whether requests are served and streams flow.
    fn is_serving(&self) -> bool {
        !self.closed && self.auth.is_in()
    }

    fn is_greeting(&self) -> bool {
        matches!(self.link, Link::Greeting { .. })
    }

    /// Whether subscriptions are served before the hello is durable.
    fn is_hasty(&self) -> bool {
        planted!(SubscribedBeforePong) && self.is_greeting()
    }

    fn level(&self) -> Level {
        match self.link {
            Link::Greeting { .. } if self.is_hasty() => Level::Resumable,
            Link::Undecided | Link::Plain | Link::Greeting { .. } => Level::Plain,
            Link::Resumable { .. } => Level::Resumable,
        }
    }

    fn in_flight(&self) -> usize {
        self.transacting.as_ref().map_or(0, |transacting| transacting.writes.len())
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn say(&mut self, message: &ServerMessage, turn: &mut Turn<'_, '_>) {
        let mut frame = Vec::new();
        message.encode(self.level(), &mut frame);
        self.send(frame.into(), turn);
    }

    fn send(&mut self, frame: Bytes, turn: &mut Turn<'_, '_>) {
        self.counters.frames_out += 1;
        self.counters.bytes_out += frame.len() as u64;
        turn.out.push(Action::Send(frame));
    }

    fn error(&mut self, code: ErrorCode, message: impl Into<String>, turn: &mut Turn<'_, '_>) {
        self.say(&ServerMessage::Error(ErrorMessage::new(code, message)), turn);
    }

    /// An error about a collection.
    fn refuse(
        &mut self,
        collection: &Collection,
        code: ErrorCode,
        message: impl Into<String>,
        turn: &mut Turn<'_, '_>,
    ) {
        let error = ErrorMessage {
            collection: Some(collection.clone()),
            ..ErrorMessage::new(code, message)
        };
        self.say(&ServerMessage::Error(error), turn);
    }

    fn close(&mut self, code: u16, reason: &'static str, turn: &mut Turn<'_, '_>) {
        if !self.closed {
            turn.out.push(Action::Close { code, reason });
            self.end();
        }
    }

    /// Forgets everything that the connection was about.
    fn end(&mut self) {
        self.closed = true;
        self.queue = Queue::default();
        self.barriers = VecDeque::new();
        self.verdicts = Verdicts::default();
        self.subscriptions = BTreeMap::new();
        self.wanted = VecDeque::new();
        self.transacting = None;
        self.reading = None;
    }
}

#[cfg(test)]
mod tests;
