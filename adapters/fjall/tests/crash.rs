//! Real processes are killed, and a real disk fills up.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use synclayer_core::words::name::CommitNumber;
use synclayer_core::words::store::{
    Batch, ClientStore, Rows, Scan, ServerStore, StoreError, StoreErrorKind,
};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use tempfile::TempDir;

/// Tells the child what to do, as `kind:directory`.
const CHILD: &str = "SYNCLAYER_FJALL_CHILD";
const THREADS: u64 = 4;

/// A row that no other commit writes, and one that each of its thread's commits writes.
fn batch(thread: u64, n: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(format!("row/{thread}/{n:08}"), vec![n as u8; 200]);
    batch.put(format!("last/{thread}"), n.to_be_bytes().to_vec());
    batch
}

/// Checks that the rows are those of a prefix of a thread's commits that holds the acknowledged
/// ones, and says how long it is.
fn check(rows: &dyn Rows, thread: u64, acknowledged: u64) -> u64 {
    let last = rows.get(format!("last/{thread}").as_bytes()).unwrap();
    let last = last.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
    assert!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is there");
    let mut expected = 1;
    let (from, to) = (format!("row/{thread}/"), format!("row/{thread}0"));
    let visit = &mut |key: &[u8], value: bytes::Bytes| {
        assert_eq!(key, format!("row/{thread}/{expected:08}").as_bytes());
        assert_eq!(value, vec![expected as u8; 200]);
        expected += 1;
        Ok(Scan::Next)
    };
    rows.scan(from.as_bytes(), to.as_bytes(), visit).unwrap();
    assert_eq!(expected, last + 1, "half of a commit is there");
    last
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn write_as_client(path: &Path, durability: Durability) {
    let (sender, synced) = channel();
    let on_durable = move || sender.send(()).unwrap_or_default();
    let on_durable: Option<Box<dyn Fn() + Send + Sync>> = Some(Box::new(on_durable));
    let options = ClientOptions { durability, on_durable, ..ClientOptions::default() };
    let mut store = FjallClientStore::open(path, options).unwrap();
    let from = check(store.rows(), 0, 0) + 1;
    let mut said = 0;
    for n in from.. {
        store.commit(CommitNumber(n), batch(0, n)).unwrap();
        if durability == Durability::Synced && n % 16 == 0 {
            store.flush(CommitNumber(n)).unwrap();
            synced.recv().unwrap();
        }
        let durable = store.durable().unwrap().0;
        if durable > said {
            said = durable;
            say(&format!("ack 0 {durable}"));
        }
    }
}

fn write_as_server(path: &Path) {
    let store = FjallServerStore::open(path, ServerOptions::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut from = 0;
                store
                    .read(&mut |rows| {
                        from = check(rows, thread, 0) + 1;
                        Ok(())
                    })
                    .unwrap();
                for n in from.. {
                    store.transact(&mut |_| Ok(batch(thread, n))).unwrap();
                    say(&format!("ack {thread} {n}"));
                }
            });
        }
    });
}

/// Not a test of its own: what the child process runs.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (kind, path) = task.split_once(':').unwrap();
    match kind {
        "buffered" => write_as_client(path.as_ref(), Durability::Buffered),
        "synced" => write_as_client(path.as_ref(), Durability::Synced),
        _ => write_as_server(path.as_ref()),
    }
}

