//! Callbacks of the app that call the client which waits for them.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::json;
use synclayer_tokio::{
    Conflict, ConflictStrategy, Document, EventKind, Resolver, SyncConfig, SyncError,
};

use crate::client::Client;
use crate::support::{Host, TODOS, config, until};

/// Calls of a client, each with its name and how it ended.
pub type Calls = Box<dyn Fn() -> Vec<(&'static str, Result<(), SyncError>)> + Send + Sync>;

/// A resolver that makes every call of the client that waits for it.
#[derive(Default)]
struct CallsBack {
    calls: OnceLock<Calls>,
    ended: Mutex<Vec<(&'static str, Result<(), SyncError>)>>,
}

impl Resolver for CallsBack {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        if let Some(calls) = self.calls.get() {
            self.ended.lock().unwrap().extend(calls());
        }
        conflict.local.cloned()
    }
}

pub fn a_resolver_that_calls_its_client_gets_an_error_at_once<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let resolver = Arc::new(CallsBack::default());
    let a = C::open(config(&a_way).custom_conflict_resolver(resolver.clone()));
    assert!(resolver.calls.set(a.calls()).is_ok());
    let b = C::open(config(&b_way));
    a.save("x", &json!({"v": 0}));
    a.synced();
    until("the record is on b", || b.shown().contains_key("x"));

    a.set_online(false);
    b.update("x", &json!({"v": "theirs"}));
    b.synced();
    a.update("x", &json!({"v": "mine"}));
    a.set_online(true);
    assert!(a.is_synced(), "the client hangs");

    let ended = resolver.ended.lock().unwrap().clone();
    assert!(ended.len() >= 10, "{ended:?}");
    for (call, ended) in &ended {
        assert_eq!(*ended, Err(SyncError::InsideCallback), "{call}");
    }
    let said = SyncError::InsideCallback.to_string();
    assert!(said.contains("read before what the callback needs"), "{said}");
    assert_eq!(a.shown()["x"], json!({"v": "mine"}), "it goes on");
    until("the outcome is on b", || b.shown()["x"] == json!({"v": "mine"}));
    a.close();
}

/// A resolver with a bug.
struct Panics;

impl Resolver for Panics {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        panic!("no rule for {}", conflict.record_id)
    }
}

pub fn a_resolver_that_panics_is_told_of_and_the_client_goes_on<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let as_resolver = |config: SyncConfig| config.custom_conflict_resolver(Arc::new(Panics));
    let as_strategy =
        |config: SyncConfig| config.conflict_strategy(ConflictStrategy::custom(Panics));
    for configure in [&as_resolver as &dyn Fn(SyncConfig) -> SyncConfig, &as_strategy] {
        let mut a = C::open(configure(config(&a_way)));
        let b = C::open(config(&b_way));
        a.save("x", &json!({"v": 0, "w": 0}));
        a.synced();
        b.synced();
        a.set_online(false);
        b.update("x", &json!({"v": "theirs"}));
        b.synced();
        a.update("x", &json!({"v": "mine", "w": 1}));
        a.save("y", &json!({}));
        a.set_online(true);
        assert!(a.is_synced(), "the client has ended");
        a.told("the failure", |event| match &event.kind {
            EventKind::ResolverFailed { reason, .. } => {
                assert_eq!(reason, "the conflict resolver panicked: no rule for x");
                event.kind.collection().is_some_and(|of| &**of == TODOS)
                    && event.kind.record_id().is_some_and(|id| &**id == "x")
            }
            _ => false,
        });
        let shown = a.shown();
        assert_eq!((&shown["x"]["w"], &shown["y"]), (&json!(1), &json!({})), "nothing is lost");
        until("the outcome is on b", || b.shown() == shown);
        for id in ["x", "y"] {
            a.delete(id);
        }
        a.synced();
        a.close();
        b.close();
    }
}

/// Wait of a call inside a callback for something that can't come.
pub const WAIT: Duration = Duration::from_secs(3600);
