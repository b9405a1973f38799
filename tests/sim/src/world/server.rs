//! The server in the world: its store, its process, and what its adapter does.
//!
//! The store is apart from the process, so that a second process on the same store has a place to
//! stand: it would be another [`Server`].

use std::collections::BTreeMap;
use std::sync::Arc;

use synclayer_core::protocol::Resume;
use synclayer_core::rules::{Position, Reader, Report, database as database_of, verify};
use synclayer_core::testing::{Checked, InspectBatch, InspectHub};
use synclayer_core::{
    AllowAll, ClientId, Collection, ConnId, Document, Epoch, Hub, HubAction, HubConfig, HubInput,
    HubJob, JobBatch, MemoryRows, Now, Op, ReadAnswer, ReadRequest, RecordId, Reply, Request,
    Session, SessionInput, SessionNumber, StoreError, StoreErrorKind, Sweep, SweepPlace,
    TransactError,
};

use crate::guarantees::caps_hold;
use crate::invariants::Invariant;

use super::history::{Histories, History};
use super::http::CallId;
use super::link::Owner;
use super::rights::user_with_claims;
use super::{World, WorldConfig};

/// The calls of strangers, whom nothing on the way disturbs, have numbers above this one.
const STRANGERS: CallId = CallId(1 << 32);

/// The contents of the server's disk, with everything that was ever committed to it.
pub(super) struct Store {
    pub(super) rows: MemoryRows,
    pub(super) histories: Histories,
    pub(super) paused: bool,
    /// `true` if it refuses everything until it is reopened.
    pub(super) poisoned: bool,
    pub(super) openings: u64,
}

/// A copy of the server's store.
#[derive(Clone)]
pub struct Backup {
    pub(super) rows: MemoryRows,
    pub(super) history: History,
}

impl Backup {
    /// A database in which nothing ever was.
    #[must_use]
    pub fn empty() -> Self {
        Self { rows: MemoryRows::default(), history: History::default() }
    }

    /// Returns `true` if the server went on from this copy to `later`: the store of `later` once
    /// held each row of this one. A backup that came back begins another branch of the database.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn leads_to(&self, later: &Self) -> bool {
        let database = |of: &Self| database_of(&of.rows).expect("the rows can be read");
        database(self) == database(later) && self.history.leads_to(&later.history)
    }
}

/// The state that is lost with the server's process.
pub(super) struct Server {
    pub(super) hub: Hub,
    /// The number of calls from strangers.
    strangers: u64,
    /// Each client's newest session.
    pub(super) newest: BTreeMap<ClientId, SessionNumber>,
}

/// The outcome of a commit of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitFate {
    /// It is durable.
    Done,
    /// It failed before anything happened.
    Failed,
    /// It happened, but the store says that it failed.
    DoneUnsaid,
    /// It did not happen, and nobody can know.
    LostUnsaid,
}

/// Returns `true` if a run of pages in progress starts again.
fn begins_again(request: &ReadRequest, answer: &Result<ReadAnswer, StoreError>) -> bool {
    let under_way = match request {
        ReadRequest::CatchUp { position, .. } => {
            matches!(position, Position::Delta { .. } | Position::Snapshot { .. })
        }
        ReadRequest::Pull { .. } | ReadRequest::Whole { .. } | ReadRequest::Query { .. } => false,
    };
    under_way && matches!(answer, Ok(ReadAnswer::Page(page)) if page.opened.is_some())
}

/// The epoch of the position from which a run is to go on.
fn resume_of(request: &ReadRequest) -> Option<&Epoch> {
    let (ReadRequest::CatchUp { position, .. } | ReadRequest::Pull { position, .. }) = request
    else {
        return None;
    };
    let position =
        if let Position::ShownBy { start, .. } = position { start.as_ref() } else { position };
    match position {
        Position::Start {
            resume: Some(Resume::Delta { epoch, .. } | Resume::Snapshot { epoch, .. }),
            ..
        } => Some(epoch),
        Position::Start { resume: None, .. }
        | Position::ShownBy { .. }
        | Position::Now
        | Position::Delta { .. }
        | Position::Snapshot { .. }
        | Position::StartOfSet { .. }
        | Position::Set(_) => None,
    }
}

