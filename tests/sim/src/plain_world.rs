//! Replicas at a [`PlainServer`] under virtual time, with a network that cuts connections every few
//! messages and loses requests and answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use synclayer_core::testing::{Checked, InspectReplica};
use synclayer_core::{
    Action, ClientConfig, Command, ConnId, Delta, Disconnect, Document, Event, EventKind,
    HttpAnswer, HttpRequest, HttpTicket, Input, MemoryClientStore, Mono, NetAction, Now, RecordId,
    Replica, Timestamp, WatchId, Write,
};

use crate::plain_server::{PlainServer, Sent, Ways};
use crate::refusal::{OpenCall, State};
use crate::world::{Middlebox, document, record, todos};

/// The longest way of a frame.
const DELAY_MILLIS: u64 = 900;

/// The faults that may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// One in so many frames loses its connection; 0: none does.
    pub cut: u64,
    /// One in so many requests fails; 0: none does.
    pub lose: u64,
}

/// One connection as the network has it.
struct PlainLink {
    device: usize,
    local: ConnId,
    /// Frames with the time of their arrival; an empty one is a WebSocket ping.
    up: VecDeque<(u64, Bytes)>,
    /// The same; an empty one is a WebSocket pong.
    down: VecDeque<(u64, Vec<u8>)>,
}

/// A replica and what it has to do with the network.
pub struct PlainDevice {
    /// The replica.
    pub replica: Replica<MemoryClientStore>,
    /// Events, oldest first.
    pub events: Vec<Event>,
    config: ClientConfig,
    conn: Option<ConnId>,
    requests: Vec<(u64, HttpTicket)>,
    watch: Option<WatchId>,
    lives: u64,
    /// Every value that the field `x` of a record has shown, in order.
    pub shown: BTreeMap<RecordId, Vec<String>>,
}

/// Replicas, a plain server, and what is between them.
pub struct PlainWorld {
    /// The time.
    pub now: Now,
    /// The server.
    pub server: PlainServer,
    /// The replicas.
    pub devices: Vec<PlainDevice>,
    /// A trace with one line for each event, if wanted.
    pub trace: Option<Vec<String>>,
    /// The faults that may happen.
    pub faults: Faults,
    /// The bytes that went over WebSockets in both directions, with the heads of their frames.
    pub bytes: u64,
    random: Rng,
    links: BTreeMap<ConnId, PlainLink>,
    next_conn: ConnId,
    /// True if WebSockets come up.
    pub sockets: bool,
    /// The middlebox that answers in the server's place for now.
    portal: Option<Middlebox>,
    /// Calls and handshakes that were answered so.
    pub answered_on_the_way: u64,
    /// Calls that the server has answered with the wish for fewer.
    pub slowed: u64,
}

impl PlainWorld {
    /// A world whose replicas want to connect.
    #[must_use]
    pub fn new(seed: u64, ways: Ways, faults: Faults, clients: Vec<ClientConfig>) -> Self {
        let now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
        let mut world = Self {
            now,
            server: PlainServer::new(ways),
            devices: Vec::new(),
            trace: None,
            faults,
            bytes: 0,
            random: Rng::with_seed(seed),
            links: BTreeMap::new(),
            next_conn: ConnId(0),
            sockets: true,
            portal: None,
            answered_on_the_way: 0,
            slowed: 0,
        };
        for (i, config) in clients.into_iter().enumerate() {
            let store = MemoryClientStore::default();
            world.add(i, config, store, 0);
        }
        world
    }

