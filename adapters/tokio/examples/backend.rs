//! A backend of one's own: level 1 of the protocol, with its records in memory. The guide
//! `synclayer_tokio::guide::backend` explains it.
//!
//! ```sh
//! cargo run -p synclayer-tokio --example backend -- 127.0.0.1:8080
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use synclayer_core::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};
use tokio_tungstenite::tungstenite::Message;

/// The records, each by its collection and id as a `sync` shows it, and who follows which collection.
#[derive(Default)]
pub struct Backend {
    records: BTreeMap<(String, String), Value>,
    followers: BTreeSet<(String, u64)>,
}

impl Backend {
    /// Hears a frame of a connection. Returns what is to be sent, and to which connections.
    pub fn hear(&mut self, conn: u64, frame: &Value, now: &str) -> Vec<(u64, Value)> {
        let text = |field: &str| frame[field].as_str().unwrap_or_default().to_owned();
        let (kind, collection) = (text("type"), text("collection"));
        let answer = match kind.as_str() {
            "ping" => json!({"type": "pong", "timestamp": now}),
            "subscribe" => {
                self.followers.insert((collection.clone(), conn));
                let count = self.records_of(&collection).len();
                json!({"type": "subscribed", "collection": collection, "metadata": {"recordCount": count}})
            }
            "unsubscribe" => {
                self.followers.remove(&(collection.clone(), conn));
                json!({"type": "unsubscribed", "collection": collection})
            }
            "sync" => {
                let records = self.records_of(&collection);
                json!({"type": "sync", "collection": collection, "data": {"records": records}})
            }
            "insert" | "update" | "delete" => {
                return self.write(conn, &kind, (collection, text("recordId")), frame, now);
            }
            _ => json!({"type": "error", "code": "INVALID_MESSAGE", "error": "an unknown type"}),
        };
        vec![(conn, answer)]
    }

    /// Makes a write. Returns the change for all others who follow, or an error for the writer.
    fn write(
        &mut self,
        conn: u64,
        kind: &str,
        place: (String, String),
        frame: &Value,
        now: &str,
    ) -> Vec<(u64, Value)> {
        let (collection, id) = place.clone();
        let before = self.records.get(&place);
        let after = match (kind, before) {
            ("insert", _) => Some(frame["data"].clone()),
            ("update", Some(record)) => Some(merged(&record["data"], &frame["data"])),
            ("delete", Some(_)) => None,
            _ => {
                let error = format!("there is no such record to {kind}");
                let about = json!({
                    "type": "error", "code": "RECORD_NOT_FOUND", "error": error,
                    "collection": collection, "recordId": id
                });
                return vec![(conn, about)];
            }
        };
        if after.as_ref() == before.map(|record| &record["data"]) {
            return Vec::new();
        }
        let version = 1 + before.and_then(|record| record["version"].as_u64()).unwrap_or(0);
        let at = frame.get("timestamp").cloned().unwrap_or_else(|| json!(now));
        let mut change = json!({
            "type": kind, "collection": collection, "recordId": id, "timestamp": at,
            "metadata": {"version": version}
        });
        if let Some(data) = after {
            change["data"] = frame["data"].clone();
            let record = json!({"id": id, "data": data, "version": version, "updatedAt": at});
            self.records.insert(place, record);
        } else {
            self.records.remove(&place);
        }
        let others =
            self.followers.iter().filter(|(of, other)| *of == collection && *other != conn);
        others.map(|(_, other)| (*other, change.clone())).collect()
    }

    /// A connection has ended.
    pub fn gone(&mut self, conn: u64) {
        self.followers.retain(|(_, follower)| *follower != conn);
    }

    fn records_of(&self, collection: &str) -> Vec<&Value> {
        let all = self.records.iter().filter(|((of, _), _)| of == collection);
        all.map(|(_, record)| record).collect()
    }
}

/// A record with other values in the fields that an update names.
fn merged(record: &Value, update: &Value) -> Value {
    let mut merged = record.clone();
    for (field, value) in update.as_object().into_iter().flatten() {
        merged[field] = value.clone();
    }
    merged
}

/// The backend, and the sockets by the numbers of their connections.
type Shared = Arc<Mutex<(Backend, BTreeMap<u64, Sender<Message>>)>>;

/// Serves all connections, until the listener fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let (shared, mut last) = (Shared::default(), 0);
    loop {
        let (stream, _) = listener.accept().await?;
        last += 1;
        tokio::spawn(run(last, stream, Arc::clone(&shared)));
    }
}

async fn run(conn: u64, stream: TcpStream, shared: Shared) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut out, mut frames) = socket.split();
    let (sender, mut waiting) = channel(1024);
    lock(&shared).1.insert(conn, sender);
    tokio::spawn(async move {
        while let Some(message) = waiting.recv().await {
            if out.send(message).await.is_err() {
                break;
            }
        }
        let _ = out.close().await;
    });
    while let Some(Ok(message)) = frames.next().await {
        let text = message.to_text().unwrap_or_default();
        let Ok(frame) = serde_json::from_str(text) else { continue };
        let mut shared = lock(&shared);
        let (backend, sockets) = &mut *shared;
        for (to, frame) in backend.hear(conn, &frame, &now()) {
            let message = Message::text(frame.to_string());
            // a reader for whom a thousand frames wait is disconnected, and reads everything anew
            if sockets.get(&to).is_some_and(|socket| socket.try_send(message).is_err()) {
                sockets.remove(&to);
            }
        }
    }
    let mut shared = lock(&shared);
    shared.0.gone(conn);
    shared.1.remove(&conn);
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, (Backend, BTreeMap<u64, Sender<Message>>)> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since_1970.as_millis() as i64).to_string()
}

#[allow(dead_code)] // a test serves without it
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: backend HOST:PORT")?;
    Ok(serve(TcpListener::bind(address).await?).await?)
}
