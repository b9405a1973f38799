pub(super) mod arbitrary;
mod scopes;
mod units;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use super::super::delta::Delta;
use super::super::document::Document;
use super::super::hash::{Checksum, Digest, RightsTag};
use super::super::message::{
    Ack, Cursor, DeleteReason, Features, Hello, Level, Mode, Mutation, PageRange, Resume,
    ServerChange, SyncRecord, Token, Welcome,
};
use super::super::name::{ClientId, Epoch, Seq, SessionNumber, UserId};
use super::super::time::Timestamp;
use super::super::write::Change;
use super::*;
use arbitrary::{client_messages, near_frames, server_messages};

const TIME: &str = "2026-11-22T17:00:00.000Z";

fn client(frame: &str) -> Result<ClientMessage, WireError> {
    one(decode_client(frame.as_bytes(), &Limits::default()))
}

fn server(frame: &str) -> Result<ServerMessage, WireError> {
    one(decode_server(frame.as_bytes(), &Limits::default()))
}

fn one<M: Debug>(incoming: Result<Incoming<M>, WireError>) -> Result<M, WireError> {
    match incoming? {
        Incoming::One(message) => Ok(message),
        Incoming::Batch(messages) => panic!("a batch of {messages:?}"),
    }
}

fn said(message: &ClientMessage) -> String {
    let mut out = Vec::new();
    message.encode(&mut out);
    String::from_utf8(out).unwrap()
}

fn sent(message: &ServerMessage, level: Level) -> String {
    let mut out = Vec::new();
    message.encode(level, &mut out);
    String::from_utf8(out).unwrap()
}

fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

