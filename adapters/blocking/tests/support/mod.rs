//! A server that says what the test tells it to, in the clear or over TLS.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use synclayer_blocking::{SyncConfig, Transports, TrustedRoots, Update, Watch};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket, accept_hdr};

/// The time that anything may take before a test fails.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Takes updates until one is as wanted.
pub fn until(watch: &mut Watch, mut wanted: impl FnMut(&Update) -> bool) -> Update {
    let deadline = Instant::now() + TIMEOUT;
    let mut last = None;
    while let Ok(update) = watch.next_timeout(deadline.saturating_duration_since(Instant::now())) {
        let update = update.expect("the watch has ended");
        if wanted(&update) {
            return update;
        }
        last = Some(update);
    }
    panic!("no such update; the last one was {last:?}");
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Server {
    listener: TcpListener,
    tls: Option<(Arc<ServerConfig>, TrustedRoots)>,
}

impl Server {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), tls: None }
    }

    /// A server with a certificate that vouches for itself.
    pub fn start_tls() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let trusted = TrustedRoots::Pem(made.cert.pem().into_bytes());
        Self { tls: Some((Arc::new(config), trusted)), ..Self::start() }
    }

    pub fn config(&self) -> SyncConfig {
        let port = self.listener.local_addr().unwrap().port();
        let (base_url, trusted_roots) = match &self.tls {
            None => (format!("http://127.0.0.1:{port}"), TrustedRoots::Public),
            Some((_, trusted)) => (format!("https://localhost:{port}"), trusted.clone()),
        };
        SyncConfig::new(base_url)
            .trusted_roots(trusted_roots)
            .collections(["todos"])
            .reconnect_delay(Duration::from_millis(10))
            .transports(Transports::RealtimeOnly)
    }

    /// The next connection, before anything was said on it.
    pub fn stream(&self) -> TcpStream {
        let stream = self.listener.accept().unwrap().0;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub fn accept(&self) -> Peer {
        self.try_accept().expect("the handshake failed")
    }

    /// The next connection, if its handshake succeeds.
    pub fn try_accept(&self) -> Option<Peer> {
        let stream = self.stream();
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((config, _)) => {
                let connection = ServerConnection::new(config.clone()).unwrap();
                Box::new(StreamOwned::new(connection, stream))
            }
        };
        let mut authorization = None;
        #[allow(clippy::result_large_err)] // tungstenite's own type
        let look = |request: &Request, response: Response| {
            let header = request.headers().get("authorization");
            authorization = header.map(|value| value.to_str().unwrap().to_owned());
            Ok(response)
        };
        let socket = accept_hdr(stream, look).ok()?;
        Some(Peer { socket, authorization, waiting: VecDeque::new() })
    }

    /// A connection whose hello is answered, and whose collection, empty, has caught up.
    pub fn accept_synced(&self) -> Peer {
        let mut peer = self.accept();
        peer.answer_hello();
        peer.expect("subscribe");
        peer.say(&json!({"type": "subscribed", "collection": "todos",
            "metadata": {"recordCount": 0, "head": 0, "mode": "snapshot"}}));
        peer.say(&json!({"type": "sync", "collection": "todos", "data": {"records": []},
            "metadata": {"snapshotSeq": 0}}));
        peer.say(&json!({"type": "synced", "collection": "todos",
            "metadata": {"epoch": "e1", "seq": 0, "count": 0, "checksum": "0000000000000000"}}));
        peer
    }
}

pub struct Peer {
    socket: WebSocket<Box<dyn Stream>>,
    pub authorization: Option<String>,
    waiting: VecDeque<Value>,
}

impl Peer {
    pub fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).unwrap();
    }

    /// The next message; `None` when the client has closed the connection.
    pub fn receive(&mut self) -> Option<Value> {
        while self.waiting.is_empty() {
            let text = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_) | Message::Binary(_) | Message::Frame(_)) => return None,
                Err(tungstenite::Error::Io(error)) => {
                    let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
                    assert!(!timed_out, "no message came");
                    return None;
                }
                Err(_) => return None,
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

    pub fn expect(&mut self, kind: &str) -> Value {
        let message = self.receive().unwrap_or_else(|| panic!("closed instead of {kind}"));
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Answers the hello.
    pub fn answer_hello(&mut self) {
        self.expect("ping");
        self.say(&json!({"type": "pong", "timestamp": "2026-11-22T17:00:00.000Z",
            "metadata": {"protocol": 2, "epoch": "e1", "lastMutation": 0,
                "maxBatchBytes": 262_144}}));
    }

    /// Sends a message that ends the connection, and returns the code with which the client closes it.
    pub fn part(&mut self, last: Message) -> Option<u16> {
        self.socket.send(last).unwrap();
        loop {
            let message = self.socket.read().expect("closed without a word");
            if let Message::Close(frame) = message {
                return frame.map(|frame| frame.code.into());
            }
        }
    }

    pub fn ack(&mut self, write: &Value, seq: u64) {
        self.say(&json!({"type": "ack", "collection": "todos", "recordId": write["recordId"],
            "timestamp": "2026-11-22T17:00:00.000Z",
            "metadata": {"mutation": write["metadata"]["mutation"], "seq": seq, "version": 1}}));
    }
}
