//! The costs of an idle client, as bytes on its sockets, headers and all. An hour is made up of
//! what happens in it: so many polls, so many pings, one proof.
#![allow(clippy::unwrap_used)]

use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::Proxy;
use synclayer_e2e::wait::{soon, told};
use synclayer_server::ServerConfig;
use synclayer_tokio::{EventKind, SyncConfig, SyncLayer, Transports};

/// A WebSocket ping from the client and its pong.
const PING_AND_PONG: u64 = 6 + 2;

fn config(proxy: &Proxy, transports: Transports) -> SyncConfig {
    SyncConfig::new(proxy.url())
        .auth_token("0123456789abcdef0123456789abcdef")
        .collections(["todos"])
        .transports(transports)
}

async fn in_step(sync: &SyncLayer) {
    soon("being in step", sync.synced()).await.unwrap();
}

#[tokio::test]
async fn an_hour_of_polls_costs_little() {
    let host = Host::in_memory(ServerConfig::default()).await;
    let proxy = host.proxy().await;
    let sync = SyncLayer::open(config(&proxy, Transports::PollOnly)).await.unwrap();
    sync.collection("todos").unwrap().save(&[("n", 1)].into_iter().collect::<Map>()).await.unwrap();
    in_step(&sync).await;
    in_step(&sync).await;
    let before = proxy.bytes();
    for _ in 0..12 {
        in_step(&sync).await;
    }
    let hour = proxy.bytes() - before;
    println!("twelve polls: {hour} bytes");
    assert!(hour <= 10_000, "twelve polls took {hour} bytes");
    sync.close().await;
}

#[tokio::test]
async fn an_hour_of_a_connection_costs_little() {
    let host = Host::in_memory(ServerConfig::default()).await;
    let proxy = host.proxy().await;
    let sync = SyncLayer::open(config(&proxy, Transports::RealtimeOnly)).await.unwrap();
    sync.collection("todos").unwrap().save(&[("n", 1)].into_iter().collect::<Map>()).await.unwrap();
    in_step(&sync).await;
    let mut events = sync.events();
    let before = proxy.bytes();
    sync.sync_now().await.unwrap();
    told(&mut events, |kind| matches!(kind, EventKind::SyncCompleted { .. })).await;
    let proof = proxy.bytes() - before;
    let hour = proof + 120 * PING_AND_PONG;
    println!("a proof: {proof} bytes, an hour: {hour}");
    assert!(hour <= 1_500, "a proof took {proof} bytes, an hour {hour}");
    sync.close().await;
}

type Map = std::collections::BTreeMap<&'static str, u64>;
