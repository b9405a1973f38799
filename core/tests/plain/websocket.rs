//! Exchanges over a WebSocket alone.

use synclayer_core::{Command, ConflictStrategy, EventKind, Level, Timer, Write};

use crate::lone_replica::{LoneReplica, doc, id, todos};
use crate::support::{
    PONG, SYNC, connect, frame, kinds, live, pending, pong_frame, socket_only, whole,
};

#[test]
fn what_a_plain_server_shows_is_settled_and_not_acknowledged() {
    let mut lone = live();
    let (todos, id, doc) = (todos(), id("b"), doc(r#"{"n":2}"#));
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
    let mut config = socket_only();
    config.conflict_strategy = ConflictStrategy::ServerWins;
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
