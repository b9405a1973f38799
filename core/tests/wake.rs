//! The client after a possible sleep: it probes the connection, and does not wait long for an
//! answer.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod desk;

use std::time::Duration;

use synclayer_core::{ClientConfig, Command, ConnectionState, Input, Timer};

use desk::{Desk, config};

fn heard(desk: &mut Desk) {
    let conn = desk.conn;
    desk.replica.handle(desk.now, Input::Heard { conn }, &mut desk.effects);
}

/// The device sleeps: only its wall clock goes on.
fn sleep(desk: &mut Desk, seconds: i64) {
    desk.now.wall.0 += seconds * 1000;
    desk.pass(1);
}

/// Returns the number of pings sent, of either kind, and true if the connection was given up.
fn frames(desk: &mut Desk) -> (usize, bool) {
    let sent = desk.sent();
    let pings = sent.iter().filter(|line| ["PING", r#"{"type":"ping"}"#].contains(&line.as_str()));
    (pings.count(), sent.contains(&"CLOSE".to_owned()))
}

/// The calls of apps that return to the foreground.
const CALLS: [fn(&mut Desk); 2] = [
    |desk| desk.replica.command(desk.now, Command::SetOnline(true), &mut desk.effects),
    |desk| desk.replica.command(desk.now, Command::SyncNow, &mut desk.effects),
];

#[test]
fn a_call_that_everything_be_tried_probes_a_live_connection() {
    for call in CALLS {
        let mut desk = Desk::live();
        desk.pass(1_000);
        call(&mut desk);
        assert_eq!(frames(&mut desk), (1, false), "at once");
        call(&mut desk);
        assert_eq!(frames(&mut desk), (0, false), "one is enough");
        desk.pass(4_999);
        assert_eq!(frames(&mut desk), (0, false));
        desk.pass(1);
        assert_eq!(frames(&mut desk), (0, true), "it was dead");
        let (at, timer) = desk.replica.deadline().unwrap();
        assert_eq!(timer, Timer::Reconnect);
        assert!(at.since(desk.now.mono) <= Duration::from_secs(1));
    }
}

#[test]
fn whoever_answers_the_probe_is_alive() {
    for call in CALLS {
        let mut desk = Desk::live();
        call(&mut desk);
        desk.pass(4_000);
        heard(&mut desk);
        desk.pass(10_000);
        assert!(!frames(&mut desk).1);
        assert_eq!(desk.replica.status().connection, ConnectionState::Connected);
        assert_ne!(desk.replica.deadline().unwrap().1, Timer::PingTimeout);
    }
}

#[test]
fn a_ping_that_is_out_already_is_not_waited_for_longer_than_a_probe() {
    let mut desk = Desk::live();
    desk.pass(30_000);
    assert_eq!(frames(&mut desk), (1, false));
    CALLS[0](&mut desk);
    assert_eq!(frames(&mut desk), (0, false));
    desk.pass(5_000);
    assert_eq!(frames(&mut desk), (0, true));
}

#[test]
fn the_time_of_a_probe_can_be_chosen() {
    let probe_timeout = Duration::from_secs(2);
    let mut desk = Desk::live_with(ClientConfig { probe_timeout, ..config() });
    CALLS[0](&mut desk);
    desk.pass(2_000);
    assert_eq!(frames(&mut desk), (1, true));
}

#[test]
fn a_device_that_has_slept_probes_by_itself() {
    // after a short sleep only the server's time is asked for
    let cases = [(3600, 1, true), (11, 1, true), (9, 1, false), (1, 0, false), (-3600, 0, false)];
    for (seconds, pings, probes) in cases {
        let mut desk = Desk::live();
        sleep(&mut desk, seconds);
        assert_eq!(frames(&mut desk), (pings, false), "{seconds}");
        desk.pass(5_000);
        assert_eq!(frames(&mut desk), (0, probes), "{seconds}");
    }
}

#[test]
fn time_that_passes_for_both_clocks_is_no_sleep() {
    let mut desk = Desk::live();
    desk.pass(29_000);
    assert_eq!(frames(&mut desk), (0, false));
}

#[test]
fn what_comes_from_before_the_sleep_is_no_sign_of_life() {
    let mut desk = Desk::live();
    desk.now.wall.0 += 3_600_000;
    heard(&mut desk);
    assert_eq!(frames(&mut desk), (1, false), "it may have come before");
    desk.pass(5_000);
    assert!(frames(&mut desk).1);
}

#[test]
fn a_request_and_a_dial_from_before_the_sleep_are_not_waited_for_long() {
    let mut desk = Desk::new(ClientConfig { websocket: false, http: true, ..config() });
    desk.replica.command(desk.now, Command::Connect, &mut desk.effects);
    desk.sent();
    sleep(&mut desk, 60);
    assert_eq!(desk.replica.deadline().unwrap().1, Timer::Request);
    desk.pass(5_000);
    assert_eq!(desk.replica.deadline().unwrap().1, Timer::Poll, "it asks again");

    let mut desk = Desk::new(config());
    desk.replica.command(desk.now, Command::Connect, &mut desk.effects);
    desk.sent();
    sleep(&mut desk, 60);
    desk.pass(5_000);
    assert!(frames(&mut desk).1);
}

#[test]
fn a_device_that_has_slept_does_not_wait_until_its_backoff_is_over() {
    let mut desk = Desk::live();
    desk.cut();
    for _ in 0..8 {
        let (at, _) = desk.replica.deadline().unwrap();
        desk.pass(at.since(desk.now.mono).as_millis() as u64);
        desk.sent();
        desk.conn = desk.dialled;
        desk.cut();
    }
    let wait = |desk: &Desk| desk.replica.deadline().unwrap().0.since(desk.now.mono);
    assert!(wait(&desk) > Duration::from_secs(30));
    sleep(&mut desk, 3600);
    assert!(wait(&desk) <= Duration::from_secs(1));
}
