//! A world of replicas and a server under virtual time: real core machines, a network that loses
//! and cuts, disks that forget what was not durable.
//!
//! A [`World`] makes one move at a time. Whoever drives it chooses the moves; the same choices give
//! the same run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use synclayer_core::client::event::{Event, EventKind};
use synclayer_core::client::interface::{
    ClientConfig, Disconnect, HttpAnswer, HttpTicket, Input, Misuse, NetAction,
};
use synclayer_core::memory::{MemoryClientStore, MemoryRows};
use synclayer_core::replica::{Effect, Replica};
use synclayer_core::rules::page::{Query, ReadAnswer, ReadRequest, Reader};
use synclayer_core::rules::policy::{AllowAll, Policy};
use synclayer_core::rules::record::{Report, verify};
use synclayer_core::rules::transaction::{Context, Transaction, decide_all};
use synclayer_core::server::http::{Call, HttpConfig, Reply, Request, call};
use synclayer_core::server::ring::{RingLimits, Rings};
use synclayer_core::server::session::{
    Action, Identity, Input as ServerInput, Lent, ReadTicket, Session, SessionConfig,
    TransactTicket,
};
use synclayer_core::words::delta::Delta;
use synclayer_core::words::document::Document;
use synclayer_core::words::limits::Limits;
use synclayer_core::words::name::{Collection, CommitNumber, ConnId, Epoch, RecordId, UserId};
use synclayer_core::words::time::{Mono, Now, Timestamp};

/// How a world is laid out.
#[derive(Clone)]
pub struct WorldConfig {
    /// The seed of everything that draws.
    pub seed: u64,
    /// One configuration for each replica.
    pub clients: Vec<ClientConfig>,
    /// What the server's sessions have in common.
    pub session: SessionConfig,
    /// How much the server's rings hold.
    pub ring: RingLimits,
}

/// One replica with its disk and its end of the network.
pub struct Device {
    /// How it was configured, for when it starts again.
    pub config: ClientConfig,
    /// The replica itself.
    pub replica: Replica<MemoryClientStore>,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// The connection that it has or asks for.
    conn: Option<ConnId>,
    /// Which connection in the world its own number stands for.
    links: BTreeMap<ConnId, ConnId>,
    /// A connection that it asked for.
    dialling: Option<ConnId>,
    /// Requests on their way to the server.
    requests: VecDeque<HttpTicket>,
    /// Replies on their way back.
    replies: VecDeque<Input<'static>>,
    lives: u64,
}

/// One connection: two directions, each cut on its own.
struct Link {
    device: usize,
    /// The device's name for it.
    local: ConnId,
    up: VecDeque<bytes::Bytes>,
    down: VecDeque<bytes::Bytes>,
    /// Whether the device still has its end.
    device_end: bool,
    /// What the server has of it; `None` when the server's end is gone.
    session: Option<Session>,
}

/// The server: rows that are durable, and what is lost with the process.
struct Server {
    rows: MemoryRows,
    rings: Rings,
    transactions: VecDeque<TransactTicket>,
    reads: VecDeque<ReadTicket>,
    /// Answers that are on their way to their sessions.
    answers: VecDeque<(ConnId, ServerInput<'static>)>,
    openings: u64,
}

/// Replicas, a server, and what is between them.
pub struct World {
    /// The time; it passes only when a move says so.
    pub now: Now,
    /// The replicas.
    pub devices: Vec<Device>,
    /// Counts of what happened, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened, one line each, where it is wanted.
    pub trace: Option<Vec<String>>,
    server: Server,
    links: BTreeMap<ConnId, Link>,
    next_conn: ConnId,
    config: WorldConfig,
    policy: Arc<dyn Policy>,
}

/// The collection that the worlds use.
#[must_use]
pub fn todos() -> Collection {
    Collection::new("todos").expect("a valid name")
}

/// A record id.
#[must_use]
pub fn record(text: &str) -> RecordId {
    RecordId::new(text).expect("a valid id")
}

/// A document.
#[must_use]
pub fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).expect("a valid document")
}

