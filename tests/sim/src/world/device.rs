//! Replicas in the world: what their adapters do.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, CommitNumber, ConnId, DatabaseId, Disconnect, Event,
    EventKind, Fate, FateId, Input, Level, MemoryClientStore, Mono, NamedScope, NetAction, Now,
    Replica, ScopeStanding, StoreError, SyncId, SyncOutcome, Transport, WatchId,
};

use crate::invariants::Invariant;

use super::World;
use super::clock::Clock;
use super::http::{CallId, Way};
use super::link::{Link, Owner};
use super::middlebox::{Middlebox, ToNotice};
use super::queries::AppQuery;
use super::scopes::Used;
use super::thin::Places;

/// One replica with its disk, its clocks and its end of the network.
pub struct Device {
    /// The configuration for the next start.
    pub config: ClientConfig,
    /// The replica itself.
    pub replica: Replica<MemoryClientStore>,
    /// The number of calls that share the commit to come.
    pub(crate) shared: usize,
    /// The last commit that its app waits for.
    pub(super) awaited: CommitNumber,
    /// Its clocks.
    pub clock: Clock,
    /// The number of times that its wall clock was set or stopped.
    pub clock_moves: u64,
    /// The events so far, oldest first.
    pub events: Vec<Event>,
    /// The fates of writes that were told since somebody last took this list.
    pub fates: Vec<(FateId, Fate)>,
    /// The calls of `synced` that were answered, each with its outcome.
    pub synced: Vec<(SyncId, SyncOutcome)>,
    /// The frames that it has sent since somebody last took this list, each with the last commit
    /// that was durable then.
    pub sent: Vec<(Bytes, CommitNumber)>,
    /// `true` if its disk makes nothing durable for now.
    pub disk_paused: bool,
    /// `true` if no connection comes up and nothing gets through.
    pub cut_off: bool,
    /// The reach of its WebSockets.
    pub sockets: Way,
    /// The reach of its HTTP requests.
    pub calls: Way,
    /// `true` if its app says that there is no network.
    pub offline: bool,
    /// The calls of `synced` that wait, each with the heads of the server's collections at that
    /// time.
    pub(super) waiting_syncs: BTreeMap<SyncId, Vec<(Collection, u64)>>,
    /// The collections that the server has refused since they were last in step.
    pub(super) refused: BTreeSet<Collection>,
    /// `true` if its replica has reported that it stopped.
    halted: bool,
    /// `true` if it sleeps: none of its timers fires until it is woken.
    pub asleep: bool,
    /// `true` if something on the way has answered its calls as a plain server without records does,
    /// and if something has answered them as one that knows no hello: together they are one.
    pub(super) met_imitation: [bool; 2],
    /// The number of starts.
    pub lives: u64,
    /// The watchers of its app, with their pending updates.
    pub(super) watches: BTreeMap<Collection, (WatchId, bool)>,
    /// The queries that its app watches.
    pub(super) queries: Vec<AppQuery>,
    /// Which connection in the world its own number stands for.
    pub(super) links: BTreeMap<ConnId, ConnId>,
    /// A connection that it asked for.
    pub(super) dialling: Option<ConnId>,
    /// The commit in which it last took in an ack.
    pub(super) acked_at: CommitNumber,
    /// Frames of connections that it has lost.
    pub(super) late: VecDeque<(ConnId, Bytes)>,
    /// The number of late frames and answers that it got in this life.
    pub(super) late_given: u64,
    /// The call whose answer its machine waits for.
    pub(super) asked: Option<CallId>,
    /// Until when the server wants to be left alone, and its app has not asked for anything.
    pub(super) rests_until: Option<Mono>,
    /// The same, as far as connections are concerned.
    pub(super) sockets_rest_until: Option<Mono>,
    /// `true` if its app wants something at once in a call of the group that is open: what is asked at
    /// the group's end may be of a call before the one in which the server asked to be left alone.
    pub(super) hurries: bool,
    /// `true` if it has slept in this life while its wall clock stood still, so that neither clock
    /// shows the sleep: until the next hello its time may be behind by the length of the sleep.
    pub slept_unseen: bool,
    /// `true` if it has heard in this life the answer to a question that was under way for so long,
    /// while it was suspended, that half of that is more than a time may be wrong.
    pub heard_late: bool,
    /// The number of times that it has slept.
    pub naps: u64,
    /// The dead connection that it has to notice, and until when.
    pub(super) to_notice: ToNotice,
    /// The places at which its thin links broke.
    pub(super) places: Places,
    /// `true` if it has lost a connection on which it had written, and has not sent anything since.
    pub(super) lost_writes_by_socket: bool,
    /// The database that has taken writes of it, since it last decided or started.
    pub(super) database: Option<DatabaseId>,
    /// `true` if its directory was restored, perhaps to a state from before the first contact.
    pub restored: bool,
    /// `true` if its app has decided about a loss.
    pub decided: bool,
    /// The scopes that its app uses.
    pub(super) used: Used,
    /// The last that was known of the scopes that it holds.
    pub(super) standings: BTreeMap<Collection, Option<BTreeMap<NamedScope, ScopeStanding>>>,
}

