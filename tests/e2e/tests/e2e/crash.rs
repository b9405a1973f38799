//! Servers and clients that are killed, each a process of its own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use serde_json::json;
use synclayer_core::{Batch, Rows, ServerStore, StoreError};
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::{Fate, Frame, Proxy, Target};
use synclayer_e2e::wait::{soon, told_already};
use synclayer_fjall::{FjallServerStore, ServerOptions};
use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{EventKind, SyncLayer};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::common::{Device, TODOS, config, converged};

/// In whose environment a process is a child of a test's: what it is to be, and where.
const CHILD: &str = "SYNCLAYER_CHILD";

/// Where in a write's life the server is killed.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// Before or behind the n-th write that comes to the server.
    Send { nth: usize, behind: bool },
    /// In the n-th transaction, before or behind its commit.
    Commit { nth: usize, behind: bool },
    /// Before or behind the n-th acknowledgement that leaves the server, others being due.
    Ack { nth: usize, behind: bool },
}

fn points() -> Vec<Point> {
    let (mut points, sides) = (Vec::new(), [false, true]);
    for behind in sides {
        points.extend((0..8).map(|n| Point::Send { nth: 1 + n * 4, behind }));
        points.extend((0..9).map(|n| Point::Commit { nth: 1 + n, behind }));
        points.extend((0..8).map(|n| Point::Ack { nth: 1 + n * 4, behind }));
    }
    points
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_there_once_however_often_the_server_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let target = Target::default();
    let (writer_dir, reader_dir) = (data.path().join("writer"), data.path().join("reader"));
    let (to_writer, to_reader) =
        (Proxy::start(target.clone()).await, Proxy::start(target.clone()).await);
    let writer = SyncLayer::open(config(&to_writer, &writer_dir)).await.unwrap();
    let reader = SyncLayer::open(config(&to_reader, &reader_dir)).await.unwrap();
    let mut events = (writer.events(), reader.events());
    let todos = writer.collection(TODOS).unwrap();
    let points = points();
    assert_eq!(points.len(), 50);

    let mut written = 0;
    for point in points {
        let mut server = Process::server(&data.path().join("server"), &target).await;
        // both have come back by themselves
        soon("the writer's return", writer.synced()).await.unwrap();
        soon("the reader's return", reader.synced()).await.unwrap();
        let flight = server.stop_at(point, &to_writer);
        while !flight.stopped.load(Ordering::SeqCst) {
            let id = format!("{written:05}");
            todos.save_with_id(&id, &json!({"n": written})).await.unwrap();
            written += 1;
            assert!(written < 50_000, "the server was never at {point:?}");
        }
        assert!(flight.writes.load(Ordering::SeqCst) > 0, "writes are in flight at {point:?}");
        assert!(writer.status().await.unwrap().pending_writes > 0);
        target.set(None);
        server.kill().await;
        to_writer.cut();
        to_writer.free();
        for kind in told_already(&mut events.0).into_iter().chain(told_already(&mut events.1)) {
            assert!(!is_alarm(&kind), "{kind:?} after {point:?}");
        }
    }
    let _server = Process::server(&data.path().join("server"), &target).await;
    for sync in [&writer, &reader] {
        soon("being synced", sync.synced()).await.unwrap();
        let todos = sync.collection(TODOS).unwrap().get_all().await.unwrap();
        let ids: Vec<_> = todos.iter().map(|record| record.id.to_string()).collect();
        assert_eq!(ids, (0..written).map(|n| format!("{n:05}")).collect::<Vec<_>>());
        for (n, record) in todos.iter().enumerate() {
            assert_eq!((record.version, record.pending), (1, false), "{record:?}");
            assert_eq!(record.document.text("n"), Some(&*n.to_string()));
        }
        // each write has a seq: none was applied twice
        let status = sync.status().await.unwrap();
        let stream = status.collections.values().next().unwrap();
        assert_eq!(stream.cursor.as_ref().unwrap().seq.0, written);
    }
    for kind in told_already(&mut events.0).into_iter().chain(told_already(&mut events.1)) {
        assert!(!is_alarm(&kind), "{kind:?} at the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_goes_out_once_however_often_the_client_is_killed() {
    let host = Host::start().await;
    let home = tempfile::tempdir().unwrap();
    let (proxy, dir) = (host.proxy().await, home.path().join("client"));
    let mut saved = BTreeSet::new();
    for round in 0..16 {
        let mut client = Process::client(&dir, &proxy, round * 10_000);
        // some are killed while they write, others when the server has part of it
        let seen = Arc::new(AtomicI64::new(0));
        let counted = Arc::clone(&seen);
        proxy.rule(move |frame| {
            let writes = if round % 2 == 0 { frame.writes() } else { verdicts(frame) };
            counted.fetch_add(i64::try_from(writes).unwrap(), Ordering::SeqCst);
            Fate::Pass
        });
        let until = i64::from(round) * 7 % 50 + 1;
        while seen.load(Ordering::SeqCst) < until {
            let line = client.line().await;
            saved
                .insert(line.strip_prefix("saved ").unwrap_or_else(|| panic!("{line}")).to_owned());
        }
        client.kill().await;
        saved.extend(client.last_words().await);
    }
    proxy.free();

    let (last, reader) =
        (SyncLayer::open(config(&proxy, &dir)).await.unwrap(), Device::new(&host).await);
    soon("being synced", last.synced()).await.unwrap();
    assert!(last.rejected().list().await.unwrap().is_empty());
    reader.synced().await;
    let todos = reader.todos.get_all().await.unwrap();
    let ids: BTreeSet<_> = todos.iter().map(|record| record.id.to_string()).collect();
    assert!(saved.len() > 16 && saved.is_subset(&ids), "{:?}", saved.difference(&ids));
    assert!(ids.len() <= saved.len() + 16, "at most one at a time was not answered yet");
    assert!(todos.iter().all(|record| record.version == 1));
    let status = reader.sync.status().await.unwrap();
    let stream = status.collections.values().next().unwrap();
    assert_eq!(stream.cursor.as_ref().unwrap().seq.0, ids.len() as u64, "none was applied twice");
    last.close().await;
    converged(&[&reader]).await;
}

/// The body of a process that a test has started.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let words: Vec<_> = task.split('|').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match words[..] {
        ["server", dir] => runtime.block_on(serve(dir.as_ref())),
        ["client", dir, url, first] => {
            runtime.block_on(write(dir.as_ref(), url, first.parse().unwrap()));
        }
        _ => panic!("{task}"),
    }
}

