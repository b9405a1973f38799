//! A server's hall: sessions on rows in memory; a file plays their clients.
//!
//! The real rules answer a session's requests at once, in the order: transactions, pages, streams;
//! unless the file holds one of them back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use synclayer_core::memory::MemoryRows;
use synclayer_core::rules::policy::{Access, Policy, Rate};
use synclayer_core::rules::record::verify;
use synclayer_core::rules::transaction::{
    Context, Sweep, SweepPlace, TransactError, Transaction, decide_all,
};
use synclayer_core::server::ring::{RingLimits, Rings};
use synclayer_core::server::session::{
    Action, Identity, Input, Lent, ReadTicket, Session, SessionConfig, TransactTicket,
};
use synclayer_core::words::document::Document;
use synclayer_core::words::name::{Collection, ConnId, DatabaseId, Epoch, RecordId, UserId};
use synclayer_core::words::store::{StoreError, StoreErrorKind};
use synclayer_core::words::time::Now;
use synclayer_core::words::write::Change;

use super::client::START;
use super::format::{Step, read};
use super::words::Words;
use super::{Stage, render};

/// The setup of a server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Setup {
    /// The user of each token.
    tokens: BTreeMap<String, String>,
    policy: Rules,
    rate: Option<RateSetup>,
    page_records: Option<usize>,
    document_bytes: Option<usize>,
    subscriptions: Option<usize>,
    bad_frames: Option<u32>,
    window: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateSetup {
    per_second: u32,
    burst: u32,
}

/// A policy as data: nobody reads or writes some collections, and of some each user sees only the
/// records whose field `owner` names them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rules {
    unreadable: BTreeSet<String>,
    unwritable: BTreeSet<String>,
    owned: BTreeSet<String>,
}

impl Rules {
    fn owns(user: Option<&UserId>, document: &Document) -> bool {
        let owner = document.get("owner").map(|text| text.trim_matches('"').to_owned());
        user.is_some_and(|user| owner.as_deref() == Some(&**user))
    }
}

impl Policy for Rules {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if self.unreadable.contains(&**collection) {
            Access::None
        } else if self.owned.contains(&**collection) {
            Access::Some
        } else {
            Access::All
        }
    }

    fn read_record(
        &self,
        user: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        Self::owns(user, document)
    }

    fn write(
        &self,
        _: Option<&UserId>,
        collection: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        match self.unwritable.contains(&**collection) {
            true => Err(format!("nobody writes to {collection}")),
            false => Ok(()),
        }
    }
}

/// An event at a server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Move {
    // the clients
    Accept {
        #[serde(default)]
        user: Option<String>,
        #[serde(default)]
        anonymous: bool,
    },
    Hear(Value),
    HearText(String),
    Heard,
    Gone,
    // the server's side
    Expire,
    Shutdown,
    Restart,
    Backup,
    Restore,
    ForgetRings,
    Sweep {
        #[serde(rename = "retentionMs")]
        retention_ms: u64,
    },
    Hold(Held),
    Release(Held),
    Fail(Failing),
    // time
    Tick(u64),
    Clock(i64),
}

/// The kinds of answers that can be held back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Held {
    Transactions,
    /// Verdicts of transactions that are committed and published.
    Verdicts,
    Reads,
    Streams,
}

/// The failures of the next transactions or reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Failing {
    /// Nothing has happened.
    Transaction,
    /// It is not known if the transaction was committed.
    TransactionUnknown,
    Read,
}

struct Conn {
    session: Session,
    transactions: Vec<TransactTicket>,
    reads: Vec<ReadTicket>,
}

/// The hall.
pub(crate) struct Hall {
    setup: Setup,
    config: Arc<SessionConfig>,
    rows: MemoryRows,
    backup: MemoryRows,
    rings: Rings,
    conns: BTreeMap<u64, Conn>,
    now: Now,
    epochs: u64,
    held: BTreeSet<Held>,
    verdicts: Vec<(u64, Input<'static>)>,
    failing: Option<Failing>,
    /// The connection of the step, which goes without saying.
    current: u64,
    out: Vec<Value>,
}

impl Hall {
    pub(crate) fn new(config: &Value) -> Result<Self, String> {
        let setup: Setup = if config.is_null() { Setup::default() } else { read(config)? };
        let rate = setup.rate.map(|rate| Rate { per_second: rate.per_second, burst: rate.burst });
        let mut config = SessionConfig { rate, ..SessionConfig::default() };
        config.page.records = setup.page_records.unwrap_or(config.page.records);
        config.limits.document_bytes = setup.document_bytes.unwrap_or(config.limits.document_bytes);
        config.subscriptions = setup.subscriptions.unwrap_or(config.subscriptions);
        config.bad_frames = setup.bad_frames.unwrap_or(config.bad_frames);
        config.window = setup.window.unwrap_or(config.window);
        let mut hall = Self {
            setup,
            config: Arc::new(config),
            rows: MemoryRows::new(),
            backup: MemoryRows::new(),
            rings: Rings::new(ring_limits()),
            conns: BTreeMap::new(),
            now: START,
            epochs: 0,
            held: BTreeSet::new(),
            verdicts: Vec::new(),
            failing: None,
            current: 1,
            out: Vec::new(),
        };
        hall.begin_epoch()?;
        Ok(hall)
    }

