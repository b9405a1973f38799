//! A whole server in one value, without its store and its sockets.
//!
//! A [`Hub`] joins the sessions of all connections, the rings, the committer, the followers, the
//! reads and the HTTP calls, as a `Replica` joins the parts of a client.
//! It does no I/O, and decides nothing that its owner could want to decide: when the store takes a
//! batch and how that ends, which read is answered when, in which order sessions hear their
//! answers, and when a socket has room.
//!
//! ```text
//! sockets, HTTP ──handle──► Hub ──Action──► sockets, HTTP
//!                           │ ▲
//!          next_batch ◄─────┤ ├──── settle        (the store commits between them)
//!          take_read  ◄─────┘ └──── finish_read   (the store reads between them)
//! ```
//!
//! Besides the contract of all machines its owner keeps these rules:
//!
//! 1. It hands frames in only while [`Session::wants_frames`] says so and what waits for the socket is
//!    bounded.
//! 2. [`HubInput::Room`] is due after every other input of a connection, on [`HubAction::Wake`], and
//!    when the socket has room again, as long as [`Hub::wants_room`] says so.
//! 3. After [`HubAction::Commit`] it takes batches until there is none, and settles each; after
//!    [`HubAction::Read`] it takes the reads and finishes each; after either it hands out the answers
//!    by [`Hub::answer`].
//! 4. It reports the end of every connection once, also after [`HubAction::Close`].
//!
//! A server with many cores gives each session a task and shares the rings between them, as the
//! crate `synclayer-server` does: it calls the same parts, with locks around them.

mod interface;

use alloc::string::String;
use core::hash::{Hash, Hasher};

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use xxhash_rust::xxh3::Xxh3;

use super::committer::{Committer, JobBatch};
use super::followers::Followers;
use super::http::{Call, Reply, Request};
use super::limits::ServerLimits;
use super::pump;
use super::ring::Rings;
use super::session::{
    Environment, Identity, Session, SessionAction, SessionInput, SessionTimer, Ticket,
};
use crate::checked::Checked;
use crate::protocol::message::Token;
use crate::protocol::name::{Collection, ConnId, Seq, UserId};
use crate::protocol::time::{Mono, Now};
use crate::rules::page::ReadAnswer;
use crate::rules::policy::{Bucket, Policy, Rate, User};
use crate::rules::transaction::{Context, Sweep, TransactError, Transaction, TransactionAnswer};
use crate::server::checks::ensure;
use crate::store::{Rows, StoreError};

pub use interface::{CallId, HubAction, HubConfig, HubInput, HubJob, HubRead};
use interface::{JobKind, PendingAnswer, ReadKind};

/// A server in one value. A clone goes on by itself.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_core::rules::Transaction;
/// use synclayer_core::{
///     AllowAll, ConnId, DatabaseId, Epoch, Hub, HubAction, HubConfig, HubInput, Identity,
///     MemoryRows, Now, SessionInput,
/// };
///
/// let (now, conn, mut out) = (Now::default(), ConnId(1), Vec::new());
/// let mut hub = Hub::new(HubConfig::default(), Arc::new(AllowAll), []);
///
/// // the store: here rows in memory, in which an epoch has to begin first
/// let mut rows = MemoryRows::default();
/// let (epoch, database) = (Epoch::new("e1")?, DatabaseId::new("d1")?);
/// let begin = Transaction::BeginEpoch { epoch, database };
/// rows.apply(begin.decide(&rows, hub.context(now))?.batch);
///
/// // a client connects and says hello, which waits for the store
/// hub.handle(now, HubInput::Accepted { conn, identity: Identity::Open }, &mut out);
/// let hello = br#"{"type":"ping","metadata":{"protocol":2,"clientId":"a","session":1}}"#;
/// let input = SessionInput::Frame(hello);
/// hub.handle(now, HubInput::Session { conn, input }, &mut out);
/// assert_eq!(out, [HubAction::Commit]);
///
/// // the store commits, and the session hears the answer
/// let mut batch = hub.next_batch(4096).expect("a transaction waits");
/// let changes = batch.decide(&rows, hub.context(now));
/// rows.apply(changes);
/// hub.settle(now, batch, Ok(()), &mut out);
/// hub.answer(now, 0, &mut out);
/// let Some(HubAction::Send { frame, .. }) = out.last() else { panic!("a pong") };
/// assert!(frame.starts_with(br#"{"type":"pong""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    config: HubConfig,
    limits: Arc<ServerLimits>,
    policy: Arc<dyn Policy>,
    sessions: BTreeMap<ConnId, Session>,
    /// The deadlines of the sessions, each with its connection and its reason.
    deadlines: BTreeSet<(Mono, ConnId, SessionTimer)>,
    rings: Rings,
    followers: Followers<()>,
    committer: Committer<HubJob>,
    reads: VecDeque<HubRead>,
    answers: VecDeque<PendingAnswer>,
    buckets: BTreeMap<UserId, Bucket>,
}