impl Device {
    /// The present readings of its clocks.
    #[must_use]
    pub fn now(&self, world: Now) -> Now {
        self.clock.read(world)
    }

    /// Takes note of something on the way that answers its calls.
    pub(super) fn meet(&mut self, middlebox: Middlebox) {
        self.met_imitation[0] |= middlebox.imitates_a_plain_server();
        self.met_imitation[1] |= middlebox.knows_no_hello();
    }

    /// Returns `true` if its store has failed, so that it must be restarted.
    #[must_use]
    pub fn has_halted(&self) -> bool {
        self.halted
    }

    /// Returns `true` if a call of `synced` was answered.
    #[must_use]
    pub fn is_told(&self, call: SyncId) -> bool {
        self.synced.iter().any(|(id, _)| *id == call)
    }

    /// Returns `true` if one of its WebSockets can come up.
    #[must_use]
    pub fn has_socket(&self) -> bool {
        self.config.websocket && self.sockets == Way::Open
    }

    /// Frames that the machine ignored although nothing explains it. What was on its way of a
    /// connection that it had given up is explained.
    #[must_use]
    pub fn unexplained_frames(&self) -> u64 {
        self.replica.status().ignored_frames.saturating_sub(self.late_given)
    }
}

/// Returns `true` if a frame holds a numbered write.
fn is_write(frame: &[u8]) -> bool {
    const NUMBER: &[u8] = b"\"mutation\":";
    frame.windows(NUMBER.len()).any(|part| part == NUMBER)
}

impl World {
    /// Adds a replica on a store, which may be a copy of another's. Returns its index.
    ///
    /// # Panics
    /// When the store is damaged.
    pub fn add_device(&mut self, config: ClientConfig, store: MemoryClientStore) -> usize {
        let index = self.devices.len();
        let wall_ahead = self.config.clocks.get(index).copied().unwrap_or(0);
        if wall_ahead != 0 {
            self.count("clock wrong at first start");
        }
        let clock = Clock {
            mono_ahead: 1_000 * i64::try_from(index).unwrap_or(0),
            wall_ahead,
            ..Clock::default()
        };
        let (replica, actions) = self.open(&config, store, clock, index, 0);
        self.devices.push(Device {
            config,
            replica,
            shared: 0,
            awaited: CommitNumber(0),
            clock,
            clock_moves: 0,
            events: Vec::new(),
            fates: Vec::new(),
            synced: Vec::new(),
            sent: Vec::new(),
            disk_paused: false,
            cut_off: false,
            sockets: Way::Open,
            calls: Way::Open,
            offline: false,
            waiting_syncs: BTreeMap::new(),
            refused: BTreeSet::new(),
            halted: false,
            asleep: false,
            met_imitation: [false; 2],
            lives: 0,
            watches: BTreeMap::new(),
            queries: Vec::new(),
            links: BTreeMap::new(),
            dialling: None,
            acked_at: CommitNumber(0),
            late: VecDeque::new(),
            late_given: 0,
            asked: None,
            slept_unseen: false,
            heard_late: false,
            naps: 0,
            restored: false,
            to_notice: None,
            places: Places::default(),
            rests_until: None,
            sockets_rest_until: None,
            hurries: false,
            lost_writes_by_socket: false,
            database: None,
            decided: false,
            used: BTreeMap::new(),
            standings: BTreeMap::new(),
        });
        self.devices[index].start_with_scopes();
        self.know_client(index);
        self.carry_out(index, actions);
        self.watch_all(index);
        index
    }

