//! The tests, each for any client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_server::ServerConfig;
use synclayer_tokio::{
    Event, EventKind, SyncConfig, SyncError, SyncFailureReason, Transport, Transports,
};

use crate::client::{Blocking, Client, Tokio};
use crate::support::{Host, Passage, Proxy, Request, TIMEOUT, TODOS, config, on_disk, until};

fn poll_only(proxy: &Proxy) -> SyncConfig {
    config(proxy).transports(Transports::PollOnly)
}

/// Both hold the same, which their checksums prove.
fn same<A: Client, B: Client>(a: &A, b: &B) {
    // twice, for what one's conflicts made the other still learn
    for _ in 0..2 {
        a.synced();
        b.synced();
    }
    assert_eq!(a.shown(), b.shown());
    let [left, right] = [a.status(), b.status()].map(|status| {
        let (_, todos) = status.collections.into_iter().next().unwrap();
        (status.pending_writes, todos.count, todos.checksum)
    });
    assert_eq!(left, right);
    assert_eq!(left.0, 0);
}

pub fn two_devices_converge_in_real_time<C: Client>() {
    let host = Host::start();
    let proxies = [host.proxy(), host.proxy()];
    let [mut a, b] = [0, 1].map(|i| C::open(config(&proxies[i])));
    a.save("x", &json!({"text": "milk", "n": 1}));
    until("the record is on b", || b.shown().contains_key("x"));
    b.update("x", &json!({"n": 2}));
    a.update("x", &json!({"text": "bread"}));
    a.save("y", &json!({}));
    b.save("z", &json!({"deep": {"er": [1, 2.50]}}));
    same(&a, &b);
    a.delete("y");
    same(&a, &b);
    let expected = json!({"x": {"text": "bread", "n": 2}, "z": {"deep": {"er": [1, 2.50]}}});
    assert_eq!(json!(a.shown()), expected);
    a.told("a remote insert", |event| {
        let remote = matches!(event.kind, EventKind::RealtimeInsert { .. });
        remote && event.transport == Some(Transport::WebSocket)
    });
    let status = a.status();
    assert_eq!(status.transport, Some(Transport::WebSocket));
    let offered = status.guarantees.unwrap();
    assert!(offered.resume && offered.exactly_once && offered.ordered && offered.verified);
    a.close();
    b.close();
}

pub fn polling_and_real_time_converge<C: Client>() {
    let host = Host::start();
    let (polls, lives) = (host.proxy(), host.proxy());
    let (polling, live) = (C::open(poll_only(&polls)), C::open(config(&lives)));
    polling.save("x", &json!({"a": 1}));
    until("the push shows in real time", || live.shown().contains_key("x"));
    live.update("x", &json!({"b": 2}));
    live.save("y", &json!({"c": 3}));
    live.synced();
    polling.sync_now();
    until("the pull shows", || polling.shown().contains_key("y"));
    polling.delete("y");
    // the same field on both: a conflict for the later of the two
    polling.update("x", &json!({"a": "polling"}));
    live.update("x", &json!({"a": "live"}));
    same(&polling, &live);
    assert!(!live.shown().contains_key("y"));
    assert_eq!(polling.status().transport, Some(Transport::Http));
    assert!(polls.exchanges().iter().all(|passed| !passed.request.upgrade));
    assert_eq!((polling.rejected(), live.rejected()), (0, 0));
}

/// More collections than a connection may subscribe: the call names those that were refused, and
/// all else is in sync.
pub fn synced_names_what_the_server_refuses<C: Client>() {
    let mut server = ServerConfig::new();
    server.limits.subscriptions = 2;
    let host = Host::with(server);
    let (first, second) = (host.proxy(), host.proxy());
    let collections = ["a", "b", TODOS].map(String::from).to_vec();
    let many = C::open(config(&first).collections(collections));
    many.save("x", &json!({"n": 1}));
    let Some(Err(SyncError::NotInSync(failures))) = many.outcome() else {
        panic!("it is said to be in sync");
    };
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!(&*failure.collection, TODOS);
    assert!(matches!(failure.reason, SyncFailureReason::Refused { .. }), "{failure:?}");
    let text = SyncError::NotInSync(failures.clone()).to_string();
    assert!(text.contains(TODOS) && text.contains("INVALID_MESSAGE"), "{text}");
    assert_eq!(many.status().pending_writes, 0, "the write was waited for");
    let one = C::open(config(&second));
    one.synced();
    assert!(one.shown().contains_key("x"));
}

