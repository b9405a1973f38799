//! The server of a scenario: sessions on rows in memory; a file plays their clients.
//!
//! The real rules answer a session's requests at once, in the order: transactions, pages, streams;
//! unless the file holds one of them back.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use synclayer_core::rules::verify;
use synclayer_core::testing::{Checked, InspectHub};
use synclayer_core::{
    CallId, Collection, ConnId, DatabaseId, Epoch, Hub, HubAction, HubConfig, HubInput, Identity,
    MemoryRows, Now, Policy, Rate, Request, ScopeKey, SessionInput, StoreError, StoreErrorKind,
    Sweep, SweepPlace, TransactError, Transaction,
};

use rights::{Lists, RuleTexts, TokenOf, known, rules};

use super::client::START;
use super::format::{Step, read};
use super::words::Words;
use super::{Stage, render};

/// The setup of a server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ServerSetup {
    /// The user of each token.
    tokens: BTreeMap<String, TokenOf>,
    policy: Lists,
    rules: Option<RuleTexts>,
    rate: Option<RateSetup>,
    page_records: Option<usize>,
    document_bytes: Option<usize>,
    collection_records: Option<u64>,
    collection_bytes: Option<u64>,
    collections: Option<u64>,
    user_clients: Option<u64>,
    subscriptions: Option<usize>,
    bad_frames: Option<u32>,
    window: Option<usize>,
    plain_updates: PlainUpdates,
    /// The scope keys of each collection.
    scopes: BTreeMap<String, Vec<String>>,
}

/// The content of an `update` to a level-1 reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PlainUpdates {
    #[default]
    Fields,
    Whole,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RateSetup {
    per_second: u32,
    burst: u32,
}

/// An event at a server.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum ServerMove {
    // the clients
    Accept {
        #[serde(default)]
        user: Option<String>,
        /// The claims of the user's token.
        #[serde(default)]
        claims: Option<Value>,
        #[serde(default)]
        anonymous: bool,
    },
    Hear(Value),
    HearText(String),
    Heard,
    Gone,
    /// A request by HTTP.
    Call(CallSetup),
    // the server's side
    /// Other rules, from now on.
    Rules(RuleTexts),
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
    Fail(NextFailure),
    // time
    Tick(u64),
    Clock(i64),
}

/// A request by HTTP.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CallSetup {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    claims: Option<Value>,
    method: String,
    /// With its query, if it has one.
    path: String,
    #[serde(default)]
    body: Value,
}

/// The kinds of answers that can be held back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Held {
    Transactions,
    /// Verdicts of transactions that are committed and published.
    Verdicts,
    Reads,
    /// Answers of reads, and verdicts.
    Answers,
    Streams,
}

/// The failures of the next transactions or reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum NextFailure {
    /// Nothing has happened.
    Transaction,
    /// It is not known if the transaction was committed.
    TransactionUnknown,
    /// The same, and it was.
    TransactionDone,
    Read,
}

/// The server of a scenario.
pub(crate) struct ServerSide {
    /// The user of each token.
    tokens: BTreeMap<String, TokenOf>,
    policy: Arc<dyn Policy>,
    config: HubConfig,
    hub: Hub,
    rows: MemoryRows,
    backup: MemoryRows,
    now: Now,
    epochs: u64,
    calls: u64,
    held: BTreeSet<Held>,
    failing: Option<NextFailure>,
    /// The connections that have something to send, as far as their sessions were told.
    awake: BTreeSet<ConnId>,
    /// The connection of the step, which goes without saying.
    current: u64,
    out: Vec<Value>,
}

