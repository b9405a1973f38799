//! Refusals, and answers that are none.

use std::time::Duration;

use synclayer_core::{
    ClientConfig, Command, ConnectionState, ErrorCode, EventKind, HttpAnswer, Timer, Token,
    Transport, Write,
};

use crate::lone_replica::LoneReplica;
use crate::support::{echo, first_page, http_only, idle, pong, quiet_page, verdicts};

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
    lone.replica.command(lone.now, Command::SetToken(Token::from("fresh")), &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    assert_eq!(lone.tickets[0].request.token, Some(Token::from("fresh")));
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
    let mut config = http_only();
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
    let mut config = http_only();
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

/// A replica of two collections, of which one's page is answered otherwise.
fn one_page_is_answered(status: u16, body: &str) -> LoneReplica {
    one_page_is_answered_with(status, None, body)
}

fn with_notes() -> ClientConfig {
    let mut config = http_only();
    config.collections.insert(0, synclayer_core::Collection::new("notes").unwrap());
    config
}

fn one_page_is_answered_with(status: u16, wait: Option<u64>, body: &str) -> LoneReplica {
    let mut lone = LoneReplica::new(with_notes());
    lone.save("b", r#"{"n":2}"#);
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    lone.sent();
    lone.answer_with(status, wait, body);
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
fn a_wait_for_one_collection_does_not_hold_the_others_up() {
    let building = r#"{"error":"the scopes are being built","code":"SERVER_ERROR","retryAfterMs":1000,"collection":"notes"}"#;
    let mut lone = one_page_is_answered_with(503, Some(1), building);
    let sent = lone.sent();
    assert!(sent[0].contains("todos"), "{sent:?}");
    lone.answer(200, &first_page());
    assert!(lone.sent()[0].starts_with("POST /sync/push"));

    // it is asked for again when the server has said, then ever less often
    let mut lone = LoneReplica::new(with_notes());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    let (mut waits, mut page) = (Vec::new(), first_page());
    for _ in 0..4 {
        lone.answer(200, &pong(0, ""));
        let sent = lone.sent();
        assert!(sent.last().unwrap().starts_with("GET /sync/notes"), "{sent:?}");
        lone.answer_with(503, Some(1), building);
        assert!(lone.sent().last().unwrap().starts_with("GET /sync/todos"));
        lone.answer(200, &core::mem::replace(&mut page, quiet_page(0)));
        assert!(lone.sent().is_empty());
        let wait = lone.replica.deadline().unwrap().0.since(lone.now.mono).as_millis();
        waits.push(wait);
        lone.pass(wait as u64);
    }
    assert!((1_000..=2_000).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");

    // from what stands before a server it holds for all
    let mut lone = one_page_is_answered_with(503, Some(40), "<html>busy</html>");
    assert!(lone.sent().is_empty());
    let of_another = building.replace("notes", "todos");
    let mut lone = one_page_is_answered_with(503, Some(40), &of_another);
    assert!(lone.sent().is_empty());
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
    let mut config = http_only();
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
        let path = lone.tickets[0].request.path.clone();
        let body = lone.tickets[0].request.body.clone().unwrap_or_default();
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
