//! Workloads of the core whose instructions are counted: one thread, stores in memory, no clock.
//! `.ci/counts` runs each with its pieces and without, so that what is made ready before does not count.
#![allow(clippy::expect_used)]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use synclayer_core::{
    Action, AllowAll, ClientConfig, Collection, Command, ConnId, DatabaseId, Delta, Document,
    Epoch, Hub, HubAction, HubConfig, HubInput, Identity, Input, Limits, MemoryClientStore,
    MemoryRows, Mono, NetAction, Now, RecordId, Replica, SessionInput, Timestamp, Transaction,
    Write,
};
use synclayer_sim::lone_replica::LoneReplica;

const NOW: Now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
const WATCHED: usize = 1_000;
const FOLLOWERS: u64 = 50;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let workload = arguments.next().unwrap_or_default();
    let pieces = arguments.next().and_then(|pieces| pieces.parse().ok());
    match (workload.as_str(), pieces) {
        ("save", Some(pieces)) => save(pieces),
        ("upload", Some(pieces)) => upload(pieces),
        ("catch-up", Some(pieces)) => catch_up(pieces),
        ("cold-sync", Some(pieces)) => cold_sync(pieces),
        ("watch", Some(pieces)) => watch(pieces),
        ("fan-out", Some(pieces)) => fan_out(pieces),
        _ => {
            eprintln!("usage: counts save|upload|catch-up|cold-sync|watch|fan-out PIECES");
            std::process::exit(2);
        }
    }
}

/// Saves of new records, without a server.
fn save(pieces: usize) {
    let mut lone = LoneReplica::offline(MemoryClientStore::default());
    for n in 0..pieces {
        lone.save(&id(n), &text(n)).expect("a write");
    }
}

/// Saves of new records, of both ends until each is acknowledged.
fn upload(pieces: usize) {
    let mut world = World::new();
    let a = world.join();
    for n in 0..pieces {
        world.save(a, n);
        if n % 100 == 99 {
            world.settle();
        }
    }
    world.settle();
}

/// Fields of records change while a client is away, and it catches up: both ends.
fn catch_up(pieces: usize) {
    let mut world = World::new();
    let (a, b) = (world.join(), world.join());
    (0..1_000).for_each(|n| world.save(a, n));
    world.settle();
    world.command(b, Command::Disconnect);
    for n in 0..pieces {
        let delta = Delta::new(document(r#"{"done":true}"#), Vec::new());
        world.write(a, Write::Update(todos(), record_id(n), delta));
    }
    world.settle();
    world.command(b, Command::Connect);
}

/// A client fetches a collection of 1,000 records whole: both ends.
fn cold_sync(pieces: usize) {
    let mut world = World::new();
    let a = world.join();
    (0..1_000).for_each(|n| world.save(a, n));
    world.settle();
    for _ in 0..pieces {
        world.join();
    }
}

/// Changes from the server to watched records.
fn watch(pieces: usize) {
    let mut lone = LoneReplica::online(MemoryClientStore::default());
    for n in 0..WATCHED {
        lone.remote("insert", &id(n), &text(n));
    }
    let watch = lone.watch();
    for n in 0..pieces {
        lone.remote("update", &id(n % WATCHED), r#"{"done":true}"#);
        lone.take(watch).expect("an update");
    }
}

/// Changes that go out to many subscribers: the server alone.
fn fan_out(pieces: usize) {
    let mut server = Server::new();
    for conn in 0..FOLLOWERS {
        server.accept(ConnId(conn));
        let hello = format!(
            r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"c{conn}","session":1}}}}"#
        );
        server.hear(ConnId(conn), hello.as_bytes());
        server.hear(ConnId(conn), br#"{"type":"subscribe","collection":"todos"}"#);
    }
    for n in 0..pieces {
        let (id, data, number) = (id(n), text(n), n + 1);
        let insert = format!(
            r#"{{"type":"insert","collection":"todos","recordId":"{id}","data":{data},"metadata":{{"mutation":{number},"base":0}}}}"#
        );
        server.hear(ConnId(0), insert.as_bytes());
    }
    assert!(server.said.len() >= pieces * FOLLOWERS as usize);
}

/// A server, and clients that are connected to it without a network between.
struct World {
    server: Server,
    clients: Vec<Replica<MemoryClientStore>>,
    /// The server's connections: the client of each, and what it calls the connection.
    lines: Vec<(usize, ConnId)>,
    actions: Vec<Action>,
}

impl World {
    fn new() -> Self {
        let (clients, lines, actions) = (Vec::new(), Vec::new(), Vec::new());
        Self { server: Server::new(), clients, lines, actions }
    }

    /// A new client, which has caught up.
    fn join(&mut self) -> usize {
        let mut config = ClientConfig::default();
        config.collections = vec![todos()];
        let client = self.clients.len();
        let (seed, store) = (client as u128 + 7, MemoryClientStore::default());
        let replica = Replica::open(config, seed, NOW, store, &mut self.actions).expect("a store");
        self.clients.push(replica);
        self.command(client, Command::Connect);
        client
    }