impl ServerSide {
    pub(crate) fn new(config: &Value) -> Result<Self, String> {
        let setup: ServerSetup =
            if config.is_null() { ServerSetup::default() } else { read(config)? };
        let rate = setup.rate.map(|rate| Rate { per_second: rate.per_second, burst: rate.burst });
        let mut config = HubConfig::default();
        let limits = &mut config.limits;
        limits.rate = rate;
        limits.page.records = setup.page_records.unwrap_or(limits.page.records);
        limits.input.document_bytes = setup.document_bytes.unwrap_or(limits.input.document_bytes);
        for (limit, set) in [
            (&mut limits.input.collection_records, setup.collection_records),
            (&mut limits.input.collection_bytes, setup.collection_bytes),
            (&mut limits.input.collections, setup.collections),
            (&mut limits.input.user_clients, setup.user_clients),
        ] {
            *limit = set.unwrap_or(*limit);
        }
        limits.subscriptions = setup.subscriptions.unwrap_or(limits.subscriptions);
        limits.bad_frames = setup.bad_frames.unwrap_or(limits.bad_frames);
        limits.window = setup.window.unwrap_or(limits.window);
        (config.rings.documents, config.turns) = (true, 1);
        config.rings.plain_whole = setup.plain_updates == PlainUpdates::Whole;
        let policy: Arc<dyn Policy> = match setup.rules {
            Some(texts) => Arc::new(rules(&texts)?),
            None => Arc::new(setup.policy),
        };
        let mut server = Self {
            tokens: setup.tokens,
            hub: Hub::new(config.clone(), Arc::clone(&policy), []),
            policy,
            config,
            rows: MemoryRows::default(),
            backup: MemoryRows::default(),
            now: START,
            epochs: 0,
            calls: 0,
            held: BTreeSet::new(),
            failing: None,
            awake: BTreeSet::new(),
            current: 1,
            out: Vec::new(),
        };
        server.begin_epoch()?;
        server.declare(&setup.scopes)?;
        Ok(server)
    }

    fn declare(&mut self, scopes: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
        if scopes.is_empty() {
            return Ok(());
        }
        let mut keys = BTreeMap::new();
        for (name, texts) in scopes {
            let collection = Collection::new(name).map_err(|error| error.to_string())?;
            let parsed: Result<Vec<ScopeKey>, _> = texts.iter().map(|text| text.parse()).collect();
            keys.insert(collection, parsed.map_err(|error| error.to_string())?);
        }
        let decision =
            Transaction::DeclareScopes(keys).decide(&self.rows, self.hub.context(self.now));
        self.rows.apply(decision.map_err(|error| error.message)?.batch);
        Ok(())
    }

    fn begin_epoch(&mut self) -> Result<(), String> {
        self.epochs += 1;
        let epoch = Epoch::new(&format!("e{}", self.epochs)).map_err(|error| error.to_string())?;
        // only the first one counts
        let database = DatabaseId::new(&format!("d{}", self.epochs)).map_err(|e| e.to_string())?;
        let begin = Transaction::BeginEpoch { epoch, database };
        self.hub = Hub::new(self.config.clone(), Arc::clone(&self.policy), []);
        let decision = begin.decide(&self.rows, self.hub.context(self.now));
        self.rows.apply(decision.map_err(|error| error.message)?.batch);
        self.forget_rings()
    }

    fn forget_rings(&mut self) -> Result<(), String> {
        let heads = verify(&self.rows).map_err(|error| error.message)?.collections;
        self.hub.forget_changes(heads.into_iter().map(|(name, head)| (name, head.seq)));
        Ok(())
    }

