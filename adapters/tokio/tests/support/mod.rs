//! A server that says what the test tells it to, and a store that breaks on demand.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use synclayer_core::{
    Batch, ClientStore, CommitNumber, MemoryClientStore, Rows, StoreError, StoreErrorKind,
};
use synclayer_tokio::{OnDurable, Store, SyncConfig, Transports, Update, Watch};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Waits for something that has to happen soon.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(10), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// Takes updates until one is as wanted.
pub async fn until(watch: &mut Watch, mut wanted: impl FnMut(&Update) -> bool) -> Update {
    let mut last = None;
    let found = async {
        loop {
            let update = watch.next().await.expect("the watch has ended");
            if wanted(&update) {
                return update;
            }
            last = Some(update);
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), found).await {
        Ok(update) => update,
        Err(_) => panic!("no such update; the last one was {last:?}"),
    }
}

pub struct Server {
    listener: TcpListener,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn config(&self) -> SyncConfig {
        SyncConfig::new(format!("http://{}", self.listener.local_addr().unwrap()))
            .collections(["todos"])
            .reconnect_delay(Duration::from_millis(10))
            .transports(Transports::RealtimeOnly)
    }

    /// The next connection, before the handshake.
    pub async fn stream(&self) -> TcpStream {
        soon("a connection", self.listener.accept()).await.unwrap().0
    }

    pub async fn accept(&self) -> Peer {
        let mut authorization = None;
        let stream = self.stream().await;
        #[allow(clippy::result_large_err)] // tungstenite's own type
        let look = |request: &Request, response: Response| {
            let header = request.headers().get("authorization");
            authorization = header.map(|value| value.to_str().unwrap().to_owned());
            Ok(response)
        };
        let socket = soon("the handshake", accept_hdr_async(stream, look)).await.unwrap();
        Peer { socket, authorization, waiting: VecDeque::new() }
    }

    /// A connection whose hello is answered, and whose collection, empty, has caught up.
    pub async fn accept_synced(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.answer_hello(0).await;
        peer.expect("subscribe").await;
        peer.say(json!({"type": "subscribed", "collection": "todos",
            "metadata": {"recordCount": 0, "head": 0, "mode": "snapshot"}}))
            .await;
        peer.say(json!({"type": "sync", "collection": "todos", "data": {"records": []},
            "metadata": {"snapshotSeq": 0}}))
            .await;
        peer.say(json!({"type": "synced", "collection": "todos",
            "metadata": {"epoch": "e1", "seq": 0, "count": 0, "checksum": "0000000000000000"}}))
            .await;
        peer
    }
}

pub struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub authorization: Option<String>,
    waiting: VecDeque<Value>,
}

impl Peer {
    pub async fn say(&mut self, message: Value) {
        soon("sending", self.socket.send(Message::text(message.to_string()))).await.unwrap();
    }

    /// The next message; `None` when the client has closed the connection.
    pub async fn receive(&mut self) -> Option<Value> {
        while self.waiting.is_empty() {
            let message = soon("a message", self.socket.next()).await;
            let Some(Ok(Message::Text(text))) = message else {
                match message {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    _ => return None,
                }
            };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if let Value::Array(messages) = message["messages"].take() {
                self.waiting.extend(messages);
            } else {
                self.waiting.push_back(message);
            }
        }
        self.waiting.pop_front()
    }

    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.receive().await.unwrap_or_else(|| panic!("closed instead of {kind}"));
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Answers the hello.
    pub async fn answer_hello(&mut self, last_mutation: u64) -> Value {
        let hello = self.expect("ping").await;
        self.say(json!({"type": "pong", "timestamp": "2026-11-22T17:00:00.000Z",
            "metadata": {"protocol": 2, "epoch": "e1", "lastMutation": last_mutation,
                "maxBatchBytes": 262_144}}))
            .await;
        hello
    }

    /// Sends a message that ends the connection, and returns the code with which the client closes it.
    pub async fn part(&mut self, last: Message) -> Option<u16> {
        soon("sending", self.socket.send(last)).await.unwrap();
        loop {
            match soon("a close frame", self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                end @ (None | Some(Err(_))) => panic!("closed without a word: {end:?}"),
            }
        }
    }

    pub async fn ack(&mut self, write: &Value, seq: u64) {
        self.say(json!({"type": "ack", "collection": "todos", "recordId": write["recordId"],
            "timestamp": "2026-11-22T17:00:00.000Z",
            "metadata": {"mutation": write["metadata"]["mutation"], "seq": seq, "version": 1}}))
            .await;
    }
}

/// A disk in memory: what was committed is there when the store is opened again.
#[derive(Clone, Default)]
pub struct Disk {
    rows: Arc<Mutex<Option<MemoryClientStore>>>,
    pub broken: Arc<AtomicBool>,
    /// The number of stores that are open, and of openings.
    pub open: Arc<AtomicUsize>,
    pub openings: Arc<AtomicUsize>,
}

impl Disk {
    pub fn store(&self) -> Store {
        let disk = self.clone();
        Store::opened_by(move |_: OnDurable| {
            disk.check()?;
            let rows = disk.rows.lock().unwrap().clone().unwrap_or_default();
            disk.open.fetch_add(1, Ordering::SeqCst);
            disk.openings.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(DiskStore { disk: disk.clone(), rows }))
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Full, "the disk is full"));
        }
        Ok(())
    }
}

struct DiskStore {
    disk: Disk,
    rows: MemoryClientStore,
}

impl ClientStore for DiskStore {
    fn rows(&self) -> &dyn Rows {
        self.rows.rows()
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.disk.check()?;
        self.rows.commit(number, batch)?;
        *self.disk.rows.lock().unwrap() = Some(self.rows.clone());
        Ok(())
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.disk.check()?;
        self.rows.flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.rows.durable()
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.disk.open.fetch_sub(1, Ordering::SeqCst);
    }
}
