//! The times at which exchanges begin.

use std::time::Duration;

use synclayer_core::{
    Command, ConnectionState, Disconnect, EventKind, Guarantees, HttpAnswer, Input, Timer,
    Transport,
};

use crate::lone_replica::{LoneReplica, change, config, synced, todos, with};
use crate::support::{
    SYNC_A, both, first_page, http_only, idle, page, pong, quiet_page, subscribed,
};

#[test]
fn synced_is_answered_by_an_exchange_that_begins_after_it() {
    let mut lone = idle();
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("GET /sync/todos"));
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.answer(200, &quiet_page(0));
    let sent = lone.sent();
    assert_eq!(sent[0], "SYNCED 0");
    assert!(sent[1].starts_with("GET /sync/todos"), "the second call came too late: {sent:?}");
    lone.answer(200, &quiet_page(0));
    assert_eq!(lone.sent(), ["SYNCED 1"]);
}

#[test]
fn synced_waits_for_a_collection_that_can_not_be_pulled_now() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = http_only();
    config.collections.insert(0, notes);
    let subscribed =
        r#"{"type":"subscribed","collection":"notes","metadata":{"head":0,"mode":"snapshot"}}"#;
    let sync = r#"{"type":"sync","collection":"notes","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#;
    let synced = synced("e1", 0, &[]).replace("todos", "notes");
    let all = page("", 0, &[subscribed, sync, &synced]);
    let subscribed = subscribed.replace("snapshot", "delta");
    let quiet = page(r#""epoch":"e1","seq":0"#, 0, &[&subscribed, &synced]);
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, ""), &all, &first_page()]);
    lone.sent();
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.answer(200, &quiet);
    lone.sent();
    lone.answer(504, "");
    assert!(lone.sent().is_empty(), "todos were not pulled");
    let (at, _) = lone.replica.deadline().unwrap();
    let wait = at.since(lone.now.mono);
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2), "{wait:?}");
    lone.pass(2_000);
    lone.answer_all(&[&pong(0, ""), &quiet, &quiet_page(0)]);
    assert!(lone.sent().contains(&"SYNCED 0".to_owned()));
}

