//! The contents of the tortured stores, their writers, and their checks.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use synclayer_core::{Batch, ClientStore, CommitNumber, Rows, Scan, ServerStore, StoreError};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};

/// Threads that write to a server's store.
pub(crate) const THREADS: usize = 4;
/// Older rows are removed, so that there are removals and a check stays quick.
const KEPT: u64 = 300;
/// So little that tables are made, and merged, all the time.
const MEMTABLE_BYTES: u64 = 64 << 10;
/// Attempts of a writer to reopen its store after an error.
const REOPENINGS: u32 = 3;

/// Which store, and how it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Buffered,
    Synced,
    Server,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Buffered, Self::Synced, Self::Server];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buffered => "buffered",
            Self::Synced => "synced",
            Self::Server => "server",
        }
    }

    pub(crate) fn of(name: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.unwrap_or_else(|| panic!("no kind of store is called {name}"))
    }
}

/// A row that no other commit writes, and one that each of its thread's commits writes.
pub(crate) fn batch(thread: usize, n: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(format!("row/{thread}/{n:08}"), value(thread, n));
    batch.put(format!("last/{thread}"), n.to_be_bytes().to_vec());
    if n > KEPT {
        batch.delete(format!("row/{thread}/{:08}", n - KEPT));
    }
    batch
}

/// Random bytes: others would be compressed to nothing.
fn value(thread: usize, n: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(n * THREADS as u64 + thread as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(1_000).collect()
}

/// Checks that the rows are those of a prefix of a thread's commits that holds the acknowledged
/// ones, and says how long it is.
pub(crate) fn check(rows: &dyn Rows, thread: usize, acknowledged: u64) -> Result<u64, StoreError> {
    let last = rows.get(format!("last/{thread}").as_bytes())?;
    let last = last.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is there");
    let mut expected = last.saturating_sub(KEPT) + 1;
    let (from, to) = (format!("row/{thread}/"), format!("row/{thread}0"));
    let visit = &mut |key: &[u8], found: bytes::Bytes| {
        assert_eq!(key, format!("row/{thread}/{expected:08}").as_bytes(), "of {last}");
        assert_eq!(found, value(thread, expected), "row {expected}");
        expected += 1;
        Ok(Scan::Next)
    };
    rows.scan(from.as_bytes(), to.as_bytes(), visit)?;
    assert_eq!(expected, last + 1, "half of a commit is there");
    Ok(last)
}

/// The last write acknowledged to each thread.
pub(crate) type Acknowledged = [u64; THREADS];

/// Opens a store, checks it, and says what is there.
pub(crate) fn verify(kind: Kind, path: &Path, acknowledged: &Acknowledged) -> Acknowledged {
    let found = match kind {
        Kind::Buffered | Kind::Synced => open_client(kind, path, None).and_then(|store| {
            let mut found = [0; THREADS];
            found[0] = check(store.rows(), 0, acknowledged[0])?;
            Ok(found)
        }),
        Kind::Server => open_server(path).and_then(|store| check_server(&store, acknowledged)),
    };
    found.unwrap_or_else(|error| panic!("the {} store is unreadable: {error}", kind.name()))
}

type Call = Box<dyn Fn() + Send + Sync>;

fn open_client(
    kind: Kind,
    path: &Path,
    on_durable: Option<Call>,
) -> Result<FjallClientStore, StoreError> {
    let durability = if kind == Kind::Synced { Durability::Synced } else { Durability::Buffered };
    let mut options = ClientOptions::new().durability(durability).memtable_bytes(MEMTABLE_BYTES);
    options.on_durable = on_durable;
    FjallClientStore::open(path, options)
}

fn open_server(path: &Path) -> Result<FjallServerStore, StoreError> {
    let options = ServerOptions::new().memtable_bytes(MEMTABLE_BYTES);
    FjallServerStore::open(path, options)
}

fn check_server(
    store: &FjallServerStore,
    acknowledged: &Acknowledged,
) -> Result<Acknowledged, StoreError> {
    let mut found = [0; THREADS];
    store.read(&mut |rows| {
        for thread in 0..THREADS {
            found[thread] = check(rows, thread, acknowledged[thread])?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// The task of a child process.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) kind: Kind,
    /// Commits of each thread.
    pub(crate) commits: u64,
    /// When the process ends itself, in microseconds after its start; 0: it doesn't.
    pub(crate) dies_after: u64,
    pub(crate) path: std::path::PathBuf,
}

impl Task {
    pub(crate) fn encode(&self) -> String {
        let Self { kind, commits, dies_after, path } = self;
        format!("{}:{commits}:{dies_after}:{}", kind.name(), path.display())
    }

    pub(crate) fn decode(text: &str) -> Self {
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().expect("kind:commits:microseconds:path");
        let kind = Kind::of(part());
        let commits = part().parse().expect("a number of commits");
        let dies_after = part().parse().expect("microseconds");
        Self { kind, commits, dies_after, path: part().into() }
    }

    /// Runs the task in the child process: prints each acknowledgement on its standard output, and
    /// reopens its store after an error, as a program would.
    pub(crate) fn run(&self) {
        if self.dies_after > 0 {
            let after = Duration::from_micros(self.dies_after);
            std::thread::spawn(move || {
                std::thread::sleep(after);
                std::process::abort();
            });
        }
        let said: [AtomicU64; THREADS] = Default::default();
        for _ in 0..=REOPENINGS {
            let written = match self.kind {
                Kind::Buffered | Kind::Synced => self.write_as_client(&said[0]),
                Kind::Server => self.write_as_server(&said),
            };
            match written {
                Ok(()) => return,
                Err(error) => say(&format!("stopped {error}")),
            }
        }
    }

    fn write_as_client(&self, said: &AtomicU64) -> Result<(), StoreError> {
        let (sender, synced) = channel();
        let on_durable: Call = Box::new(move || sender.send(()).unwrap_or_default());
        let mut store = open_client(self.kind, &self.path, Some(on_durable))?;
        let from = check(store.rows(), 0, said.load(Ordering::SeqCst))? + 1;
        for n in from..from.saturating_add(self.commits) {
            store.commit(CommitNumber(n), batch(0, n))?;
            if self.kind == Kind::Synced && n % 4 == 0 {
                store.flush(CommitNumber(n))?;
                synced.recv().expect("the store says when it is durable");
            }
            let durable = store.durable()?.0;
            if durable > said.load(Ordering::SeqCst) {
                said.store(durable, Ordering::SeqCst);
                say(&format!("ack 0 {durable}"));
            }
        }
        Ok(())
    }

    fn write_as_server(&self, said: &[AtomicU64; THREADS]) -> Result<(), StoreError> {
        let store = Arc::new(open_server(&self.path)?);
        let acknowledged = std::array::from_fn(|thread| said[thread].load(Ordering::SeqCst));
        let found = check_server(&store, &acknowledged)?;
        let write = |thread: usize| {
            let from = found[thread] + 1;
            for n in from..from.saturating_add(self.commits) {
                store.transact(&mut |_| Ok(batch(thread, n)))?;
                said[thread].store(n, Ordering::SeqCst);
                say(&format!("ack {thread} {n}"));
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let write = &write;
            let writers: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer panicked"))
        })
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // nobody listens any more when the parent has gone
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Tells that a test is skipped, on a line that `.ci/run` counts.
pub(crate) fn skipped(why: &str) {
    // not `eprintln!`, whose output a test that passes does not show
    let _ = std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}
