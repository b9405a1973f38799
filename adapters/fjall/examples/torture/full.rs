//! Disks that fill up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use synclayer_core::{
    Batch, ClientStore, CommitNumber, Rows, ServerStore, StoreError, StoreErrorKind,
};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};
use tempfile::TempDir;

use crate::files::Side;
use crate::workload::skipped;

/// Fills disks of various sizes with values of various sizes; says how many, 0 where this user may
/// not mount any.
pub(crate) fn fill(side: Side, times: u64, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    for n in 0..times {
        let (megabytes, bytes) =
            if n == 0 { (24, 100_000) } else { (rng.u32(20..40), rng.usize(2_000..150_000)) };
        let Some(disk) = SmallDisk::mount(megabytes) else { return 0 };
        // merging tables takes the space of those that it merges as well
        disk.fill(side, bytes, megabytes as usize / 2);
    }
    times
}

/// A file system in memory of a few megabytes.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "synclayer-test"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        let mounted = mounted.is_ok_and(|status| status.success());
        if !mounted {
            skipped("this user may not mount a small file system to fill");
        }
        mounted.then_some(Self { dir })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Writes until the disk is full, makes room, and looks whether all is there that was
    /// acknowledged, twice.
    fn fill(&self, side: Side, bytes: usize, ballast_megabytes: usize) {
        let ballast = self.dir.path().join("ballast");
        std::fs::write(&ballast, vec![1; ballast_megabytes << 20]).unwrap();
        let write = match side {
            Side::Client => write_client,
            Side::Server => write_server,
        };
        let (last, stopped) = write(&self.path(), bytes, 1, u64::MAX);
        assert_full(&stopped.expect_err("the disk isn't full"));
        assert!(last > 20, "only {last} commits fitted");
        std::fs::remove_file(ballast).unwrap();
        let (last, went_on) = write(&self.path(), bytes, last + 1, last + 4);
        went_on.unwrap();
        let (last, stopped) = write(&self.path(), bytes, last + 1, u64::MAX);
        assert_full(&stopped.expect_err("the disk isn't full"));
        assert!(last > 20, "only {last} commits fitted");
    }
}

fn assert_full(error: &StoreError) {
    assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
    assert!(error.message.contains("free some space"), "{error}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.dir.path()).status());
    }
}

/// The last commit, and what stopped the writing.
type Written = (u64, Result<(), StoreError>);

/// Opens a store, commits from a number on until an error or another number.
fn write_client(path: &Path, bytes: usize, from: u64, to: u64) -> Written {
    let mut store = FjallClientStore::open(path, ClientOptions::default()).unwrap();
    check(store.rows(), bytes, from);
    for n in from..to {
        if let Err(error) = store.commit(CommitNumber(n), large(n, bytes)) {
            assert_eq!(store.commit(CommitNumber(n), large(n, bytes)), Err(error.clone()));
            assert_eq!(store.durable(), Err(error.clone()));
            return (n - 1, Err(error));
        }
    }
    (to - 1, Ok(()))
}

fn write_server(path: &Path, bytes: usize, from: u64, to: u64) -> Written {
    let options = ServerOptions::new().memtable_bytes(4 << 20);
    let store = FjallServerStore::open(path, options).unwrap();
    let read = |below| {
        let check = &mut |rows: &dyn Rows| {
            check(rows, bytes, below);
            Ok(())
        };
        store.read(check).unwrap();
    };
    read(from);
    for n in from..to {
        if let Err(error) = store.transact(&mut |_| Ok(large(n, bytes))) {
            let again = store.transact(&mut |_| Ok(large(n, bytes)));
            assert_eq!(again, Err(error.clone()));
            read(n);
            return (n - 1, Err(error));
        }
    }
    (to - 1, Ok(()))
}

fn large(n: u64, bytes: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(n.to_be_bytes().to_vec(), filling(n, bytes));
    batch
}

/// Random bytes, since others would be compressed.
fn filling(n: u64, bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(n);
    std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
}

/// Everything below a number is there; the number itself may be, since its fate wasn't known.
fn check(rows: &dyn Rows, bytes: usize, below: u64) {
    for n in 1..below {
        let found = rows.get(&n.to_be_bytes()).unwrap();
        let is_whole = found.is_some_and(|value| value == filling(n, bytes));
        assert!(is_whole, "commit {n} of {below} was acknowledged");
    }
}
