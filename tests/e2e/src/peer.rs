//! A raw WebSocket that knows nothing of our types.

use std::borrow::Borrow;
use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::host::Host;
use crate::proxy::messages;
use crate::wait::soon;

/// One end of a WebSocket.
pub struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Messages that came in a batch with the last one.
    waiting: VecDeque<Value>,
}

impl Peer {
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap()
    }

    /// The status code, where the server refuses.
    pub async fn try_connect(url: &str) -> Result<Self, u16> {
        match soon("a handshake", connect_async(url)).await {
            Ok((socket, _)) => Ok(Self { socket, waiting: VecDeque::new() }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// One that has said hello as a client of this name.
    pub async fn resumable(host: &Host, client_id: &str) -> Self {
        let mut peer = Self::connect(&format!("ws://{}/ws", host.address())).await;
        let metadata = json!({"protocol": 2, "clientId": client_id, "session": 1});
        peer.send(json!({"type": "ping", "metadata": metadata})).await;
        peer.expect("pong").await;
        peer
    }

    pub async fn send(&mut self, message: impl Borrow<Value>) {
        self.socket.send(Message::text(message.borrow().to_string())).await.unwrap();
    }

    /// A WebSocket ping, answered by every WebSocket library by itself.
    pub async fn ping(&mut self) {
        self.socket.send(Message::Ping(Vec::new().into())).await.unwrap();
        let next = soon("a pong", self.socket.next()).await;
        assert!(matches!(next, Some(Ok(Message::Pong(_)))), "{next:?}");
    }

    /// The next message; batches come apart. `None` when the connection has ended, however it did.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(message);
            }
            match soon("a message", self.socket.next()).await? {
                Ok(Message::Text(text)) => self.waiting.extend(messages(&text)),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The next message, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let json = self.next().await.expect("a message, not an end");
        assert_eq!(json["type"], kind, "{json}");
        json
    }

    /// Makes sure that nothing more was on its way: the answer to an unfollowing is next.
    pub async fn expect_quiet(&mut self) {
        self.send(json!({"type": "unsubscribe", "collection": "none"})).await;
        self.expect("unsubscribed").await;
    }
}
