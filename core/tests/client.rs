//! The client's exchanges as transcripts: what it says to what it is told.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use synclayer_core::client::event::{Event, EventKind};
use synclayer_core::client::interface::{ClientConfig, Disconnect, Input, NetAction};
use synclayer_core::memory::MemoryClientStore;
use synclayer_core::replica::{Effect, Replica};
use synclayer_core::rules::conflict::ConflictStrategy;
use synclayer_core::words::delta::Delta;
use synclayer_core::words::document::Document;
use synclayer_core::words::limits::Limits;
use synclayer_core::words::name::{Collection, ConnId, RecordId};
use synclayer_core::words::time::{Mono, Now, Timestamp};

/// One replica on a desk: whoever sits there plays the network and the server.
struct Desk {
    replica: Replica<MemoryClientStore>,
    now: Now,
    conn: ConnId,
    effects: Vec<Effect>,
    events: Vec<Event>,
}

const START: Now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };

fn config() -> ClientConfig {
    ClientConfig { collections: vec![todos()], ..ClientConfig::default() }
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

fn id(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

fn doc(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

impl Desk {
    fn new(config: ClientConfig) -> Self {
        Self::on(config, MemoryClientStore::new())
    }

    fn on(config: ClientConfig, store: MemoryClientStore) -> Self {
        let mut effects = Vec::new();
        let replica = Replica::open(config, 7, START, store, &mut effects).unwrap();
        Self { replica, now: START, conn: ConnId(0), effects, events: Vec::new() }
    }

    fn dial(&mut self) {
        self.replica.connect(self.now, &mut self.effects);
        self.answer_dial();
    }

    fn answer_dial(&mut self) {
        let dialled = self.effects.iter().find_map(|effect| match effect {
            Effect::Net(NetAction::Connect { conn, .. }) => Some(*conn),
            _ => None,
        });
        self.conn = dialled.expect("it dials");
        self.effects.clear();
        self.replica.handle(self.now, Input::Connected { conn: self.conn }, &mut self.effects);
    }

    fn hear(&mut self, frame: &str) -> &mut Self {
        let frame = Input::Frame { conn: self.conn, frame: frame.as_bytes() };
        self.replica.handle(self.now, frame, &mut self.effects);
        self.replica.check().unwrap();
        self
    }

    fn make_durable(&mut self) {
        let last = self.replica.store().last();
        self.replica.store_mut().make_durable(last);
        self.replica.poll_store(self.now, &mut self.effects);
    }

    fn cut(&mut self) {
        let why = Disconnect::Lost("cut".into());
        let input = Input::Disconnected { conn: self.conn, why };
        self.replica.handle(self.now, input, &mut self.effects);
    }

    fn pass(&mut self, millis: u64) -> &mut Self {
        self.now.mono.0 += millis;
        self.now.wall.0 += millis as i64;
        self.replica.handle(self.now, Input::Timeout, &mut self.effects);
        self
    }

    /// The frames sent since the last look.
    fn sent(&mut self) -> Vec<String> {
        let mut frames = Vec::new();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Net(NetAction::Send { frame, .. }) => {
                    frames.push(String::from_utf8(frame.to_vec()).unwrap());
                }
                Effect::Net(NetAction::Ping { .. }) => frames.push("PING".into()),
                Effect::Net(NetAction::Close { .. }) => frames.push("CLOSE".into()),
                Effect::Net(NetAction::Connect { .. }) => frames.push("CONNECT".into()),
                Effect::Net(NetAction::Request(ticket)) => {
                    let request = ticket.request();
                    frames.push(format!("{} {}", request.method.as_str(), request.path));
                }
                Effect::Event(event) => self.events.push(event),
                Effect::Synced(id) => frames.push(format!("SYNCED {}", id.0)),
                Effect::Durable(_) | Effect::Watch(_) => {}
            }
        }
        frames
    }

    fn saw(&self, kind: &EventKind) -> bool {
        self.events.iter().any(|event| event.kind == *kind)
    }

    fn save(&mut self, record: &str, json: &str) {
        let document = doc(json);
        self.replica.save(self.now, &todos(), &id(record), &document, &mut self.effects).unwrap();
        self.replica.check().unwrap();
    }

    fn update(&mut self, record: &str, json: &str) {
        let delta = Delta::new(doc(json), vec![]);
        self.replica.update(self.now, &todos(), &id(record), &delta, &mut self.effects).unwrap();
        self.replica.check().unwrap();
    }

    fn shows(&self, record: &str) -> Option<String> {
        let record = self.replica.get(&todos(), &id(record)).unwrap();
        record.map(|record| record.document.to_string())
    }

    fn welcome(&mut self, last: u64, digest: &str) -> &mut Self {
        let digest =
            if digest.is_empty() { String::new() } else { format!(",\"lastDigest\":\"{digest}\"") };
        self.hear(&format!(
            r#"{{"type":"pong","metadata":{{"protocol":2,"epoch":"e1","lastMutation":{last}{digest}}}}}"#
        ))
    }

    /// Online with one record, `a` at seq 5.
    fn live() -> Self {
        Self::live_with(config())
    }

    fn live_with(config: ClientConfig) -> Self {
        let mut desk = Self::new(config);
        desk.dial();
        desk.welcome(0, "");
        desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
            .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1,"t":"x"},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#)
            .hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
        assert!(desk.replica.status().collections[&todos()].live, "{:?}", desk.sent());
        desk.sent();
        desk
    }

    /// The digest of the write that was sent last.
    fn digest_of(frame: &str) -> String {
        use synclayer_core::words::hash::Digest;
        use synclayer_core::words::message::ClientMessage;
        use synclayer_core::words::wire::{Incoming, decode_client};
        let Ok(Incoming::One(ClientMessage::Write(write))) =
            decode_client(frame.as_bytes(), &Limits::default())
        else {
            panic!("{frame} is no write")
        };
        let (kind, delta) = (write.change.kind, &write.change.delta);
        let at = write.timestamp.unwrap();
        Digest::of(kind, &write.collection, &write.record_id, delta, at).to_string()
    }
}

