//! A replica whose network and server are whoever writes the test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;
use std::time::Duration;

use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, ConnId, Delta, Disconnect, Document, Event,
    EventKind, HttpAnswer, HttpTicket, Input, Limits, MemoryClientStore, Mono, NetAction, Now,
    RecordId, Replica, Timestamp, Write,
};

/// One replica: whoever writes the test plays the network and the server.
pub struct LoneReplica {
    pub replica: Replica<MemoryClientStore>,
    pub now: Now,
    pub conn: ConnId,
    /// The connection that was asked for last.
    pub dialled: ConnId,
    pub actions: Vec<Action>,
    /// Requests that wait for an answer.
    pub tickets: VecDeque<HttpTicket>,
    /// Lines that were sent and not looked at yet.
    pub lines: Vec<String>,
    pub events: Vec<Event>,
}

pub const START: Now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };

pub fn config() -> ClientConfig {
    let mut config = ClientConfig::default();
    config.collections = vec![todos()];
    config
}

/// A client that has HTTP only.
pub fn http_only() -> ClientConfig {
    with(both(), |config| config.websocket = false)
}

/// A client that has both transports.
pub fn both() -> ClientConfig {
    with(config(), |config| config.http = true)
}

/// A configuration with some other settings.
pub fn with(mut config: ClientConfig, set: impl FnOnce(&mut ClientConfig)) -> ClientConfig {
    set(&mut config);
    config
}

pub fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

