//! A healthy client goes on while others attack the server, whose memory stays within its budget;
//! the example `attack` measures the same at a real process.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use synclayer_core::UserId;
use synclayer_e2e::attack::{Aim, Attack, LARGE, WIDE};
use synclayer_e2e::host::Host;
use synclayer_e2e::peer::Peer;
use synclayer_e2e::wait::soon;
use synclayer_server::{ServerConfig, StaticTokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const BUDGET: usize = 8 << 20;

fn config() -> ServerConfig {
    let user = |name| UserId::new(name).unwrap();
    let tokens = StaticTokens::new([(user("ann"), "a-token"), (user("mallory"), "m-token")]);
    ServerConfig::new()
        .authenticator(Arc::new(tokens))
        .max_connections(100)
        .memory_budget(BUDGET)
        .write_timeout(Duration::from_secs(2))
}

async fn connect(host: &Host, token: &str) -> Peer {
    Peer::connect(&format!("ws://{}/ws?token={token}", host.address())).await
}

async fn insert(peer: &mut Peer, collection: &str, id: usize, data: Value) {
    let id = id.to_string();
    peer.send(json!({"type": "insert", "collection": collection, "recordId": id, "data": data}))
        .await;
}

/// Waits until everything that was sent is served.
async fn settle(peer: &mut Peer) {
    peer.send(json!({"type": "ping"})).await;
    peer.expect("pong").await;
}

async fn health(server: SocketAddr) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(server).await?;
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).map_err(std::io::Error::other)
}

/// Waits until `/health` is as wanted. One without a token may have to ask again.
async fn until(server: SocketAddr, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            match health(server).await {
                Ok(health) if is_so(&health) => return health,
                Ok(_) | Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon(what, found).await
}

async fn is_withstood(attack: Attack, connections: usize) {
    let host = Host::with(config()).await;
    let server = host.address();
    let mut filler = connect(&host, "m-token").await;
    for n in 0..300 {
        insert(&mut filler, LARGE, n, json!({"n": n, "text": "x".repeat(1_000)})).await;
    }
    for n in 0..6 {
        insert(&mut filler, WIDE, n, json!({"text": "x".repeat(1_000_000)})).await;
    }
    settle(&mut filler).await;
    drop(filler);
    let mut healthy = connect(&host, "a-token").await;
    let aim = Aim { server, token: "m-token".into(), connections };
    let attacking = tokio::spawn(async move { attack.run(&aim).await });
    until(server, "the attack", |health| health["sockets"].as_u64() > Some(10)).await;
    for n in 0..30 {
        insert(&mut healthy, "small", n, json!({})).await;
        settle(&mut healthy).await;
        if n % 10 == 0 {
            let health = until(server, "a healthy server", |health| health["status"] == "ok").await;
            let held = health["bufferedBytes"].as_u64().unwrap() as usize;
            assert!(held <= 2 * BUDGET, "{attack:?}: {held} bytes");
            let sockets = health["sockets"].as_u64().unwrap();
            assert!(sockets <= 100, "{attack:?}: {sockets} sockets");
        }
    }
    attacking.abort();
    let is_calm =
        |health: &Value| health["bufferedBytes"] == 0 && health["sockets"].as_u64() <= Some(2);
    until(server, "calm", is_calm).await;
    settle(&mut healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections() {
    is_withstood(Attack::IdleConnections, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads() {
    is_withstood(Attack::UnreadAnswers, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_frames() {
    is_withstood(Attack::HalfFrames, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_frames_without_a_token() {
    is_withstood(Attack::HalfFramesWithoutToken, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_headers() {
    is_withstood(Attack::SlowHeaders, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scans() {
    is_withstood(Attack::Scans, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings() {
    is_withstood(Attack::Pings, 16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_writes() {
    is_withstood(Attack::Writes, 16).await;
}
