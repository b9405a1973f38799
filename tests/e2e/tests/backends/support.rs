//! Starting a backend, and raw peers that know nothing of our own types.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use synclayer_e2e::wait::TIMEOUT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Runs a test against each of the programs.
macro_rules! against_each {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        mod node {
            use crate::support::Kind;

            $($(#[$doc])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(Kind::Node).await;
            })+
        }

        mod python {
            use crate::support::Kind;

            $($(#[$doc])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(Kind::Python).await;
            })+
        }
    };
}

/// Which of the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Express and ws.
    Node,
    /// aiohttp.
    Python,
}

impl Kind {
    fn interpreter(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python3",
        }
    }

    fn script(self) -> PathBuf {
        let backends = Path::new(env!("CARGO_MANIFEST_DIR")).join("backends");
        match self {
            Self::Node => backends.join("node/server.js"),
            Self::Python => backends.join("python/server.py"),
        }
    }

    /// Where its packages are installed, and the variable that tells its interpreter so.
    fn packages(self) -> (PathBuf, &'static str) {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("backends");
        match self {
            Self::Node => (target.join("node/node_modules"), "NODE_PATH"),
            Self::Python => (target.join("python"), "PYTHONPATH"),
        }
    }

    /// Returns the reason why it can't be started here.
    fn missing(self) -> Option<String> {
        let interpreter = self.interpreter();
        let asked = Command::new(interpreter).arg("--version").output();
        if !asked.is_ok_and(|output| output.status.success()) {
            return Some(format!("there is no `{interpreter}`"));
        }
        let (packages, _) = self.packages();
        let probe = match self {
            Self::Node => packages.join("ws/package.json"),
            Self::Python => packages.join("aiohttp/__init__.py"),
        };
        (!probe.exists()).then(|| format!("its packages are not in {}", packages.display()))
    }
}

/// A running backend. It ends with the value.
pub struct Backend {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    port: u16,
}

impl Backend {
    /// Starts a backend with these flags; `None` where the test has to be skipped.
    pub fn start(kind: Kind, flags: &[&str]) -> Option<Self> {
        if let Some(missing) = kind.missing() {
            let message = format!("the {kind:?} backend can't be started: {missing}");
            assert!(std::env::var_os("SYNCLAYER_REQUIRE_BACKENDS").is_none(), "{message}");
            // not `eprintln!`, whose output a test that passes does not show
            let note = format!("SKIPPED: {message} (`.ci/run` installs what it needs)\n");
            std::io::stderr().write_all(note.as_bytes()).unwrap();
            return None;
        }
        let (packages, variable) = kind.packages();
        let mut child = Command::new(kind.interpreter())
            .arg(kind.script())
            .args(flags)
            .env(variable, packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (heard, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let mut backend = Self { child, input, lines, port: 0 };
        backend.port = u16::try_from(backend.line()["port"].as_u64().unwrap()).unwrap();
        Some(backend)
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Cuts all WebSockets.
    pub fn cut(&mut self) {
        self.command("cut");
    }

    /// Returns its counters.
    pub fn stats(&mut self) -> Value {
        self.command("stats");
        self.line()
    }

    /// Closes its input, and waits until it has ended.
    pub fn end(mut self) {
        self.input = None;
        // its output closes with it
        match self.lines.recv_timeout(TIMEOUT) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => panic!("it did not end: {other:?}"),
        }
        assert!(self.child.wait().unwrap().success());
    }

    fn command(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn line(&self) -> Value {
        let line = self.lines.recv_timeout(TIMEOUT).expect("a line in time");
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // both fail where it has ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A raw WebSocket.
pub struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Peer {
    pub async fn connect(backend: &Backend, query: &str) -> Self {
        Self::try_connect(backend, query).await.unwrap()
    }

    /// The status code, where the backend refuses.
    pub async fn try_connect(backend: &Backend, query: &str) -> Result<Self, u16> {
        let url = format!("ws://{}/ws{query}", backend.addr());
        match timeout(TIMEOUT, connect_async(url)).await.expect("a handshake in time") {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// A WebSocket ping, answered by every WebSocket library by itself.
    pub async fn ping(&mut self) {
        self.socket.send(Message::Ping(Vec::new().into())).await.unwrap();
        let next = timeout(TIMEOUT, self.socket.next()).await.expect("a pong in time");
        assert!(matches!(next, Some(Ok(Message::Pong(_)))), "{next:?}");
    }

    /// The next text as JSON; `None` when the connection has ended, however it did.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let next = timeout(TIMEOUT, self.socket.next()).await.expect("a message in time");
            match next? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// The next text, which has to be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let json = self.next().await.expect("a message, not an end");
        assert_eq!(json["type"], kind, "{json}");
        json
    }

    /// Makes sure that nothing more was on its way: the answer to an unfollowing is next.
    pub async fn expect_quiet(&mut self) {
        self.send(serde_json::json!({"type": "unsubscribe", "collection": "none"})).await;
        self.expect("unsubscribed").await;
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own, written by hand.
pub async fn http(backend: &Backend, method: &str, target: &str, body: Value) -> Answer {
    http_as(backend, None, method, target, body).await
}

/// The same with a token.
pub async fn http_as(
    backend: &Backend,
    token: Option<&str>,
    method: &str,
    target: &str,
    body: Value,
) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{}\r\n{body}",
        body.len(),
        token.unwrap_or_default(),
    );
    let exchange = async {
        let mut stream = TcpStream::connect(backend.addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(TIMEOUT, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, body: body.to_owned() }
}
