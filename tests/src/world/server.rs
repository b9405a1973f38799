//! The server in the world: its store, its process, and what its adapter does.
//!
//! The store is apart from the process, so that a second process on the same store has a place to
//! stand: it would be another [`Server`].

use std::collections::{BTreeMap, VecDeque};

use synclayer_core::memory::MemoryRows;
use synclayer_core::rules::page::{Place, ReadAnswer, ReadRequest, Reader};
use synclayer_core::rules::policy::{AllowAll, Bucket, Rate};
use synclayer_core::rules::record::{Report, database as database_of, verify};
use synclayer_core::rules::transaction::{
    Answer, Context, Decided, HelloAnswer, Outcome, PushOutcome, Sweep, SweepPlace, TransactError,
    Transaction, Verdict, decide_all,
};
use synclayer_core::server::http::{Call, ReadCall, Reply, Request, WriteCall, call};
use synclayer_core::server::ring::Rings;
use synclayer_core::server::session::{
    Action, Input as ServerInput, Lent, ReadTicket, Session, TransactTicket,
};
use synclayer_core::words::document::Document;
use synclayer_core::words::limits::Limits;
use synclayer_core::words::message::{Resume, ServerChange};
use synclayer_core::words::name::{
    ClientId, Collection, ConnId, DatabaseId, Epoch, RecordId, SessionNumber, UserId,
};
use synclayer_core::words::store::{Op, StoreError};
use synclayer_core::words::time::Mono;
use synclayer_core::words::write::WriteKind;

use crate::invariants::Invariant;

use super::history::{Histories, History};
use super::http::CallId;
use super::link::Owner;
use super::{World, user_of};

/// What is on the server's disk, with what was ever committed to it.
pub(super) struct Store {
    pub(super) rows: MemoryRows,
    pub(super) histories: Histories,
    pub(super) paused: bool,
    /// Whether it takes nothing more before it is opened anew.
    pub(super) poisoned: bool,
    openings: u64,
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
        Self { rows: MemoryRows::new(), history: History::default() }
    }

    /// Whether both are of one database.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        let database = |of: &Self| database_of(&of.rows).expect("the rows can be read");
        database(self) == database(other)
    }
}