/// Serves, and stops dead where standard input says.
async fn serve(dir: &Path) {
    let store = FjallServerStore::open(dir, ServerOptions::default()).unwrap();
    let store = Arc::new(Halting { store, left: AtomicI64::new(i64::MAX), behind: false.into() });
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    say(&format!("serving {}", server.local_addr()));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (side, nth) = line.split_once(' ').unwrap();
        store.behind.store(side == "behind", Ordering::SeqCst);
        store.left.store(nth.parse().unwrap(), Ordering::SeqCst);
        say("armed");
    }
}

/// Writes as fast as it can, and says what is saved.
async fn write(dir: &Path, url: &str, first: u64) {
    thread::spawn(|| {
        // the parent's end is this one's
        std::io::stdin().lines().for_each(drop);
        std::process::exit(0);
    });
    let proxy = Proxy::start(Target::default()).await;
    let mut config = config(&proxy, dir).connect_at_start(false);
    config.base_url = url.into();
    let sync = SyncLayer::open(config).await.unwrap();
    let mut events = sync.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if is_alarm(&event.kind) {
                say(&format!("alarm {event:?}"));
            }
        }
    });
    sync.connect().await.unwrap();
    let todos = sync.collection(TODOS).unwrap();
    for n in first.. {
        let id = format!("{n:07}");
        todos.save_with_id(&id, &json!({"n": n})).await.unwrap();
        say(&format!("saved {id}"));
    }
}

fn say(line: &str) {
    // a line of its own, whatever the test harness has begun
    println!("\n{line}");
}

/// A store that stops for ever in its n-th transaction that changes something.
struct Halting {
    store: FjallServerStore,
    left: AtomicI64,
    behind: AtomicBool,
}

impl Halting {
    fn halt(&self) {
        say("halted");
        loop {
            thread::park();
        }
    }
}

impl ServerStore for Halting {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        let mut last = false;
        let behind = self.behind.load(Ordering::SeqCst);
        self.store.transact(&mut |rows| {
            let batch = decide(rows)?;
            if !batch.is_empty() {
                last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
            }
            if last && !behind {
                self.halt();
            }
            Ok(batch)
        })?;
        if last {
            self.halt();
        }
        Ok(())
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.read(read)
    }
}

