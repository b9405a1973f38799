//! Connections without a token, and those who send or read too much at a time: they keep nobody out.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::{PATIENCE, Peer, http, serve, token_config};
use serde_json::{Value, json};
use synclayer_server::{Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn health(server: &Server) -> Value {
    http(server, "GET", "/health", &[], "").await.json()
}

/// Waits until a number of `/health` is as wanted.
async fn until(server: &Server, name: &str, is_so: impl Fn(u64) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let number = health(server).await[name].as_u64().unwrap();
        if is_so(number) {
            return;
        }
        assert!(Instant::now() < end, "{name} stays at {number}");
    }
}

fn insert(id: usize, bytes: usize) -> Value {
    let data = json!({"text": "x".repeat(bytes)});
    json!({"type": "insert", "collection": "todos", "recordId": id.to_string(), "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    // half of the connections are for unauthenticated ones
    let server = serve(token_config().max_connections(20)).await;
    let mut old = Peer::connect(&server, "?token=a-token", &[]).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    for id in 0..5 {
        let mut new = Peer::connect(&server, "?token=b-token", &[]).await;
        for peer in [&mut old, &mut new] {
            peer.send(insert(id, 10).to_string()).await;
            peer.expect_quiet().await;
        }
        let body = json!({"recordId": format!("h{id}"), "data": {}}).to_string();
        let token = [("authorization", "Bearer a-token")];
        assert_eq!(http(&server, "POST", "/sync/todos", &token, &body).await.status, 200);
    }
    // one that made room for others is gone
    let mut first = idle.remove(0);
    let ended = tokio::time::timeout(PATIENCE, first.read_u8()).await.unwrap();
    assert!(ended.is_err());
    drop((idle, first));
    until(&server, "sockets", |sockets| sockets <= 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_without_a_token_counts_as_unauthenticated() {
    let server = serve(token_config().max_connections(20)).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Peer::connect(&server, "", &[]).await);
    }
    until(&server, "connections", |sockets| sockets <= 10).await;
    let mut late = silent.pop().unwrap();
    late.send(r#"{"type":"auth","token":"a-token"}"#).await;
    late.expect("authenticated").await;
    for _ in 0..20 {
        silent.push(Peer::connect(&server, "", &[]).await);
    }
    late.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_before_a_token_is_small_and_behind_it_as_large_as_any() {
    let server = serve(token_config()).await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(insert(1, 1 << 20).to_string()).await;
    assert_eq!(peer.closed().await, 1009);
    let mut ann = Peer::connect(&server, "", &[]).await;
    ann.send(r#"{"type":"auth","token":"a-token"}"#).await;
    // without waiting for the answer
    ann.send(insert(1, 500 << 10).to_string()).await;
    ann.expect("authenticated").await;
    ann.expect_quiet().await;
    let token = [("authorization", "Bearer a-token")];
    let found = http(&server, "GET", "/sync/todos", &token, "").await.json();
    assert_eq!(found["records"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_given_up() {
    let config = ServerConfig::new().write_timeout(Duration::from_millis(300));
    let server = serve(config).await;
    for id in 0..15 {
        let body = json!({"recordId": id.to_string(), "data": {"text": "x".repeat(1_000_000)}});
        let saved = http(&server, "POST", "/sync/todos", &[], &body.to_string()).await;
        assert_eq!(saved.status, 200);
    }
    // more than the buffers of the system take
    let mut idle = TcpStream::connect(server.local_addr()).await.unwrap();
    idle.write_all(b"GET /sync/todos HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    until(&server, "bufferedBytes", |bytes| bytes > 14_000_000).await;
    until(&server, "bufferedBytes", |bytes| bytes == 0).await;
    until(&server, "sockets", |sockets| sockets == 1).await;
}

fn behind_a_proxy() -> ServerConfig {
    token_config().trusted_proxies([IpAddr::from([127, 0, 0, 1])])
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_tokens_lock_an_address_out() {
    let server = serve(behind_a_proxy().login_failures(3)).await;
    let mallory = ("x-forwarded-for", "192.0.2.7");
    let call = async |address, token: &str| {
        let token = format!("Bearer {token}");
        http(&server, "GET", "/sync/todos", &[address, ("authorization", &token)], "").await
    };
    for _ in 0..3 {
        assert_eq!(call(mallory, "wrong").await.status, 401);
    }
    let refused = call(mallory, "a-token").await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    let refused = Peer::try_connect(server.local_addr(), "?token=a-token", &[mallory]).await;
    assert_eq!(refused.err(), Some(429));
    let mut peer = Peer::connect(&server, "", &[mallory]).await;
    peer.send(r#"{"type":"auth","token":"a-token"}"#).await;
    assert_eq!(peer.closed().await, 1013);
    // others are let in, and a program of this machine is never locked out
    assert_eq!(call(("x-forwarded-for", "192.0.2.8"), "a-token").await.status, 200);
    for _ in 0..5 {
        assert_eq!(call(("x", "y"), "wrong").await.status, 401);
    }
    assert_eq!(call(("x", "y"), "a-token").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_share_of_the_connections() {
    let server = serve(behind_a_proxy().max_connections_per_address(2)).await;
    let connect = async |address, query| {
        let header = [("x-forwarded-for", address)];
        Peer::try_connect(server.local_addr(), query, &header).await
    };
    let a = connect("192.0.2.7", "?token=a-token").await.unwrap();
    let mut b = connect("192.0.2.7", "").await.unwrap();
    b.send(r#"{"type":"auth","token":"b-token"}"#).await;
    b.expect("authenticated").await;
    assert_eq!(connect("192.0.2.7", "?token=a-token").await.err(), Some(429));
    let mut late = connect("192.0.2.7", "").await.unwrap();
    late.send(r#"{"type":"auth","token":"b-token"}"#).await;
    assert_eq!(late.closed().await, 1013);
    let _other = connect("192.0.2.8", "?token=a-token").await.unwrap();
    drop(a);
    until(&server, "connections", |connections| connections == 2).await;
    connect("192.0.2.7", "?token=a-token").await.unwrap();
}

/// A stranger that was told so and sends on is not read for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_sends_on_is_not_read_for_long() {
    const MOST: usize = 64 << 20;
    let server = serve(token_config().close_timeout(PATIENCE)).await;
    let mut stranger = TcpStream::connect(server.local_addr()).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stranger.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stranger.read_u8().await.unwrap());
    }
    // the beginning of a frame of 4 MB
    stranger.write_all(b"\x81\xff\0\0\0\0\0\x40\0\0\0\0\0\0").await.unwrap();
    let chunk = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while sent < MOST && stranger.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < MOST, "all of it was read");
}
