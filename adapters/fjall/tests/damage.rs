//! Damage is noticed, and a crash is no damage.

#![allow(clippy::unwrap_used)]

#[path = "../examples/torture/files.rs"]
mod files;
#[path = "../examples/torture/flips.rs"]
mod flips;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use synclayer_core::{Batch, ClientStore, CommitNumber, ServerStore, StoreError, StoreErrorKind};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};

use files::{Side, copy, scratch, used};
use support::{Contents, batch, contents};

const COMMITS: u64 = 40;
/// The bytes of a row.
const SIZE: usize = 30;

fn open_client(path: &Path, durability: Durability) -> Result<FjallClientStore, StoreError> {
    FjallClientStore::open(path, ClientOptions::new().durability(durability))
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

/// Commits from one number to another.
fn fill(store: &mut FjallClientStore, from: u64, to: u64) {
    for n in from..=to {
        store.commit(CommitNumber(n), batch(n, SIZE)).unwrap();
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
        store.transact(&mut |_| Ok(batch(n, SIZE))).unwrap();
    }
    drop(store);
    read_server(path).unwrap()
}

fn journal(path: &Path) -> PathBuf {
    path.join("db/0.jnl")
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
    copy(original, &trimmed).unwrap();
    let of_bit = |bit: usize, dir: &Path| {
        let damaged = dir.join(bit.to_string());
        copy(&trimmed, &damaged).unwrap();
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

#[test]
fn no_damage_to_any_file_is_served_in_silence() {
    for side in [Side::Client, Side::Server] {
        let verdicts = flips::damage(side, 151, 1);
        assert!(verdicts.all() > 100, "{verdicts:?}");
        assert!(verdicts.silent.is_empty() && verdicts.unclear.is_empty(), "{verdicts:?}");
    }
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

/// Copies the files while the store is open, as a killed process leaves them, and cuts the journal at
/// each byte of the last two commits, of which nothing was acknowledged.
#[test]
fn a_torn_tail_is_dropped() {
    let dir = scratch();
    let path = dir.path().join("store");
    let (sender, synced) = std::sync::mpsc::channel();
    let on_durable = move || sender.send(()).unwrap_or_default();
    let options = ClientOptions::new().durability(Durability::Synced).on_durable(on_durable);
    let mut store = FjallClientStore::open(&path, options).unwrap();
    let mut states = vec![];
    let mut ends = vec![];
    for n in 1..=5 {
        fill(&mut store, n, n);
        states.push(contents(store.rows()));
        ends.push(used(&journal(&path)).len());
        if n == 3 {
            store.flush(CommitNumber(3)).unwrap();
            synced.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
            assert_eq!(store.durable(), Ok(CommitNumber(3)));
        }
    }
    let killed = dir.path().join("killed");
    copy(&path, &killed).unwrap();
    let bytes = used(&journal(&killed));
    for len in (ends[2]..=ends[4]).step_by(3).chain([ends[3], ends[4]]) {
        let torn = dir.path().join(format!("torn-{len}"));
        copy(&killed, &torn).unwrap();
        fs::write(journal(&torn), &bytes[..len]).unwrap();
        let whole = ends.iter().filter(|end| **end <= len).count();
        let mut store = open_client(&torn, Durability::Buffered).unwrap();
        assert_eq!(contents(store.rows()), states[whole - 1], "cut at {len} of {ends:?}");
        fill(&mut store, 100, 100);
    }
    // a loss of power may keep the later of two pages, and lose bytes that nobody was told of
    for (name, lost) in [("page", ends[2]..ends[3]), ("byte", ends[3] - 20..ends[3] - 19)] {
        let torn = dir.path().join(name);
        copy(&killed, &torn).unwrap();
        let mut bytes = bytes.clone();
        bytes[lost].fill(0);
        fs::write(journal(&torn), bytes).unwrap();
        assert_eq!(read_client(&torn).as_ref(), Ok(&states[2]), "{name}");
    }
    // the same cut into what was acknowledged is damage
    fs::write(journal(&killed), &bytes[..ends[2] - 1]).unwrap();
    assert_eq!(read_client(&killed).unwrap_err().kind, StoreErrorKind::Damaged);
}

#[test]
fn a_missing_file_is_damage() {
    let dir = scratch();
    let path = dir.path().join("store");
    let expected = full_client(&path);
    for (n, file) in ["db/0.jnl", "watermark", "db"].into_iter().enumerate() {
        let damaged = dir.path().join(n.to_string());
        copy(&path, &damaged).unwrap();
        let file = damaged.join(file);
        if file.is_dir() { fs::remove_dir_all(file) } else { fs::remove_file(file) }.unwrap();
        let error = read_client(&damaged).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
        // and it stays so
        assert_eq!(read_client(&damaged).unwrap_err().kind, StoreErrorKind::Damaged);
    }
    assert_eq!(read_client(&path), Ok(expected));
}

#[test]
fn a_backup_is_no_damage() {
    let dir = scratch();
    let (path, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let expected = full_server(&path);
    copy(&path, &backup).unwrap();
    let store = FjallServerStore::open(&path, ServerOptions::default()).unwrap();
    store.transact(&mut |_| Ok(batch(COMMITS + 1, SIZE))).unwrap();
    drop(store);
    assert_ne!(read_server(&path).as_ref(), Ok(&expected));
    assert_eq!(read_server(&backup), Ok(expected));
    // but the files of two times are no store
    fs::copy(path.join("watermark"), backup.join("watermark")).unwrap();
    let error = read_server(&backup).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged);
    assert!(error.message.contains("restore a backup"), "{error}");
}

#[test]
fn what_can_be_read_of_a_damaged_store_is_saved() {
    let dir = scratch();
    let path = dir.path().join("store");
    let expected = full_client(&path);
    let mut bytes = used(&journal(&path));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(journal(&path), bytes).unwrap();
    let error = read_client(&path).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged);
    assert!(error.message.contains("move_aside"), "{error}");
    let saved = FjallClientStore::salvage(&path, b"row/").unwrap();
    let saved: Contents = saved.into_iter().map(|(key, value)| (key.into(), value)).collect();
    let mut lacking = expected.iter().filter(|(key, _)| key.starts_with(b"row/"));
    let lacking: Vec<_> = lacking.by_ref().filter(|(key, _)| !saved.contains_key(*key)).collect();
    assert!(lacking.len() <= 1, "more than the damaged commit is lost: {lacking:?}");
    assert!(saved.keys().all(|key| key.starts_with(b"row/")));
    let aside = FjallClientStore::move_aside(&path).unwrap();
    assert_eq!(aside, dir.path().join("store.damaged-1"));
    assert_eq!(read_client(&path), Ok(Contents::new()));
    assert_eq!(FjallClientStore::salvage(&aside, b"row/").unwrap().len(), saved.len());
    let again = FjallClientStore::move_aside(&path).unwrap();
    assert_eq!(again, dir.path().join("store.damaged-2"));
}

/// Rows that have left the journal are saved as well.
#[test]
fn what_lies_in_tables_is_saved() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = ClientOptions::new().memtable_bytes(64 << 10);
    let mut store = FjallClientStore::open(&path, options).unwrap();
    let tables = path.join("db/keyspaces/1/tables");
    let made = || fs::read_dir(&tables).map_or(0, Iterator::count);
    let mut n = 0;
    // one thread makes the tables, so the first is done when there is a second
    while made() < 2 {
        n += 1;
        assert!(n < 100_000, "no table is made");
        let mut batch = Batch::default();
        batch.put(format!("row/{:03}", n % 100), vec![n as u8; 16 << 10]);
        store.commit(CommitNumber(n), batch).unwrap();
    }
    let expected = contents(store.rows());
    drop(store);
    fs::write(journal(&path), [0; 64]).unwrap();
    let saved = FjallClientStore::salvage(&path, b"row/").unwrap();
    assert!(!saved.is_empty(), "nothing was in a table");
    assert!(saved.iter().all(|(key, _)| expected.contains_key(&key[..])));
}

#[test]
fn a_second_opener_is_told_so() {
    let dir = scratch();
    let client = open_client(dir.path(), Durability::Buffered).unwrap();
    let refused = [
        read_client(dir.path()).unwrap_err(),
        FjallClientStore::salvage(dir.path(), b"").unwrap_err(),
        FjallClientStore::move_aside(dir.path()).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind, StoreErrorKind::InUse);
        assert!(error.message.contains("is in use by another part of this program"), "{error}");
    }
    drop(client);
    read_client(dir.path()).unwrap();
    let dir = scratch();
    let server = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
    assert_eq!(read_server(dir.path()).unwrap_err().kind, StoreErrorKind::InUse);
    drop(server);
    read_server(dir.path()).unwrap();
}

#[test]
fn a_creation_that_was_cut_short_is_begun_anew() {
    // killed before the database has its version, and when that was being written
    for version in [None, Some(&b""[..]), Some(b"FJL")] {
        for has_watermark in [false, true] {
            let dir = scratch();
            fs::create_dir_all(dir.path().join("db/keyspaces")).unwrap();
            fs::write(dir.path().join("db/0.jnl"), [0; 100]).unwrap();
            if has_watermark {
                fs::write(dir.path().join("watermark"), []).unwrap();
            }
            if let Some(version) = version {
                fs::write(dir.path().join("db/version"), version).unwrap();
            }
            assert_eq!(read_client(dir.path()), Ok(Contents::new()));
            full_client(dir.path());
        }
    }
}

/// Makes a count of 2 billion of what stands behind a mark, at its last place in a file.
fn make_enormous(file: &Path, mark: &[u8], behind: usize) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(mark.len()).rposition(|window| window == mark).unwrap();
    bytes[at + mark.len() + behind] ^= 0x80;
    fs::write(file, bytes).unwrap();
}

