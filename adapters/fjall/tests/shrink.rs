//! The tables of a store shrink when many of its rows have gone.
#![allow(clippy::unwrap_used)]

use std::ops::RangeBounds;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use synclayer_core::{Batch, ClientStore, CommitNumber, ServerStore};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};

const ROWS: u32 = 20_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn key(n: u32) -> Vec<u8> {
    n.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec()
}

/// A row that no compression makes small.
fn value(n: u32) -> Vec<u8> {
    let mut state = u64::from(n) + 1;
    let byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(byte).take(300).collect()
}

/// Sets all rows and then removes them, in batches of 500.
fn batches() -> impl Iterator<Item = Batch> {
    let firsts = || (0..ROWS).step_by(500);
    let put = |first| {
        let mut batch = Batch::default();
        (first..first + 500).for_each(|n| batch.put(key(n), value(n)));
        batch
    };
    let delete = |first| {
        let mut batch = Batch::default();
        (first..first + 500).for_each(|n| batch.delete(key(n)));
        batch
    };
    firsts().map(put).chain(firsts().map(delete))
}

/// Bytes of everything but the journals.
fn bytes_of_tables(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_of_tables(&entry.path()),
        Ok(metadata) if entry.path().extension().is_none_or(|end| end != "jnl") => metadata.len(),
        Ok(_) | Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// Sets all rows and removes them, and then waits until a tenth of the place that they took is left.
fn shrinks(dir: &Path, mut commit: impl FnMut(Batch)) {
    let mut largest = 0;
    for batch in batches() {
        commit(batch);
        largest = largest.max(bytes_of_tables(dir));
    }
    assert!(largest > 2_000_000, "the rows take their place");
    waits(dir, ..=largest / 10, commit);
}

/// Waits until the tables take so many bytes, while a small row is written now and then.
fn waits(dir: &Path, bytes: impl RangeBounds<u64>, mut commit: impl FnMut(Batch)) {
    let begun = Instant::now();
    while !bytes.contains(&bytes_of_tables(dir)) {
        assert!(begun.elapsed() < PATIENCE, "the tables take {} bytes", bytes_of_tables(dir));
        thread::sleep(Duration::from_millis(250));
        let mut batch = Batch::default();
        batch.put(&b"small"[..], &b"row"[..]);
        commit(batch);
    }
}

#[test]
fn a_clients_store_shrinks_when_its_rows_have_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallClientStore::open(dir.path(), ClientOptions::new()).unwrap();
    let mut number = 0;
    shrinks(dir.path(), |batch| {
        number += 1;
        store.commit(CommitNumber(number), batch).unwrap();
    });
    // what is left is a sound store
    drop(store);
    let store = FjallClientStore::open(dir.path(), ClientOptions::new()).unwrap();
    let last = store.rows().last(&[0], &[255; 8]).unwrap();
    assert_eq!(last.map(|(key, _)| key).as_deref(), Some(&b"small"[..]));
}

/// It is closed at once, and its tables are cleared when it is used again.
#[test]
fn a_store_that_was_closed_before_it_shrank_does_so_later() {
    let dir = tempfile::tempdir().unwrap();
    let open = || FjallClientStore::open(dir.path(), ClientOptions::new()).unwrap();
    let mut store = open();
    for (number, batch) in (1..).zip(batches()) {
        store.commit(CommitNumber(number), batch).unwrap();
    }
    drop(store);
    let (mut store, mut number) = (open(), 0);
    waits(dir.path(), ..=600_000, |batch| {
        number += 1;
        store.commit(CommitNumber(number), batch).unwrap();
    });
}

/// The removals are few enough to lie in memory alone, so that the next start finds them in the journal.
#[test]
fn a_store_whose_removals_lie_in_its_journal_shrinks_when_it_is_used_again() {
    const FEW: u32 = 3_500;
    let dir = tempfile::tempdir().unwrap();
    let open = || FjallClientStore::open(dir.path(), ClientOptions::new()).unwrap();
    let mut number = 0;
    let mut commit = |store: &mut FjallClientStore, batch| {
        number += 1;
        store.commit(CommitNumber(number), batch).unwrap();
    };
    let mut store = open();
    batches().take(FEW as usize / 500).for_each(|batch| commit(&mut store, batch));
    waits(dir.path(), 800_000.., |batch| commit(&mut store, batch));
    let mut batch = Batch::default();
    (0..FEW).for_each(|n| batch.delete(key(n)));
    commit(&mut store, batch);
    drop(store);
    let mut store = open();
    waits(dir.path(), ..=200_000, |batch| commit(&mut store, batch));
}

#[test]
fn a_servers_store_shrinks_when_its_rows_have_gone() {
    let dir = tempfile::tempdir().unwrap();
    let options = ServerOptions::new().durability(Durability::Buffered).memtable_bytes(1 << 20);
    let store = FjallServerStore::open(dir.path(), options).unwrap();
    shrinks(dir.path(), |batch| store.transact(&mut |_| Ok(batch.clone())).unwrap());
}
