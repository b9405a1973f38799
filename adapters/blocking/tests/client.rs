//! The client against a scripted server, over real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Server, TIMEOUT, until};
use synclayer_blocking::{
    ConnectionState, EventKind, Limits, OpenError, RecordChange, Status, Store, SyncConfig,
    SyncError, SyncLayer, TimedOut, Transports, TrustedRoots,
};
use synclayer_core::MemoryClientStore;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

fn round_trip(server: &Server) {
    let sync = SyncLayer::open(server.config()).unwrap();
    let mut peer = server.accept_synced();
    let todos = sync.collection("todos").unwrap();
    let mut watch = todos.watch();

    let id = todos.save(&json!({"text": "Buy milk"})).unwrap();
    let shown = until(&mut watch, |update| !update.snapshot.is_empty());
    assert!(shown.snapshot.pending());
    assert_eq!(todos.get(&id).unwrap().unwrap().document.text("text"), Some("\"Buy milk\""));
    let write = peer.expect("insert");
    assert_eq!(write["data"], json!({"text": "Buy milk"}));
    peer.ack(&write, 1);
    until(&mut watch, |update| !update.snapshot.pending());

    peer.say(&json!({"type": "insert", "collection": "todos", "recordId": "b",
        "data": {"text": "x".repeat(300_000)}, "timestamp": "2026-11-22T17:00:00.000Z",
        "metadata": {"seq": 2, "version": 1, "userId": "u2"}}));
    let update = until(&mut watch, |update| update.snapshot.len() == 2);
    assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if &*record.id == "b"));
    todos.update("b", &json!({"text": "y".repeat(300_000)})).unwrap();
    assert_eq!(peer.expect("update")["data"]["text"], "y".repeat(300_000));
    sync.close();
    assert_eq!(peer.receive(), None);
}

#[test]
fn writes_and_changes_go_to_and_fro() {
    round_trip(&Server::start());
}

#[test]
fn they_do_so_over_tls() {
    round_trip(&Server::start_tls());
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let server = Server::start_tls();
    let config = server.config().trusted_roots(TrustedRoots::Public).transports(Transports::Both);
    let sync = SyncLayer::open(config.connect_at_start(false)).unwrap();
    let mut events = sync.events();
    sync.connect().unwrap();
    let accepting = thread::spawn(move || server.try_accept().is_none());
    let why = loop {
        let event = events.next_timeout(TIMEOUT).unwrap().unwrap();
        if let EventKind::Error { message, .. } = event.kind {
            break message;
        }
    };
    assert!(why.contains("certificate"), "{why}");
    sync.close();
    assert!(accepting.join().unwrap(), "no request was made");
}

#[test]
fn a_lost_connection_is_made_again_and_told_of() {
    let server = Server::start();
    let sync = SyncLayer::open(server.config()).unwrap();
    let mut events = sync.events();
    let mut peer = server.accept_synced();
    sync.collection("todos").unwrap().save_with_id("a", &json!({})).unwrap();
    let first = peer.expect("insert");
    drop(peer);

    drop(server.stream()); // and once more before the handshake
    let mut peer = server.accept_synced();
    assert_eq!(peer.expect("insert"), first, "sent again, under its number");
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = events.next_timeout(TIMEOUT).unwrap().unwrap();
        if matches!(event.kind, EventKind::RealtimeConnected) {
            kinds.push(true);
        } else if matches!(event.kind, EventKind::RealtimeDisconnected { .. }) {
            kinds.push(false);
        }
    }
    assert_eq!(kinds, [true, false]);
    assert_eq!(events.missed(), 0);
}

#[test]
fn the_token_goes_in_the_header_and_only_where_it_is_safe() {
    let server = Server::start();
    let config = server.config().auth_token("s3cret");
    let _sync = SyncLayer::open(config).unwrap();
    assert_eq!(server.accept().authorization.as_deref(), Some("Bearer s3cret"));

    let elsewhere = || SyncConfig::new("http://example.com").connect_at_start(false);
    let error = SyncLayer::open(elsewhere().auth_token("s3cret")).unwrap_err();
    assert!(matches!(&error, OpenError::Insecure { host } if host == "example.com"), "{error}");
    let sync = SyncLayer::open(elsewhere()).unwrap();
    assert_eq!(sync.set_token("s3cret"), Err(SyncError::Insecure));
}