fn id(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

fn epoch() -> Epoch {
    Epoch::new("a91b").unwrap()
}

fn time() -> Timestamp {
    Timestamp::parse(TIME).unwrap()
}

fn done_without_note() -> Change {
    Change::update(Delta::new(document("{\"done\":true}"), Vec::from(["note".into()])))
}

/// One change with every optional part.
fn change() -> ServerChange {
    ServerChange {
        change: done_without_note(),
        seq: Some(Seq(131)),
        version: Some(2),
        timestamp: Some(time()),
        at: Vec::from([("done".into(), Timestamp(0))]),
        user_id: Some(UserId::new("u1").unwrap()),
    }
}

#[test]
fn a_clients_subscriptions_and_pings() {
    let subscribe = |cursor, resume| ClientMessage::Subscribe {
        collection: todos(),
        cursor,
        resume,
        rights: None,
        page_bytes: None,
        filter: Vec::new(),
        set: None,
        scopes: Vec::new(),
    };
    let cursor = || Some(Cursor { epoch: epoch(), seq: Seq(120) });
    let delta = Resume::Delta { epoch: epoch(), seq: Seq(125) };
    let snapshot = Resume::Snapshot { epoch: epoch(), snapshot_seq: Seq(120), after: id("k\"1") };
    let hello = Hello { client_id: ClientId::new("6f1c").unwrap(), session: SessionNumber(41) };
    for (message, text) in [
        (
            ClientMessage::Auth { token: Token::from("s\"3cret") },
            r#"{"type":"auth","data":{"token":"s\"3cret"}}"#,
        ),
        (subscribe(None, None), r#"{"type":"subscribe","collection":"todos"}"#),
        (
            subscribe(cursor(), None),
            r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"a91b","seq":120}}}"#,
        ),
        (
            subscribe(cursor(), Some(delta)),
            r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"a91b","seq":120,"resume":{"epoch":"a91b","seq":125}}}}"#,
        ),
        (
            subscribe(None, Some(snapshot)),
            r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"resume":{"epoch":"a91b","snapshotSeq":120,"after":"k\"1"}}}}"#,
        ),
        (
            ClientMessage::Subscribe {
                collection: todos(),
                cursor: None,
                resume: None,
                rights: Some(RightsTag { rules: 0x9c1e, related: None }),
                page_bytes: Some(16384),
                filter: Vec::from([("room".into(), r#""4\u0032""#.into())]),
                set: None,
                scopes: Vec::new(),
            },
            r#"{"type":"subscribe","collection":"todos","metadata":{"rights":"0000000000009c1e","pageBytes":16384,"filter":{"room":"4\u0032"}}}"#,
        ),
        (
            ClientMessage::Unsubscribe { collection: todos() },
            r#"{"type":"unsubscribe","collection":"todos"}"#,
        ),
        (
            ClientMessage::Sync { collection: todos(), filter: Vec::new() },
            r#"{"type":"sync","collection":"todos"}"#,
        ),
        (
            ClientMessage::Sync {
                collection: todos(),
                filter: Vec::from([("n".into(), "1".into())]),
            },
            r#"{"type":"sync","collection":"todos","metadata":{"filter":{"n":1}}}"#,
        ),
        (ClientMessage::Ping { hello: None }, r#"{"type":"ping"}"#),
        (
            ClientMessage::Ping { hello: Some(hello) },
            r#"{"type":"ping","metadata":{"protocol":2,"clientId":"6f1c","session":41}}"#,
        ),
    ] {
        assert_eq!(said(&message), text);
        assert_eq!(client(text).unwrap(), message, "{text}");
    }
}

#[test]
fn a_clients_writes() {
    let write = |change, number: Option<u64>| {
        ClientMessage::Write(Mutation {
            collection: todos(),
            record_id: id("123"),
            change,
            timestamp: Some(time()),
            at: Vec::new(),
            number: number.map(MutationNumber),
            base: number.map(|_| Seq(130)),
        })
    };
    for (message, text) in [
        (
            write(Change::insert(document("{\"n\":9007199254740993,\"x\":null}")), Some(17)),
            r#"{"type":"insert","collection":"todos","recordId":"123","data":{"n":9007199254740993,"x":null},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"base":130}}"#,
        ),
        (
            write(done_without_note(), Some(17)),
            r#"{"type":"update","collection":"todos","recordId":"123","data":{"done":true},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"base":130,"unset":["note"]}}"#,
        ),
        (
            write(Change::delete(), Some(17)),
            r#"{"type":"delete","collection":"todos","recordId":"123","timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"base":130}}"#,
        ),
        (
            write(Change::delete(), None),
            r#"{"type":"delete","collection":"todos","recordId":"123","timestamp":"2026-11-22T17:00:00.000Z"}"#,
        ),
    ] {
        assert_eq!(said(&message), text);
        assert_eq!(client(text).unwrap(), message, "{text}");
    }
    // at level 1 a removal can't be told from a null
    assert_eq!(
        said(&write(done_without_note(), None)),
        r#"{"type":"update","collection":"todos","recordId":"123","data":{"done":true,"note":null},"timestamp":"2026-11-22T17:00:00.000Z"}"#
    );
}

#[test]
fn the_times_of_fields_are_said_at_level_2() {
    let write = |number: Option<u64>, at| {
        ClientMessage::Write(Mutation {
            collection: todos(),
            record_id: id("123"),
            change: done_without_note(),
            timestamp: Some(time()),
            at,
            number: number.map(MutationNumber),
            base: None,
        })
    };
    let at = Vec::from([("note".into(), Timestamp(0))]);
    let numbered = write(Some(17), at.clone());
    let text = r#"{"type":"update","collection":"todos","recordId":"123","data":{"done":true},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"unset":["note"],"at":{"note":"1970-01-01T00:00:00.000Z"}}}"#;
    assert_eq!(said(&numbered), text);
    assert_eq!(client(text).unwrap(), numbered);
    assert_eq!(said(&write(None, at)), said(&write(None, Vec::new())), "not at level 1");
    let plain = text.replace(r#""mutation":17,"#, "");
    assert_eq!(client(&plain).unwrap(), write(None, Vec::new()), "nor read there");
}

/// Checks that a server writes each message as this text at level 2, and that a client reads it so.
fn at_level_2<const N: usize>(pairs: [(ServerMessage, &str); N]) {
    for (message, text) in pairs {
        assert_eq!(sent(&message, Level::Resumable), text);
        assert_eq!(server(text).unwrap(), message, "{text}");
    }
}

#[test]
fn a_servers_greetings_at_level_2() {
    let welcome = Welcome {
        database: None,
        epoch: epoch(),
        last_mutation: MutationNumber(16),
        last_digest: Some(Digest(0x77e0)),
        first_session: Some(SessionNumber(3)),
        user_id: Some(UserId::new("u1").unwrap()),
        max_batch_bytes: 262_144,
        features: Features::OFFERED,
    };
    at_level_2([
        (
            ServerMessage::Authenticated { user_id: Some(UserId::new("u1").unwrap()) },
            r#"{"type":"authenticated","metadata":{"userId":"u1"}}"#,
        ),
        (
            ServerMessage::Subscribed {
                collection: todos(),
                record_count: Some(42),
                head: Some(Seq(131)),
                mode: Some(Mode::Delta),
                partial: true,
                rights: Some(RightsTag { rules: 0x9c1e, related: None }),
                set: None,
                refused: Vec::new(),
            },
            r#"{"type":"subscribed","collection":"todos","metadata":{"recordCount":42,"head":131,"mode":"delta","partial":true,"rights":"0000000000009c1e"}}"#,
        ),
        (
            ServerMessage::Unsubscribed { collection: todos(), scopes: Vec::new() },
            r#"{"type":"unsubscribed","collection":"todos"}"#,
        ),
        (
            ServerMessage::Pong { timestamp: Some(time()), welcome: Some(welcome) },
            r#"{"type":"pong","timestamp":"2026-11-22T17:00:00.000Z","metadata":{"protocol":2,"epoch":"a91b","lastMutation":16,"lastDigest":"00000000000077e0","firstSession":3,"userId":"u1","maxBatchBytes":262144,"features":["pull","atomic","scopes"]}}"#,
        ),
        (ServerMessage::Unknown { kind: "presence".to_string() }, r#"{"type":"presence"}"#),
    ]);
}

#[test]
fn a_servers_changes_and_pages_at_level_2() {
    let record = SyncRecord {
        id: id("123"),
        document: document("{\"done\":true}"),
        version: Some(2),
        updated_at: Some(time()),
        seq: Some(Seq(131)),
        at: Vec::from([("done".into(), Timestamp(0))]),
    };
    let range = |after: Option<&str>, up_to: Option<&str>| PageRange {
        after: after.map(id),
        up_to: up_to.map(id),
        snapshot_seq: Seq(131),
    };
    let gone = ServerChange { change: Change::delete(), at: Vec::new(), ..change() };
    at_level_2([
        (
            ServerMessage::Change {
                collection: todos(),
                record_id: id("123"),
                change: change(),
                reason: None,
                prev: None,
            },
            r#"{"type":"update","collection":"todos","recordId":"123","data":{"done":true},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"seq":131,"version":2,"userId":"u1","unset":["note"],"at":{"done":"1970-01-01T00:00:00.000Z"}}}"#,
        ),
        (
            ServerMessage::Change {
                collection: todos(),
                record_id: id("123"),
                change: gone,
                reason: Some(DeleteReason::Filter),
                prev: None,
            },
            r#"{"type":"delete","collection":"todos","recordId":"123","timestamp":"2026-11-22T17:00:00.000Z","metadata":{"seq":131,"version":2,"userId":"u1","reason":"filter"}}"#,
        ),
        (
            ServerMessage::Sync {
                collection: todos(),
                records: Vec::from([record]),
                range: Some(range(None, Some("123"))),
            },
            r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"123","data":{"done":true},"version":2,"updatedAt":"2026-11-22T17:00:00.000Z","seq":131,"at":{"done":"1970-01-01T00:00:00.000Z"}}]},"metadata":{"upTo":"123","snapshotSeq":131}}"#,
        ),
        (
            ServerMessage::Sync {
                collection: todos(),
                records: Vec::new(),
                range: Some(range(Some("123"), None)),
            },
            r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"after":"123","snapshotSeq":131}}"#,
        ),
        (
            ServerMessage::Synced {
                collection: todos(),
                cursor: Cursor { epoch: epoch(), seq: Seq(131) },
                count: 42,
                checksum: Some(Checksum(0x9c1e)),
                set: None,
            },
            r#"{"type":"synced","collection":"todos","metadata":{"epoch":"a91b","seq":131,"count":42,"checksum":"0000000000009c1e"}}"#,
        ),
    ]);
}

