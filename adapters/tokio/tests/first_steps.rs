//! The program of the guide's first steps, as its reader runs it: each directory is a device.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use synclayer_server::{MemoryServerStore, Server, ServerConfig};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn three_devices_share_a_list_also_while_the_server_is_away() {
    let Some(program) = program() else { return };
    let (home, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryServerStore::new()));
    let serve = |address: SocketAddr| {
        Server::bind(ServerConfig::new().listen(address), Arc::clone(&store) as _)
    };
    let server = serve(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    let start = |name, text| Device::start(&program, &home.path().join(name), address, text);

    let a = start("a", "Buy milk");
    a.shows("1 open:");
    let b = start("b", "Buy bread");
    a.shows("2 open:");
    b.shows("2 open:");

    server.shutdown().await;
    let c = start("c", "Buy tea");
    c.shows("1 open:");
    let server = serve(address).await.unwrap();
    for device in [a, b, c] {
        device.shows("3 open:");
    }
    server.shutdown().await;
}

/// The example, which `cargo test` builds unless only some tests are chosen.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/first_steps");
    if !program.exists() {
        eprintln!("SKIPPED: {} was not built", program.display());
        return None;
    }
    Some(program)
}

struct Device {
    process: Child,
    lines: Receiver<String>,
}

impl Device {
    fn start(program: &Path, directory: &Path, server: SocketAddr, text: &str) -> Self {
        let mut process = Command::new(program)
            .arg(directory)
            .arg(text)
            .env("SYNCLAYER_SERVER", format!("http://{server}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, lines }
    }

    /// Waits until it prints this line.
    fn shows(&self, expected: &str) {
        let end = Instant::now() + PATIENCE;
        let rest = || end.saturating_duration_since(Instant::now());
        while let Ok(line) = self.lines.recv_timeout(rest()) {
            if line == expected {
                return;
            }
        }
        panic!("it does not show {expected:?}");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The code in the guide is that of the example.
#[test]
fn the_guide_shows_the_example() {
    let guide = include_str!("../guide/first_steps.md");
    let example = include_str!("../examples/first_steps.rs");
    let program = example.split_once("\n\n").unwrap().1;
    assert!(guide.contains(program), "copy the example to the guide");
}
