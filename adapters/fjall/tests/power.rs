//! A buffered store whose machine lost its power opens with a prefix of what was written.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../examples/torture/files.rs"]
mod files;
mod support;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use synclayer_core::{ClientStore, CommitNumber, Rows, ServerStore, StoreError, StoreErrorKind};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};

use files::{Side, copy, scratch, used};
use support::{Contents, batch, contents};

const COMMITS: u64 = 12;
/// The bytes of a row: a batch is a few sectors without a blank one.
const SIZE: usize = 700;

enum Store {
    Client(FjallClientStore),
    Server(FjallServerStore),
}

impl Store {
    fn open(path: &Path, side: Side) -> Result<Self, StoreError> {
        let durability = Durability::Buffered;
        Ok(match side {
            Side::Client => {
                let options = ClientOptions::new().durability(durability).memtable_bytes(4 << 10);
                Self::Client(FjallClientStore::open(path, options)?)
            }
            Side::Server => {
                let options = ServerOptions::new().durability(durability);
                Self::Server(FjallServerStore::open(path, options)?)
            }
        })
    }

    fn write(&mut self, number: u64) {
        match self {
            Self::Client(store) => store.commit(CommitNumber(number), batch(number, SIZE)),
            Self::Server(store) => store.transact(&mut |_| Ok(batch(number, SIZE))),
        }
        .unwrap();
    }

    fn contents(&self) -> Contents {
        match self {
            Self::Client(store) => contents(store.rows()),
            Self::Server(store) => {
                let mut all = Contents::new();
                let read = &mut |rows: &dyn Rows| {
                    all = contents(rows);
                    Ok(())
                };
                store.read(read).unwrap();
                all
            }
        }
    }
}

fn journal(path: &Path) -> PathBuf {
    path.join("db/0.jnl")
}

/// The files of a store in use, with what it held after each commit and where its journal ended.
struct InUse {
    files: PathBuf,
    states: Vec<Contents>,
    ends: Vec<usize>,
}

fn in_use(dir: &Path, side: Side) -> InUse {
    let (path, files) = (dir.join("store"), dir.join("files"));
    let mut store = Store::open(&path, side).unwrap();
    let (mut states, mut ends) = (vec![store.contents()], vec![0]);
    for number in 1..=COMMITS {
        store.write(number);
        states.push(store.contents());
        ends.push(used(&journal(&path)).len());
    }
    copy(&path, &files).unwrap();
    InUse { files, states, ends }
}

/// Opens a copy of the files with another journal. What it shows is a prefix, at least so many
/// commits long; it takes further commits, and opens with them again.
fn opens(of: &InUse, side: Side, name: &str, bytes: &[u8], commits: usize) {
    let torn = of.files.with_file_name("torn");
    copy(&of.files, &torn).unwrap();
    fs::write(journal(&torn), bytes).unwrap();
    let mut store = Store::open(&torn, side).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found = store.contents();
    let prefix = of.states[commits..].contains(&found);
    assert!(prefix, "{side:?}, {name}: no prefix of {commits} commits or more");
    store.write(100);
    let expected = store.contents();
    drop(store);
    assert_eq!(Store::open(&torn, side).unwrap().contents(), expected, "{name}");
    fs::remove_dir_all(torn).unwrap();
}

#[test]
fn a_buffered_store_opens_with_a_prefix_after_a_loss_of_power() {
    for side in [Side::Client, Side::Server] {
        let dir = scratch();
        let of = in_use(dir.path(), side);
        let whole = used(&journal(&of.files));
        // commits that end before a place, which are kept if all that is lost is behind it
        let before = |at: usize| of.ends.iter().filter(|end| **end <= at).count() - 1;
        for len in (0..whole.len()).step_by(97).chain(of.ends.iter().copied()) {
            opens(&of, side, &format!("cut at {len}"), &whole[..len], before(len));
        }
        let sectors = (0..whole.len() / 512).map(|sector| sector * 512..(sector + 1) * 512);
        let writes = of.ends.windows(2).map(|ends| ends[0]..ends[1]);
        let pages = [0..4096, 4096..8192];
        for lost in sectors.chain(writes).chain(pages) {
            let Range { start, end } = lost;
            let mut bytes = whole.clone();
            bytes[start..end.min(whole.len())].fill(0);
            opens(&of, side, &format!("lost {start} to {end}"), &bytes, before(start));
        }
    }
}

/// A wrong bit is not what a loss of power leaves.
#[test]
fn a_wrong_bit_in_a_buffered_store_is_still_damage() {
    let dir = scratch();
    let of = in_use(dir.path(), Side::Client);
    let whole = used(&journal(&of.files));
    if !Path::new("/proc/sys/kernel/random/boot_id").exists() {
        return;
    }
    for bit in (0..whole.len() * 8).step_by(331).chain((whole.len() - 40) * 8..whole.len() * 8) {
        let damaged = dir.path().join("damaged");
        copy(&of.files, &damaged).unwrap();
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(journal(&damaged), bytes).unwrap();
        match Store::open(&damaged, Side::Client) {
            Ok(store) => assert!(of.states.last() == Some(&store.contents()), "bit {bit}"),
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}"),
        }
        fs::remove_dir_all(damaged).unwrap();
    }
}

/// A journal of which nothing can be read may hold only what lies in tables as well.
#[test]
fn a_journal_torn_at_its_start_is_damage_only_where_tables_lack_what_was_synced() {
    let dir = scratch();
    let path = dir.path().join("store");
    let tear = || {
        let mut bytes = used(&journal(&path));
        bytes[..512].fill(0);
        fs::write(journal(&path), &bytes).unwrap();
        bytes
    };
    let mut store = Store::open(&path, Side::Client).unwrap();
    store.write(1);
    drop(store);
    let whole = used(&journal(&path));
    let torn = tear();
    for _ in 0..2 {
        let error = Store::open(&path, Side::Client).map(|store| store.contents()).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
        assert_eq!(fs::read(journal(&path)).unwrap(), torn, "it can still be saved");
    }
    fs::write(journal(&path), whole).unwrap();
    let mut store = Store::open(&path, Side::Client).unwrap();
    let mut states = vec![];
    // a table counts when the database names it, not when its file is begun
    let named = || fs::read(path.join("db/keyspaces/1/current")).unwrap();
    let before = named();
    while named() == before {
        assert!(states.len() < 10_000, "no table is made");
        store.write(states.len() as u64 + 2);
        states.push(store.contents());
    }
    let files = dir.path().join("files");
    copy(&path, &files).unwrap();
    drop(store);
    fs::remove_dir_all(&path).unwrap();
    fs::rename(&files, &path).unwrap();
    tear();
    let mut store = Store::open(&path, Side::Client).unwrap();
    assert!(states.contains(&store.contents()));
    store.write(100);
    drop(store);
    Store::open(&path, Side::Client).unwrap();
}