#[test]
fn a_servers_acks_at_level_2() {
    let ack = Ack {
        collection: todos(),
        record_id: id("123"),
        mutation: MutationNumber(17),
        seq: Some(Seq(132)),
        version: Some(2),
        echo: None,
        timestamp: Some(time()),
    };
    let gone = ServerChange { change: Change::delete(), at: Vec::new(), ..change() };
    at_level_2([
        (
            ServerMessage::Ack(ack.clone()),
            r#"{"type":"ack","collection":"todos","recordId":"123","timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"seq":132,"version":2}}"#,
        ),
        (
            ServerMessage::Ack(Ack { seq: None, echo: Some(change()), ..ack.clone() }),
            r#"{"type":"ack","collection":"todos","recordId":"123","data":{"done":true},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"version":2,"kind":"update","recordSeq":131,"unset":["note"],"updatedAt":"2026-11-22T17:00:00.000Z","at":{"done":"1970-01-01T00:00:00.000Z"},"userId":"u1"}}"#,
        ),
        (
            ServerMessage::Ack(Ack { seq: None, echo: Some(gone), ..ack }),
            r#"{"type":"ack","collection":"todos","recordId":"123","timestamp":"2026-11-22T17:00:00.000Z","metadata":{"mutation":17,"version":2,"kind":"delete","recordSeq":131,"updatedAt":"2026-11-22T17:00:00.000Z","userId":"u1"}}"#,
        ),
    ]);
}