    /// Gives a client a command, and carries out what comes of it.
    fn command(&mut self, client: usize, command: Command) {
        self.clients[client].command(NOW, command, &mut self.actions);
        self.act(client);
        self.settle();
    }

    fn save(&mut self, client: usize, n: usize) {
        self.write(client, Write::Save(todos(), record_id(n), document(&text(n))));
    }

    fn write(&mut self, client: usize, write: Write) {
        self.clients[client].write(NOW, write, &mut self.actions).expect("a write");
        self.act(client);
    }

    /// Carries frames until there is none.
    fn settle(&mut self) {
        while let Some((line, frame)) = self.server.said.pop_front() {
            let (client, conn) = self.lines[line.0 as usize];
            let input = Input::Frame { conn, frame: &frame };
            self.clients[client].handle(NOW, input, &mut self.actions);
            self.act(client);
        }
    }

    fn act(&mut self, client: usize) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Net(NetAction::Connect { conn, .. }) => {
                        self.server.accept(ConnId(self.lines.len() as u64));
                        self.lines.push((client, conn));
                        self.clients[client].handle(
                            NOW,
                            Input::Connected { conn },
                            &mut self.actions,
                        );
                    }
                    Action::Net(NetAction::Send { conn, frame }) => {
                        let line = self.lines.iter().position(|line| *line == (client, conn));
                        let line = line.expect("it was connected");
                        self.server.hear(ConnId(line as u64), &frame);
                    }
                    Action::Net(
                        NetAction::Ping { .. } | NetAction::Close { .. } | NetAction::Request(_),
                    )
                    | Action::Event(_)
                    | Action::Synced { .. }
                    | Action::Halted(_)
                    | Action::Durable(_)
                    | Action::Fate { .. }
                    | Action::Watch(_) => {}
                }
            }
        }
    }
}

/// A server that does at once what there is to do.
struct Server {
    hub: Hub,
    rows: MemoryRows,
    actions: Vec<HubAction>,
    /// The frames that nobody has heard, with their connections.
    said: VecDeque<(ConnId, Bytes)>,
}

impl Server {
    fn new() -> Self {
        let (hub, mut rows) =
            (Hub::new(HubConfig::default(), Arc::new(AllowAll), []), MemoryRows::default());
        let epoch = Epoch::new("e1").expect("a name");
        let begin =
            Transaction::BeginEpoch { epoch, database: DatabaseId::new("d1").expect("a name") };
        rows.apply(begin.decide(&rows, hub.context(NOW)).expect("sound rows").batch);
        Self { hub, rows, actions: Vec::new(), said: VecDeque::new() }
    }

    fn accept(&mut self, conn: ConnId) {
        let input = HubInput::Accepted { conn, identity: Identity::Open };
        self.hub.handle(NOW, input, &mut self.actions);
        self.act(conn);
    }

    fn hear(&mut self, conn: ConnId, frame: &[u8]) {
        let input = HubInput::Session { conn, input: SessionInput::Frame(frame) };
        self.hub.handle(NOW, input, &mut self.actions);
        self.act(conn);
    }

    fn act(&mut self, conn: ConnId) {
        self.give_room(conn);
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    HubAction::Send { conn, frame } => self.said.push_back((conn, frame)),
                    HubAction::Wake(conn) => self.give_room(conn),
                    HubAction::Commit => {
                        while let Some(mut batch) = self.hub.next_batch(4096) {
                            let changes = batch.decide(&self.rows, self.hub.context(NOW));
                            self.rows.apply(changes);
                            self.hub.settle(NOW, batch, Ok(()), &mut self.actions);
                        }
                    }
                    HubAction::Read => {
                        while let Some(read) = self.hub.take_read(0) {
                            let found = self.hub.run_read(&read, &self.rows);
                            self.hub.finish_read(read, found, &mut self.actions);
                        }
                    }
                    HubAction::Close { reason, .. } => panic!("closed: {reason}"),
                    HubAction::Authenticate(_) | HubAction::Reply { .. } | HubAction::Swept(_) => {}
                }
            }
            while let Some(conn) = self.hub.answer(NOW, 0, &mut self.actions) {
                self.give_room(conn);
            }
        }
    }

    fn give_room(&mut self, conn: ConnId) {
        while self.hub.wants_room(conn) {
            self.hub.handle(NOW, HubInput::Room { conn, room: 1 << 20 }, &mut self.actions);
        }
    }
}

fn todos() -> Collection {
    Collection::new("todos").expect("a name")
}

/// An id in no order.
fn id(n: usize) -> String {
    format!("{:016x}-{n:08}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn record_id(n: usize) -> RecordId {
    RecordId::new(&id(n)).expect("an id")
}

/// A document of 200 bytes.
fn text(n: usize) -> String {
    format!(r#"{{"done":false,"n":{n:06},"text":"{}"}}"#, "Buy milk. ".repeat(17))
        .replace("\"n\":0", "\"n\":1")
}

fn document(text: &str) -> Document {
    Document::parse(text, &Limits::default()).expect("a document")
}
