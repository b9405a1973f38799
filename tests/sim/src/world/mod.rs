//! A world of replicas and a server under virtual time: real core machines, a network that loses,
//! cuts and keeps silent, disks that forget what was not durable and fail, clocks that are wrong.
//!
//! Everything that can happen without a fault is a [`Move`]; [`World::moves`] lists those that are
//! possible. Faults and what apps do are methods. Whoever drives a world chooses; the same choices
//! give the same run. What breaks the contract between machines and adapters shows in
//! [`World::broken`].

mod clock;
mod damage;
mod device;
mod foreign;
mod history;
mod http;
mod link;
mod middlebox;
mod plain;
mod server;
mod synced;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synclayer_core::server::http::Reply;
use synclayer_core::server::hub::{self, Hub};
use synclayer_core::server::session::{Identity, Input as ServerInput, Session};
use synclayer_core::server::{RingLimits, ServerLimits};
use synclayer_core::{
    AllowAll, ClientConfig, ClientId, Collection, ConnId, Disconnect, Document, Event, Input,
    Limits, MemoryClientStore, Mono, Now, Policy, RecordId, StoreError, StoreErrorKind, SyncId,
    Timer, Timestamp, UserId,
};

use crate::draw::fold_into;
use crate::invariants::Invariant;
use crate::scenario::render::event_name;
use http::HttpCall;
use link::Link;
use server::{Server, Store};

pub use clock::Clock;
pub use device::Device;
pub use history::{Committed, Histories, History, Place};
pub use http::{CallId, Way};
pub use link::Owner;
pub use middlebox::{Middlebox, Waking};
pub use plain::{Plain, without_nulls};
pub use server::{Backup, CommitFate};

/// The layout of a world.
#[derive(Clone)]
pub struct WorldConfig {
    /// The seed of everything that the machines draw.
    pub seed: u64,
    /// The collections.
    pub collections: Vec<Collection>,
    /// One configuration for each replica. A token is the user's name, perhaps with a `#` and more
    /// behind it, so that one user can have several; without a token the server knows no users.
    pub clients: Vec<ClientConfig>,
    /// The server's limits on its peers.
    pub limits: ServerLimits,
    /// The capacity of the server's rings.
    pub ring: RingLimits,
    /// The server's permissions.
    pub policy: Arc<dyn Policy>,
    /// The number of bytes that may be in transit down a new connection, by turns.
    pub capacities: Vec<usize>,
    /// The lead of the wall clock of each of the first devices at its first start, in milliseconds;
    /// the clocks of further devices are right.
    pub clocks: Vec<i64>,
}

impl WorldConfig {
    /// So many replicas that use these collections, and nothing out of the ordinary.
    #[must_use]
    pub fn of(replicas: usize, collections: &[Collection]) -> Self {
        let client = ClientConfig { collections: collections.to_vec(), ..ClientConfig::default() };
        Self {
            seed: 0,
            collections: collections.to_vec(),
            clients: vec![client; replicas],
            limits: ServerLimits::default(),
            ring: RingLimits::default(),
            policy: Arc::new(AllowAll),
            capacities: vec![1 << 16],
            clocks: Vec::new(),
        }
    }
}

/// Something that happens when nothing goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// A connection that a device asked for comes up, or is refused.
    Connect(usize),
    /// A device's disk makes everything durable.
    Sync(usize),
    /// The server gets the next frame of a connection.
    Up(ConnId),
    /// The server's disk takes all transactions that wait.
    Commit,
    /// The server reads the first page that waits.
    Read,
    /// A session hears the first answer that waits.
    Answer,
    /// A connection's socket takes what its session has to say.
    Pump(ConnId),
    /// A connection's owner gets the next frame.
    Down(ConnId),
    /// The server gets a call by HTTP, or something before it refuses it.
    Ask(CallId),
    /// A device gets the answer to a call.
    Reply(CallId),
}