#[test]
fn a_servers_errors_at_level_2() {
    let error = ErrorMessage {
        mutation: Some(MutationNumber(17)),
        collection: Some(todos()),
        record_id: Some(id("123")),
        ..ErrorMessage::new(ErrorCode::Conflict, "changed")
    };
    let gone = ServerChange { change: Change::delete(), at: Vec::new(), ..change() };
    let whole = ServerChange { change: Change::insert(document("{\"done\":1}")), ..change() };
    at_level_2([
        (
            ServerMessage::Error(ErrorMessage { current: Some(whole), ..error.clone() }),
            r#"{"type":"error","error":"changed","code":"CONFLICT","metadata":{"mutation":17,"collection":"todos","recordId":"123","seq":131,"record":{"data":{"done":1},"version":2,"updatedAt":"2026-11-22T17:00:00.000Z","userId":"u1","at":{"done":"1970-01-01T00:00:00.000Z"}}}}"#,
        ),
        (
            ServerMessage::Error(ErrorMessage { current: Some(gone), ..error }),
            r#"{"type":"error","error":"changed","code":"CONFLICT","metadata":{"mutation":17,"collection":"todos","recordId":"123","seq":131,"record":null,"version":2,"updatedAt":"2026-11-22T17:00:00.000Z","userId":"u1"}}"#,
        ),
        (
            ServerMessage::Error(ErrorMessage {
                retry_after_ms: Some(250),
                ..ErrorMessage::new(ErrorCode::RateLimitExceeded, "slow down")
            }),
            r#"{"type":"error","error":"slow down","code":"RATE_LIMIT_EXCEEDED","metadata":{"retryAfterMs":250}}"#,
        ),
    ]);
}

