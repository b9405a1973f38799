//! The costs of an idle client, as bytes on its sockets, headers and all. An hour is made up of
//! what happens in it: so many polls, so many pings, one proof.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{EventKind, SyncConfig, SyncLayer, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);
/// A WebSocket ping from the client and its pong.
const PING_AND_PONG: u64 = 6 + 2;

/// A way to the server that counts the bytes in both directions.
async fn counted(server: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bytes);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            for (mut from, mut to) in [(client_in, server_out), (server_in, client_out)] {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(length @ 1..) = from.read(&mut buffer).await {
                        counter.fetch_add(length as u64, Ordering::SeqCst);
                        if to.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (address, bytes)
}

async fn serve() -> Server {
    let store = Arc::new(synclayer_server::MemoryServerStore::new());
    Server::bind(ServerConfig::default(), store).await.unwrap()
}

fn config(address: SocketAddr, transports: Transports) -> SyncConfig {
    SyncConfig::new(format!("http://{address}"))
        .auth_token("0123456789abcdef0123456789abcdef")
        .collections(["todos"])
        .transports(transports)
}

async fn in_step(sync: &SyncLayer) {
    timeout(PATIENCE, sync.synced()).await.expect("it comes in step").unwrap();
}

#[tokio::test]
async fn an_hour_of_polls_costs_little() {
    let server = serve().await;
    let (address, bytes) = counted(server.local_addr()).await;
    let sync = SyncLayer::open(config(address, Transports::PollOnly)).await.unwrap();
    sync.collection("todos").unwrap().save(&[("n", 1)].into_iter().collect::<Map>()).await.unwrap();
    in_step(&sync).await;
    in_step(&sync).await;
    let before = bytes.load(Ordering::SeqCst);
    for _ in 0..12 {
        in_step(&sync).await;
    }
    let hour = bytes.load(Ordering::SeqCst) - before;
    println!("twelve polls: {hour} bytes");
    assert!(hour <= 10_000, "twelve polls took {hour} bytes");
    sync.close().await;
    server.shutdown().await;
}

#[tokio::test]
async fn an_hour_of_a_connection_costs_little() {
    let server = serve().await;
    let (address, bytes) = counted(server.local_addr()).await;
    let sync = SyncLayer::open(config(address, Transports::RealtimeOnly)).await.unwrap();
    sync.collection("todos").unwrap().save(&[("n", 1)].into_iter().collect::<Map>()).await.unwrap();
    in_step(&sync).await;
    let mut events = sync.events();
    let before = bytes.load(Ordering::SeqCst);
    sync.sync_now().await.unwrap();
    let proof =
        async { while !matches!(events.next().await.unwrap().kind, EventKind::SyncCompleted) {} };
    timeout(PATIENCE, proof).await.expect("it is proved right");
    let proof = bytes.load(Ordering::SeqCst) - before;
    let hour = proof + 120 * PING_AND_PONG;
    println!("a proof: {proof} bytes, an hour: {hour}");
    assert!(hour <= 1_500, "a proof took {proof} bytes, an hour {hour}");
    sync.close().await;
    server.shutdown().await;
}

type Map = std::collections::BTreeMap<&'static str, u64>;