    fn begin_epoch(&mut self) -> Result<(), String> {
        self.epochs += 1;
        let epoch = Epoch::new(&format!("e{}", self.epochs)).map_err(|error| error.to_string())?;
        // only the first one counts
        let database = DatabaseId::new(&format!("d{}", self.epochs)).map_err(|e| e.to_string())?;
        self.decide(&Transaction::BeginEpoch { epoch, database });
        self.forget_rings()
    }

    fn forget_rings(&mut self) -> Result<(), String> {
        self.rings = Rings::new(ring_limits());
        let report = verify(&self.rows).map_err(|error| error.message)?;
        for (collection, head) in report.collections {
            self.rings.note_head(&collection, head.seq);
        }
        Ok(())
    }

    fn decide(&mut self, transaction: &Transaction) {
        let context =
            Context { policy: &self.setup.policy, limits: &self.config.limits, now: self.now.wall };
        let decided = decide_all([transaction], &self.rows, context);
        self.rows.apply(decided.batch);
        decided.published.iter().for_each(|change| self.rings.publish(change));
    }

    fn make(&mut self, made: Move) -> Result<(), String> {
        let conn = self.current;
        match made {
            Move::Accept { user, anonymous } => {
                let identity = match user {
                    Some(user) => Identity::Known(user_id(&user)?),
                    None if anonymous => Identity::Unknown,
                    None => Identity::Open,
                };
                let session = Session::new(self.config.clone(), ConnId(conn), identity, self.now);
                let new = Conn { session, transactions: Vec::new(), reads: Vec::new() };
                self.conns.insert(conn, new);
            }
            Move::Hear(frames) => {
                for frame in Words::default().frames(&frames)? {
                    self.tell(conn, Input::Frame(frame.as_bytes()))?;
                }
            }
            Move::HearText(text) => self.tell(conn, Input::Frame(text.as_bytes()))?,
            Move::Heard => self.tell(conn, Input::Ping)?,
            Move::Gone => {
                self.tell(conn, Input::Closed)?;
                self.conns.remove(&conn);
            }
            Move::Expire => self.tell(conn, Input::AuthExpired)?,
            Move::Shutdown => {
                for conn in self.conns.keys().copied().collect::<Vec<_>>() {
                    self.tell(conn, Input::Shutdown)?;
                }
            }
            Move::Restart => {
                self.conns.clear();
                self.begin_epoch()?;
            }
            Move::Backup => self.backup = self.rows.clone(),
            Move::Restore => {
                self.conns.clear();
                self.rows = self.backup.clone();
                self.begin_epoch()?;
            }
            Move::ForgetRings => self.forget_rings()?,
            Move::Sweep { retention_ms } => self.decide(&Transaction::Sweep(Sweep {
                retention: Duration::from_millis(retention_ms),
                from: SweepPlace::default(),
                budget: usize::MAX,
            })),
            Move::Hold(what) => {
                self.held.insert(what);
            }
            Move::Release(what) => {
                self.held.remove(&what);
            }
            Move::Fail(how) => self.failing = Some(how),
            Move::Tick(millis) => return self.tick(millis),
            Move::Clock(millis) => self.now.wall.0 += millis,
        }
        self.settle()
    }

    /// Lets time pass, and everything that is due with it happen at its moment.
    fn tick(&mut self, millis: u64) -> Result<(), String> {
        let end = self.now.mono.0 + millis;
        for _ in 0..1_000 {
            let deadline = |(conn, state): (&u64, &Conn)| {
                state.session.deadline().map(|(at, timer)| (at, *conn, timer))
            };
            let due = self.conns.iter().filter_map(deadline).min();
            let to = due.map_or(end, |(at, _, _)| at.0.min(end)).max(self.now.mono.0);
            self.now.wall.0 += i64::try_from(to - self.now.mono.0).unwrap_or(0);
            self.now.mono.0 = to;
            match due.filter(|(at, _, _)| at.0 <= end) {
                None => return Ok(()),
                Some((_, conn, timer)) => {
                    let name = format!("{timer:?}").to_lowercase();
                    self.note(conn, json!({"timer": name}));
                    self.tell(conn, Input::Timeout)?;
                    self.settle()?;
                }
            }
        }
        Err("the sessions' deadlines never end".into())
    }

