//! From the opening to the end: group commit, slow and failing stores, shutdown, health.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{PATIENCE, Peer, http, open};
use serde_json::json;
use synclayer_core::{Batch, Rows, ServerStore, StoreError, StoreErrorKind, Token, UserId};
use synclayer_server::{
    AuthError, Authenticating, Authenticator, Identified, MemoryServerStore, Server, ServerConfig,
    StartError,
};

/// A store whose commits take as long as the test wants.
#[derive(Default)]
struct Gated {
    store: MemoryServerStore,
    shut: Mutex<bool>,
    opened: Condvar,
    commits: AtomicUsize,
}

impl Gated {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

impl ServerStore for Gated {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        self.store.transact(decide)?;
        self.commits.fetch_add(1, Ordering::SeqCst);
        let shut = self.shut.lock().unwrap();
        drop(self.opened.wait_timeout_while(shut, PATIENCE, |shut| *shut).unwrap());
        Ok(())
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.read(read)
    }
}

fn insert(id: usize) -> String {
    json!({"type": "insert", "collection": "todos", "recordId": id.to_string(), "data": {}})
        .to_string()
}

/// Waits for something that another thread does.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_for_the_disk_share_one_commit() {
    let store = Arc::new(Gated::default());
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    let mut watcher = Peer::connect(&server, "", &[]).await;
    watcher.subscribe("todos").await;
    let mut writers = Vec::new();
    for _ in 0..50 {
        let mut writer = Peer::connect(&server, "", &[]).await;
        writer.expect_quiet().await;
        writers.push(writer);
    }
    store.set(true);
    let before = store.commits.load(Ordering::SeqCst);
    writers[0].send(insert(0)).await;
    eventually("the first commit", || store.commits.load(Ordering::SeqCst) > before).await;
    for (n, writer) in writers.iter_mut().enumerate().skip(1) {
        writer.send(insert(n)).await;
        // the write is taken before the ping behind it waits
        writer.send(r#"{"type":"ping"}"#).await;
    }
    // nothing is shown before it is durable
    watcher.expect_quiet().await;
    store.set(false);
    for _ in 0..50 {
        watcher.expect("insert").await;
    }
    let commits = store.commits.load(Ordering::SeqCst) - before;
    assert!(commits <= 5, "50 writes took {commits} commits");
    let (transactions, commits) = server.commits();
    assert!(transactions >= 50 && commits <= 5, "{transactions} {commits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_in_is_committed_before_the_end() {
    let store = Arc::new(Gated::default());
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    let mut writer = Peer::connect(&server, "", &[]).await;
    store.set(true);
    let before = store.commits.load(Ordering::SeqCst);
    writer.send(insert(1)).await;
    eventually("the commit", || store.commits.load(Ordering::SeqCst) > before).await;
    let (left, right) = tokio::sync::oneshot::channel();
    let end = tokio::spawn(async move {
        server.run(async { drop(right.await) }).await;
    });
    left.send(()).unwrap();
    assert_eq!(writer.closed().await, 1001);
    assert!(!end.is_finished(), "a commit is under way");
    store.set(false);
    end.await.unwrap();
    assert_eq!(Arc::strong_count(&store), 1, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_closes_every_websocket() {
    let server = open().await;
    let addr = server.local_addr();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.subscribe("todos").await;
        peers.push(peer);
    }
    assert_eq!(server.connections(), 20);
    let closed = async {
        for peer in &mut peers {
            assert_eq!(peer.closed().await, 1001);
        }
    };
    tokio::join!(server.shutdown(), closed);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_failed_shows_and_confirms_nothing() {
    let store = Arc::new(MemoryServerStore::new());
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    let health = http(&server, "GET", "/health", &[], "").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    assert_eq!(health.json()["epoch"], server.epoch().as_str());

    store.fail(StoreError::new(StoreErrorKind::Full, "the disk is full"));
    let mut watcher = Peer::connect(&server, "", &[]).await;
    watcher.subscribe("todos").await;
    // whether this write happened is not known, so its connection ends
    let mut writer = Peer::connect(&server, "", &[]).await;
    writer.send(insert(1)).await;
    assert_eq!(writer.closed().await, 1011);
    // the next ones are refused
    let mut writer = Peer::connect(&server, "", &[]).await;
    writer.send(insert(2)).await;
    assert_eq!(writer.expect("error").await["code"], "SERVER_ERROR");
    let body = r#"{"recordId":"3","data":{}}"#;
    assert_eq!(http(&server, "POST", "/sync/todos", &[], body).await.status, 503);
    // reads go on
    watcher.expect_quiet().await;
    assert_eq!(
        http(&server, "GET", "/sync/todos", &[], "").await.json(),
        json!({"protocol": 2, "records": []})
    );
    let health = http(&server, "GET", "/health", &[], "").await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("store failed")));

    let refused = Server::bind(ServerConfig::default(), store).await;
    assert!(matches!(refused.err(), Some(StartError::Store(_))));
}

/// A store whose disk is full for a while. What comes first happens, but nobody is told.
#[derive(Default)]
struct Full {
    store: MemoryServerStore,
    is_full: Mutex<bool>,
    happened: AtomicUsize,
}

impl ServerStore for Full {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        if !*self.is_full.lock().unwrap() {
            return self.store.transact(decide);
        }
        if self.happened.fetch_add(1, Ordering::SeqCst) == 0 {
            self.store.transact(decide)?;
        }
        Err(StoreError::new(StoreErrorKind::Full, "the disk is full"))
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.read(read)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_works_again_is_noticed_and_so_is_what_it_had_done() {
    let store = Arc::new(Full::default());
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    let mut watcher = Peer::connect(&server, "", &[]).await;
    watcher.subscribe("todos").await;
    *store.is_full.lock().unwrap() = true;
    let mut writer = Peer::connect(&server, "", &[]).await;
    writer.send(insert(1)).await;
    assert_eq!(writer.closed().await, 1011);
    assert_eq!(http(&server, "GET", "/health", &[], "").await.status, 503);
    *store.is_full.lock().unwrap() = false;
    // without a further write
    assert_eq!(watcher.expect("insert").await["recordId"], "1");
    let health = http(&server, "GET", "/health", &[], "").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_further_metrics() {
    let config = ServerConfig::new().metrics(|| vec![("syncs", 7)]);
    let server = common::serve(config).await;
    let _peer = Peer::connect(&server, "", &[]).await;
    eventually("the connection", || server.connections() == 1).await;
    let health = http(&server, "GET", "/health", &[], "").await.json();
    assert_eq!((&health["syncs"], &health["connections"]), (&json!(7), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_everything_in_order_and_stops_nobody() {
    let mut config = ServerConfig::default();
    // so small that the ring moves on before the slow reader comes
    config.rings.collection_bytes = 64 << 10;
    let server = common::serve(config).await;
    let mut slow = Peer::connect(&server, "", &[]).await;
    slow.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"slow","session":1}}"#).await;
    slow.expect("pong").await;
    slow.send(r#"{"type":"subscribe","collection":"todos"}"#).await;
    while slow.json().await["type"] != "synced" {}
    let mut writer = Peer::connect(&server, "", &[]).await;
    let text = "x".repeat(16 << 10);
    const RECORDS: u64 = 2000;
    for n in 1..=RECORDS {
        let insert = json!({"type": "insert", "collection": "todos", "recordId": n.to_string(),
                            "data": {"text": text}});
        writer.send(insert.to_string()).await;
    }
    writer.expect_quiet().await;
    let (mut seq, mut fell_behind) = (0, 0);
    while seq < RECORDS {
        let json = slow.json().await;
        match json["type"].as_str().unwrap() {
            "insert" => {
                seq += 1;
                assert_eq!(json["metadata"]["seq"], seq);
            }
            "subscribed" => fell_behind += 1,
            "synced" => {}
            other => panic!("{other}"),
        }
    }
    assert!(fell_behind > 0, "it was served from the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_is_forgotten() {
    let server = open().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.subscribe("todos").await;
    drop(peer);
    eventually("the end of the connection", || server.connections() == 0).await;
    let mut writer = Peer::connect(&server, "", &[]).await;
    writer.send(insert(1)).await;
    writer.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_does_not_read_is_not_read_either() {
    let server = open().await;
    let mut other = Peer::connect(&server, "", &[]).await;
    let text = "x".repeat(1 << 20);
    let body = json!({"recordId": "1", "data": {"text": &text[..1_000_000]}}).to_string();
    assert_eq!(http(&server, "POST", "/sync/todos", &[], &body).await.status, 200);

    let mut greedy = Peer::connect(&server, "", &[]).await;
    let ask = json!({"type": "sync", "collection": "todos", "padding": &text[..10_000]});
    let mut asked = 0;
    while tokio::time::timeout(PATIENCE / 10, greedy.send(ask.to_string())).await.is_ok() {
        asked += 1;
        assert!(asked < 10_000, "the server takes any number of requests that it can't answer");
    }
    other.expect_quiet().await;
    for _ in 0..20 {
        greedy.expect("sync").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_http_connections_do_not_hold_up_the_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = open().await;
    let mut silent = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
    let mut idle = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    tokio::time::timeout(PATIENCE, server.shutdown()).await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert_eq!(silent.read_to_end(&mut rest).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_tombstones_are_swept_away() {
    let config = ServerConfig::new()
        .tombstone_retention(Duration::ZERO)
        .sweep_interval(Duration::from_millis(5));
    let server = common::serve(config).await;
    let body = r#"{"recordId":"1","data":{}}"#;
    assert_eq!(http(&server, "POST", "/sync/todos", &[], body).await.status, 200);
    assert_eq!(http(&server, "DELETE", "/sync/todos/1", &[], "").await.status, 204);
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#).await;
    let epoch = peer.expect("pong").await["metadata"]["epoch"].clone();
    let cursor = json!({"epoch": epoch, "seq": 1});
    let subscribe =
        json!({"type": "subscribe", "collection": "todos", "metadata": {"cursor": cursor}});
    loop {
        peer.send(subscribe.to_string()).await;
        let mode = peer.expect("subscribed").await["metadata"]["mode"].clone();
        while peer.json().await["type"] != "synced" {}
        // a delta would have to tell of the delete
        if mode == "snapshot" {
            break;
        }
    }
}

/// Lets everyone in under the name that they give, for a moment.
struct Brief;

impl Authenticator for Brief {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        Box::pin(async move {
            let name = token.reveal().split(' ').next().unwrap_or_default();
            let user = Identified::as_user(UserId::new(name).map_err(|_| AuthError::Wrong)?);
            match token.reveal().split_once(' ') {
                Some((_, "old")) => Err(AuthError::Expired),
                Some((_, "brief")) => Ok(user.valid_for(Duration::from_millis(20))),
                Some(_) | None => Ok(user),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_can_be_renewed_on_the_connection() {
    let config = ServerConfig::new().authenticator(Arc::new(Brief));
    let server = common::serve(config).await;
    assert_eq!(
        Peer::try_connect(server.local_addr(), "?token=ann%20old", &[]).await.err(),
        Some(401)
    );
    let mut peer = Peer::connect(&server, "?token=ann%20brief", &[]).await;
    peer.subscribe("todos").await;
    assert_eq!(peer.expect("error").await["code"], "AUTH_EXPIRED");
    peer.send(r#"{"type":"auth","token":"ann"}"#).await;
    peer.expect("authenticated").await;
    // what it was subscribed to goes on
    let body = r#"{"recordId":"1","data":{}}"#;
    let auth = [("authorization", "Bearer bob")];
    assert_eq!(http(&server, "POST", "/sync/todos", &auth, body).await.status, 200);
    peer.expect("insert").await;
    // nobody takes over another's connection
    peer.send(r#"{"type":"auth","token":"bob"}"#).await;
    assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED");
    assert_eq!(peer.closed().await, 1008);
}