/// Replicas, a server, and what is between them.
pub struct World {
    /// The time by which everything is ordered; it passes only by [`World::pass`].
    pub now: Now,
    /// The replicas.
    pub devices: Vec<Device>,
    /// The level-1 programs.
    pub plains: Vec<Plain>,
    /// The server's clocks.
    pub server_clock: Clock,
    /// `true` if the server's wall clock was ever set or stopped.
    pub server_clock_moved: bool,
    /// Tokens that the server takes no longer.
    pub expired_tokens: BTreeSet<String>,
    /// The commits since this list was last taken.
    pub committed: Vec<Committed>,
    /// Counts of what happened, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// The history, one line for each event, if it is recorded.
    pub trace: Option<Vec<String>>,
    /// The breaches, by invariant, each in the form in which it first showed.
    pub broken: BTreeMap<Invariant, String>,
    server: Server,
    store: Store,
    links: BTreeMap<ConnId, Link>,
    next_conn: ConnId,
    calls: BTreeMap<CallId, HttpCall>,
    next_call: u64,
    /// The owner of each connection, present or past.
    owners: BTreeMap<ConnId, Owner>,
    /// The owner of each client id, present or past; for a copy's id, the one that spoke last.
    clients: BTreeMap<ClientId, usize>,
    /// The records of which the server has refused a client's write for good.
    refused: BTreeSet<(ClientId, Place)>,
    config: WorldConfig,
    /// A digest of what went out of the machines.
    said: u64,
    /// The number of commits that the devices' stores have taken.
    commits: u64,
}

/// The collection of those who need one only.
///
/// # Panics
/// Never: the name is valid.
#[must_use]
pub fn todos() -> Collection {
    Collection::new("todos").expect("a valid name")
}

/// A record id.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn record(text: &str) -> RecordId {
    RecordId::new(text).expect("a valid id")
}

/// A document.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).expect("a valid document")
}

/// The user of this token.
fn user_of(token: &str) -> UserId {
    UserId::new(token.split('#').next().unwrap_or_default()).expect("a valid user")
}