#[test]
fn without_auto_sync_only_calls_start_an_exchange() {
    let mut lone = LoneReplica::new(with(http_only(), |it| it.enable_auto_sync = false));
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.save("b", r#"{"n":2}"#);
    assert!(lone.sent().is_empty());
    assert_eq!(lone.replica.deadline(), None);
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
}

#[test]
fn sync_now_ends_a_wait() {
    let mut lone = idle();
    lone.pass(315_000);
    lone.resolve(HttpAnswer::Failed("cut".into()));
    lone.sent();
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
}

#[test]
fn without_a_network_nothing_is_tried() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.replica.command(lone.now, Command::SetOnline(false), &mut lone.actions);
    assert_eq!(lone.sent(), ["CLOSE"]);
    assert_eq!(lone.replica.deadline(), None);
    assert_eq!(lone.replica.status().connection, ConnectionState::Disconnected);
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    lone.save("b", r#"{"n":2}"#);
    assert!(lone.sent().is_empty());
    lone.replica.command(lone.now, Command::SetOnline(true), &mut lone.actions);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.conn.0 = 2;
    lone.cut();
    assert!(lone.sent()[1].starts_with("POST /sync/session"));
    lone.replica.command(lone.now, Command::SetOnline(false), &mut lone.actions);
    assert_eq!(lone.replica.deadline(), None);
    let late = lone.replica.status().ignored_frames;
    lone.answer(200, &pong(0, ""));
    assert_eq!(lone.replica.status().ignored_frames, late + 1);
}

#[test]
fn a_live_connection_is_proved_right_now_and_then() {
    let mut lone = LoneReplica::live();
    let ask =
        r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":6}}}"#;
    lone.hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-01-01T00:00:00Z"));
    let sent = lone.stay_alive(300_000);
    assert_eq!(sent, [ask], "something has come since the last proof");
    assert!(lone.replica.status().collections[&todos()].live, "nothing to see for the app");
    lone.hear(&subscribed("delta", 6));
    assert!(!lone.replica.status().collections[&todos()].catching_up);
    lone.hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    assert_eq!(lone.stay_alive(3_000_000), [""; 0], "nothing has come: no need yet");
    assert_eq!(lone.stay_alive(300_000), [ask], "but once an hour");
    lone.hear(&subscribed("delta", 6));
    lone.hear(&synced("e1", 6, &[("a", 6, r#"{"n":2,"t":"x"}"#)]));
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert_eq!(lone.sent(), ["PING", ask], "or at once");
}

#[test]
fn used_up_tries_leave_polling_and_a_slow_pace() {
    let mut lone = LoneReplica::new(with(both(), |it| it.max_reconnect_attempts = Some(2)));
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    let mut dialled = 0;
    let mut waits = Vec::new();
    for _ in 0..400 {
        for line in lone.sent() {
            if line == "CONNECT" {
                dialled += 1;
                waits.push(lone.now.mono);
                lone.conn.0 = dialled;
                let why = Disconnect::Refused { status: 426, retry_after: None, body: Vec::new() };
                let input = Input::Disconnected { conn: lone.conn, why };
                lone.replica.handle(lone.now, input, &mut lone.actions);
            } else if line.starts_with("POST") {
                lone.answer(200, &pong(0, ""));
            } else if line.contains("seq=5") {
                lone.answer(200, &quiet_page(0));
            } else if line.starts_with("GET") {
                lone.answer(200, &first_page());
            }
        }
        let (at, _) = lone.replica.deadline().unwrap();
        if at.0 > 3_600_000 {
            break;
        }
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
    }
    assert!(
        (8..=10).contains(&dialled),
        "three tries, then one about every ten minutes: {waits:?}"
    );
    assert_eq!(lone.replica.status().transport, Some(Transport::Http));
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    assert!(lone.sent().contains(&"CONNECT".to_string()), "at once when the app asks");
}

#[test]
fn what_the_app_requires_is_offered_or_nothing_is_sent() {
    let verified = Guarantees { verified: true, ..Guarantees::default() };
    let mut lone = LoneReplica::new(with(http_only(), |it| it.required = verified));
    lone.save("b", r#"{"n":2}"#);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer_all(&[&pong(0, "")]);
    let partial = r#"{"type":"subscribed","collection":"todos","metadata":{"mode":"snapshot","head":5,"partial":true}}"#;
    lone.answer(200, &page("", 0, &[partial, SYNC_A]));
    assert!(lone.sent().iter().all(|line| !line.contains("/sync/push")));
    let offered =
        Guarantees { resume: true, exactly_once: true, ordered: true, ..Guarantees::default() };
    assert!(lone.saw(|kind| *kind == EventKind::GuaranteesMissing { offered, required: verified }));
    assert_eq!(lone.replica.deadline(), None);
    assert_eq!(lone.replica.status().connection, ConnectionState::Error);
    assert_eq!(lone.replica.status().pending_writes, 1);
}

/// Answers everything with a failure until `until`; the times of all tries.
fn outage(lone: &mut LoneReplica, until: u64, fail: impl Fn(&mut LoneReplica)) -> Vec<u64> {
    let mut tries = Vec::new();
    loop {
        let (now, mut failed) = (lone.now.mono.0, false);
        for line in lone.sent() {
            if line == "CONNECT" {
                tries.push(now);
                let input = Input::Disconnected {
                    conn: lone.dialled,
                    why: Disconnect::Lost("refused".into()),
                };
                lone.replica.handle(lone.now, input, &mut lone.actions);
                failed = true;
            } else if line.starts_with("POST") || line.starts_with("GET") {
                tries.push(now);
                fail(lone);
                failed = true;
            }
        }
        if failed {
            continue;
        }
        let (at, _) = lone.replica.deadline().unwrap();
        if at.0 > until {
            return tries;
        }
        lone.pass(at.0.saturating_sub(now));
    }
}

#[test]
fn an_outage_costs_few_requests_and_its_end_is_soon_noticed() {
    let websocket_only = config();
    for base in [http_only(), both(), websocket_only] {
        for seed in 0..1_000 {
            let mut lone = LoneReplica::seeded(base.clone(), seed);
            if seed % 2 == 0 {
                lone.save("b", r#"{"n":2}"#);
            }
            lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
            let start = lone.now.mono.0;
            let tries = outage(&mut lone, start + 600_000, |lone| {
                if seed % 3 == 0 {
                    lone.answer(500, "<html>down</html>");
                } else {
                    lone.resolve(HttpAnswer::Failed("refused".into()));
                }
                if seed % 4 == 0 {
                    lone.save("b", &format!(r#"{{"n":{}}}"#, lone.now.mono.0));
                }
            });
            let all: Vec<_> = tries.iter().map(|at| (at - start) / 1_000).collect();
            assert!(all.len() <= 20, "seed {seed}: {} tries: {all:?}", all.len());
            let next = lone.replica.deadline().unwrap().0.0 - tries.last().unwrap();
            assert!(next <= 120_000, "seed {seed}: {next} ms to the next try");
        }
    }
}

#[test]
fn a_thousand_clients_do_not_come_back_in_lock_step() {
    for base in [config(), both()] {
        let mut tries = Vec::new();
        for seed in 0..1_000 {
            let mut lone = LoneReplica::seeded(base.clone(), seed);
            lone.dial();
            lone.welcome(0, "");
            lone.sent();
            lone.cut();
            // the server is away for five seconds
            let end = lone.now.mono.0 + 5_000;
            outage(&mut lone, end, |lone| {
                lone.resolve(HttpAnswer::Failed("refused".into()));
            });
            tries.push(lone.replica.deadline().unwrap().0.0 - end);
        }
        tries.sort_unstable();
        let busiest = tries.chunk_by(|a, b| a / 100 == b / 100).map(<[u64]>::len).max().unwrap();
        let (first, last) = (tries[0], tries[999]);
        assert!(busiest <= 60, "{busiest} of 1,000 within a tenth of a second");
        assert!(last - first >= 4_000, "spread over {first} to {last} ms");
    }
}

/// A replica whose WebSocket was refused for 40 s.
fn asked_to_wait() -> LoneReplica {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let why = Disconnect::Refused {
        status: 429,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let input = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    lone
}

#[test]
fn a_wait_that_the_server_asks_for_holds_for_both_transports() {
    let mut lone = asked_to_wait();
    assert_eq!(lone.sent(), ["CLOSE"], "HTTP waits as well");
    let (at, _) = lone.replica.deadline().unwrap();
    assert!(at.since(lone.now.mono) >= Duration::from_secs(40));

    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let why = Disconnect::Lost("refused".into());
    let input = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, input, &mut lone.actions);
    lone.answer_with(503, Some(40), "<html>busy</html>");
    lone.sent();
    let (at, _) = lone.replica.deadline().unwrap();
    assert!(at.since(lone.now.mono) >= Duration::from_secs(40), "the WebSocket waits as well");
}

#[test]
fn what_comes_over_one_transport_does_not_end_a_wait_that_the_other_was_asked_for() {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let lost = Input::Disconnected { conn: lone.dialled, why: Disconnect::Lost("lost".into()) };
    lone.replica.handle(lone.now, lost, &mut lone.actions);
    lone.sent();
    lone.answer(500, "");
    let mut sent = lone.sent();
    // the next hello is under way while the WebSocket is asked for again, and refused
    while !sent.iter().any(|line| line.starts_with("POST")) {
        let (at, _) = lone.replica.deadline().unwrap();
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        sent = lone.sent();
    }
    let why = Disconnect::Refused {
        status: 503,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let refused = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, refused, &mut lone.actions);
    lone.answer(200, &pong(0, ""));
    lone.answer(200, &first_page());
    lone.sent();
    lone.pass(39_000);
    assert!(!lone.sent().contains(&"CONNECT".to_owned()), "it was asked to wait for 40 s");
}

/// An exchange by HTTP is under way, the app has asked for another, and the WebSocket is refused for 40 s.
fn asked_to_wait_in_mid_exchange(ask: fn(&mut LoneReplica)) -> LoneReplica {
    let mut lone = LoneReplica::new(both());
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    let lost = Input::Disconnected { conn: lone.dialled, why: Disconnect::Lost("lost".into()) };
    lone.replica.handle(lone.now, lost, &mut lone.actions);
    lone.answer(200, &pong(0, ""));
    lone.sent();
    lone.replica.command(lone.now, Command::SyncNow, &mut lone.actions);
    ask(&mut lone);
    assert_eq!(lone.sent(), ["CONNECT"]);
    let why = Disconnect::Refused {
        status: 503,
        retry_after: Some(Duration::from_secs(40)),
        body: Vec::new(),
    };
    let refused = Input::Disconnected { conn: lone.dialled, why };
    lone.replica.handle(lone.now, refused, &mut lone.actions);
    lone.sent();
    lone
}

#[test]
fn a_wait_holds_for_the_exchange_that_was_asked_for_during_another() {
    let asks: [fn(&mut LoneReplica); 2] = [
        |_| (),
        |lone| {
            lone.replica.synced(lone.now, &mut lone.actions);
        },
    ];
    for ask in asks {
        let mut lone = asked_to_wait_in_mid_exchange(ask);
        lone.answer(200, &first_page());
        lone.pass(39_000);
        let sent = lone.sent();
        assert!(sent.iter().all(|line| line.starts_with("SYNCED")), "{sent:?}");
        lone.pass(2_000);
        assert!(lone.sent().iter().any(|line| line.starts_with("GET")), "the wait is over");
    }
}

#[test]
fn a_wait_is_heeded_whatever_else_the_answer_says() {
    let refused = |status| Disconnect::Refused {
        status,
        retry_after: Some(Duration::from_secs(400)),
        body: br#"{"error":"no","code":"AUTH_FAILED"}"#.to_vec(),
    };
    for (status, by_http) in [(401, false), (403, false), (401, true), (403, true), (503, true)] {
        let mut lone = LoneReplica::new(both());
        lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
        lone.sent();
        let lost = Disconnect::Lost("lost".into());
        let why = if by_http { lost } else { refused(status) };
        let input = Input::Disconnected { conn: lone.dialled, why };
        lone.replica.handle(lone.now, input, &mut lone.actions);
        if by_http {
            lone.answer_with(status, Some(400), r#"{"error":"no","code":"AUTH_FAILED"}"#);
        }
        lone.sent();
        lone.pass(399_000);
        assert!(lone.sent().is_empty(), "{status}: it was asked to wait for 400 s");
    }
}

#[test]
fn a_write_does_not_end_a_wait_that_the_server_asked_for() {
    let mut lone = asked_to_wait();
    lone.save("b", r#"{"n":2}"#);
    assert_eq!(lone.sent(), ["CLOSE"]);
    lone.replica.synced(lone.now, &mut lone.actions);
    assert!(lone.sent().is_empty());
}

#[test]
fn a_websocket_that_is_lost_and_then_takes_long_leaves_polling() {
    let mut lone = LoneReplica::live_with(both());
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    assert_eq!(lone.sent(), ["CONNECT"]);
    lone.pass(3_000);
    lone.answer(200, &quiet_page(0));
    lone.sent();
    assert_eq!(lone.replica.status().transport, Some(Transport::Http));
    assert!(matches!(lone.replica.deadline().unwrap().1, Timer::Connect | Timer::Poll));
}
