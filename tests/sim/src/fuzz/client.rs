//! A replica against a server that lies, a network that garbles, a disk that fails.
//!
//! | file | story |
//! | --- | --- |
//! | `app` | the app, its user, and another client of the server |
//! | `socket` | the WebSocket, and what is said on it |
//! | `requests` | requests by HTTP and their answers |
//! | `faults` | time, disks, ends that stop and start again |

mod app;
mod faults;
mod requests;
mod socket;

use std::time::Duration;

use synclayer_core::protocol::{ClientMessage, Incoming, decode_client};
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, CommitNumber, ConflictStrategy, ConnId, FieldWise,
    HttpAnswer, HttpTicket, Limits, MemoryClientStore, MemoryRows, Mono, NetAction, Now,
    PlainServers, Rate, Replica, RingLimits, ServerLimits, SessionInput, Timestamp, Token, WatchId,
};

use super::policy::policy;
use super::script::Script;
use crate::host::Host;
use crate::plain_server::{PlainServer, Ways};
use crate::refusal::{OpenCall, State};

const STEPS: usize = 400;

/// Lets a replica live through what the bytes say, and checks it after every step.
///
/// # Panics
/// When an invariant is broken, or what it sends makes no sense.
pub fn client(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut bench = ClientBench::new(&mut script);
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        bench.check();
    }
}

/// Lets a replica live through what the bytes say, and looks at it after every step.
///
/// # Errors
/// The first error of `look`.
pub(crate) fn each_state(
    bytes: &[u8],
    look: &mut dyn FnMut(State<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut script = Script::new(bytes);
    let mut bench = ClientBench::new(&mut script);
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        look(bench.state())?;
    }
    Ok(())
}

pub(super) struct ClientBench {
    now: Now,
    config: ClientConfig,
    pub(super) replica: Replica<MemoryClientStore>,
    pub(super) host: Host,
    /// The server of level 1 that answers instead of the host, which keeps the connections then.
    plain: Option<PlainServer>,
    /// The replica's last connection.
    conn: ConnId,
    up: Vec<bytes::Bytes>,
    old: Vec<bytes::Bytes>,
    tickets: Vec<HttpTicket>,
    watches: Vec<WatchId>,
    openings: u128,
    /// Returns `true` if a message tells the server which client the connection belongs to.
    asks_who: bool,
    /// An older state of the replica's store, and one of the server's rows.
    copy: Option<MemoryClientStore>,
    backup: Option<MemoryRows>,
    /// `true` if the store still holds everything that was written to it, so that its steps make
    /// sense.
    pub(super) sound: bool,
}

pub(super) fn now() -> Now {
    Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) }
}

pub(super) fn collection(index: usize) -> Collection {
    Collection::new(["todos", "notes", "x"][index % 3]).expect("a name")
}

fn config(script: &mut Script<'_>) -> ClientConfig {
    let strategies = [
        ConflictStrategy::LastWriteWins,
        ConflictStrategy::ServerWins,
        ConflictStrategy::ClientWins,
        FieldWise::sum_numbers().into(),
    ];
    let choice = script.byte();
    let mut config = ClientConfig::default();
    config.collections = vec![collection(0)];
    config.conflict_strategy = strategies[usize::from(choice & 3)].clone();
    config.http = choice & 4 != 0;
    config.websocket = choice & 8 == 0;
    config.window = 1 + usize::from(choice >> 4);
    config.max_pending_writes = 20;
    config
}

fn plain_server(script: &mut Script<'_>) -> PlainServer {
    let bits = u64::from(script.byte()) << 8 | u64::from(script.byte());
    PlainServer::new(Ways::of_bits(bits))
}

impl ClientBench {
    pub(super) fn new(script: &mut Script<'_>) -> Self {
        let mut config = config(script);
        let mut limits = ServerLimits::default();
        limits.page.records = 1 + script.below(3);
        // a zero: everyone may do everything, as often as they like
        let world = script.byte();
        if world & 8 != 0 {
            limits.rate = Some(Rate { per_second: 5, burst: 8 });
        }
        let mut host = Host::new(limits, RingLimits::default(), now());
        host.set_policy(policy(world));
        if world & 4 != 0 {
            (config.user, config.token) = ("u".into(), Some(Token::from("u")));
        }
        config.plain = match world >> 4 & 3 {
            0 => PlainServers::Detect,
            1 => PlainServers::Silent,
            2 => PlainServers::AllowDowngrade,
            _ => PlainServers::Never,
        };
        let plain = (world & 128 != 0).then(|| plain_server(script));
        let mut actions = Vec::new();
        let store = MemoryClientStore::when_told();
        let mut replica =
            Replica::open(config.clone(), 1, now(), store, &mut actions).expect("an empty store");
        replica.command(now(), Command::Connect, &mut actions);
        let mut bench = Self {
            now: now(),
            config,
            replica,
            host,
            plain,
            conn: ConnId(0),
            up: Vec::new(),
            old: Vec::new(),
            tickets: Vec::new(),
            watches: Vec::new(),
            openings: 1,
            asks_who: world & 64 != 0,
            copy: None,
            backup: None,
            sound: true,
        };
        bench.take(actions);
        bench
    }

