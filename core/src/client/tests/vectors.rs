//! The client's machine, its states and its actions in words.

use std::format;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec;
use std::vec::Vec;

use crate::client::config::ClientConfig;
use crate::client::interface::{Command, Disconnect, Input, Misuse, NetAction, Write, Written};
use crate::client::machine::Client;
use crate::client::output::{Output, Outputs, StoreAction, ViewAction};
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::limits::Limits;
use crate::protocol::message::Token;
use crate::protocol::name::{Collection, CommitNumber, ConnId, RecordId, Seq, WriteId};
use crate::protocol::time::{Mono, Now, Timestamp};
use crate::store::MemoryRows;
use crate::store::{Batch, Op, StoreError, StoreErrorKind};

use super::table::{check, replayed, split};

#[test]
fn the_machine_does_exactly_this() {
    check("client.txt", step);
}

#[test]
fn a_wrong_action_is_noticed() {
    let table = "state off\n> connect\n    connect 7\n";
    assert_ne!(replayed(table, step), table);
    let table = "state off\n> connect\n    connect 1\n";
    assert_eq!(replayed(table, step), table);
}

/// The inputs that lead to each state.
const STATES: [(&str, &[&str]); 12] = [
    ("off", &[]),
    ("connecting", &["connect"]),
    ("greeting", &["connect", "up", "durable"]),
    ("ready", &["connect", "up", "durable", PONG]),
    ("catching-up", &["connect", "up", "durable", PONG, SUBSCRIBED]),
    ("live", LIVE),
    ("written", WRITTEN),
    ("in-flight", IN_FLIGHT),
    ("two-in-flight", TWO),
    ("rejected", REJECTED),
    ("waiting", WAITING),
    ("token-needed", TOKEN_NEEDED),
];

const PONG: &str =
    r#"frame {"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#;
const SUBSCRIBED: &str =
    r#"frame {"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#;
const SYNC: &str = r#"frame {"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#;
const UPDATE: &str = r#"update a {"n":2}"#;
const REJECT: &str = "verdict UNAUTHORIZED 1 a";
const EXPIRED: &str = r#"frame {"type":"error","error":"old","code":"AUTH_EXPIRED"}"#;
const LIVE: &[&str] = &["connect", "up", "durable", PONG, SUBSCRIBED, SYNC, "synced 5 1"];
const WRITTEN: &[&str] =
    &["connect", "up", "durable", PONG, SUBSCRIBED, SYNC, "synced 5 1", UPDATE];
const IN_FLIGHT: &[&str] =
    &["connect", "up", "durable", PONG, SUBSCRIBED, SYNC, "synced 5 1", UPDATE, "durable"];
const TWO: &[&str] = &[
    "connect",
    "up",
    "durable",
    PONG,
    SUBSCRIBED,
    SYNC,
    "synced 5 1",
    UPDATE,
    "durable",
    r#"save b {"m":1}"#,
    "durable",
];
const REJECTED: &[&str] = &[
    "connect",
    "up",
    "durable",
    PONG,
    SUBSCRIBED,
    SYNC,
    "synced 5 1",
    UPDATE,
    "durable",
    REJECT,
    "durable",
];
const WAITING: &[&str] =
    &["connect", "up", "durable", PONG, SUBSCRIBED, SYNC, "synced 5 1", "lost cut"];
const TOKEN_NEEDED: &[&str] =
    &["connect", "up", "durable", PONG, SUBSCRIBED, SYNC, "synced 5 1", EXPIRED];

/// Returns the actions of the client for an input in a state.
fn step(state: &str, input: &str) -> Vec<String> {
    let (_, inputs) = STATES.iter().find(|(name, _)| *name == state).expect("a known state");
    let mut bench = Bench::new();
    for input in *inputs {
        bench.make(input);
    }
    bench.make(input)
}

