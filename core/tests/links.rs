//! Links that break again and again, or are slow: what is tried again when, and how much at a time.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use std::time::Duration;

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{ClientConfig, EventKind, HttpAnswer, Input, Timer, Write};

use lone_replica::{LoneReplica, ack, config, http_only, synced};

const CONNECTIONS: u64 = 8;

/// The pauses after connections that each end when `each` has happened on them.
fn pauses(lone: &mut LoneReplica, mut each: impl FnMut(&mut LoneReplica, u64)) -> Vec<Duration> {
    (0..CONNECTIONS)
        .map(|turn| {
            each(lone, turn);
            lone.cut();
            let (at, timer) = lone.replica.deadline().unwrap();
            assert_eq!(timer, Timer::Reconnect);
            let pause = at.since(lone.now.mono);
            lone.pass(pause.as_millis() as u64);
            lone.answer_dial();
            pause
        })
        .collect()
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

#[test]
fn a_connection_that_brings_a_page_is_followed_by_the_next_at_once() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    let all = pauses(&mut lone, |lone, turn| {
        lone.welcome(0, "");
        let after = if turn == 0 { String::new() } else { format!(r#""after":"{turn:02}","#) };
        let up_to = format!(r#""upTo":"{:02}","#, turn + 1);
        lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
            .hear(&format!(r#"{{"type":"sync","collection":"todos","data":{{"records":[]}},"metadata":{{{after}{up_to}"snapshotSeq":5}}}}"#));
    });
    assert!(all.iter().all(|pause| *pause <= FIRST_PAUSE), "{all:?}");
}

#[test]
fn a_connection_that_brings_a_verdict_is_followed_by_the_next_at_once() {
    let mut lone = LoneReplica::live();
    let mut digest = String::new();
    let all = pauses(&mut lone, |lone, turn| {
        if turn > 0 {
            lone.welcome(turn, &digest);
            lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#);
        }
        lone.sent();
        lone.update("a", &format!(r#"{{"n":{}}}"#, turn + 10));
        digest = LoneReplica::digest_of(&lone.sent()[0]);
        if turn % 2 == 0 {
            lone.hear(&ack(turn + 1, "a", turn + 6));
        }
    });
    assert!(all.iter().all(|pause| *pause <= FIRST_PAUSE), "{all:?}");
}

#[test]
fn a_hello_and_a_catch_up_that_finds_nothing_do_not_shorten_the_next_pause() {
    let mut lone = LoneReplica::live();
    let all = pauses(&mut lone, |lone, turn| {
        if turn > 0 {
            lone.welcome(0, "");
            lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
                .hear(&synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
            assert!(!lone.standing().0, "in step");
        }
    });
    assert!(
        all.windows(2).skip(3).all(|pair| pair[0] < pair[1] || pair[1].as_secs() > 50),
        "{all:?}"
    );
    assert!(*all.last().unwrap() > Duration::from_secs(50), "{all:?}");
}

#[test]
fn a_connection_that_has_lived_for_long_is_followed_by_the_next_at_once() {
    let mut lone = LoneReplica::live();
    let all = pauses(&mut lone, |lone, turn| {
        if turn > 0 {
            lone.welcome(0, "");
            lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#);
        }
        lone.stay_alive(60_000);
    });
    assert!(all.iter().all(|pause| *pause <= FIRST_PAUSE), "{all:?}");
}

#[test]
fn an_exchange_that_brings_a_page_is_followed_by_the_next_at_once() {
    let mut lone = LoneReplica::new(http_only());
    lone.replica.command(lone.now, synclayer_core::Command::Connect, &mut lone.actions);
    for turn in 0..CONNECTIONS {
        lone.answer(
            200,
            r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#,
        );
        let from = match turn {
            0 => String::new(),
            _ => format!(r#""resume":{{"epoch":"e1","snapshotSeq":5,"after":"{turn:02}"}}"#),
        };
        let after = if turn == 0 { String::new() } else { format!(r#""after":"{turn:02}","#) };
        let up_to = format!(r#""upTo":"{:02}","#, turn + 1);
        lone.answer(200, &format!(r#"{{"type":"batch","metadata":{{"epoch":"e1","from":{{{from}}},"lastMutation":0}},"messages":[{{"type":"subscribed","collection":"todos","metadata":{{"head":5,"mode":"snapshot"}}}},{{"type":"sync","collection":"todos","data":{{"records":[]}},"metadata":{{{after}{up_to}"snapshotSeq":5}}}}]}}"#));
        let asked = lone.sent();
        assert!(asked.last().unwrap().starts_with("GET /sync/todos"), "{asked:?}");
        lone.resolve(HttpAnswer::Failed("cut".into()));
        let (at, timer) = lone.replica.deadline().unwrap();
        assert_eq!(timer, Timer::Poll);
        let pause = at.since(lone.now.mono);
        assert!(pause <= FIRST_PAUSE * 2, "{pause:?} after {turn}");
        lone.pass(pause.as_millis() as u64);
    }
}

/// The size of pages that the last `subscribe` asks for.
fn page_bytes(lone: &mut LoneReplica) -> Option<u64> {
    let sent = lone.sent();
    let asked = sent.iter().rev().find(|frame| frame.contains("subscribe")).expect("it subscribes");
    let (_, bytes) = asked.split_once(r#""pageBytes":"#)?;
    bytes.trim_end_matches('}').parse().ok()
}

fn snapshot_page(after: u64, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    let covered = if after == 0 { String::new() } else { format!(r#""after":"{after:03}","#) };
    let id = after + 1;
    format!(
        r#"{{"type":"sync","collection":"todos","data":{{"records":[{{"id":"{id:03}","data":{{"t":"{text}"}},"version":1,"seq":{id}}}]}},"metadata":{{{covered}"upTo":"{id:03}","snapshotSeq":500}}}}"#
    )
}

const SNAPSHOT: &str =
    r#"{"type":"subscribed","collection":"todos","metadata":{"head":500,"mode":"snapshot"}}"#;

fn reconnect(lone: &mut LoneReplica) {
    lone.cut();
    lone.sent();
    let (at, _) = lone.replica.deadline().unwrap();
    lone.pass(at.since(lone.now.mono).as_millis() as u64);
    lone.answer_dial();
    lone.welcome(0, "");
}

#[test]
fn pages_shrink_until_they_come_through_and_grow_again() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    lone.welcome(0, "");
    assert_eq!(page_bytes(&mut lone), None, "as the server likes it");
    for expected in [64, 16, 4, 4] {
        lone.hear(SNAPSHOT);
        reconnect(&mut lone);
        assert_eq!(page_bytes(&mut lone), Some(expected << 10));
    }
    let mut after = 0;
    for _ in 0..3 {
        lone.hear(SNAPSHOT).hear(&snapshot_page(after, 4 << 10));
        after += 1;
        reconnect(&mut lone);
        assert_eq!(
            page_bytes(&mut lone),
            Some(4 << 10),
            "one page a connection is what it carries"
        );
    }
    for expected in [Some(16 << 10), Some(64 << 10), None] {
        lone.hear(SNAPSHOT);
        for _ in 0..8 {
            lone.hear(&snapshot_page(after, 130 << 10));
            after += 1;
        }
        reconnect(&mut lone);
        assert_eq!(page_bytes(&mut lone), expected);
    }
}

#[test]
fn pages_by_http_shrink_until_they_come_through() {
    let mut lone = LoneReplica::new(http_only());
    lone.replica.command(lone.now, synclayer_core::Command::Connect, &mut lone.actions);
    let mut asked = Vec::new();
    while asked.len() < 4 {
        let call = lone.sent().pop().unwrap_or_default();
        if call.starts_with("POST /sync/session") {
            lone.answer(
                200,
                r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#,
            );
        } else if let Some((_, query)) = call.split_once("epoch=") {
            asked.push(query.split("clientId").next().unwrap().to_owned());
            lone.resolve(HttpAnswer::Failed("cut".into()));
        } else {
            let (at, _) = lone.replica.deadline().unwrap();
            lone.pass(at.since(lone.now.mono).as_millis() as u64);
        }
    }
    assert_eq!(asked, ["&", "&pageBytes=65536&", "&pageBytes=16384&", "&pageBytes=4096&"]);
}

#[test]
fn writes_go_out_a_few_at_a_time_where_more_do_not_come_through() {
    let mut lone = LoneReplica::live();
    let text = "x".repeat(10_000);
    for number in 0..200 {
        lone.save(&format!("{number}"), &format!(r#"{{"t":"{text}"}}"#));
    }
    let sent = |lone: &mut LoneReplica| {
        lone.sent().iter().filter(|frame| frame.contains(r#""mutation""#)).count()
    };
    assert!(sent(&mut lone) > 100, "the window");
    for expected in [6, 1, 1] {
        reconnect(&mut lone);
        lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#);
        assert_eq!(sent(&mut lone), expected);
    }
    for number in 1..=60 {
        lone.hear(&ack(number, &format!("{}", number - 1), 5 + number));
    }
    assert!(sent(&mut lone) > 70, "more and more at a time");
}

/// Lets time pass in steps, and has `moves` done after each. Says whether the replica gave up what was
/// under way.
fn gives_up(lone: &mut LoneReplica, seconds: u64, mut moves: impl FnMut(&mut LoneReplica)) -> bool {
    for _ in 0..seconds {
        lone.pass(1_000);
        moves(lone);
        if lone.sent().iter().any(|line| line == "CLOSE") {
            return true;
        }
    }
    false
}

fn bytes_move(lone: &mut LoneReplica) {
    let progress = Input::Progress { conn: lone.conn };
    lone.replica.handle(lone.now, progress, &mut lone.actions);
}

#[test]
fn a_frame_that_comes_slowly_is_waited_for() {
    let mut lone = LoneReplica::live();
    assert!(!gives_up(&mut lone, 300, bytes_move), "a frame comes");
    assert!(gives_up(&mut lone, 60, |_| ()), "nothing comes");
}

#[test]
fn a_write_that_leaves_slowly_is_waited_for() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    lone.sent();
    assert!(!gives_up(&mut lone, 300, bytes_move), "it leaves");
    let heard = |lone: &mut LoneReplica| {
        let input = Input::Heard { conn: lone.conn };
        lone.replica.handle(lone.now, input, &mut lone.actions);
    };
    assert!(gives_up(&mut lone, 70, heard), "the server lives, and gives no verdict");
}

#[test]
fn a_verdict_behind_a_long_catch_up_is_waited_for() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    lone.welcome(0, "");
    lone.save("zz", "{}");
    lone.hear(SNAPSHOT);
    let mut after = 0;
    let page = |lone: &mut LoneReplica| {
        if lone.now.mono.0.is_multiple_of(10_000) {
            lone.hear(&snapshot_page(after, 10));
            after += 1;
        }
    };
    assert!(!gives_up(&mut lone, 200, page));
}

#[test]
fn an_answer_that_comes_slowly_is_waited_for() {
    for moves in [true, false] {
        let mut lone = LoneReplica::new(http_only());
        lone.replica.command(lone.now, synclayer_core::Command::Connect, &mut lone.actions);
        lone.sent();
        let request = lone.tickets[0].id;
        for _ in 0..100 {
            lone.pass(1_000);
            if moves {
                let progress = Input::RequestProgress { request };
                lone.replica.handle(lone.now, progress, &mut lone.actions);
            }
        }
        lone.sent();
        assert_eq!(lone.tickets.len() == 1, moves, "it is asked again only where nothing comes");
    }
}

/// Connects again and again; each connection breaks before a large write is through. What it sent.
fn break_before_a_large_write(lone: &mut LoneReplica, times: usize) -> usize {
    let mut sent = 0;
    for _ in 0..times {
        sent += lone.sent().iter().filter(|line| line.contains(r#""recordId":"large""#)).count();
        reconnect(lone);
        lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#);
    }
    sent
}

fn stalled_by_the_link() -> LoneReplica {
    let mut lone = LoneReplica::live();
    let text = "x".repeat(100_000);
    lone.save("large", &format!(r#"{{"t":"{text}"}}"#));
    lone.save("behind", "{}");
    assert_eq!(break_before_a_large_write(&mut lone, 4), 4);
    assert_eq!(lone.replica.status().stalled, None, "not yet");
    assert_eq!(break_before_a_large_write(&mut lone, 1), 1);
    lone
}

#[test]
fn a_write_that_no_connection_carries_is_told_with_its_size_and_rejected_by_hand() {
    let mut lone = stalled_by_the_link();
    let stalled = lone.replica.status().stalled.unwrap();
    assert_eq!((&*stalled.record_id, stalled.bytes), ("large", 100_008));
    assert!(lone.saw(|kind| matches!(kind, EventKind::WriteStalled { bytes: 100_008, .. })));
    assert!(lone.sent().iter().any(|line| line.contains("large")), "it is tried again");

    // it is on its way, and nobody knows whether the server has it
    let reject = Write::RejectStalled(stalled.write);
    lone.replica.write(lone.now, reject, &mut lone.actions).unwrap();
    assert!(lone.replica.rejected().unwrap().is_empty());
    let (at, _) = lone.replica.deadline().unwrap();
    lone.pass(at.since(lone.now.mono).as_millis() as u64);
    lone.answer_dial();
    lone.welcome(0, "");
    assert_eq!(lone.replica.rejected().unwrap().len(), 1);
    assert_eq!(lone.replica.status().stalled, None);
    lone.hear(
        r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#,
    );
    assert!(lone.sent().iter().any(|line| line.contains("behind")), "the next one follows");
}

#[test]
fn a_write_that_was_through_after_all_is_not_rejected_by_hand() {
    let mut lone = stalled_by_the_link();
    let frame = lone.sent().into_iter().find(|line| line.contains("large")).unwrap();
    let write = lone.replica.status().stalled.unwrap().write;
    lone.replica.write(lone.now, Write::RejectStalled(write), &mut lone.actions).unwrap();
    let (at, _) = lone.replica.deadline().unwrap();
    lone.pass(at.since(lone.now.mono).as_millis() as u64);
    lone.answer_dial();
    lone.welcome(1, &LoneReplica::digest_of(&frame));
    assert!(lone.replica.rejected().unwrap().is_empty());
    assert_eq!(lone.replica.status().pending_writes, 1, "the one behind it");
    assert_eq!(lone.replica.status().stalled, None);
}

#[test]
fn a_small_write_is_not_what_breaks_a_connection() {
    let mut lone = LoneReplica::live();
    lone.save("large", "{}");
    break_before_a_large_write(&mut lone, 9);
    assert_eq!(lone.replica.status().stalled, None);
}

#[test]
fn the_answer_to_a_ping_behind_a_write_that_does_not_come_through_may_take_longer_each_time() {
    let mut lone = stalled_by_the_link();
    lone.sent();
    assert!(!gives_up(&mut lone, 30 + 15 * 32 - 2, |_| ()));
    assert!(gives_up(&mut lone, 30, |_| ()), "but not for ever");
}

/// The replica after a restart on the same store, connected and refused its collection.
fn restart(lone: &LoneReplica, config: ClientConfig) -> LoneReplica {
    let mut next = LoneReplica::on(config, lone.replica.store().clone().reopen());
    next.dial();
    next.welcome(0, "");
    next.hear(
        r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"todos"}}"#,
    );
    next
}

#[test]
fn a_write_that_no_connection_carries_is_told_and_rejected_over_restarts() {
    let mut lone = LoneReplica::live();
    let text = "x".repeat(100_000);
    lone.save("large", &format!(r#"{{"t":"{text}"}}"#));
    assert_eq!(break_before_a_large_write(&mut lone, 3), 3);
    let mut lone = restart(&lone, config());
    assert_eq!(lone.replica.status().stalled, None, "not yet");
    assert_eq!(break_before_a_large_write(&mut lone, 2), 2);
    assert_eq!(lone.replica.status().stalled.unwrap().bytes, 100_008);

    // without a connection
    let lone = LoneReplica::on(config(), lone.replica.store().clone().reopen());
    let mut lone = lone;
    let stalled = lone.replica.status().stalled.unwrap();
    assert_eq!(&*stalled.record_id, "large");
    let reject = Write::RejectStalled(stalled.write);
    lone.replica.write(lone.now, reject, &mut lone.actions).unwrap();
    assert!(lone.replica.rejected().unwrap().is_empty(), "the server may have it");
    let lone = restart(&lone, config());
    assert_eq!(lone.replica.rejected().unwrap().len(), 1);
    assert_eq!(lone.replica.status().stalled, None);
}

#[test]
fn tries_are_not_used_up_while_less_is_tried_or_a_write_is_judged() {
    let mut lone = LoneReplica::live();
    let text = "x".repeat(100_000);
    lone.save("large", &format!(r#"{{"t":"{text}"}}"#));
    let few = lone_replica::with(config(), |config| config.max_reconnect_attempts = Some(2));
    let mut lone = restart(&lone, few);
    break_before_a_large_write(&mut lone, 5);
    assert!(lone.replica.status().stalled.is_some());
    lone.cut();
    let error = synclayer_core::ConnectionState::Error;
    assert_eq!(lone.replica.status().connection, error, "and not without end");
}

#[test]
fn a_page_that_no_connection_brings_is_told_with_its_place() {
    let mut lone = LoneReplica::new(config());
    lone.dial();
    lone.welcome(0, "");
    lone.hear(SNAPSHOT).hear(&snapshot_page(0, 10));
    let stalled = |lone: &LoneReplica| {
        lone.replica.status().collections[&lone_replica::todos()].stalled.clone()
    };
    reconnect(&mut lone);
    for _ in 0..5 {
        assert_eq!(stalled(&lone), None, "not yet");
        lone.hear(SNAPSHOT);
        reconnect(&mut lone);
    }
    let text = stalled(&lone).unwrap();
    assert!(text.contains("page of todos, behind record 001, does not arrive"), "{text}");
    assert!(lone.saw(|kind| matches!(kind, EventKind::Error { collection: Some(_), .. })));
    lone.hear(SNAPSHOT).hear(&snapshot_page(1, 10));
    assert_eq!(stalled(&lone), None, "it has come");
}

#[test]
fn a_frame_of_a_minute_is_waited_for_with_the_usual_settings() {
    // the longest silences that the settings allow
    let mut lone = LoneReplica::live();
    let quiet = ClientConfig::default().ping_timeout.as_secs() - 1;
    let mut seconds = 0;
    let pieces = |lone: &mut LoneReplica| {
        seconds += 1;
        if seconds % quiet == 0 {
            bytes_move(lone);
        }
    };
    assert!(!gives_up(&mut lone, 240, pieces));
}