/// The database would ask for as much memory as the count says, and the process would end.
#[test]
fn an_enormous_count_in_a_list_of_the_database_is_damage() {
    let dir = scratch();
    let original = dir.path().join("original");
    let options = ClientOptions::new().memtable_bytes(4 << 10);
    let mut store = FjallClientStore::open(&original, options).unwrap();
    for n in 1.. {
        fill(&mut store, n, n);
        let tables = fs::read_dir(original.join("db/keyspaces/1/tables"));
        if tables.is_ok_and(|mut tables| tables.next().is_some()) {
            break;
        }
        assert!(n < 10_000, "no table is made");
    }
    let expected = contents(store.rows());
    drop(store);
    let files = |of: &Path, keyspace: &str| -> Vec<PathBuf> {
        let files = fs::read_dir(of.join(keyspace)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).collect()
    };
    let (mut tried, mut met) = (0, 0);
    for folder in ["db/keyspaces/0", "db/keyspaces/1", "db/keyspaces/1/tables"] {
        for file in files(&original, folder) {
            if file.file_name().unwrap() == "current" {
                continue;
            }
            let damaged = dir.path().join(tried.to_string());
            copy(&original, &damaged).unwrap();
            make_enormous(&damaged.join(file.strip_prefix(&original).unwrap()), b"TOC!", 3);
            match read_client(&damaged) {
                Ok(found) => assert_eq!(found, expected, "not the list in use"),
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
                    met += 1;
                }
            }
            let saved = FjallClientStore::salvage(&damaged, b"row/").unwrap();
            assert!(!saved.is_empty(), "the journal could be read");
            tried += 1;
        }
    }
    assert!(met >= 3, "{met} files");
}

