//! Exchanges by HTTP alone.

use synclayer_core::testing::InspectReplica;
use synclayer_core::{Command, ConflictStrategy, ErrorCode, EventKind, HttpAnswer, Token, Write};

use crate::lone_replica::{LoneReplica, id, todos, with};
use crate::support::{
    PONG, QUERY, QUERY_SINCE, TAKEN, first_rows, http_only, kinds, live_both, pending, polling,
    polling_with, rows,
};

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
            match lone.tickets.front().map(|ticket| ticket.request.method) {
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
    assert_eq!(lone.standing(), (false, false));
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
        let mut lone = polling_with(with(http_only(), |it| it.conflict_strategy = strategy));
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
        let mut lone = polling_with(with(http_only(), |it| it.conflict_strategy = strategy));
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
    lone.replica.command(lone.now, Command::SetToken(Token::from("t")), &mut lone.actions);
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
    let store = lone.replica.store().clone();
    let mut lone = LoneReplica::on(http_only(), store.clone());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    assert_eq!(lone.sent().last().unwrap(), QUERY_SINCE);
    let mut elsewhere = http_only();
    elsewhere.address = "elsewhere".into();
    let mut lone = LoneReplica::on(elsewhere, store);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    assert_eq!(lone.sent().last().unwrap(), QUERY, "another server's stamps mean nothing");
}

// --- both ---
