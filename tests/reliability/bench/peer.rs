//! Raw WebSockets that speak level 2.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::process::{begin, end, tell};
use crate::scopes::subscription;
use crate::world::{Result, document, id};

/// Writes whose acknowledgements are waited for together.
const WINDOW: usize = 500;

/// A raw WebSocket that has said its hello on level 2 and follows a collection.
pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    written: usize,
    /// The server's epoch.
    epoch: String,
}

impl Peer {
    /// Connects to an empty collection, or one that this client has.
    pub(crate) async fn connect(server: &str, name: &str) -> Result<Self> {
        let (socket, _) = connect_async(format!("ws://{server}/ws")).await?;
        let mut peer = Self { socket, written: 0, epoch: String::new() };
        let hello = json!({"protocol": 2, "clientId": name, "session": 1});
        peer.say(&json!({"type": "ping", "metadata": hello})).await?;
        let pong: Value = serde_json::from_str(&peer.hear().await?)?;
        peer.epoch = pong["metadata"]["epoch"].as_str().ok_or("no epoch")?.into();
        Ok(peer)
    }

    /// Subscribes rooms of the messages, new ones or such that it has up to a seq. Returns the bytes that come.
    pub(crate) async fn join(&mut self, rooms: &[String], seq: Option<u64>) -> Result<usize> {
        let message = subscription(rooms, seq.map(|seq| (self.epoch.as_str(), seq)));
        self.say(&message).await?;
        let mut bytes = 0;
        loop {
            let text = self.hear().await?;
            bytes += text.len();
            if text.contains(r#""type":"synced""#) {
                return Ok(bytes);
            }
            if text.contains(r#""type":"error""#) {
                return Err(text.into());
            }
        }
    }

    pub(crate) async fn follow(&mut self, collection: &str) -> Result<()> {
        self.say(&json!({"type": "subscribe", "collection": collection})).await?;
        self.expect("synced").await
    }

    pub(crate) async fn say(&mut self, message: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// Inserts a record, without waiting for its acknowledgement.
    pub(crate) async fn insert(&mut self, collection: &str, n: usize) -> Result<()> {
        self.save(collection, &id(n), &document(n)).await
    }

    /// The same with a record of one's own.
    pub(crate) async fn save(&mut self, collection: &str, id: &str, data: &Value) -> Result<()> {
        self.written += 1;
        let message = json!({"type": "insert", "collection": collection, "recordId": id,
            "data": data, "metadata": {"mutation": self.written, "base": 0}});
        self.say(&message).await
    }

    /// Inserts records, as fast as the server takes them.
    pub(crate) async fn fill(&mut self, records: std::ops::Range<usize>) -> Result<()> {
        for first in records.clone().step_by(WINDOW) {
            for n in first..records.end.min(first + WINDOW) {
                self.insert("todos", n).await?;
            }
            self.expect_all().await?;
        }
        Ok(())
    }

    /// Waits until everything that was written is acknowledged.
    pub(crate) async fn expect_all(&mut self) -> Result<()> {
        let last = format!(r#""mutation":{}"#, self.written);
        loop {
            let text = self.hear().await?;
            if text.contains(r#""type":"ack""#) && text.contains(&last) {
                return Ok(());
            }
            if text.contains(r#""type":"error""#) {
                return Err(text.into());
            }
        }
    }

    /// Waits for a message of a type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Result<()> {
        let start = format!(r#""type":"{kind}""#);
        while !self.hear().await?.contains(&start) {}
        Ok(())
    }

    async fn hear(&mut self) -> Result<String> {
        loop {
            match self.socket.next().await.ok_or("the connection has ended")?? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(why) => return Err(format!("closed: {why:?}").into()),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

/// Subscribers who wait for changes, and somebody who makes them, one after the other.
pub(crate) async fn crowd(server: &str, subscribers: usize, changes: usize) -> Result<()> {
    let mut all = Vec::new();
    for n in 0..subscribers {
        let mut peer = Peer::connect(server, &format!("subscriber-{n}")).await?;
        peer.follow("news").await?;
        all.push(peer);
    }
    let mut writer = Peer::connect(server, "writer").await?;
    begin()?;
    let readers = all.into_iter().map(|mut peer| {
        tokio::spawn(async move {
            let mut bytes = 0;
            for _ in 0..changes {
                loop {
                    let text = peer.hear().await?;
                    bytes += text.len();
                    if text.contains(r#""type":"insert""#) {
                        break;
                    }
                }
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(bytes)
        })
    });
    let readers: Vec<_> = readers.collect();
    for n in 0..changes {
        writer.insert("news", n).await?;
        writer.expect_all().await?;
    }
    let mut bytes = 0;
    for reader in readers {
        bytes += reader.await??;
    }
    end()?;
    tell("bytes", bytes / (subscribers * changes));
    Ok(())
}
