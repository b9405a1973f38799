//! Exchanges in which nothing is refused.

use std::time::Duration;

use synclayer_core::{
    Command, ConflictStrategy, ConnectionState, EventKind, Guarantees, HttpAnswer, Input, Timer,
    Transport,
};

use crate::lone_replica::{LoneReplica, change, synced, todos, with};
use crate::support::{
    both, echo, first_page, http_only, idle, idle_with, page, pong, quiet_page, subscribed,
    verdicts,
};

#[test]
fn greets_pulls_and_pushes() {
    let mut lone = LoneReplica::new(http_only());
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
    assert_eq!(
        status.guarantees,
        Some(Guarantees {
            resume: true,
            exactly_once: true,
            ordered: true,
            verified: true,
            atomic: false
        })
    );
    assert_eq!(lone.standing(), (false, false));
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
    let mut lone = idle_with(with(http_only(), |it| it.conflict_strategy = strategy));
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
    let mut lone = LoneReplica::new(http_only());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    lone.sent();
    let one = r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"seq":5}]},"metadata":{"upTo":"a","snapshotSeq":5}}"#;
    lone.answer(200, &page("", 0, &[&subscribed("snapshot", 5), one]));
    let sent = lone.sent();
    assert!(sent[0].contains("epoch=&resume=snapshot%3Ae1%3A5%3Aa&"), "{sent:?}");
    assert_eq!(lone.standing(), (true, true));
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
    assert_eq!(lone.standing(), (false, false));
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