    fn add(&mut self, i: usize, config: ClientConfig, store: MemoryClientStore, lives: u64) {
        let mut actions = Vec::new();
        let seed = (u128::from(self.random.u64(..)) << 64) | i as u128;
        let replica = Replica::open(config.clone(), seed, self.now, store, &mut actions)
            .expect("the store is sound");
        let device = PlainDevice {
            replica,
            events: Vec::new(),
            config,
            conn: None,
            requests: Vec::new(),
            watch: None,
            lives,
            shown: BTreeMap::new(),
        };
        if i == self.devices.len() {
            self.devices.push(device);
        } else {
            let shown = std::mem::take(&mut self.devices[i].shown);
            self.devices[i] = PlainDevice { shown, ..device };
        }
        self.carry_out(i, actions);
        let now = self.now;
        self.with(i, |replica, actions| replica.command(now, Command::Connect, actions));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.now.mono.0;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at} {}", line()));
        }
    }

    /// A replica stops and starts again on its store; everything in it is durable.
    pub fn restart(&mut self, i: usize) {
        self.note(|| format!("device {i} restarts"));
        if let Some(conn) = self.devices[i].conn {
            self.break_link(conn);
        }
        let store = self.devices[i].replica.store().clone();
        let (config, lives) = (self.devices[i].config.clone(), self.devices[i].lives + 1);
        self.add(i, config, store, lives);
    }

    /// From now on something answers everything in the server's place, or does so no longer.
    pub fn place_portal(&mut self, portal: Option<Middlebox>) {
        self.note(|| format!("what answers in the server's place: {portal:?}"));
        if portal.is_some() {
            for conn in self.links.keys().copied().collect::<Vec<_>>() {
                self.break_link(conn);
            }
        }
        self.portal = portal;
    }

    /// The app of a device saves a record.
    pub fn save(&mut self, i: usize, id: &str, json: &str) {
        self.note(|| format!("device {i} saves {id} {json}"));
        let (now, document) = (self.now, document(json));
        let _ = self.with(i, |replica, actions| {
            replica.write(now, Write::Save(todos(), record(id), document), actions)
        });
    }

    /// The app of a device changes a record, if it has it.
    pub fn update(&mut self, i: usize, id: &str, json: &str) {
        self.note(|| format!("device {i} updates {id} {json}"));
        let (now, delta) = (self.now, Delta::new(document(json), vec![]));
        let _ = self.with(i, |replica, actions| {
            replica.write(now, Write::Update(todos(), record(id), delta), actions)
        });
    }

    /// The app of a device removes a record.
    pub fn delete(&mut self, i: usize, id: &str) {
        self.note(|| format!("device {i} deletes {id}"));
        let now = self.now;
        let _ = self.with(i, |replica, actions| {
            replica.write(now, Write::Delete(todos(), record(id)), actions)
        });
    }

    /// Returns the records that a device shows.
    ///
    /// # Panics
    /// When its store can't be read.
    #[must_use]
    pub fn contents(&self, i: usize) -> BTreeMap<RecordId, Document> {
        let all = self.devices[i].replica.get_all(&todos()).expect("the store can be read");
        all.into_iter().map(|record| (record.id, record.document)).collect()
    }

    /// The replica of a device, and what it waits for.
    pub(crate) fn state(&self, i: usize) -> State<'_> {
        let PlainDevice { replica, conn, requests, .. } = &self.devices[i];
        let link = conn.and_then(|conn| self.links.get(&conn));
        let open = |ticket| OpenCall { ticket, answer: Some(self.would_answer(ticket)) };
        State {
            replica,
            now: self.now,
            conn: link.map(|link| link.local),
            calls: requests.iter().map(|(_, ticket)| open(ticket)).collect(),
        }
    }

    /// The answer that the server would give now.
    fn would_answer(&self, ticket: &HttpTicket) -> (u16, Vec<u8>) {
        let HttpRequest { method, path, body, .. } = &ticket.request;
        let body = body.as_deref().unwrap_or_default();
        let (status, told, _) = self.server.clone().request(method, path, body, self.now.wall);
        (status, told.into_bytes())
    }

    fn with<T>(
        &mut self,
        i: usize,
        call: impl FnOnce(&mut Replica<MemoryClientStore>, &mut Vec<Action>) -> T,
    ) -> T {
        let mut actions = Vec::new();
        let answer = call(&mut self.devices[i].replica, &mut actions);
        if let Err(broken) = self.devices[i].replica.check() {
            panic!("device {i}: {broken}");
        }
        self.carry_out(i, actions);
        self.look(i);
        answer
    }

    /// Notes what a watcher of the field `x` sees.
    fn look(&mut self, i: usize) {
        for (id, document) in self.contents(i) {
            let value = document.text("x").unwrap_or("nothing").to_string();
            let shown = self.devices[i].shown.entry(id).or_default();
            if shown.last() != Some(&value) {
                shown.push(value);
            }
        }
    }

    fn carry_out(&mut self, i: usize, actions: Vec<Action>) {
        let now = self.now.mono.0;
        for action in actions {
            match action {
                Action::Net(NetAction::Connect { conn, .. }) => self.dial(i, conn),
                Action::Net(NetAction::Send { conn, frame }) => self.send(i, conn, frame),
                Action::Net(NetAction::Ping { conn }) => self.send(i, conn, Bytes::new()),
                Action::Net(NetAction::Close { conn }) => {
                    let world = self.devices[i].conn.take();
                    if let Some(world) = world.filter(|world| {
                        self.links.get(world).is_some_and(|link| link.local == conn)
                    }) {
                        self.drop_link(world);
                    }
                }
                Action::Net(NetAction::Request(ticket)) => {
                    let at = now + self.random.u64(1..DELAY_MILLIS);
                    self.devices[i].requests.push((at, ticket));
                }
                Action::Event(event) => {
                    self.note(|| format!("device {i} tells {:?}", event.kind));
                    self.devices[i].events.push(event);
                }
                Action::Watch(id) => self.devices[i].watch = Some(id),
                Action::Synced { .. }
                | Action::Fate { .. }
                | Action::Durable(_)
                | Action::Halted(_) => {}
            }
        }
    }

    fn send(&mut self, i: usize, conn: ConnId, frame: Bytes) {
        self.bytes += 6 + frame.len() as u64;
        let at = self.now.mono.0 + self.random.u64(1..DELAY_MILLIS);
        if let Some(link) = self.link(i, conn) {
            let at = link.up.back().map_or(at, |(last, _)| at.max(*last));
            link.up.push_back((at, frame));
        }
    }

    fn link(&mut self, i: usize, local: ConnId) -> Option<&mut PlainLink> {
        let conn = self.devices[i].conn?;
        self.links.get_mut(&conn).filter(|link| link.local == local)
    }

    fn dial(&mut self, i: usize, local: ConnId) {
        self.next_conn = self.next_conn.next();
        let conn = self.next_conn;
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.links.insert(conn, PlainLink { device: i, local, up, down });
        self.devices[i].conn = Some(conn);
    }

    /// The server's end goes; some of what was on its way up still arrives.
    fn drop_link(&mut self, conn: ConnId) {
        let Some(mut link) = self.links.remove(&conn) else { return };
        let arrive = self.random.usize(0..=link.up.len());
        for (_, frame) in link.up.drain(..arrive) {
            self.server_hears(conn, &frame);
        }
        self.server.close(conn);
    }

    /// A connection breaks for both ends.
    fn break_link(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        let (i, local, now) = (link.device, link.local, self.now);
        self.note(|| format!("the connection of device {i} is cut"));
        self.drop_link(conn);
        self.devices[i].conn = None;
        let why = Disconnect::Lost("cut".into());
        self.with(i, |replica, actions| {
            replica.handle(now, Input::Disconnected { conn: local, why }, actions);
        });
    }

    fn server_hears(&mut self, conn: ConnId, frame: &[u8]) {
        if frame.is_empty() {
            self.spread(vec![(conn, Vec::new())]);
            return;
        }
        self.note(|| format!("{conn} > {}", String::from_utf8_lossy(frame)));
        let out = self.server.hear(conn, frame, self.now.wall);
        self.spread(out);
    }

    fn spread(&mut self, out: Vec<Sent>) {
        for (conn, frame) in out {
            self.bytes += 2 + frame.len() as u64;
            let at = self.now.mono.0 + self.random.u64(1..DELAY_MILLIS);
            if let Some(link) = self.links.get_mut(&conn) {
                let at = link.down.back().map_or(at, |(last, _)| at.max(*last));
                link.down.push_back((at, frame));
            }
        }
    }

    fn strikes(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.u64(0..one_in) == 0
    }

    /// When the next thing happens by itself.
    fn next_at(&self) -> u64 {
        let links = self.links.values().flat_map(|link| {
            let up = link.up.front().map(|(at, _)| *at);
            let down = link.down.front().map(|(at, _)| *at);
            [up, down]
        });
        let devices = self.devices.iter().flat_map(|device| {
            let request = device.requests.iter().map(|(at, _)| *at).min();
            [request, device.replica.deadline().map(|(at, _)| at.0)]
        });
        links.chain(devices).flatten().min().unwrap_or(self.now.mono.0 + 1_000)
    }

    /// Lets things happen for a time.
    pub fn run(&mut self, millis: u64) {
        let end = self.now.mono.0 + millis;
        loop {
            self.open_links();
            let at = self.next_at().max(self.now.mono.0);
            if at > end {
                self.pass_to(end);
                return;
            }
            self.pass_to(at);
            self.happen();
        }
    }

    fn pass_to(&mut self, at: u64) {
        let passed = at - self.now.mono.0;
        self.now.mono.0 = at;
        self.now.wall.0 += i64::try_from(passed).unwrap_or(0);
    }

    fn open_links(&mut self) {
        let now = self.now;
        let unopened: Vec<_> = self
            .devices
            .iter()
            .enumerate()
            .filter_map(|(i, device)| Some((i, device.conn?)))
            .filter(|(_, conn)| !self.server.knows(*conn))
            .collect();
        for (i, conn) in unopened {
            let Some(local) = self.links.get(&conn).map(|link| link.local) else { continue };
            if let Some(portal) = self.portal {
                self.answered_on_the_way += 1;
                self.links.remove(&conn);
                self.devices[i].conn = None;
                let why = portal.refusal();
                self.with(i, |replica, actions| {
                    replica.handle(now, Input::Disconnected { conn: local, why }, actions);
                });
                continue;
            }
            if self.sockets {
                self.server.open(conn);
                self.with(i, |replica, actions| {
                    replica.handle(now, Input::Connected { conn: local }, actions);
                });
            } else {
                self.break_link(conn);
            }
        }
    }

    /// Everything that is due now.
    fn happen(&mut self) {
        let now = self.now;
        let conns: Vec<_> = self.links.keys().copied().collect();
        for conn in conns {
            self.move_frames(conn);
        }
        for i in 0..self.devices.len() {
            while let Some(place) =
                self.devices[i].requests.iter().position(|(at, _)| *at <= now.mono.0)
            {
                let (_, ticket) = self.devices[i].requests.remove(place);
                self.answer(i, ticket);
            }
            if self.devices[i].replica.deadline().is_some_and(|(at, _)| at <= now.mono) {
                self.with(i, |replica, actions| replica.handle(now, Input::Timeout, actions));
            }
        }
    }

    fn move_frames(&mut self, conn: ConnId) {
        let now = self.now;
        while let Some(link) = self.links.get_mut(&conn)
            && let Some((_, frame)) = due(&mut link.up, now)
        {
            self.server_hears(conn, &frame);
            if self.strikes(self.faults.cut) {
                self.break_link(conn);
            }
        }
        while let Some(link) = self.links.get_mut(&conn)
            && let Some((_, frame)) = due(&mut link.down, now)
        {
            let (i, local) = (link.device, link.local);
            self.note(|| format!("{conn} < {}", String::from_utf8_lossy(&frame)));
            let input = match frame.is_empty() {
                true => Input::Heard { conn: local },
                false => Input::Frame { conn: local, frame: &frame },
            };
            self.with(i, |replica, actions| replica.handle(now, input, actions));
            if self.strikes(self.faults.cut) {
                self.break_link(conn);
            }
        }
    }

    fn answer(&mut self, i: usize, ticket: HttpTicket) {
        let lost = self.strikes(self.faults.lose);
        let arrives = !lost || self.random.bool();
        let request = &ticket.request;
        let (method, path) = (request.method, request.path.clone());
        let body = request.body.clone().unwrap_or_default();
        let mut answer = HttpAnswer::Failed("the network is down".into());
        if let Some(portal) = self.portal {
            self.answered_on_the_way += 1;
            answer = portal.answer();
            self.note(|| format!("device {i} {method} {path} is answered on the way"));
        } else if arrives {
            let (status, told, out) = self.server.request(method, &path, &body, self.now.wall);
            self.note(|| {
                let body = String::from_utf8_lossy(&body);
                format!("device {i} {method} {path} {body} = {status} {told} lost: {lost}")
            });
            self.spread(out);
            if !lost {
                answer =
                    HttpAnswer::Answered { status, retry_after: None, body: told.into_bytes() };
            }
        } else if self.random.bool() {
            self.slowed += 1;
            let retry_after = self.random.bool().then_some(Duration::from_secs(2));
            answer = HttpAnswer::Answered { status: 429, retry_after, body: Vec::new() };
            self.note(|| format!("device {i} {method} {path} comes too soon: {retry_after:?}"));
        }
        let now = self.now;
        self.with(i, |replica, actions| replica.handle(now, ticket.answer(answer), actions));
    }

    /// Lets all faults stop, and everything come to rest: every replica shows what the server has.
    ///
    /// # Errors
    /// Says what differs after three virtual hours.
    pub fn converge(&mut self) -> Result<(), String> {
        self.faults = Faults { cut: 0, lose: 0 };
        let mut differs = String::new();
        // a reconcile takes an hour to come
        for _ in 0..220 {
            self.run(50_000);
            match self.compare() {
                Ok(()) => return Ok(()),
                Err(why) => differs = why,
            }
        }
        Err(differs)
    }

    /// Checks that every replica shows the server's records, and nothing waits.
    ///
    /// # Errors
    /// Says what differs.
    pub fn compare(&self) -> Result<(), String> {
        let server = plain(self.server.contents(&todos()));
        for i in 0..self.devices.len() {
            let pending = self.devices[i].replica.status().pending_writes;
            if pending > 0 {
                return Err(format!("device {i} has {pending} writes waiting"));
            }
            let held = plain(self.contents(i));
            if held != server {
                return Err(format!("device {i} shows {held:?}, the server has {server:?}"));
            }
        }
        Ok(())
    }

    /// Returns true if a device has seen an event.
    #[must_use]
    pub fn saw(&self, i: usize, kind: fn(&EventKind) -> bool) -> bool {
        self.devices[i].events.iter().any(|event| kind(&event.kind))
    }
}

/// The first of what is on its way, if its time has come.
fn due<T>(queue: &mut VecDeque<(u64, T)>, now: Now) -> Option<(u64, T)> {
    let arrived = queue.front().is_some_and(|(at, _)| *at <= now.mono.0);
    if arrived { queue.pop_front() } else { None }
}

/// Records without their nulls, which at level 1 are nothing.
fn plain(records: BTreeMap<RecordId, Document>) -> BTreeMap<String, BTreeMap<String, String>> {
    let field = |(name, text): (&str, &str)| (name.to_string(), text.to_string());
    let present = |document: Document| {
        document.iter().filter(|(_, text)| *text != "null").map(field).collect()
    };
    records.into_iter().map(|(id, document)| (id.to_string(), present(document))).collect()
}