impl Hub {
    /// A server without a connection. Its store has to have begun an epoch, and nobody else may
    /// write to it; `heads` are those of the store's collections, as far as they are known.
    #[must_use]
    pub fn new(
        config: HubConfig,
        policy: Arc<dyn Policy>,
        heads: impl IntoIterator<Item = (Collection, Seq)>,
    ) -> Self {
        let mut hub = Self {
            limits: Arc::new(config.limits.clone()),
            policy,
            sessions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            rings: Rings::new(config.rings),
            followers: Followers::default(),
            committer: Committer::new(config.depth),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            buckets: BTreeMap::new(),
            config,
        };
        hub.forget_changes(heads);
        hub
    }

    /// Takes one input. Infallible: whatever is wrong with it becomes an action or is counted.
    pub fn handle(&mut self, now: Now, input: HubInput<'_>, out: &mut Vec<HubAction>) {
        match input {
            HubInput::Accepted { conn, identity } => self.accept(conn, identity, now),
            HubInput::Session { conn, input } => self.tell(now, conn, input, out),
            HubInput::Room { conn, room } => self.give_room(now, conn, room, out),
            HubInput::Call { call, request } => self.call(now, call, &request, out),
            HubInput::Sweep(sweep) => {
                self.buckets.retain(|_, bucket| !bucket.is_full(now.mono));
                self.sweep(sweep, out);
            }
            HubInput::Timeout => self.pass_deadlines(now, out),
            HubInput::Shutdown => {
                for conn in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.tell(now, conn, SessionInput::Shutdown, out);
                }
            }
        }
    }

    /// The time at which to hand in [`HubInput::Timeout`], and the reason.
    #[must_use]
    pub fn deadline(&self) -> Option<(Mono, SessionTimer)> {
        self.deadlines.first().map(|(at, _, timer)| (*at, *timer))
    }

    /// Returns `true` if a connection has something to send once there is room.
    #[must_use]
    pub fn wants_room(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| session.wants_pump(&self.rings))
    }

    /// Returns `true` if a connection has something to send, and is to be woken for it. A stream of
    /// scopes may [want room](Self::wants_room) without it: when the rings have forgotten in which
    /// scopes the changes since then were, none of its own among them, it looks into the store at its
    /// next turn.
    #[must_use]
    pub fn needs_room(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| session.needs_pump(&self.rings))
    }

    /// Returns `true` if nothing of a connection is under way: no message, transaction, read or answer.
    #[must_use]
    pub(crate) fn is_idle(&self, conn: ConnId) -> bool {
        self.session(conn).is_none_or(|session| session.status().queued == 0)
            && self.committer.waiting().all(|job| job.conn() != Some(conn))
            && self.reads.iter().all(|read| read.conn() != Some(conn))
            && self.answers.iter().all(|answer| answer.conn != conn)
    }

    /// The session of a connection, from its beginning until its end is reported.
    #[must_use]
    pub fn session(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(&conn)
    }

    /// All sessions, in the order of their connections.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = (ConnId, &Session)> {
        self.sessions.iter().map(|(conn, session)| (*conn, session))
    }

    /// The recent changes.
    #[must_use]
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Forgets all recent changes, and knows these heads only: the sessions get from the store what
    /// they miss.
    pub(crate) fn forget_changes(&mut self, heads: impl IntoIterator<Item = (Collection, Seq)>) {
        self.rings = Rings::new(self.config.rings);
        for (collection, head) in heads {
            self.rings.note_head(&collection, head);
        }
    }

    /// Sets who may do what from now on.
    pub(crate) fn set_policy(&mut self, policy: Arc<dyn Policy>) {
        self.policy = policy;
    }

    fn accept(&mut self, conn: ConnId, identity: Identity, now: Now) {
        let session = Session::new(Arc::clone(&self.limits), conn, identity, now);
        let deadline = session.deadline();
        self.sessions.insert(conn, session);
        self.move_deadline(conn, None, deadline);
    }

    /// Hands an input to a session, and does what it then wants.
    fn tell(&mut self, now: Now, conn: ConnId, input: SessionInput<'_>, out: &mut Vec<HubAction>) {
        let ends = matches!(input, SessionInput::Closed);
        self.with_session(now, conn, out, |session, env, actions| {
            session.handle(now, input, env, actions);
        });
        if ends && let Some(session) = self.sessions.remove(&conn) {
            self.move_deadline(conn, session.deadline(), None);
            self.followers.leave(conn);
        }
    }

    fn give_room(&mut self, now: Now, conn: ConnId, room: usize, out: &mut Vec<HubAction>) {
        let turns = self.config.turns;
        let more = self.with_session(now, conn, out, |session, env, actions| {
            pump(session, now, room, turns, env, actions)
        });
        if more == Some(true) {
            out.push(HubAction::Wake(conn));
        }
    }

    fn with_session<T>(
        &mut self,
        now: Now,
        conn: ConnId,
        out: &mut Vec<HubAction>,
        call: impl FnOnce(&mut Session, &mut Environment<'_>, &mut Vec<SessionAction>) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&conn)?;
        let before = session.deadline();
        let rate = self.limits.user_rate;
        let user_bucket = bucket(&mut self.buckets, session.user(), rate, now.mono);
        let (rings, policy) = (&self.rings, &*self.policy);
        let mut env = Environment { rings, policy, user_bucket, run: None, on_error: None };
        // most inputs lead to no more
        let mut actions = Vec::with_capacity(2);
        let answer = call(session, &mut env, &mut actions);
        let after = session.deadline();
        self.move_deadline(conn, before, after);
        actions.into_iter().for_each(|action| self.act(conn, action, out));
        Some(answer)
    }

    fn move_deadline(
        &mut self,
        conn: ConnId,
        from: Option<(Mono, SessionTimer)>,
        to: Option<(Mono, SessionTimer)>,
    ) {
        if from == to {
            return;
        }
        if let Some((at, timer)) = from {
            self.deadlines.remove(&(at, conn, timer));
        }
        self.deadlines.extend(to.map(|(at, timer)| (at, conn, timer)));
    }

    fn act(&mut self, conn: ConnId, action: SessionAction, out: &mut Vec<HubAction>) {
        match action {
            SessionAction::Send(frame) => out.push(HubAction::Send { conn, frame }),
            SessionAction::Close { code, reason } => {
                self.followers.leave(conn);
                out.push(HubAction::Close { conn, code, reason });
            }
            SessionAction::Authenticate(ticket) => out.push(HubAction::Authenticate(ticket)),
            SessionAction::Transact(ticket) => self.submit(JobKind::Session(ticket), out),
            SessionAction::Read(ticket) => self.start_read(ReadKind::Session(ticket), out),
            SessionAction::Follow(interest) => self.followers.follow(interest, conn, ()),
            SessionAction::Unfollow(collection) => self.followers.unfollow(&collection, conn),
        }
    }

    fn pass_deadlines(&mut self, now: Now, out: &mut Vec<HubAction>) {
        let due = self.deadlines.iter().take_while(|(at, _, _)| *at <= now.mono);
        let due: Vec<_> = due.map(|(_, conn, _)| *conn).collect();
        for conn in due {
            self.tell(now, conn, SessionInput::Timeout, out);
        }
    }

    /// Tells a session whose its token is; `None` where it is wrong or has expired. The session
    /// hears it among the other [answers](Self::answer).
    pub fn authenticated(&mut self, ticket: Ticket<Token>, user: Option<User>) {
        let conn = ticket.conn();
        self.answers.push_back(PendingAnswer { conn, input: ticket.answer(user) });
    }
}