impl World {
    /// A world in which nothing has happened yet; every replica wants to connect.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let mut world = Self {
            now: Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) },
            devices: Vec::new(),
            plains: Vec::new(),
            server_clock: Clock::default(),
            server_clock_moved: false,
            expired_tokens: BTreeSet::new(),
            committed: Vec::new(),
            counts: BTreeMap::new(),
            trace: None,
            broken: BTreeMap::new(),
            server: Server::new(&config),
            store: Store::new(),
            links: BTreeMap::new(),
            next_conn: ConnId(0),
            calls: BTreeMap::new(),
            next_call: 0,
            owners: BTreeMap::new(),
            clients: BTreeMap::new(),
            refused: BTreeSet::new(),
            config,
            said: 0,
            commits: 0,
        };
        world.begin_epoch(None);
        for client in world.config.clients.clone() {
            world.add_device(client, MemoryClientStore::when_told());
        }
        world
    }

    /// The layout of the world.
    #[must_use]
    pub fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// The owner of a connection, present or past.
    #[must_use]
    pub fn owner(&self, conn: ConnId) -> Option<Owner> {
        self.owners.get(&conn).copied()
    }

    /// A digest of what the machines did that others can see: frames, requests and answers by HTTP,
    /// events by their names, how often they wrote to their stores, and how much time it took. It
    /// does not depend on how they are made inside.
    #[must_use]
    pub fn said(&self) -> u64 {
        let commits = self.counts.get("commit").copied().unwrap_or_default();
        let figures = [self.now.mono.0, self.commits, commits];
        figures.iter().fold(self.said, |hash, figure| fold_into(hash, &figure.to_le_bytes()))
    }

    /// A digest of everything that was said so far, and of the machines' states. Equal runs have
    /// equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let machines = self.devices.iter().map(|device| device.replica.digest());
        let sessions = self.sessions().map(Session::digest);
        let parts = machines.chain(sessions);
        parts.fold(self.said(), |hash, part| fold_into(hash, &part.to_le_bytes()))
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Writes a line into the trace, where one is wanted.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3}  {}", self.now.mono.0 as f64 / 1000.0, line()));
        }
    }

    /// Something happened that must not; of each invariant the first such thing counts.
    pub fn fail(&mut self, invariant: Invariant, what: String) {
        self.note(|| format!("BROKEN: {invariant}: {what}"));
        self.broken.entry(invariant).or_insert(what);
    }

    fn fold(&mut self, bytes: &[u8]) {
        self.said = fold_into(self.said, bytes);
    }

    fn fold_event(&mut self, event: &Event) {
        self.fold(event_name(&event.kind).as_bytes());
        let collection =
            event.kind.collection().as_ref().map_or(&[][..], |of| of.as_str().as_bytes());
        self.fold(collection);
        self.fold(event.kind.record_id().as_ref().map_or(&[][..], |id| id.as_bytes()));
    }

    fn fold_reply(&mut self, reply: &Reply) {
        self.fold(&reply.status.to_le_bytes());
        for (name, value) in &reply.headers {
            self.fold(name.as_bytes());
            self.fold(value.as_bytes());
        }
        self.fold(&reply.body);
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn = self.next_conn.next();
        self.next_conn
    }

    // --- what happens when nothing goes wrong ---

    /// Everything that can happen now without a fault and without time passing.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (index, device) in self.devices.iter().enumerate() {
            if device.dialling.is_some() && !device.cut_off && device.sockets != Way::Stalled {
                moves.push(Move::Connect(index));
            }
            let (last, durable) = (device.replica.store().last(), device.replica.durable());
            if durable < last && !device.disk_paused && !device.has_halted() {
                moves.push(Move::Sync(index));
            }
        }
        for (conn, link) in &self.links {
            if !link.up.is_empty()
                && self.server.hub.session(*conn).is_some_and(Session::wants_frames)
            {
                moves.push(Move::Up(*conn));
            }
            if !link.down.is_empty() && link.device_end {
                moves.push(Move::Down(*conn));
            }
            if link.awake && link.room() > 0 && self.server.hub.wants_room(*conn) {
                moves.push(Move::Pump(*conn));
            }
        }
        if self.transactions() > 0 && !self.store.paused {
            moves.push(Move::Commit);
        }
        if self.server.hub.waiting_reads().len() > 0 {
            moves.push(Move::Read);
        }
        if self.server.hub.waiting_answers().len() > 0 {
            moves.push(Move::Answer);
        }
        let turn = |(id, back)| if back { Move::Reply(id) } else { Move::Ask(id) };
        moves.extend(self.moving_calls().map(turn));
        moves
    }

    /// Makes a move.
    pub fn make(&mut self, one: Move) {
        match one {
            Move::Connect(device) => self.connect(device),
            Move::Sync(device) => self.sync_disk(device, self.commits(device).0),
            Move::Up(conn) => self.deliver_up(conn),
            Move::Commit => self.commit(usize::MAX, CommitFate::Done),
            Move::Read => self.read(0, false),
            Move::Answer => self.answer(0),
            Move::Pump(conn) => {
                let room = self.links.get(&conn).map_or(0, Link::room);
                self.pump(conn, room);
            }
            Move::Down(conn) => self.deliver_down(conn),
            Move::Ask(call) => self.serve(call),
            Move::Reply(call) => self.deliver_answer(call),
        }
    }

    /// The device of a move, if there is one.
    #[must_use]
    pub fn device_of(&self, one: Move) -> Option<usize> {
        match one {
            Move::Connect(device) | Move::Sync(device) => Some(device),
            Move::Up(conn) | Move::Pump(conn) | Move::Down(conn) => match self.owner(conn)? {
                Owner::Device(device) => Some(device),
                Owner::Plain(_) => None,
            },
            Move::Ask(call) | Move::Reply(call) => self.caller(call),
            Move::Commit | Move::Read | Move::Answer => None,
        }
    }

    /// A connection comes up, or is refused.
    fn connect(&mut self, device: usize) {
        let Some(local) = self.devices[device].dialling.take() else { return };
        let token = self.devices[device].config.token.clone();
        let token = token.as_ref().map(|token| token.reveal().to_owned());
        if token.as_ref().is_some_and(|token| self.expired_tokens.contains(token)) {
            self.count("connection refused");
            let body = br#"{"error":"the token has expired","code":"AUTH_EXPIRED"}"#.to_vec();
            let why = Disconnect::Refused { status: 401, retry_after: None, body };
            return self.lose_connection(device, local, why);
        }
        if let Way::Refused(retry_after) = self.devices[device].sockets {
            self.count("WebSocket refused");
            let status = if retry_after.is_some() { 503 } else { 426 };
            let why = Disconnect::Refused { status, retry_after, body: Vec::new() };
            return self.lose_connection(device, local, why);
        }
        if let Way::Answered(middlebox) = self.devices[device].sockets {
            self.count("handshake answered on the way");
            if let 401 | 403 = middlebox.status {
                self.count("access refused on the way");
            }
            return self.lose_connection(device, local, middlebox.refusal());
        }
        self.count("connect");
        self.turn_from_calls(device);
        let conn = self.new_conn();
        self.note(|| format!("device {device} has connection {conn}"));
        let identity = token.map_or(Identity::Open, |token| Identity::Known(user_of(&token)));
        let owner = Owner::Device(device);
        let turns = self.config.capacities.len().max(1);
        let turn = usize::try_from(conn.0).unwrap_or(0) % turns;
        let capacity = self.config.capacities.get(turn).copied().unwrap_or(1 << 16);
        self.devices[device].links.insert(local, conn);
        self.owners.insert(conn, owner);
        self.links.insert(conn, Link::new(owner, local, capacity));
        self.serve_input(hub::Input::Accepted { conn, identity });
        self.with(device, |replica, now, actions| {
            replica.handle(now, Input::Connected { conn: local }, actions);
        });
    }

    fn deliver_up(&mut self, conn: ConnId) {
        let Some(frame) = self.links.get_mut(&conn).and_then(|link| link.up.pop_front()) else {
            return;
        };
        self.count("frames up");
        self.note(|| format!("{conn} > {}", String::from_utf8_lossy(&frame)));
        if self.links[&conn].device_end || self.trace.is_none() {
            self.look_at_frame_up(&frame);
        }
        self.tell(conn, ServerInput::Frame(&frame));
    }

    fn look_at_frame_up(&mut self, frame: &[u8]) {
        let has = |text: &[u8]| frame.windows(text.len()).any(|part| part == text);
        if has(b"\"resume\":") {
            let snapshot = has(b"\"snapshotSeq\":");
            self.count(if snapshot { "resumed snapshot" } else { "resumed delta" });
        }
    }

    fn deliver_down(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(frame) = link.down.pop_front() else { return };
        // the socket has room again
        link.awake = true;
        let (owner, local) = (link.owner, link.local);
        self.count("frames down");
        self.note(|| format!("{conn} < {}", String::from_utf8_lossy(&frame)));
        match owner {
            Owner::Device(device) => {
                let input = Input::Frame { conn: local, frame: &frame };
                let parked = self.devices[device].replica.parked();
                self.with(device, |replica, now, actions| replica.handle(now, input, actions));
                if self.devices[device].replica.parked() > parked {
                    self.count("parked change");
                }
            }
            Owner::Plain(plain) => self.hear_plain(plain, conn, &frame),
        }
        self.sweep_links();
    }

    // --- what the network does ---

    /// Connections whose owner still has its end.
    #[must_use]
    pub fn connected(&self) -> Vec<ConnId> {
        self.links.iter().filter(|(_, link)| link.device_end).map(|(conn, _)| *conn).collect()
    }

    /// Connections whose owner is gone, while the server goes on with what it got.
    #[must_use]
    pub fn half_open(&self) -> Vec<ConnId> {
        let half = |link: &Link| !link.device_end && link.server_end;
        self.links.iter().filter(|(_, link)| half(link)).map(|(conn, _)| *conn).collect()
    }

    /// An owner loses a connection with what was on its way down. What was on its way up may still
    /// arrive.
    pub fn cut(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        let (owner, local) = (link.owner, link.local);
        self.count("cut");
        self.note(|| format!("connection {conn} is cut"));
        match owner {
            Owner::Device(device) => {
                let why = Disconnect::Lost("cut".into());
                self.lose_connection(device, local, why);
            }
            Owner::Plain(_) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.device_end = false;
                }
            }
        }
        self.sweep_links();
    }

    /// From now on every byte of a connection vanishes, and nobody is told.
    pub fn silence(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        (link.silent, link.awake) = (true, true);
        link.up.clear();
        link.down.clear();
        self.count("silent connection");
        self.note(|| format!("the bytes of connection {conn} vanish"));
    }

    /// Returns `true` if nothing comes through a connection any more, although the server does not
    /// know.
    #[must_use]
    pub fn is_dead(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_none_or(|link| link.silent || !link.device_end)
    }

    /// The server loses a connection with what was on its way up.
    pub fn forget(&mut self, conn: ConnId) {
        self.count("tail lost");
        self.note(|| format!("the server loses {conn}"));
        self.lose_server_end(conn);
        self.sweep_links();
    }

    /// The server has closed connections; their owners see the end after the last frame, where
    /// they are not deaf.
    fn sweep_links(&mut self) {
        let ended: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link.server_end && link.device_end)
            .filter(|(_, link)| link.down.is_empty() && !link.silent)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in ended {
            self.cut(conn);
        }
        self.links.retain(|_, link| link.server_end || link.device_end);
    }

    // --- time ---

    /// Lets time pass. Everyone who has a deadline is called when it comes, not sooner, not later;
    /// but sleeping devices.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now.mono.0 + millis;
        while let Some(at) = self.next_deadline().filter(|at| at.0 <= end) {
            self.set_time(at.0.max(self.now.mono.0));
            self.ring_timers();
            self.look_at_the_dead();
            // it might ask for the same time for ever
            if self.broken.contains_key(&Invariant::Contract) {
                break;
            }
        }
        self.set_time(end);
        self.look_at_the_dead();
    }

    fn set_time(&mut self, mono: u64) {
        let millis = mono.saturating_sub(self.now.mono.0);
        self.now.mono.0 += millis;
        self.now.wall.0 += i64::try_from(millis).unwrap_or(0);
    }

    fn ring_timers(&mut self) {
        self.time_out_calls();
        for device in 0..self.devices.len() {
            if self.due(device).is_none_or(|at| at > self.now.mono) {
                continue;
            }
            let timer = self.devices[device].replica.deadline().map(|(_, timer)| timer);
            if timer == Some(Timer::Leave) {
                self.count("left by itself");
            }
            self.with(device, |replica, now, actions| {
                replica.handle(now, Input::Timeout, actions);
            });
            if self.due(device).is_some_and(|at| at <= self.now.mono) {
                let what = format!("device {device} asks for a time-out that it just had");
                self.fail(Invariant::Contract, what);
            }
        }
        let server_now = self.server_clock.read(self.now).mono;
        let due = |hub: &Hub| hub.deadline().is_some_and(|(at, _)| at <= server_now);
        if due(&self.server.hub) {
            self.serve_input(hub::Input::Timeout);
            if due(&self.server.hub) {
                let what = "the server asks for a time-out that it just had".into();
                self.fail(Invariant::Contract, what);
            }
        }
    }

    /// When a device wants to be called, by the world's clock.
    fn due(&self, device: usize) -> Option<Mono> {
        let device = &self.devices[device];
        let (at, _) = device.replica.deadline().filter(|_| !device.asleep)?;
        Some(device.clock.when(at))
    }

    /// The next time at which someone wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let devices = (0..self.devices.len()).filter_map(|device| self.due(device));
        let server = self.server.hub.deadline().map(|(at, _)| self.server_clock.when(at));
        devices.chain(server).chain(self.next_patience()).min()
    }

    /// The time until the next deadline, in milliseconds.
    #[must_use]
    pub fn until_deadline(&self) -> Option<u64> {
        Some(self.next_deadline()?.0.saturating_sub(self.now.mono.0))
    }

    // --- the end ---

    /// Ends every fault: whatever is broken heals, but for what was lost.
    pub fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.store.paused = false;
        if self.store.poisoned {
            self.crash_server();
        }
        for conn in self.half_open() {
            self.forget(conn);
        }
        for device in 0..self.devices.len() {
            let this = &mut self.devices[device];
            (this.disk_paused, this.cut_off, this.asleep) = (false, false, false);
            let answered = |way: &Way| matches!(way, Way::Answered(_));
            let had_middlebox = [this.sockets, this.calls].iter().any(answered);
            (this.sockets, this.calls) = (Way::Open, Way::Open);
            this.late.clear();
            let never = StoreError::new(StoreErrorKind::Other, "never");
            this.replica.store_mut().fail_commit(u64::MAX, never);
            if this.has_halted() {
                let store = this.replica.store().clone().reopen();
                self.restart_device(device, store);
            }
            if had_middlebox {
                self.count("middlebox gone at the end");
            }
            if self.devices[device].offline {
                self.set_online(device, true);
            }
        }
    }

    /// Lets moves happen until there is none left, and calls `look` after each.
    ///
    /// # Errors
    /// What `look` says, and what broke.
    pub fn settle(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        // far more than any world of ours needs without time passing
        for turn in 0..200_000_usize {
            let moves = self.moves();
            let Some(one) = (!moves.is_empty()).then(|| moves[turn % moves.len()]) else {
                return self.check_idle();
            };
            self.make(one);
            look(self)?;
            self.check_unbroken()?;
        }
        Err("the world does not come to rest, although no time passes".into())
    }

    /// The first breach, if there is one.
    ///
    /// # Errors
    /// That.
    pub fn check_unbroken(&self) -> Result<(), String> {
        match self.broken.first_key_value() {
            Some((invariant, what)) => Err(format!("{invariant}: {what}")),
            None => Ok(()),
        }
    }

    /// Returns `true` if nothing sleeps that has something to send.
    ///
    /// # Errors
    /// Who does.
    pub fn check_idle(&self) -> Result<(), String> {
        let hub = &self.server.hub;
        hub.check();
        let asleep = |(conn, link): &(&ConnId, &Link)| {
            !link.silent && link.room() > 0 && hub.wants_room(**conn)
        };
        match self.links.iter().find(asleep) {
            Some((conn, _)) => {
                Err(format!("{conn} has something to say, and nothing will wake it"))
            }
            None => Ok(()),
        }
    }

    /// Lets everything come to rest, after all faults have [ended](Self::heal).
    ///
    /// # Errors
    /// Says what breaks, or does not come to rest within ten virtual minutes.
    pub fn converge(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.come_to_rest(look, &Self::is_quiet)?;
        // one who polls sees what others did when it asks the next time
        for _ in 0..6 {
            let heads = self.heads();
            let polls = |device: &usize| !self.devices[*device].has_socket();
            let pollers: Vec<_> = (0..self.devices.len()).filter(polls).collect();
            let asked: Vec<_> =
                pollers.into_iter().map(|device| (device, self.ask_synced(device))).collect();
            self.come_to_rest(look, &|world| {
                let told = |(device, id): &(usize, SyncId)| world.devices[*device].is_told(*id);
                world.is_quiet() && asked.iter().all(told)
            })?;
            if self.heads() == heads {
                return Ok(());
            }
        }
        Err("the devices go on writing, although no app does".into())
    }

    fn come_to_rest(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
        is_at_rest: &dyn Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now.mono.0 + 600_000;
        loop {
            self.settle(look)?;
            if is_at_rest(self) {
                return Ok(());
            }
            if self.now.mono.0 > end {
                let status: Vec<_> =
                    self.devices.iter().map(|device| device.replica.status()).collect();
                return Err(format!("no rest within ten minutes: {status:?}"));
            }
            self.pass(self.until_deadline().unwrap_or(1_000).clamp(1, 30_000));
            look(self)?;
        }
    }

    /// Returns `true` if every outbox is empty, and every collection of a device with a WebSocket
    /// is live.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.devices.iter().all(|device| {
            let status = device.replica.status();
            let live = |c: &Collection| status.collections.get(c).is_some_and(|c| c.live);
            let polls = !device.has_socket();
            status.pending_writes == 0 && (polls || device.config.collections.iter().all(live))
        })
    }

    /// Returns `true` if everything is [quiet](Self::is_quiet), and the devices that poll know
    /// every change.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        let heads = self.heads();
        self.is_quiet()
            && self.devices.iter().filter(|device| !device.has_socket()).all(|device| {
                let status = device.replica.status();
                heads.iter().all(|(collection, head)| {
                    let known = status.collections.get(collection);
                    let cursor = known.and_then(|known| known.cursor.as_ref());
                    cursor.is_some_and(|cursor| cursor.seq.0 == *head)
                })
            })
    }
}
