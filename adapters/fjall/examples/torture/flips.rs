//! Bits that flip, regions that vanish, in every file of a small store.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use synclayer_core::{
    Batch, ClientStore, CommitNumber, Rows, Scan, ServerStore, StoreError, StoreErrorKind,
};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};

use crate::files::{Side, copy, files, scratch, used};

type Contents = BTreeMap<Vec<u8>, Bytes>;

/// Enough for a few tables and a journal.
const COMMITS: u64 = 60;
const MEMTABLE_BYTES: u64 = 4 << 10;
/// The smallest part of a file that a disk loses at once.
const SECTOR: usize = 512;

/// The outcomes of damage.
#[derive(Default, Debug)]
pub(crate) struct Verdicts {
    /// An opening or a read said so.
    pub(crate) noticed: u64,
    /// Everything was there all the same, and still was after another commit.
    pub(crate) harmless: u64,
    /// Something else than what was written was read: the damage that did it.
    pub(crate) silent: Vec<String>,
    /// The damage at which the store panicked, or gave an error that doesn't say what it is.
    pub(crate) unclear: Vec<String>,
}

impl Verdicts {
    pub(crate) fn all(&self) -> u64 {
        self.noticed + self.harmless + (self.silent.len() + self.unclear.len()) as u64
    }

    /// Counts what was found, unless it is what was written.
    fn take(&mut self, found: Found, expected: &Contents, what: &str) -> bool {
        match found {
            None => self.unclear.push(format!("{what}: a panic")),
            Some(Err(error)) if is_clear(&error, what) => self.noticed += 1,
            Some(Err(error)) => self.unclear.push(format!("{what}: {error}")),
            Some(Ok(found)) if found != *expected => self.silent.push(what.into()),
            Some(Ok(_)) => return true,
        }
        false
    }
}

/// Flips one random bit of every `step`-th byte of every file of a store, and zeroes, cuts off and
/// deletes regions of it, each in a copy of its own.
pub(crate) fn damage(side: Side, step: usize, seed: u64) -> Verdicts {
    let scratch = scratch();
    let original = scratch.path().join("original");
    let expected = make(side, &original);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut verdicts = Verdicts::default();
    for file in files(&original) {
        let name = file.strip_prefix(&original).unwrap().display().to_string();
        let bytes = fs::read(&file).unwrap();
        let mut try_with = |what: String, damaged: Option<&[u8]>| {
            let copied = scratch.path().join("copy");
            copy(&original, &copied).unwrap();
            let target = copied.join(&name);
            match damaged {
                Some(bytes) => fs::write(target, bytes).unwrap(),
                None => fs::remove_file(target).unwrap(),
            }
            judge(side, &copied, &expected, format!("{name}: {what}"), &mut verdicts);
            fs::remove_dir_all(copied).unwrap();
        };
        for at in (rng.usize(..step)..bytes.len()).step_by(step) {
            let bit = rng.u8(..8);
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            try_with(format!("bit {bit} of byte {at}"), Some(&damaged));
        }
        for at in (0..bytes.len()).step_by(SECTOR * step) {
            let mut damaged = bytes.clone();
            let end = bytes.len().min(at + SECTOR);
            damaged[at..end].fill(0);
            if damaged != bytes {
                try_with(format!("zeros from byte {at}"), Some(&damaged));
            }
            try_with(format!("cut off at byte {at}"), Some(&bytes[..at]));
        }
        try_with("deleted".into(), None);
    }
    verdicts
}

fn judge(side: Side, path: &Path, expected: &Contents, what: String, verdicts: &mut Verdicts) {
    let first = quietly(|| read(side, path, expected));
    if !verdicts.take(first, expected, &what) {
        return;
    }
    // the store is in use again: nothing that comes later may show the damage either
    let mut later = expected.clone();
    apply(&mut later, COMMITS + 1);
    let second = quietly(|| {
        commit(side, path, COMMITS + 1)?;
        read(side, path, &later)
    });
    if verdicts.take(second, &later, &what) {
        verdicts.harmless += 1;
    }
}