// --- HTTP ---

impl Hub {
    /// Counts a call against its user's rate, before its body is read.
    ///
    /// # Errors
    /// With the reply, if the user has used up the rate.
    pub fn admit(&mut self, now: Now, user: Option<&UserId>) -> Result<(), Reply> {
        let bucket = bucket(&mut self.buckets, user, self.limits.user_rate, now.mono);
        bucket.map_or(Ok(()), |bucket| bucket.take(now.mono)).map_err(Reply::slow_down)
    }

    fn call(&mut self, now: Now, id: CallId, request: &Request<'_>, out: &mut Vec<HubAction>) {
        match request.call(&self.limits, &*self.policy) {
            Call::Immediate(reply) => out.push(HubAction::Reply { call: id, reply }),
            Call::Transact(mut write) => {
                let user = request.user.as_ref().map(|user| &user.id);
                let rate = self.limits.user_rate;
                let mut bucket = bucket(&mut self.buckets, user, rate, now.mono);
                let paid = write.charge(&mut |count| {
                    bucket.as_mut().map_or(Ok(()), |b| b.take_many(now.mono, count))
                });
                match paid {
                    Ok(()) => self.submit(JobKind::Call(id, write), out),
                    Err(reply) => out.push(HubAction::Reply { call: id, reply }),
                }
            }
            Call::Read(read) => self.start_read(ReadKind::Call(id, read), out),
        }
    }
}

