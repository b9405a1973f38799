//! A server on a free port, and raw peers that know nothing of our own types.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by test binaries"
)]

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use synclayer_core::UserId;
use synclayer_server::{MemoryServerStore, Server, ServerConfig, StaticTokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The time within which everything has to happen before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub async fn open() -> Server {
    serve(ServerConfig::default()).await
}

/// With the users ann (token `a-token`) and bob (token `b-token`).
pub async fn with_tokens() -> Server {
    serve(token_config()).await
}

pub fn token_config() -> ServerConfig {
    let user = |name| UserId::new(name).unwrap();
    let tokens = StaticTokens::new([(user("ann"), "a-token"), (user("bob"), "b-token")]);
    ServerConfig::new().authenticator(Arc::new(tokens))
}

pub async fn serve(config: ServerConfig) -> Server {
    Server::bind(config, Arc::new(MemoryServerStore::new())).await.unwrap()
}

/// A raw WebSocket.
pub struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Peer {
    pub async fn connect(server: &Server, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_connect(server.local_addr(), query, headers).await.unwrap()
    }

    /// The status code, where the server refuses. `base` is its address, and the path below which
    /// it is mounted.
    pub async fn try_connect(
        base: impl Display,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let mut request = format!("ws://{base}/ws{query}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = name.parse::<axum::http::HeaderName>().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match timeout(PATIENCE, connect_async(request)).await.expect("a handshake in time") {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next message, whatever it is; `None` when the connection has ended.
    pub async fn message(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
        next.and_then(Result::ok)
    }

    /// The next text, as it came.
    pub async fn text(&mut self) -> String {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return text.as_str().to_owned(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("a text was expected, not {other:?}"),
            }
        }
    }

    /// The next text, as JSON.
    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// The next text, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let json = self.json().await;
        assert_eq!(json["type"], kind, "{json}");
        json
    }

    /// Makes sure that nothing more was on its way: the pong is next.
    pub async fn expect_quiet(&mut self) {
        self.send(r#"{"type":"ping"}"#).await;
        self.expect("pong").await;
    }

    pub async fn subscribe(&mut self, collection: &str) -> Value {
        self.send(format!(r#"{{"type":"subscribe","collection":"{collection}"}}"#)).await;
        self.expect("subscribed").await
    }

    /// The code of the close frame.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Message::Close(Some(frame))) => {
                    // the next look at the socket agrees to it
                    self.message().await;
                    return frame.code.into();
                }
                Some(Message::Close(None)) | None => panic!("closed without a code"),
                Some(_) => {}
            }
        }
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own, written by hand.
pub async fn http(
    server: &Server,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    http_at(server.local_addr(), method, target, headers, body).await
}

/// The same at an address.
pub async fn http_at(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    use std::fmt::Write as _;
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.push_str("\r\n");
    request.push_str(body);
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
