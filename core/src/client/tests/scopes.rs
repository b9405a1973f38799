//! Sets of scopes, against a model of a server: whatever is written, moved, deleted, taken out, cut, lost
//! and restored, a replica holds in the end exactly what the server has in its scopes, and no base ever
//! vouches for a change that the replica was not told of.

mod server;

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use self::server::{Connection, Server, frame, scopes_of, todos};
use crate::checked::Checked;
use crate::client::config::{ClientConfig, OnServerLoss};
use crate::client::event::ScopeStanding;
use crate::client::failure::{ConnectFailure, FailureCause};
use crate::client::interface::{Command, Disconnect, Input, NetAction, Write};
use crate::client::replica::{Action, Replica, WatchId};
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::message::{ClientMessage, Mutation, ServerMessage};
use crate::protocol::name::{ConnId, RecordId};
use crate::protocol::random::Random;
use crate::protocol::time::{Mono, Now, Timestamp};
use crate::protocol::wire::{Incoming, decode_client};
use crate::protocol::write::Change;
use crate::rules::conflict::ConflictStrategy;
use crate::rules::query::{Query, QuerySnapshot};
use crate::rules::scope::NamedScope;
use crate::store::MemoryClientStore;

/// The scopes that the app may use.
const SCOPES: [&[(&str, &str)]; 6] = [
    &[("room", "1")],
    &[("room", "2")],
    &[("room", "3")],
    &[("tags[]", "\"x\"")],
    &[("tags[]", "\"y\"")],
    &[("room", "1"), ("kind", "true")],
];
const IDS: [&str; 3] = ["a", "b", "c"];

struct World {
    random: Random,
    now: u64,
    server: Server,
    saved: Server,
    epochs: u64,
    replica: Replica<MemoryClientStore>,
    store: MemoryClientStore,
    config: ClientConfig,
    /// The connection that the replica has, if it is up at the server.
    conn: Option<(ConnId, Connection)>,
    conns: u64,
    up: Vec<ClientMessage>,
    used: BTreeSet<usize>,
    /// A query of each scope, with its latest update.
    queries: Vec<(WatchId, QuerySnapshot)>,
    /// The seq up to which the replica was told of each record.
    told: BTreeMap<RecordId, u64>,
    drawn: u64,
    trace: Vec<String>,
}

fn scope(which: usize) -> NamedScope {
    NamedScope::new(SCOPES[which].iter().copied()).unwrap()
}