/// The database writes a list anew under the same number when a sync has failed, and may end before
/// it says its new checksum: such a list is no damage, a wrong bit in it still is.
#[test]
fn a_list_that_was_written_anew_is_no_damage() {
    let dir = scratch();
    let (original, renamed) = (dir.path().join("original"), dir.path().join("renamed"));
    let options = ClientOptions::new().memtable_bytes(4 << 10);
    let mut store = FjallClientStore::open(&original, options).unwrap();
    fill(&mut store, 1, 300);
    let expected = contents(store.rows());
    drop(store);
    copy(&original, &renamed).unwrap();
    let current = renamed.join("db/keyspaces/1/current");
    let mut named = fs::read(&current).unwrap();
    named[12] ^= 1;
    fs::write(&current, &named).unwrap();
    let list = format!("db/keyspaces/1/v{}", u64::from_le_bytes(named[..8].try_into().unwrap()));
    for at in (0..fs::read(original.join(&list)).unwrap().len()).step_by(3) {
        let damaged = dir.path().join("damaged");
        copy(&renamed, &damaged).unwrap();
        let mut bytes = fs::read(damaged.join(&list)).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(damaged.join(&list), bytes).unwrap();
        match read_client(&damaged) {
            Ok(found) => assert_eq!(found, expected, "byte {at}"),
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}"),
        }
        fs::remove_dir_all(damaged).unwrap();
    }
    assert_eq!(read_client(&renamed), Ok(expected));
}