/// Returns true if an error names the damage. A wrong version may be a valid one.
fn is_clear(error: &StoreError, what: &str) -> bool {
    error.kind == StoreErrorKind::Damaged
        || what.starts_with("db/version") && error.message.contains("another version")
}

/// The result of a store; `None` for a panic.
type Found = Option<Result<Contents, StoreError>>;

fn quietly(read: impl FnOnce() -> Result<Contents, StoreError>) -> Found {
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Writes, overwrites and removes, so that a lost or a misplaced commit shows.
fn batch(n: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(format!("row/{n:03}"), filling(n));
    batch.put(format!("shared/{}", n % 3), n.to_be_bytes().to_vec());
    batch.delete(format!("row/{:03}", n / 2));
    batch
}

fn apply(contents: &mut Contents, n: u64) {
    contents.insert(format!("row/{n:03}").into(), filling(n).into());
    contents.insert(format!("shared/{}", n % 3).into(), n.to_be_bytes().to_vec().into());
    contents.remove(format!("row/{:03}", n / 2).as_bytes());
}

fn filling(n: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(n);
    std::iter::repeat_with(|| rng.u8(..)).take(120).collect()
}

fn make(side: Side, path: &Path) -> Contents {
    let mut contents = Contents::new();
    for n in 1..=COMMITS {
        apply(&mut contents, n);
    }
    match side {
        Side::Client => {
            let mut store = open_client(path).unwrap();
            for n in 1..=COMMITS {
                store.commit(CommitNumber(n), batch(n)).unwrap();
            }
        }
        Side::Server => {
            let store = open_server(path).unwrap();
            for n in 1..=COMMITS {
                store.transact(&mut |_| Ok(batch(n))).unwrap();
            }
        }
    }
    assert_eq!(read(side, path, &contents).as_ref(), Ok(&contents));
    for journal in files(path) {
        if journal.extension().is_some_and(|extension| extension == "jnl") {
            fs::write(&journal, used(&journal)).unwrap();
        }
    }
    contents
}

fn open_client(path: &Path) -> Result<FjallClientStore, StoreError> {
    let options = ClientOptions::new().memtable_bytes(MEMTABLE_BYTES);
    FjallClientStore::open(path, options)
}

fn open_server(path: &Path) -> Result<FjallServerStore, StoreError> {
    let options = ServerOptions::new().memtable_bytes(MEMTABLE_BYTES);
    FjallServerStore::open(path, options)
}

fn commit(side: Side, path: &Path, n: u64) -> Result<(), StoreError> {
    match side {
        Side::Client => open_client(path)?.commit(CommitNumber(n), batch(n)),
        Side::Server => open_server(path)?.transact(&mut |_| Ok(batch(n))),
    }
}

fn read(side: Side, path: &Path, expected: &Contents) -> Result<Contents, StoreError> {
    match side {
        Side::Client => contents(open_client(path)?.rows(), expected),
        Side::Server => {
            let store = open_server(path)?;
            let mut all = Contents::new();
            store.read(&mut |rows| {
                all = contents(rows, expected)?;
                Ok(())
            })?;
            Ok(all)
        }
    }
}

/// All rows of a scan, as far as single reads and the look at the last one agree.
fn contents(rows: &dyn Rows, expected: &Contents) -> Result<Contents, StoreError> {
    let mut all = Contents::new();
    rows.scan(b"", &[0xff], &mut |key: &[u8], value| {
        all.insert(key.to_vec(), value);
        Ok(Scan::Next)
    })?;
    for (key, value) in expected {
        if rows.get(key)?.as_ref() != Some(value) {
            all.remove(key);
        }
    }
    for n in 1..=COMMITS {
        let key = format!("row/{n:03}");
        if !expected.contains_key(key.as_bytes())
            && let Some(value) = rows.get(key.as_bytes())?
        {
            all.insert(key.into(), value);
        }
    }
    let last = rows.last(b"", &[0xff])?;
    if last.as_ref().map(|(key, _)| &key[..]) != expected.keys().next_back().map(|key| &key[..]) {
        all.clear();
    }
    Ok(all)
}
