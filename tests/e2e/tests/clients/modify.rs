//! Read, change, write in one step: nothing that arrives in between is lost.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use serde_json::{Value, json};
use synclayer_tokio::{ConflictStrategy, Document, FieldWise, Limits, Misuse, SyncError};

use crate::client::{Client, Modify};
use crate::support::{Host, TIMEOUT, config, on_disk, until};

/// Number of threads that count, and of the steps of each.
const THREADS: u64 = 8;
const TIMES: u64 = 40;

fn value(document: &Document) -> Value {
    serde_json::from_str(&document.to_string()).unwrap()
}

/// Adds one to a field.
fn add_one(field: &'static str) -> Modify {
    Box::new(move |seen| {
        let mut made = seen.map_or_else(|| json!({}), value);
        made[field] = json!(made[field].as_u64().unwrap_or(0) + 1);
        Some(made)
    })
}

pub fn no_increment_of_many_threads_is_lost<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let sums = || ConflictStrategy::custom(FieldWise::sum_numbers());
    let open = |way| C::open(config(way).conflict_strategy(sums()));
    let (a, b) = (open(&a_way), open(&b_way));
    a.save("x", &json!({"n": 0}));
    a.synced();
    until("the record is on b", || b.shown().contains_key("x"));
    let counters: Vec<_> = [&a, &b]
        .into_iter()
        .flat_map(|client| (0..THREADS / 2).map(|_| client.modifier()))
        .map(|modify| {
            thread::spawn(move || {
                for _ in 0..TIMES {
                    modify("x", add_one("n")).unwrap();
                }
            })
        })
        .collect();
    counters.into_iter().for_each(|counter| counter.join().unwrap());
    for _ in 0..2 {
        a.synced();
        b.synced();
    }
    let counted = json!({"x": {"n": THREADS * TIMES}});
    assert_eq!((json!(a.shown()), json!(b.shown())), (counted.clone(), counted));
    a.close();
}

pub fn a_closure_makes_removes_and_leaves_records<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let a = C::open(config(&way));
    let modify = a.modifier();
    modify("x", add_one("n")).unwrap();
    modify("x", add_one("m")).unwrap();
    assert_eq!(json!(a.shown()), json!({"x": {"n": 1, "m": 1}}));
    modify("x", Box::new(|seen| seen.map(value))).unwrap();
    assert_eq!(json!(a.shown()), json!({"x": {"n": 1, "m": 1}}));
    modify("x", Box::new(|_| None)).unwrap();
    modify("none", Box::new(|seen| seen.map(value))).unwrap();
    assert_eq!(json!(a.shown()), json!({}));
    a.close();
}

/// A write that changes nothing is answered although the stored record need not be durable yet.
pub fn a_write_that_changes_nothing_is_answered<C: Client>() {
    let (host, home) = (Host::start(), tempfile::tempdir().unwrap());
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let a = C::open(config(&a_way).store(on_disk(home.path())));
    let b = C::open(config(&b_way));
    b.save("x", &json!({"n": 1}));
    a.synced();
    until("the record is on a", || a.shown().contains_key("x"));
    let (modify, (done, ended)) = (a.modifier(), channel());
    thread::spawn(move || done.send(modify("x", Box::new(|seen| seen.map(value)))));
    assert_eq!(ended.recv_timeout(TIMEOUT), Ok(Ok(())));
    a.save("x", &json!({"n": 1}));
    a.delete("none");
    a.close();
}

pub fn a_closure_that_fails_changes_nothing_and_the_client_goes_on<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let mut limits = Limits::default();
    limits.document_bytes = 100;
    let a = C::open(config(&way).limits(limits));
    let modify = a.modifier();
    a.save("x", &json!({"n": 1}));

    let panicked = modify("x", Box::new(|_| panic!("a bug of the app's"))).unwrap_err();
    let SyncError::Misuse(Misuse::ModifyFailed { message }) = &panicked else {
        panic!("{panicked:?}");
    };
    assert!(message.contains("a bug of the app's"), "{message}");
    let large = modify("x", Box::new(|_| Some(json!({"t": "x".repeat(200)}))));
    assert!(matches!(large, Err(SyncError::Document(_))), "{large:?}");
    let number = modify("x", Box::new(|_| Some(json!(7))));
    assert!(matches!(number, Err(SyncError::Document(_))), "{number:?}");

    let calls = Arc::new(a.calls());
    let inside = Arc::clone(&calls);
    let calling: Modify = Box::new(move |seen| {
        for (call, ended) in inside() {
            assert_eq!(ended, Err(SyncError::InsideCallback), "{call}");
        }
        seen.map(value)
    });
    modify("x", calling).unwrap();
    assert_eq!(json!(a.shown()), json!({"x": {"n": 1}}));
    modify("x", add_one("n")).unwrap();
    assert_eq!(json!(a.shown()), json!({"x": {"n": 2}}), "it goes on");
    a.synced();
    a.close();
}
