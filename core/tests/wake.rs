//! The client after a possible sleep: it probes the connection, and does not wait long for an
//! answer.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use std::time::Duration;

use synclayer_core::{Command, ConnectionState, Input, Timer};

use lone_replica::{LoneReplica, config, with};

fn heard(lone: &mut LoneReplica) {
    let conn = lone.conn;
    lone.replica.handle(lone.now, Input::Heard { conn }, &mut lone.actions);
}

/// The device sleeps: only its wall clock goes on.
fn sleep(lone: &mut LoneReplica, seconds: i64) {
    lone.now.wall.0 += seconds * 1000;
    lone.pass(1);
}

/// Returns the number of pings sent, of either kind, and true if the connection was given up.
fn frames(lone: &mut LoneReplica) -> (usize, bool) {
    let sent = lone.sent();
    let pings = sent.iter().filter(|line| ["PING", r#"{"type":"ping"}"#].contains(&line.as_str()));
    (pings.count(), sent.contains(&"CLOSE".to_owned()))
}

/// The calls of apps that return to the foreground.
const CALLS: [fn(&mut LoneReplica); 2] = [
    |lone| lone.replica.command(lone.now, Command::SetOnline(true), &mut lone.actions),
    |lone| lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions),
];

#[test]
fn a_call_that_everything_be_tried_probes_a_live_connection() {
    for call in CALLS {
        let mut lone = LoneReplica::live();
        lone.pass(1_000);
        call(&mut lone);
        assert_eq!(frames(&mut lone), (1, false), "at once");
        call(&mut lone);
        assert_eq!(frames(&mut lone), (0, false), "one is enough");
        lone.pass(4_999);
        assert_eq!(frames(&mut lone), (0, false));
        lone.pass(1);
        assert_eq!(frames(&mut lone), (0, true), "it was dead");
        let (at, timer) = lone.replica.deadline().unwrap();
        assert_eq!(timer, Timer::Reconnect);
        assert!(at.since(lone.now.mono) <= Duration::from_secs(1));
    }
}

#[test]
fn whoever_answers_the_probe_is_alive() {
    for call in CALLS {
        let mut lone = LoneReplica::live();
        call(&mut lone);
        lone.pass(4_000);
        heard(&mut lone);
        lone.pass(10_000);
        assert!(!frames(&mut lone).1);
        assert_eq!(lone.replica.status().connection, ConnectionState::Connected);
        assert_ne!(lone.replica.deadline().unwrap().1, Timer::PingTimeout);
    }
}

#[test]
fn a_ping_that_is_out_already_is_not_waited_for_longer_than_a_probe() {
    let mut lone = LoneReplica::live();
    lone.pass(30_000);
    assert_eq!(frames(&mut lone), (1, false));
    CALLS[0](&mut lone);
    assert_eq!(frames(&mut lone), (0, false));
    lone.pass(5_000);
    assert_eq!(frames(&mut lone), (0, true));
}

#[test]
fn the_time_of_a_probe_can_be_chosen() {
    let probe_timeout = Duration::from_secs(2);
    let mut lone = LoneReplica::live_with(with(config(), |it| it.probe_timeout = probe_timeout));
    CALLS[0](&mut lone);
    lone.pass(2_000);
    assert_eq!(frames(&mut lone), (1, true));
}

#[test]
fn a_device_that_has_slept_probes_by_itself() {
    // after a short sleep only the server's time is asked for
    let cases = [(3600, 1, true), (11, 1, true), (9, 1, false), (1, 0, false), (-3600, 0, false)];
    for (seconds, pings, probes) in cases {
        let mut lone = LoneReplica::live();
        sleep(&mut lone, seconds);
        assert_eq!(frames(&mut lone), (pings, false), "{seconds}");
        lone.pass(5_000);
        assert_eq!(frames(&mut lone), (0, probes), "{seconds}");
    }
}

#[test]
fn time_that_passes_for_both_clocks_is_no_sleep() {
    let mut lone = LoneReplica::live();
    lone.pass(29_000);
    assert_eq!(frames(&mut lone), (0, false));
}

#[test]
fn what_comes_from_before_the_sleep_is_no_sign_of_life() {
    let mut lone = LoneReplica::live();
    lone.now.wall.0 += 3_600_000;
    heard(&mut lone);
    assert_eq!(frames(&mut lone), (1, false), "it may have come before");
    lone.pass(5_000);
    assert!(frames(&mut lone).1);
}

#[test]
fn a_request_and_a_dial_from_before_the_sleep_are_not_waited_for_long() {
    let mut lone = LoneReplica::new(with(config(), |it| {
        it.websocket = false;
        it.http = true;
    }));
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    sleep(&mut lone, 60);
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Request);
    lone.pass(5_000);
    assert_eq!(lone.replica.deadline().unwrap().1, Timer::Poll, "it asks again");

    let mut lone = LoneReplica::new(config());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    sleep(&mut lone, 60);
    lone.pass(5_000);
    assert!(frames(&mut lone).1);
}

#[test]
fn a_device_that_has_slept_does_not_wait_until_its_backoff_is_over() {
    let mut lone = LoneReplica::live();
    lone.cut();
    for _ in 0..8 {
        let (at, _) = lone.replica.deadline().unwrap();
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        lone.sent();
        lone.conn = lone.dialled;
        lone.cut();
    }
    let wait = |lone: &LoneReplica| lone.replica.deadline().unwrap().0.since(lone.now.mono);
    assert!(wait(&lone) > Duration::from_secs(30));
    sleep(&mut lone, 3600);
    assert!(wait(&lone) <= Duration::from_secs(1));
}