#[test]
fn synced_waits_for_the_server_or_for_so_long() {
    let server = Server::start();
    let config = server.config().connect_at_start(false);
    let sync = SyncLayer::open(config).unwrap();
    sync.collection("todos").unwrap().save_with_id("a", &json!({})).unwrap();
    assert_eq!(sync.synced_timeout(Duration::from_millis(10)), Err(TimedOut));
    let status = sync.status().unwrap();
    assert_eq!((status.connection, status.pending_writes), (ConnectionState::Disconnected, 1));

    let mut statuses = sync.watch_status();
    assert_eq!(statuses.next_timeout(TIMEOUT).unwrap().unwrap(), status);
    assert_eq!(statuses.next_timeout(Duration::from_millis(10)), Err(TimedOut));

    sync.connect().unwrap();
    let mut peer = server.accept_synced();
    let connected = |status: &Status| status.connection == ConnectionState::Connected;
    assert!(statuses.by_ref().find(connected).is_some());
    let write = peer.expect("insert");
    let (told, done) = channel();
    thread::scope(|scope| {
        scope.spawn(|| told.send(sync.synced()));
        peer.ack(&write, 1);
        while done.try_recv().is_err() {
            if peer.expect("ping")["type"] == "ping" {
                peer.say(&json!({"type": "pong"}));
            }
            if let Ok(result) = done.recv_timeout(Duration::from_millis(50)) {
                assert_eq!(result, Ok(()));
                break;
            }
        }
    });
    assert_eq!(sync.status().unwrap().pending_writes, 0);
    assert!(statuses.by_ref().find(|status| status.pending_writes == 0).is_some());
    sync.disconnect().unwrap();
    assert_eq!(peer.receive(), None);
    sync.close();
    assert_eq!(statuses.last().unwrap().connection, ConnectionState::Disconnected);
}

#[test]
fn a_server_that_does_not_read_blocks_nobody() {
    let server = Server::start();
    let sync = SyncLayer::open(server.config()).unwrap();
    let mut peer = server.accept_synced();
    let todos = sync.collection("todos").unwrap();
    let text = "x".repeat(100_000);
    for n in 0..200 {
        todos.save_with_id(&n.to_string(), &json!({ "text": text })).unwrap();
    }
    assert_eq!(sync.status().unwrap().pending_writes, 200);
    // once it reads, everything comes
    for seq in 1..=200 {
        let write = peer.expect("insert");
        peer.ack(&write, seq);
    }
    let settled = Instant::now();
    while sync.status().unwrap().pending_writes > 0 {
        assert!(settled.elapsed() < TIMEOUT);
        thread::yield_now();
    }
}

#[test]
fn what_finds_no_room_goes_out_when_there_is_some() {
    let server = Server::start();
    // more than the system takes for a connection that nobody reads
    let mut limits = Limits::default();
    (limits.frame_bytes, limits.document_bytes) = (16 << 20, 16 << 20);
    let sync = SyncLayer::open(server.config().limits(limits)).unwrap();
    let mut peer = server.accept_synced();
    let text = "x".repeat(15_000_000);
    sync.collection("todos").unwrap().save(&json!({ "text": text })).unwrap();
    // nothing else is on its way that would take it along
    assert_eq!(peer.expect("insert")["data"]["text"], text);
}

#[test]
fn closing_joins_and_dropping_ends() {
    let server = Server::start();
    let sync = SyncLayer::open(server.config()).unwrap();
    let mut peer = server.accept_synced();
    let (todos, mut watch, mut events) = (
        sync.collection("todos").unwrap(),
        sync.collection("todos").unwrap().watch(),
        sync.events(),
    );
    until(&mut watch, |_| true);
    drop(sync);
    assert_eq!(todos.get_all(), Ok(vec![]), "a collection is a handle too");
    drop(todos);
    assert_eq!(peer.receive(), None, "the connection is closed");
    while events.next_timeout(TIMEOUT).unwrap().is_some() {}
    while watch.next_timeout(TIMEOUT).unwrap().is_some() {}

    let held = Arc::new(());
    let holder = held.clone();
    let store = Store::opened_by(move |_| {
        assert!(Arc::strong_count(&holder) > 1);
        Ok(Box::new(MemoryClientStore::default()))
    });
    let sync = SyncLayer::open(server.config().store(store)).unwrap();
    let clone = sync.clone();
    thread::scope(|scope| {
        for sync in [&sync, &clone] {
            scope.spawn(|| {
                sync.close();
                assert_eq!(Arc::strong_count(&held), 1, "the thread has let go of everything");
            });
        }
    });
    assert_eq!(clone.status(), Err(SyncError::Closed));
    assert!(clone.events().next().is_none());
}

