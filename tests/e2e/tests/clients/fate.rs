//! The fate of a write, told by the value that the write returned.

use std::sync::Arc;

use serde_json::json;
use synclayer_core::{Change, Collection, Document, Policy, RecordId, UserId};
use synclayer_server::ServerConfig;
use synclayer_tokio::{ConflictStrategy, Fate, SyncError, Transports};

use crate::client::Client;
use crate::support::{Host, Passage, config, until};

/// Nobody writes `locked`.
struct Locked;

impl Policy for Locked {
    fn write(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        id: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        if id.as_str() == "locked" { Err("it is locked".into()) } else { Ok(()) }
    }
}

fn locked() -> Host {
    Host::with(ServerConfig::new().policy(Arc::new(Locked)))
}

pub fn a_write_tells_whether_the_server_has_it<C: Client>() {
    for transports in [Transports::Both, Transports::PollOnly] {
        let host = locked();
        let way = host.proxy();
        let a = C::open(config(&way).transports(transports));
        let saved = a.saved("x", &json!({"n": 1}));
        assert_eq!(saved(), Ok(Fate::Acknowledged));
        assert_eq!(saved(), Ok(Fate::Acknowledged), "it is told again");
        let refused = a.saved("locked", &json!({"n": 1}));
        let Ok(Fate::Rejected { message, .. }) = refused() else { panic!("{:?}", refused()) };
        assert_eq!(message, "it is locked");
        assert_eq!(a.retried()(), refused(), "made again, it is refused again");
        assert_eq!(a.saved("x", &json!({"n": 1}))(), Ok(Fate::Unchanged));
        a.close();
    }
}

pub fn a_joined_write_and_one_without_effect_share_the_fate_of_what_waits<C: Client>() {
    let host = locked();
    let way = host.proxy();
    let a = C::open(config(&way).connect_at_start(false));
    let fates = [
        a.saved("locked", &json!({"n": 1})),
        a.saved("locked", &json!({"n": 2})),
        a.saved("locked", &json!({"n": 2})),
    ];
    assert_eq!(a.status().pending_writes, 1);
    a.connect();
    for fate in &fates {
        assert!(matches!(fate(), Ok(Fate::Rejected { .. })), "{:?}", fate());
    }
    a.close();
}

pub fn a_write_that_the_strategy_gives_up_says_so<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let conflict_strategy = ConflictStrategy::ServerWins;
    let a = C::open(config(&a_way).conflict_strategy(conflict_strategy));
    let b = C::open(config(&b_way));
    a.save("x", &json!({"n": 1, "m": 1}));
    a.synced();
    until("the record is on b", || b.shown().contains_key("x"));
    a.set_online(false);
    b.update("x", &json!({"n": 2}));
    b.synced();
    let lost = a.saved("x", &json!({"n": 3, "m": 1}));
    a.set_online(true);
    assert_eq!(lost(), Ok(Fate::GivenUp));
    // where a part of it is left, that part is what is told of
    a.set_online(false);
    b.update("x", &json!({"n": 4}));
    b.synced();
    let left = a.saved("x", &json!({"n": 5, "m": 5}));
    a.set_online(true);
    assert_eq!(left(), Ok(Fate::Acknowledged));
    assert_eq!(json!(a.shown()), json!({"x": {"n": 4, "m": 5}}));
    a.close();
}

pub fn a_client_that_closes_leaves_nobody_waiting<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    way.rule_requests(|_| Passage::Stall);
    let a = C::open(config(&way));
    let waits = a.saved("x", &json!({"n": 1}));
    a.close();
    assert_eq!(waits(), Err(SyncError::Closed));
}

/// Most apps drop what a write returns.
pub fn writes_that_nobody_waits_for_are_forgotten<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let a = C::open(config(&way).connect_at_start(false));
    let kept = a.saved("kept", &json!({"n": 0}));
    for n in 0..3_000 {
        a.save(&format!("r{n}"), &json!({"n": n}));
    }
    a.connect();
    assert_eq!(kept(), Ok(Fate::Acknowledged));
    a.synced();
    a.close();
}