#[test]
fn what_a_server_says_at_level_1() {
    let record = SyncRecord {
        id: id("123"),
        document: document("{\"done\":true}"),
        version: Some(2),
        updated_at: Some(time()),
        seq: Some(Seq(131)),
        at: Vec::from([("done".into(), Timestamp(0))]),
    };
    for (message, text) in [
        (
            ServerMessage::Subscribed {
                collection: todos(),
                record_count: Some(42),
                head: Some(Seq(131)),
                mode: Some(Mode::Snapshot),
                partial: true,
                rights: Some(RightsTag { rules: 0x9c1e, related: None }),
                set: None,
                refused: Vec::new(),
            },
            r#"{"type":"subscribed","collection":"todos","metadata":{"recordCount":42}}"#,
        ),
        (
            ServerMessage::Change {
                collection: todos(),
                record_id: id("123"),
                change: change(),
                reason: Some(DeleteReason::Filter),
                prev: None,
            },
            r#"{"type":"update","collection":"todos","recordId":"123","data":{"done":true,"note":null},"timestamp":"2026-11-22T17:00:00.000Z","metadata":{"version":2,"userId":"u1"}}"#,
        ),
        (
            ServerMessage::Sync {
                collection: todos(),
                records: Vec::from([record]),
                range: Some(PageRange { after: None, up_to: None, snapshot_seq: Seq(1) }),
            },
            r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"123","data":{"done":true},"version":2,"updatedAt":"2026-11-22T17:00:00.000Z"}]}}"#,
        ),
        (
            ServerMessage::Error(ErrorMessage {
                mutation: Some(MutationNumber(17)),
                collection: Some(todos()),
                current: Some(change()),
                ..ErrorMessage::new(ErrorCode::RecordNotFound, "there is none")
            }),
            r#"{"type":"error","error":"there is none","code":"RECORD_NOT_FOUND","collection":"todos"}"#,
        ),
        (
            ServerMessage::Pong {
                timestamp: Some(time()),
                welcome: Some(Welcome {
                    database: None,
                    epoch: epoch(),
                    last_mutation: MutationNumber(0),
                    last_digest: None,
                    first_session: None,
                    user_id: None,
                    max_batch_bytes: 0,
                    features: Features::default(),
                }),
            },
            r#"{"type":"pong","timestamp":"2026-11-22T17:00:00.000Z"}"#,
        ),
    ] {
        assert_eq!(sent(&message, Level::Plain), text);
    }
}

