//! The cases of the Autobahn test suite, at the server and both clients.
//!
//! SyncLayer echoes nothing, so the parts that read, write and close a WebSocket are taken in here
//! as they are, and an echo is put behind them. The real server has the cases that need no echo.
//! `tests/README.md` says which cases are left out, and why.
//!
//! The suite is the Python package `kosoku`, which `.ci/run` installs below `target/backends`. Where
//! it is missing the tests say so and skip, unless `SYNCLAYER_REQUIRE_BACKENDS` is set.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

#[path = "../../../adapters/blocking/src/network.rs"]
mod blocking_network;
#[path = "../../../adapters/blocking/src/byte_stream.rs"]
mod byte_stream;
#[path = "../../../adapters/blocking/src/closing.rs"]
mod closing;
#[path = "../../../adapters/blocking/src/jobs.rs"]
mod jobs;
#[path = "../../../adapters/server/src/socket.rs"]
mod server_socket;
#[path = "../../../adapters/tokio/src/socket.rs"]
mod socket;
#[path = "../../../adapters/tokio/src/network.rs"]
mod tokio_network;

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use blocking_network::Polled;
use serde_json::Value;
use server_socket::{Received, Socket};
use synclayer_client::command::{EngineCommand, Inbox, SocketEvent};
use synclayer_client::config::SyncConfig;
use synclayer_client::network::Network;
use synclayer_client::setup::Setup;
use synclayer_client::websocket::Target;
use synclayer_core::ConnId;
use synclayer_e2e::host::Host;
use synclayer_e2e::skip::without_backends;
use synclayer_e2e::wait::until;
use synclayer_server::ServerConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_network::Sockets;
use tungstenite::handshake::derive_accept_key;

/// Longer than the longest message of the suite.
const FRAME_BYTES: usize = 32 << 20;
/// The time limit of one case, of which some send megabytes in pieces.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);
/// The time limit of all of them.
const SUITE_TIMEOUT: Duration = Duration::from_secs(600);
/// The cases that are under way at once.
const PARALLEL: usize = 4;
/// Compression, which SyncLayer does not offer, and echoes of binary messages, which it never sends.
const LEFT_OUT: &[&str] = &["12.*", "13.*", "1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*"];
/// The cases in which a text that can't become UTF-8 should be refused before its frame is whole.
const NOT_STRICT: &[&str] = &["6.4.3", "6.4.4"];
/// Those, and the cases in which an echo should go out before the connection is closed for what
/// follows it. The client on tokio reads on while its engine, on another thread, has the frame.
const NOT_STRICT_BETWEEN_THREADS: &[&str] = &[
    "3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15", "6.4.3",
    "6.4.4",
];
/// The cases in which nothing is echoed.
const WITHOUT_ECHO: &[&str] = &[
    "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "3.1", "3.5",
    "3.6", "3.7", "4.1.1", "4.1.2", "4.2.1", "4.2.2", "5.1", "5.2", "5.9", "5.10", "5.11", "5.12",
    "5.13", "5.14", "5.16", "5.17", "5.18", "6.3.*", "7.1.5", "7.3.*", "7.5.1", "7.7.*", "7.9.*",
    "7.13.*",
];

/// The directory of the packages; `None` where the test has to be skipped.
fn packages() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let packages = target.join("backends/python");
    let asked = Command::new("python3").arg("--version").output();
    if asked.is_ok_and(|output| output.status.success()) && packages.join("kosoku").exists() {
        return Some(packages);
    }
    let packages = packages.display();
    without_backends(&format!("the Autobahn cases: there is no kosoku in {packages}"));
    None
}

/// A run of the suite. It ends with the value.
struct Suite {
    child: Child,
    reports: TempDir,
}

impl Suite {
    fn start(packages: &Path, mode: &str, address: &str, cases: &[&str]) -> Self {
        let reports = tempfile::tempdir().unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-c", "from kosoku._cli import main; main()", "-m", mode, address, "-o"])
            .arg(reports.path())
            .args(["-p", &PARALLEL.to_string()])
            .args(cases.iter().flat_map(|case| ["-i", case]))
            .args(LEFT_OUT.iter().flat_map(|case| ["-x", case]))
            .env("PYTHONPATH", packages)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if mode == "fuzzingserver" {
            command.stderr(Stdio::piped());
        }
        Self { child: command.spawn().unwrap(), reports }
    }

    /// The address of a suite that serves.
    fn address(&mut self) -> String {
        let mut line = String::new();
        let output = self.child.stderr.take().unwrap();
        let mut lines = BufReader::new(output);
        lines.read_line(&mut line).unwrap();
        // what it says later has to go somewhere
        thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
        line.trim().strip_prefix("fuzzingserver listening on ").unwrap().to_owned()
    }

