//! Starting a backend, and requests to it that know nothing of our own types.

use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::Value;
use synclayer_e2e::skip::without_backends;
use synclayer_e2e::wait::TIMEOUT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

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
            without_backends(&format!("the {kind:?} backend can't be started: {missing}"));
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

    /// The URL of its WebSocket, with this query.
    pub fn url(&self, query: &str) -> String {
        format!("ws://{}/ws{query}", self.addr())
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

/// An HTTP answer.
#[derive(Debug)]
pub struct HttpReply {
    pub status: u16,
    pub body: String,
}

impl HttpReply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request on a connection of its own, written by hand.
pub async fn http(backend: &Backend, method: &str, target: &str, body: Value) -> HttpReply {
    http_as(backend, None, method, target, body).await
}

/// The same with a token.
pub async fn http_as(
    backend: &Backend,
    token: Option<&str>,
    method: &str,
    target: &str,
    body: Value,
) -> HttpReply {
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
    HttpReply { status, body: body.to_owned() }
}
