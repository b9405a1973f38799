//! A world of replicas and a server under virtual time: real core machines, a network that loses,
//! cuts and keeps silent, disks that forget what was not durable and fail, clocks that are wrong.
//!
//! Everything that can happen without a fault is a [`Move`]; [`World::moves`] lists those that are
//! possible. Faults and what apps do are methods. Whoever drives a world chooses; the same choices
//! give the same run. What breaks the contract between machines and adapters shows in
//! [`World::broken`].

mod app;
mod clock;
mod committed;
mod damage;
mod device;
mod foreign;
mod groups;
mod history;
mod http;
mod indexes;
mod link;
mod middlebox;
mod network;
mod plain;
mod queries;
mod rest;
mod restarts;
mod rights;
mod scopes;
mod server;
mod synced;
mod thin;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synclayer_core::testing::{Checked, InspectHub, InspectReplica, SimulatedDisk};
use synclayer_core::{
    AllowAll, ClientConfig, ClientId, Collection, ConnId, Document, Event, EventKind, Limits,
    MemoryClientStore, Mono, Now, Policy, RecordId, Reply, RingLimits, ScopeKey, ServerLimits,
    Session, Timestamp, UserId,
};

use crate::draw::fold_into;
use crate::invariants::Invariant;
use crate::scenario::render::event_name;
use http::HttpCall;
use link::Link;
use rights::Rights;
use server::{Server, Store};

pub use clock::Clock;
pub use device::Device;
pub use history::{Committed, Histories, History, Place};
pub use http::{CallId, Way};
pub use link::Owner;
pub use middlebox::{Middlebox, Waking};
pub use plain::{Plain, without_nulls};
pub use scopes::{is_held, lies_in};
pub use server::{Backup, CommitFate};

/// The layout of a world.
#[derive(Clone)]
pub struct WorldConfig {
    /// The seed of everything that the machines draw.
    pub seed: u64,
    /// The collections.
    pub collections: Vec<Collection>,
    /// One configuration for each replica. A token is the user's name, perhaps with a `#` and more
    /// behind it, so that one user can have several, and with claims behind a `+`; without a token the
    /// server knows no users.
    pub clients: Vec<ClientConfig>,
    /// The server's limits on its peers.
    pub limits: ServerLimits,
    /// The capacity of the server's rings.
    pub ring: RingLimits,
    /// The scope keys that the server declares.
    pub scopes: BTreeMap<Collection, Vec<ScopeKey>>,
    /// The server's permissions.
    pub policy: Arc<dyn Policy>,
    /// The number of bytes that may be in transit down a new connection, by turns.
    pub capacities: Vec<usize>,
    /// The number of bytes of each direction behind which a device's connection breaks, and the most
    /// that a call by HTTP carries.
    pub carried: Option<usize>,
    /// The number of calls of a device that share a commit with the one before them, at most.
    pub shared: usize,
    /// The lead of the wall clock of each of the first devices at its first start, in milliseconds;
    /// the clocks of further devices are right.
    pub clocks: Vec<i64>,
}

impl WorldConfig {
    /// So many replicas that use these collections, and nothing out of the ordinary.
    #[must_use]
    pub fn of(replicas: usize, collections: &[Collection]) -> Self {
        let mut client = ClientConfig::default();
        client.collections = collections.to_vec();
        Self {
            seed: 0,
            collections: collections.to_vec(),
            clients: vec![client; replicas],
            limits: ServerLimits::default(),
            ring: RingLimits::default(),
            scopes: BTreeMap::new(),
            policy: Arc::new(AllowAll),
            capacities: vec![1 << 16],
            carried: None,
            shared: 0,
            clocks: Vec::new(),
        }
    }
}

/// Something that happens when nothing goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// A connection that a device asked for comes up, or is refused.
    Connect(usize),
    /// The calls of a device that share a commit have all been made.
    EndGroup(usize),
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
    /// `true` if all faults have ended, but for thin links.
    healed: bool,
    /// The rights of users, where the server has rules.
    rights: Option<Rights>,
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
pub(crate) fn user_of(token: &str) -> UserId {
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
            healed: false,
            rights: None,
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
        let sessions = self.sessions().map(|(_, session)| session.digest());
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
        // the one is drawn apart from what a run does, and the other is for people alone
        if matches!(event.kind, EventKind::IndexProgress { .. } | EventKind::SyncProgress { .. }) {
            return;
        }
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
            if device.shared > 0 {
                moves.push(Move::EndGroup(index));
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
        if self.server.hub.waiting_reads() > 0 {
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
            Move::EndGroup(device) => self.end_group(device),
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
            Move::Connect(device) | Move::EndGroup(device) | Move::Sync(device) => Some(device),
            Move::Up(conn) | Move::Pump(conn) | Move::Down(conn) => match self.owner(conn)? {
                Owner::Device(device) => Some(device),
                Owner::Plain(_) => None,
            },
            Move::Ask(call) | Move::Reply(call) => self.caller(call),
            Move::Commit | Move::Read | Move::Answer => None,
        }
    }
}
