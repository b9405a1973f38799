//! Damage is noticed, and a crash is no damage.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synclayer_core::words::name::CommitNumber;
use synclayer_core::words::store::{
    Batch, ClientStore, Rows, Scan, ServerStore, StoreError, StoreErrorKind,
};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use tempfile::TempDir;

type Contents = BTreeMap<Vec<u8>, Bytes>;

const COMMITS: u64 = 40;

/// Writes, overwrites and removes, so that a lost or a misplaced commit shows.
fn batch(n: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(format!("row/{n:03}"), vec![n as u8; 30]);
    batch.put(format!("shared/{}", n % 3), n.to_be_bytes().to_vec());
    batch.delete(format!("row/{:03}", n / 2));
    batch
}

fn contents(rows: &dyn Rows) -> Contents {
    let mut all = Contents::new();
    let visit = &mut |key: &[u8], value| {
        all.insert(key.to_vec(), value);
        Ok(Scan::Next)
    };
    rows.scan(b"", &[0xff], visit).unwrap();
    all
}

fn open_client(path: &Path, durability: Durability) -> Result<FjallClientStore, StoreError> {
    FjallClientStore::open(path, ClientOptions { durability, ..ClientOptions::default() })
}

fn read_client(path: &Path) -> Result<Contents, StoreError> {
    open_client(path, Durability::Buffered).map(|store| contents(store.rows()))
}

fn read_server(path: &Path) -> Result<Contents, StoreError> {
    let store = FjallServerStore::open(path, ServerOptions::default())?;
    let mut all = Contents::new();
    store.read(&mut |rows| {
        all = contents(rows);
        Ok(())
    })?;
    Ok(all)
}

/// A directory in memory where there is one: hundreds of openings would wait for a disk.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Commits from one number to another.
fn fill(store: &mut FjallClientStore, from: u64, to: u64) {
    for n in from..=to {
        store.commit(CommitNumber(n), batch(n)).unwrap();
    }
}

fn full_client(path: &Path) -> Contents {
    let mut store = open_client(path, Durability::Buffered).unwrap();
    fill(&mut store, 1, COMMITS);
    contents(store.rows())
}

fn full_server(path: &Path) -> Contents {
    let store = FjallServerStore::open(path, ServerOptions::default()).unwrap();
    for n in 1..=COMMITS {
        store.transact(&mut |_| Ok(batch(n))).unwrap();
    }
    drop(store);
    read_server(path).unwrap()
}

fn journal(path: &Path) -> PathBuf {
    path.join("db/0.jnl")
}

/// Copies a store, its journal without the zeros that it was made with.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else if source.extension().is_some_and(|extension| extension == "jnl") {
            fs::write(target, used(&source)).unwrap();
        } else {
            fs::copy(source, target).unwrap();
        }
    }
}

fn used(journal: &Path) -> Vec<u8> {
    let mut bytes = fs::read(journal).unwrap();
    // a chunk at a time: 64 MiB a byte at a time take most of a second in a debug build
    while bytes.len() >= 4096 && bytes[bytes.len() - 4096..] == [0; 4096] {
        bytes.truncate(bytes.len() - 4096);
    }
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(len);
    bytes
}

#[derive(Default, Debug)]
struct Verdicts {
    noticed: u32,
    harmless: u32,
    silent: Vec<usize>,
}

/// Flips bits of a journal one at a time, and looks what an opening makes of each.
fn flip(
    original: &Path,
    bits: &[usize],
    expected: &Contents,
    read: &(dyn Fn(&Path) -> Result<Contents, StoreError> + Sync),
) -> Verdicts {
    let dir = scratch();
    let trimmed = dir.path().join("trimmed");
    copy(original, &trimmed);
    let of_bit = |bit: usize, dir: &Path| {
        let damaged = dir.join(bit.to_string());
        copy(&trimmed, &damaged);
        let mut bytes = fs::read(journal(&damaged)).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(journal(&damaged), bytes).unwrap();
        let found = read(&damaged);
        fs::remove_dir_all(damaged).unwrap();
        found
    };
    let mut verdicts = Verdicts::default();
    for &bit in bits {
        match of_bit(bit, dir.path()) {
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
                verdicts.noticed += 1;
            }
            Ok(found) if found == *expected => verdicts.harmless += 1,
            Ok(_) => verdicts.silent.push(bit),
        }
    }
    verdicts
}

/// A sample of all bits, and each bit of what fjall's own checksums leave out: the start of a
/// batch, in the middle and at the end, and the end of the last one.
fn bits(journal: &[u8], sample: usize) -> Vec<usize> {
    let starts: Vec<usize> = (0..journal.len() - 13)
        .filter(|&at| journal[at] == 1 && journal[at + 1..at + 5] == [4, 0, 0, 0])
        .collect();
    let starts = [starts[0], starts[starts.len() / 2], starts[starts.len() - 1]];
    let mut bits: Vec<usize> = starts.iter().flat_map(|at| at * 8..(at + 13) * 8).collect();
    bits.extend((journal.len() - 13) * 8..journal.len() * 8);
    let mut rng = fastrand::Rng::with_seed(3);
    bits.extend(std::iter::repeat_with(|| rng.usize(..journal.len() * 8)).take(sample));
    bits
}

#[test]
fn no_flipped_bit_changes_a_client_store_in_silence() {
    let dir = scratch();
    let expected = full_client(dir.path());
    let bits = bits(&used(&journal(dir.path())), 200);
    let verdicts = flip(dir.path(), &bits, &expected, &read_client);
    eprintln!("client: {} bits, {verdicts:?}", bits.len());
    assert!(verdicts.silent.is_empty(), "{verdicts:?}");
}

#[test]
fn no_flipped_bit_changes_a_server_store_in_silence() {
    let dir = scratch();
    let expected = full_server(dir.path());
    let bits = bits(&used(&journal(dir.path())), 200);
    let verdicts = flip(dir.path(), &bits, &expected, &read_server);
    eprintln!("server: {} bits, {verdicts:?}", bits.len());
    assert!(verdicts.silent.is_empty(), "{verdicts:?}");
}

/// Takes minutes: `cargo test -p synclayer-fjall --release -- --ignored every_bit`.
#[test]
#[ignore = "takes minutes"]
fn every_bit_of_a_journal_may_flip() {
    let dir = scratch();
    let expected = full_client(dir.path());
    let bits: Vec<usize> = (0..used(&journal(dir.path())).len() * 8).collect();
    let verdicts = flip(dir.path(), &bits, &expected, &read_client);
    eprintln!("{} bits, {verdicts:?}", bits.len());
    assert!(verdicts.silent.is_empty(), "{verdicts:?}");
}