/// What is lost with the server's process.
pub(super) struct Server {
    pub(super) rings: Rings,
    pub(super) jobs: VecDeque<Job>,
    pub(super) reads: VecDeque<PageRead>,
    /// Answers that are on their way to their sessions.
    pub(super) answers: VecDeque<(ConnId, ServerInput<'static>)>,
    /// Each client's newest session.
    newest: BTreeMap<ClientId, SessionNumber>,
    pub(super) buckets: BTreeMap<UserId, Bucket>,
}

/// A transaction that waits for the disk.
pub(super) enum Job {
    Ticket(TransactTicket),
    Rest(WriteCall),
    Call(CallId, WriteCall),
    Sweep(Sweep),
}

/// A page that waits to be read.
pub(super) enum PageRead {
    Ticket(ReadTicket),
    Call(CallId, ReadCall),
}

impl Job {
    fn transaction(&self) -> Transaction {
        match self {
            Self::Ticket(ticket) => ticket.transaction().clone(),
            Self::Rest(write) | Self::Call(_, write) => write.transaction().clone(),
            Self::Sweep(sweep) => Transaction::Sweep(sweep.clone()),
        }
    }
}

/// How a commit of the server ends.
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

/// Who numbers the writes of a connection.
fn client_of(transactions: &[Transaction], conn: ConnId) -> Option<ClientId> {
    transactions.iter().find_map(|transaction| match transaction {
        Transaction::Writes(run) if run.conn == Some(conn) => Some(run.client.clone()?.0),
        Transaction::Writes(_)
        | Transaction::Push(_)
        | Transaction::Hello { .. }
        | Transaction::Plain(_)
        | Transaction::Sweep(_)
        | Transaction::BeginEpoch { .. } => None,
    })
}

/// Whether a run of pages that was under way starts again.
fn begins_again(request: &ReadRequest, answer: &Result<ReadAnswer, StoreError>) -> bool {
    let under_way = match request {
        ReadRequest::CatchUp { place, .. } => {
            matches!(place, Place::Delta { .. } | Place::Snapshot { .. })
        }
        ReadRequest::Pull { .. } | ReadRequest::Whole { .. } | ReadRequest::Query { .. } => false,
    };
    under_way && matches!(answer, Ok(ReadAnswer::Page(page)) if page.opened.is_some())
}

/// The epoch of the place from which a run is to go on.
fn resume_of(request: &ReadRequest) -> Option<&Epoch> {
    let (ReadRequest::CatchUp { place, .. } | ReadRequest::Pull { place, .. }) = request else {
        return None;
    };
    match place {
        Place::Start {
            resume: Some(Resume::Delta { epoch, .. } | Resume::Snapshot { epoch, .. }),
            ..
        } => Some(epoch),
        Place::Start { resume: None, .. }
        | Place::Now
        | Place::Delta { .. }
        | Place::Snapshot { .. } => None,
    }
}

/// Whether a conflict shows no trace of its record.
fn is_without_trace(current: &ServerChange) -> bool {
    current.change.kind == WriteKind::Delete && current.version.is_none()
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

impl Store {
    pub(super) fn new() -> Self {
        let (rows, histories) = (MemoryRows::new(), Histories::default());
        Self { rows, histories, paused: false, poisoned: false, openings: 0 }
    }
}

impl Server {
    pub(super) fn new(rings: Rings) -> Self {
        Self {
            rings,
            jobs: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            newest: BTreeMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// What a user may still send.
    pub(super) fn bucket(
        &mut self,
        user: Option<&UserId>,
        rate: Option<Rate>,
        now: Mono,
    ) -> Option<&mut Bucket> {
        bucket(&mut self.buckets, user, rate, now)
    }
}

impl World {
    /// How many transactions wait for the disk.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.server.jobs.len()
    }

    /// How many pages wait to be read, or to reach their session.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.server.reads.len() + self.server.answers.len()
    }

    /// The disk takes the first `count` transactions together.
    pub fn commit(&mut self, count: usize, fate: CommitFate) {
        let count = count.min(self.server.jobs.len());
        let jobs: Vec<_> = self.server.jobs.drain(..count).collect();
        let transactions: Vec<_> = jobs.iter().map(Job::transaction).collect();
        let limits = Limits::default();
        let now = self.server_clock.read(self.now).wall;
        let policy = self.config.policy.clone();
        let context = Context { policy: &*policy, limits: &limits, now };
        self.count("commit");
        let fate = if self.store.poisoned { CommitFate::Failed } else { fate };
        if matches!(fate, CommitFate::DoneUnsaid | CommitFate::LostUnsaid) {
            self.count("unknown outcome");
        }
        self.store.poisoned |= matches!(fate, CommitFate::DoneUnsaid | CommitFate::LostUnsaid);
        if matches!(fate, CommitFate::Failed | CommitFate::LostUnsaid) {
            self.note(|| format!("{count} transactions fail: {fate:?}"));
            self.count("server disk failure");
            return self.fail_jobs(jobs, fate);
        }
        let mut decided = decide_all(&transactions, &self.store.rows, context);
        let batch = std::mem::take(&mut decided.batch);
        let of_client = |op: &&Op| matches!(op, Op::Delete(key) if key.first() == Some(&b'u'));
        if batch.ops().iter().any(|op| of_client(&op)) {
            self.count("client forgotten");
        }
        self.store.rows.apply(batch);
        self.note(|| format!("{count} transactions are committed: {fate:?}"));
        let callers: Vec<_> = jobs.iter().map(|job| self.caller_of(job)).collect();
        self.remember(&transactions, &callers, &decided);
        if fate == CommitFate::DoneUnsaid {
            self.count("server disk failure");
            return self.fail_jobs(jobs, fate);
        }
        for change in &decided.published {
            self.server.rings.publish(change);
            let follows =
                |link: &&mut super::link::Link| link.followed.contains(&change.collection);
            self.links.values_mut().filter(follows).for_each(|link| link.awake = true);
        }
        for (job, answer) in jobs.into_iter().zip(decided.answers) {
            match answer {
                Ok(answer) => self.answer_job(job, answer),
                Err(error) => {
                    self.fail(Invariant::Contract, format!("the rows can't be read: {error}"));
                }
            }
        }
    }

    /// Whose call a transaction is, where it came by HTTP.
    fn caller_of(&self, job: &Job) -> Option<usize> {
        match job {
            Job::Call(id, _) => self.caller(*id),
            Job::Ticket(_) | Job::Rest(_) | Job::Sweep(_) => None,
        }
    }

    /// Keeps in mind what a commit did, in the order of its transactions, of which those by HTTP
    /// have a caller.
    fn remember(
        &mut self,
        transactions: &[Transaction],
        callers: &[Option<usize>],
        decided: &Decided,
    ) {
        let mut pushed = BTreeMap::new();
        let judged = transactions.iter().zip(callers).zip(&decided.answers);
        for ((transaction, caller), answer) in judged {
            match (transaction, answer) {
                (Transaction::Hello { client, session, .. }, Ok(Answer::Hello(answer))) => {
                    self.remember_hello(client, *session, answer);
                }
                (Transaction::Writes(run), Ok(Answer::Writes(outcomes))) => {
                    self.remember_outcomes(run.client.as_ref(), outcomes);
                }
                (
                    Transaction::Push(push),
                    Ok(Answer::Pushed(PushOutcome::Judged { outcomes, .. })),
                ) => {
                    self.remember_outcomes(Some(&push.client), outcomes);
                    for outcome in outcomes {
                        if let (Verdict::Applied { seq, .. }, Some(number)) =
                            (&outcome.verdict, outcome.mutation)
                        {
                            let key = (outcome.collection.clone(), *seq);
                            pushed.insert(key, ((push.client.0.clone(), number), *caller));
                        }
                    }
                }
                (_, _) => {}
            }
        }
        for change in &decided.published {
            let by_push = pushed.remove(&(change.collection.clone(), change.seq));
            let (by_push, caller) = by_push.map_or((None, None), |(who, by)| (Some(who), by));
            let numbered = by_push.or_else(|| {
                let origin = change.origin?;
                Some((client_of(transactions, origin.conn)?, origin.mutation?))
            });
            let conn = change.origin.map(|origin| origin.conn);
            // two copies of a replica may still share an id
            let by_client = || self.clients.get(&numbered.as_ref()?.0).copied();
            let by_call = || caller.or_else(by_client).map(Owner::Device);
            let owner = conn.and_then(|conn| self.owner(conn)).or_else(by_call);
            if let (Some(Owner::Device(device)), true) = (owner, numbered.is_some()) {
                self.remember_database(device);
            }
            let committed = self.store.histories.present_mut().push(change, numbered, owner);
            self.committed.push(committed);
        }
    }

    /// A write of a device was taken: by the database that it knows, or one that it has decided on.
    fn remember_database(&mut self, device: usize) {
        let present = database_of(&self.store.rows).expect("the rows can be read");
        let known = std::mem::replace(&mut self.devices[device].database, present.clone());
        if known.is_some() && known != present && !self.devices[device].restored {
            let what = format!("device {device} has sent to {present:?} what was for {known:?}");
            self.fail(Invariant::LossDecided, what);
        }
    }

    fn remember_hello(&mut self, client: &ClientId, session: SessionNumber, answer: &HelloAnswer) {
        match answer {
            HelloAnswer::Open { last_mutation, first_session, .. } => {
                self.server.newest.insert(client.clone(), session);
                if session > SessionNumber(1) && *first_session == Some(session) {
                    self.count("client known anew");
                }
                if self.counts.contains_key("sweep") {
                    let history = self.store.histories.present_mut();
                    if history.forget_number(client, *last_mutation) {
                        self.count("client forgotten");
                    }
                }
            }
            HelloAnswer::Superseded => self.count("superseded hello"),
            HelloAnswer::OtherUser => {}
        }
    }

    fn remember_outcomes(
        &mut self,
        client: Option<&(ClientId, SessionNumber)>,
        outcomes: &[Outcome],
    ) {
        for outcome in outcomes {
            if let (Verdict::Refused { .. }, Some((client, _))) = (&outcome.verdict, client) {
                let place = (outcome.collection.clone(), outcome.record_id.clone());
                self.note_rejection(client, place);
            }
            let point = match &outcome.verdict {
                Verdict::Superseded => "fenced write",
                Verdict::Conflict { current } if is_without_trace(current) => {
                    "conflict without a trace"
                }
                Verdict::Conflict { .. } => "server conflict",
                Verdict::Unchanged { .. } => "write without effect",
                Verdict::Refused { .. } => "refused write",
                Verdict::OutOfOrder { .. } => "out of order",
                Verdict::Applied { .. } => {
                    let newer = |(id, own): &(ClientId, SessionNumber)| {
                        self.server.newest.get(id).is_some_and(|newest| newest > own)
                    };
                    if client.is_some_and(newer) {
                        let what = format!("{client:?} wrote although it was fenced off");
                        self.fail(Invariant::Fencing, what);
                    }
                    continue;
                }
            };
            self.count(point);
        }
    }

    fn answer_job(&mut self, job: Job, answer: Answer) {
        let now = self.server_clock.read(self.now).wall;
        match job {
            Job::Ticket(ticket) => {
                let conn = ticket.conn();
                self.server.answers.push_back((conn, ticket.answer(Ok(answer))));
            }
            Job::Rest(write) => self.replied(&write.reply(now, &self.http, Ok(answer))),
            Job::Call(id, write) => self.reply(id, write.reply(now, &self.http, Ok(answer))),
            Job::Sweep(sweep) => {
                if let Answer::Swept(swept) = answer {
                    *self.counts.entry("swept").or_default() += swept.removed as u64;
                    if let Some(from) = swept.next {
                        self.server.jobs.push_back(Job::Sweep(Sweep { from, ..sweep }));
                    }
                }
            }
        }
    }

    /// The store has failed: everyone who waits is told, and the sessions close.
    fn fail_jobs(&mut self, jobs: Vec<Job>, fate: CommitFate) {
        let now = self.server_clock.read(self.now).wall;
        let error = StoreError::new(
            synclayer_core::words::store::StoreErrorKind::Other,
            "the disk is not well",
        );
        let error = match fate {
            CommitFate::Failed => TransactError::Failed(error),
            CommitFate::Done | CommitFate::DoneUnsaid | CommitFate::LostUnsaid => {
                TransactError::Unknown(error)
            }
        };
        for job in jobs {
            match job {
                Job::Ticket(ticket) => {
                    let conn = ticket.conn();
                    self.server.answers.push_back((conn, ticket.answer(Err(error.clone()))));
                }
                Job::Rest(write) => self.replied(&write.reply(now, &self.http, Err(error.clone()))),
                Job::Call(id, write) => {
                    self.reply(id, write.reply(now, &self.http, Err(error.clone())));
                }
                Job::Sweep(_) => {}
            }
        }
    }

    /// A page is read; its session hears of it later.
    pub fn read(&mut self, index: usize, fails: bool) {
        let Some(waiting) = self.server.reads.remove(index) else { return };
        self.count("read");
        let request = match &waiting {
            PageRead::Ticket(ticket) => ticket.request(),
            PageRead::Call(_, read) => read.request(),
        };
        let answer = if fails {
            self.count("failed read");
            let kind = synclayer_core::words::store::StoreErrorKind::Other;
            Err(StoreError::new(kind, "the disk is not well"))
        } else {
            request.run(&self.store.rows, &*self.config.policy)
        };
        let again = begins_again(request, &answer);
        let outdated = resume_of(request).is_some_and(|epoch| *epoch != self.epoch());
        if again {
            self.count("horizon passed in mid catch-up");
        }
        if outdated {
            self.count("resume of an earlier epoch");
        }
        match waiting {
            PageRead::Ticket(ticket) => {
                self.server.answers.push_back((ticket.conn(), ticket.answer(answer)));
            }
            PageRead::Call(id, read) => self.reply(id, read.reply(answer)),
        }
    }

    /// A session hears an answer.
    pub fn answer(&mut self, index: usize) {
        if let Some((conn, input)) = self.server.answers.remove(index) {
            self.tell(conn, input);
        }
    }

    /// One of the pages that wait is read.
    pub fn read_any(&mut self, which: usize) {
        self.read(which % self.server.reads.len().max(1), false);
    }

    /// One of the answers that wait reaches its session.
    pub fn answer_any(&mut self, which: usize) {
        self.answer(which % self.server.answers.len().max(1));
    }

    /// Asks for a sweep of everything that is older than this.
    pub fn sweep(&mut self, retention: std::time::Duration, budget: usize) {
        self.count("sweep");
        self.note(|| format!("the server sweeps what is older than {retention:?}"));
        let sweep = Sweep { retention, from: SweepPlace::Start, budget };
        self.server.jobs.push_back(Job::Sweep(sweep));
    }

    /// Somebody calls the server by HTTP.
    pub fn rest(&mut self, user: Option<&str>, method: &str, target: &str, body: &str) {
        self.count("HTTP request");
        self.note(|| format!("{method} {target} {body}"));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let user = user.map(user_of);
        let request = Request { method, path, query, body: body.as_bytes(), user };
        match call(&request, &self.http, &*self.config.policy) {
            Call::Immediate(reply) => self.replied(&reply),
            Call::Transact(write) => self.server.jobs.push_back(Job::Rest(write)),
            Call::Read(read) => {
                let answer = read.request().run(&self.store.rows, &*self.config.policy);
                self.replied(&read.reply(answer));
            }
        }
    }

    fn replied(&mut self, reply: &Reply) {
        self.note(|| format!("answer {} {}", reply.status, String::from_utf8_lossy(&reply.body)));
        self.fold_reply(reply);
        self.count(if reply.status < 300 { "HTTP success" } else { "HTTP refusal" });
    }

    /// A session's socket has room.
    pub fn pump(&mut self, conn: ConnId, room: usize) {
        self.tell(conn, ServerInput::Pump { room });
    }

    pub(super) fn tell_ping(&mut self, conn: ConnId) {
        self.tell(conn, ServerInput::Ping);
    }

    /// The token of a connection expires.
    pub fn expire_token(&mut self, conn: ConnId) {
        self.count("expired token");
        self.note(|| format!("the token of {conn} has expired"));
        self.tell(conn, ServerInput::AuthExpired);
    }

    pub(super) fn tell(&mut self, conn: ConnId, input: ServerInput<'_>) {
        let now = self.server_clock.read(self.now);
        let policy = self.config.policy.clone();
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(session) = &mut link.session else { return };
        let rings = &self.server.rings;
        let (user, rate) = (session.status().user, self.config.user_rate);
        let user_bucket = bucket(&mut self.server.buckets, user, rate, now.mono);
        let mut lent = Lent { rings, policy: &*policy, user_bucket };
        let (before, waited) = (session.status().counters, session.status().held);
        let mut actions = Vec::new();
        session.handle(now, input, &mut lent, &mut actions);
        session.check();
        let status = session.status();
        let (behind, late) = (
            status.counters.fell_behind - before.fell_behind,
            status.counters.late_answers - before.late_answers,
        );
        let ignored = status.counters.ignored_writes - before.ignored_writes;
        let bad = status.counters.bad_messages - before.bad_messages;
        let fault = if bad > 0 && matches!(link.owner, Owner::Device(_)) && status.user.is_none() {
            Some("a replica has sent what its server does not understand")
        } else if late > 0 && !status.closed {
            Some("a session got an answer that it did not wait for")
        } else {
            None
        };
        link.awake = true;
        self.act(conn, actions);
        if behind > 0 {
            self.count("fell behind");
        }
        if behind > 0 && waited > 0 {
            self.count("fell behind with verdicts due");
        }
        if ignored > 0 {
            self.count("error in mid pipeline");
        }
        if let Some(fault) = fault {
            self.fail(Invariant::NothingImpossible, format!("{conn}: {fault}"));
        }
        self.sweep_links();
    }

    fn act(&mut self, conn: ConnId, actions: Vec<Action>) {
        for action in actions {
            let Some(link) = self.links.get_mut(&conn) else { return };
            match action {
                Action::Send(frame) => {
                    if link.device_end && !link.silent {
                        link.down.push_back(frame.clone());
                    }
                    self.fold(&frame);
                }
                Action::Follow(collection) => {
                    link.followed.insert(collection);
                }
                Action::Unfollow(collection) => {
                    link.followed.remove(&collection);
                }
                Action::Close { code, reason } => {
                    link.lose_server_end();
                    self.note(|| format!("the server closes {conn}: {code} {reason}"));
                }
                Action::Authenticate(ticket) => {
                    let token = ticket.token().reveal();
                    let user = (!self.expired_tokens.contains(token)).then(|| user_of(token));
                    self.server.answers.push_back((conn, ticket.answer(user)));
                }
                Action::Transact(ticket) => self.server.jobs.push_back(Job::Ticket(ticket)),
                Action::Read(ticket) => self.server.reads.push_back(PageRead::Ticket(ticket)),
            }
        }
    }

    // --- its process ---

    /// The server's process dies and starts again: what was committed is there.
    pub fn crash_server(&mut self) {
        self.count("server crash");
        self.note(|| "the server crashes".into());
        self.restart_server(None);
    }

    /// The server ends as it should, and starts again.
    pub fn shut_server_down(&mut self) {
        self.count("server shutdown");
        self.note(|| "the server shuts down".into());
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.tell(conn, ServerInput::Shutdown);
        }
        self.restart_server(None);
    }

    /// The server's disk takes nothing for a while, or goes on.
    pub fn pause_server_disk(&mut self, paused: bool) {
        self.store.paused = paused;
    }

    /// Whether the server's store takes nothing more before the server starts again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.store.poisoned
    }

