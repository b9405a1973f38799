//! The client's exchanges by HTTP, as transcripts.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use std::time::Duration;

use synclayer_core::{
    ClientConfig, Command, ConflictStrategy, ConnectionState, Disconnect, ErrorCode, EventKind,
    Guarantees, HttpAnswer, Input, Timer, Token, Transport, Write,
};

use lone_replica::{LoneReplica, change, config, synced, todos};

/// A client that has HTTP only.
fn polling() -> ClientConfig {
    ClientConfig { websocket: false, http: true, ..config() }
}

/// A client that has both.
fn both() -> ClientConfig {
    ClientConfig { http: true, ..config() }
}

fn pong(last: u64, digest: &str) -> String {
    let digest =
        if digest.is_empty() { String::new() } else { format!(",\"lastDigest\":\"{digest}\"") };
    format!(
        r#"{{"type":"pong","metadata":{{"protocol":2,"epoch":"e1","lastMutation":{last}{digest}}}}}"#
    )
}

/// A page that was asked with `from`, for a client whose last mutation is `last`.
fn page(from: &str, last: u64, messages: &[&str]) -> String {
    let messages = messages.join(",");
    format!(
        r#"{{"type":"batch","metadata":{{"epoch":"e1","from":{{{from}}},"lastMutation":{last}}},"messages":[{messages}]}}"#
    )
}

fn subscribed(mode: &str, head: u64) -> String {
    format!(
        r#"{{"type":"subscribed","collection":"todos","metadata":{{"head":{head},"mode":"{mode}"}}}}"#
    )
}

const SYNC_A: &str = r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1,"t":"x"},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#;

/// The whole collection, with one record, `a` at seq 5.
fn first_page() -> String {
    let synced = synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]);
    page("", 0, &[&subscribed("snapshot", 5), SYNC_A, &synced])
}

/// A page that says that nothing is new above seq 5.
fn quiet_page(last: u64) -> String {
    let synced = synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]);
    page(r#""epoch":"e1","seq":5"#, last, &[&subscribed("delta", 5), &synced])
}

