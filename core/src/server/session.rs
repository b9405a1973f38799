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
//! 4. [`SessionAction::Close`] is the last action. It ends everything that the connection follows.

mod answering;
mod auth;
mod interface;
mod looks;
mod queue;
mod reading;
mod receiving;
mod rights;
mod serving;
mod streaming;
mod subscription;
mod ticket;
mod units;
mod verdicts;

use core::hash::{Hash, Hasher};
use core::time::Duration;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::limits::ServerLimits;
use super::ring::Rings;
use crate::checked::Checked;
use crate::protocol::message::{ErrorCode, ErrorMessage, Level, ServerMessage};
use crate::protocol::name::{
    ClientId, Collection, ConnId, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use crate::protocol::time::{Mono, Now};
use crate::rules::policy::{Asker, Bucket};
use crate::server::checks::ensure;
use crate::server::sets::Filter;

use auth::Auth;
use queue::{Barrier, Queue};
use subscription::{PendingRead, PendingSync, Progress, Subscription};
use verdicts::{Reached, Verdicts};

pub use interface::{
    Environment, Identity, SessionAction, SessionCounters, SessionInput, SessionStatus,
    SessionTimer,
};
pub use ticket::{Ticket, TicketAnswer};

/// One connection's machine.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_core::{
///     AllowAll, ConnId, Environment, Identity, Now, RingLimits, Rings, ServerLimits, Session,
///     SessionAction, SessionInput,
/// };
///
/// let (now, mut out) = (Now::default(), Vec::new());
/// let limits = Arc::new(ServerLimits::default());
/// let mut session = Session::new(limits, ConnId(1), Identity::Open, now);
/// let rings = Rings::new(RingLimits::default());
/// let mut env =
///     Environment { rings: &rings, policy: &AllowAll, user_bucket: None, run: None, on_error: None };
/// session.handle(now, SessionInput::Frame(br#"{"type":"ping"}"#), &mut env, &mut out);
/// assert!(matches!(&out[..], [SessionAction::Send(frame)] if frame.starts_with(br#"{"type":"pong""#)));
/// ```
#[derive(Clone, Hash, Debug)]
pub struct Session {
    limits: Arc<ServerLimits>,
    conn: ConnId,
    mono: Mono,
    last_heard: Mono,
    closed: bool,
    auth: Auth,
    handshake: Handshake,
    queue: Queue,
    barriers: VecDeque<Barrier>,
    verdicts: Verdicts,
    subscriptions: BTreeMap<Collection, Subscription>,
    /// Level-1 requests for a whole collection, or a scope of it.
    wanted: VecDeque<(Collection, Option<Filter>)>,
    pending_transaction: Option<PendingTransaction>,
    pending_read: Option<PendingRead>,
    /// The `synced` behind the last page that was sent. Nothing is read or written meanwhile, which
    /// would contradict it.
    pending_sync: Option<PendingSync>,
    /// `true` if a unit was kept back because of a read.
    units_wait: bool,
    /// `true` if a wanted read comes before the next writes, so that both have their turn.
    reads_first: bool,
    bucket: Option<Bucket>,
    /// The write that came too fast, and the time to wait for it, until its number comes again.
    too_fast: Option<(MutationNumber, Duration)>,
    bad_in_a_row: u32,
    /// The number of the last ticket.
    generation: u64,
    /// The number of rounds through the streams, of which each begins with another one.
    round: usize,
    counters: SessionCounters,
}

/// The level that the connection speaks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Handshake {
    /// Nothing was said that depends on it.
    Undecided,
    Plain,
    /// A hello waits for its answer.
    Opening {
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
struct PendingTransaction {
    generation: u64,
    /// The writes in it, as (collection, record, number).
    writes: Vec<(Collection, RecordId, Option<MutationNumber>)>,
    /// The first number that was new.
    first: MutationNumber,
    /// It is decided by a view that has everything published up to this number.
    published: u64,
    /// `true` if the rights of the user have changed since.
    outdated: bool,
}

/// Everything that the handling of one input uses.
struct InputContext<'a, 'b> {
    now: Now,
    env: &'a mut Environment<'b>,
    out: &'a mut Vec<SessionAction>,
}

impl Session {
    /// A session of a connection that has just been accepted.
    #[must_use]
    pub fn new(limits: Arc<ServerLimits>, conn: ConnId, identity: Identity, now: Now) -> Self {
        Self {
            auth: Auth::new(identity, now.mono + limits.auth_timeout),
            bucket: limits.rate.map(|rate| Bucket::new(rate, now.mono)),
            too_fast: None,
            limits,
            conn,
            mono: now.mono,
            last_heard: now.mono,
            closed: false,
            handshake: Handshake::Undecided,
            queue: Queue::default(),
            barriers: VecDeque::new(),
            verdicts: Verdicts::default(),
            subscriptions: BTreeMap::new(),
            wanted: VecDeque::new(),
            pending_transaction: None,
            pending_read: None,
            pending_sync: None,
            units_wait: false,
            reads_first: false,
            bad_in_a_row: 0,
            generation: 0,
            round: 0,
            counters: SessionCounters::default(),
        }
    }

    /// Takes one input. Infallible: whatever is wrong with it becomes an action or is counted.
    pub fn handle(
        &mut self,
        now: Now,
        input: SessionInput<'_>,
        env: &mut Environment<'_>,
        out: &mut Vec<SessionAction>,
    ) {
        self.mono = self.mono.max(now.mono);
        let cx = &mut InputContext { now: Now { mono: self.mono, wall: now.wall }, env, out };
        self.follow_looks(cx);
        match input {
            SessionInput::Frame(frame) => self.receive_frame(frame, cx),
            SessionInput::Ping => self.last_heard = self.mono,
            SessionInput::Authenticated(answer) => self.authenticated(answer, cx),
            SessionInput::Identified(user) => self.identified(user, cx),
            SessionInput::AuthExpired => self.auth_expired(cx),
            SessionInput::RightsChanged => self.rights_changed(cx),
            SessionInput::Transacted(report) => self.transacted(report, cx),
            SessionInput::Read(report) => self.read(report, cx),
            SessionInput::Pump { room } => self.pump(room, cx),
            SessionInput::Timeout => self.timeout(cx),
            SessionInput::Shutdown => self.close(1001, "the server is shutting down", cx),
            SessionInput::Closed => self.end(),
        }
    }

    /// The time at which to hand in [`SessionInput::Timeout`], and the reason.
    #[must_use]
    pub fn deadline(&self) -> Option<(Mono, SessionTimer)> {
        if self.closed {
            return None;
        }
        let silence = (self.last_heard + self.limits.idle_timeout, SessionTimer::Silence);
        let auth = self.auth.deadline().map(|at| (at, SessionTimer::Auth));
        Some(auth.map_or(silence, |auth| auth.min(silence)))
    }

    /// Returns `true` if frames may be handed in.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        let waiting = self.queue.len() + self.in_flight() + self.verdicts.len();
        !self.closed
            && waiting < self.limits.queued
            && self.queue.bytes() < self.limits.queued_bytes
    }

    /// Returns `true` if [`SessionInput::Pump`] would do something.
    #[must_use]
    pub(crate) fn wants_pump(&self, rings: &Rings) -> bool {
        self.is_serving()
            && (self.wants_read()
                || self.is_behind(rings)
                || self.can_finish_sync(rings)
                || self.looks_have_moved(rings))
    }

    /// Returns `true` if [`SessionInput::Pump`] is due, whether or not anything wakes the session.
    pub(crate) fn needs_pump(&self, rings: &Rings) -> bool {
        self.is_serving()
            && (self.wants_read()
                || self.is_surely_behind(rings)
                || self.can_finish_sync(rings)
                || self.looks_have_moved(rings))
    }

    /// The state, as it shows from outside.
    #[must_use]
    pub fn status(&self) -> SessionStatus<'_> {
        let client = match &self.handshake {
            Handshake::Resumable { client, session } => Some((client, *session)),
            Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. } => None,
        };
        SessionStatus {
            user: self.auth.user(),
            level: match &self.handshake {
                Handshake::Undecided | Handshake::Opening { .. } => None,
                Handshake::Plain => Some(Level::Plain),
                Handshake::Resumable { .. } => Some(Level::Resumable),
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

    fn timeout(&mut self, cx: &mut InputContext<'_, '_>) {
        let Some((at, timer)) = self.deadline() else { return };
        if at > self.mono {
            return;
        }
        match timer {
            SessionTimer::Silence => self.close(1001, "nothing was heard for too long", cx),
            SessionTimer::Auth => self.close(1008, "no valid token came in time", cx),
        }
    }

    /// Returns `true` if requests are served and streams flow.
    fn is_serving(&self) -> bool {
        !self.closed && self.auth.is_in()
    }

    fn is_opening(&self) -> bool {
        matches!(self.handshake, Handshake::Opening { .. })
    }

    fn level(&self) -> Level {
        match self.handshake {
            Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. } => Level::Plain,
            Handshake::Resumable { .. } => Level::Resumable,
        }
    }

    fn expects_batches(&self) -> bool {
        matches!(self.handshake, Handshake::Resumable { .. } | Handshake::Opening { .. })
    }

    /// The seq up to which the stream of a collection was sent, if it is live.
    fn live_at(&self, collection: &Collection) -> Option<Seq> {
        self.subscriptions.get(collection).and_then(Subscription::live_at)
    }

    /// The place up to which its stream was sent.
    fn reached(&self, collection: &Collection) -> Reached {
        match self.subscriptions.get(collection) {
            Some(Subscription { progress: Progress::Live(at), .. }) => Reached::Live(*at),
            Some(subscription) if subscription.told_live => Reached::Unsaid,
            Some(_) | None => Reached::Nowhere,
        }
    }

    pub(crate) fn user(&self) -> Option<&UserId> {
        self.auth.user()
    }

    /// The user of the connection, as the policy sees them.
    fn asker(&self) -> Asker<'_> {
        Asker::new(self.auth.identified(), None)
    }

    fn in_flight(&self) -> usize {
        self.pending_transaction.as_ref().map_or(0, |pending| pending.writes.len())
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    fn send_message(&mut self, message: &ServerMessage, cx: &mut InputContext<'_, '_>) {
        if let (ServerMessage::Error(error), Some(on_error)) = (message, &mut cx.env.on_error) {
            on_error(error);
        }
        let mut frame = Vec::new();
        message.encode(self.level(), &mut frame);
        self.send_frame(frame.into(), cx);
    }

    fn send_frame(&mut self, frame: Bytes, cx: &mut InputContext<'_, '_>) {
        self.counters.frames_out += 1;
        self.counters.bytes_out += frame.len() as u64;
        cx.out.push(SessionAction::Send(frame));
    }

    fn error(
        &mut self,
        code: ErrorCode,
        message: impl Into<String>,
        cx: &mut InputContext<'_, '_>,
    ) {
        self.send_message(&ServerMessage::Error(ErrorMessage::new(code, message)), cx);
    }

    /// An error about a collection.
    fn refuse(
        &mut self,
        collection: &Collection,
        code: ErrorCode,
        message: impl Into<String>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let error = ErrorMessage {
            collection: Some(collection.clone()),
            ..ErrorMessage::new(code, message)
        };
        self.send_message(&ServerMessage::Error(error), cx);
    }

    fn close(&mut self, code: u16, reason: &'static str, cx: &mut InputContext<'_, '_>) {
        if !self.closed {
            cx.out.push(SessionAction::Close { code, reason });
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
        self.pending_transaction = None;
        self.pending_read = None;
        self.pending_sync = None;
    }
}

impl Checked for Session {
    fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn check(&self) -> Result<(), String> {
        self.verdicts.check(self.is_serving(), |collection| self.reached(collection))?;
        ensure(self.subscriptions.len() <= self.limits.subscriptions, "subscriptions are bounded")?;
        ensure(
            (self.pending_read.is_none() && self.pending_sync.is_none())
                || self.pending_transaction.is_none(),
            "a page and the acks of the writes that it shows must not cross",
        )?;
        if self.is_opening() {
            ensure(
                self.pending_transaction.is_some() || self.closed,
                "a hello waits for its answer",
            )?;
        }
        self.queue.check()
    }

    fn check_at_rest(&self) -> Result<(), String> {
        let live = |subscription: &Subscription| subscription.live_at().is_some();
        let left = [
            (self.queue.len() > 0, "messages wait to be served"),
            (self.verdicts.len() > 0, "verdicts wait to be sent"),
            (!self.barriers.is_empty(), "pings wait for their pongs"),
            (!self.wanted.is_empty(), "somebody waits for a whole collection"),
            (self.pending_transaction.is_some(), "a transaction is under way"),
            (self.pending_read.is_some(), "a page is being read"),
            (self.pending_sync.is_some(), "a `synced` waits to be sent"),
            (!self.subscriptions.values().all(live), "a subscription is not live"),
        ];
        left.iter().find(|(is_left, _)| *is_left).map_or(Ok(()), |(_, what)| Err((*what).into()))
    }
}

#[cfg(test)]
mod tests;