    fn open(
        &self,
        config: &ClientConfig,
        mut store: MemoryClientStore,
        clock: Clock,
        device: usize,
        lives: u64,
    ) -> (Replica<MemoryClientStore>, Vec<Action>) {
        let seed = u128::from(self.config.seed) << 64
            | 0xde_0000_0000_0000
            | u128::from(lives) << 16
            | device as u128;
        let mut actions = Vec::new();
        let now = clock.read(self.now);
        // both ways to begin are taken: what is held is counted, or believed
        store.set_proves_rows(device % 2 == 1);
        let config = self.with_indexes(config, device, lives);
        let mut replica =
            Replica::open(config, seed, now, store, &mut actions).expect("the store is sound");
        replica.command(now, Command::Connect, &mut actions);
        (replica, actions)
    }

    /// Notes under which id a device goes.
    pub(crate) fn know_client(&mut self, device: usize) {
        let client = self.devices[device].replica.status().client_id;
        self.clients.insert(client, device);
    }

    /// A device starts again from a store, perhaps an older copy of its own. Its machine's
    /// monotonic clock starts anew.
    pub fn restart_device(&mut self, device: usize, store: MemoryClientStore) {
        self.count("device restart");
        self.note(|| format!("device {device} starts again"));
        for conn in self.connections_of(device) {
            let local = self.links[&conn].local;
            self.hang_up(device, local);
        }
        let lives = self.devices[device].lives + 1;
        let config = self.devices[device].config.clone();
        let mut clock = self.devices[device].clock;
        clock.mono_ahead += 77;
        let (replica, actions) = self.open(&config, store, clock, device, lives);
        let this = &mut self.devices[device];
        this.awaited = CommitNumber(0);
        if this.shared > 0 {
            this.shared = 0;
            self.count("end with a commit to come");
        }
        let this = &mut self.devices[device];
        (this.replica, this.clock, this.lives, this.halted) = (replica, clock, lives, false);
        this.links.clear();
        this.waiting_syncs.clear();
        this.synced.clear();
        this.late.clear();
        this.watches.clear();
        this.queries.clear();
        (this.dialling, this.late_given, this.asleep) = (None, 0, false);
        // what was heard late stays: it corrects the writes of the clock run in which it came
        (this.to_notice, this.slept_unseen) = (None, false);
        (this.asked, this.offline, this.lost_writes_by_socket) = (None, false, false);
        this.database = None;
        (this.rests_until, this.sockets_rest_until, this.hurries) = (None, None, false);
        this.acked_at = CommitNumber(0);
        this.start_with_scopes();
        self.orphan_calls(device);
        self.carry_out(device, actions);
        self.watch_all(device);
        self.sweep_links();
    }

    // --- what its adapter does ---

