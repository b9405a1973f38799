//! A client's store is believed when nobody but replicas has had it since it was closed.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use synclayer_core::{Batch, ClientStore, CommitNumber};
use synclayer_fjall::{ClientOptions, Durability, FjallClientStore};

fn open_with(dir: &Path, durability: Durability) -> FjallClientStore {
    FjallClientStore::open(dir, ClientOptions::new().durability(durability)).unwrap()
}

fn open(dir: &Path) -> FjallClientStore {
    open_with(dir, Durability::Buffered)
}

fn put(store: &mut FjallClientStore, value: &'static [u8]) {
    let mut batch = Batch::default();
    batch.put(&b"key"[..], value);
    store.commit(CommitNumber(1), batch).unwrap();
}

/// A store that a replica has written to and closed.
fn left(dir: &Path) {
    let mut store = open(dir);
    assert!(store.proves_rows(), "a new one holds nothing");
    put(&mut store, b"one");
}

#[test]
fn a_store_that_a_replica_has_closed_is_believed() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let dir = tempfile::tempdir().unwrap();
        left(dir.path());
        for value in [b"two", b"six"] {
            let mut store = open_with(dir.path(), durability);
            let reader = store.reader();
            assert!(store.proves_rows());
            put(&mut store, value);
            drop(store);
            drop(reader);
        }
        assert!(open(dir.path()).proves_rows());
    }
}

/// Not even by the replica after the next one, until one has counted the rows.
#[test]
fn a_store_that_something_else_has_written_to_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    left(dir.path());
    put(&mut open(dir.path()), b"by hand");
    for _ in 0..2 {
        let mut store = open(dir.path());
        assert!(!store.proves_rows());
        put(&mut store, b"two");
    }
    open(dir.path()).rows_are_proved();
    assert!(open(dir.path()).proves_rows());
}

#[test]
fn a_store_whose_files_were_touched_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let touch = |file: &str| {
        let file = File::options().append(true).open(dir.path().join(file)).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len + 1).unwrap();
        file.set_len(len).unwrap();
    };
    for file in ["db/0.jnl", "watermark"] {
        let mut store = open(dir.path());
        store.rows_are_proved();
        put(&mut store, b"one");
        drop(store);
        touch(file);
        assert!(!open(dir.path()).proves_rows(), "{file}");
    }
}

/// As a process that was killed leaves it.
#[test]
fn a_store_that_was_not_closed_is_not_believed() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    left(dir.path());
    let mut store = open(dir.path());
    assert!(store.proves_rows());
    put(&mut store, b"two");
    copy_all(dir.path(), copy.path());
    assert!(!open(copy.path()).proves_rows());
    drop(store);
    // and a copy may be of anything
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    assert!(!open(copy.path()).proves_rows());
    assert!(open(dir.path()).proves_rows());
}

/// Files that the database takes away meanwhile are left out.
fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), to) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                copied => assert!(copied.is_ok(), "{copied:?}"),
            }
        }
    }
}