fn spawn(kind: &str, path: &Path) -> (Child, Receiver<String>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, format!("{kind}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    (child, lines)
}

/// Starts a writer again and again, and kills it after some acknowledgements; says which numbers
/// were acknowledged to whom.
fn kill_writers(kind: &str, path: &Path, times: u64, verify: &dyn Fn(&[u64])) {
    let mut acknowledged = [0; THREADS as usize];
    let mut rng = fastrand::Rng::with_seed(times);
    for _ in 0..times {
        let (mut child, lines) = spawn(kind, path);
        let mut left = rng.u32(1..400);
        let mut note = |line: String| {
            // the first one follows what the test harness says, on the same line
            let Some((_, ack)) = line.split_once("ack ") else { return false };
            let (thread, n) = ack.split_once(' ').unwrap();
            acknowledged[thread.parse::<usize>().unwrap()] = n.parse().unwrap();
            true
        };
        while left > 0 {
            let line = lines.recv_timeout(Duration::from_secs(20)).expect("the child is silent");
            left -= u32::from(note(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // what it said before it died
        while let Ok(line) = lines.recv() {
            // a line may be cut short by the kill only if it is the last one
            note(line);
        }
        verify(&acknowledged);
    }
}

fn verify_client(path: &Path) -> impl Fn(&[u64]) {
    move |acknowledged| {
        let store = FjallClientStore::open(path, ClientOptions::default()).unwrap();
        check(store.rows(), 0, acknowledged[0]);
    }
}

#[test]
fn a_killed_buffered_client_has_lost_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    kill_writers("buffered", dir.path(), 12, &verify_client(dir.path()));
}

#[test]
fn a_killed_synced_client_has_lost_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    kill_writers("synced", dir.path(), 6, &verify_client(dir.path()));
}

#[test]
fn a_killed_server_has_lost_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |acknowledged: &[u64]| {
        let store = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
        let read = &mut |rows: &dyn Rows| {
            for thread in 0..THREADS {
                check(rows, thread, acknowledged[thread as usize]);
            }
            Ok(())
        };
        store.read(read).unwrap();
    };
    kill_writers("server", dir.path(), 6, &verify);
}

/// A file system in memory of a few megabytes, where this user may mount one.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "synclayer-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: this user may not mount a small file system to fill");
        }
        mounted.then_some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// What can be deleted when the disk is full.
    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.dir.path()).status());
    }
}

/// The last commit, and what stopped the writing.
type Written = (u64, Result<(), StoreError>);

/// Writes until the disk is full, makes room, and looks whether all is there that was
/// acknowledged. `write` opens a store, commits from a number on until an error, and says what the
/// last commit was.
fn fill(write: &dyn Fn(&Path, u64, u64) -> Written) {
    let Some(disk) = SmallDisk::mount() else { return };
    std::fs::write(disk.ballast(), vec![1; 8 << 20]).unwrap();
    let (last, stopped) = write(&disk.path(), 1, u64::MAX);
    let error = stopped.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert!(error.message.contains("free some space"), "{error}");
    assert!(last > 20, "only {last} commits fitted");
    std::fs::remove_file(disk.ballast()).unwrap();
    let (_, went_on) = write(&disk.path(), last + 1, last + 4);
    went_on.unwrap();
}

fn large(n: u64) -> Batch {
    let mut batch = Batch::new();
    // of random bytes, since others would be compressed
    let mut rng = fastrand::Rng::with_seed(n);
    let value: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(100_000).collect();
    batch.put(n.to_be_bytes().to_vec(), value);
    batch
}

/// Everything below a number is there; the number itself may be, since its fate wasn't known.
fn check_large(rows: &dyn Rows, below: u64) {
    for n in 1..below {
        let found = rows.get(&n.to_be_bytes()).unwrap();
        let length = found.map(|value| value.len());
        assert_eq!(length, Some(100_000), "commit {n} of {below} was acknowledged");
    }
}

#[test]
fn a_full_disk_stops_a_client_and_loses_nothing() {
    fill(&|path, from, to| {
        let mut store = FjallClientStore::open(path, ClientOptions::default()).unwrap();
        check_large(store.rows(), from);
        for n in from..to {
            if let Err(error) = store.commit(CommitNumber(n), large(n)) {
                assert_eq!(store.commit(CommitNumber(n), large(n)), Err(error.clone()));
                assert_eq!(store.durable(), Err(error.clone()));
                return (n - 1, Err(error));
            }
        }
        (to - 1, Ok(()))
    });
}

#[test]
fn a_full_disk_stops_a_server_and_loses_nothing() {
    fill(&|path, from, to| {
        let options = ServerOptions { memtable_bytes: 4 << 20, ..ServerOptions::default() };
        let store = FjallServerStore::open(path, options).unwrap();
        let read = |below| {
            let check = &mut |rows: &dyn Rows| {
                check_large(rows, below);
                Ok(())
            };
            store.read(check).unwrap();
        };
        read(from);
        for n in from..to {
            if let Err(error) = store.transact(&mut |_| Ok(large(n))) {
                let again = store.transact(&mut |_| Ok(large(n)));
                assert_eq!(again, Err(error.clone()));
                read(n);
                return (n - 1, Err(error));
            }
        }
        (to - 1, Ok(()))
    });
}
