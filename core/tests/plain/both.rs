//! A WebSocket and HTTP beside each other.

use synclayer_core::{Command, ConflictStrategy, EventKind, HttpAnswer, Write};

use crate::lone_replica::{LoneReplica, doc, id, todos, with};
use crate::support::{
    PONG, QUERY_SINCE, SYNC, TAKEN, both, connect, first_rows, frame, live, live_both,
    live_both_with, pending, pong_frame, rows, socket_only, whole,
};

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
    let mut lone = live_both_with(with(both(), |it| it.conflict_strategy = strategy));
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
    let mut lone = connect(with(socket_only(), |it| it.conflict_strategy = strategy));
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