pub fn id(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

pub fn doc(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

impl LoneReplica {
    pub fn new(config: ClientConfig) -> Self {
        Self::on(config, MemoryClientStore::default())
    }

    pub fn on(config: ClientConfig, store: MemoryClientStore) -> Self {
        Self::born(config, store, 7)
    }

    pub fn seeded(config: ClientConfig, seed: u128) -> Self {
        Self::born(config, MemoryClientStore::default(), seed)
    }

    fn born(config: ClientConfig, store: MemoryClientStore, seed: u128) -> Self {
        let mut actions = Vec::new();
        let replica = Replica::open(config, seed, START, store, &mut actions).unwrap();
        Self {
            replica,
            now: START,
            conn: ConnId(0),
            dialled: ConnId(0),
            actions,
            events: Vec::new(),
            tickets: VecDeque::new(),
            lines: Vec::new(),
        }
    }

    pub fn dial(&mut self) {
        self.replica.command(self.now, Command::Connect, &mut self.actions);
        self.answer_dial();
    }

    pub fn answer_dial(&mut self) {
        let dialled = self.actions.iter().find_map(|action| match action {
            Action::Net(NetAction::Connect { conn, .. }) => Some(*conn),
            _ => None,
        });
        self.conn = dialled.expect("it dials");
        self.actions.clear();
        self.replica.handle(self.now, Input::Connected { conn: self.conn }, &mut self.actions);
    }

    pub fn hear(&mut self, frame: &str) -> &mut Self {
        let frame = Input::Frame { conn: self.conn, frame: frame.as_bytes() };
        self.replica.handle(self.now, frame, &mut self.actions);
        self.replica.check().unwrap();
        self
    }

    pub fn make_durable(&mut self) {
        let last = self.replica.store().last();
        self.replica.store_mut().make_durable(last);
        self.replica.poll_store(self.now, &mut self.actions);
    }

    pub fn cut(&mut self) {
        let why = Disconnect::Lost("cut".into());
        let input = Input::Disconnected { conn: self.conn, why };
        self.replica.handle(self.now, input, &mut self.actions);
    }

    pub fn pass(&mut self, millis: u64) -> &mut Self {
        self.now.mono.0 += millis;
        self.now.wall.0 += millis as i64;
        self.replica.handle(self.now, Input::Timeout, &mut self.actions);
        self
    }

    /// The frames sent since the last look.
    pub fn sent(&mut self) -> Vec<String> {
        self.look();
        std::mem::take(&mut self.lines)
    }

    fn look(&mut self) {
        let mut frames = std::mem::take(&mut self.lines);
        for action in self.actions.drain(..) {
            match action {
                Action::Net(NetAction::Send { frame, .. }) => {
                    frames.push(String::from_utf8(frame.to_vec()).unwrap());
                }
                Action::Net(NetAction::Ping { .. }) => frames.push("PING".into()),
                Action::Net(NetAction::Close { .. }) => frames.push("CLOSE".into()),
                Action::Net(NetAction::Connect { conn, .. }) => {
                    self.dialled = conn;
                    frames.push("CONNECT".into());
                }
                Action::Net(NetAction::Request(ticket)) => {
                    let request = &ticket.request;
                    let body = request.body.as_deref().map(String::from_utf8_lossy);
                    let line = format!("{} {}", request.method, request.path);
                    frames.push(body.map_or(line.clone(), |body| format!("{line} {body}")));
                    self.tickets.push_back(ticket);
                }
                Action::Event(event) => self.events.push(event),
                Action::Synced { id, outcome: Ok(()) } => frames.push(format!("SYNCED {}", id.0)),
                Action::Synced { id, outcome: Err(failures) } => {
                    let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
                    frames.push(format!("SYNCED {}: {}", id.0, failures.join("; ")));
                }
                Action::Fate { id, fate } => frames.push(format!("FATE {} {fate:?}", id.0)),
                Action::Durable(_) | Action::Halted(_) | Action::Watch(_) => {}
            }
        }
        self.lines = frames;
    }

    /// The server answers the oldest request.
    pub fn answer(&mut self, status: u16, body: &str) -> &mut Self {
        self.answer_with(status, None, body)
    }

    pub fn answer_with(&mut self, status: u16, wait: Option<u64>, body: &str) -> &mut Self {
        let retry_after = wait.map(Duration::from_secs);
        let body = body.as_bytes().to_vec();
        self.resolve(HttpAnswer::Answered { status, retry_after, body })
    }

    /// The server answers one request after the other, well.
    pub fn answer_all(&mut self, bodies: &[&str]) -> &mut Self {
        for body in bodies {
            self.answer(200, body);
        }
        self
    }

    /// Lets time pass on a connection whose server answers every ping. What else was sent.
    pub fn stay_alive(&mut self, millis: u64) -> Vec<String> {
        let end = Mono(self.now.mono.0 + millis);
        let mut sent = Vec::new();
        while self.now.mono < end {
            let (at, _) = self.replica.deadline().unwrap();
            self.pass(at.min(end).since(self.now.mono).as_millis() as u64);
            for frame in self.sent() {
                if frame == "PING" {
                    let input = Input::Heard { conn: self.conn };
                    self.replica.handle(self.now, input, &mut self.actions);
                } else {
                    sent.push(frame);
                }
            }
        }
        sent
    }

    pub fn resolve(&mut self, answer: HttpAnswer) -> &mut Self {
        self.look();
        let ticket = self.tickets.pop_front().expect("a request is out");
        self.replica.handle(self.now, ticket.answer(answer), &mut self.actions);
        self.replica.check().unwrap();
        self
    }

    pub fn saw(&self, is_it: impl Fn(&EventKind) -> bool) -> bool {
        self.events.iter().any(|event| is_it(&event.kind))
    }

    pub fn save(&mut self, record: &str, json: &str) {
        let document = doc(json);
        self.replica
            .write(self.now, Write::Save(todos(), id(record), document), &mut self.actions)
            .unwrap();
        self.replica.check().unwrap();
    }

    pub fn update(&mut self, record: &str, json: &str) {
        let delta = Delta::new(doc(json), vec![]);
        self.replica
            .write(self.now, Write::Update(todos(), id(record), delta), &mut self.actions)
            .unwrap();
        self.replica.check().unwrap();
    }

    /// Tells whether the collection is shown from the cache, and whether it is catching up.
    pub fn standing(&self) -> (bool, bool) {
        let status = self.replica.status();
        let of = &status.collections[&todos()];
        (of.from_cache, of.catching_up)
    }

    pub fn shows(&self, record: &str) -> Option<String> {
        let record = self.replica.get(&todos(), &id(record)).unwrap();
        record.map(|record| record.document.to_string())
    }

    pub fn welcome(&mut self, last: u64, digest: &str) -> &mut Self {
        let digest =
            if digest.is_empty() { String::new() } else { format!(",\"lastDigest\":\"{digest}\"") };
        self.hear(&format!(
            r#"{{"type":"pong","metadata":{{"protocol":2,"epoch":"e1","lastMutation":{last}{digest}}}}}"#
        ))
    }

    /// Online with one record, `a` at seq 5.
    pub fn live() -> Self {
        Self::live_with(config())
    }

    pub fn live_with(config: ClientConfig) -> Self {
        let mut lone = Self::new(config);
        lone.dial();
        lone.welcome(0, "");
        lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
            .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1,"t":"x"},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#)
            .hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
        assert!(lone.replica.status().collections[&todos()].live, "{:?}", lone.sent());
        lone.sent();
        lone
    }

    /// The digest of the write that was sent last.
    pub fn digest_of(frame: &str) -> String {
        use synclayer_core::protocol::{ClientMessage, Incoming, decode_client};
        let Ok(Incoming::One(ClientMessage::Write(write))) =
            decode_client(frame.as_bytes(), &Limits::default())
        else {
            panic!("{frame} is no write")
        };
        write.digest().to_string()
    }
}

pub fn synced(epoch: &str, seq: u64, records: &[(&str, u64, &str)]) -> String {
    use synclayer_core::{Checksum, Seq};
    let mut sum = Checksum::default();
    for (record, seq, json) in records {
        sum.add(&id(record), Seq(*seq), &doc(json));
    }
    let count = records.len();
    format!(
        r#"{{"type":"synced","collection":"todos","metadata":{{"epoch":"{epoch}","seq":{seq},"count":{count},"checksum":"{sum}"}}}}"#
    )
}

pub fn ack(number: u64, record: &str, seq: u64) -> String {
    format!(
        r#"{{"type":"ack","collection":"todos","recordId":"{record}","metadata":{{"mutation":{number},"seq":{seq},"version":2}}}}"#
    )
}

pub fn change(kind: &str, record: &str, data: &str, seq: u64, at: &str) -> String {
    format!(
        r#"{{"type":"{kind}","collection":"todos","recordId":"{record}","data":{data},"timestamp":"{at}","metadata":{{"seq":{seq},"version":{seq},"userId":"u2"}}}}"#
    )
}
