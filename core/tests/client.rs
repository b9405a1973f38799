//! The client's exchanges as transcripts: what it says to what it is told.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use bytes::Bytes;
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Batch, ClientStore, Command, CommitNumber, ConflictStrategy, ConnId, EventKind, Input,
    MemoryClientStore, Query, Scan, Timer, Timestamp, WatchId, Write,
};

use lone_replica::{LoneReplica, ack, change, config, synced, todos, with};

#[test]
fn says_hello_first_and_subscribes_before_the_pong() {
    let mut lone = LoneReplica::new(config());
    lone.save("a", r#"{"n":1}"#);
    lone.dial();
    let sent = lone.sent();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].starts_with(r#"{"type":"ping","metadata":{"protocol":2,"clientId":""#));
    assert!(sent[0].ends_with(r#"","session":1}}"#), "{}", sent[0]);
    assert!(sent[1].starts_with(r#"{"type":"subscribe","collection":"todos""#));
    lone.welcome(0, "");
    assert!(lone.sent().is_empty(), "the write waits for the catch-up");
    lone.pass(2_000);
    assert!(lone.sent()[0].contains(r#""mutation":1"#), "but not for ever");
}

#[test]
fn a_live_write_is_acknowledged_in_its_place() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""data":{"n":2}"#) && sent[0].contains(r#""base":5"#), "{sent:?}");
    assert_eq!(lone.replica.status().pending_writes, 1);
    lone.hear(&ack(1, "a", 6));
    let status = lone.replica.status();
    assert_eq!(status.pending_writes, 0);
    assert_eq!(status.collections[&todos()].cursor.as_ref().unwrap().seq.0, 6);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    assert!(lone.replica.status().collections[&todos()].live, "the checksum agrees");
}

#[test]
fn a_remote_change_waits_beneath_a_write_on_its_way() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    lone.hear(&change("update", "a", r#"{"t":"y"}"#, 6, "2026-01-01T00:00:00Z"));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#, "not shown yet");
    lone.hear(&ack(1, "a", 7));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"y"}"#, "both survive");
}

#[test]
fn a_conflict_is_resolved_and_sent_under_the_same_number() {
    let strategy = ConflictStrategy::ClientWins;
    let mut lone = LoneReplica::live_with(with(config(), |it| it.conflict_strategy = strategy));
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    lone.hear(r#"{"type":"error","code":"CONFLICT","error":"changed","metadata":{"mutation":1,"collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":9,"t":"x"},"version":6,"updatedAt":"2026-01-01T00:00:00Z"}}}"#);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""data":{"n":2}"#), "{sent:?}");
    assert!(sent[0].contains(r#""mutation":1"#) && sent[0].contains(r#""base":6"#), "{sent:?}");
    assert!(lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
    lone.hear(&ack(1, "a", 7));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
}

#[test]
fn server_wins_drops_the_write() {
    let strategy = ConflictStrategy::ServerWins;
    let mut lone = LoneReplica::live_with(with(config(), |it| it.conflict_strategy = strategy));
    lone.cut();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.pass(2_000);
    lone.answer_dial();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":9,"t":"x"}"#);
    assert_eq!(lone.replica.status().pending_writes, 0);
}

#[test]
fn a_rejected_write_is_rolled_back_and_kept() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    lone.save("b", r#"{"m":1}"#);
    lone.sent();
    lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":1,"collection":"todos","recordId":"a"}}"#);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""recordId":"b""#) && sent[0].contains(r#""mutation":1"#));
    let rejected = lone.replica.rejected().unwrap();
    assert_eq!(rejected.len(), 1);
    lone.replica
        .write(lone.now, Write::RetryRejected(rejected[0].write), &mut lone.actions)
        .unwrap();
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    assert!(lone.sent()[0].contains(r#""mutation":2"#));
    assert!(lone.replica.rejected().unwrap().is_empty());
}

#[test]
fn what_was_rejected_is_no_part_of_a_conflict_that_is_decided_with_it() {
    let strategy = ConflictStrategy::ClientWins;
    let mut lone = LoneReplica::live_with(with(config(), |it| it.conflict_strategy = strategy));
    lone.update("a", r#"{"t":"refused"}"#);
    lone.sent();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":1,"collection":"todos","recordId":"a"}}"#);
    let sent = lone.sent();
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    assert!(sent[0].contains(r#""data":{"n":2}"#), "{sent:?}");
    assert!(lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })));
}

#[test]
fn a_lost_ack_is_made_up_for_by_the_next_pong() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    let digest = LoneReplica::digest_of(&lone.sent()[0]);
    lone.cut();
    lone.update("a", r#"{"n":3}"#);
    assert_eq!(lone.replica.status().pending_writes, 2, "what may have been sent is not joined");
    lone.sent();
    lone.pass(2_000);
    lone.answer_dial();
    lone.sent();
    lone.welcome(1, &digest);
    assert_eq!(lone.replica.status().pending_writes, 1);
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z"))
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    let sent = lone.sent();
    assert!(sent[0].contains(r#""mutation":2"#) && sent[0].contains(r#""base":6"#), "{sent:?}");
    assert!(
        !lone.saw(|kind| matches!(kind, EventKind::ConflictDetected { .. })),
        "its own write is no conflict"
    );
}

#[test]
fn a_stranger_s_write_under_its_id_makes_it_take_a_new_one() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    let before = lone.replica.status().client_id;
    lone.cut();
    lone.sent();
    lone.pass(2_000);
    lone.answer_dial();
    lone.sent();
    lone.welcome(1, "00000000000000ff");
    assert!(lone.sent().contains(&"CLOSE".to_string()));
    assert_ne!(lone.replica.status().client_id, before);
    assert_eq!(lone.replica.status().pending_writes, 1, "nothing pending is lost");
    lone.pass(0);
    lone.answer_dial();
    assert!(lone.sent()[0].contains(r#""session":1"#));
}

#[test]
fn synced_waits_for_a_collection_that_can_not_be_subscribed_now() {
    let mut lone = LoneReplica::live();
    lone.hear(r#"{"type":"error","code":"RATE_LIMIT_EXCEEDED","error":"slow","metadata":{"collection":"todos","retryAfterMs":5000}}"#);
    lone.sent();
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent().is_empty(), "todos are not in step");
    lone.pass(7_000);
    assert!(lone.sent()[0].starts_with(r#"{"type":"subscribe","collection":"todos""#));
}

#[test]
fn synced_waits_for_verdicts_and_a_barrier() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent().is_empty());
    lone.hear(&ack(1, "a", 6));
    assert_eq!(lone.sent(), [r#"{"type":"ping"}"#]);
    lone.hear(r#"{"type":"pong"}"#);
    assert_eq!(lone.sent(), ["SYNCED 0"]);
}

#[test]
fn a_gap_or_a_wrong_checksum_makes_it_fetch_everything() {
    let mut lone = LoneReplica::live();
    lone.hear(&change("update", "a", r#"{"n":2}"#, 7, "2026-01-01T00:00:00Z"));
    let sent = lone.sent();
    assert_eq!(sent, [r#"{"type":"subscribe","collection":"todos"}"#]);

    let mut lone = LoneReplica::live();
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&synced("e1", 5, &[("a", 5, r#"{"n":2,"t":"x"}"#)]));
    assert_eq!(lone.sent(), [r#"{"type":"subscribe","collection":"todos"}"#]);
    assert!(lone.saw(|kind| matches!(kind, EventKind::ChecksumMismatch { .. })));
}

/// The answer to a subscription: everything at seq 7, which is one record, `b`.
fn tell_b_alone(lone: &mut LoneReplica, sum_of: &str) {
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":7,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"b","data":{"n":1},"seq":7}]},"metadata":{"snapshotSeq":7}}"#)
        .hear(&synced("e1", 7, &[("b", 7, sum_of)]));
}

#[test]
fn what_a_snapshot_lacks_is_gone() {
    let mut lone = LoneReplica::live();
    lone.hear(&change("update", "a", r#"{"n":2}"#, 7, "2026-01-01T00:00:00Z"));
    tell_b_alone(&mut lone, r#"{"n":1}"#);
    assert!(lone.replica.status().collections[&todos()].live);
    assert_eq!((lone.shows("a"), lone.shows("b")), (None, Some(r#"{"n":1}"#.into())));
}

#[test]
fn after_a_snapshot_that_differs_too_it_waits_before_the_next() {
    let mut lone = LoneReplica::live();
    lone.hear(&change("update", "a", r#"{"n":2}"#, 7, "2026-01-01T00:00:00Z"));
    tell_b_alone(&mut lone, r#"{"n":"another"}"#);
    assert_eq!(lone.sent().last().unwrap(), r#"{"type":"subscribe","collection":"todos"}"#);
    tell_b_alone(&mut lone, r#"{"n":"another"}"#);
    assert_eq!(lone.sent(), [""; 0]);
    // four times the reconnect delay, and up to as much again
    lone.pass(3_999);
    assert_eq!(lone.sent(), [""; 0]);
    lone.pass(4_001);
    assert_eq!(lone.sent(), [r#"{"type":"subscribe","collection":"todos"}"#]);
}

#[test]
fn a_server_that_has_lost_changes_is_named() {
    let lost = |head: u64| {
        let mut lone = LoneReplica::live();
        lone.cut();
        lone.sent();
        lone.pass(2_000);
        lone.answer_dial();
        lone.welcome(0, "");
        lone.hear(&format!(
            r#"{{"type":"subscribed","collection":"todos","metadata":{{"head":{head},"mode":"snapshot"}}}}"#
        ));
        lone.sent();
        lone.saw(|kind| matches!(kind, EventKind::ServerLostChanges { .. }))
    };
    assert_eq!([4, 5, 6].map(lost), [true, false, false]);
}

/// A replica that starts on a store whose rows were changed behind its back, and hears that the server
/// holds what it held itself.
fn restarted(
    proves: bool,
    changed: impl Fn(&[u8], &[u8]) -> Option<Option<Vec<u8>>>,
) -> LoneReplica {
    let mut store = LoneReplica::live().replica.store().clone();
    let mut batch = Batch::default();
    let mut change = |key: &[u8], value: Bytes| {
        match changed(key, &value) {
            Some(Some(value)) => batch.put(key.to_vec(), value),
            Some(None) => batch.delete(key.to_vec()),
            None => {}
        }
        Ok(Scan::Next)
    };
    store.rows().scan(b"", &[0xff; 8], &mut change).unwrap();
    assert_eq!(batch.ops().len(), 1);
    store.commit(CommitNumber(store.last().0 + 1), batch).unwrap();
    store.set_proves_rows(proves);
    let mut lone = LoneReplica::on(config(), store);
    lone.dial();
    lone.welcome(0, "");
    lone.sent();
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
    lone
}

fn mismatched(lone: &mut LoneReplica) -> bool {
    let asks = lone.sent() == [r#"{"type":"subscribe","collection":"todos"}"#];
    let told = lone.saw(|kind| matches!(kind, EventKind::ChecksumMismatch { .. }));
    assert_eq!(asks, told);
    told
}

#[test]
fn a_row_that_is_missing_when_it_starts_is_noticed() {
    let without_a = |key: &[u8], _: &[u8]| key.ends_with(b"todos\0a").then_some(None);
    assert!(mismatched(&mut restarted(false, without_a)));
    // a store that proves its rows is believed, and no row is counted
    assert!(!mismatched(&mut restarted(true, without_a)));
}

#[test]
fn a_store_learns_when_all_its_rows_are_counted() {
    for proves in [false, true] {
        let mut store = LoneReplica::live().replica.store().clone().reopen();
        store.set_proves_rows(proves);
        let mut lone = LoneReplica::on(config(), store);
        lone.dial();
        lone.welcome(0, "");
        lone.hear(
            r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#,
        );
        assert!(!lone.replica.store().rows_are_counted(), "they are not yet");
        lone.hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
        assert_eq!(lone.replica.store().rows_are_counted(), !proves);
    }
}

/// The records `a` to `e` as the server has them, with `a` as of `seq`.
fn five(seq: u64) -> Vec<(&'static str, u64, &'static str)> {
    let a = if seq == 1 { r#"{"n":1}"# } else { r#"{"n":2}"# };
    vec![("a", seq, a), ("b", 2, "{}"), ("c", 3, "{}"), ("d", 4, "{}"), ("e", 5, "{}")]
}

/// A replica that takes two rows at a time, starts on a store that does not vouch for its rows, and hears
/// that it is in step.
fn counting(lost: Option<&str>) -> LoneReplica {
    let few = || with(config(), |config| config.index_rows = 2);
    let mut lone = LoneReplica::new(few());
    lone.dial();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"seq":1},{"id":"b","data":{},"seq":2},{"id":"c","data":{},"seq":3},{"id":"d","data":{},"seq":4},{"id":"e","data":{},"seq":5}]},"metadata":{"snapshotSeq":5}}"#)
        .hear(&synced("e1", 5, &five(1)));
    let mut store = lone.replica.store().clone().reopen();
    if let Some(id) = lost {
        let mut batch = Batch::default();
        let mut take = |key: &[u8], _: Bytes| {
            if key.ends_with(format!("todos\0{id}").as_bytes()) {
                batch.delete(key.to_vec());
            }
            Ok(Scan::Next)
        };
        store.rows().scan(b"", &[0xff; 8], &mut take).unwrap();
        assert_eq!(batch.ops().len(), 1);
        store.commit(CommitNumber(store.last().0 + 1), batch).unwrap();
    }
    let mut lone = LoneReplica::on(few(), store);
    lone.dial();
    lone.welcome(0, "");
    lone.sent();
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&synced("e1", 5, &five(1)));
    lone
}

#[test]
fn many_rows_are_counted_in_parts_while_changes_come() {
    let mut lone = counting(None);
    assert!(lone.replica.status().collections[&todos()].live, "it waits for no count");
    assert!(!lone.replica.store().rows_are_counted());
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Count);
    // of what was counted, and of what was not
    lone.hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z"))
        .hear(&change("insert", "aa", "{}", 7, "2026-01-01T00:00:00Z"))
        .hear(&change("delete", "e", "null", 8, "2026-01-01T00:00:00Z"))
        .hear(&change("insert", "f", "{}", 9, "2026-01-01T00:00:00Z"));
    while lone.replica.deadline().is_some_and(|(_, timer)| timer == Timer::Count) {
        assert!(!lone.replica.store().rows_are_counted());
        lone.pass(1);
        lone.replica.check().unwrap();
    }
    assert!(lone.replica.store().rows_are_counted());
    assert_eq!(lone.sent(), [] as [String; 0], "it is in step");
    let mut rows = five(6);
    rows[4] = ("f", 9, "{}");
    rows.insert(1, ("aa", 7, "{}"));
    lone.hear(&synced("e1", 9, &rows));
    assert!(!lone.saw(|kind| matches!(kind, EventKind::ChecksumMismatch { .. })));
}

#[test]
fn a_row_that_is_missing_is_found_by_a_count_in_parts() {
    let mut lone = counting(Some("d"));
    assert_eq!(lone.sent(), [] as [String; 0], "nothing is known of it yet");
    lone.pass(1).pass(1);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""cursor":{"epoch":"e1","seq":5}"#), "{sent:?}");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&synced("e1", 5, &five(1)));
    assert!(mismatched(&mut lone));
}

#[test]
fn figures_that_differ_are_counted_anew_before_anything_is_fetched() {
    let checksum = LoneReplica::live().replica.status().collections[&todos()].checksum.0;
    let wrong = |_: &[u8], value: &[u8]| {
        // as the row of the collection holds it: seven bits in a byte, the lowest first
        let low = [(checksum as u8) | 0x80, ((checksum >> 7) as u8) | 0x80];
        let at = value.windows(2).position(|bytes| bytes == low)?;
        let mut value = value.to_vec();
        value[at] ^= 1;
        Some(Some(value))
    };
    for proves in [false, true] {
        let mut lone = restarted(proves, wrong);
        assert!(!mismatched(&mut lone), "the rows are right");
        let todos = &lone.replica.status().collections[&todos()];
        assert_eq!((todos.checksum.0, todos.live), (checksum, true));
    }
}

#[test]
fn an_interrupted_snapshot_goes_on_where_it_stopped() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    lone.sent();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"seq":5}]},"metadata":{"upTo":"a","snapshotSeq":5}}"#);
    lone.cut();
    lone.sent();
    lone.pass(2_000);
    lone.answer_dial();
    let sent = lone.sent();
    assert!(sent[1].contains(r#""resume":{"epoch":"e1","snapshotSeq":5,"after":"a"}"#), "{sent:?}");
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"b","data":{"n":2},"seq":3}]},"metadata":{"after":"a","snapshotSeq":5}}"#)
        .hear(&change("update", "a", r#"{"n":7}"#, 6, "2026-01-01T00:00:00Z"))
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":7}"#), ("b", 3, r#"{"n":2}"#)]));
    assert!(lone.replica.status().collections[&todos()].live, "{:?}", lone.sent());
}

#[test]
fn the_server_s_clock_is_known_to_half_a_round_trip() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    lone.pass(400);
    let server = Timestamp(lone.now.wall.0 - 200 + 5_000);
    lone.hear(&format!(
        r#"{{"type":"pong","timestamp":"{server}","metadata":{{"protocol":2,"epoch":"e1","lastMutation":0}}}}"#
    ));
    assert_eq!(lone.replica.status().clock_offset_ms, 5_000);
}

#[test]
fn a_collection_that_is_left_and_wanted_again_is_subscribed_again() {
    let mut lone = LoneReplica::live();
    lone.replica.command(lone.now, Command::Unsubscribe(todos()), &mut lone.actions);
    lone.replica.command(lone.now, Command::Subscribe(todos()), &mut lone.actions);
    assert_eq!(lone.sent(), [r#"{"type":"unsubscribe","collection":"todos"}"#]);
    lone.hear(r#"{"type":"unsubscribed","collection":"todos"}"#);
    assert!(lone.sent()[0].starts_with(r#"{"type":"subscribe","collection":"todos""#));
}

#[test]
fn silence_is_probed_and_then_ends_the_connection() {
    let mut lone = LoneReplica::live();
    lone.pass(30_000);
    assert_eq!(lone.sent(), ["PING"]);
    lone.pass(15_000);
    assert_eq!(lone.sent(), ["CLOSE"]);
    assert!(lone.replica.deadline().is_some(), "it tries again");
}

#[test]
fn a_connection_that_it_has_not_asked_for_is_not_greeted() {
    let mut lone = LoneReplica::new(config());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    let input = Input::Connected { conn: ConnId(99) };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    lone.answer_dial();
    assert_eq!(lone.sent().len(), 2, "one hello, one subscription");
    lone.replica.handle(lone.now, Input::Connected { conn: lone.conn }, &mut lone.actions);
    assert_eq!(lone.sent(), [""; 0], "it is greeted once");
}

#[test]
fn a_write_names_the_commit_that_holds_it() {
    let mut lone = LoneReplica::live();
    for n in 0..3 {
        let document = lone_replica::doc(&format!("{{\"n\":{n}}}"));
        let (now, id) = (lone.now, lone_replica::id("b"));
        let written =
            lone.replica.write(now, Write::Save(todos(), id, document), &mut lone.actions).unwrap();
        assert_eq!(written.commit, lone.replica.store().last());
    }
}

#[test]
fn nothing_is_sent_before_the_store_has_it() {
    let mut lone = LoneReplica::on(config(), MemoryClientStore::when_told());
    lone.dial();
    assert!(lone.sent().is_empty(), "the session is not stored yet");
    lone.make_durable();
    assert_eq!(lone.sent().len(), 2);
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":0,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#)
        .hear(&synced("e1", 0, &[]));
    lone.save("a", r#"{"n":1}"#);
    assert!(lone.sent().is_empty(), "the write is not stored yet");
    lone.make_durable();
    assert_eq!(lone.sent().len(), 1);
}

/// The completeness of a watched query, if that or its result is news.
fn told(lone: &mut LoneReplica, watch: WatchId) -> Option<bool> {
    lone.replica.take_query(watch).map(|update| update.snapshot.is_complete())
}

#[test]
fn a_query_is_complete_again_after_a_reconnect() {
    let mut lone = LoneReplica::live();
    let watch =
        lone.replica.watch_query(&todos(), None, Query::default(), &mut lone.actions).unwrap();
    assert_eq!(told(&mut lone, watch), Some(true));
    lone.cut();
    assert_eq!(told(&mut lone, watch), Some(false));
    lone.sent();
    lone.pass(2_000);
    lone.answer_dial();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#);
    assert_eq!(told(&mut lone, watch), None, "not before all is here");
    lone.hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
    assert_eq!(told(&mut lone, watch), Some(true));
}

#[test]
fn a_query_is_incomplete_as_soon_as_a_gap_is_found() {
    let mut lone = LoneReplica::live();
    let watch =
        lone.replica.watch_query(&todos(), None, Query::default(), &mut lone.actions).unwrap();
    assert_eq!(told(&mut lone, watch), Some(true));
    lone.hear(&change("update", "a", r#"{"n":2}"#, 7, "2026-01-01T00:00:00Z"));
    assert_eq!(told(&mut lone, watch), Some(false));
}
