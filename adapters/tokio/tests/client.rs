//! The client against a scripted server.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use serde_json::json;
use support::{Disk, Server, soon, until};
use synclayer_core::{ConnectionState, EventKind};
use synclayer_tokio::{OpenError, RecordChange, SyncConfig, SyncError, SyncLayer, Transports};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

#[tokio::test]
async fn a_write_is_saved_shown_sent_and_settled() {
    let server = Server::start().await;
    let sync = SyncLayer::open(server.config()).await.unwrap();
    let mut peer = server.accept_synced().await;
    let todos = sync.collection("todos").unwrap();
    let mut watch = todos.watch();

    let id = todos.save(&json!({"text": "Buy milk"})).await.unwrap();
    let shown = until(&mut watch, |update| !update.snapshot.is_empty()).await;
    assert!(shown.snapshot.pending());
    assert_eq!(todos.get(&id).await.unwrap().unwrap().document.text("text"), Some("\"Buy milk\""));

    let write = peer.expect("insert").await;
    assert_eq!(write["data"], json!({"text": "Buy milk"}));
    assert_eq!(write["recordId"], id.as_str());
    peer.ack(&write, 1).await;
    let settled = until(&mut watch, |update| !update.snapshot.pending()).await;
    assert!(!settled.snapshot.from_cache() && !settled.snapshot.catching_up());
    assert_eq!(settled.snapshot.get(&id).unwrap().version, 1);

    todos.update(&id, &json!({"done": true})).await.unwrap();
    let write = peer.expect("update").await;
    assert_eq!(write["data"], json!({"done": true}), "only what changed");
    todos.delete(&id).await.unwrap();
    peer.ack(&write, 2).await;
    let write = peer.expect("delete").await;
    peer.ack(&write, 3).await;
    until(&mut watch, |update| update.snapshot.is_empty()).await;
    assert_eq!(todos.get_all().await.unwrap(), []);
    sync.close().await;
}

#[tokio::test]
async fn a_remote_change_shows_in_the_watch() {
    let server = Server::start().await;
    let sync = SyncLayer::open(server.config()).await.unwrap();
    let mut peer = server.accept_synced().await;
    let todos = sync.collection("todos").unwrap();
    let (mut all, mut one) = (todos.watch(), todos.watch_record("b").unwrap());
    until(&mut all, |update| !update.snapshot.from_cache()).await;

    for (seq, id) in [(1, "a"), (2, "b")] {
        peer.say(json!({"type": "insert", "collection": "todos", "recordId": id,
            "data": {"n": 9_007_199_254_740_993u64}, "timestamp": "2026-11-22T17:00:00.000Z",
            "metadata": {"seq": seq, "version": 1, "userId": "u2"}}))
            .await;
    }
    let update = until(&mut all, |update| update.snapshot.len() == 2).await;
    assert_eq!(update.snapshot.get("b").unwrap().document.text("n"), Some("9007199254740993"));
    let update = until(&mut one, |update| !update.changes.is_empty()).await;
    assert_eq!(update.snapshot.len(), 1);
    assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if &*record.id == "b"));
}