    pub(super) fn with<T>(
        &mut self,
        device: usize,
        call: impl FnOnce(&mut Replica<MemoryClientStore>, Now, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let now = self.devices[device].now(self.now);
        let ignored = |world: &Self| world.devices[device].replica.status().ignored_frames;
        // the replica may have given a connection up in a call of the same group
        let in_group = self.devices[device].shared > 0;
        let before = (in_group || self.trace.is_some()).then(|| ignored(self));
        let this = &mut self.devices[device];
        let commits = this.replica.store().last().0;
        if self.config.shared > 0 && this.shared == 0 {
            this.replica.begin_group();
        }
        let answer = call(&mut this.replica, now, &mut actions);
        if self.config.shared > 0 {
            this.shared += 1;
        }
        if this.shared > self.config.shared {
            this.shared = 0;
            this.replica.end_group(now, &mut actions);
        }
        self.commits += this.replica.store().last().0 - commits;
        self.check_awaited(device);
        let newly_ignored = before.map_or(0, |before| ignored(self) - before);
        if in_group {
            self.devices[device].late_given += newly_ignored;
        }
        if newly_ignored > 0 {
            self.note(|| format!("device {device} does not listen to that"));
        }
        // what a failed store holds is not what the machine wanted it to hold
        let this = &self.devices[device];
        let halted = this.replica.has_halted();
        let checked = if halted { Ok(()) } else { this.replica.check() };
        let moves = if halted { Ok(()) } else { this.replica.check_progress() };
        for (of, checked) in [(Invariant::Contract, checked), (Invariant::Progress, moves)] {
            if let Err(broken) = checked {
                self.fail(of, format!("device {device}: {broken}"));
            }
        }
        let level = self.devices[device].replica.status().level;
        if level == Some(Level::Plain) {
            self.count("taken for a plain server");
            if self.devices[device].met_imitation != [true; 2] {
                let what = format!("device {device} takes this server for a plain one");
                self.fail(Invariant::Contract, what);
            }
        }
        self.take_queries(device);
        self.count_scopes(device);
        self.carry_out(device, actions);
        let this = &mut self.devices[device];
        this.hurries &= this.shared > 0;
        if halted != self.devices[device].has_halted() {
            self.fail(Invariant::Contract, format!("device {device} has stopped, and did not say"));
        }
        answer
    }

    pub(crate) fn carry_out(&mut self, device: usize, actions: Vec<Action>) {
        self.count_points(device, &actions);
        let is_close = |action: &Action| matches!(action, Action::Net(NetAction::Close { .. }));
        let hangs_up = actions.iter().any(is_close);
        for action in actions {
            match action {
                Action::Net(NetAction::Connect { conn, .. }) => {
                    self.devices[device].dialling = Some(conn);
                    let rest = self.devices[device].sockets_rest_until.take();
                    self.look_at_rest(device, rest);
                }
                Action::Net(NetAction::Send { conn, frame }) => {
                    self.fold(&frame);
                    self.count_said(&frame);
                    let this = &mut self.devices[device];
                    this.sent.push((frame.clone(), this.replica.durable()));
                    if let Some(link) = self.link_of(device, conn)
                        && !link.silent
                        && link.server_end
                    {
                        link.has_written |= is_write(&frame);
                        link.up.push_back(frame);
                    }
                }
                // nothing answers a ping of a connection that is closed in the same breath
                Action::Net(NetAction::Ping { .. }) if hangs_up => {}
                Action::Net(NetAction::Ping { conn }) => self.ping(device, conn),
                Action::Net(NetAction::Close { conn }) => self.hang_up(device, conn),
                Action::Net(NetAction::Request(ticket)) => self.ask(device, ticket),
                Action::Event(event) => {
                    self.note(|| format!("device {device} tells {:?}", event.kind));
                    self.fold_event(&event);
                    if let EventKind::ReplicaCopied { client_id, .. } = &event.kind {
                        self.clients.insert(client_id.clone(), device);
                    }
                    let by_http = event.transport == Some(Transport::Http);
                    let given_up = match &event.kind {
                        EventKind::TokenNeeded { .. } => true,
                        EventKind::Error { message, .. } => {
                            message.contains("not answered in time")
                        }
                        _ => false,
                    };
                    if by_http && given_up {
                        self.devices[device].asked = None;
                    }
                    self.note_refusal(device, &event);
                    self.devices[device].events.push(event);
                }
                Action::Watch(watch) => {
                    let watches = &mut self.devices[device].watches;
                    let told = watches.values_mut().find(|(id, _)| *id == watch);
                    told.into_iter().for_each(|(_, told)| *told = true);
                }
                Action::Synced { id, outcome } => self.synced(device, id, outcome),
                Action::Fate { id, fate } => self.devices[device].fates.push((id, fate)),
                Action::Durable(_) => {}
                Action::Halted(_) => {
                    self.count("halt");
                    self.devices[device].halted = true;
                }
            }
        }
    }

    /// Counts what can only be seen in one step's effects together.
    fn count_points(&mut self, device: usize, actions: &[Action]) {
        if actions.is_empty() {
            return;
        }
        let events = || {
            actions.iter().filter_map(|action| match action {
                Action::Event(event) => Some(event),
                Action::Net(_)
                | Action::Synced { .. }
                | Action::Halted(_)
                | Action::Fate { .. }
                | Action::Durable(_)
                | Action::Watch(_) => None,
            })
        };
        let needs_token = |event: &Event| matches!(event.kind, EventKind::TokenNeeded { .. });
        if events().any(needs_token) && self.devices[device].replica.status().pending_writes > 0 {
            self.count("token needed with pending writes");
        }
        let greeted = events().any(|event| event.kind == EventKind::RealtimeConnected);
        for event in events() {
            match event.kind {
                EventKind::OperationSynced { .. } => {
                    self.devices[device].acked_at = self.devices[device].replica.store().last();
                    if greeted {
                        self.count("lost ack told by the next hello");
                    }
                }
                EventKind::TransactionFailed { ref code, .. } => {
                    self.count(match code.as_str() {
                        "LOST" => "transaction lost",
                        "PRECONDITION_FAILED" => "expectation failed",
                        _ => "transaction rejected",
                    });
                }
                EventKind::ConflictDetected { .. } => {
                    let of_it = |other: &&Event| other.kind.record_id() == event.kind.record_id();
                    let is_ack =
                        |other: &&Event| matches!(other.kind, EventKind::OperationSynced { .. });
                    if events().filter(of_it).any(|other| is_ack(&other)) {
                        self.count("conflict on a frozen record");
                    }
                }
                EventKind::IndexProgress { done: true, .. } => self.count("index built"),
                _ => {}
            }
        }
    }

    /// A WebSocket ping: the far end answers by itself, where it is there.
    fn ping(&mut self, device: usize, conn: ConnId) {
        let Some(link) = self.link_of(device, conn) else { return };
        if link.silent || !link.server_end {
            return;
        }
        let world = self.devices[device].links[&conn];
        self.tell_ping(world);
        self.with(device, |replica, now, actions| {
            replica.handle(now, Input::Heard { conn }, actions);
        });
    }

    pub(super) fn link_of(&mut self, device: usize, conn: ConnId) -> Option<&mut Link> {
        let world = self.devices[device].links.get(&conn)?;
        self.links.get_mut(world).filter(|link| link.device_end)
    }

    /// The device's end is gone. What was on its way to it may still turn up late.
    pub(super) fn hang_up(&mut self, device: usize, conn: ConnId) {
        let this = &mut self.devices[device];
        if this.dialling == Some(conn) {
            this.dialling = None;
        }
        if let Some(link) = self.link_of(device, conn) {
            link.device_end = false;
            let lost = std::mem::take(&mut link.down);
            let late = &mut self.devices[device].late;
            late.extend(lost.into_iter().map(|frame| (conn, frame)));
            while late.len() > 20 {
                late.pop_front();
            }
        }
    }

    /// Connections of a device whose end it still has.
    #[must_use]
    pub fn connections_of(&self, device: usize) -> Vec<ConnId> {
        let own = |link: &Link| link.device_end && link.owner == Owner::Device(device);
        self.links.iter().filter(|(_, link)| own(link)).map(|(conn, _)| *conn).collect()
    }

    /// A frame of a connection that a device has lost turns up after all. Says whether there was
    /// one.
    pub fn deliver_late(&mut self, device: usize) -> bool {
        let Some((conn, frame)) = self.devices[device].late.pop_front() else { return false };
        self.count("late frame");
        self.note(|| format!("late: {}", String::from_utf8_lossy(&frame)));
        self.devices[device].late_given += 1;
        let input = Input::Frame { conn, frame: &frame };
        self.with(device, |replica, now, actions| replica.handle(now, input, actions));
        true
    }

    // --- its disk ---

    /// The last commit of a device, and the last durable one.
    #[must_use]
    pub fn commits(&self, device: usize) -> (CommitNumber, CommitNumber) {
        let replica = &self.devices[device].replica;
        (replica.store().last(), replica.durable())
    }

    /// A device's disk makes commits durable.
    pub fn sync_disk(&mut self, device: usize, up_to: CommitNumber) {
        self.end_group(device);
        // a disk that fails makes nothing durable any more
        if self.devices[device].has_halted() {
            return;
        }
        self.with(device, |replica, now, actions| {
            replica.store_mut().make_durable(up_to);
            replica.poll_store(now, actions);
        });
        // the replica hears of it at the end of its group
        self.end_group(device);
    }

    /// A device's disk fails: at its `nth` commit from now on, or at once where that is 0.
    pub fn fail_disk(&mut self, device: usize, nth: u64, error: StoreError) {
        self.count("disk failure");
        self.note(|| format!("the disk of device {device} fails at commit +{nth}: {error}"));
        self.with(device, |replica, now, actions| {
            if nth == 0 {
                replica.store_mut().fail(error);
                replica.poll_store(now, actions);
            } else {
                replica.store_mut().fail_commit(nth, error);
            }
        });
    }

    /// A device's process dies, and starts again with its disk at a commit that it could be at.
    pub fn crash_device(&mut self, device: usize, back_to: CommitNumber) {
        self.count("device crash");
        self.note(|| format!("device {device} crashes back to commit {back_to}"));
        if back_to < self.devices[device].acked_at {
            self.count("crash between an ack and its commit");
        }
        if self.devices[device].replica.status().collections.values().any(|c| c.catching_up) {
            self.count("crash in mid catch-up");
        }
        let told = |event: &Event| match event.kind {
            EventKind::IndexProgress { done, .. } => Some(done),
            _ => None,
        };
        if self.devices[device].events.iter().rev().find_map(told) == Some(false) {
            self.count("crash while an index is built");
        }
        let store = self.devices[device].replica.store().clone().crash_to(back_to);
        self.restart_device(device, store);
    }

    /// A device loses a connection, as it is told.
    pub(super) fn lose_connection(&mut self, device: usize, conn: ConnId, why: Disconnect) {
        let wrote = self.link_of(device, conn).is_some_and(|link| link.has_written);
        self.hang_up(device, conn);
        let status = self.devices[device].replica.status();
        if wrote && status.pending_writes > 0 {
            self.devices[device].lost_writes_by_socket = true;
        }
        if let Disconnect::Refused { retry_after: Some(wait), .. } = &why {
            // an exchange by HTTP that has begun goes on
            self.devices[device].sockets_rest_until = Some(self.now.mono + *wait);
        }
        for status in status.collections.values() {
            if status.catching_up {
                let anew = status.cursor.is_none();
                self.count("cut in mid catch-up");
                if anew {
                    self.count("cut in mid snapshot");
                }
            }
        }
        let input = Input::Disconnected { conn, why };
        self.with(device, |replica, now, actions| replica.handle(now, input, actions));
    }

    /// Returns `true` if a device has seen an event.
    #[must_use]
    pub fn saw(&self, device: usize, kind: fn(&EventKind) -> bool) -> bool {
        self.devices[device].events.iter().any(|event| kind(&event.kind))
    }
}