/// The scope's name in the model.
fn text(which: usize) -> String {
    let mut parts: Vec<_> =
        SCOPES[which].iter().map(|(part, json)| format!("{part}={json}")).collect();
    parts.sort();
    parts.join("+")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(u128::from(seed));
        let pick = below(&mut random, 3);
        let strategies = [
            ConflictStrategy::LastWriteWins,
            ConflictStrategy::ClientWins,
            ConflictStrategy::ServerWins,
        ];
        let config = ClientConfig {
            conflict_strategy: strategies.into_iter().nth(pick).unwrap(),
            on_server_loss: Some(OnServerLoss::Adopt),
            keep_scopes_for: Duration::from_secs(20),
            ..ClientConfig::default()
        };
        let (store, mut out) = (MemoryClientStore::default(), Vec::new());
        let now = Now { mono: Mono(1_000), wall: Timestamp(1_000) };
        let replica =
            Replica::open(config.clone(), u128::from(seed), now, store.clone(), &mut out).unwrap();
        let mut world = Self {
            random,
            now: 1_000,
            server: Server::new(),
            saved: Server::new(),
            epochs: 1,
            replica,
            store,
            config,
            conn: None,
            conns: 0,
            up: Vec::new(),
            used: BTreeSet::new(),
            queries: Vec::new(),
            told: BTreeMap::new(),
            drawn: 0,
            trace: Vec::new(),
        };
        world.watch();
        world.do_all(out);
        world.command(Command::Connect);
        world
    }

    /// Watches a query of each scope.
    fn watch(&mut self) {
        let (replica, mut out) = (&mut self.replica, Vec::new());
        let watched = (0..SCOPES.len()).map(|which| {
            let predicate = scope(which).condition().unwrap();
            let query = Query { predicate, ..Query::default() };
            let watch = replica.watch_query(&todos(), Some(scope(which)), query, &mut out).unwrap();
            (watch, replica.take_query(watch).unwrap().snapshot)
        });
        self.queries = watched.collect();
    }

    /// Checks that a query that says it is complete asks about a scope that is held.
    fn check_queries(&mut self) {
        let of_collection = self.replica.status().collections.remove(&todos());
        let held = of_collection.and_then(|status| status.scopes).unwrap_or_default();
        for (which, (watch, latest)) in self.queries.iter_mut().enumerate() {
            if let Some(update) = self.replica.take_query(*watch) {
                *latest = update.snapshot;
            }
            let is_held = held.get(&scope(which)) == Some(&ScopeStanding::Loaded);
            assert!(is_held || !latest.is_complete(), "{which} is complete and not held");
        }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.now), wall: Timestamp(self.now as i64) }
    }

    fn below(&mut self, n: usize) -> usize {
        below(&mut self.random, n)
    }

    fn command(&mut self, command: Command) {
        self.trace.push(format!("{command:?}"));
        let (now, mut out) = (self.now(), Vec::new());
        self.replica.command(now, command, &mut out);
        self.do_all(out);
    }

    fn input(&mut self, input: Input<'_>) {
        let (now, mut out) = (self.now(), Vec::new());
        self.replica.handle(now, input, &mut out);
        self.do_all(out);
    }

    fn do_all(&mut self, out: Vec<Action>) {
        self.store = self.replica.store().clone();
        for action in out {
            match action {
                Action::Net(NetAction::Connect { conn, .. }) => {
                    self.conns += 1;
                    self.up.clear();
                    self.conn = Some((conn, Connection::new(self.conns)));
                }
                Action::Net(NetAction::Send { conn, frame }) if self.is_on(conn) => {
                    self.sent(&frame);
                }
                Action::Net(NetAction::Close { conn }) if self.is_on(conn) => self.conn = None,
                Action::Event(event) => self.trace.push(format!("    {:?}", event.kind)),
                Action::Halted(error) => panic!("{error}"),
                _ => {}
            }
        }
        if let Err(error) = self.replica.check() {
            self.fail(&error);
        }
        self.check_queries();
    }

    fn is_on(&self, conn: ConnId) -> bool {
        self.conn.as_ref().is_some_and(|(of, _)| *of == conn)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}\n{:#?}", self.trace.join("\n"), self.server.records)
    }

    fn sent(&mut self, frame: &[u8]) {
        self.trace.push(format!("  > {}", String::from_utf8_lossy(frame)));
        match decode_client(frame, &Limits::default()).unwrap() {
            Incoming::One(message) => {
                if let ClientMessage::Write(mutation) = &message {
                    self.check_base(mutation);
                }
                self.up.push(message);
            }
            Incoming::Batch(_) => panic!("the server takes no batches"),
        }
    }

    /// A base vouches for no change of another writer that the replica was not told of.
    fn check_base(&self, mutation: &Mutation) {
        let Some(base) = mutation.base else { return };
        let told = self.told.get(&mutation.record_id).copied().unwrap_or(0);
        for (entry, seq) in self.server.log.iter().zip(1..) {
            let is_others = entry.id == mutation.record_id && entry.by == (0, 0);
            let is_vouched = seq <= base.0 && entry.touches(&mutation.change);
            if is_others && is_vouched && seq > told {
                self.fail(&format!("base {base:?} vouches for {seq} of {}", entry.id));
            }
        }
    }

    fn told(&mut self, id: &RecordId, seq: u64) {
        let told = self.told.entry(id.clone()).or_default();
        *told = seq.max(*told);
    }

    /// The replica reads the next message.
    fn read(&mut self) {
        let Some((conn, connection)) = &mut self.conn else { return };
        let (conn, Some(message)) = (*conn, connection.out.pop_front()) else { return };
        let bytes = frame(&message);
        self.trace.push(format!("  < {}", String::from_utf8_lossy(&bytes)));
        match &message {
            ServerMessage::Change { record_id, change, .. } => {
                self.told(record_id, change.seq.unwrap().0);
            }
            ServerMessage::Load(page) => {
                for record in &page.records {
                    self.told(&record.id, record.seq.unwrap().0);
                }
                page.left.iter().for_each(|left| self.told(&left.id, left.seq.0));
            }
            ServerMessage::Ack(ack) => {
                let seq = ack.seq.or(ack.echo.as_ref().and_then(|echo| echo.seq));
                seq.iter().for_each(|seq| self.told(&ack.record_id, seq.0));
            }
            ServerMessage::Error(error) => {
                if let (Some(id), Some(current)) = (&error.record_id, &error.current) {
                    self.told(id, current.seq.unwrap().0);
                }
            }
            _ => {}
        }
        self.input(Input::Frame { conn, frame: &bytes });
    }

    fn connect(&mut self) {
        if let Some((conn, _)) = self.conn {
            self.input(Input::Connected { conn });
        }
    }

    fn cut(&mut self) {
        if let Some((conn, _)) = self.conn.take() {
            self.trace.push("cut".into());
            self.up.clear();
            let why = Disconnect::Lost(ConnectFailure::new(FailureCause::Lost, "cut"));
            self.input(Input::Disconnected { conn, why });
        }
    }

    fn crash(&mut self) {
        self.trace.push("crash".into());
        self.conn = None;
        self.up.clear();
        self.drawn += 1;
        let (now, mut out) = (self.now(), Vec::new());
        let (config, seed) = (self.config.clone(), u128::from(self.drawn) << 64);
        self.replica = Replica::open(config, seed, now, self.store.clone(), &mut out).unwrap();
        self.used.clear();
        self.watch();
        self.do_all(out);
        self.command(Command::Connect);
    }

    /// Time passes until something is due.
    fn tick(&mut self) {
        if let Some((at, _)) = self.replica.deadline() {
            self.now = self.now.max(at.0);
            self.input(Input::Timeout);
        }
    }

    fn document(&mut self) -> String {
        self.drawn += 1;
        let room = ["1", "2", "3", "1.0", "\"1\"", "[1]"][self.below(6)];
        let tags = ["[]", "[\"x\"]", "[\"x\",\"y\"]", "[\"y\"]"][self.below(4)];
        let kind = ["true", "false"][self.below(2)];
        format!(r#"{{"kind":{kind},"n":{},"room":{room},"tags":{tags}}}"#, self.drawn)
    }

    /// Some fields of another document.
    fn fields(&mut self) -> Document {
        let document = parsed(&self.document());
        let which = self.below(4);
        let name = ["kind", "n", "room", "tags"][which];
        let is_one = |of: &str| of == name || of == "n" && which < 2;
        Document::of_sorted(&document.iter().filter(|(of, _)| is_one(of)).collect::<Vec<_>>())
    }

    fn id(&mut self) -> RecordId {
        RecordId::new(IDS[self.below(3)]).unwrap()
    }

    fn write(&mut self) {
        let status = self.replica.status();
        if status.collections.get(&todos()).is_none_or(|status| status.scopes.is_none()) {
            // by itself it would use the whole collection
            return;
        }
        let id = self.id();
        let write = match self.below(4) {
            0 => Write::Save(todos(), id, parsed(&self.document())),
            1 => Write::Delete(todos(), id),
            _ => Write::Update(todos(), id, Delta::new(self.fields(), Vec::new())),
        };
        let (now, mut out) = (self.now(), Vec::new());
        let written = self.replica.write(now, write, &mut out);
        self.trace.push(format!("write: {written:?}"));
        self.do_all(out);
    }

    fn other_writes(&mut self) {
        let id = self.id();
        let is_there = self.server.records.get(&id).is_some_and(|held| held.document.is_some());
        let change = match self.below(5) {
            _ if !is_there => Change::insert(parsed(&self.document())),
            0 => Change::delete(),
            _ => Change::update(Delta::new(self.fields(), Vec::new())),
        };
        self.trace.push(format!("other: {id} {change:?}"));
        self.now += 1;
        let at = Timestamp(self.now as i64);
        self.server.apply(&id, &change, at, (0, 0));
    }

    fn step(&mut self) {
        self.now += 1;
        match below(&mut self.random, 40) {
            0..=3 => self.other_writes(),
            4..=5 => self.write(),
            6..=7 => {
                let which = self.below(SCOPES.len());
                self.used.insert(which);
                self.command(Command::UseScope(todos(), scope(which)));
            }
            8 => {
                let which = self.below(SCOPES.len());
                self.used.remove(&which);
                self.command(Command::ReleaseScope(todos(), scope(which)));
            }
            9 if self.below(3) == 0 => self.cut(),
            10 if self.below(4) == 0 => self.crash(),
            11 if self.below(4) == 0 => self.saved = self.server.clone(),
            12 if self.below(6) == 0 => self.restore(),
            13 if self.below(6) == 0 => {
                self.trace.push("sweep".into());
                self.server.sweep();
            }
            14 => {
                if let Some((_, connection)) = &mut self.conn {
                    connection.overrun();
                }
            }
            15 if self.below(3) == 0 => {
                let which = text(self.below(SCOPES.len()));
                self.trace.push(format!("deny {which}"));
                if let Some((_, connection)) = &mut self.conn {
                    connection.revoke(&which);
                }
                self.server.denied.insert(which);
            }
            16 if self.below(3) == 0 => {
                self.server.denied.clear();
                self.command(Command::SyncNow);
            }
            17..=18 => self.tick(),
            19..=25 => self.server_hears(),
            26..=32 => self.server_goes_on(),
            _ => self.read(),
        }
        if let Some((conn, _)) = self.conn
            && self.below(4) == 0
        {
            self.input(Input::Connected { conn });
        }
    }

    fn restore(&mut self) {
        self.trace.push("restore".into());
        self.cut();
        self.epochs += 1;
        let (saved, epoch) = (self.saved.clone(), self.epochs);
        self.server.restart_from(&saved, epoch);
        for told in self.told.values_mut() {
            *told = (*told).min(self.server.head);
        }
    }

    fn server_hears(&mut self) {
        let Some((_, connection)) = &mut self.conn else { return };
        if !self.up.is_empty() {
            let message = self.up.remove(0);
            self.server.hear(connection, message);
        }
    }

    fn server_goes_on(&mut self) {
        if let Some((_, connection)) = &mut self.conn {
            self.server.stream(connection);
        }
    }

    /// Lets everything settle.
    fn settle(&mut self) {
        self.server.denied.clear();
        self.command(Command::SyncNow);
        for turn in 0..4_000 {
            self.connect();
            self.server_hears();
            self.server_goes_on();
            self.read();
            let is_idle = self.up.is_empty()
                && self.conn.as_ref().is_some_and(|(_, conn)| conn.is_idle(&self.server));
            let status = self.replica.status();
            let in_step = status.collections.get(&todos()).is_none_or(|it| !it.in_use || it.live);
            let is_out = status.level.is_none();
            let scopes = status.collections.get(&todos()).and_then(|it| it.scopes.as_ref());
            let is_refused =
                scopes.is_some_and(|it| it.values().any(|it| *it == ScopeStanding::Refused));
            if is_idle && is_refused {
                // the refusal was under way when the right was there again
                self.command(Command::SyncNow);
            } else if is_idle && in_step && !is_out && status.pending_writes == 0 {
                return;
            }
            if is_idle || is_out && turn % 3 == 0 {
                self.tick();
            }
        }
        self.fail("it does not settle");
    }

    fn check_end(&mut self) {
        let status = self.replica.status();
        let status = status.collections.get(&todos());
        let set = status.and_then(|status| status.scopes.clone()).unwrap_or_default();
        assert!(set.values().all(|it| *it == ScopeStanding::Loaded), "{set:?}");
        let of_set: BTreeSet<String> = set.keys().map(ToString::to_string).collect();
        for which in &self.used {
            assert!(set.contains_key(&scope(*which)), "{which} is used and not held");
            assert!(self.queries[*which].1.is_complete(), "{which} is held and not complete");
        }
        let held = |document: Option<&Document>| {
            scopes_of(document).iter().any(|scope| of_set.contains(scope))
        };
        let there = self.server.records.iter().filter_map(|(id, record)| {
            let document = record.document.as_ref().filter(|it| held(Some(it)))?;
            Some((id.to_string(), document.to_string()))
        });
        let there: BTreeMap<_, _> = there.collect();
        let here = self.replica.get_all(&todos()).unwrap();
        let here: BTreeMap<_, _> = here
            .iter()
            .map(|record| (record.id.to_string(), record.document.to_string()))
            .collect();
        if here != there {
            self.fail(&format!("of {of_set:?} {here:?} is here, {there:?} there"));
        }
        for (watch, _) in core::mem::take(&mut self.queries) {
            self.replica.unwatch(watch);
        }
        if let Err(error) = self.replica.check_at_rest() {
            self.fail(&error);
        }
        self.watch();
    }
}

fn below(random: &mut Random, n: usize) -> usize {
    let millis = random.below(Duration::from_millis(n as u64 - 1)).as_millis();
    usize::try_from(millis).unwrap()
}

fn parsed(text: &str) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}

fn run(seed: u64) -> Box<World> {
    let mut world = Box::new(World::new(seed));
    for _ in 0..2 {
        let steps = 50 + world.below(200);
        for _ in 0..steps {
            world.step();
        }
        world.settle();
        world.check_end();
    }
    world
}

#[test]
fn a_replica_holds_what_is_in_its_scopes() {
    let seeds = std::env::var("SCOPE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let first = std::env::var("SCOPE_FIRST").ok().and_then(|first| first.parse().ok());
    let first = first.unwrap_or(0);
    for seed in first..first + seeds.unwrap_or(300) {
        let outcome = std::panic::catch_unwind(|| drop(run(seed)));
        if let Err(panic) = outcome {
            std::eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