fn synced(epoch: &str, seq: u64, records: &[(&str, u64, &str)]) -> String {
    use synclayer_core::words::hash::Checksum;
    use synclayer_core::words::name::Seq;
    let mut sum = Checksum::default();
    for (record, seq, json) in records {
        sum.add(&id(record), Seq(*seq), &doc(json));
    }
    let count = records.len();
    format!(
        r#"{{"type":"synced","collection":"todos","metadata":{{"epoch":"{epoch}","seq":{seq},"count":{count},"checksum":"{sum}"}}}}"#
    )
}

fn ack(number: u64, record: &str, seq: u64) -> String {
    format!(
        r#"{{"type":"ack","collection":"todos","recordId":"{record}","metadata":{{"mutation":{number},"seq":{seq},"version":2}}}}"#
    )
}

fn change(kind: &str, record: &str, data: &str, seq: u64, at: &str) -> String {
    format!(
        r#"{{"type":"{kind}","collection":"todos","recordId":"{record}","data":{data},"timestamp":"{at}","metadata":{{"seq":{seq},"version":{seq},"userId":"u2"}}}}"#
    )
}

#[test]
fn says_hello_first_and_subscribes_before_the_pong() {
    let mut desk = Desk::new(config());
    desk.save("a", r#"{"n":1}"#);
    desk.dial();
    let sent = desk.sent();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].starts_with(r#"{"type":"ping","metadata":{"protocol":2,"clientId":""#));
    assert!(sent[0].ends_with(r#"","session":1}}"#), "{}", sent[0]);
    assert!(sent[1].starts_with(r#"{"type":"subscribe","collection":"todos""#));
    desk.welcome(0, "");
    assert!(desk.sent().is_empty(), "the write waits for the catch-up");
    desk.pass(2_000);
    assert!(desk.sent()[0].contains(r#""mutation":1"#), "but not for ever");
}

#[test]
fn a_live_write_is_acknowledged_in_its_place() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    let sent = desk.sent();
    assert!(sent[0].contains(r#""data":{"n":2}"#) && sent[0].contains(r#""base":5"#), "{sent:?}");
    assert_eq!(desk.replica.status().pending_writes, 1);
    desk.hear(&ack(1, "a", 6));
    let status = desk.replica.status();
    assert_eq!(status.pending_writes, 0);
    assert_eq!(status.collections[&todos()].cursor.as_ref().unwrap().seq.0, 6);
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    assert!(desk.replica.status().collections[&todos()].live, "the checksum agrees");
}

#[test]
fn a_remote_change_waits_beneath_a_write_on_its_way() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    desk.hear(&change("update", "a", r#"{"t":"y"}"#, 6, "2026-01-01T00:00:00Z"));
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#, "not shown yet");
    desk.hear(&ack(1, "a", 7));
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":2,"t":"y"}"#, "both survive");
}

#[test]
fn a_conflict_is_resolved_and_sent_under_the_same_number() {
    let strategy = ConflictStrategy::ClientWins;
    let mut desk = Desk::live_with(ClientConfig { conflict_strategy: strategy, ..config() });
    desk.update("a", r#"{"n":2}"#);
    desk.sent();
    desk.hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    desk.hear(r#"{"type":"error","code":"CONFLICT","error":"changed","metadata":{"mutation":1,"collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":9,"t":"x"},"version":6,"updatedAt":"2026-01-01T00:00:00Z"}}}"#);
    let sent = desk.sent();
    assert!(sent[0].contains(r#""data":{"n":2}"#), "{sent:?}");
    assert!(sent[0].contains(r#""mutation":1"#) && sent[0].contains(r#""base":6"#), "{sent:?}");
    assert!(desk.saw(&EventKind::ConflictDetected));
    desk.hear(&ack(1, "a", 7));
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
}

#[test]
fn server_wins_drops_the_write() {
    let strategy = ConflictStrategy::ServerWins;
    let mut desk = Desk::live_with(ClientConfig { conflict_strategy: strategy, ..config() });
    desk.cut();
    desk.update("a", r#"{"n":2}"#);
    desk.sent();
    desk.pass(2_000);
    desk.answer_dial();
    desk.welcome(0, "");
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":9,"t":"x"}"#);
    assert_eq!(desk.replica.status().pending_writes, 0);
}

#[test]
fn a_rejected_write_is_rolled_back_and_kept() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    desk.save("b", r#"{"m":1}"#);
    desk.sent();
    desk.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":1,"collection":"todos","recordId":"a"}}"#);
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
    let sent = desk.sent();
    assert!(sent[0].contains(r#""recordId":"b""#) && sent[0].contains(r#""mutation":1"#));
    let rejected = desk.replica.rejected().unwrap();
    assert_eq!(rejected.len(), 1);
    desk.replica.retry_rejected(desk.now, rejected[0].write, &mut desk.effects).unwrap();
    assert_eq!(desk.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    assert!(desk.sent()[0].contains(r#""mutation":2"#));
    assert!(desk.replica.rejected().unwrap().is_empty());
}

#[test]
fn a_lost_ack_is_made_up_for_by_the_next_pong() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    let digest = Desk::digest_of(&desk.sent()[0]);
    desk.cut();
    desk.update("a", r#"{"n":3}"#);
    assert_eq!(desk.replica.status().pending_writes, 2, "what may have been sent is not joined");
    desk.sent();
    desk.pass(2_000);
    desk.answer_dial();
    desk.sent();
    desk.welcome(1, &digest);
    assert_eq!(desk.replica.status().pending_writes, 1);
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z"))
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    let sent = desk.sent();
    assert!(sent[0].contains(r#""mutation":2"#) && sent[0].contains(r#""base":6"#), "{sent:?}");
    assert!(!desk.saw(&EventKind::ConflictDetected), "its own write is no conflict");
}

#[test]
fn a_stranger_s_write_under_its_id_makes_it_take_a_new_one() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    let before = desk.replica.status().client_id;
    desk.cut();
    desk.sent();
    desk.pass(2_000);
    desk.answer_dial();
    desk.sent();
    desk.welcome(1, "00000000000000ff");
    assert!(desk.sent().contains(&"CLOSE".to_string()));
    assert_ne!(desk.replica.status().client_id, before);
    assert_eq!(desk.replica.status().pending_writes, 1, "nothing pending is lost");
    desk.pass(0);
    desk.answer_dial();
    assert!(desk.sent()[0].contains(r#""session":1"#));
}

#[test]
fn synced_waits_for_verdicts_and_a_barrier() {
    let mut desk = Desk::live();
    desk.update("a", r#"{"n":2}"#);
    desk.sent();
    desk.replica.synced(desk.now, &mut desk.effects);
    assert!(desk.sent().is_empty());
    desk.hear(&ack(1, "a", 6));
    assert_eq!(desk.sent(), [r#"{"type":"ping"}"#]);
    desk.hear(r#"{"type":"pong"}"#);
    assert_eq!(desk.sent(), ["SYNCED 0"]);
}

#[test]
fn a_gap_or_a_wrong_checksum_makes_it_fetch_everything() {
    let mut desk = Desk::live();
    desk.hear(&change("update", "a", r#"{"n":2}"#, 7, "2026-01-01T00:00:00Z"));
    let sent = desk.sent();
    assert_eq!(sent, [r#"{"type":"subscribe","collection":"todos"}"#]);

    let mut desk = Desk::live();
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&synced("e1", 5, &[("a", 5, r#"{"n":2,"t":"x"}"#)]));
    assert_eq!(desk.sent(), [r#"{"type":"subscribe","collection":"todos"}"#]);
    assert!(desk.saw(&EventKind::ChecksumMismatch));
}

#[test]
fn an_interrupted_snapshot_goes_on_where_it_stopped() {
    let mut desk = Desk::new(config());
    desk.dial();
    desk.sent();
    desk.welcome(0, "");
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"seq":5}]},"metadata":{"upTo":"a","snapshotSeq":5}}"#);
    desk.cut();
    desk.sent();
    desk.pass(2_000);
    desk.answer_dial();
    let sent = desk.sent();
    assert!(sent[1].contains(r#""resume":{"epoch":"e1","snapshotSeq":5,"after":"a"}"#), "{sent:?}");
    desk.welcome(0, "");
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"b","data":{"n":2},"seq":3}]},"metadata":{"after":"a","snapshotSeq":5}}"#)
        .hear(&change("update", "a", r#"{"n":7}"#, 6, "2026-01-01T00:00:00Z"))
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":7}"#), ("b", 3, r#"{"n":2}"#)]));
    assert!(desk.replica.status().collections[&todos()].live, "{:?}", desk.sent());
}

#[test]
fn the_server_s_clock_is_known_to_half_a_round_trip() {
    let mut desk = Desk::new(config());
    desk.dial();
    desk.pass(400);
    let server = Timestamp(desk.now.wall.0 - 200 + 5_000);
    desk.hear(&format!(
        r#"{{"type":"pong","timestamp":"{server}","metadata":{{"protocol":2,"epoch":"e1","lastMutation":0}}}}"#
    ));
    assert_eq!(desk.replica.status().clock_offset_ms, 5_000);
}

#[test]
fn a_collection_that_is_left_and_wanted_again_is_subscribed_again() {
    let mut desk = Desk::live();
    desk.replica.unsubscribe(desk.now, &todos(), &mut desk.effects);
    desk.replica.subscribe(desk.now, &todos(), &mut desk.effects);
    assert_eq!(desk.sent(), [r#"{"type":"unsubscribe","collection":"todos"}"#]);
    desk.hear(r#"{"type":"unsubscribed","collection":"todos"}"#);
    assert!(desk.sent()[0].starts_with(r#"{"type":"subscribe","collection":"todos""#));
}

#[test]
fn silence_is_probed_and_then_ends_the_connection() {
    let mut desk = Desk::live();
    desk.pass(30_000);
    assert_eq!(desk.sent(), ["PING"]);
    desk.pass(15_000);
    assert_eq!(desk.sent(), ["CLOSE"]);
    assert!(desk.replica.deadline().is_some(), "it tries again");
}

#[test]
fn nothing_is_sent_before_the_store_has_it() {
    let mut desk = Desk::on(config(), MemoryClientStore::when_told());
    desk.dial();
    assert!(desk.sent().is_empty(), "the session is not stored yet");
    desk.make_durable();
    assert_eq!(desk.sent().len(), 2);
    desk.welcome(0, "");
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":0,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#)
        .hear(&synced("e1", 0, &[]));
    desk.save("a", r#"{"n":1}"#);
    assert!(desk.sent().is_empty(), "the write is not stored yet");
    desk.make_durable();
    assert_eq!(desk.sent().len(), 1);
}