// --- commits ---

impl Hub {
    fn submit(&mut self, kind: JobKind, out: &mut Vec<HubAction>) {
        self.committer.submit(HubJob(kind));
        out.push(HubAction::Commit);
    }

    fn sweep(&mut self, sweep: Sweep, out: &mut Vec<HubAction>) {
        let transaction = Transaction::Sweep(sweep.clone());
        self.submit(JobKind::Sweep(sweep, transaction), out);
    }

    /// The committer, for what waits for it and the health of the store.
    #[must_use]
    pub(crate) fn committer(&self) -> &Committer<HubJob> {
        &self.committer
    }

    /// Takes the next transactions: about `limit` writes, and at least one. `None` while none
    /// waits, or the store has as many batches under way as it takes.
    pub fn next_batch(&mut self, limit: usize) -> Option<JobBatch<HubJob>> {
        self.committer.next_batch(limit)
    }

    /// The context in which a batch is decided.
    #[must_use]
    pub fn context(&self, now: Now) -> Context<'_> {
        Context { policy: &*self.policy, limits: &self.limits.input, now: now.wall }
    }

    /// Ends a batch as its commit ended: publishes its changes, wakes those who follow them, and
    /// answers. HTTP calls get their replies now, sessions theirs by [`answer`](Self::answer).
    pub fn settle(
        &mut self,
        now: Now,
        batch: JobBatch<HubJob>,
        ended: Result<(), TransactError>,
        out: &mut Vec<HubAction>,
    ) {
        let outcome = match ended {
            Ok(()) => batch.committed(&mut self.rings),
            Err(error) => batch.failed(error),
        };
        let settled = self.committer.settle(outcome);
        let (followers, mut answers) = (&self.followers, Vec::new());
        settled.deliver(
            |moved| followers.wake(moved, |conn, ()| out.push(HubAction::Wake(conn))),
            |job, answer| answers.push((job, answer)),
        );
        answers.into_iter().for_each(|(job, answer)| self.answer_job(now, job, answer, out));
    }

    fn answer_job(
        &mut self,
        now: Now,
        job: HubJob,
        answer: Result<TransactionAnswer, TransactError>,
        out: &mut Vec<HubAction>,
    ) {
        match (job.0, answer) {
            (JobKind::Session(ticket), answer) => {
                let conn = ticket.conn();
                self.answers.push_back(PendingAnswer { conn, input: ticket.answer(answer) });
            }
            (JobKind::Call(call, write), answer) => {
                let reply = write.reply(now.wall, &self.limits, &*self.policy, answer);
                out.push(HubAction::Reply { call, reply });
            }
            (JobKind::Sweep(sweep, _), Ok(TransactionAnswer::Swept(swept))) => {
                let next = swept.next.clone();
                out.push(HubAction::Swept(swept));
                if let Some(from) = next {
                    self.sweep(Sweep { from, ..sweep }, out);
                }
            }
            // whoever swept in vain tries again at the next time
            (JobKind::Sweep(..), _) => {}
        }
    }
}

