//! The client's exchanges with plain (level-1) servers, as transcripts.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use synclayer_core::testing::Checked;
use synclayer_core::{
    ClientConfig, Command, ConflictStrategy, ConnectionState, ErrorCode, EventKind, Guarantees,
    HttpAnswer, Input, Level, OnServerLoss, PlainServers, Timer, Token, Transport, Write,
};

use lone_replica::{LoneReplica, config, doc, id, todos};

const PONG: &str = r#"{"type":"pong","timestamp":"2026-09-21T14:13:20.000Z"}"#;
const SYNC: &str = r#"{"type":"sync","collection":"todos"}"#;

fn socket_only() -> ClientConfig {
    config()
}

fn http_only() -> ClientConfig {
    ClientConfig { websocket: false, http: true, ..config() }
}

fn both() -> ClientConfig {
    ClientConfig { http: true, ..config() }
}

/// A connection on which the hello was answered as any ping.
fn connect(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.dial();
    let sent = lone.sent();
    assert!(sent[0].starts_with(r#"{"type":"ping","metadata":{"protocol":2"#), "{sent:?}");
    assert_eq!(sent[1], r#"{"type":"subscribe","collection":"todos"}"#);
    lone.hear(PONG);
    lone
}

/// A whole collection by WebSocket: each record with its data.
fn whole(records: &[(&str, &str)]) -> String {
    let record = |(id, data): &(&str, &str)| format!(r#"{{"id":"{id}","data":{data}}}"#);
    let records: Vec<_> = records.iter().map(record).collect();
    let records = records.join(",");
    format!(r#"{{"type":"sync","collection":"todos","data":{{"records":[{records}]}}}}"#)
}

fn frame(kind: &str, record: &str, data: &str) -> String {
    format!(r#"{{"type":"{kind}","collection":"todos","recordId":"{record}","data":{data}}}"#)
}

/// A socket in step, which holds `a`.
fn live() -> LoneReplica {
    let mut lone = connect(socket_only());
    assert_eq!(lone.sent(), [SYNC]);
    lone.hear(&whole(&[("a", r#"{"n":1,"t":"x"}"#)]));
    assert!(lone.sent().is_empty());
    lone
}

fn pong_frame(lone: &mut LoneReplica) {
    let conn = lone.conn;
    lone.replica.handle(lone.now, Input::Heard { conn }, &mut lone.actions);
    lone.replica.check().unwrap();
}

/// The answer to a query: each record with its data, stamp (seconds of a minute) and version.
fn rows(records: &[(&str, &str, u32, u64)]) -> String {
    let record = |(id, data, second, version): &(&str, &str, u32, u64)| {
        format!(
            r#"{{"recordId":"{id}","data":{data},"updatedAt":"2026-09-21T14:00:{second:02}.000Z","version":{version}}}"#
        )
    };
    let records: Vec<_> = records.iter().map(record).collect();
    format!(r#"{{"records":[{}]}}"#, records.join(","))
}

const QUERY: &str = "GET /sync/todos?limit=500";
/// The answer of a server that has taken a write.
const TAKEN: &str = r#"{"success":true}"#;
/// Behind a row that was stamped at 14:00:30.
const QUERY_SINCE: &str = "GET /sync/todos?since=2026-09-21T14%3A00%3A20.000Z&limit=500";

fn first_rows() -> String {
    rows(&[("a", r#"{"n":1,"t":"x"}"#, 30, 4)])
}

/// A client that polls a plain server and holds `a`.
fn polling() -> LoneReplica {
    polling_with(http_only())
}

fn polling_with(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    lone.answer(404, r#"{"error":"no such collection"}"#);
    assert_eq!(lone.sent(), [QUERY]);
    lone.answer(200, &first_rows());
    assert!(lone.sent().is_empty());
    lone
}

/// A socket and HTTP in step, with `a`.
fn live_both() -> LoneReplica {
    live_both_with(both())
}

fn live_both_with(config: ClientConfig) -> LoneReplica {
    let mut lone = connect(config);
    assert_eq!(lone.sent(), [QUERY]);
    lone.answer(200, &first_rows());
    assert!(lone.sent().is_empty());
    lone
}

fn pending(lone: &LoneReplica) -> usize {
    lone.replica.status().pending_writes
}

fn kinds(lone: &mut LoneReplica) -> Vec<EventKind> {
    lone.sent();
    lone.events.drain(..).map(|event| event.kind).collect()
}

// --- how a plain server is recognised ---

#[test]
fn a_pong_without_a_protocol_is_of_a_plain_server() {
    let mut lone = connect(socket_only());
    assert_eq!(lone.sent(), [SYNC], "the present contents are asked for");
    let status = lone.replica.status();
    assert_eq!(status.level, Some(Level::Plain));
    assert_eq!(status.guarantees, Some(Guarantees::default()));
    assert_eq!(status.transport, Some(Transport::WebSocket));
    assert!(status.collections[&todos()].live, "without a confirmation of the subscription");
    assert!(lone.saw(|kind| matches!(kind, EventKind::RealtimeConnected)));
    lone.hear(&whole(&[("a", "{}")]));
    assert_eq!(lone.replica.standing(&todos()), (false, false));
}

#[test]
fn what_only_a_plain_server_says_before_its_pong_shows_it() {
    for word in [
        r#"{"type":"subscribed","collection":"todos","metadata":{"recordCount":1}}"#,
        r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1}}]}}"#,
        r#"{"type":"insert","collection":"todos","recordId":"a","data":{"n":1}}"#,
    ] {
        let mut lone = LoneReplica::new(socket_only());
        lone.dial();
        lone.hear(word);
        assert_eq!(lone.replica.status().level, Some(Level::Plain), "{word}");
        let shows = lone.shows("a");
        assert_eq!(shows.is_some(), !word.contains("subscribed"), "nothing of it is lost: {word}");
    }
}

#[test]
fn silence_shows_no_plain_server() {
    // one of level 2 that is slow answers a WebSocket ping too
    for answers in [true, false] {
        let mut lone = LoneReplica::new(socket_only());
        lone.dial();
        lone.sent();
        lone.pass(7_500);
        assert_eq!(lone.sent(), ["PING"]);
        if answers {
            pong_frame(&mut lone);
        }
        lone.pass(7_500);
        assert_eq!(lone.replica.status().level, None);
        assert_eq!(lone.sent(), ["CLOSE"]);
    }
}

#[test]
fn a_server_known_to_be_silent_needs_no_proof() {
    let mut lone = LoneReplica::new(ClientConfig { plain: PlainServers::Silent, ..socket_only() });
    lone.dial();
    lone.pass(15_000);
    assert_eq!(lone.replica.status().level, Some(Level::Plain));
}

#[test]
fn an_address_that_offered_level_2_is_not_believed_to_offer_less() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.sent();
    lone.make_durable();
    let store = lone.replica.into_store();
    for (config, accepted) in [
        (socket_only(), false),
        (ClientConfig { plain: PlainServers::Never, ..socket_only() }, false),
        (ClientConfig { plain: PlainServers::Silent, ..socket_only() }, false),
        (ClientConfig { plain: PlainServers::AllowDowngrade, ..socket_only() }, true),
        (ClientConfig { address: "elsewhere".into(), ..socket_only() }, true),
    ] {
        let mut lone = LoneReplica::on(config.clone(), store.clone());
        lone.dial();
        lone.hear(PONG);
        assert_eq!(lone.replica.status().level.is_some(), accepted, "{config:?}");
        assert_eq!(lone.sent().contains(&"CLOSE".into()), !accepted);
    }
    let mut lone = LoneReplica::on(http_only(), store);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}");
    assert_eq!(lone.replica.status().transport, None);
    assert!(lone.sent().iter().all(|line| !line.starts_with("GET")));
}

#[test]
fn a_late_welcome_ends_the_plain_connection_and_is_remembered() {
    let mut lone = live();
    lone.welcome(0, "");
    assert_eq!(lone.sent(), ["CLOSE"]);
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    assert_eq!(lone.replica.status().level, None, "it has level 2");
}

#[test]
fn what_is_required_is_not_given_up() {
    let required = Guarantees { exactly_once: true, ..Guarantees::default() };
    for config in [socket_only(), http_only()] {
        let mut lone = LoneReplica::new(ClientConfig { required, ..config.clone() });
        lone.save("w", "{}");
        if config.websocket {
            lone.dial();
            lone.hear(PONG);
        } else {
            lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
            lone.answer(404, "{}").answer(200, "[]");
        }
        let sent = lone.sent();
        assert!(sent.iter().all(|line| !line.contains("insert") && !line.contains("recordId")));
        let missing = EventKind::GuaranteesMissing { offered: Guarantees::default(), required };
        assert!(lone.saw(|kind| *kind == missing));
        assert_eq!(lone.replica.status().connection, ConnectionState::Error);
        assert_eq!(pending(&lone), 1, "nothing is lost");
    }
}

#[test]
fn after_level_1_a_level_2_server_is_asked_for_everything() {
    let mut lone = live();
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    let sent = lone.sent();
    assert_eq!(sent[1], r#"{"type":"subscribe","collection":"todos"}"#, "no cursor vouches");
    lone.welcome(0, "");
    assert_eq!(lone.replica.status().level, Some(Level::Resumable));
}

// --- the WebSocket ---

#[test]
fn what_a_plain_server_shows_is_settled_and_not_acknowledged() {
    let mut lone = live();
    let (todos, id, doc) =
        (lone_replica::todos(), lone_replica::id("b"), lone_replica::doc(r#"{"n":2}"#));
    let saved =
        lone.replica.write(lone.now, Write::Save(todos, id, doc), &mut lone.actions).unwrap();
    lone.replica.follow(saved, &mut lone.actions);
    assert!(!lone.sent().iter().any(|line| line.starts_with("FATE")));
    pong_frame(&mut lone);
    assert_eq!(lone.sent(), ["FATE 0 Settled"]);
}

#[test]
fn writes_go_out_at_once_and_a_pong_proves_that_they_have_arrived() {
    let mut lone = live();
    lone.save("b", r#"{"n":2}"#);
    let sent = lone.sent();
    assert!(
        sent[0].starts_with(
            r#"{"type":"insert","collection":"todos","recordId":"b","data":{"n":2},"timestamp":"#
        ),
        "{sent:?}"
    );
    assert!(!sent[0].contains("mutation") && !sent[0].contains("base"), "{sent:?}");
    assert_eq!(sent[1], "PING");
    lone.update("b", r#"{"n":3}"#);
    let sent = lone.sent();
    assert!(sent[0].starts_with(r#"{"type":"update""#) && sent.len() == 1, "{sent:?}");
    assert_eq!(pending(&lone), 2);
    pong_frame(&mut lone);
    assert_eq!(pending(&lone), 1, "the second went out behind the ping");
    assert_eq!(lone.sent(), ["PING"]);
    pong_frame(&mut lone);
    assert_eq!((pending(&lone), lone.sent().len()), (0, 0));
    assert_eq!(lone.shows("b").unwrap(), r#"{"n":3}"#);
    let synced = kinds(&mut lone);
    let synced = synced.iter().filter(|kind| matches!(kind, EventKind::OperationSynced { .. }));
    assert_eq!(synced.count(), 2);
}

#[test]
fn a_removed_field_goes_as_a_null() {
    let mut lone = live();
    lone.save("a", r#"{"n":1}"#);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""data":{"t":null}"#), "{sent:?}");
}

#[test]
fn changes_merge_replace_and_delete() {
    let mut lone = live();
    lone.hear(&frame("update", "a", r#"{"n":2,"t":null}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2}"#);
    lone.hear(&frame("insert", "a", r#"{"m":1}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"m":1}"#);
    lone.hear(r#"{"type":"delete","collection":"todos","recordId":"a"}"#);
    assert_eq!(lone.shows("a"), None);
    let kinds = kinds(&mut lone);
    for kind in [
        EventKind::RealtimeUpdate { collection: todos(), record_id: id("a") },
        EventKind::RealtimeInsert { collection: todos(), record_id: id("a") },
        EventKind::RealtimeDelete { collection: todos(), record_id: id("a") },
        EventKind::RealtimeSync { collection: todos(), records: 1 },
    ] {
        assert_eq!(kinds.iter().filter(|it| **it == kind).count(), 1, "{kind:?}");
    }
}

#[test]
fn what_changes_nothing_is_no_news() {
    let mut lone = live();
    kinds(&mut lone);
    lone.hear(&frame("update", "a", r#"{"n":1.0,"z":null}"#));
    lone.hear(&frame("insert", "a", r#"{"t":"\u0078","n":1}"#));
    lone.hear(r#"{"type":"delete","collection":"todos","recordId":"never"}"#);
    assert_eq!(kinds(&mut lone), []);
}

#[test]
fn an_update_of_an_unknown_record_has_the_collection_sent_again() {
    let mut lone = live();
    lone.hear(&frame("update", "b", r#"{"n":2}"#));
    assert_eq!(lone.shows("b"), None, "half a record is none");
    assert_eq!(lone.sent(), [SYNC]);
}

#[test]
fn a_whole_collection_takes_away_what_it_lacks_but_not_what_is_newer() {
    let mut lone = live();
    lone.hear(&whole(&[("a", r#"{"n":1}"#), ("b", "{}")]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1}"#);
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    assert_eq!(lone.sent().last().unwrap(), SYNC);
    // these came after it was asked for
    lone.hear(&frame("insert", "new", r#"{"n":7}"#));
    lone.hear(&frame("update", "a", r#"{"n":8}"#));
    lone.save("own", "{}");
    pong_frame(&mut lone);
    lone.hear(&whole(&[("a", r#"{"n":1}"#)]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":8}"#);
    assert_eq!(lone.shows("new").unwrap(), r#"{"n":7}"#);
    assert!(lone.shows("own").is_some());
    assert_eq!(lone.shows("b"), None, "deleted while we were away");
}

#[test]
fn an_echo_of_an_older_own_write_is_not_shown() {
    let mut lone = live();
    lone.update("a", r#"{"n":2}"#);
    lone.update("a", r#"{"n":3}"#);
    lone.sent();
    pong_frame(&mut lone);
    pong_frame(&mut lone);
    assert_eq!(pending(&lone), 0);
    kinds(&mut lone);
    lone.hear(&frame("update", "a", r#"{"n":2}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":3,"t":"x"}"#);
    lone.hear(&frame("update", "a", r#"{"n":3}"#));
    assert_eq!(kinds(&mut lone), []);
    // had it been someone else's, it would count after a while
    lone.update("a", r#"{"n":4}"#);
    lone.update("a", r#"{"n":5}"#);
    lone.sent();
    pong_frame(&mut lone);
    pong_frame(&mut lone);
    lone.hear(&frame("update", "a", r#"{"n":4}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":5,"t":"x"}"#);
    lone.pass(5_000);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":4,"t":"x"}"#);
}

#[test]
fn a_change_that_meets_a_pending_write_goes_through_the_strategy() {
    let config = ClientConfig { conflict_strategy: ConflictStrategy::ServerWins, ..socket_only() };
    let mut lone = connect(config);
    lone.hear(&whole(&[("a", r#"{"n":1,"t":"x"}"#)]));
    lone.cut();
    lone.update("a", r#"{"n":2,"t":"mine"}"#);
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.sent();
    lone.hear(PONG);
    // offline writes never left: they go out at once
    assert!(lone.sent().iter().any(|line| line.contains(r#""n":2"#)));
    lone.hear(&frame("update", "a", r#"{"n":9}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"mine"}"#, "it is on its way");
    pong_frame(&mut lone);
    let kinds = kinds(&mut lone);
    assert!(
        kinds.iter().any(|kind| matches!(kind, EventKind::ConflictDetected { .. })),
        "{kinds:?}"
    );
    assert!(lone.shows("a").unwrap().contains(r#""n":9"#));
}

#[test]
fn writes_that_may_have_been_sent_are_compared_before_they_are_sent_again() {
    let mut lone = live();
    lone.update("a", r#"{"n":2}"#);
    lone.save("b", "{}");
    lone.save("c", r#"{"k":1}"#);
    assert_eq!(lone.sent().iter().filter(|line| *line != "PING").count(), 3);
    lone.cut();
    lone.save("d", "{}");
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.sent();
    lone.hear(PONG);
    assert_eq!(lone.sent(), [SYNC], "nothing is sent before that is known");
    lone.hear(&whole(&[("a", r#"{"n":2,"t":"x"}"#), ("c", r#"{"k":1}"#)]));
    let sent = lone.sent();
    assert!(sent[0].contains(r#""recordId":"b""#), "{sent:?}");
    assert!(sent[1].contains(r#""recordId":"d""#), "{sent:?}");
    assert_eq!(sent[2..], ["PING"]);
    pong_frame(&mut lone);
    assert_eq!(pending(&lone), 0);
}

#[test]
fn without_the_whole_collection_they_are_sent_again_after_a_while() {
    let mut lone = live();
    lone.save("b", "{}");
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    lone.sent();
    lone.pass(2_000);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""recordId":"b""#), "{sent:?}");
}

#[test]
fn an_error_that_names_the_only_write_of_a_record_rejects_it() {
    let error = |code: &str| {
        format!(
            r#"{{"type":"error","code":"{code}","error":"no","collection":"todos","recordId":"b"}}"#
        )
    };
    let mut lone = live();
    lone.save("b", "{}");
    lone.hear(&error("SERVER_ERROR"));
    assert_eq!(pending(&lone), 1);
    lone.hear(&error("UNAUTHORIZED"));
    assert_eq!((pending(&lone), lone.replica.rejected().unwrap().len()), (0, 1));
    assert_eq!(lone.shows("b"), None);
    lone.hear(r#"{"type":"error","code":"INVALID_MESSAGE","error":"what?"}"#);
    lone.sent();
    let told = |kind: &EventKind| matches!(kind, EventKind::Error { message, .. } if message.contains("what?"));
    assert!(lone.events.iter().any(|event| told(&event.kind)));
    assert_eq!(lone.replica.status().level, Some(Level::Plain), "the connection lives");
}

#[test]
fn liveness_comes_by_json_where_json_is_answered() {
    let mut lone = live();
    let (at, timer) = lone.replica.deadline().unwrap();
    assert_eq!((timer, at.since(lone.now.mono).as_secs()), (Timer::Ping, 56));
    lone.pass(56_000);
    assert_eq!(lone.sent(), [r#"{"type":"ping"}"#]);
    lone.hear(PONG);
    lone.pass(56_000);
    assert_eq!(lone.sent(), [r#"{"type":"ping"}"#]);
    lone.pass(15_000);
    assert_eq!(lone.sent()[0], "CLOSE", "no answer");
}

#[test]
fn liveness_comes_by_websocket_where_json_is_not_answered() {
    let mut lone = LoneReplica::new(socket_only());
    lone.dial();
    lone.hear(r#"{"type":"subscribed","collection":"todos"}"#);
    lone.sent();
    lone.pass(30_000);
    assert_eq!(lone.sent(), ["PING"]);
}

#[test]
fn a_collection_can_be_left_and_wanted_again() {
    let mut lone = live();
    lone.replica.command(lone.now, Command::Unsubscribe(todos()), &mut lone.actions);
    assert_eq!(lone.sent(), [r#"{"type":"unsubscribe","collection":"todos"}"#]);
    lone.hear(&frame("update", "a", r#"{"n":5}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
    lone.replica.command(lone.now, Command::Subscribe(todos()), &mut lone.actions);
    assert_eq!(lone.sent(), [r#"{"type":"subscribe","collection":"todos"}"#, SYNC]);
}

#[test]
fn synced_waits_for_what_was_written() {
    let mut lone = live();
    lone.save("b", "{}");
    lone.sent();
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent().is_empty());
    pong_frame(&mut lone);
    assert_eq!(lone.sent(), ["SYNCED 0"]);
}

// --- HTTP alone ---

#[test]
fn a_server_that_knows_no_hello_is_a_plain_one() {
    for (status, body) in [
        (404, "<html>Cannot POST /sync/session</html>"),
        (405, ""),
        (400, r#"{"error":"recordId is missing"}"#),
        (422, r#"{"detail":[]}"#),
        (501, ""),
        (201, r#"{"recordId":"x","version":1}"#),
        (200, "OK"),
    ] {
        let mut lone = LoneReplica::new(http_only());
        lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
        lone.answer(status, body);
        assert_eq!(lone.sent().last().unwrap(), QUERY, "{status} {body}");
        let before = lone.replica.status();
        assert_eq!((before.level, before.transport), (None, None), "it may be anything");
        lone.answer(200, "[]");
        let status = lone.replica.status();
        assert_eq!((status.level, status.transport), (Some(Level::Plain), Some(Transport::Http)));
        assert_eq!(status.guarantees, Some(Guarantees::default()));
    }
}

/// Something that does not know the hello, and answers everything else likewise.
fn nowhere(address: &str) -> LoneReplica {
    let mut lone = LoneReplica::new(ClientConfig { address: address.into(), ..http_only() });
    for record in ["b", "c", "d"] {
        lone.save(record, "{}");
    }
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone
}

fn no_server(lone: &LoneReplica) -> Option<&str> {
    lone.events.iter().find_map(|event| match &event.kind {
        EventKind::NoServer { message } => Some(message.as_str()),
        _ => None,
    })
}

fn until_it_asks(lone: &mut LoneReplica) -> Vec<String> {
    loop {
        let sent = lone.sent();
        if !sent.is_empty() {
            return sent;
        }
        let at = lone.replica.deadline().expect("it goes on").0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
    }
}

#[test]
fn a_wrong_path_is_no_plain_server() {
    for (status, body) in [
        (404, r#"{"error":"there is nothing here","code":"INVALID_MESSAGE"}"#),
        (404, "<html>404</html>"),
        (405, ""),
        (403, r#"{"message":"no route matched"}"#),
        (200, "<html>log in</html>"),
        (200, r#"{"status":"login"}"#),
        (204, ""),
    ] {
        let mut lone = nowhere("http://host:80/api");
        let hello = if status == 403 { 404 } else { status };
        lone.answer(hello, body);
        assert_eq!(lone.sent().last().unwrap(), QUERY);
        lone.answer(status, body);
        assert!(lone.sent().is_empty(), "{status} {body}: nothing is sent to it");
        let message = no_server(&lone).unwrap();
        assert!(message.starts_with("no SyncLayer server at http://host:80/api: "), "{message}");
        let now = lone.replica.status();
        assert_eq!((now.pending_writes, now.rejected_writes, now.transport), (3, 0, None));
        // as soon as the address is right
        assert!(until_it_asks(&mut lone)[0].starts_with("POST /sync/session"));
        lone.answer(404, "").answer(200, "[]");
        for _ in 0..3 {
            assert!(lone.sent().last().unwrap().starts_with("POST /sync/todos "));
            lone.answer(200, TAKEN);
        }
        assert_eq!(pending(&lone), 0);
    }
}

#[test]
fn a_replica_without_collections_finds_no_server_either() {
    let mut lone = LoneReplica::new(ClientConfig { collections: vec![], ..http_only() });
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}");
    assert!(lone.sent().iter().all(|line| !line.starts_with("SYNCED")));
    assert!(no_server(&lone).is_some());
}

#[test]
fn one_collection_that_is_read_shows_a_plain_server() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = http_only();
    config.collections.push(notes);
    let mut lone = LoneReplica::new(config);
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}").answer(404, r#"{"error":"what are notes?"}"#);
    assert_eq!(lone.sent().last().unwrap(), QUERY);
    lone.answer(200, "[]");
    assert_eq!(lone.replica.status().level, Some(Level::Plain));
    let sent = lone.sent();
    assert!(sent[0].starts_with("SYNCED 0: the server refuses notes"), "{sent:?}");
}

/// A polling replica of `..`, `notes` and `todos`, whose first page is asked for.
fn three_collections() -> LoneReplica {
    let name = |name| synclayer_core::Collection::new(name).unwrap();
    let mut config = http_only();
    config.collections = ["..", "notes", "todos"].map(name).to_vec();
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    for _ in 0..3 {
        lone.answer(200, "[]");
    }
    lone.sent();
    lone.save("b", "{}");
    lone.replica.synced(lone.now, &mut lone.actions);
    assert_eq!(lone.sent(), ["GET /sync/%2E%2E?limit=500"]);
    lone
}

#[test]
fn whatever_is_answered_for_one_collection_the_others_go_on() {
    for (status, body) in [
        (404, "<html>not found</html>"),
        (405, ""),
        (500, "{}"),
        (502, "<html>bad gateway</html>"),
        (200, "<html>home</html>"),
    ] {
        let mut lone = three_collections();
        lone.answer(status, body);
        assert_eq!(lone.sent(), ["GET /sync/notes?limit=500"], "{status} {body}");
        lone.answer(200, "[]").answer(200, "[]");
        let sent = lone.sent();
        assert!(sent.last().unwrap().starts_with("POST /sync/todos "), "{status} {body}: {sent:?}");
        lone.answer(200, TAKEN);
        let sent = lone.sent();
        assert!(sent.iter().all(|line| !line.starts_with("SYNCED")), "{status} {body}: {sent:?}");
        let told = lone.events.iter().any(|event| {
            event.kind.collection().is_some_and(|of| &**of == "..")
                && matches!(&event.kind, EventKind::SyncFailed { message, .. }
                    if message.contains("a proxy may take it for a step"))
        });
        assert!(told, "{status} {body}");
        assert!(until_it_asks(&mut lone)[0].starts_with("GET /sync/%2E%2E"), "it is tried again");
    }
}

#[test]
fn where_nothing_can_be_read_nothing_is_pushed() {
    let mut lone = three_collections();
    for _ in 0..3 {
        lone.answer(502, "<html>bad gateway</html>");
    }
    assert!(lone.sent().iter().all(|line| line.starts_with("GET")));
    assert_eq!((pending(&lone), lone.replica.status().transport), (1, None));
}

#[test]
fn a_read_that_is_never_answered_does_not_hold_the_others_up() {
    let mut lone = three_collections();
    for _ in 0..40 {
        match lone.tickets.front().map(|ticket| ticket.request().path.clone()) {
            None => {
                let at = lone.replica.deadline().unwrap().0;
                lone.pass(at.since(lone.now.mono).as_millis() as u64);
            }
            Some(path) if path.starts_with("/sync/%2E%2E") => {
                lone.resolve(HttpAnswer::Failed("too large".into()));
            }
            Some(_) if lone.tickets[0].request().body.is_none() => drop(lone.answer(200, "[]")),
            Some(_) => drop(lone.answer(200, TAKEN)),
        }
        lone.sent();
        if pending(&lone) == 0 {
            return;
        }
    }
    panic!("the write has not gone out");
}

#[test]
fn a_level_2_server_behind_a_gateway_is_no_plain_one() {
    let mut lone = nowhere("");
    lone.answer(404, r#"{"message":"no route matched"}"#);
    lone.answer(200, r#"{"records":[],"protocol":2}"#);
    assert!(lone.sent().iter().all(|line| !line.contains("recordId")), "nothing is sent plainly");
    assert_eq!(lone.replica.status().level, None);
    assert!(until_it_asks(&mut lone)[0].starts_with("POST /sync/session"), "it says hello again");
}

#[test]
fn what_a_gateway_says_settles_nothing() {
    let gateway = r#"{"message":"no route matched"}"#;
    for status in [400, 403, 404, 410, 413, 422, 500] {
        let mut lone = polling();
        lone.replica.write(lone.now, Write::Delete(todos(), id("a")), &mut lone.actions).unwrap();
        lone.save("b", "{}");
        assert_eq!(lone.sent(), [QUERY_SINCE]);
        lone.answer(200, "[]");
        for _ in 0..6 {
            // a while in which everything is answered so
            lone.answer(status, gateway);
            lone.sent();
            while lone.tickets.is_empty() {
                let at = lone.replica.deadline().unwrap().0;
                lone.pass(at.since(lone.now.mono).as_millis() as u64);
                lone.sent();
            }
        }
        assert_eq!((pending(&lone), lone.replica.rejected().unwrap().len()), (2, 0), "{status}");
        // it is gone: everything goes its way
        let mut made = Vec::new();
        for _ in 0..40 {
            lone.sent();
            match lone.tickets.front().map(|ticket| ticket.request().method.as_str()) {
                None => {
                    let at = lone.replica.deadline().unwrap().0;
                    lone.pass(at.since(lone.now.mono).as_millis() as u64);
                }
                Some("GET") => drop(lone.answer(200, &first_rows())),
                Some(method) => {
                    made.push(method);
                    lone.answer(200, TAKEN);
                }
            }
        }
        assert_eq!(made, ["DELETE", "POST"], "{status}");
        assert_eq!((pending(&lone), lone.replica.rejected().unwrap().len()), (0, 0), "{status}");
    }
}

#[test]
fn a_success_without_form_is_looked_at() {
    for body in ["<html>log in</html>", r#"{"status":"login"}"#, "", "OK"] {
        for arrived in [true, false] {
            let mut lone = polling();
            lone.save("b", r#"{"n":2}"#);
            lone.answer(200, "[]");
            lone.sent();
            lone.answer(200, body);
            assert_eq!((pending(&lone), lone.sent()), (1, vec![QUERY_SINCE.to_string()]));
            let found = rows(&[("b", r#"{"n":2}"#, 40, 1)]);
            lone.answer(200, if arrived { &found } else { "[]" });
            assert_eq!(pending(&lone), usize::from(!arrived), "{body}");
            if !arrived {
                assert!(lone.sent()[0].starts_with("POST /sync/todos "), "{body}");
                lone.answer(200, body);
                assert!(lone.sent().is_empty(), "it waits a while");
                assert_eq!(pending(&lone), 1);
            }
        }
    }
}

#[test]
fn a_poll_asks_for_what_changed_since() {
    let mut lone = polling();
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
    assert_eq!(lone.replica.standing(&todos()), (false, false));
    lone.pass(315_000);
    assert_eq!(lone.sent(), [QUERY_SINCE], "with an overlap");
    lone.answer(200, &rows(&[("a", r#"{"n":1,"t":"x"}"#, 30, 4), ("b", "{}", 40, 1)]));
    assert!(lone.sent().is_empty(), "one request");
    assert!(lone.shows("b").is_some());
}

#[test]
fn rows_come_in_many_shapes() {
    let mut lone = polling();
    lone.pass(315_000);
    lone.answer(200, r#"[{"id":"b","data":{"n":1.0}},{"id":"?"},{"id":7,"data":{}}]"#);
    assert_eq!(lone.shows("b").unwrap(), r#"{"n":1.0}"#);
    assert!(lone.shows("7").is_some());
    let left_out = |kind: &&EventKind| matches!(kind, EventKind::Error { message, .. } if message.contains("can't be read"));
    assert_eq!(kinds(&mut lone).iter().filter(left_out).count(), 1);
}

#[test]
fn writes_are_pushed_in_order() {
    let mut lone = polling();
    lone.save("b", r#"{"n":2}"#);
    lone.update("a", r#"{"n":5}"#);
    lone.replica.write(lone.now, Write::Delete(todos(), id("b")), &mut lone.actions).unwrap();
    assert_eq!(lone.sent(), [QUERY_SINCE], "first what is new");
    lone.answer(200, &first_rows());
    let sent = lone.sent();
    assert!(sent[0].starts_with(r#"POST /sync/todos {"recordId":"b","data":{"n":2},"#), "{sent:?}");
    lone.answer(201, r#"{"recordId":"b","version":1}"#);
    let sent = lone.sent();
    assert!(
        sent[0].starts_with(r#"PATCH /sync/todos/a {"delta":{"n":5},"baseVersion":4,"#),
        "{sent:?}"
    );
    lone.answer(200, TAKEN);
    assert_eq!(lone.sent(), ["DELETE /sync/todos/b"]);
    lone.answer(204, "");
    assert!(lone.sent().is_empty());
    assert_eq!(pending(&lone), 0);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":5,"t":"x"}"#);
    lone.update("a", r#"{"n":6}"#);
    lone.answer(200, "[]");
    let sent = lone.sent();
    assert!(sent[1].contains(r#"{"delta":{"n":6},"timestamp""#), "no version is known: {sent:?}");
}

#[test]
fn a_conflict_brings_the_current_record_in_any_shape() {
    let current = r#"{"recordId":"a","data":{"n":1,"t":"theirs"},"version":9}"#;
    for body in [
        format!(r#"{{"error":"no","record":{current}}}"#),
        format!(r#"{{"current":{current}}}"#),
        current.to_string(),
    ] {
        let mut lone = polling();
        lone.update("a", r#"{"n":5}"#);
        lone.answer(200, "[]");
        lone.answer(409, &body);
        let sent = lone.sent();
        assert!(
            sent.last().unwrap().contains(r#"{"delta":{"n":5},"baseVersion":9"#),
            "they changed another field: {sent:?}"
        );
        lone.answer(200, TAKEN);
        assert_eq!(lone.shows("a").unwrap(), r#"{"n":5,"t":"theirs"}"#);
        assert_eq!(pending(&lone), 0);
    }
}

#[test]
fn a_conflict_in_the_same_field_goes_through_the_strategy() {
    for (strategy, shown, pushes) in [
        (ConflictStrategy::ServerWins, r#"{"n":7,"t":"x"}"#, false),
        (ConflictStrategy::ClientWins, r#"{"n":5,"t":"x"}"#, true),
    ] {
        let mut lone = polling_with(ClientConfig { conflict_strategy: strategy, ..http_only() });
        lone.update("a", r#"{"n":5}"#);
        lone.answer(200, "[]");
        lone.sent();
        lone.answer(409, r#"{"id":"a","data":{"n":7,"t":"x"},"version":9}"#);
        assert_eq!(lone.shows("a").unwrap(), shown);
        let sent = lone.sent();
        assert_eq!(sent.iter().any(|line| line.starts_with("PATCH")), pushes, "{sent:?}");
        if pushes {
            lone.answer(200, TAKEN);
        }
        assert_eq!(pending(&lone), 0);
        assert!(lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
    }
}

#[test]
fn a_conflict_with_oneself_is_none() {
    let mut lone = polling();
    lone.update("a", r#"{"n":5}"#);
    lone.answer(200, "[]");
    lone.resolve(HttpAnswer::Failed("timed out".into()));
    assert_eq!(pending(&lone), 1);
    while lone.tickets.is_empty() {
        let at = lone.replica.deadline().unwrap().0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        lone.sent();
    }
    // it had arrived
    lone.answer(200, &rows(&[("a", r#"{"n":5.0,"t":"x"}"#, 40, 5)]));
    assert!(lone.sent().is_empty());
    assert_eq!(pending(&lone), 0);
    assert!(!lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
}

#[test]
fn a_patch_of_a_missing_record_meets_a_delete() {
    for (strategy, survives) in
        [(ConflictStrategy::ServerWins, false), (ConflictStrategy::ClientWins, true)]
    {
        let mut lone = polling_with(ClientConfig { conflict_strategy: strategy, ..http_only() });
        lone.update("a", r#"{"n":5}"#);
        lone.answer(200, "[]");
        lone.sent();
        lone.answer(404, "Not Found");
        assert_eq!(lone.sent(), [QUERY], "the record is looked at first");
        lone.answer(200, "[]");
        let sent = lone.sent();
        let whole = r#"POST /sync/todos {"recordId":"a","data":{"n":5,"t":"x"}"#;
        assert_eq!(sent.iter().any(|line| line.starts_with(whole)), survives, "{sent:?}");
        assert_eq!(lone.shows("a").is_some(), survives);
    }
}

#[test]
fn an_update_of_a_record_that_is_gone_is_not_tried_for_ever() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    lone.replica.write(lone.now, Write::Delete(todos(), id("a")), &mut lone.actions).unwrap();
    lone.save("a", r#"{"m":3}"#);
    lone.sent();
    // what the server has is also what one of the writes makes of the record, but not the last
    lone.hear(r#"{"type":"delete","collection":"todos","recordId":"a"}"#);
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    lone.answer(200, "[]");
    let sent = lone.sent();
    assert!(sent.iter().any(|line| line.starts_with("PATCH")), "{sent:?}");
    lone.answer(404, "{}");
    assert_eq!(lone.sent(), [QUERY], "the record is looked at first");
    lone.answer(200, "[]");
    assert!(lone.sent()[0].starts_with("PATCH"));
    lone.answer(404, "{}");
    for _ in 0..10 {
        let sent = lone.sent();
        assert!(sent.iter().all(|line| !line.starts_with("PATCH")), "{sent:?}");
        if sent.iter().any(|line| line.starts_with("POST") || line.starts_with("DELETE")) {
            lone.answer(200, TAKEN);
        } else if sent.iter().any(|line| line.starts_with("GET")) {
            let found = lone.shows("a").map(|json| rows(&[("a", &json, 40, 5)]));
            lone.answer(200, &found.unwrap_or("[]".into()));
        } else {
            lone.pass(1_000);
        }
    }
    assert_eq!(pending(&lone), 0);
}

#[test]
fn refusals_for_good_reject_the_write() {
    for (status, body, code) in [
        (400, r#"{"error":"bad"}"#, ErrorCode::InvalidMessage),
        (403, r#"{"error":"no"}"#, ErrorCode::Unauthorized),
        (404, r#"{"error":"?","code":"COLLECTION_NOT_FOUND"}"#, ErrorCode::CollectionNotFound),
        (413, r#"{"error":"big","code":"PAYLOAD_TOO_LARGE"}"#, ErrorCode::PayloadTooLarge),
        (422, r#"{"detail":[]}"#, ErrorCode::InvalidMessage),
    ] {
        let mut lone = polling();
        lone.save("b", "{}");
        for _ in 0..3 {
            assert_eq!(pending(&lone), 1, "not before it was said again");
            lone.answer(200, "[]");
            lone.answer(status, body);
        }
        let rejected = lone.replica.rejected().unwrap();
        assert_eq!(rejected[0].code, code);
        assert_eq!((pending(&lone), lone.shows("b")), (0, None));
    }
}

#[test]
fn other_refusals_wait_and_keep_everything() {
    for (status, wait, body) in [
        (503, Some(40), ""),
        (500, None, "{}"),
        (429, Some(40), "{}"),
        (403, None, "<html>blocked</html>"),
        (404, None, "<html>Cannot PATCH</html>"),
        (413, None, "<html>too large</html>"),
        (302, None, ""),
    ] {
        let mut lone = polling();
        lone.update("a", r#"{"n":5}"#);
        lone.answer(200, "[]");
        lone.sent();
        lone.answer_with(status, wait, body);
        assert!(lone.sent().is_empty(), "{status}");
        assert_eq!((pending(&lone), lone.replica.rejected().unwrap().len()), (1, 0));
        if let Some(wait) = wait {
            lone.pass(wait * 1000 - 1);
            assert!(lone.sent().is_empty(), "Retry-After is respected");
        }
        for _ in 0..20 {
            let at = lone.replica.deadline().unwrap().0;
            lone.pass(at.since(lone.now.mono).as_millis() as u64);
        }
        assert!(!lone.sent().is_empty(), "it is tried again");
    }
}

#[test]
fn a_missing_token_is_asked_for() {
    let mut lone = polling();
    lone.save("b", "{}");
    lone.answer(200, "[]");
    lone.answer(401, r#"{"error":"expired","code":"AUTH_EXPIRED"}"#);
    lone.sent();
    let (code, message) = (ErrorCode::AuthExpired, "expired".into());
    let needed = EventKind::TokenNeeded { code, message, by_server: true };
    assert!(lone.saw(|kind| *kind == needed));
    assert_eq!(pending(&lone), 1);
    lone.replica.command(lone.now, Command::SetToken(Token::new("t")), &mut lone.actions);
    assert!(!lone.sent().is_empty());
}

#[test]
fn a_reconcile_finds_what_was_deleted() {
    let mut lone = polling();
    lone.pass(315_000);
    assert_eq!(lone.sent(), [QUERY_SINCE]);
    lone.answer(200, "[]");
    assert!(lone.shows("a").is_some(), "a poll can't see that");
    let mut asked = Vec::new();
    while !asked.contains(&QUERY.to_string()) {
        let at = lone.replica.deadline().unwrap().0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        asked.extend(lone.sent());
        while !lone.tickets.is_empty() {
            lone.answer(200, "[]");
            asked.extend(lone.sent());
        }
    }
    assert!(lone.now.mono.0 < 1_000 + 3_600_000 + 320_000);
    assert_eq!(lone.shows("a"), None);
}

/// Returns the number of records that the app is asked about, if it is asked.
fn missing(lone: &LoneReplica) -> Option<u64> {
    lone.replica.status().collections[&todos()].missing
}

fn many() -> Vec<String> {
    (0..12).map(|n| format!("r{n:02}")).collect()
}

/// The server holds nothing.
fn answer_all(lone: &mut LoneReplica) {
    for _ in 0..10 {
        lone.sent();
        if !lone.tickets.is_empty() {
            lone.answer(200, "[]");
        }
    }
}

/// A client that polls a plain server which has lost its twelve records by the next reconcile.
fn emptied(config: ClientConfig) -> LoneReplica {
    let decision = config.on_server_loss.unwrap_or(OnServerLoss::Ask);
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.answer(404, r#"{"error":"no such collection"}"#);
    lone.sent();
    let ids = many();
    let all: Vec<_> = ids.iter().map(|id| (&**id, r#"{"n":1}"#, 30, 4)).collect();
    lone.answer(200, &rows(&all));
    lone.sent();
    let told = EventKind::RecordsMissing { collection: todos(), missing: 12, of: 12, decision };
    // up to the next reconcile, which comes after an hour
    for _ in 0..40 {
        if lone.saw(|kind| *kind == told) {
            break;
        }
        let at = lone.replica.deadline().unwrap().0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        answer_all(&mut lone);
    }
    lone.sent();
    lone
}

#[test]
fn an_emptied_plain_server_is_not_followed_before_the_app_has_said_so() {
    let mut lone = emptied(http_only());
    assert_eq!(missing(&lone), Some(12));
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "all is kept");
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.sent();
    answer_all(&mut lone);
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "also by the next poll");
    lone.replica.write(lone.now, Write::Adopt, &mut lone.actions).unwrap();
    answer_all(&mut lone);
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}

#[test]
fn what_an_emptied_plain_server_lacks_is_offered_to_it() {
    let mut lone = emptied(http_only());
    lone.replica.write(lone.now, Write::Offer, &mut lone.actions).unwrap();
    let mut posted = 0;
    for _ in 0..40 {
        for sent in lone.sent() {
            posted += usize::from(sent.starts_with("POST /sync/todos {\"recordId\":\"r"));
        }
        if lone.tickets.is_empty() {
            break;
        }
        lone.answer(200, if posted == 0 { "[]" } else { TAKEN });
    }
    assert_eq!(posted, 12);
    assert_eq!((missing(&lone), pending(&lone)), (None, 0));
    assert!(many().iter().all(|id| lone.shows(id).is_some()));
}

#[test]
fn an_emptied_plain_server_is_followed_where_it_was_said_so_before() {
    let adopt = Some(OnServerLoss::Adopt);
    let lone = emptied(ClientConfig { on_server_loss: adopt, ..http_only() });
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}

#[test]
fn an_emptied_plain_server_is_asked_about_over_a_websocket_alone() {
    let mut lone = connect(socket_only());
    let ids = many();
    let all: Vec<_> = ids.iter().map(|id| (&**id, r#"{"n":1}"#)).collect();
    lone.sent();
    lone.hear(&whole(&all));
    lone.hear(&whole(&[("new", "{}")]));
    assert_eq!(missing(&lone), Some(12));
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "all is kept");
    lone.sent();
    lone.replica.write(lone.now, Write::Adopt, &mut lone.actions).unwrap();
    assert_eq!(lone.sent(), [SYNC], "another look shows what it is about");
    lone.hear(&whole(&[("new", "{}")]));
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}

#[test]
fn a_page_that_is_no_page_takes_nothing_away() {
    let mut lone = polling();
    lone.pass(315_000);
    for body in ["<html>captive portal</html>", r#"{"ok":true}"#] {
        while lone.tickets.is_empty() {
            let at = lone.replica.deadline().unwrap().0;
            lone.pass(at.since(lone.now.mono).as_millis() as u64);
            lone.sent();
        }
        lone.answer(200, body);
        assert!(lone.shows("a").is_some());
        assert_eq!(lone.replica.status().transport, None);
    }
}

#[test]
fn what_is_read_is_remembered_over_a_restart() {
    let mut lone = polling();
    lone.make_durable();
    let store = lone.replica.into_store();
    let mut lone = LoneReplica::on(http_only(), store.clone());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    assert_eq!(lone.sent().last().unwrap(), QUERY_SINCE);
    let elsewhere = ClientConfig { address: "elsewhere".into(), ..http_only() };
    let mut lone = LoneReplica::on(elsewhere, store);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    assert_eq!(lone.sent().last().unwrap(), QUERY, "another server's stamps mean nothing");
}

// --- both ---

#[test]
fn a_write_by_websocket_is_confirmed_by_http() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    let sent = lone.sent();
    assert!(sent.len() == 1 && sent[0].starts_with(r#"{"type":"update""#), "{sent:?}");
    lone.pass(999);
    assert!(lone.sent().is_empty());
    lone.pass(1);
    assert_eq!(lone.sent(), [QUERY_SINCE]);
    assert_eq!(pending(&lone), 1);
    lone.answer(200, &rows(&[("a", r#"{"n":2,"t":"x"}"#, 40, 5)]));
    assert_eq!((pending(&lone), lone.sent().len()), (0, 0));
    assert!(!lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
}

#[test]
fn a_write_that_did_not_arrive_is_pushed_as_it_was() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    lone.save("b", r#"{"k":1}"#);
    lone.sent();
    lone.pass(1_000);
    lone.answer(200, &first_rows());
    let sent = lone.sent();
    assert!(
        sent[1].starts_with(r#"PATCH /sync/todos/a {"delta":{"n":2},"baseVersion":4"#),
        "{sent:?}"
    );
    lone.save("c", "{}");
    assert!(lone.sent().is_empty(), "nothing overtakes it by WebSocket");
    lone.answer(200, TAKEN);
    assert!(lone.sent()[0].starts_with(r#"POST /sync/todos {"recordId":"b""#));
    lone.answer(200, TAKEN);
    assert!(lone.sent()[0].contains(r#""recordId":"c""#), "then the WebSocket goes on");
    assert_eq!(pending(&lone), 1);
}

#[test]
fn a_write_that_was_overtaken_goes_through_the_strategy() {
    let strategy = ConflictStrategy::ClientWins;
    let mut lone = live_both_with(ClientConfig { conflict_strategy: strategy, ..both() });
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.pass(1_000);
    lone.answer(200, &rows(&[("a", r#"{"n":9,"t":"x"}"#, 40, 6)]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    let sent = lone.sent();
    let again = sent.last().unwrap();
    assert!(again.starts_with(r#"{"type":"update""#) && again.contains(r#""n":2"#), "{sent:?}");
    assert!(lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
}

#[test]
fn a_delete_is_confirmed_by_a_delete() {
    let mut lone = live_both();
    lone.replica.write(lone.now, Write::Delete(todos(), id("a")), &mut lone.actions).unwrap();
    assert!(lone.sent()[0].starts_with(r#"{"type":"delete""#));
    lone.pass(1_000);
    lone.answer(200, "[]");
    assert_eq!(lone.sent()[1], "DELETE /sync/todos/a");
    for _ in 0..2 {
        lone.answer(404, "");
        assert_eq!((pending(&lone), lone.sent()), (1, vec![QUERY_SINCE.to_string()]));
        lone.answer(200, "[]");
        assert_eq!(lone.sent(), ["DELETE /sync/todos/a"]);
    }
    lone.answer(404, "");
    assert_eq!((pending(&lone), lone.shows("a")), (0, None));
}

#[test]
fn a_page_does_not_show_what_was_before_a_change_that_came_meanwhile() {
    let mut lone = live_both();
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert_eq!(lone.sent()[1], QUERY_SINCE);
    lone.hear(&frame("update", "a", r#"{"n":8}"#));
    lone.answer(200, &first_rows());
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":8,"t":"x"}"#);
    lone.pass(5_000);
    assert_eq!(lone.sent(), [QUERY_SINCE], "and is read again");
    lone.answer(200, &rows(&[("a", r#"{"n":8,"t":"x"}"#, 40, 5)]));
    assert!(lone.sent().is_empty());
}

#[test]
fn after_a_cut_what_may_have_arrived_is_read_before_anything_is_sent() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    lone.save("b", "{}");
    lone.cut();
    lone.save("c", "{}");
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.sent();
    lone.hear(PONG);
    assert_eq!(lone.sent(), [QUERY_SINCE]);
    lone.answer(200, &rows(&[("a", r#"{"n":2,"t":"x"}"#, 40, 5)]));
    assert!(lone.sent()[0].starts_with(r#"POST /sync/todos {"recordId":"b""#));
    lone.answer(200, TAKEN);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""type":"insert""#) && sent[0].contains(r#""recordId":"c""#));
    assert_eq!(sent.len(), 1);
}

#[test]
fn where_http_fails_the_websocket_goes_on() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.pass(1_000);
    lone.resolve(HttpAnswer::Failed("refused".into()));
    lone.save("b", "{}");
    assert!(lone.sent().iter().any(|line| line.contains(r#""type":"insert""#)));
    assert_eq!(pending(&lone), 2);
    lone.pass(5_000);
    assert_eq!(lone.sent(), [QUERY_SINCE], "and is tried again");
    let found = rows(&[("a", r#"{"n":2,"t":"x"}"#, 40, 5), ("b", "{}", 41, 1)]);
    lone.answer(200, &found);
    assert_eq!(pending(&lone), 0);
}

#[test]
fn the_backup_of_a_plain_connection_is_a_poll() {
    let mut lone = live_both();
    let end = lone.now.mono.0 + 300_000;
    let mut sent = Vec::new();
    while lone.now.mono.0 < end {
        let at = lone.replica.deadline().unwrap().0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        sent = lone.sent();
        if sent == [r#"{"type":"ping"}"#] {
            lone.hear(PONG);
        }
    }
    assert_eq!(sent, [QUERY_SINCE]);
}

#[test]
fn offline_writes_arrive_whichever_way_opens_first() {
    let mut lone = LoneReplica::new(both());
    lone.save("b", "{}");
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.pass(3_000);
    let sent = lone.sent();
    assert!(sent[0].starts_with("POST /sync/session"), "the WebSocket takes long: {sent:?}");
    lone.answer(404, "");
    lone.answer(200, "[]");
    assert!(lone.sent().last().unwrap().starts_with("POST /sync/todos "));
    lone.answer(200, TAKEN);
    assert_eq!(pending(&lone), 0);
    assert_eq!(lone.shows("b").unwrap(), doc("{}").to_string());
}

#[test]
fn an_own_write_that_a_conflict_has_replaced_is_nobody_elses_change() {
    let strategy = ConflictStrategy::ServerWins;
    let mut lone = connect(ClientConfig { conflict_strategy: strategy, ..socket_only() });
    lone.hear(&whole(&[("a", r#"{"n":1,"t":"x"}"#)]));
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.cut();
    lone.update("a", r#"{"n":3}"#);
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    // the first has arrived, the second was never sent
    lone.hear(&whole(&[("a", r#"{"n":2,"t":"x"}"#)]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":3,"t":"x"}"#);
    assert!(lone.sent().iter().any(|line| line.contains(r#""n":3"#)));
    assert!(!lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
}

#[test]
fn a_write_by_http_that_comes_back_late_is_not_shown() {
    let mut lone = live_both();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.pass(1_000);
    lone.answer(200, &first_rows());
    lone.answer(200, "{}");
    lone.update("a", r#"{"n":3}"#);
    lone.sent();
    // the server tells every socket of what came by HTTP
    lone.hear(&frame("update", "a", r#"{"n":2}"#));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":3,"t":"x"}"#);
    lone.pass(1_000);
    lone.answer(200, &rows(&[("a", r#"{"n":3,"t":"x"}"#, 40, 6)]));
    lone.pass(6_000);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":3,"t":"x"}"#);
    assert_eq!(pending(&lone), 0);
}

#[test]
fn a_whole_collection_that_leaves_something_out_is_asked_for_again() {
    let mut lone = live();
    lone.hear(&frame("update", "unknown", "{}"));
    assert_eq!(lone.sent(), [SYNC]);
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.hear(&whole(&[("a", r#"{"n":1,"t":"x"}"#)]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    pong_frame(&mut lone);
    lone.pass(5_000);
    assert_eq!(lone.sent(), [SYNC]);
}