fn verdicts(last: u64, messages: &[&str]) -> String {
    let messages = messages.join(",");
    format!(r#"{{"type":"batch","metadata":{{"lastMutation":{last}}},"messages":[{messages}]}}"#)
}

/// An ack out of place: the record as the write has left it.
fn echo(number: u64, record: &str, data: &str, seq: u64) -> String {
    format!(
        r#"{{"type":"ack","collection":"todos","recordId":"{record}","data":{data},"metadata":{{"mutation":{number},"kind":"update","recordSeq":{seq},"version":4,"updatedAt":"2026-01-01T00:00:00Z"}}}}"#
    )
}

/// A client in step by HTTP, with nothing to do.
fn idle_with(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.answer(200, &pong(0, ""));
    lone.sent();
    lone.answer(200, &first_page());
    assert!(lone.sent().is_empty());
    lone
}

fn idle() -> LoneReplica {
    idle_with(polling())
}

#[test]
fn greets_pulls_and_pushes() {
    let mut lone = LoneReplica::new(polling());
    lone.save("b", r#"{"n":2}"#);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    let client = lone.replica.status().client_id;
    assert_eq!(
        lone.sent(),
        [format!(r#"POST /sync/session {{"clientId":"{client}","session":1}}"#)]
    );
    lone.answer(200, &pong(0, ""));
    assert_eq!(lone.sent(), [format!("GET /sync/todos?epoch=&clientId={client}")]);
    lone.answer(200, &first_page());
    let sent = lone.sent();
    let push = format!(
        r#"POST /sync/push {{"clientId":"{client}","session":1,"epoch":"e1","mutations":[{{"type":"insert","collection":"todos","recordId":"b","data":{{"n":2}},"#
    );
    assert!(sent[0].starts_with(&push), "{sent:?}");
    assert!(sent[0].contains(r#""mutation":1"#) && sent[0].contains(r#""base":5"#), "{sent:?}");
    assert_eq!(lone.replica.status().pending_writes, 1);
    lone.answer(200, &verdicts(1, &[&echo(1, "b", r#"{"n":2}"#, 6)]));
    assert!(lone.sent().is_empty());
    let status = lone.replica.status();
    assert_eq!(status.pending_writes, 0);
    assert_eq!(status.transport, Some(Transport::Http));
    assert_eq!(status.connection, ConnectionState::Connected);
    assert_eq!(status.guarantees, Some(Guarantees::ALL));
    assert_eq!(lone.replica.standing(&todos()), (false, false));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
    assert!(lone.events.iter().all(|event| event.transport != Some(Transport::WebSocket)));
    assert!(lone.saw(|kind| *kind == EventKind::ConnectivityChanged { online: true }));
}

#[test]
fn an_idle_poll_is_one_small_request() {
    let mut lone = idle();
    let client = lone.replica.status().client_id;
    let (at, timer) = lone.replica.deadline().unwrap();
    assert_eq!(timer, Timer::Poll);
    let wait = at.since(lone.now.mono);
    assert!(wait >= Duration::from_secs(300) && wait <= Duration::from_secs(315), "{wait:?}");
    lone.pass(315_000);
    assert_eq!(lone.sent(), [format!("GET /sync/todos?epoch=e1&seq=5&clientId={client}")]);
    lone.answer(200, &quiet_page(0));
    assert!(lone.sent().is_empty());
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Poll);
}

#[test]
fn a_local_write_starts_an_exchange_at_once() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    assert!(lone.sent()[0].contains(r#""session":2"#), "a session is never used twice");
    lone.update("a", r#"{"n":3}"#);
    assert!(lone.sent().is_empty(), "one request at a time");
    lone.answer(200, &pong(0, ""));
    lone.answer(200, &quiet_page(0));
    let push = lone.sent().pop().unwrap();
    assert!(push.contains(r#""data":{"n":3}"#), "joined, as it was not sent before: {push}");
    lone.update("a", r#"{"t":"y"}"#);
    assert_eq!(lone.replica.status().pending_writes, 2, "what was sent is joined by nothing");
    lone.answer(200, &verdicts(1, &[&echo(1, "a", r#"{"n":3}"#, 6)]));
    let push = lone.sent().pop().unwrap();
    assert!(push.contains(r#""mutation":2,"base":6"#), "{push}");
    lone.answer(200, &verdicts(2, &[&echo(2, "a", r#"{"t":"y"}"#, 7)]));
    assert!(lone.sent().is_empty());
    // its own writes come back and are no news
    lone.pass(315_000);
    let synced = synced("e1", 7, &[("a", 7, r#"{"n":3,"t":"y"}"#)]);
    let own = change("update", "a", r#"{"n":3,"t":"y"}"#, 7, "2026-01-01T00:00:00Z");
    let from = r#""epoch":"e1","seq":5"#;
    lone.answer(200, &page(from, 2, &[&subscribed("delta", 7), &own, &synced]));
    lone.sent();
    assert!(
        !lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. }))
            && !lone.saw(|kind| matches!(kind, EventKind::ChecksumMismatch { .. }))
    );
    assert_eq!(lone.replica.status().collections[&todos()].cursor.as_ref().unwrap().seq.0, 7);
}

#[test]
fn a_conflict_is_resolved_and_pushed_under_the_same_number() {
    let strategy = ConflictStrategy::ClientWins;
    let mut lone = idle_with(ClientConfig { conflict_strategy: strategy, ..polling() });
    lone.update("a", r#"{"n":2}"#);
    lone.answer_all(&[&pong(0, ""), &quiet_page(0)]);
    lone.sent();
    let conflict = r#"{"type":"error","code":"CONFLICT","error":"changed","metadata":{"mutation":1,"collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":9,"t":"x"},"version":6,"updatedAt":"2026-01-01T00:00:00Z"}}}"#;
    lone.answer(200, &verdicts(0, &[conflict]));
    let sent = lone.sent();
    assert!(sent[0].contains(r#""data":{"n":2}"#), "{sent:?}");
    assert!(sent[0].contains(r#""mutation":1,"base":6"#), "{sent:?}");
    let conflict = lone
        .events
        .iter()
        .find(|it| matches!(it.kind, EventKind::ConflictDetected { .. }))
        .unwrap();
    assert_eq!(conflict.transport, Some(Transport::Http));
    lone.answer(200, &verdicts(1, &[&echo(1, "a", r#"{"n":2}"#, 7)]));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
}

#[test]
fn a_lost_answer_to_a_push_is_made_up_for_by_the_next_hello() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    lone.answer_all(&[&pong(0, ""), &quiet_page(0)]);
    let push = lone.sent().pop().unwrap();
    let write = push.split_once(r#""mutations":["#).unwrap().1;
    let digest = LoneReplica::digest_of(write.strip_suffix("]}").unwrap());
    lone.resolve(HttpAnswer::Failed("the connection broke".into()));
    lone.update("a", r#"{"n":3}"#);
    assert_eq!(lone.replica.status().pending_writes, 2, "what may have been sent is not joined");
    assert!(lone.sent().is_empty(), "it waits a while");
    lone.pass(1_000);
    assert!(lone.sent()[0].contains(r#""session":3"#));
    lone.answer(200, &pong(1, &digest));
    assert_eq!(lone.replica.status().pending_writes, 1);
    let own = change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z");
    let synced = synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]);
    let from = r#""epoch":"e1","seq":5"#;
    lone.answer(200, &page(from, 1, &[&subscribed("delta", 6), &own, &synced]));
    let push = lone.sent().pop().unwrap();
    assert!(push.contains(r#""mutation":2,"base":6"#), "{push}");
    assert!(
        !lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })),
        "its own write is no conflict"
    );
}

#[test]
fn a_page_that_continues_something_else_is_dropped() {
    for foreign in [
        quiet_page(0)
            .replace(r#""from":{"epoch":"e1","seq":5}"#, r#""from":{"epoch":"e1","seq":4}"#),
        quiet_page(7),
        quiet_page(0)
            .replace(r#""metadata":{"epoch":"e1","from"#, r#""metadata":{"epoch":"e2","from"#),
    ] {
        let mut lone = idle();
        lone.pass(315_000);
        lone.sent();
        lone.answer(200, &foreign);
        let sent = lone.sent();
        assert!(sent[0].starts_with("POST /sync/session"), "begins anew, with a hello: {sent:?}");
        lone.answer_all(&[&pong(0, ""), &foreign]);
        assert_eq!(lone.sent().len(), 1, "a pull");
        assert!(lone.tickets.is_empty(), "the second time it is an error, and waits");
        assert!(lone.events.iter().any(|it| matches!(it.kind, EventKind::Error { .. })));
    }
}

#[test]
fn a_long_catch_up_is_pulled_page_by_page() {
    let mut lone = LoneReplica::new(polling());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    lone.sent();
    let one = r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"seq":5}]},"metadata":{"upTo":"a","snapshotSeq":5}}"#;
    lone.answer(200, &page("", 0, &[&subscribed("snapshot", 5), one]));
    let sent = lone.sent();
    assert!(sent[0].contains("epoch=&resume=snapshot%3Ae1%3A5%3Aa&"), "{sent:?}");
    assert_eq!(lone.replica.standing(&todos()), (true, true));
    let two = r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"b","data":{"n":2},"seq":4}]},"metadata":{"after":"a","snapshotSeq":5}}"#;
    let from = r#""resume":{"epoch":"e1","snapshotSeq":5,"after":"a"}"#;
    lone.answer(200, &page(from, 0, &[&subscribed("snapshot", 6), two]));
    assert!(lone.sent()[0].contains("epoch=e1&seq=5&clientId"));
    let news = change("insert", "c", r#"{"n":3}"#, 6, "2026-01-01T00:00:00Z");
    let records = [("a", 5, r#"{"n":1}"#), ("b", 4, r#"{"n":2}"#), ("c", 6, r#"{"n":3}"#)];
    let synced = synced("e1", 6, &records);
    let from = r#""epoch":"e1","seq":5"#;
    lone.answer(200, &page(from, 0, &[&subscribed("delta", 6), &news, &synced]));
    assert!(lone.sent().is_empty());
    assert_eq!(lone.replica.standing(&todos()), (false, false));
    let started =
        lone.events.iter().filter(|it| matches!(it.kind, EventKind::SyncStarted { .. })).count();
    assert_eq!(started, 1);
}

#[test]
fn a_page_that_brings_nothing_further_ends_the_exchange() {
    let mut lone = idle();
    lone.pass(315_000);
    lone.answer(200, &page(r#""epoch":"e1","seq":5"#, 0, &[&subscribed("delta", 5)]));
    lone.sent();
    assert!(lone.tickets.is_empty());
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Poll);
}

#[test]
fn a_websocket_that_comes_up_takes_over_in_mid_exchange() {
    let mut lone = LoneReplica::new(both());
    lone.save("b", r#"{"n":2}"#);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.pass(3_000);
    assert!(lone.sent()[0].starts_with("POST /sync/session"), "it takes long: HTTP is turned to");
    lone.answer(200, &pong(0, ""));
    lone.answer(200, &first_page());
    assert!(lone.sent()[1].starts_with("POST /sync/push"));
    assert_eq!(lone.replica.status().transport, Some(Transport::Http));
    lone.conn.0 = 1;
    lone.replica.handle(lone.now, Input::Connected { conn: lone.conn }, &mut lone.actions);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""session":2"#), "{sent:?}");
    let late = lone.replica.status().ignored_frames;
    lone.answer(200, &verdicts(1, &[&echo(1, "b", r#"{"n":2}"#, 6)]));
    assert_eq!(lone.replica.status().ignored_frames, late + 1, "the answer is late");
    assert_eq!(lone.replica.status().pending_writes, 1);
    lone.update("b", r#"{"n":3}"#);
    assert_eq!(lone.replica.status().pending_writes, 2, "frozen until the hello has its answer");
    lone.welcome(0, "");
    assert_eq!(lone.replica.status().transport, Some(Transport::WebSocket));
    lone.cut();
    assert!(lone.sent().iter().all(|line| !line.starts_with("GET")), "not yet by HTTP");
    lone.pass(1_000);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.conn.0 = 2;
    lone.cut();
    assert!(lone.sent()[1].starts_with("POST /sync/session"), "but once a try has failed");
}

#[test]
fn a_token_is_asked_for_and_nothing_is_dropped() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.answer(401, r#"{"error":"too old","code":"AUTH_EXPIRED"}"#);
    assert!(lone.sent().is_empty());
    let needed = lone.events.iter().find_map(|event| match &event.kind {
        EventKind::TokenNeeded { code, .. } => Some((code.clone(), event.transport)),
        _ => None,
    });
    assert_eq!(needed, Some((ErrorCode::AuthExpired, Some(Transport::Http))));
    assert_eq!(lone.replica.status().connection, ConnectionState::Reconnecting);
    let mut tries = Vec::new();
    for _ in 0..12 {
        let (at, _) = lone.replica.deadline().expect("no answer stops it for good");
        tries.push(at.since(lone.now.mono));
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        assert!(lone.sent()[0].starts_with("POST /sync/session"));
        lone.answer(401, "<html>log in</html>");
        assert!(lone.sent().is_empty());
    }
    assert!(tries.iter().all(|wait| *wait <= Duration::from_secs(60)), "{tries:?}");
    lone.replica.command(lone.now, Command::SetToken(Token::new("fresh")), &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    assert_eq!(lone.tickets[0].request().token, Some(Token::new("fresh")));
    assert_eq!(lone.replica.status().pending_writes, 1);
}

#[test]
fn what_is_refused_is_told_and_tried_again_later() {
    let html = "<html>bad gateway</html>";
    for (status, wait, body) in [
        (500, None, r#"{"error":"oh","code":"SERVER_ERROR"}"#),
        (502, None, html),
        (200, None, html),
        (403, None, html),
        (404, None, html),
        (429, Some(70), r#"{"error":"slow down","code":"RATE_LIMIT_EXCEEDED"}"#),
        (503, Some(70), html),
    ] {
        let mut lone = idle();
        lone.update("a", r#"{"n":2}"#);
        lone.sent();
        lone.answer_with(status, wait, body);
        assert!(lone.sent().is_empty(), "{status}");
        assert!(
            lone.events.iter().any(|event| matches!(
                event.kind,
                EventKind::Error { .. } | EventKind::TokenNeeded { .. }
            ) && event.transport == Some(Transport::Http)),
            "{status}"
        );
        assert!(lone.saw(|kind| *kind == EventKind::ConnectivityChanged { online: false }));
        let at_least = wait.unwrap_or(0);
        let (at, timer) = lone.replica.deadline().unwrap();
        let waits = at.since(lone.now.mono);
        assert_eq!(timer, Timer::Poll);
        assert!(waits >= Duration::from_secs(at_least), "{status}: {waits:?}");
        assert!(waits <= Duration::from_secs(at_least + 1), "{status}: {waits:?}");
        lone.pass(1_000 + at_least * 1_000);
        assert!(lone.sent()[0].starts_with("POST /sync/session"));
        assert_eq!(lone.replica.status().pending_writes, 1);
    }
}

#[test]
fn a_request_without_an_answer_is_given_up() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Request);
    lone.pass(32_000);
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Poll);
    lone.pass(1_000);
    lone.sent();
    assert_eq!(lone.tickets.len(), 2, "it asks again");
    let late = lone.replica.status().ignored_frames;
    lone.answer(200, &pong(0, ""));
    assert_eq!(lone.replica.status().ignored_frames, late + 1);
}

#[test]
fn a_push_that_is_too_large_is_made_smaller() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    for record in ["b", "c", "d"] {
        lone.save(record, r#"{"n":2}"#);
    }
    lone.answer_all(&[&pong(0, ""), &quiet_page(0)]);
    lone.sent();
    for left in [2, 1] {
        lone.answer(413, "<html>too large</html>");
        let sent = lone.sent();
        assert!(sent[0].starts_with("POST /sync/session"), "{sent:?}");
        lone.answer(200, &pong(0, ""));
        let sent = lone.sent();
        assert_eq!(sent[0].matches(r#""mutation":"#).count(), left, "{sent:?}");
    }
    // a single one waits: nobody has said anything of it
    for n in 0..6 {
        lone.answer(413, r#"{"error":"too large","code":"PAYLOAD_TOO_LARGE"}"#);
        assert!(lone.sent()[0].starts_with("POST /sync/session"), "{n}");
        lone.answer(200, &pong(0, ""));
        assert!(lone.sent().is_empty(), "{n}");
        let (at, timer) = lone.replica.deadline().unwrap();
        assert_eq!(timer, Timer::Poll);
        if n == 5 {
            break;
        }
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        lone.answer(200, &pong(0, ""));
        lone.answer(200, &quiet_page(0));
        lone.sent();
    }
    assert_eq!(lone.replica.rejected().unwrap().len(), 0);
    assert_eq!(lone.replica.status().pending_writes, 4);
    let stalled = lone.events.iter().find_map(|event| match &event.kind {
        EventKind::WriteStalled { write, code, .. } => Some((*write, code.clone())),
        _ => None,
    });
    let (write, code) = stalled.expect("it is told");
    assert_eq!(code, ErrorCode::PayloadTooLarge);
    lone.replica.write(lone.now, Write::RejectStalled(write), &mut lone.actions).unwrap();
    assert_eq!(lone.replica.rejected().unwrap()[0].code, ErrorCode::PayloadTooLarge);
}

#[test]
fn a_write_that_the_server_cannot_take_now_is_pushed_again_later() {
    let mut lone = idle();
    lone.update("a", r#"{"n":2}"#);
    lone.answer_all(&[&pong(0, ""), &quiet_page(0)]);
    lone.sent();
    let error = r#"{"type":"error","code":"RATE_LIMIT_EXCEEDED","error":"slow","metadata":{"mutation":1,"retryAfterMs":20000}}"#;
    lone.answer(200, &verdicts(0, &[error]));
    assert!(lone.sent().is_empty());
    let (at, timer) = lone.replica.deadline().unwrap();
    assert_eq!(timer, Timer::Poll);
    let wait = at.since(lone.now.mono);
    assert!(wait >= Duration::from_secs(20) && wait <= Duration::from_secs(25), "{wait:?}");
    lone.save("b", r#"{"n":1}"#);
    assert!(lone.sent().is_empty());
    lone.pass(25_000);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
}

#[test]
fn a_collection_that_is_refused_does_not_hold_the_others_up() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = polling();
    config.collections.insert(0, notes.clone());
    let mut lone = LoneReplica::new(config);
    lone.save("b", r#"{"n":2}"#);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    assert!(lone.sent().pop().unwrap().starts_with("GET /sync/notes?"));
    lone.answer(403, r#"{"error":"not yours","code":"UNAUTHORIZED"}"#);
    assert!(lone.sent()[0].starts_with("GET /sync/todos?"));
    lone.answer(200, &first_page());
    assert!(lone.sent()[0].starts_with("POST /sync/push"));
    let failed = lone.events.iter().find(|it| matches!(it.kind, EventKind::SyncFailed { .. }));
    assert_eq!(failed.unwrap().kind.collection(), Some(&notes));
}

/// A pong of a server that has pages by `POST /sync/pull`.
fn pong_with_pull() -> String {
    pong(0, "").replace(r#""lastMutation""#, r#""features":["pull","later"],"lastMutation""#)
}

#[test]
fn names_travel_in_bodies_where_the_server_offers_it() {
    let name = |name| synclayer_core::Collection::new(name).unwrap();
    let mut config = polling();
    config.collections = ["..", "a/b", "todos"].map(name).to_vec();
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(200, &pong_with_pull());
    for collection in ["..", "a/b", "todos"] {
        let asked = lone.sent().pop().unwrap();
        let head = format!(r#"POST /sync/pull {{"collection":"{collection}","clientId":"#);
        assert!(asked.starts_with(&head), "{asked}");
        lone.answer(200, &first_page().replace("todos", collection));
    }
    // an idle poll goes the same way, with its cursor
    lone.pass(315_000);
    let asked = lone.sent().pop().unwrap();
    let head = r#"POST /sync/pull {"collection":"..","cursor":{"epoch":"e1","seq":5},"clientId":"#;
    assert!(asked.starts_with(head), "{asked}");
    // the server is another one, of an earlier version: the hello tells, and paths have to do
    lone.answer(400, r#"{"error":"`recordId` is missing","code":"INVALID_MESSAGE"}"#);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    lone.answer(200, &pong(0, ""));
    assert!(lone.sent()[0].starts_with("GET /sync/a%2Fb?epoch=e1&seq=5"));
}

/// A replica of three collections, of which one's page is answered otherwise.
fn one_page_is_answered(status: u16, body: &str) -> LoneReplica {
    let name = |name| synclayer_core::Collection::new(name).unwrap();
    let mut config = polling();
    config.collections.insert(0, name("notes"));
    let mut lone = LoneReplica::new(config);
    lone.save("b", r#"{"n":2}"#);
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    lone.sent();
    lone.answer(status, body);
    lone
}

#[test]
fn whatever_is_answered_for_one_collection_the_others_go_on() {
    for (status, body) in [
        (400, r#"{"error":"?","code":"INVALID_MESSAGE"}"#),
        (401, "<html>log in</html>"),
        (403, "<html>blocked</html>"),
        (404, r#"{"error":"there is nothing here","code":"INVALID_MESSAGE"}"#),
        (405, r#"{"error":"?","code":"INVALID_MESSAGE"}"#),
        (413, r#"{"error":"?","code":"PAYLOAD_TOO_LARGE"}"#),
        (500, ""),
        (502, "<html>bad gateway</html>"),
        (200, "<html>log in</html>"),
    ] {
        let mut lone = one_page_is_answered(status, body);
        let sent = lone.sent();
        assert!(sent[0].contains("todos"), "{status} {body}: {sent:?}");
        lone.answer(200, &first_page());
        assert!(lone.sent()[0].starts_with("POST /sync/push"), "{status} {body}");
        let echo = echo(1, "b", r#"{"n":2}"#, 6);
        lone.answer(200, &verdicts(1, &[&echo]));
        let sent = lone.sent();
        assert!(sent.is_empty(), "not in step, and not at once again: {status} {sent:?}");
        let wait = lone.replica.deadline().unwrap().0.since(lone.now.mono);
        assert!(wait <= Duration::from_secs(65), "it is tried again soon: {wait:?}");
    }
}

#[test]
fn where_the_first_page_fails_a_hello_finds_out_whether_the_server_is_there() {
    let mut lone = idle();
    lone.pass(315_000);
    lone.sent();
    lone.answer(502, "<html>bad gateway</html>");
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    lone.answer(502, "<html>bad gateway</html>");
    assert!(lone.sent().is_empty());
    assert_eq!(lone.replica.status().transport, None);
}

#[test]
fn a_pull_that_is_never_answered_does_not_hold_the_others_up() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = polling();
    config.collections.insert(0, notes);
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let mut others = 0;
    for _ in 0..8 {
        while lone.tickets.is_empty() {
            let at = lone.replica.deadline().unwrap().0;
            lone.pass(at.since(lone.now.mono).as_millis() as u64);
            lone.sent();
        }
        let path = lone.tickets[0].request().path.clone();
        let body = lone.tickets[0].request().body.clone().unwrap_or_default();
        let about = |name: &str| {
            path.contains(name) || String::from_utf8_lossy(&body).contains(&format!("\"{name}\""))
        };
        if path == "/sync/session" {
            lone.answer(200, &pong(0, ""));
        } else if about("notes") {
            lone.resolve(HttpAnswer::Failed("the answer is too large".into()));
        } else {
            others += 1;
            lone.answer(200, &first_page());
        }
        lone.sent();
    }
    assert!(others > 0);
}

#[test]
fn synced_is_answered_by_an_exchange_that_begins_after_it() {
    let mut lone = idle();
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("GET /sync/todos"));
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.answer(200, &quiet_page(0));
    let sent = lone.sent();
    assert_eq!(sent[0], "SYNCED 0");
    assert!(sent[1].starts_with("GET /sync/todos"), "the second call came too late: {sent:?}");
    lone.answer(200, &quiet_page(0));
    assert_eq!(lone.sent(), ["SYNCED 1"]);
}

#[test]
fn synced_waits_for_a_collection_that_can_not_be_pulled_now() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = polling();
    config.collections.insert(0, notes);
    let subscribed =
        r#"{"type":"subscribed","collection":"notes","metadata":{"head":0,"mode":"snapshot"}}"#;
    let sync = r#"{"type":"sync","collection":"notes","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#;
    let synced = synced("e1", 0, &[]).replace("todos", "notes");
    let all = page("", 0, &[subscribed, sync, &synced]);
    let subscribed = subscribed.replace("snapshot", "delta");
    let quiet = page(r#""epoch":"e1","seq":0"#, 0, &[&subscribed, &synced]);
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, ""), &all, &first_page()]);
    lone.sent();
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.answer(200, &quiet);
    lone.sent();
    lone.answer(504, "");
    assert!(lone.sent().is_empty(), "todos were not pulled");
    let (at, _) = lone.replica.deadline().unwrap();
    let wait = at.since(lone.now.mono);
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2), "{wait:?}");
    lone.pass(2_000);
    lone.answer_all(&[&pong(0, ""), &quiet, &quiet_page(0)]);
    assert!(lone.sent().contains(&"SYNCED 0".to_owned()));
}

#[test]
fn without_auto_sync_only_calls_start_an_exchange() {
    let mut lone = LoneReplica::new(ClientConfig { enable_auto_sync: false, ..polling() });
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.save("b", r#"{"n":2}"#);
    assert!(lone.sent().is_empty());
    assert_eq!(lone.replica.deadline(), None);
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
}

#[test]
fn sync_now_ends_a_wait() {
    let mut lone = idle();
    lone.pass(315_000);
    lone.resolve(HttpAnswer::Failed("cut".into()));
    lone.sent();
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
}

#[test]
fn without_a_network_nothing_is_tried() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.replica.command(lone.now, Command::SetOnline(false), &mut lone.actions);
    assert_eq!(lone.sent(), ["CLOSE"]);
    assert_eq!(lone.replica.deadline(), None);
    assert_eq!(lone.replica.status().connection, ConnectionState::Disconnected);
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    lone.save("b", r#"{"n":2}"#);
    assert!(lone.sent().is_empty());
    lone.replica.command(lone.now, Command::SetOnline(true), &mut lone.actions);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.conn.0 = 2;
    lone.cut();
    assert!(lone.sent()[1].starts_with("POST /sync/session"));
    lone.replica.command(lone.now, Command::SetOnline(false), &mut lone.actions);
    assert_eq!(lone.replica.deadline(), None);
    let late = lone.replica.status().ignored_frames;
    lone.answer(200, &pong(0, ""));
    assert_eq!(lone.replica.status().ignored_frames, late + 1);
}

#[test]
fn a_live_connection_is_proved_right_now_and_then() {
    let mut lone = LoneReplica::live();
    let ask =
        r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":6}}}"#;
    lone.hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z"));
    let sent = lone.stay_alive(300_000);
    assert_eq!(sent, [ask], "something has come since the last proof");
    assert!(lone.replica.status().collections[&todos()].live, "nothing to see for the app");
    lone.hear(&subscribed("delta", 6));
    assert!(!lone.replica.status().collections[&todos()].catching_up);
    lone.hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    assert_eq!(lone.stay_alive(3_000_000), [""; 0], "nothing has come: no need yet");
    assert_eq!(lone.stay_alive(300_000), [ask], "but once an hour");
    lone.hear(&subscribed("delta", 6));
    lone.hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert_eq!(lone.sent(), ["PING", ask], "or at once");
}

#[test]
fn used_up_tries_leave_polling_and_a_slow_pace() {
    let mut lone = LoneReplica::new(ClientConfig { max_reconnect_attempts: Some(2), ..both() });
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    let mut dialled = 0;
    let mut waits = Vec::new();
    for _ in 0..400 {
        for line in lone.sent() {
            if line == "CONNECT" {
                dialled += 1;
                waits.push(lone.now.mono);
                lone.conn.0 = dialled;
                let why = Disconnect::Refused { status: 426, retry_after: None, body: Vec::new() };
                let input = Input::Disconnected { conn: lone.conn, why };
                lone.replica.handle(lone.now, input, &mut lone.actions);
            } else if line.starts_with("POST") {
                lone.answer(200, &pong(0, ""));
            } else if line.contains("seq=5") {
                lone.answer(200, &quiet_page(0));
            } else if line.starts_with("GET") {
                lone.answer(200, &first_page());
            }
        }
        let (at, _) = lone.replica.deadline().unwrap();
        if at.0 > 3_600_000 {
            break;
        }
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
    }
    assert!(
        (8..=10).contains(&dialled),
        "three tries, then one about every ten minutes: {waits:?}"
    );
    assert_eq!(lone.replica.status().transport, Some(Transport::Http));
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent().contains(&"CONNECT".to_string()), "at once when the app asks");
}

#[test]
fn what_the_app_requires_is_offered_or_nothing_is_sent() {
    let verified = Guarantees { verified: true, ..Guarantees::default() };
    let mut lone = LoneReplica::new(ClientConfig { required: verified, ..polling() });
    lone.save("b", r#"{"n":2}"#);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    let partial = r#"{"type":"subscribed","collection":"todos","metadata":{"mode":"snapshot","head":5,"partial":true}}"#;
    lone.answer(200, &page("", 0, &[partial, SYNC_A]));
    assert!(lone.sent().iter().all(|line| !line.contains("/sync/push")));
    let offered = Guarantees { verified: false, ..Guarantees::ALL };
    assert!(lone.saw(|kind| *kind == EventKind::GuaranteesMissing { offered, required: verified }));
    assert_eq!(lone.replica.deadline(), None);
    assert_eq!(lone.replica.status().connection, ConnectionState::Error);
    assert_eq!(lone.replica.status().pending_writes, 1);
}

/// Answers everything with a failure until `until`; the times of all tries.
fn outage(lone: &mut LoneReplica, until: u64, fail: impl Fn(&mut LoneReplica)) -> Vec<u64> {
    let mut tries = Vec::new();
    loop {
        let (now, mut failed) = (lone.now.mono.0, false);
        for line in lone.sent() {
            if line == "CONNECT" {
                tries.push(now);
                let input = Input::Disconnected {
                    conn: lone.dialled,
                    why: Disconnect::Lost("refused".into()),
                };
                lone.replica.handle(lone.now, input, &mut lone.actions);
                failed = true;
            } else if line.starts_with("POST") || line.starts_with("GET") {
                tries.push(now);
                fail(lone);
                failed = true;
            }
        }
        if failed {
            continue;
        }
        let (at, _) = lone.replica.deadline().unwrap();
        if at.0 > until {
            return tries;
        }
        lone.pass(at.0.saturating_sub(now));
    }
}

#[test]
fn an_outage_costs_few_requests_and_its_end_is_soon_noticed() {
    let websocket_only = config();
    for base in [polling(), both(), websocket_only] {
        for seed in 0..1_000 {
            let mut lone = LoneReplica::seeded(base.clone(), seed);
            if seed % 2 == 0 {
                lone.save("b", r#"{"n":2}"#);
            }
            lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
            let start = lone.now.mono.0;
            let tries = outage(&mut lone, start + 600_000, |lone| {
                if seed % 3 == 0 {
                    lone.answer(500, "<html>down</html>");
                } else {
                    lone.resolve(HttpAnswer::Failed("refused".into()));
                }
                if seed % 4 == 0 {
                    lone.save("b", &format!(r#"{{"n":{}}}"#, lone.now.mono.0));
                }
            });
            let all: Vec<_> = tries.iter().map(|at| (at - start) / 1_000).collect();
            assert!(all.len() <= 20, "seed {seed}: {} tries: {all:?}", all.len());
            let next = lone.replica.deadline().unwrap().0.0 - tries.last().unwrap();
            assert!(next <= 120_000, "seed {seed}: {next} ms to the next try");
        }
    }
}

#[test]
fn a_thousand_clients_do_not_come_back_in_lock_step() {
    for base in [config(), both()] {
        let mut tries = Vec::new();
        for seed in 0..1_000 {
            let mut lone = LoneReplica::seeded(base.clone(), seed);
            lone.dial();
            lone.welcome(0, "");
            lone.sent();
            lone.cut();
            // the server is away for five seconds
            let end = lone.now.mono.0 + 5_000;
            outage(&mut lone, end, |lone| {
                lone.resolve(HttpAnswer::Failed("refused".into()));
            });
            tries.push(lone.replica.deadline().unwrap().0.0 - end);
        }
        tries.sort_unstable();
        let busiest = tries.chunk_by(|a, b| a / 100 == b / 100).map(<[u64]>::len).max().unwrap();
        let (first, last) = (tries[0], tries[999]);
        assert!(busiest <= 60, "{busiest} of 1,000 within a tenth of a second");
        assert!(last - first >= 4_000, "spread over {first} to {last} ms");
    }
}

#[test]
fn a_wait_that_the_server_asks_for_holds_for_both_transports() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let why = Disconnect::Refused {
        status: 429,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let input = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    assert_eq!(lone.sent(), ["CLOSE"], "HTTP waits as well");
    let (at, _) = lone.replica.deadline().unwrap();
    assert!(at.since(lone.now.mono) >= Duration::from_secs(40));

    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let why = Disconnect::Lost("refused".into());
    let input = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    lone.answer_with(503, Some(40), "<html>busy</html>");
    lone.sent();
    let (at, _) = lone.replica.deadline().unwrap();
    assert!(at.since(lone.now.mono) >= Duration::from_secs(40), "the WebSocket waits as well");
}

#[test]
fn what_comes_over_one_transport_does_not_end_a_wait_that_the_other_was_asked_for() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let lost = Input::Disconnected { conn: lone.dialled, why: Disconnect::Lost("lost".into()) };
    lone.replica.handle(lone.now, lost, &mut lone.actions);
    lone.sent();
    lone.answer(500, "");
    let mut sent = lone.sent();
    // the next hello is under way while the WebSocket is asked for again, and refused
    while !sent.iter().any(|line| line.starts_with("POST")) {
        let (at, _) = lone.replica.deadline().unwrap();
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        sent = lone.sent();
    }
    let why = Disconnect::Refused {
        status: 503,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let refused = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, refused, &mut lone.actions);
    lone.answer(200, &pong(0, ""));
    lone.answer(200, &first_page());
    lone.sent();
    lone.pass(39_000);
    assert!(!lone.sent().contains(&"CONNECT".to_owned()), "it was asked to wait for 40 s");
}

#[test]
fn a_write_does_not_end_a_wait_that_the_server_asked_for() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let why = Disconnect::Refused {
        status: 429,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let input = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    lone.save("b", r#"{"n":2}"#);
    assert_eq!(lone.sent(), ["CLOSE"]);
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent().is_empty());
}

#[test]
fn a_websocket_that_is_lost_and_then_takes_long_leaves_polling() {
    let mut lone = LoneReplica::live_with(both());
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.pass(3_000);
    lone.answer(200, &quiet_page(0));
    lone.sent();
    assert_eq!(lone.replica.status().transport, Some(Transport::Http));
    assert!(matches!(lone.replica.deadline().unwrap().1, Timer::Connect | Timer::Poll));
}