/// A client of three hundred collections holds what the server holds in each.
pub fn hundreds_of_collections_are_in_sync<C: Client>() {
    let host = Host::start();
    let (many_way, one_way) = (host.proxy(), host.proxy());
    let mut collections: Vec<_> = (0..300).map(|n| format!("c{n:0>5}")).collect();
    // the last one by its name
    collections.push(TODOS.into());
    let many = C::open(config(&many_way).collections(collections));
    many.synced();
    let one = C::open(config(&one_way));
    one.save("x", &json!({"v": 1}));
    until("a change in the last collection comes", || many.shown().contains_key("x"));
    many.synced();
    assert!(many.status().collections.values().all(|collection| collection.live));
}

/// A collection that was left is no longer kept in sync, stays stored, and is joined again by its
/// next use.
pub fn a_collection_that_was_left_stays_as_it_was_until_it_is_used_again<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (a, b) = (C::open(config(&a_way)), C::open(config(&b_way)));
    a.save("x", &json!({"n": 1}));
    a.synced();
    b.synced();
    assert!(b.shown().contains_key("x"));
    b.unsubscribe();
    let in_use = |client: &C| client.status().collections[TODOS].in_use;
    assert!(!in_use(&b));
    a.save("y", &json!({"n": 2}));
    a.synced();
    b.synced();
    let status = b.status();
    assert!(!status.collections[TODOS].live);
    assert_eq!(status.collections[TODOS].count, 1, "what is stored stays");
    // a read is a use
    until("the rest comes", || b.shown().contains_key("y"));
    assert!(in_use(&b));
}

/// A collection is left when its last handle is gone, and joined again by the next.
pub fn a_collection_without_handles_is_left_after_a_while<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let keep_for = Some(Duration::from_millis(20));
    let client = C::open(config(&way).keep_for(keep_for));
    let status = |name: &str| client.status().collections.get(name).cloned();
    let in_use = |name: &str| status(name).is_some_and(|of| of.in_use);
    let is_live = |name: &str| status(name).is_some_and(|of| of.live);
    let [one, other] = client.handles("notes");
    until("it is live", || is_live("notes"));
    drop(one);
    // longer than it is kept for
    let later = Instant::now() + Duration::from_millis(60);
    until("some time passes", || Instant::now() > later);
    assert!(in_use("notes"), "a clone of the handle is left");
    drop(other);
    until("it is left", || !in_use("notes"));
    assert!(in_use(TODOS), "the configuration names it");
    let again = client.handles("notes");
    until("it is live again", || is_live("notes"));
    drop(again);
}

/// Both kinds of clients, each on both transports, see what the others write.
pub fn all_kinds_converge() {
    let host = Host::start();
    let ways: Vec<Proxy> = (0..4).map(|_| host.proxy()).collect();
    let (a, b) = (Tokio::open(config(&ways[0])), Blocking::open(config(&ways[1])));
    let (c, d) = (Tokio::open(poll_only(&ways[2])), Blocking::open(poll_only(&ways[3])));
    a.save("a", &json!({"n": 1}));
    b.save("b", &json!({"n": 2}));
    c.save("c", &json!({"n": 3}));
    d.save("d", &json!({"n": 4}));
    a.synced();
    b.synced();
    same(&c, &d);
    same(&a, &b);
    same(&a, &c);
    assert_eq!(d.shown().len(), 4);
}

pub fn offline_writes_survive_a_restart_and_arrive<C: Client>() {
    let (host, home) = (Host::start(), tempfile::tempdir().unwrap());
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let stored = |way: &Proxy| config(way).store(on_disk(home.path()));
    let offline = C::open(stored(&a_way).connect_at_start(false));
    offline.save("x", &json!({"n": 1}));
    offline.update("x", &json!({"n": 2}));
    offline.save("y", &json!({}));
    offline.close();
    assert!(a_way.exchanges().is_empty());

    let (a, b) = (C::open(stored(&a_way)), C::open(poll_only(&b_way)));
    assert_eq!(json!(a.shown()), json!({"x": {"n": 2}, "y": {}}));
    same(&a, &b);
    assert_eq!(b.shown().len(), 2);
    a.close();
}

fn blocked(fate: impl Fn() -> Passage + Send + 'static) -> impl FnMut(&Request) -> Passage + Send {
    move |request| if request.upgrade { fate() } else { Passage::Pass }
}

fn polls(event: &Event) -> bool {
    let by_websocket = event.transport == Some(Transport::WebSocket);
    by_websocket && matches!(&event.kind, EventKind::Error { cause: Some(_), .. })
}