    fn make(&mut self, made: ServerMove) -> Result<(), String> {
        let conn = self.current;
        match made {
            ServerMove::Accept { user, claims, anonymous } => {
                let identity = match user {
                    Some(user) => Identity::Known(known(&user, claims.as_ref())?),
                    None if anonymous => Identity::Unknown,
                    None => Identity::Open,
                };
                self.handle(HubInput::Accepted { conn: ConnId(conn), identity })?;
            }
            ServerMove::Hear(frames) => {
                for frame in Words::default().frames(&frames)? {
                    self.tell(conn, SessionInput::Frame(frame.as_bytes()))?;
                }
            }
            ServerMove::HearText(text) => self.tell(conn, SessionInput::Frame(text.as_bytes()))?,
            ServerMove::Heard => self.tell(conn, SessionInput::Ping)?,
            ServerMove::Gone => {
                self.tell(conn, SessionInput::Closed)?;
            }
            ServerMove::Call(call) => self.call(&call)?,
            ServerMove::Rules(texts) => {
                self.policy = Arc::new(rules(&texts)?);
                self.hub.set_policy(Arc::clone(&self.policy));
                let conns: Vec<_> = self.hub.sessions().map(|(conn, _)| conn).collect();
                for conn in conns {
                    self.tell(conn.0, SessionInput::RightsChanged)?;
                }
            }
            ServerMove::Expire => self.tell(conn, SessionInput::AuthExpired)?,
            ServerMove::Shutdown => self.handle(HubInput::Shutdown)?,
            ServerMove::Restart => self.begin_epoch()?,
            ServerMove::Backup => self.backup = self.rows.clone(),
            ServerMove::Restore => {
                self.rows = self.backup.clone();
                self.begin_epoch()?;
            }
            ServerMove::ForgetRings => self.forget_rings()?,
            ServerMove::Sweep { retention_ms } => self.handle(HubInput::Sweep(Sweep {
                retention: Duration::from_millis(retention_ms),
                from: SweepPlace::default(),
                budget: usize::MAX,
            }))?,
            ServerMove::Hold(what) => {
                self.held.insert(what);
            }
            ServerMove::Release(what) => {
                self.held.remove(&what);
            }
            ServerMove::Fail(how) => self.failing = Some(how),
            ServerMove::Tick(millis) => return self.tick(millis),
            ServerMove::Clock(millis) => self.now.wall.0 += millis,
        }
        self.settle()
    }

    fn call(&mut self, asked: &CallSetup) -> Result<(), String> {
        self.calls += 1;
        let user =
            asked.user.as_ref().map(|user| known(user, asked.claims.as_ref())).transpose()?;
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let body = if asked.body.is_null() { String::new() } else { asked.body.to_string() };
        let (method, body) = (&*asked.method, body.as_bytes());
        let request = Request { method, path, query, body, user };
        self.handle(HubInput::Call { call: CallId(self.calls), request })
    }

    /// Lets time pass, and everything that is due with it happen at its moment.
    fn tick(&mut self, millis: u64) -> Result<(), String> {
        let end = self.now.mono.0 + millis;
        for _ in 0..1_000 {
            let due = self.hub.sessions().filter_map(|(conn, session)| {
                session.deadline().map(|(at, timer)| (at, conn.0, timer))
            });
            let due = due.min();
            let to = due.map_or(end, |(at, _, _)| at.0.min(end)).max(self.now.mono.0);
            self.now.wall.0 += i64::try_from(to - self.now.mono.0).unwrap_or(0);
            self.now.mono.0 = to;
            match due.filter(|(at, _, _)| at.0 <= end) {
                None => return Ok(()),
                Some((_, conn, timer)) => {
                    let name = format!("{timer:?}").to_lowercase();
                    self.note(conn, json!({"timer": name}));
                    self.tell(conn, SessionInput::Timeout)?;
                    self.settle()?;
                }
            }
        }
        Err("the sessions' deadlines never end".into())
    }

    fn tell(&mut self, conn: u64, input: SessionInput<'_>) -> Result<(), String> {
        let conn = ConnId(conn);
        if self.hub.session(conn).is_none() {
            return Err(format!("there is no connection {conn}"));
        }
        self.handle(HubInput::Session { conn, input })
    }

    fn handle(&mut self, input: HubInput<'_>) -> Result<(), String> {
        if let HubInput::Session { conn, .. } = &input {
            self.awake.insert(*conn);
        }
        let mut out = Vec::new();
        self.hub.handle(self.now, input, &mut out);
        self.act(out)
    }

    /// Hands out one of the answers that wait.
    fn answer(&mut self, nth: usize) -> Result<(), String> {
        let mut out = Vec::new();
        let conn = self.hub.waiting_answers().nth(nth);
        self.awake.extend(conn);
        self.hub.answer(self.now, nth, &mut out);
        self.act(out)
    }