/// The machine, and the rows that its commits have made.
struct Bench {
    client: Client,
    rows: MemoryRows,
    last: CommitNumber,
    conn: ConnId,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let config =
            ClientConfig { collections: vec![collection("todos")], ..ClientConfig::default() };
        let now = Now { mono: Mono(1_000_000), wall: Timestamp(1_767_225_600_000) };
        let mut rows = MemoryRows::default();
        let mut out = Vec::new();
        let client = Client::open(config, 7, now, CommitNumber(0), &rows, &mut out).unwrap();
        let mut last = CommitNumber(0);
        for action in out {
            if let Output::Store(StoreAction::Commit { number, batch }) = action {
                last = number;
                rows.apply(batch);
            }
        }
        let mut bench = Self { client, rows, last, conn: ConnId(0), now };
        bench.make("durable");
        bench
    }

    fn make(&mut self, input: &str) -> Vec<String> {
        let (what, rest) = split(input);
        let (id, json) = split(rest);
        let (now, conn, mut out) = (self.now, self.conn, Vec::new());
        let (client, rows) = (&mut self.client, &self.rows);
        let mut said = None;
        let mut world = |input: Input<'_>| client.handle(now, input, rows, &mut out);
        match what {
            "up" => world(Input::Connected { conn }),
            "heard" => world(Input::Heard { conn }),
            "frame" => world(Input::Frame { conn, frame: rest.as_bytes() }),
            "stale" => world(Input::Frame { conn: ConnId(99), frame: rest.as_bytes() }),
            "change" | "ack" | "verdict" => {
                let frame = frame_of(what, rest);
                world(Input::Frame { conn, frame: frame.as_bytes() });
            }
            "synced" => {
                let frame = synced(id.parse().unwrap(), json.parse().unwrap());
                world(Input::Frame { conn, frame: frame.as_bytes() });
            }
            "lost" => world(Input::Disconnected { conn, why: Disconnect::Lost(rest.into()) }),
            "refused" => {
                let retry_after = json.parse().ok().map(Duration::from_millis);
                let why = Disconnect::Refused {
                    status: id.parse().unwrap(),
                    retry_after,
                    body: Vec::new(),
                };
                world(Input::Disconnected { conn, why });
            }
            "durable" => client.durable(now, self.last, rows, &mut out),
            "store-fails" => {
                let error = StoreError::new(StoreErrorKind::Full, "full");
                client.fail(now, error, rows, &mut out);
            }
            "after" => {
                self.now.mono.0 += rest.parse::<u64>().unwrap();
                self.client.handle(self.now, Input::Timeout, &self.rows, &mut out);
            }
            "connect" => client.command(now, Command::Connect, rows, &mut out),
            "disconnect" => client.command(now, Command::Disconnect, rows, &mut out),
            "token" => client.command(now, Command::SetToken(Token::from(rest)), rows, &mut out),
            "use" => client.command(now, Command::Subscribe(collection(rest)), rows, &mut out),
            "leave" => client.command(now, Command::Unsubscribe(collection(rest)), rows, &mut out),
            "wait-synced" => {
                client.synced(now, rows, &mut out);
            }
            _ => {
                let written = self.write(input, &mut out);
                said = Some(match written {
                    Ok(written) => match written.write {
                        Some(write) => format!("returns write {write}"),
                        None => "returns no write".into(),
                    },
                    Err(misuse) => format!("returns error: {misuse}"),
                });
            }
        }
        let actions: Vec<_> = out.into_iter().map(|action| self.take(action)).collect();
        let client_id = self.client.status().client_id;
        said.into_iter().chain(actions).map(|line| line.replace(&*client_id, "CLIENT")).collect()
    }

    /// Makes a write of the app's.
    fn write(&mut self, input: &str, out: &mut Outputs) -> Result<Written, Misuse> {
        let (what, rest) = split(input);
        let (id, json) = split(rest);
        let (now, client, rows) = (self.now, &mut self.client, &self.rows);
        let (todos, id) = (collection("todos"), RecordId::new(id).ok());
        let id = id.as_ref();
        match what {
            "save" => client.write(
                now,
                Write::Save(todos, id.unwrap().clone(), document(json)),
                rows,
                out,
            ),
            "update" => {
                let delta = Delta::new(document(json), vec![]);
                client.write(now, Write::Update(todos, id.unwrap().clone(), delta), rows, out)
            }
            "delete" => client.write(now, Write::Delete(todos, id.unwrap().clone()), rows, out),
            "retry" => {
                let write = WriteId(rest.parse().unwrap());
                client.write(now, Write::RetryRejected(write), rows, out)
            }
            "discard" => {
                let write = WriteId(rest.parse().unwrap());
                client.write(now, Write::DiscardRejected(write), rows, out)
            }
            _ => panic!("{input}: no such input"),
        }
    }

    /// Does what an action wants, as far as the machine depends on it, and says it in words.
    fn take(&mut self, action: Output) -> String {
        match action {
            Output::Store(StoreAction::Commit { number, batch }) => {
                let words = format!("commit {}", rows_of(&batch));
                self.last = number;
                self.rows.apply(batch);
                words
            }
            Output::Store(StoreAction::Flush { .. }) => "flush".into(),
            Output::Net(NetAction::Connect { conn, token }) => {
                self.conn = conn;
                let token = token.map(|token| format!(" token {}", token.reveal()));
                format!("connect {conn}{}", token.unwrap_or_default())
            }
            Output::Net(NetAction::Send { frame, .. }) => {
                format!("send {}", String::from_utf8(frame.to_vec()).unwrap())
            }
            Output::Net(NetAction::Ping { .. }) => "ping".into(),
            Output::Net(NetAction::Close { .. }) => "close".into(),
            Output::Net(NetAction::Request(ticket)) => {
                format!("{} {}", ticket.request.method, ticket.request.path)
            }
            Output::View(ViewAction::Record { record_id, record, .. }) => match record {
                None => format!("hide {record_id}"),
                Some(record) => {
                    let pending = if record.pending { " pending" } else { "" };
                    format!("show {record_id} {} v{}{pending}", record.document, record.version)
                }
            },
            Output::View(ViewAction::Status { collection, from_cache, catching_up }) => {
                let word =
                    |is: bool, word: &str| if is { format!(" {word}") } else { String::new() };
                let cache = word(from_cache, "from-cache");
                format!("status {collection}{cache}{}", word(catching_up, "catching-up"))
            }
            // most writes are of no transaction
            Output::Event(event) => format!("event {:?}", event.kind)
                .replace(", transaction: None", "")
                .replace(", ends: false", ""),
            Output::Halted(error) => format!("halted {error}"),
            Output::Synced { id, outcome: Ok(()) } => format!("synced {}", id.0),
            Output::Synced { id, outcome: Err(failures) } => {
                let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
                format!("synced {}: {}", id.0, failures.join("; "))
            }
        }
    }
}