    /// Waits for the end, and looks at the verdicts.
    fn verify(mut self, least: usize, not_strict: &[&str]) {
        // its exit code tells less than its verdicts
        let end = Instant::now() + SUITE_TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the suite did not end");
            thread::park_timeout(Duration::from_millis(20));
        }
        let index = std::fs::read(self.reports.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let mut wrong = String::new();
        let mut count = 0;
        for (case, verdict) in
            index.as_object().unwrap().values().flat_map(|agent| agent.as_object().unwrap())
        {
            count += 1;
            let behaviour = verdict["behavior"].as_str().unwrap();
            let close = verdict["behaviorClose"].as_str().unwrap();
            let behaved = match behaviour {
                "OK" | "INFORMATIONAL" => true,
                "NON-STRICT" => not_strict.contains(&case.as_str()),
                _ => false,
            };
            if !behaved || !matches!(close, "OK" | "INFORMATIONAL") {
                writeln!(wrong, "{case}: {behaviour}, close {close}").unwrap();
            }
        }
        assert!(wrong.is_empty(), "of {count} cases:\n{wrong}");
        assert!(count >= least, "there are only {count} cases");
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's end of one WebSocket, with an echo behind it.
async fn echo_one(mut stream: TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        derive_accept_key(key.unwrap().as_bytes())
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let mut socket = Socket::new(stream, FRAME_BYTES).await;
    loop {
        let received = poll_fn(|cx| {
            if socket.wants_flush() && socket.poll_flush(cx).is_pending() {
                return Poll::Pending;
            }
            socket.poll_receive(cx)
        });
        match received.await {
            Some(Received::Frame(text)) => socket.send(text),
            Some(Received::Ping) => {}
            Some(Received::Unreadable(code, reason)) => break socket.close(code, reason),
            Some(Received::Closed) | None => break,
        }
    }
    poll_fn(|cx| socket.poll_part(cx)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_socket_passes() {
    let Some(packages) = packages() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo_one(stream));
        }
    });
    let suite = Suite::start(&packages, "fuzzingclient", &url, &[]);
    tokio::task::spawn_blocking(|| suite.verify(266, NOT_STRICT)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_server_passes_what_needs_no_echo() {
    let Some(packages) = packages() else { return };
    let host = Host::in_memory(ServerConfig::default()).await;
    let url = format!("ws://{}/ws", host.address());
    let suite = Suite::start(&packages, "fuzzingclient", &url, WITHOUT_ECHO);
    tokio::task::spawn_blocking(|| suite.verify(64, NOT_STRICT)).await.unwrap();
}

/// Takes one case as a client whose engine is an echo.
fn take_case(network: &mut dyn Network, commands: &Receiver<EngineCommand>) {
    let conn = ConnId(1);
    let end = Instant::now() + CASE_TIMEOUT;
    network.connect(1, conn, None);
    loop {
        let mut waited = network.wait(commands, Some(Duration::from_secs(1))).unwrap();
        while let Some(command) = waited.take().or_else(|| network.next(commands)) {
            let EngineCommand::Socket { event, .. } = command else { continue };
            match event {
                SocketEvent::Connected => {}
                SocketEvent::Heard => network.handled(conn, 0),
                SocketEvent::Progress => {}
                SocketEvent::Frame(frame) => {
                    network.handled(conn, frame.len());
                    network.send(conn, frame);
                }
                SocketEvent::Disconnected(_) => return,
            }
        }
        network.flush();
        assert!(Instant::now() < end, "a case did not end");
    }
}

/// Takes each case, several at a time.
fn take_cases(
    name: &str,
    open: impl Fn(Target) -> (Box<dyn Network>, Receiver<EngineCommand>) + Sync,
    parted: impl FnOnce(),
    not_strict: &[&str],
) {
    let Some(packages) = packages() else { return };
    let mut suite = Suite::start(&packages, "fuzzingserver", "127.0.0.1:0", &[]);
    let address = suite.address();
    let (mut counting, _) = tungstenite::connect(format!("{address}/getCaseCount")).unwrap();
    let count: usize = counting.read().unwrap().into_text().unwrap().parse().unwrap();
    let next = AtomicUsize::new(1);
    let take = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case > count {
                return;
            }
            let url = format!("{address}/runCase?case={case}&agent={name}");
            let mut target = Setup::new(SyncConfig::new("").websocket_url(url)).unwrap().target;
            target.frame_bytes = FRAME_BYTES;
            let (mut network, commands) = open(target);
            take_case(&mut *network, &commands);
            network.shut_down();
        }
    };
    thread::scope(|scope| (0..PARALLEL).for_each(|_| drop(scope.spawn(take))));
    parted();
    let (mut ending, _) =
        tungstenite::connect(format!("{address}/updateReports?agent={name}")).unwrap();
    while ending.read().is_ok() {}
    suite.verify(266, not_strict);
}

#[test]
fn the_client_for_tokio_passes() {
    let runtime = Runtime::new().unwrap();
    let open = |target| -> (Box<dyn Network>, _) {
        let (inbox, commands) = Inbox::new(|| {});
        (Box::new(Sockets::new(runtime.handle().clone(), target, inbox)), commands)
    };
    let parted = || until("the closing handshakes", || runtime.metrics().num_alive_tasks() == 0);
    take_cases("tokio", open, parted, NOT_STRICT_BETWEEN_THREADS);
}

#[test]
fn the_client_for_threads_passes() {
    let open = |target| -> (Box<dyn Network>, _) {
        let (network, waker) = Polled::new(target).unwrap();
        let (_, commands) = Inbox::new(move || drop(waker.wake()));
        (Box::new(network), commands)
    };
    take_cases("blocking", open, || {}, NOT_STRICT);
}