pub fn a_blocked_upgrade_leads_to_polling_and_back<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let refusals = AtomicUsize::new(0);
    a_way.rule_requests(blocked(move || match refusals.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Passage::Answer(502, "", "<html>Bad gateway</html>"),
        1 => Passage::Answer(200, "content-type: text/html\r\n", "<html>Hello</html>"),
        _ => Passage::Break,
    }));
    let (mut a, b) = (C::open(config(&a_way)), C::open(config(&b_way)));
    a.save("x", &json!({"n": 1}));
    a.synced();
    assert_eq!(a.status().transport, Some(Transport::Http));
    a.told("that it polls", polls);
    until("the write is on b", || b.shown().contains_key("x"));

    a_way.free();
    a.set_online(true); // what apps do when the network changes
    a.told("that real time is back", |event| matches!(event.kind, EventKind::RealtimeConnected));
    b.update("x", &json!({"n": 2}));
    until("the change comes in real time", || a.shown()["x"] == json!({"n": 2}));
    same(&a, &b);
    assert_eq!(a.status().transport, Some(Transport::WebSocket));
}

pub fn a_stalled_upgrade_leads_to_polling<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    way.rule_requests(blocked(|| Passage::Stall));
    let mut a = C::open(config(&way));
    a.save("x", &json!({"n": 1}));
    a.synced();
    assert_eq!(a.status().transport, Some(Transport::Http));
    a.told("that it polls", polls);
    a.close();
}

pub fn a_stalled_request_is_given_up_and_made_again<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let mut left = 2;
    way.rule_requests(move |_| {
        left -= i32::from(left > 0);
        if left > 0 { Passage::Stall } else { Passage::Pass }
    });
    let request_timeout = Duration::from_millis(300);
    let mut a = C::open(poll_only(&way).request_timeout(request_timeout));
    a.save("x", &json!({"n": 1}));
    a.synced();
    a.told("why it took so long", |event| {
        matches!(event.kind, EventKind::Error { .. }) && event.transport == Some(Transport::Http)
    });
}

/// Every request of these gets an answer of this kind three times; then all is well.
fn recovers_from<C: Client>(fate: &Passage, told: &str) -> Duration {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (mut a, b) = (C::open(poll_only(&a_way)), C::open(poll_only(&b_way)));
    a.save("before", &json!({}));
    a.synced();

    let (left, fate) = (Arc::new(AtomicUsize::new(3)), fate.clone());
    let counted = Arc::clone(&left);
    a_way.rule_requests(move |_| {
        let take = |left: usize| left.checked_sub(1);
        match counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => fate.clone(),
            Err(_) => Passage::Pass,
        }
    });
    let begin = Instant::now();
    a.save("x", &json!({"n": 1}));
    a.told(told, |event| {
        let said =
            matches!(&event.kind, EventKind::Error { message, .. } if message.contains(told));
        said && event.transport == Some(Transport::Http)
    });
    a.synced();
    assert_eq!(left.load(Ordering::Relaxed), 0);
    same(&a, &b);
    assert_eq!((b.shown().len(), a.rejected()), (2, 0));
    begin.elapsed()
}

pub fn a_failing_server_is_asked_again<C: Client>() {
    recovers_from::<C>(
        &Passage::Answer(500, "", r#"{"error":"oops","code":"SERVER_ERROR"}"#),
        "oops",
    );
    recovers_from::<C>(&Passage::LoseAnswer, "");
}

pub fn a_busy_server_is_given_its_time<C: Client>() {
    let fate = Passage::Answer(429, "retry-after: 1\r\n", "");
    let took = recovers_from::<C>(&fate, "429");
    assert!(took >= Duration::from_secs(3), "three times a second: {took:?}");
}

pub fn pages_of_something_else_are_no_answers<C: Client>() {
    let portal = "<!doctype html><title>Welcome to our hotel</title>";
    recovers_from::<C>(&Passage::Answer(200, "content-type: text/html\r\n", portal), "");
    recovers_from::<C>(&Passage::Answer(503, "content-type: text/html\r\n", portal), "503");
}

pub fn a_push_that_is_too_large_is_made_smaller<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    a_way.rule_requests(|request| {
        if request.path == "/sync/push" && request.body > 4000 {
            return Passage::Answer(413, "content-type: text/html\r\n", "<html>Too large</html>");
        }
        Passage::Pass
    });
    let a = C::open(poll_only(&a_way).connect_at_start(false));
    for n in 0..50 {
        a.save(&format!("r{n}"), &json!({"text": "x".repeat(300)}));
    }
    let b = C::open(poll_only(&b_way));
    a.connect();
    same(&a, &b);
    assert_eq!((b.shown().len(), a.rejected()), (50, 0));
}