impl Store {
    pub(super) fn new() -> Self {
        let (rows, histories) = (MemoryRows::default(), Histories::default());
        Self { rows, histories, paused: false, poisoned: false, openings: 0 }
    }
}

impl Server {
    /// A process that has just started, on a store of which it knows nothing yet.
    pub(super) fn new(config: &WorldConfig) -> Self {
        let mut hub = HubConfig::default();
        hub.limits = config.limits.clone();
        hub.rings = config.ring;
        // so that everything can happen between two of them
        hub.turns = 1;
        let hub = Hub::new(hub, Arc::clone(&config.policy), []);
        Self { hub, strangers: 0, newest: BTreeMap::new() }
    }
}

impl World {
    /// The number of transactions that wait for the disk.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.server.hub.waiting_transactions().len()
    }

    /// The number of pages that wait to be read, or to reach their session.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.server.hub.waiting_reads() + self.server.hub.waiting_answers().len()
    }

    /// The disk takes the first `count` transactions together.
    pub fn commit(&mut self, count: usize, fate: CommitFate) {
        let mut batch = self.server.hub.next_transactions(count);
        let count = batch.as_ref().map_or(0, |batch| batch.transactions().len());
        self.count("commit");
        let fate = if self.store.poisoned { CommitFate::Failed } else { fate };
        if matches!(fate, CommitFate::DoneUnsaid | CommitFate::LostUnsaid) {
            self.count("unknown outcome");
            self.store.poisoned = true;
        }
        if matches!(fate, CommitFate::Failed | CommitFate::LostUnsaid) {
            self.note(|| format!("{count} transactions fail: {fate:?}"));
        } else if let Some(batch) = &mut batch {
            self.write(batch);
            self.note(|| format!("{count} transactions are committed: {fate:?}"));
            self.remember(batch);
        }
        let error = StoreError::new(StoreErrorKind::Other, "the disk is not well");
        let ended = match fate {
            CommitFate::Done => Ok(()),
            CommitFate::Failed => Err(TransactError::Failed(error)),
            CommitFate::DoneUnsaid | CommitFate::LostUnsaid => Err(TransactError::Unknown(error)),
        };
        if ended.is_err() {
            self.count("server disk failure");
        }
        if ended.is_ok() {
            self.members_are_known();
        }
        if let Some(batch) = batch {
            let now = self.server_clock.read(self.now);
            self.with_hub(|hub, out| hub.settle(now, batch, ended, out));
        }
    }

    /// The disk has what a batch decides.
    fn write(&mut self, batch: &mut JobBatch<HubJob>) {
        let context = self.server.hub.context(self.server_clock.read(self.now));
        let rows = batch.decide(&self.store.rows, context);
        let of_client = |op: &&Op| matches!(op, Op::Delete(key) if key.first() == Some(&b'u'));
        if rows.ops().iter().any(|op| of_client(&op)) {
            self.count("client forgotten");
        }
        self.store.rows.apply(rows);
        self.look_at_members();
        if let Err(what) = caps_hold(self) {
            self.fail(Invariant::Bounded, what);
        }
    }

    /// A page is read; its session hears of it later.
    pub fn read(&mut self, index: usize, fails: bool) {
        let Some(read) = self.server.hub.take_read(index) else { return };
        self.count("read");
        let answer = if fails {
            self.count("failed read");
            Err(StoreError::new(StoreErrorKind::Other, "the disk is not well"))
        } else {
            self.server.hub.run_read(&read, &self.store.rows)
        };
        let again = begins_again(self.server.hub.requested(&read), &answer);
        let outdated =
            resume_of(self.server.hub.requested(&read)).is_some_and(|epoch| *epoch != self.epoch());
        if again {
            self.count("horizon passed in mid catch-up");
        }
        if outdated {
            self.count("resume of an earlier epoch");
        }
        self.with_hub(|hub, out| hub.finish_read(read, answer, out));
    }

    /// A session hears an answer.
    pub fn answer(&mut self, index: usize) {
        let Some(conn) = self.server.hub.waiting_answers().nth(index) else { return };
        self.with_session(conn, |hub, now, out| {
            hub.answer(now, index, out);
        });
    }

    /// One of the pages that wait is read.
    pub fn read_any(&mut self, which: usize) {
        let waiting = self.server.hub.waiting_reads();
        self.read(which % waiting.max(1), false);
    }

    /// One of the answers that wait reaches its session.
    pub fn answer_any(&mut self, which: usize) {
        let waiting = self.server.hub.waiting_answers().len();
        self.answer(which % waiting.max(1));
    }

    /// Asks for a sweep of everything that is older than this.
    pub fn sweep(&mut self, retention: std::time::Duration, budget: usize) {
        self.count("sweep");
        self.note(|| format!("the server sweeps what is older than {retention:?}"));
        let sweep = Sweep { retention, from: SweepPlace::Start, budget };
        self.serve_input(HubInput::Sweep(sweep));
    }

    /// Somebody calls the server by HTTP.
    pub fn rest(&mut self, user: Option<&str>, method: &str, target: &str, body: &str) {
        self.count("HTTP request");
        self.note(|| format!("{method} {target} {body}"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            method,
            path,
            query,
            body: body.as_bytes(),
            user: user.map(user_with_claims),
        };
        self.server.strangers += 1;
        let call = CallId(STRANGERS.0 + self.server.strangers);
        self.calls_with(call, user);
        let reads = self.server.hub.waiting_reads();
        self.serve_input(HubInput::Call { call, request });
        // nothing is to be seen of a stranger who waits
        if let Some(read) = self.server.hub.take_read(reads) {
            let answer = self.server.hub.run_read(&read, &self.store.rows);
            self.with_hub(|hub, out| hub.finish_read(read, answer, out));
        }
    }

    fn replied(&mut self, call: CallId, reply: &Reply) {
        self.look_at_reply(call, None, &reply.body);
        self.note(|| format!("answer {} {}", reply.status, String::from_utf8_lossy(&reply.body)));
        self.fold_reply(reply);
        self.count(if reply.status < 300 { "HTTP success" } else { "HTTP refusal" });
    }

    /// A session's socket has room.
    pub fn pump(&mut self, conn: ConnId, room: usize) {
        self.with_session(conn, |hub, now, out| {
            hub.handle(now, HubInput::Room { conn, room }, out)
        });
        if let Some(link) = self.links.get_mut(&conn) {
            link.awake = self.server.hub.wants_room(conn);
        }
    }

    pub(super) fn tell_ping(&mut self, conn: ConnId) {
        self.tell(conn, SessionInput::Ping);
    }

    /// The token of a connection expires.
    pub fn expire_token(&mut self, conn: ConnId) {
        self.count("expired token");
        self.note(|| format!("the token of {conn} has expired"));
        self.tell(conn, SessionInput::AuthExpired);
    }

    pub(super) fn tell(&mut self, conn: ConnId, input: SessionInput<'_>) {
        self.with_session(conn, |hub, now, out| {
            hub.handle(now, HubInput::Session { conn, input }, out);
        });
    }

    /// Lets the server do something for one session, and looks at what that session makes of it.
    fn with_session(
        &mut self,
        conn: ConnId,
        call: impl FnOnce(&mut Hub, Now, &mut Vec<HubAction>),
    ) {
        let now = self.server_clock.read(self.now);
        let Some(session) = self.server.hub.session(conn) else {
            return self.with_hub(|hub, out| call(hub, now, out));
        };
        let (before, waited) = (session.status().counters, session.status().held);
        let has_replaced = self.has_replaced_a_token(conn);
        let mut out = Vec::new();
        call(&mut self.server.hub, now, &mut out);
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.awake = true;
        let fault = self.server.hub.session(conn).and_then(|session| {
            session.check().expect("its invariants hold");
            let status = session.status();
            let bad = status.counters.bad_messages - before.bad_messages;
            let late = status.counters.late_answers - before.late_answers;
            if bad > 0 && matches!(link.owner, Owner::Device(_)) && status.user.is_none() {
                Some("a replica has sent what its server does not understand")
            } else if late > 0 && !status.closed && !has_replaced {
                Some("a session got an answer that it did not wait for")
            } else {
                None
            }
        });
        let counters = self.server.hub.session(conn).map(|session| session.status().counters);
        self.act(out);
        let behind = counters.map_or(0, |after| after.fell_behind - before.fell_behind);
        if behind > 0 {
            self.count("fell behind");
        }
        if behind > 0 && waited > 0 {
            self.count("fell behind with verdicts due");
        }
        if counters.is_some_and(|after| after.ignored_writes > before.ignored_writes) {
            self.count("error in mid pipeline");
        }
        if let Some(fault) = fault {
            self.fail(Invariant::NothingImpossible, format!("{conn}: {fault}"));
        }
        self.sweep_links();
    }

    /// Hands the server an input that is for no session that exists.
    pub(super) fn serve_input(&mut self, input: HubInput<'_>) {
        let now = self.server_clock.read(self.now);
        self.with_hub(|hub, out| hub.handle(now, input, out));
        self.sweep_links();
    }

    /// Lets the server do something, and does what it then wants.
    pub(super) fn with_hub(&mut self, call: impl FnOnce(&mut Hub, &mut Vec<HubAction>)) {
        let mut out = Vec::new();
        call(&mut self.server.hub, &mut out);
        self.act(out);
    }

    fn act(&mut self, actions: Vec<HubAction>) {
        for action in actions {
            match action {
                HubAction::Send { conn, frame } => {
                    self.look_at_frame_down(conn, &frame);
                    if let Some(link) = self.links.get_mut(&conn)
                        && link.device_end
                        && !link.silent
                    {
                        link.down.push_back(frame.clone());
                    }
                    self.fold(&frame);
                    self.count_said(&frame);
                }
                HubAction::Close { conn, code, reason } => {
                    self.lose_server_end(conn);
                    self.note(|| format!("the server closes {conn}: {code} {reason}"));
                    self.sweep_links();
                }
                HubAction::Authenticate(ticket) => {
                    let token = ticket.question().reveal();
                    let is_good = !self.expired_tokens.contains(token);
                    let user = is_good.then(|| user_with_claims(token));
                    if is_good {
                        let token = token.to_owned();
                        let conn = self.server.hub.asking(&ticket);
                        self.bears(conn, Some(&token));
                    }
                    self.server.hub.authenticated(ticket, user);
                }
                HubAction::Reply { call, reply } if call > STRANGERS => {
                    self.replied(call, &reply);
                }
                HubAction::Reply { call, reply } => self.reply(call, reply),
                HubAction::Wake(conn) => {
                    if let Some(link) = self.links.get_mut(&conn) {
                        link.awake = true;
                    }
                }
                HubAction::Swept(swept) => {
                    *self.counts.entry("swept").or_default() += swept.removed as u64;
                }
                // what waits is to be seen in the hub
                HubAction::Commit | HubAction::Read => {}
            }
        }
    }

    // --- what can be seen of it ---

    /// The report of an offline check of the server's rows.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn verify(&self) -> Report {
        verify(&self.store.rows).expect("the rows can be read")
    }

    /// The largest number of client ids that the server counts for one user.
    #[must_use]
    pub fn most_clients(&self) -> u64 {
        let counts = self.store.rows.iter().filter(|(key, _)| key.first() == Some(&b'n'));
        // no run has so many that a number takes more than a byte
        counts.filter_map(|(_, row)| row.first().copied()).max().unwrap_or(0).into()
    }

    /// Returns `true` if the store was ever damaged.
    #[must_use]
    pub fn was_repaired(&self) -> bool {
        self.counts.contains_key("server repaired")
    }

    /// Everything that was ever committed.
    #[must_use]
    pub fn histories(&self) -> &Histories {
        &self.store.histories
    }

    /// The records that the server holds in a collection.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn server_records(&self, collection: &Collection) -> BTreeMap<RecordId, Document> {
        let reader = Reader::from(collection.clone());
        let request = ReadRequest::Whole { reader, bytes: usize::MAX };
        match request.run(&self.store.rows, &AllowAll).expect("the rows can be read") {
            ReadAnswer::Whole(whole) => whole
                .records
                .into_iter()
                .flatten()
                .map(|record| (record.id, record.document))
                .collect(),
            ReadAnswer::Page(_)
            | ReadAnswer::Pulled(_)
            | ReadAnswer::Found(_)
            | ReadAnswer::Refused { .. } => {
                unreachable!("the whole collection was asked for")
            }
        }
    }

    /// The size of the server's rings, in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.server.hub.ring_bytes()
    }

    /// The sessions that the server has, for their status.
    pub fn sessions(&self) -> impl Iterator<Item = (ConnId, &Session)> {
        self.server.hub.sessions()
    }
}
