//! The example of a server inside a program's own axum server, on real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "../examples/axum.rs"]
#[allow(unreachable_pub)]
mod program;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{Peer, http_at};
use program::{Page, app};
use serde_json::json;
use synclayer_server::{Embedded, MemoryServerStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::{self, JoinHandle};

/// The program of the example, its address, and its task.
async fn serve(config: ServerConfig) -> (Embedded, SocketAddr, JoinHandle<()>) {
    let sync = Embedded::open(config, Arc::new(MemoryServerStore::new())).await.unwrap();
    let app = app(&sync, Page { title: "hello" });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (sync, addr, task::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

fn live(addr: SocketAddr) -> String {
    format!("{addr}/live")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_below_its_path_and_the_program_beside_it() {
    let (sync, addr, program) = serve(ServerConfig::default()).await;
    assert_eq!(http_at(addr, "GET", "/", &[], "").await.body, "hello");
    let health = http_at(addr, "GET", "/live/health", &[], "").await;
    assert_eq!(
        (health.status, health.json()["epoch"].as_str()),
        (200, Some(sync.epoch().as_str()))
    );
    for elsewhere in ["/live", "/live/nothing", "/health", "/sync/todos", "/ws"] {
        assert_eq!(http_at(addr, "GET", elsewhere, &[], "").await.status, 404, "{elsewhere}");
    }

    let mut peer = Peer::try_connect(live(addr), "", &[]).await.unwrap();
    peer.subscribe("todos").await;
    let body = r#"{"recordId":"1","data":{"text":"milk"}}"#;
    assert_eq!(http_at(addr, "POST", "/live/sync/todos", &[], body).await.status, 200);
    assert_eq!(peer.expect("insert").await["data"], json!({"text": "milk"}));
    let page = http_at(addr, "GET", "/live/sync/todos?limit=5", &[], "").await;
    assert_eq!(page.json()["records"][0]["recordId"], "1");
    assert_eq!(sync.connections(), 1);
    program.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_end_is_not_the_end_of_the_program() {
    let (sync, addr, program) = serve(ServerConfig::default()).await;
    let mut peer = Peer::try_connect(live(addr), "", &[]).await.unwrap();
    peer.subscribe("todos").await;
    let (closed, ()) = tokio::join!(peer.closed(), sync.shutdown());
    assert_eq!(closed, 1001);
    let body = r#"{"recordId":"1","data":{}}"#;
    assert_eq!(http_at(addr, "POST", "/live/sync/todos", &[], body).await.status, 503);
    assert_eq!(http_at(addr, "GET", "/", &[], "").await.body, "hello");
    program.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_no_more_websockets_than_it_was_told() {
    let config = ServerConfig::new().max_connections(1);
    let (_sync, addr, program) = serve(config).await;
    let mut first = Peer::try_connect(live(addr), "", &[]).await.unwrap();
    first.subscribe("todos").await;
    assert_eq!(Peer::try_connect(live(addr), "", &[]).await.err(), Some(503));
    first.expect_quiet().await;
    program.abort();
}