#[tokio::test]
async fn writes_made_offline_go_out_when_connected() {
    let server = Server::start().await;
    let config = server.config().connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    todos.save_with_id("a", &json!({"n": 1})).await.unwrap();
    assert_eq!(sync.status().await.unwrap().connection, ConnectionState::Disconnected);
    assert_eq!(sync.status().await.unwrap().pending_writes, 1);

    let mut statuses = sync.watch_status();
    let mut shown = async |connection, pending_writes| loop {
        let status = soon("a status", statuses.next()).await.unwrap();
        if (status.connection, status.pending_writes) == (connection, pending_writes) {
            return;
        }
    };
    shown(ConnectionState::Disconnected, 1).await;

    sync.connect().await.unwrap();
    let mut peer = server.accept_synced().await;
    shown(ConnectionState::Connected, 1).await;
    let write = peer.expect("insert").await;
    let synced = tokio::spawn({
        let sync = sync.clone();
        async move { sync.synced().await }
    });
    peer.ack(&write, 1).await;
    let answer = async {
        while !synced.is_finished() {
            tokio::select! {
                message = peer.receive() => {
                    assert_eq!(message.unwrap()["type"], "ping", "a barrier");
                    peer.say(json!({"type": "pong"})).await;
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    soon("synced", answer).await;
    synced.await.unwrap().unwrap();
    assert_eq!(sync.status().await.unwrap().pending_writes, 0);
    shown(ConnectionState::Connected, 0).await;

    sync.disconnect().await.unwrap();
    assert_eq!(peer.receive().await, None);
    assert_eq!(sync.status().await.unwrap().connection, ConnectionState::Disconnected);
    shown(ConnectionState::Disconnected, 0).await;
    sync.close().await;
    assert_eq!(soon("the end of the statuses", statuses.next()).await, None);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_told_of() {
    let server = Server::start().await;
    let sync = SyncLayer::open(server.config()).await.unwrap();
    let mut events = sync.events();
    let mut peer = server.accept_synced().await;
    sync.collection("todos").unwrap().save_with_id("a", &json!({})).await.unwrap();
    let first = peer.expect("insert").await;
    drop(peer);

    drop(server.stream().await); // and once more before the handshake
    let mut peer = server.accept_synced().await;
    assert_eq!(peer.expect("insert").await, first, "sent again, under its number");
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = soon("an event", events.next()).await.unwrap();
        if matches!(event.kind, EventKind::RealtimeConnected) {
            kinds.push(true);
        } else if matches!(event.kind, EventKind::RealtimeDisconnected { .. }) {
            kinds.push(false);
        }
    }
    assert_eq!(kinds, [true, false]);
    assert_eq!(events.missed(), 0);
}

#[tokio::test]
async fn the_token_goes_in_the_header_and_only_where_it_is_safe() {
    let server = Server::start().await;
    let without = |base_url: &str| SyncConfig::new(base_url).connect_at_start(false);
    let config = |base_url: &str| without(base_url).auth_token("s3cret");
    let config_here = server.config().auth_token("s3cret");
    assert!(!format!("{config_here:?}").contains("s3cret"));
    let sync = SyncLayer::open(config_here).await.unwrap();
    let peer = server.accept().await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer s3cret"));
    sync.close().await;

    let error = SyncLayer::open(config("http://example.com")).await.unwrap_err();
    assert!(matches!(&error, OpenError::Insecure { host } if host == "example.com"), "{error}");
    assert!(!error.to_string().contains("s3cret"));
    SyncLayer::open(config("https://example.com")).await.unwrap();
    let allowed = config("http://example.com").allow_insecure(true);
    SyncLayer::open(allowed).await.unwrap();
    let sync = SyncLayer::open(without("http://example.com")).await.unwrap();
    assert_eq!(sync.set_token("s3cret").await, Err(SyncError::Insecure));
}

#[tokio::test]
async fn a_secure_address_speaks_tls() {
    let server = Server::start().await;
    let mut config = server.config().auth_token("s3cret");
    config.base_url = config.base_url.replace("http:", "https:");
    let _sync = SyncLayer::open(config).await.unwrap();
    let mut stream = server.stream().await;
    let mut hello = [0; 512];
    let len = soon("the hello", stream.read(&mut hello)).await.unwrap();
    assert_eq!(hello[..2], [0x16, 3], "a TLS handshake");
    assert!(!hello[..len].windows(6).any(|bytes| bytes == b"s3cret"));
}

#[tokio::test]
async fn what_was_saved_is_there_when_the_store_is_opened_again() {
    let (server, disk) = (Server::start().await, Disk::default());
    let config = || server.config().connect_at_start(false).store(disk.store());
    let sync = SyncLayer::open(config()).await.unwrap();
    let clone = sync.clone();
    sync.collection("todos").unwrap().save_with_id("a", &json!({"n": 1})).await.unwrap();
    let mut watch = clone.collection("todos").unwrap().watch();
    sync.close().await;
    assert_eq!(disk.open.load(Ordering::SeqCst), 0, "the store is closed");
    assert_eq!(clone.status().await, Err(SyncError::Closed));
    soon("the end of the watch", async { while watch.next().await.is_some() {} }).await;
    clone.close().await;

    let sync = SyncLayer::open(config()).await.unwrap();
    assert_eq!(sync.collection("todos").unwrap().get_all().await.unwrap().len(), 1);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_everything() {
    let (server, disk) = (Server::start().await, Disk::default());
    let config = server.config().store(disk.store());
    let sync = SyncLayer::open(config).await.unwrap();
    let mut peer = server.accept_synced().await;
    let (todos, mut events) = (sync.collection("todos").unwrap(), sync.events());
    drop(sync);
    assert_eq!(todos.get_all().await, Ok(vec![]), "a collection is a handle too");
    drop(todos);
    assert_eq!(peer.receive().await, None, "the connection is closed");
    soon("the end of the events", async { while events.next().await.is_some() {} }).await;
    soon("the end of the store", async {
        while disk.open.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_failed_store_is_opened_again() {
    let (server, disk) = (Server::start().await, Disk::default());
    let config = server.config().connect_at_start(false).store(disk.store());
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    let (mut watch, mut events) = (todos.watch(), sync.events());
    todos.save_with_id("a", &json!({"n": 1})).await.unwrap();
    until(&mut watch, |update| update.snapshot.len() == 1).await;

    disk.broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = todos.save_with_id("b", &json!({})).await.unwrap_err();
        assert!(matches!(&error, SyncError::Store(_)), "{error}");
    }
    assert!(matches!(todos.get("a").await, Err(SyncError::Store(_))));
    assert_eq!(disk.open.load(Ordering::SeqCst), 0, "it is closed before it is opened again");
    let told = async {
        while !format!("{:?}", events.next().await).contains("could not be opened again") {}
    };
    soon("the news of a try that failed", told).await;
    disk.broken.store(false, Ordering::SeqCst);
    soon("the store", async { while sync.status().await.is_err() {} }).await;
    assert_eq!(disk.openings.load(Ordering::SeqCst), 2);
    let update = until(&mut watch, |_| true).await;
    assert_eq!(update.changes, [], "the app has seen it all");

    assert_eq!(todos.get_all().await.unwrap().len(), 1, "what was saved is safe");
    todos.save_with_id("b", &json!({})).await.unwrap();
    let update = until(&mut watch, |update| update.snapshot.len() == 2).await;
    assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if &*record.id == "b"));
}

#[tokio::test]
async fn misuse_is_an_error_of_the_call() {
    let server = Server::start().await;
    let config = server.config().connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    assert!(matches!(sync.collection(""), Err(SyncError::Name { .. })));
    let todos = sync.collection("todos").unwrap();
    assert!(matches!(todos.save(&[1]).await, Err(SyncError::Document(_))));
    assert!(matches!(todos.save_with_id("", &json!({})).await, Err(SyncError::Name { .. })));
    assert!(matches!(todos.update("x", &json!({"n": 1})).await, Err(SyncError::Misuse(_))));
    todos.save_with_id("x", &json!({})).await.unwrap();
    let refused = server.config().collections(["a\nb"]);
    assert!(matches!(SyncLayer::open(refused).await, Err(OpenError::Collection { .. })));
    let disk = Disk::default();
    disk.broken.store(true, Ordering::SeqCst);
    let broken = server.config().store(disk.store());
    assert!(matches!(SyncLayer::open(broken).await, Err(OpenError::Store(_))));
}

#[tokio::test]
async fn watches_come_and_go_without_disturbing_each_other() {
    let server = Server::start().await;
    let config = server.config().connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    todos.save_with_id("a", &json!({})).await.unwrap();
    let (mut stays, mut goes) = (todos.watch(), todos.watch());
    let before = until(&mut goes, |update| update.snapshot.len() == 1).await;
    until(&mut stays, |update| update.snapshot.len() == 1).await;
    drop(goes);
    todos.save_with_id("b", &json!({})).await.unwrap();
    let update = until(&mut stays, |_| true).await;
    assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if &*record.id == "b"));
    let first = until(&mut todos.watch(), |_| true).await;
    assert_eq!(first.changes.len(), 2, "a new watch begins with everything");
    assert_eq!(before.snapshot.len(), 1, "a snapshot stays as it was");
}

#[tokio::test]
async fn a_slow_reader_gets_its_updates_merged() {
    let server = Server::start().await;
    let config = server.config().connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    let (mut watch, mut events) = (todos.watch(), sync.events());
    until(&mut watch, |update| update.snapshot.is_empty()).await;
    for n in 0..1_500 {
        todos.save_with_id("a", &json!({"n": n})).await.unwrap();
    }
    todos.save_with_id("b", &json!({})).await.unwrap();
    todos.delete("b").await.unwrap();
    // a write that is saved is shown already
    let update = until(&mut watch, |_| true).await;
    assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if &*record.id == "a"));
    assert_eq!(update.snapshot.get("a").unwrap().document.text("n"), Some("1499"));
    soon("an event", events.next()).await.unwrap();
    assert!(events.missed() > 0);
}

#[test]
fn a_call_that_stalls_does_not_hold_up_the_end() {
    let began = std::time::Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let silent = runtime.block_on(async {
        let server = Server::start().await;
        let config = server.config().transports(Transports::PollOnly);
        let sync = SyncLayer::open(config).await.unwrap();
        let silent = server.stream().await;
        soon("the end", sync.close()).await;
        silent
    });
    drop(runtime);
    assert!(began.elapsed() < SyncConfig::new("").request_timeout);
    drop(silent);
}

#[test]
fn the_client_may_be_used_from_any_thread() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<SyncLayer>();
    check::<synclayer_tokio::Collection>();
    fn check_stream<T: futures_util::Stream + Send + Unpin + 'static>() {}
    check_stream::<synclayer_tokio::Watch>();
    check_stream::<synclayer_tokio::Events>();
    check_stream::<synclayer_tokio::StatusWatch>();
}

#[tokio::test]
async fn a_goodbye_is_answered_and_a_broken_frame_is_called_one() {
    let server = Server::start().await;
    let sync = SyncLayer::open(server.config()).await.unwrap();
    for (last, code) in last_words() {
        let mut peer = server.accept_synced().await;
        assert_eq!(peer.part(last).await, Some(code));
    }
    sync.close().await;
}

/// Messages that end a connection, each with the code of the client's answer.
fn last_words() -> Vec<(Message, u16)> {
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "restart".into() };
    let broken = Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(&b""[..], OpCode::Data(Data::Reserved(3)), true);
    let too_long = Message::binary(vec![b'x'; (4 << 20) + 1]);
    vec![
        (Message::Close(Some(goodbye)), 1001),
        (Message::Frame(broken), 1007),
        (Message::Frame(reserved), 1002),
        (too_long, 1009),
    ]
}