#[test]
fn reading_is_liberal() {
    let plain = r#" {"metadata":{"version":"v7","userId":5,"count":"many","at":3},"extra":[{}],
        "recordId":"\u0031\u00e4","timestamp":"2026-11-22T17:00:00","collection":"todos",
        "data":{"n":12345678901234567890123,"s":"\ud83d\ude00"},"type":"\u0069nsert"} "#;
    let ServerMessage::Change { record_id, change, .. } = server(plain).unwrap() else {
        panic!("no change")
    };
    assert_eq!(&*record_id, "1\u{e4}");
    assert_eq!(change.timestamp, Some(time()));
    assert_eq!((change.seq, change.version, change.user_id), (None, None, None));
    let fields = &change.change.delta.set;
    assert_eq!(fields.text("n"), Some("12345678901234567890123"));
    assert_eq!(fields.text("s"), Some(r#""\ud83d\ude00""#));

    let ServerMessage::Sync { records, range, .. } = server(
        r#"{"type":"sync","collection":"todos","data":{"records":[{"recordId":"7","data":{},"version":"x"}]}}"#,
    )
    .unwrap() else {
        panic!("no sync")
    };
    assert_eq!((&*records[0].id, records[0].version, range), ("7", None, None));

    for text in [
        r#"{"type":"auth","data":{"token":"t"}}"#,
        r#"{"type":"auth","token":"t"}"#,
        r#"{"type":"auth","data":"odd","metadata":{"token":"t"}}"#,
    ] {
        assert_eq!(client(text).unwrap(), ClientMessage::Auth { token: Token::from("t") });
    }
    let filtered = client(r#"{"type":"subscribe","collection":"todos","filter":{"a":1,"b":"x"}}"#);
    let ClientMessage::Subscribe { filter, .. } = filtered.unwrap() else { panic!("no subscribe") };
    assert_eq!(filter, [("a", "1"), ("b", "\"x\"")].map(|(n, v)| (n.into(), v.into())));
    for filter in ["[]", "{}", "\"a\"", "7"] {
        let text =
            format!(r#"{{"type":"sync","collection":"todos","metadata":{{"filter":{filter}}}}}"#);
        assert!(client(&text).unwrap_err().message.contains("`filter`"), "{filter}");
    }
    assert_eq!(
        client(r#"{"type":"ping","metadata":{"protocol":1,"clientId":7}}"#).unwrap(),
        ClientMessage::Ping { hello: None }
    );
    for text in [
        r#"{"type":"error","error":"no","code":"UNAUTHORIZED","collection":"todos","recordId":"1"}"#,
        r#"{"type":"error","error":"no","code":"UNAUTHORIZED","metadata":{"collection":"todos","recordId":"1"}}"#,
    ] {
        let ServerMessage::Error(error) = server(text).unwrap() else { panic!("no error") };
        assert_eq!((error.collection, error.record_id), (Some(todos()), Some(id("1"))));
    }
    let ServerMessage::Error(error) = server(r#"{"type":"error","code":"ODD"}"#).unwrap() else {
        panic!("no error")
    };
    assert_eq!((error.code, &*error.message), (ErrorCode::parse("ODD"), "ODD"));
}

#[test]
fn what_is_wrong_is_said_clearly() {
    for (frame, expected) in [
        ("", "the message is not a JSON object"),
        ("[\"ping\"]", "the message is not a JSON object"),
        ("{\"type\":\"ping\"", "the message is not valid JSON: expected `,` or `}` at byte 14"),
        ("{\"type\":\"ping\"} x", "the message is not valid JSON: expected nothing more"),
        ("{\"type\":\"ping\",\"type\":\"ping\"}", "the field `type` occurs twice"),
        ("{}", "`type` is missing"),
        ("{\"type\":7}", "`type` is not a text"),
        ("{\"type\":\"\\ud800\"}", "`type` is not a text"),
        ("{\"type\":\"pong\"}", "there is no type \"pong\"; a client sends auth, subscribe"),
        ("{\"type\":\"auth\"}", "`data.token` is missing"),
        ("{\"type\":\"subscribe\"}", "`collection` is missing"),
        ("{\"type\":\"subscribe\",\"collection\":\"\"}", "`collection` can't be used: it is empty"),
        (
            "{\"type\":\"subscribe\",\"collection\":\"a\",\"metadata\":[]}",
            "`metadata` is not a JSON",
        ),
        (
            "{\"type\":\"subscribe\",\"collection\":\"a\",\"metadata\":{\"cursor\":{\"seq\":1}}}",
            "`metadata.cursor.epoch` is missing",
        ),
        ("{\"type\":\"delete\",\"collection\":\"a\"}", "`recordId` is missing"),
        ("{\"type\":\"insert\",\"collection\":\"a\",\"recordId\":\"1\"}", "`data` is missing"),
        ("{\"type\":\"update\",\"collection\":\"a\",\"recordId\":\"1\"}", "`data` is missing"),
        (
            "{\"type\":\"insert\",\"collection\":\"a\",\"recordId\":\"1\",\"data\":[1]}",
            "`data`: the document is not a JSON object",
        ),
        (
            "{\"type\":\"delete\",\"collection\":\"a\",\"recordId\":\"1\",\"timestamp\":\"now\"}",
            "`timestamp` does not have its form",
        ),
        (
            "{\"type\":\"delete\",\"collection\":\"a\",\"recordId\":\"1\",\"metadata\":{\"base\":9007199254740992}}",
            "`metadata.base` is not an integer from 0 to 2^53-1",
        ),
        (
            "{\"type\":\"ping\",\"metadata\":{\"protocol\":2,\"session\":1}}",
            "`metadata.clientId` is missing",
        ),
        ("{\"type\":\"batch\"}", "`messages` is missing"),
        ("{\"type\":\"batch\",\"messages\":{}}", "`messages` is not a list"),
    ] {
        let error = client(frame).unwrap_err();
        assert!(error.message.contains(expected), "{frame}: {}", error.message);
        assert_eq!(error.code, ErrorCode::InvalidMessage);
    }
    let error = decode_client(b"{\"type\":\"\xff\"}", &Limits::default()).unwrap_err();
    assert_eq!(error.message, "the message is not valid UTF-8");
    let error = server("{\"type\":\"pong\",\"metadata\":{\"protocol\":3}}").unwrap_err();
    assert!(error.message.contains("protocol 3"), "{error}");
}

#[test]
fn an_error_names_the_write_that_it_is_about() {
    let about =
        |error: &WireError| (error.mutation, error.collection.clone(), error.record_id.clone());
    for frame in [
        r#"{"type":"insert","collection":"todos","recordId":"1","metadata":{"mutation":17}}"#,
        r#"{"type":"insert","collection":"todos","recordId":"1","data":{"a":1,"a":2},"metadata":{"mutation":17}}"#,
        r#"{"type":"merge","collection":"todos","recordId":"1","metadata":{"mutation":17}}"#,
        r#"{"collection":"todos","recordId":"1","metadata":{"mutation":17}}"#,
    ] {
        let error = client(frame).unwrap_err();
        assert_eq!(about(&error), (Some(MutationNumber(17)), Some(todos()), Some(id("1"))));
    }
    let unnamed = client(
        r#"{"type":"delete","collection":"todos","recordId":"","metadata":{"mutation":17}}"#,
    );
    let error = unnamed.unwrap_err();
    assert_eq!(about(&error), (Some(MutationNumber(17)), Some(todos()), None));
    assert_eq!(ErrorMessage::from(error).mutation, Some(MutationNumber(17)));
}

#[test]
fn a_batch_holds_messages_that_fail_alone() {
    let messages = [
        r#"{"type":"ping"}"#,
        r#"{"type":"insert","collection":"todos","recordId":"1","metadata":{"mutation":3}}"#,
        "7",
        r#"{"type":"batch","messages":[]}"#,
        r#"{"type":"unsubscribe","collection":"todos"}"#,
    ];
    let frame = format!(r#"{{"type":"batch","messages":[{}]}}"#, messages.join(",")).into_bytes();
    let Ok(Incoming::Batch(read)) = decode_client(&frame, &Limits::default()) else {
        panic!("no batch")
    };
    assert_eq!(read[0], Ok(ClientMessage::Ping { hello: None }));
    assert_eq!(read[1].as_ref().unwrap_err().mutation, Some(MutationNumber(3)));
    assert!(read[2].is_err() && read[3].is_err());
    assert_eq!(read[4], Ok(ClientMessage::Unsubscribe { collection: todos() }));

    let few = Limits { batch_messages: 4, ..Limits::default() };
    let error = decode_client(&frame, &few).unwrap_err();
    assert_eq!(error.message, "`messages` holds more than 4 elements");
}

#[test]
fn limits_have_their_code() {
    let limits = Limits { frame_bytes: 200, document_bytes: 50, ..Limits::default() };
    let error = |frame: &str| decode_client(frame.as_bytes(), &limits).unwrap_err();
    assert_eq!(error(&" ".repeat(201)).code, ErrorCode::PayloadTooLarge);
    let large = format!(
        r#"{{"type":"insert","collection":"a","recordId":"1","data":{{"a":"{}"}},"metadata":{{"mutation":1}}}}"#,
        "x".repeat(50)
    );
    let large = error(&large);
    assert_eq!((large.code, large.mutation), (ErrorCode::PayloadTooLarge, Some(MutationNumber(1))));
    let names = Limits { fields: 1, field_name_bytes: 2, ..Limits::default() };
    for unset in [r#"["a","b"]"#, r#"["abc"]"#, "[1]", "[null]", "\"a\""] {
        let frame = format!(
            r#"{{"type":"update","collection":"a","recordId":"1","metadata":{{"unset":{unset}}}}}"#
        );
        assert!(decode_client(frame.as_bytes(), &names).is_err(), "{unset}");
    }
}

#[test]
fn a_secret_shows_in_no_error() {
    for frame in [
        r#""s3cret""#,
        r#"{"type":"auth","data":{"token":"s3cret"}"#,
        r#"{"type":"auth","data":{"token":"s3cret","token":"s3cret"}}"#,
        r#"{"type":"auth","data":{"token":{"s3cret":1}}}"#,
        r#"{"type":"auth","data":{"token":"s3cret\ud800"}}"#,
        r#"{"type":"auth","data":"s3cret","s3cret":1,"s3cret":2}"#,
    ] {
        let error = format!("{:?}", client(frame).unwrap_err());
        assert!(!error.contains("s3cret"), "{error}");
    }
    assert!(!format!("{:?}", client(r#"{"type":"auth","token":"s3cret"}"#)).contains("s3cret"));
}

#[test]
fn a_toggled_field_costs_few_bytes() {
    let uuid = "c0ffee00-1234-4abc-8def-0123456789ab";
    let toggled = Change::update(Delta::new(document("{\"done\":true}"), Vec::new()));
    let write = ClientMessage::Write(Mutation {
        collection: todos(),
        record_id: id(uuid),
        change: toggled.clone(),
        timestamp: Some(time()),
        at: Vec::new(),
        number: Some(MutationNumber(100_000)),
        base: Some(Seq(100_000)),
    });
    let change = ServerMessage::Change {
        collection: todos(),
        record_id: id(uuid),
        change: ServerChange {
            change: toggled,
            seq: Some(Seq(100_000)),
            version: Some(1_000),
            timestamp: Some(time()),
            at: Vec::new(),
            user_id: Some(UserId::new(uuid).unwrap()),
        },
        reason: None,
        prev: None,
    };
    for text in [said(&write), sent(&change, Level::Resumable)] {
        assert!(text.len() < 240, "{}: {text}", text.len());
    }
}

proptest! {
    #[test]
    fn what_a_client_says_is_understood(message in client_messages()) {
        prop_assert_eq!(client(&said(&message)).unwrap(), message);
    }

    #[test]
    fn what_a_server_says_is_understood(message in server_messages()) {
        prop_assert_eq!(server(&sent(&message, Level::Resumable)).unwrap(), message);
    }

    #[test]
    fn level_1_is_always_json_without_seqs(message in server_messages()) {
        let text = sent(&message, Level::Plain);
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        if let ServerMessage::Change { change, .. } = server(&text).unwrap() {
            prop_assert!(change.seq.is_none() && change.change.delta.unset.is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame: Vec<u8>) {
        let _ = decode_client(&frame, &Limits::default());
        let _ = decode_server(&frame, &Limits::default());
    }

    #[test]
    fn arbitrary_fields_never_panic(frame in near_frames()) {
        let _ = decode_client(frame.as_bytes(), &Limits::default());
        let _ = decode_server(frame.as_bytes(), &Limits::default());
    }
}