    fn act(&mut self, actions: Vec<HubAction>) -> Result<(), String> {
        self.hub.check().expect("its invariants hold");
        for action in actions {
            match action {
                HubAction::Send { conn, frame } => {
                    self.note(conn.0, json!({"send": render::frame(&frame)}));
                }
                HubAction::Close { conn, code, reason } => {
                    self.note(conn.0, json!({"close": code, "reason": reason}));
                }
                HubAction::Authenticate(ticket) => {
                    let user = self.tokens.get(ticket.question().reveal());
                    let user = user.map(TokenOf::user).transpose()?;
                    let last = self.hub.waiting_answers().len();
                    self.hub.authenticated(ticket, user);
                    self.answer(last)?;
                }
                HubAction::Wake(conn) => {
                    self.awake.insert(conn);
                }
                HubAction::Reply { call, reply } => {
                    let body = if reply.body.is_empty() {
                        Value::Null
                    } else {
                        render::frame(&reply.body)
                    };
                    self.out.push(json!({"reply": call.0, "status": reply.status, "body": body}));
                }
                HubAction::Commit | HubAction::Read | HubAction::Swept(_) => {}
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
        let Some(mut batch) = self.hub.next_batch(usize::MAX) else { return Ok(false) };
        let error = || StoreError::new(StoreErrorKind::Other, "the disk has failed");
        let ended = match self.failing.take_if(|how| *how != NextFailure::Read) {
            Some(NextFailure::TransactionUnknown) => Err(TransactError::Unknown(error())),
            Some(NextFailure::TransactionDone) => {
                self.rows.apply(batch.decide(&self.rows, self.hub.context(self.now)));
                Err(TransactError::Unknown(error()))
            }
            Some(NextFailure::Transaction | NextFailure::Read) => {
                Err(TransactError::Failed(error()))
            }
            None => {
                self.rows.apply(batch.decide(&self.rows, self.hub.context(self.now)));
                Ok(())
            }
        };
        let mut out = Vec::new();
        self.hub.settle(self.now, batch, ended, &mut out);
        self.act(out)?;
        Ok(true)
    }

    /// Tells the sessions what became of their transactions.
    fn judge(&mut self) -> Result<bool, String> {
        if [Held::Verdicts, Held::Answers].iter().any(|it| self.held.contains(it)) {
            return Ok(false);
        }
        let waiting = self.hub.waiting_answers().len();
        for _ in 0..waiting {
            self.answer(0)?;
        }
        Ok(waiting > 0)
    }

    fn read(&mut self) -> Result<bool, String> {
        if self.held.contains(&Held::Reads) {
            return Ok(false);
        }
        let waiting = self.hub.waiting_reads();
        for _ in 0..waiting {
            let Some(read) = self.hub.take_read(0) else { break };
            let found = match self.failing.take_if(|how| *how == NextFailure::Read) {
                Some(_) => Err(StoreError::new(StoreErrorKind::Other, "the disk has failed")),
                None => self.hub.run_read(&read, &self.rows),
            };
            let (last, mut out) = (self.hub.waiting_answers().len(), Vec::new());
            self.hub.finish_read(read, found, &mut out);
            self.act(out)?;
            if !self.held.contains(&Held::Answers) {
                self.answer(last)?;
            }
        }
        Ok(waiting > 0)
    }

    fn pump(&mut self) -> Result<bool, String> {
        if self.held.contains(&Held::Streams) {
            return Ok(false);
        }
        // a session that is not woken has nothing to say, whatever was committed
        let awake = std::mem::take(&mut self.awake);
        let mut moved = false;
        for conn in awake {
            if self.hub.session(conn).is_some() && self.hub.wants_room(conn) {
                moved = true;
                self.awake.insert(conn);
                self.handle(HubInput::Room { conn, room: 1 << 20 })?;
            }
        }
        Ok(moved)
    }
}

impl Stage for ServerSide {
    fn step(&mut self, step: &Step) -> Result<Vec<Value>, String> {
        self.current = step.conn.unwrap_or(1);
        self.make(read(&step.input)?)?;
        Ok(std::mem::take(&mut self.out))
    }

    fn unfinished(&self) -> Option<String> {
        self.failing.map(|how| format!("nothing came that was to fail ({how:?})"))
    }
}