    fn tell(&mut self, conn: u64, input: Input<'_>) -> Result<(), String> {
        let Some(state) = self.conns.get_mut(&conn) else {
            return Err(format!("there is no connection {conn}"));
        };
        let mut actions = Vec::new();
        let mut lent = Lent { rings: &self.rings, policy: &self.setup.policy, user_bucket: None };
        state.session.handle(self.now, input, &mut lent, &mut actions);
        state.session.check();
        let mut later = Vec::new();
        for action in actions {
            match action {
                Action::Send(frame) => later.push(Ok(json!({"send": render::frame(&frame)}))),
                Action::Close { code, reason } => {
                    later.push(Ok(json!({"close": code, "reason": reason})));
                }
                Action::Authenticate(ticket) => later.push(Err(ticket)),
                Action::Transact(ticket) => state.transactions.push(ticket),
                Action::Read(ticket) => state.reads.push(ticket),
                Action::Follow(_) | Action::Unfollow(_) => {}
            }
        }
        for one in later {
            match one {
                Ok(shown) => self.note(conn, shown),
                Err(ticket) => {
                    let user = self.setup.tokens.get(ticket.token().reveal());
                    let user = user.map(|user| user_id(user)).transpose()?;
                    self.tell(conn, ticket.answer(user))?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, conn: u64, mut shown: Value) {
        if conn != self.current {
            shown["conn"] = json!(conn);
        }
        self.out.push(shown);
    }

    /// Does everything that is to do and is not held back.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..10_000 {
            let moved = [self.commit()?, self.judge()?, self.read()?, self.pump()?];
            if !moved.contains(&true) {
                return Ok(());
            }
        }
        Err("the server never settles".into())
    }

    fn commit(&mut self) -> Result<bool, String> {
        if self.held.contains(&Held::Transactions) {
            return Ok(false);
        }
        let mut tickets = Vec::new();
        for (conn, state) in &mut self.conns {
            tickets.extend(state.transactions.drain(..).map(|ticket| (*conn, ticket)));
        }
        if tickets.is_empty() {
            return Ok(false);
        }
        let error = || StoreError::new(StoreErrorKind::Other, "the disk has failed");
        match self.failing.take_if(|how| *how != Failing::Read) {
            Some(how) => {
                for (conn, ticket) in tickets {
                    let why = match how {
                        Failing::TransactionUnknown => TransactError::Unknown(error()),
                        Failing::Transaction | Failing::Read => TransactError::Failed(error()),
                    };
                    self.tell(conn, ticket.answer(Err(why)))?;
                }
            }
            None => {
                let context = Context {
                    policy: &self.setup.policy,
                    limits: &self.config.limits,
                    now: self.now.wall,
                };
                let transactions = tickets.iter().map(|(_, ticket)| ticket.transaction());
                let decided = decide_all(transactions, &self.rows, context);
                self.rows.apply(decided.batch);
                decided.published.iter().for_each(|change| self.rings.publish(change));
                for ((conn, ticket), answer) in tickets.into_iter().zip(decided.answers) {
                    let verdict = ticket.answer(answer.map_err(TransactError::Failed));
                    self.verdicts.push((conn, verdict));
                }
            }
        }
        Ok(true)
    }

    /// Tells the sessions what became of their transactions.
    fn judge(&mut self) -> Result<bool, String> {
        if self.verdicts.is_empty() || self.held.contains(&Held::Verdicts) {
            return Ok(false);
        }
        for (conn, verdict) in std::mem::take(&mut self.verdicts) {
            self.tell(conn, verdict)?;
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<bool, String> {
        if self.held.contains(&Held::Reads) {
            return Ok(false);
        }
        let mut tickets = Vec::new();
        for (conn, state) in &mut self.conns {
            tickets.extend(state.reads.drain(..).map(|ticket| (*conn, ticket)));
        }
        let moved = !tickets.is_empty();
        for (conn, ticket) in tickets {
            let answer = match self.failing.take_if(|how| *how == Failing::Read) {
                Some(_) => Err(StoreError::new(StoreErrorKind::Other, "the disk has failed")),
                None => ticket.request().run(&self.rows, &self.setup.policy),
            };
            self.tell(conn, ticket.answer(answer))?;
        }
        Ok(moved)
    }

    fn pump(&mut self) -> Result<bool, String> {
        if self.held.contains(&Held::Streams) {
            return Ok(false);
        }
        let wants = |state: &Conn| state.session.wants_pump(&self.rings);
        let conns = self.conns.iter().filter(|(_, state)| wants(state)).map(|(conn, _)| *conn);
        let conns: Vec<_> = conns.collect();
        for conn in &conns {
            self.tell(*conn, Input::Pump { room: 1 << 20 })?;
        }
        Ok(!conns.is_empty())
    }
}

impl Stage for Hall {
    fn step(&mut self, step: &Step) -> Result<Vec<Value>, String> {
        self.current = step.conn.unwrap_or(1);
        self.make(read(&step.input)?)?;
        Ok(std::mem::take(&mut self.out))
    }

    fn unfinished(&self) -> Option<String> {
        self.failing.map(|how| format!("nothing came that was to fail ({how:?})"))
    }
}

fn ring_limits() -> RingLimits {
    RingLimits { documents: true, ..RingLimits::default() }
}

fn user_id(name: &str) -> Result<UserId, String> {
    UserId::new(name).map_err(|error| format!("{name}: {error}"))
}