pub fn a_refused_token_is_asked_for_and_nothing_is_dropped<C: Client>() {
    for transports in [Transports::Both, Transports::PollOnly, Transports::RealtimeOnly] {
        let host = Host::with_tokens(&["good", "fresh"]);
        let way = host.proxy();
        let config = config(&way).auth_token("stale").user("ann").transports(transports);
        let mut a = C::open(config);
        a.save("x", &json!({"n": 1}));
        a.told("that a token is needed", |e| matches!(e.kind, EventKind::TokenNeeded { .. }));
        assert_eq!((a.status().pending_writes, a.rejected()), (1, 0));
        a.set_token("fresh");
        a.synced();
        assert_eq!((a.status().pending_writes, a.rejected()), (0, 0));
        a.close();
    }
}

pub fn writes_take_effect_once_whatever_carries_them<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (a, b) = (C::open(config(&a_way)), C::open(config(&b_way)));
    a.save("x", &json!({}));
    let mut requests = 0;
    a_way.rule_requests(move |request| {
        requests += 1;
        match requests % 7 {
            1 | 4 if request.upgrade => Passage::Answer(502, "", ""),
            3 => Passage::LoseAnswer,
            5 => Passage::Break,
            _ => Passage::Pass,
        }
    });
    for n in 0..60 {
        a.update("x", &json!({format!("t{n}"): n}));
        if n % 3 == 0 {
            a_way.cut();
        }
        if n % 10 == 0 {
            a.set_online(true);
        }
    }
    a_way.free();
    a.set_online(true);
    same(&a, &b);
    let shown = b.shown();
    assert_eq!(shown["x"].as_object().unwrap().len(), 60);
    // one insert and sixty updates, some of them squashed, none of them twice
    assert!(b.records()[0].version <= 61, "{}", b.records()[0].version);
    assert_eq!(a.rejected(), 0);
}

pub fn a_server_that_comes_back_is_found<C: Client>() {
    let mut host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (a, b) = (C::open(config(&a_way)), C::open(poll_only(&b_way)));
    a.save("x", &json!({"n": 1}));
    same(&a, &b);
    host.stop();
    a.update("x", &json!({"n": 2}));
    b.save("y", &json!({}));
    until("the loss is noticed", || a.status().transport.is_none());
    host.run();
    same(&a, &b);
    assert_eq!(json!(a.shown()), json!({"x": {"n": 2}, "y": {}}));
}

pub fn an_idle_hour_of_polling_is_cheap<C: Client>() {
    const POLLS_AN_HOUR: usize = 3600 / 300;
    let host = Host::start();
    let way = host.proxy();
    let sync_interval = Duration::from_millis(50);
    let a = C::open(poll_only(&way).sync_interval(sync_interval));
    a.save("x", &json!({"text": "Buy milk"}));
    a.synced();
    let before = way.exchanges().len();
    until("ten more polls", || way.exchanges().len() >= before + 10);
    let idle = &way.exchanges()[before..before + 10];
    let bytes = idle.iter().map(|passed| passed.bytes).sum::<usize>() / 10 * POLLS_AN_HOUR;
    println!("an idle hour of polling: {bytes} bytes");
    assert!(bytes <= 10_000, "{bytes} bytes an hour: {idle:#?}");
    a.close();
}

pub fn without_the_clock_it_asks_when_told<C: Client>() {
    let host = Host::start();
    let (quiet_way, live_way) = (host.proxy(), host.proxy());
    let quiet = poll_only(&quiet_way).enable_auto_sync(false);
    let (quiet, live) = (C::open(quiet), C::open(config(&live_way)));
    live.synced();
    quiet.save("a", &json!({}));
    assert_eq!(quiet.status().pending_writes, 1);
    quiet.set_online(false);
    quiet.sync_now();
    assert_eq!(quiet.status().transport, None);
    assert!(quiet_way.exchanges().is_empty());
    quiet.set_online(true);
    quiet.sync_now();
    until("the write is on the other", || live.shown().contains_key("a"));
}

pub fn the_app_can_say_whether_there_is_a_network<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let mut a = C::open(config(&way));
    a.synced();
    a.set_online(false);
    a.told("that it is offline", |event| {
        matches!(event.kind, EventKind::ConnectivityChanged { online: false })
    });
    let before = way.exchanges().len();
    a.save("x", &json!({}));
    a.set_online(true);
    a.synced();
    assert!(way.exchanges().len() > before);
    assert_eq!(a.status().pending_writes, 0);
}

pub fn closing_waits_for_no_answer<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    way.rule_requests(|_| Passage::Stall);
    let request_timeout = TIMEOUT * 10;
    let a = C::open(poll_only(&way).request_timeout(request_timeout));
    a.save("x", &json!({}));
    let begin = Instant::now();
    a.close();
    assert!(begin.elapsed() < TIMEOUT, "the request would still take minutes");
}
