//! A server's store whose disk was full, or whose process had no descriptor left, goes on by itself.
//! The tests take turns, since the limit of descriptors is the whole process's.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "../examples/torture/files.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod files;
#[path = "../examples/torture/full.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod full;
#[path = "../examples/torture/workload.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod workload;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use synclayer_core::{Batch, Rows, ServerStore, StoreError, StoreErrorKind};
use synclayer_fjall::{Durability, FjallServerStore, ServerOptions};

static TURN: Mutex<()> = Mutex::new(());

/// The time within which a store that can go on does.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(path: &Path, durability: Durability) -> FjallServerStore {
    // small, so that it needs files for its tables often
    let options = ServerOptions::new().memtable_bytes(1 << 20).durability(durability);
    FjallServerStore::open(path, options).unwrap()
}

fn put(store: &FjallServerStore, n: u64) -> Result<(), StoreError> {
    store.transact(&mut |_| {
        let mut batch = Batch::default();
        batch.put(n.to_be_bytes().to_vec(), vec![n as u8; 100_000]);
        Ok(batch)
    })
}

/// Writes until it fails. Returns the number that was not acknowledged.
fn write_until_it_fails(store: &FjallServerStore, from: u64) -> (u64, StoreError) {
    let mut writes = (from..from + 5_000).map(|n| (n, put(store, n)));
    let failed = writes.find_map(|(n, written)| written.err().map(|error| (n, error)));
    failed.expect("it never fails")
}

/// Writes as soon as it can be done again, beside somebody who reads all the time.
fn write_again(store: &FjallServerStore, n: u64) {
    let begun = Instant::now();
    thread::scope(|scope| {
        let written = scope.spawn(|| {
            while let Err(error) = put(store, n) {
                assert!(begun.elapsed() < PATIENCE, "{error}");
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        while !written.is_finished() {
            expect(store, 1);
        }
    });
}

/// All writes below a number are there.
fn expect(store: &FjallServerStore, below: u64) {
    let read = &mut |rows: &dyn Rows| {
        for n in 0..below {
            assert!(rows.get(&n.to_be_bytes())?.is_some(), "{n} is missing");
        }
        Ok(())
    };
    store.read(read).unwrap();
}

#[test]
fn a_store_goes_on_when_its_full_disk_has_room_again() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for durability in [Durability::Synced, Durability::Buffered] {
        let Some(disk) = full::SmallDisk::mount(64) else { return };
        let ballast = disk.path().with_file_name("ballast");
        std::fs::write(&ballast, vec![1; 32 << 20]).unwrap();
        let store = open(&disk.path(), durability);
        let (failed, error) = write_until_it_fails(&store, 0);
        assert_eq!(error.kind, StoreErrorKind::Full, "{error}");
        expect(&store, failed);
        assert!(put(&store, failed).is_err());
        std::fs::remove_file(ballast).unwrap();
        write_again(&store, failed);
        put(&store, failed + 1).unwrap();
        expect(&store, failed + 2);
        drop(store);
        expect(&open(&disk.path(), durability), failed + 2);
    }
}

#[test]
fn a_store_goes_on_when_the_process_has_descriptors_again() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Durability::Synced);
    for n in 0..50 {
        put(&store, n).unwrap();
    }
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    // what is open stays so, and nothing more is opened
    rlimit::Resource::NOFILE.set(3, hard).unwrap();
    let (failed, error) = write_until_it_fails(&store, 50);
    assert!(put(&store, failed).is_err());
    rlimit::Resource::NOFILE.set(soft, hard).unwrap();
    eprintln!("{failed}: {error}");
    write_again(&store, failed);
    put(&store, failed + 1).unwrap();
    expect(&store, failed + 2);
    drop(store);
    expect(&open(dir.path(), Durability::Synced), failed + 2);
}