    pub(super) fn step(&mut self, script: &mut Script<'_>) {
        match script.step(24) {
            0..4 => self.app_writes(script),
            4 => self.app_asks(script),
            5..8 => self.sync_disk(script),
            8 => self.up_comes(),
            9..12 => self.go_up(script),
            12..17 => self.come_down(script),
            17 => self.lie(script),
            18 => self.pass(script),
            19 => self.lose(script),
            20 => self.break_disk(script),
            21 => self.answer(script),
            22 => self.somebody_else_writes(script),
            24 => self.copy = Some(self.replica.store().clone().reopen()),
            25 | 26 => {
                if let Some(copy) = self.copy.clone() {
                    self.reopen(copy);
                }
            }
            27 => self.change_user(script),
            28 => {
                let retention = Duration::from_millis(script.number().min(100_000));
                self.host.sweep(retention, 1 + script.below(8), self.now);
            }
            29 => self.backup = Some(self.host.rows.clone()),
            30 => {
                let rows = self.backup.clone().unwrap_or_else(|| self.host.rows.clone());
                self.restart_server(rows);
            }
            31 => self.restart_server(self.host.rows.clone()),
            32 => self.host.tell(self.conn, SessionInput::AuthExpired, self.now),
            33 => self.host.tell(self.conn, SessionInput::Shutdown, self.now),
            34 => self.host.set_policy(policy(script.byte())),
            35 => {
                // another server at the same address
                self.plain = self.plain.is_none().then(|| plain_server(script));
                self.restart_server(self.host.rows.clone());
            }
            _ => self.go_on(),
        }
    }

    /// A new replica wants to connect.
    pub(super) fn reconnect(&mut self) {
        self.with(|replica, now, actions| replica.command(now, Command::Connect, actions));
    }

    /// The replica, and what it waits for.
    fn state(&self) -> State<'_> {
        let open = |ticket| OpenCall { ticket, answer: Some(self.would_serve(ticket)) };
        State {
            replica: &self.replica,
            now: self.now,
            conn: Some(self.conn),
            calls: self.tickets.iter().map(open).collect(),
        }
    }

    /// Everything that can happen without a choice: the fuzzer gets to deep states quickly.
    pub(super) fn go_on(&mut self) {
        for _ in 0..3 {
            self.up_comes();
            self.replica.store_mut().make_durable(CommitNumber(u64::MAX));
            self.with(|replica, now, actions| replica.poll_store(now, actions));
            for frame in std::mem::take(&mut self.up) {
                self.reach(&frame);
            }
            self.host.settle(self.now);
            while let Some(frame) = self.next_down() {
                self.hear(&frame);
            }
            for ticket in std::mem::take(&mut self.tickets) {
                let (status, body) = self.served(&ticket);
                let answer = HttpAnswer::Answered { status, retry_after: None, body };
                self.answered(ticket, answer);
            }
        }
    }

    fn with<T>(
        &mut self,
        call: impl FnOnce(&mut Replica<MemoryClientStore>, Now, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let answer = call(&mut self.replica, self.now, &mut actions);
        self.take(actions);
        answer
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Net(NetAction::Connect { conn, .. }) => self.conn = conn,
                Action::Net(NetAction::Send { frame, .. }) => {
                    if self.sound {
                        makes_sense(&frame);
                    }
                    self.up.push(frame);
                }
                Action::Net(NetAction::Close { conn }) => {
                    self.drop_line(conn);
                    self.up.clear();
                }
                Action::Net(NetAction::Request(ticket)) => self.tickets.push(ticket),
                Action::Net(NetAction::Ping { .. })
                | Action::Event(_)
                | Action::Synced { .. }
                | Action::Fate { .. }
                | Action::Durable(_)
                | Action::Halted(_)
                | Action::Watch(_) => {}
            }
        }
    }

    fn check(&self) {
        if self.replica.status().halted.is_none()
            && let Err(broken) = self.replica.check()
        {
            panic!("{broken}");
        }
        assert!(self.tickets.len() <= 64, "requests are bounded");
        assert!(self.up.len() <= 10_000, "what is sent is bounded");
    }
}

/// A server understands every message of a client.
fn makes_sense(frame: &[u8]) {
    let shown = || String::from_utf8_lossy(frame);
    match decode_client(frame, &Limits::default()) {
        Ok(Incoming::One(_)) => {}
        Ok(Incoming::Batch(messages)) => {
            assert!(!messages.is_empty(), "an empty batch");
            let all: Result<Vec<ClientMessage>, _> = messages.into_iter().collect();
            assert!(all.is_ok(), "{all:?}: {}", shown());
        }
        Err(error) => panic!("{error:?}: {}", shown()),
    }
}