/// The writes on their way when a server stopped.
struct Flight {
    stopped: Arc<AtomicBool>,
    writes: Arc<AtomicI64>,
}

/// A child of this process.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Option<UnboundedReceiver<String>>,
}

impl Process {
    async fn server(dir: &Path, target: &Target) -> Self {
        let mut server = Self::spawn(&format!("server|{}", dir.display()));
        let line = server.line().await;
        let address = line.strip_prefix("serving ").unwrap().parse().unwrap();
        target.set(Some(address));
        server
    }

    fn client(dir: &Path, proxy: &Proxy, first: u32) -> Self {
        Self::spawn(&format!("client|{}|{}|{first}", dir.display(), proxy.url()))
    }

    fn spawn(task: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = unbounded_channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            let ours = |line: &String| {
                ["serving ", "armed", "halted", "saved ", "alarm "]
                    .iter()
                    .any(|word| line.starts_with(word))
            };
            out.lines().map_while(Result::ok).filter(ours).try_for_each(|line| sender.send(line))
        });
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin, lines: Some(lines) }
    }

    async fn line(&mut self) -> String {
        let lines = self.lines.as_mut().unwrap();
        soon("a line of the process", lines.recv()).await.expect("the process has ended")
    }

    /// Reads the lines that were printed and not read yet.
    async fn last_words(&mut self) -> Vec<String> {
        let mut saved = Vec::new();
        let lines = self.lines.as_mut().unwrap();
        while let Some(line) = soon("the last line", lines.recv()).await {
            saved.push(saved_in(&line));
        }
        saved
    }

    async fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// From the point on nothing moves any more: it is told when it is reached.
    fn stop_at(&mut self, point: Point, proxy: &Proxy) -> Flight {
        let (stopped, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let flight = Flight { stopped: Arc::clone(&stopped), writes: Arc::clone(&writes) };
        let (mut sent, mut answered) = (0, 0);
        if let Point::Commit { nth, behind } = point {
            writeln!(self.stdin, "{} {nth}", if behind { "behind" } else { "before" }).unwrap();
            let (mut lines, halted) = (self.lines.take().unwrap(), Arc::clone(&stopped));
            tokio::spawn(async move {
                while let Some(line) = lines.recv().await {
                    halted.fetch_or(line == "halted", Ordering::SeqCst);
                }
            });
        }
        proxy.rule(move |frame| {
            if stopped.load(Ordering::SeqCst) {
                return Fate::Hold;
            }
            let (before_sent, before_answered) = (sent, answered);
            sent += frame.writes();
            answered += verdicts(frame);
            let (reached, behind) = match point {
                Point::Send { nth, behind } => (before_sent < nth && sent >= nth, behind),
                Point::Ack { nth, behind } => {
                    // behind the last one nothing would be in flight
                    let due = if behind { sent > answered } else { sent > before_answered };
                    (answered > before_answered && answered >= nth && due, behind)
                }
                Point::Commit { .. } => (false, false),
            };
            let in_flight =
                if reached && !behind && !frame.up { before_answered } else { answered };
            writes.store(i64::try_from(sent - in_flight).unwrap(), Ordering::SeqCst);
            if !reached {
                return Fate::Pass;
            }
            stopped.store(true, Ordering::SeqCst);
            if behind { Fate::Pass } else { Fate::Hold }
        });
        flight
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // one that has ended already can't be killed
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record that a client says to have saved.
fn saved_in(line: &str) -> String {
    line.strip_prefix("saved ").unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// The acknowledgements in a frame.
fn verdicts(frame: &Frame) -> usize {
    if frame.up { 0 } else { frame.of_type("ack").len() }
}

/// Returns true if an event tells of something that a crash must not cause.
fn is_alarm(kind: &EventKind) -> bool {
    use EventKind::{
        ChecksumMismatch, ConflictDetected, OperationFailed, ReplicaCopied, ServerLostChanges,
    };
    matches!(
        kind,
        ChecksumMismatch { .. }
            | ConflictDetected { .. }
            | OperationFailed { .. }
            | ReplicaCopied { .. }
            | ServerLostChanges { .. }
    )
}