/// Which rows a batch sets and removes; their layout is described in `rules::row`.
fn rows_of(batch: &Batch) -> String {
    let name = |op: &Op| {
        let (sign, key) = match op {
            Op::Put(key, _) => ('+', key),
            Op::Delete(key) => ('-', key),
        };
        let names =
            |from: usize, to: usize| String::from_utf8_lossy(&key[from..to]).replace('\0', "/");
        let write = || {
            let bytes = key.last_chunk::<8>().unwrap();
            u64::from_be_bytes(*bytes)
        };
        let end = key.len();
        let row = match key[5] {
            b'i' => "identity".into(),
            b'c' => format!("stream:{}", names(6, end)),
            b'd' => format!("row:{}", names(6, end)),
            b'k' => format!("parked:{}", names(6, end)),
            b'o' => format!("entry:{}", write()),
            b'p' => format!("pending:{}:{}", names(6, end - 9), write()),
            b'r' => format!("rejected:{}", write()),
            other => panic!("an unknown row {other}"),
        };
        format!("{sign}{row}")
    };
    batch.ops().iter().map(name).collect::<Vec<_>>().join(" ")
}

/// The frames that the table abbreviates: `change KIND RECORD SEQ YEAR DATA`, `ack NUMBER RECORD
/// SEQ` and `verdict CODE NUMBER RECORD`.
fn frame_of(what: &str, rest: &str) -> String {
    let words: Vec<_> = rest.splitn(5, ' ').collect();
    match (what, words.as_slice()) {
        ("change", [kind, id, seq, year, data @ ..]) => {
            let data = data.first().map_or(String::new(), |data| format!(r#","data":{data}"#));
            format!(
                r#"{{"type":"{kind}","collection":"todos","recordId":"{id}"{data},"timestamp":"{year}-01-01T00:00:00Z","metadata":{{"seq":{seq},"version":4}}}}"#
            )
        }
        ("ack", [number, id, seq]) => format!(
            r#"{{"type":"ack","collection":"todos","recordId":"{id}","metadata":{{"mutation":{number},"seq":{seq},"version":4}}}}"#
        ),
        ("verdict", [code, number, id]) => format!(
            r#"{{"type":"error","error":"no","code":"{code}","metadata":{{"mutation":{number},"collection":"todos","recordId":"{id}"}}}}"#
        ),
        (_, _) => panic!("{what} {rest}: no such frame"),
    }
}

/// `synced` of a collection that holds the record a alone, whose field n has a value.
fn synced(seq: u64, n: u64) -> String {
    let mut sum = Checksum::default();
    let a = document(&format!(r#"{{"n":{n}}}"#));
    sum.add(&RecordId::new("a").unwrap(), Seq(seq), &a);
    format!(
        r#"{{"type":"synced","collection":"todos","metadata":{{"epoch":"e1","seq":{seq},"count":1,"checksum":"{sum}"}}}}"#
    )
}

fn collection(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}