    /// What the server holds, as a backup.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let history = self.store.histories.present().clone();
        Backup { rows: self.store.rows.clone(), history }
    }

    /// The server starts again from a backup.
    pub fn restore_server(&mut self, backup: Backup) {
        self.count("server restored");
        self.note(|| "the server starts from a backup".into());
        self.restart_server(Some(backup));
        self.expect_less();
    }

    pub(super) fn start_from(&mut self, backup: Backup) {
        self.restart_server(Some(backup));
        self.expect_less();
    }

    fn restart_server(&mut self, backup: Option<Backup>) {
        self.count("server restart");
        if self.devices.iter().any(|device| device.replica.status().pending_writes > 0) {
            self.count("new epoch with pending writes");
        }
        self.store.poisoned = false;
        let mut restored = None;
        if let Some(Backup { rows, history }) = backup {
            self.store.rows = rows;
            restored = Some(history);
        }
        self.server = Server::new(Rings::new(self.config.ring));
        self.links.values_mut().for_each(super::link::Link::lose_server_end);
        self.drop_served_calls();
        self.begin_epoch(restored);
        self.sweep_links();
    }

    /// The current epoch.
    fn epoch(&self) -> Epoch {
        let id = format!("e{}-{}", self.config.seed, self.store.openings);
        Epoch::new(&id).expect("a valid epoch")
    }

    pub(super) fn begin_epoch(&mut self, restored: Option<History>) {
        self.store.openings += 1;
        let epoch = self.epoch();
        self.store.histories.begin(epoch.clone(), restored);
        let limits = Limits::default();
        let now = self.server_clock.read(self.now).wall;
        let context = Context { policy: &*self.config.policy, limits: &limits, now };
        let proposed = format!("d{}-{}", self.config.seed, self.store.openings);
        let database = DatabaseId::new(&proposed).expect("a valid identity");
        let before = database_of(&self.store.rows).expect("the rows can be read");
        let begin = Transaction::BeginEpoch { epoch, database };
        let decided = decide_all([&begin], &self.store.rows, context);
        self.store.rows.apply(decided.batch);
        let after = database_of(&self.store.rows).expect("the rows can be read");
        if before.is_some_and(|before| after.as_ref() != Some(&before)) {
            let what = "an opening made the server's another database".into();
            self.fail(Invariant::ServerRows, what);
        }
        let report = verify(&self.store.rows).expect("the rows can be read");
        for (collection, head) in report.collections {
            self.server.rings.note_head(&collection, head.seq);
        }
    }

    // --- what can be seen of it ---

    /// What an offline check of the server's rows says.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn verify(&self) -> Report {
        verify(&self.store.rows).expect("the rows can be read")
    }

    /// What was ever committed.
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
        let reader = Reader { collection: collection.clone(), user: None, partial: false };
        let request = ReadRequest::Whole { reader, bytes: usize::MAX };
        match request.run(&self.store.rows, &AllowAll).expect("the rows can be read") {
            ReadAnswer::Whole(Some(records)) => {
                records.into_iter().map(|record| (record.id, record.document)).collect()
            }
            ReadAnswer::Whole(None)
            | ReadAnswer::Page(_)
            | ReadAnswer::Pulled(_)
            | ReadAnswer::Found(_) => {
                unreachable!("the whole collection was asked for")
            }
        }
    }

    /// What the server's rings hold, in bytes.
    #[must_use]
    pub fn ring_bytes(&self) -> usize {
        self.server.rings.bytes()
    }

    /// The sessions that the server has, for their status.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.links.values().filter_map(|link| link.session.as_ref())
    }
}