impl World {
    /// A world in which nothing has happened yet; every replica wants to connect.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        Self::with_policy(config, Arc::new(AllowAll))
    }

    /// The same with a policy at the server.
    #[must_use]
    pub fn with_policy(config: WorldConfig, policy: Arc<dyn Policy>) -> Self {
        let now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
        let rings = Rings::new(config.ring);
        let server = Server {
            rows: MemoryRows::new(),
            rings,
            transactions: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            openings: 0,
        };
        let mut world = Self {
            now,
            devices: Vec::new(),
            counts: BTreeMap::new(),
            trace: None,
            server,
            links: BTreeMap::new(),
            next_conn: ConnId(0),
            config,
            policy,
        };
        world.begin_epoch();
        for client in world.config.clients.clone() {
            world.add_device(client, MemoryClientStore::when_told());
        }
        world
    }

    /// Adds a replica on a store, which may be a copy of another's. Returns its index.
    pub fn add_device(&mut self, config: ClientConfig, store: MemoryClientStore) -> usize {
        let mut effects = Vec::new();
        let seed = u128::from(self.config.seed) << 64 | 0xde_0000 | self.devices.len() as u128;
        let mut replica = Replica::open(config.clone(), seed, self.now, store, &mut effects)
            .expect("the store is sound");
        replica.connect(self.now, &mut effects);
        let (events, links) = (Vec::new(), BTreeMap::new());
        self.devices.push(Device {
            config,
            replica,
            events,
            conn: None,
            links,
            dialling: None,
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            lives: 0,
        });
        let index = self.devices.len() - 1;
        self.carry_out(index, effects);
        index
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    // --- what apps do ---

    /// The app of a device saves a whole record.
    ///
    /// # Errors
    /// As the replica says.
    pub fn save(&mut self, device: usize, id: &str, json: &str) -> Result<(), Misuse> {
        self.count("save");
        self.note(|| format!("device {device} saves {id} {json}"));
        let (now, document) = (self.now, document(json));
        self.with(device, |replica, effects| {
            replica.save(now, &todos(), &record(id), &document, effects).map(drop)
        })
    }

    /// The app of a device changes some fields.
    ///
    /// # Errors
    /// As the replica says.
    pub fn update(&mut self, device: usize, id: &str, json: &str) -> Result<(), Misuse> {
        self.count("update");
        self.note(|| format!("device {device} updates {id} {json}"));
        let (now, delta) = (self.now, Delta::new(document(json), vec![]));
        self.with(device, |replica, effects| {
            replica.update(now, &todos(), &record(id), &delta, effects).map(drop)
        })
    }

    /// The app of a device removes a record.
    ///
    /// # Errors
    /// As the replica says.
    pub fn delete(&mut self, device: usize, id: &str) -> Result<(), Misuse> {
        self.count("delete");
        self.note(|| format!("device {device} deletes {id}"));
        let now = self.now;
        self.with(device, |replica, effects| {
            replica.delete(now, &todos(), &record(id), effects).map(drop)
        })
    }

    fn with<T>(
        &mut self,
        device: usize,
        call: impl FnOnce(&mut Replica<MemoryClientStore>, &mut Vec<Effect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let answer = call(&mut self.devices[device].replica, &mut effects);
        if let Err(broken) = self.devices[device].replica.check() {
            panic!("device {device}: {broken}");
        }
        self.carry_out(device, effects);
        answer
    }

    fn carry_out(&mut self, device: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Net(NetAction::Connect { conn, .. }) => {
                    self.devices[device].dialling = Some(conn);
                    self.devices[device].conn = Some(conn);
                }
                Effect::Net(NetAction::Send { conn, frame }) => {
                    if let Some(link) = self.link_of(device, conn) {
                        link.up.push_back(frame);
                    }
                }
                Effect::Net(NetAction::Ping { conn }) => {
                    // the far end's WebSocket answers by itself, where it is there
                    if self.link_of(device, conn).is_some_and(|link| link.session.is_some()) {
                        self.hear(device, conn);
                    }
                }
                Effect::Net(NetAction::Close { conn }) => self.hang_up(device, conn),
                Effect::Net(NetAction::Request(ticket)) => {
                    self.note(|| format!("device {device} asks {}", ticket.request().path));
                    self.devices[device].requests.push_back(ticket);
                }
                Effect::Event(event) => {
                    self.note(|| format!("device {device} tells {:?}", event.kind));
                    self.devices[device].events.push(event);
                }
                Effect::Synced(_) | Effect::Durable(_) | Effect::Watch(_) => {}
            }
        }
    }

    fn hear(&mut self, device: usize, conn: ConnId) {
        let now = self.now;
        if let Some(session) = self.link_of(device, conn).and_then(|link| link.session.as_mut()) {
            let (policy, rings) = (&AllowAll, Rings::new(RingLimits::default()));
            let mut lent = Lent { rings: &rings, policy, user_bucket: None };
            session.handle(now, ServerInput::Ping, &mut lent, &mut Vec::new());
        }
        self.with(device, |replica, effects| replica.handle(now, Input::Heard { conn }, effects));
    }

    fn link_of(&mut self, device: usize, conn: ConnId) -> Option<&mut Link> {
        let world = self.devices[device].links.get(&conn)?;
        self.links.get_mut(world).filter(|link| link.device_end)
    }

    fn hang_up(&mut self, device: usize, conn: ConnId) {
        if self.devices[device].dialling == Some(conn) {
            self.devices[device].dialling = None;
        }
        if self.devices[device].conn == Some(conn) {
            self.devices[device].conn = None;
        }
        if let Some(link) = self.link_of(device, conn) {
            link.device_end = false;
            link.down.clear();
        }
    }

    // --- what the network does ---

    /// Devices that wait for a connection to come up.
    #[must_use]
    pub fn dialling(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|i| self.devices[*i].dialling.is_some()).collect()
    }

    /// A connection comes up.
    pub fn connect(&mut self, device: usize) {
        let Some(local) = self.devices[device].dialling.take() else { return };
        self.count("connect");
        self.next_conn = self.next_conn.next();
        let conn = self.next_conn;
        self.note(|| format!("device {device} has connection {conn}"));
        let user = &self.devices[device].config.user;
        let identity =
            if user.is_empty() { Identity::Open } else { Identity::Known(user_id(user)) };
        let session = Session::new(Arc::new(self.config.session.clone()), conn, identity, self.now);
        self.devices[device].links.insert(local, conn);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let link = Link { device, local, up, down, device_end: true, session: Some(session) };
        self.links.insert(conn, link);
        let now = self.now;
        self.with(device, |replica, effects| {
            replica.handle(now, Input::Connected { conn: local }, effects);
        });
    }

    /// Connections with frames on their way to the server that it can take.
    #[must_use]
    pub fn upward(&self) -> Vec<ConnId> {
        let open = |link: &Link| link.session.as_ref().is_some_and(Session::wants_frames);
        let ready = |link: &Link| !link.up.is_empty() && open(link);
        self.links.iter().filter(|(_, link)| ready(link)).map(|(conn, _)| *conn).collect()
    }

    /// The server gets the next frame of a connection.
    pub fn deliver_up(&mut self, conn: ConnId) {
        let Some(frame) = self.links.get_mut(&conn).and_then(|link| link.up.pop_front()) else {
            return;
        };
        self.count("frames up");
        if frame.windows(14).any(|part| part == b"\"snapshotSeq\":") {
            self.count("resumed snapshot");
        }
        self.note(|| format!("{conn} > {}", String::from_utf8_lossy(&frame)));
        self.tell(conn, ServerInput::Frame(&frame));
    }

    /// Connections with frames on their way to their device.
    #[must_use]
    pub fn downward(&self) -> Vec<ConnId> {
        let ready = |link: &Link| !link.down.is_empty() && link.device_end;
        self.links.iter().filter(|(_, link)| ready(link)).map(|(conn, _)| *conn).collect()
    }

    /// The device gets the next frame of a connection.
    pub fn deliver_down(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(frame) = link.down.pop_front() else { return };
        let (device, local, now) = (link.device, link.local, self.now);
        self.count("frames down");
        self.note(|| format!("{conn} < {}", String::from_utf8_lossy(&frame)));
        let input = Input::Frame { conn: local, frame: &frame };
        self.with(device, |replica, effects| replica.handle(now, input, effects));
    }

    /// Connections whose device still has its end.
    #[must_use]
    pub fn connected(&self) -> Vec<ConnId> {
        self.links.iter().filter(|(_, link)| link.device_end).map(|(conn, _)| *conn).collect()
    }

    /// Connections whose device is gone, while the server goes on with what it got.
    #[must_use]
    pub fn half_open(&self) -> Vec<ConnId> {
        let half = |link: &Link| !link.device_end && link.session.is_some();
        self.links.iter().filter(|(_, link)| half(link)).map(|(conn, _)| *conn).collect()
    }

    /// A device loses a connection with what was on its way down. What was on its way up may still
    /// arrive.
    pub fn cut(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let (device, local, now) = (link.device, link.local, self.now);
        self.count("cut");
        self.note(|| format!("connection {conn} is cut"));
        self.hang_up(device, local);
        let why = Disconnect::Lost("cut".into());
        let input = Input::Disconnected { conn: local, why };
        self.with(device, |replica, effects| replica.handle(now, input, effects));
    }

    /// The server loses a connection with what was on its way up.
    pub fn forget(&mut self, conn: ConnId) {
        self.tell(conn, ServerInput::Closed);
        if let Some(link) = self.links.get_mut(&conn) {
            link.session = None;
            link.up.clear();
        }
        self.sweep_links();
    }

    /// The server has closed a connection; its device sees the end after the last frame.
    fn sweep_links(&mut self) {
        let ended: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.session.is_none() && link.device_end && link.down.is_empty())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in ended {
            self.cut(conn);
        }
        self.links.retain(|_, link| link.session.is_some() || link.device_end);
    }

    // --- what the server does ---

    /// How many transactions wait for the disk.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.server.transactions.len()
    }

    /// The disk takes the first `count` transactions together.
    pub fn commit(&mut self, count: usize) {
        let count = count.min(self.server.transactions.len());
        let tickets: Vec<_> = self.server.transactions.drain(..count).collect();
        let limits = Limits::default();
        let context = Context { policy: &*self.policy, limits: &limits, now: self.now.wall };
        let transactions = tickets.iter().map(TransactTicket::transaction);
        let decided = decide_all(transactions, &self.server.rows, context);
        self.server.rows.apply(decided.batch);
        decided.published.iter().for_each(|change| self.server.rings.publish(change));
        for (ticket, answer) in tickets.into_iter().zip(decided.answers) {
            let conn = ticket.conn();
            let answer = answer.expect("the rows are sound");
            self.server.answers.push_back((conn, ticket.answer(Ok(answer))));
        }
        self.count("commit");
    }

    // --- HTTP ---

    /// Devices with a request on its way to the server.
    #[must_use]
    pub fn requesting(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|i| !self.devices[*i].requests.is_empty()).collect()
    }

    /// The server gets a device's next request and answers it. The reply may be lost on its way.
    pub fn serve(&mut self, device: usize, lost: bool) {
        let Some(ticket) = self.devices[device].requests.pop_front() else { return };
        self.count("requests");
        let (ticket, answer) = self.reply_to(device, ticket);
        let answer = if lost { HttpAnswer::Failed("the reply was lost".into()) } else { answer };
        self.devices[device].replies.push_back(ticket.answer(answer));
    }

    /// A device's next request is lost on its way.
    pub fn lose_request(&mut self, device: usize) {
        let Some(ticket) = self.devices[device].requests.pop_front() else { return };
        let answer = HttpAnswer::Failed("the request was lost".into());
        self.devices[device].replies.push_back(ticket.answer(answer));
    }

    fn reply_to(&mut self, device: usize, ticket: HttpTicket) -> (HttpTicket, HttpAnswer) {
        let asked = ticket.request();
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let body = asked.body.clone().unwrap_or_default();
        let user = &self.devices[device].config.user;
        let user = (!user.is_empty()).then(|| user_id(user));
        let request = Request { method: asked.method.as_str(), path, query, body: &body, user };
        let config = HttpConfig::default();
        let reply = match call(&request, &config, &*self.policy) {
            Call::Immediate(reply) => reply,
            Call::Read(read) => {
                let answer = read.request().run(&self.server.rows, &*self.policy);
                read.reply(answer)
            }
            Call::Transact(write) => {
                let limits = Limits::default();
                let context =
                    Context { policy: &*self.policy, limits: &limits, now: self.now.wall };
                let mut decided = decide_all([write.transaction()], &self.server.rows, context);
                self.server.rows.apply(decided.batch);
                decided.published.iter().for_each(|change| self.server.rings.publish(change));
                let answer = decided.answers.remove(0).expect("the rows are sound");
                write.reply(self.now.wall, &config, Ok(answer))
            }
        };
        let Reply { status, body, .. } = reply;
        (ticket, HttpAnswer::Answered { status, retry_after: None, body })
    }

    /// Devices with a reply on its way back.
    #[must_use]
    pub fn replied(&self) -> Vec<usize> {
        (0..self.devices.len()).filter(|i| !self.devices[*i].replies.is_empty()).collect()
    }

    /// A device gets its next reply.
    pub fn deliver_reply(&mut self, device: usize) {
        let Some(input) = self.devices[device].replies.pop_front() else { return };
        let now = self.now;
        self.with(device, |replica, effects| replica.handle(now, input, effects));
    }

    /// The app of a device wants to be in step now.
    pub fn sync_now(&mut self, device: usize) {
        let now = self.now;
        self.with(device, |replica, effects| replica.sync_now(now, effects));
    }

    /// The app of a device says whether there is a network.
    pub fn set_online(&mut self, device: usize, online: bool) {
        let now = self.now;
        self.with(device, |replica, effects| replica.set_online(now, online, effects));
    }

    /// A device's try to connect is refused.
    pub fn refuse(&mut self, device: usize) {
        let Some(conn) = self.devices[device].dialling.take() else { return };
        self.devices[device].conn = None;
        let now = self.now;
        let why = Disconnect::Refused { status: 426, retry_after: None };
        let input = Input::Disconnected { conn, why };
        self.with(device, |replica, effects| replica.handle(now, input, effects));
    }

    /// How many pages wait to be read.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.server.reads.len()
    }

    /// A page is read; its session hears of it later.
    pub fn read(&mut self, index: usize) {
        let Some(ticket) = self.server.reads.remove(index) else { return };
        let conn = ticket.conn();
        let answer = ticket.request().run(&self.server.rows, &*self.policy);
        self.server.answers.push_back((conn, ticket.answer(answer)));
        self.count("read");
    }

    /// How many answers are on their way to their sessions.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.server.answers.len()
    }

    /// A session hears an answer.
    pub fn answer(&mut self, index: usize) {
        if let Some((conn, input)) = self.server.answers.remove(index) {
            self.tell(conn, input);
        }
    }

    /// Sessions that have something to send.
    #[must_use]
    pub fn pumpable(&self) -> Vec<ConnId> {
        let wants = |link: &Link| {
            link.session.as_ref().is_some_and(|session| session.wants_pump(&self.server.rings))
        };
        self.links.iter().filter(|(_, link)| wants(link)).map(|(conn, _)| *conn).collect()
    }

    /// A session's socket has room.
    pub fn pump(&mut self, conn: ConnId, room: usize) {
        self.tell(conn, ServerInput::Pump { room });
    }

    fn tell(&mut self, conn: ConnId, input: ServerInput<'_>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(session) = &mut link.session else { return };
        let mut actions = Vec::new();
        let rings = &self.server.rings;
        let mut lent = Lent { rings, policy: &*self.policy, user_bucket: None };
        let behind = session.status().counters.fell_behind;
        session.handle(self.now, input, &mut lent, &mut actions);
        session.check();
        if session.status().counters.fell_behind > behind {
            *self.counts.entry("fell behind").or_default() += 1;
        }
        for action in actions {
            match action {
                Action::Send(frame) if link.device_end => link.down.push_back(frame),
                Action::Send(_) | Action::Follow(_) | Action::Unfollow(_) => {}
                Action::Close { .. } => {
                    link.session = None;
                    link.up.clear();
                }
                Action::Authenticate(ticket) => {
                    let user = Some(user_id(ticket.token().reveal()));
                    self.server.answers.push_back((conn, ticket.answer(user)));
                }
                Action::Transact(ticket) => self.server.transactions.push_back(ticket),
                Action::Read(ticket) => self.server.reads.push_back(ticket),
            }
        }
        self.sweep_links();
    }

    // --- what goes wrong ---

    /// A device's disk makes commits durable, up to a share of those that are not.
    pub fn sync_disk(&mut self, device: usize, up_to: CommitNumber) {
        let now = self.now;
        self.with(device, |replica, effects| {
            replica.store_mut().make_durable(up_to);
            replica.poll_store(now, effects);
        });
    }

    /// The last commit of a device, and the last durable one.
    #[must_use]
    pub fn commits(&self, device: usize) -> (CommitNumber, CommitNumber) {
        let replica = &self.devices[device].replica;
        (replica.store().last(), replica.durable())
    }

    /// A device's process dies, and starts again with its disk at a commit that it could be at.
    pub fn crash_device(&mut self, device: usize, back_to: CommitNumber) {
        self.count("device crash");
        self.note(|| format!("device {device} crashes back to commit {back_to}"));
        let store = self.devices[device].replica.store().clone().crash_to(back_to);
        self.restart_device(device, store);
    }

    /// A device starts again from a store, perhaps an older copy of its own.
    pub fn restart_device(&mut self, device: usize, store: MemoryClientStore) {
        self.count("device restart");
        self.note(|| format!("device {device} starts again"));
        for conn in self.connected() {
            let link = &self.links[&conn];
            if link.device == device {
                let local = link.local;
                self.hang_up(device, local);
            }
        }
        let lives = self.devices[device].lives + 1;
        let seed = u128::from(self.config.seed) << 64 | u128::from(lives) << 32 | device as u128;
        let config = self.devices[device].config.clone();
        let mut effects = Vec::new();
        let mut replica = Replica::open(config.clone(), seed, self.now, store, &mut effects)
            .expect("the store is sound");
        replica.connect(self.now, &mut effects);
        let events = std::mem::take(&mut self.devices[device].events);
        let (conn, links, dialling) = (None, BTreeMap::new(), None);
        // what it asked for may still reach the server; nobody hears the reply
        let requests = std::mem::take(&mut self.devices[device].requests);
        requests.into_iter().for_each(|ticket| drop(self.reply_to(device, ticket)));
        let (requests, replies) = (VecDeque::new(), VecDeque::new());
        self.devices[device] =
            Device { config, replica, events, conn, links, dialling, requests, replies, lives };
        self.carry_out(device, effects);
        self.sweep_links();
    }

    /// The server's process dies and starts again: what was committed is there.
    pub fn crash_server(&mut self) {
        self.count("server crash");
        self.note(|| "the server crashes".into());
        let rows = self.server.rows.clone();
        self.restart_server(rows);
    }

    /// What the server holds, as a backup.
    #[must_use]
    pub fn backup(&self) -> MemoryRows {
        self.server.rows.clone()
    }

    /// The server starts again from rows, perhaps those of a backup.
    pub fn restart_server(&mut self, rows: MemoryRows) {
        self.count("server restart");
        self.note(|| "the server starts again".into());
        self.server = Server {
            rows,
            rings: Rings::new(self.config.ring),
            transactions: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            openings: self.server.openings + 1,
        };
        for link in self.links.values_mut() {
            link.session = None;
            link.up.clear();
        }
        self.begin_epoch();
        self.sweep_links();
    }

    fn begin_epoch(&mut self) {
        let id = format!("e{}-{}", self.config.seed, self.server.openings);
        let epoch = Epoch::new(&id).expect("a valid epoch");
        let limits = Limits::default();
        let context = Context { policy: &*self.policy, limits: &limits, now: self.now.wall };
        let begin = Transaction::BeginEpoch { epoch };
        let decided = decide_all([&begin], &self.server.rows, context);
        self.server.rows.apply(decided.batch);
        let report = verify(&self.server.rows).expect("the rows can be read");
        for (collection, head) in report.collections {
            self.server.rings.note_head(&collection, head.seq);
        }
    }

    // --- time ---

    /// Lets time pass, and everything that is due with it happen.
    pub fn pass(&mut self, millis: u64) {
        self.now.mono.0 += millis;
        self.now.wall.0 += i64::try_from(millis).unwrap_or(0);
        for device in 0..self.devices.len() {
            let due = self.devices[device].replica.deadline();
            if due.is_some_and(|(at, _)| at <= self.now.mono) {
                let now = self.now;
                self.with(device, |replica, effects| {
                    replica.handle(now, Input::Timeout, effects);
                });
            }
        }
        let conns: Vec<_> = self.links.keys().copied().collect();
        for conn in conns {
            let session = self.links.get(&conn).and_then(|link| link.session.as_ref());
            let due = session.and_then(Session::deadline);
            if due.is_some_and(|(at, _)| at <= self.now.mono) {
                self.tell(conn, ServerInput::Timeout);
            }
        }
    }

    /// The time until the next deadline of a device.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let due = |device: &Device| device.replica.deadline().map(|(at, _)| at);
        let next = self.devices.iter().filter_map(due).min()?;
        Some(next.0.saturating_sub(self.now.mono.0))
    }

    // --- the end ---

    /// Does everything that can be done without a fault and without time passing. Says whether
    /// there was anything.
    pub fn settle(&mut self) -> bool {
        let mut moved = false;
        loop {
            let before = moved;
            moved = false;
            for device in self.dialling() {
                self.connect(device);
                moved = true;
            }
            for device in 0..self.devices.len() {
                let (last, durable) = self.commits(device);
                if durable < last {
                    self.sync_disk(device, last);
                    moved = true;
                }
            }
            for conn in self.upward() {
                self.deliver_up(conn);
                moved = true;
            }
            for device in self.requesting() {
                self.serve(device, false);
                moved = true;
            }
            for device in self.replied() {
                self.deliver_reply(device);
                moved = true;
            }
            if self.transactions() > 0 {
                self.commit(usize::MAX);
                moved = true;
            }
            while self.reads() > 0 {
                self.read(0);
                moved = true;
            }
            while self.answers() > 0 {
                self.answer(0);
                moved = true;
            }
            for conn in self.pumpable() {
                self.pump(conn, 1 << 16);
                moved = true;
            }
            for conn in self.downward() {
                self.deliver_down(conn);
                moved = true;
            }
            self.sweep_links();
            if !moved {
                return before;
            }
        }
    }

    /// Lets all faults stop, and everything come to rest.
    ///
    /// # Errors
    /// Says what does not come to rest within ten virtual minutes.
    pub fn converge(&mut self) -> Result<(), String> {
        let end = self.now.mono.0 + 600_000;
        for conn in self.half_open() {
            self.forget(conn);
        }
        loop {
            self.settle();
            if self.is_quiet() {
                return self.compare();
            }
            if self.now.mono.0 > end {
                let status: Vec<_> =
                    self.devices.iter().map(|device| device.replica.status()).collect();
                return Err(format!("no rest: {status:#?}"));
            }
            let step = self.next_deadline().unwrap_or(1_000).clamp(1, 30_000);
            self.pass(step);
        }
    }

    /// As [`converge`](Self::converge), of devices that may poll: each is asked to be in step once
    /// its writes are through, whether it follows or not.
    ///
    /// # Errors
    /// As there.
    pub fn converge_by_any(&mut self) -> Result<(), String> {
        let end = self.now.mono.0 + 3_600_000;
        self.half_open().into_iter().for_each(|conn| self.forget(conn));
        (0..self.devices.len()).for_each(|device| self.set_online(device, true));
        loop {
            self.settle();
            let waits = |device: &Device| device.replica.status().pending_writes > 0;
            if !self.devices.iter().any(waits) {
                (0..self.devices.len()).for_each(|device| self.sync_now(device));
                self.settle();
                match self.compare() {
                    Ok(()) => return Ok(()),
                    Err(broken) if self.now.mono.0 > end => return Err(broken),
                    Err(_) => {}
                }
            }
            if self.now.mono.0 > end {
                let status: Vec<_> =
                    self.devices.iter().map(|device| device.replica.status()).collect();
                return Err(format!("no rest: {status:#?}"));
            }
            self.pass(self.next_deadline().unwrap_or(1_000).clamp(1, 30_000));
        }
    }

    fn is_quiet(&self) -> bool {
        self.devices.iter().all(|device| {
            let status = device.replica.status();
            let live = |c: &Collection| status.collections.get(c).is_some_and(|c| c.live);
            status.pending_writes == 0 && device.config.collections.iter().all(live)
        })
    }

    /// Every replica holds what the server holds, and the server's books are in order.
    ///
    /// # Errors
    /// Says what differs.
    pub fn compare(&self) -> Result<(), String> {
        let report = self.verify();
        if !report.faults.is_empty() {
            return Err(format!("the server's rows: {:?}", report.faults));
        }
        let server = self.server_records();
        let head = report.collections.get(&todos());
        for (i, device) in self.devices.iter().enumerate() {
            let held: BTreeMap<_, _> = device
                .replica
                .get_all(&todos())
                .map_err(|error| error.message)?
                .into_iter()
                .map(|record| (record.id, record.document))
                .collect();
            if held != server {
                return Err(format!("device {i} holds {held:?}, the server {server:?}"));
            }
            let status = &device.replica.status().collections[&todos()];
            if let Some(head) = head
                && (status.count, status.checksum) != (head.count, head.checksum)
            {
                return Err(format!("device {i} has another checksum: {status:?} {head:?}"));
            }
        }
        Ok(())
    }

    /// What an offline check of the server's rows says.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn verify(&self) -> Report {
        verify(&self.server.rows).expect("the rows can be read")
    }

    /// The records that the server holds.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn server_records(&self) -> BTreeMap<RecordId, Document> {
        let reader = Reader { collection: todos(), user: None, partial: false };
        let request = ReadRequest::Whole { reader, bytes: usize::MAX };
        match request.run(&self.server.rows, &AllowAll).expect("the rows can be read") {
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

    /// How many changes each of the server's records has seen.
    ///
    /// # Panics
    /// When the rows can't be read.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<RecordId, u64> {
        let reader = Reader { collection: todos(), user: None, partial: false };
        let request = ReadRequest::Query { reader, query: Query::default(), bytes: usize::MAX };
        match request.run(&self.server.rows, &AllowAll).expect("the rows can be read") {
            ReadAnswer::Found(Some(records)) => {
                records.into_iter().map(|record| (record.id, record.version)).collect()
            }
            ReadAnswer::Found(None)
            | ReadAnswer::Page(_)
            | ReadAnswer::Pulled(_)
            | ReadAnswer::Whole(_) => unreachable!("a query was asked"),
        }
    }

    /// Whether a device has seen an event.
    #[must_use]
    pub fn saw(&self, device: usize, kind: fn(&EventKind) -> bool) -> bool {
        self.devices[device].events.iter().any(|event| kind(&event.kind))
    }
}

fn user_id(name: &str) -> UserId {
    UserId::new(name).expect("a valid user")
}