#[test]
fn a_silent_peer_does_not_hold_up_the_end() {
    let (websocket, http) = (Transports::RealtimeOnly, Transports::PollOnly);
    for (server, transports) in
        [(Server::start(), websocket), (Server::start_tls(), websocket), (Server::start(), http)]
    {
        let sync = SyncLayer::open(server.config().transports(transports)).unwrap();
        let _silent = server.stream();
        let began = Instant::now();
        sync.collection("todos").unwrap().save_with_id("a", &json!({})).unwrap();
        sync.close();
        assert!(began.elapsed() < TIMEOUT / 2);
    }
}

#[test]
fn misuse_is_an_error_of_the_call() {
    let server = Server::start();
    let config = || server.config().connect_at_start(false);
    let sync = SyncLayer::open(config()).unwrap();
    assert!(matches!(sync.collection(""), Err(SyncError::Name { .. })));
    let todos = sync.collection("todos").unwrap();
    assert!(matches!(todos.save(&[1]), Err(SyncError::Document(_))));
    assert!(matches!(todos.update("x", &json!({"n": 1})), Err(SyncError::Misuse(_))));
    let broken = Store::opened_by(|_| {
        let kind = synclayer_blocking::StoreErrorKind::Full;
        Err(synclayer_blocking::StoreError::new(kind, "the disk is full"))
    });
    let refused = SyncLayer::open(config().store(broken));
    assert!(matches!(refused, Err(OpenError::Store(_))));
}

/// Printed, not judged: a busy machine says nothing. See it with `--nocapture`.
#[test]
fn a_write_is_on_the_wire_at_once() {
    for (name, server) in [("plain", Server::start()), ("TLS", Server::start_tls())] {
        let sync = SyncLayer::open(server.config()).unwrap();
        let mut peer = server.accept_synced();
        let todos = sync.collection("todos").unwrap();
        let (told, heard) = channel();
        let hearing = thread::spawn(move || {
            for seq in 1..=200 {
                let write = peer.expect("insert");
                told.send(Instant::now()).unwrap();
                peer.ack(&write, seq);
            }
        });
        let mut times: Vec<Duration> = (0..200)
            .map(|n: usize| {
                let began = Instant::now();
                todos.save_with_id(&n.to_string(), &json!({ "n": n })).unwrap();
                heard.recv_timeout(TIMEOUT).unwrap().saturating_duration_since(began)
            })
            .collect();
        hearing.join().unwrap();
        times.sort();
        println!(
            "{name}: a save was at the peer after {:?} in the median, {:?} at worst",
            times[100], times[199]
        );
    }
}

#[test]
fn the_client_may_be_used_from_any_thread() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<SyncLayer>();
    check::<synclayer_blocking::Collection>();
    fn check_iterator<T: Iterator + Send + 'static>() {}
    check_iterator::<synclayer_blocking::Watch>();
    check_iterator::<synclayer_blocking::Events>();
    check_iterator::<synclayer_blocking::StatusWatch>();
}

#[test]
fn a_goodbye_is_answered_and_a_broken_frame_is_called_one() {
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "restart".into() };
    let broken = Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(&b""[..], OpCode::Data(Data::Reserved(3)), true);
    for server in [Server::start(), Server::start_tls()] {
        let sync = SyncLayer::open(server.config()).unwrap();
        for (last, code) in [
            (Message::Close(Some(goodbye.clone())), 1001),
            (Message::Frame(broken.clone()), 1007),
            (Message::Frame(reserved.clone()), 1002),
        ] {
            let mut peer = server.accept_synced();
            assert_eq!(peer.part(last), Some(code));
        }
        sync.close();
    }
}