// --- reads and answers ---

impl Hub {
    fn start_read(&mut self, kind: ReadKind, out: &mut Vec<HubAction>) {
        self.reads.push_back(HubRead(kind));
        out.push(HubAction::Read);
    }

    /// The number of reads that wait to be taken.
    pub(crate) fn waiting_reads(&self) -> usize {
        self.reads.len()
    }

    /// Takes one of the reads that wait, by its place among them.
    pub fn take_read(&mut self, place: usize) -> Option<HubRead> {
        self.reads.remove(place)
    }

    /// Runs a read on these rows.
    ///
    /// # Errors
    /// When the rows can't be read.
    pub fn run_read(&self, read: &HubRead, rows: &dyn Rows) -> Result<ReadAnswer, StoreError> {
        read.request().run(rows, &*self.policy)
    }

    /// Ends a read with what was found. An HTTP call gets its reply now, a session its page by
    /// [`answer`](Self::answer).
    pub fn finish_read(
        &mut self,
        read: HubRead,
        found: Result<ReadAnswer, StoreError>,
        out: &mut Vec<HubAction>,
    ) {
        match read.0 {
            ReadKind::Session(ticket) => {
                let conn = ticket.conn();
                self.answers.push_back(PendingAnswer { conn, input: ticket.answer(found) });
            }
            ReadKind::Call(call, read) => {
                out.push(HubAction::Reply { call, reply: read.reply(&*self.policy, found) })
            }
        }
    }

    /// The connections whose sessions have an answer to hear, one for each answer, in the order in
    /// which these came.
    pub(crate) fn waiting_answers(&self) -> impl ExactSizeIterator<Item = ConnId> {
        self.answers.iter().map(|answer| answer.conn)
    }

    /// Lets a session hear one of the answers that wait, by its place among them. Returns its
    /// connection.
    pub fn answer(&mut self, now: Now, place: usize, out: &mut Vec<HubAction>) -> Option<ConnId> {
        let PendingAnswer { conn, input } = self.answers.remove(place)?;
        self.tell(now, conn, input, out);
        Some(conn)
    }
}

impl Checked for Hub {
    fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.sessions.hash(&mut hasher);
        self.rings.hash_into(&mut hasher);
        for job in self.committer.waiting() {
            format!("{job:?}").hash(&mut hasher);
        }
        for read in &self.reads {
            format!("{read:?}").hash(&mut hasher);
        }
        for answer in &self.answers {
            format!("{answer:?}").hash(&mut hasher);
        }
        format!("{:?}", self.buckets).hash(&mut hasher);
        hasher.finish()
    }

    fn check(&self) -> Result<(), String> {
        self.rings.check()?;
        self.sessions.values().try_for_each(Session::check)?;
        let deadlines = self
            .sessions()
            .filter_map(|(conn, session)| session.deadline().map(|(at, timer)| (at, conn, timer)));
        let deadlines: BTreeSet<_> = deadlines.collect();
        ensure(self.deadlines == deadlines, "the deadlines are those of the sessions")?;
        let waiting: Vec<_> = self.committer.waiting().filter_map(HubJob::conn).collect();
        let conns: BTreeSet<_> = waiting.iter().collect();
        ensure(waiting.len() == conns.len(), "a session has one transaction at a time")?;
        self.followers
            .check(|conn| self.sessions.get(&conn).is_some_and(|session| !session.status().closed))
    }

    fn check_at_rest(&self) -> Result<(), String> {
        self.sessions.values().try_for_each(Session::check_at_rest)
    }
}

fn bucket<'a>(
    buckets: &'a mut BTreeMap<UserId, Bucket>,
    user: Option<&UserId>,
    rate: Option<Rate>,
    now: Mono,
) -> Option<&'a mut Bucket> {
    let (user, rate) = (user?, rate?);
    Some(buckets.entry(user.clone()).or_insert_with(|| Bucket::new(rate, now)))
}

#[cfg(test)]
mod tests;
