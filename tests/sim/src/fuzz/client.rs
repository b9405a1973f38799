//! A replica against a server that lies, a network that garbles, a disk that fails.

use std::time::Duration;

use synclayer_core::protocol::{ClientMessage, Incoming, decode_client};
use synclayer_core::server::{RingLimits, ServerLimits};
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, CommitNumber, ConflictStrategy, ConnId, Delta,
    Disconnect, FieldWise, HttpAnswer, HttpRequest, HttpTicket, Identity, Input, Limits,
    MemoryClientStore, MemoryRows, Mono, NetAction, Now, PlainServers, Rate, RecordId, Replica,
    Request, SessionInput, StoreError, StoreErrorKind, Timestamp, Token, UserId, WatchId, Write,
};

use super::policy::policy;
use super::script::Script;
use crate::host::Host;
use crate::plain_server::{PlainServer, Sent, Ways};
use crate::refusal::{OpenCall, State};

const STEPS: usize = 400;

/// Lets a replica live through what the bytes say, and checks it after every step.
///
/// # Panics
/// When an invariant is broken, or what it sends makes no sense.
pub fn client(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut bench = Bench::new(&mut script);
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
    let mut bench = Bench::new(&mut script);
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        look(bench.state())?;
    }
    Ok(())
}

pub(super) struct Bench {
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

fn record(index: usize) -> RecordId {
    RecordId::new(["a", "b", "c"][index % 3]).expect("an id")
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

impl Bench {
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
            (config.user, config.token) = ("u".into(), Some(Token::new("u")));
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

    /// Another user signs in, or the same one on another way to the server.
    fn change_user(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        if !self.config.user.is_empty() {
            let user = ["u", "v"][usize::from(choice & 1)];
            (self.config.user, self.config.token) = (user.into(), Some(Token::new(user)));
        }
        self.config.http = choice & 4 != 0;
        self.config.websocket = choice & 8 == 0;
        self.reopen(self.replica.store().clone().reopen());
    }

    fn restart_server(&mut self, rows: MemoryRows) {
        let conn = self.conn;
        let was_connected = self.host.down.contains_key(&conn);
        if let Err(error) = self.host.restart(rows, self.now) {
            assert!(!self.sound, "a server loses nothing: {error}");
            self.host.restart(MemoryRows::new(), self.now).expect("no rows are sound");
        }
        self.up.clear();
        if was_connected {
            let why = Disconnect::Lost("the server is gone".into());
            self.with(|replica, now, actions| {
                replica.handle(now, Input::Disconnected { conn, why }, actions);
            });
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

    /// The answer that the server would give now.
    fn would_serve(&self, ticket: &HttpTicket) -> (u16, Vec<u8>) {
        let asked = &ticket.request;
        if let Some(plain) = &self.plain {
            let body = asked.body.as_deref().unwrap_or_default();
            let (status, body, _) =
                plain.clone().request(asked.method, &asked.path, body, self.now.wall);
            return (status, body.into_bytes());
        }
        let reply = self.host.clone().ask(&self.request(asked), self.now);
        (reply.status, reply.body)
    }

    /// A request, as the server has it.
    fn request<'a>(&self, asked: &'a HttpRequest) -> Request<'a> {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        Request {
            method: asked.method,
            path,
            query,
            body: asked.body.as_deref().unwrap_or_default(),
            user: UserId::new(&self.config.user).ok(),
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

    fn app_writes(&mut self, script: &mut Script<'_>) {
        let (collection, id) = (collection(usize::from(script.chance(8))), record(script.below(3)));
        let document = script.document();
        match script.below(4) {
            0 => drop(self.with(|replica, now, actions| {
                replica.write(now, Write::Save(collection, id, document), actions)
            })),
            1 | 2 => {
                let delta = Delta::new(document, vec!["a".into()]);
                drop(self.with(|replica, now, actions| {
                    replica.write(now, Write::Update(collection, id, delta), actions)
                }));
            }
            _ => drop(self.with(|replica, now, actions| {
                replica.write(now, Write::Delete(collection, id), actions)
            })),
        }
    }

    fn app_asks(&mut self, script: &mut Script<'_>) {
        let collection = collection(script.below(3));
        let choice = script.below(12);
        let rejected = self.replica.rejected().unwrap_or_default();
        let write = rejected.first().map_or(synclayer_core::WriteId(0), |r| r.write);
        let watch = self.watches.pop();
        let kept = self.with(|replica, now, actions| {
            match choice {
                0 => replica.command(now, Command::Subscribe(collection.clone()), actions),
                1 => replica.command(now, Command::Unsubscribe(collection.clone()), actions),
                2 => replica.command(now, Command::Connect, actions),
                3 => replica.command(now, Command::Disconnect, actions),
                4 => replica.command(now, Command::SetToken(Token::new("t")), actions),
                5 => drop(replica.synced(now, actions)),
                6 => drop(replica.write(now, Write::RetryRejected(write), actions)),
                7 => drop(replica.write(now, Write::DiscardRejected(write), actions)),
                8 => drop(replica.write(now, Write::RejectStalled(write), actions)),
                9 => return replica.watch(&collection, actions).ok(),
                10 => replica.command(now, Command::SetOnline(now.mono.0 % 2 == 0), actions),
                _ => replica.command(now, Command::SyncNow, actions),
            }
            watch.inspect(|watch| drop(replica.take(*watch)))
        });
        self.watches.extend(kept);
    }

    fn sync_disk(&mut self, script: &mut Script<'_>) {
        let back = CommitNumber(script.number().min(3));
        let last = self.replica.store().last().0;
        self.replica.store_mut().make_durable(CommitNumber(last.saturating_sub(back.0)));
        self.with(|replica, now, actions| replica.poll_store(now, actions));
    }

    fn up_comes(&mut self) {
        let conn = self.conn;
        if conn != ConnId(0) && !self.host.down.contains_key(&conn) {
            let identity = match UserId::new(&self.config.user) {
                Ok(_) if self.asks_who => Identity::Unknown,
                Ok(user) => Identity::Known(user),
                Err(_) => Identity::Open,
            };
            self.host.accept(conn, identity, self.now);
            self.plain.iter_mut().for_each(|plain| plain.open(conn));
            self.with(|replica, now, actions| {
                replica.handle(now, Input::Connected { conn }, actions);
            });
        }
    }

    /// Frames get to the server, which does what it can.
    fn go_up(&mut self, script: &mut Script<'_>) {
        let count = (1 + script.below(4)).min(self.up.len());
        for frame in self.up.drain(..count).collect::<Vec<_>>() {
            self.reach(&frame);
        }
        self.host.settle(self.now);
    }

    /// A frame reaches the server.
    fn reach(&mut self, frame: &[u8]) {
        match &mut self.plain {
            Some(plain) => {
                let sent = plain.hear(self.conn, frame, self.now.wall);
                self.tell_all(sent);
            }
            None => self.host.tell(self.conn, SessionInput::Frame(frame), self.now),
        }
    }

    /// The plain server's messages in transit.
    fn tell_all(&mut self, sent: Vec<Sent>) {
        for (conn, frame) in sent {
            if let Some(down) = self.host.down.get_mut(&conn) {
                down.push_back(frame.into());
            }
        }
    }

    fn drop_line(&mut self, conn: ConnId) {
        self.host.drop_line(conn, self.now);
        self.plain.iter_mut().for_each(|plain| plain.close(conn));
    }

    fn next_down(&mut self) -> Option<bytes::Bytes> {
        let frame = self.host.down.get_mut(&self.conn)?.pop_front()?;
        self.old.push(frame.clone());
        if self.old.len() > 16 {
            self.old.remove(0);
        }
        Some(frame)
    }

    /// Frames get to the replica: in order or not, whole or garbled.
    fn come_down(&mut self, script: &mut Script<'_>) {
        let Some(frame) = self.next_down() else { return };
        match script.below(12) {
            0 => self.hear(&script.mutated(&frame)),
            1 => {}
            2 => {
                self.hear(&frame);
                self.hear(&frame);
            }
            3 => {
                let later = self.next_down();
                later.iter().for_each(|later| self.hear(later));
                self.hear(&frame);
            }
            _ => self.hear(&frame),
        }
    }

    /// A frame that the server never said, or said long ago.
    fn lie(&mut self, script: &mut Script<'_>) {
        let old = script.below(self.old.len() + 1);
        match self.old.get(old).cloned() {
            Some(frame) if script.chance(3) => self.hear(&frame),
            Some(frame) => self.hear(&script.mutated(&frame)),
            None => self.hear(script.bytes()),
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        let conn = self.conn;
        self.with(|replica, now, actions| {
            replica.handle(now, Input::Frame { conn, frame }, actions);
        });
    }

    fn pass(&mut self, script: &mut Script<'_>) {
        let due = self.replica.deadline().map_or(0, |(at, _)| at.0.saturating_sub(self.now.mono.0));
        let millis = if script.chance(3) { script.number().saturating_mul(1_000) } else { due };
        self.now.mono.0 = self.now.mono.0.saturating_add(millis.min(1 << 40));
        // the wall clock jumps as it likes
        self.now.wall.0 = self.now.wall.0.saturating_add(i64::from(script.byte()) - 100);
        // what ends just then may leave something to begin at once, but not for ever
        for _ in 0..3 {
            self.with(|replica, now, actions| replica.handle(now, Input::Timeout, actions));
            if self.replica.deadline().is_none_or(|(at, _)| at > self.now.mono) {
                break;
            }
        }
        if let Some((at, timer)) = self.replica.deadline() {
            assert!(
                at > self.now.mono,
                "{timer:?} is due at {at:?}, again, at {:?}",
                self.now.mono
            );
        }
    }

    fn lose(&mut self, script: &mut Script<'_>) {
        let conn = ConnId(self.conn.0.saturating_sub(u64::from(script.chance(4))));
        let why = match script.below(3) {
            0 => Disconnect::Refused {
                status: script.pick(&[401, 403, 404, 429, 500, 503, 0]).unwrap_or(0),
                retry_after: Some(Duration::from_millis(script.number())),
                body: [b"".as_slice(), b"<html>", br#"{"error":"no","code":"AUTH_FAILED"}"#]
                    [script.below(3)]
                .to_vec(),
            },
            _ => Disconnect::Lost("lost".into()),
        };
        self.drop_line(conn);
        if conn == self.conn {
            self.up.clear();
        }
        self.with(|replica, now, actions| {
            replica.handle(now, Input::Disconnected { conn, why }, actions);
        });
    }

    /// The disk fails, or the process dies; the replica is opened again.
    fn break_disk(&mut self, script: &mut Script<'_>) {
        let store = self.replica.store_mut();
        let error = StoreError::new(StoreErrorKind::Other, "broken");
        match script.below(3) {
            0 => store.fail_commit(1 + script.number().min(4), error),
            1 => store.fail(error),
            _ => {}
        }
        if script.chance(2) {
            return;
        }
        let (last, durable) = (self.replica.store().last(), self.replica.durable());
        let back_to = CommitNumber(last.0.saturating_sub(script.number()).max(durable.0));
        self.reopen(self.replica.store().clone().crash_to(back_to));
    }

    fn reopen(&mut self, store: MemoryClientStore) {
        self.openings += 1;
        let mut actions = Vec::new();
        let opened =
            Replica::open(self.config.clone(), self.openings, self.now, store, &mut actions);
        match opened {
            Ok(replica) => self.replica = replica,
            Err(error) => {
                assert!(!self.sound, "a crash leaves a sound store: {error}");
                return;
            }
        }
        self.drop_line(self.conn);
        self.up.clear();
        self.tickets.clear();
        self.watches.clear();
        self.conn = ConnId(0);
        self.replica.command(self.now, Command::Connect, &mut actions);
        self.take(actions);
    }

    /// A request is answered somehow.
    fn answer(&mut self, script: &mut Script<'_>) {
        if self.tickets.is_empty() {
            return;
        }
        let ticket = self.tickets.remove(script.below(self.tickets.len()));
        if script.chance(2) {
            // the server does what was asked, whether the answer arrives or not
            let (status, body) = self.served(&ticket);
            let body = if script.chance(6) { script.mutated(&body) } else { body };
            let answer = match script.below(6) {
                0 => HttpAnswer::Failed("the answer was lost".into()),
                _ => HttpAnswer::Answered { status, retry_after: None, body },
            };
            return self.answered(ticket, answer);
        }
        let body = match script.below(4) {
            0 => script.bytes().to_vec(),
            1 => br#"{"protocol":2,"epoch":"e0","lastMutation":0,"maxBatchBytes":262144}"#.to_vec(),
            2 => br#"{"verdicts":[],"lastMutation":0}"#.to_vec(),
            _ => br#"{"records":[]}"#.to_vec(),
        };
        let body = if script.chance(3) { script.mutated(&body) } else { body };
        let answer = match script.below(4) {
            0 => HttpAnswer::Failed("lost".into()),
            _ => HttpAnswer::Answered {
                status: script.pick(&[200, 201, 204, 400, 401, 404, 409, 429, 503]).unwrap_or(200),
                retry_after: None,
                body,
            },
        };
        self.answered(ticket, answer);
    }

    fn served(&mut self, ticket: &HttpTicket) -> (u16, Vec<u8>) {
        let asked = &ticket.request;
        if let Some(plain) = &mut self.plain {
            let body = asked.body.as_deref().unwrap_or_default();
            let (status, body, sent) =
                plain.request(asked.method, &asked.path, body, self.now.wall);
            self.tell_all(sent);
            return (status, body.into_bytes());
        }
        let request = self.request(asked);
        let reply = self.host.ask(&request, self.now);
        assert!(!self.sound || reply.status != 400, "{request:?} is refused: {reply:?}");
        (reply.status, reply.body)
    }

    fn answered(&mut self, ticket: HttpTicket, answer: HttpAnswer) {
        let input = ticket.answer(answer);
        self.with(|replica, now, actions| replica.handle(now, input, actions));
    }

    /// Another client of the same server, of level 1.
    fn somebody_else_writes(&mut self, script: &mut Script<'_>) {
        let other = ConnId(u64::MAX);
        if !self.host.down.contains_key(&other) || self.host.has_hung_up(other) {
            self.host.accept(other, Identity::Open, self.now);
        }
        let (id, document) = (record(script.below(3)), script.document());
        let kind = ["insert", "update", "delete"][script.below(3)];
        let frame = format!(
            r#"{{"type":"{kind}","collection":"todos","recordId":"{id}","data":{document}}}"#
        );
        if let Some(plain) = &mut self.plain {
            plain.open(other);
            let sent = plain.hear(other, frame.as_bytes(), self.now.wall);
            self.tell_all(sent);
        } else {
            self.host.tell(other, SessionInput::Frame(frame.as_bytes()), self.now);
            self.host.settle(self.now);
        }
        if let Some(down) = self.host.down.get_mut(&other) {
            down.clear();
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
