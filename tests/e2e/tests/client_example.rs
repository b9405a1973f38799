//! The example for programs with an event loop of their own works against a real server.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../../core/examples/client.rs"]
#[allow(unreachable_pub)]
mod client;

use std::time::{Duration, Instant};

use client::{Client, News};
use synclayer_core::Snapshot;
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::TIMEOUT;
use synclayer_server::ServerConfig;

#[test]
fn what_one_writes_the_other_sees_also_after_a_cut() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = runtime.block_on(Host::in_memory(ServerConfig::default()));
    let proxy = runtime.block_on(host.proxy());
    let mut one = Client::open(proxy.address(), 1, &["todos"]).unwrap();
    let mut other = Client::open(host.address(), 2, &["todos"]).unwrap();

    one.save("todos", r#"{"text": "Buy milk"}"#).unwrap();
    let seen = turn_until([&mut other, &mut one], settled(1));
    assert_eq!(seen.iter().next().unwrap().document.text("text"), Some("\"Buy milk\""));

    proxy.cut();
    one.save("todos", r#"{"text": "Drink it"}"#).unwrap();
    turn_until([&mut other, &mut one], settled(2));
    other.save("todos", r#"{"text": "Buy more"}"#).unwrap();
    turn_until([&mut one, &mut other], settled(3));
    assert!(proxy.exchanges().len() > 1, "it came back on another connection");
}

fn settled(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.len() == count && !snapshot.pending() && !snapshot.from_cache()
}

/// Gives both their turns until the first shows what is wanted.
fn turn_until(clients: [&mut Client; 2], wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let deadline = Instant::now() + TIMEOUT;
    let [first, second] = clients;
    let mut last = None;
    while Instant::now() < deadline {
        second.turn(Duration::from_millis(5)).unwrap();
        for news in first.turn(Duration::from_millis(5)).unwrap() {
            if let News::Update(_, update) = &news
                && wanted(&update.snapshot)
            {
                return update.snapshot.clone();
            }
            last = Some(news);
        }
    }
    panic!("no such update; the last one was {last:?}");
}
