//! Links that break again and again, or are slow: what is tried again when, and how much at a time.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use std::time::Duration;

use synclayer_core::{HttpAnswer, Timer};

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
