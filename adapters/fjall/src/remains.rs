//! Reading a damaged store without changing it.
//!
//! The rows lie in tables, and those of the last commits in journals. A damaged database would not
//! open, or would cut its journals, so its tables are put into an empty one beside it, without
//! those that make no sense, and read from there, past the blocks that are damaged. The journals
//! are read by this crate itself, past their damaged places.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::fs;
use std::io;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{Database, Keyspace};
use synclayer_core::StoreError;

use crate::disk::{self, Sizes};
use crate::failure;
use crate::journal;
use crate::kinds::StoreKind;
use crate::manifest::{self, Levels};
use crate::place::database;

const SIZES: Sizes = Sizes { cache_bytes: 1 << 20, memtable_bytes: 4 << 20, workers: 1 };
/// By how many bytes the end of an unreadable place is narrowed down.
const NARROWED: usize = 4;
/// Limits of a list of tables: levels, and runs in a level.
const LEVELS: usize = 7;
const RUNS: usize = 255;

/// A visitor of rows: a full key and its value at a time.
type Visit<'a> = dyn FnMut(&[u8], Bytes) -> Result<(), StoreError> + 'a;

/// Shows the rows that can be read whose full keys have a prefix, in the order of their keys. Some
/// may be missing, and old ones may have come back. The store has to be locked.
pub(crate) fn each(
    path: &Path,
    kind: StoreKind,
    prefix: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let io = |error| failure::io(path, &error);
    let db = database(path);
    let mut changes = BTreeMap::new();
    let journals = read_journals(&db, prefix, &mut changes);
    let copy = Copy::of(path).map_err(io)?;
    let tables = copy.open(&db).map_err(io)?;
    if let (None, Err(error)) = (&tables, &journals) {
        let what = format!("neither its tables nor its journals can be read ({error})");
        return Err(failure::damaged(kind, path, what));
    }
    let mut merge = Merge { changes: changes.into_iter().peekable(), visit };
    if let Some((_db, rows)) = &tables {
        read_tables(rows, prefix, &mut merge)?;
    }
    merge.end()
}

/// The last change of each row that a journal tells of.
fn read_journals(
    db: &Path,
    prefix: &[u8],
    changes: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> io::Result<()> {
    for (_, path) in journal::list(db)? {
        journal::changes(&path, &mut |(key, value)| {
            if key.starts_with(prefix) {
                changes.insert(key, value);
            }
        })?;
    }
    Ok(())
}

/// The rows of tables and journals in one order; where both have one, the journals' is newer.
struct Merge<'a, 'b> {
    changes: Peekable<IntoIter<Vec<u8>, Option<Vec<u8>>>>,
    visit: &'a mut Visit<'b>,
}

impl Merge<'_, '_> {
    fn row(&mut self, key: &[u8], value: Bytes) -> Result<(), StoreError> {
        while let Some((before, changed)) = self.changes.next_if(|(before, _)| &before[..] < key) {
            self.show(&before, changed)?;
        }
        match self.changes.next_if(|(same, _)| same == key) {
            Some((_, changed)) => self.show(key, changed),
            None => (self.visit)(key, value),
        }
    }

    fn end(mut self) -> Result<(), StoreError> {
        while let Some((key, changed)) = self.changes.next() {
            self.show(&key, changed)?;
        }
        Ok(())
    }

    fn show(&mut self, key: &[u8], changed: Option<Vec<u8>>) -> Result<(), StoreError> {
        changed.map_or(Ok(()), |value| (self.visit)(key, value.into()))
    }
}

/// Reads all rows with a prefix, and goes on behind what can't be read.
fn read_tables(
    rows: &Keyspace,
    prefix: &[u8],
    merge: &mut Merge<'_, '_>,
) -> Result<(), StoreError> {
    let mut from = prefix.to_vec();
    loop {
        // what makes no sense makes the database panic in places
        let mut range = rows.range(from.clone()..);
        let mut last = None;
        let ended = loop {
            let next =
                catch_unwind(AssertUnwindSafe(|| range.next().map(fjall::Guard::into_inner)));
            match next {
                Ok(Some(Ok((key, value)))) if key.starts_with(prefix) => {
                    merge.row(&key, Bytes::copy_from_slice(&value))?;
                    last = Some(key.to_vec());
                }
                Ok(Some(Ok(_)) | None) => break true,
                Ok(Some(Err(_))) | Err(_) => break false,
            }
        };
        if ended {
            return Ok(());
        }
        let behind = last.unwrap_or(from);
        match first_readable(rows, &behind, prefix) {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// The nearest place behind a key from which the tables can be read again.
fn first_readable(rows: &Keyspace, behind: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let can_read = |from: &[u8]| {
        let first = || rows.range(from.to_vec()..).next().map(fjall::Guard::into_inner);
        matches!(catch_unwind(AssertUnwindSafe(first)), Ok(None | Some(Ok(_))))
    };
    // ever farther: the next values of the last byte, then of the one before it …
    let longer: Vec<_> = behind.iter().copied().chain([0]).collect();
    let places = (prefix.len()..longer.len()).rev().flat_map(|len| {
        let with = |byte: u8| [&longer[..len], &[byte]].concat();
        (longer[len]..=u8::MAX).map(with).collect::<Vec<_>>()
    });
    let mut unreadable = behind.to_vec();
    let mut found = None;
    for place in places.filter(|place| place.as_slice() > behind) {
        if can_read(&place) {
            found = Some(place);
            break;
        }
        unreadable = place;
    }
    // and from there back again, as near as a few more bytes say
    let mut found = found?;
    for _ in 0..NARROWED {
        let begins = unreadable.clone();
        let nearer = (0..=u8::MAX).map(|byte| [&begins[..], &[byte]].concat());
        let nearer = nearer.take_while(|place| *place < found).find(|place| {
            let readable = can_read(place);
            if !readable {
                unreadable.clone_from(place);
            }
            readable
        });
        match nearer {
            Some(place) => found = place,
            None if unreadable == begins => break,
            None => {}
        }
    }
    Some(found)
}

/// An empty database in the store's directory, which takes the tables in. It goes when it is
/// dropped.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        // what stays behind does no harm, and is removed by the next one
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Copy {
    fn of(path: &Path) -> io::Result<Self> {
        let copy = path.join("salvage");
        if copy.try_exists()? {
            fs::remove_dir_all(&copy)?;
        }
        fs::create_dir(&copy)?;
        Ok(Self(copy))
    }

    /// Opens as many of a database's tables as can be; `None` where there are none.
    fn open(&self, db: &Path) -> io::Result<Option<(Database, Keyspace)>> {
        let Some(keyspace) = keyspace(db)? else { return Ok(None) };
        let tables = tables(&keyspace)?;
        let listed = manifest::levels(&keyspace)?;
        let levels = match listed {
            Some(levels) => levels,
            None => in_runs_of_their_own(&tables)?,
        };
        let there = |number: &u64| tables.contains_key(number);
        let levels = only(&levels, &there);
        if let Some(opened) = self.try_open(&tables, &levels)? {
            return Ok(Some(opened));
        }
        let mut usable = Vec::new();
        for (number, checksum) in levels.iter().flatten().flatten().copied() {
            let alone = vec![vec![vec![(number, checksum)]]];
            let is_sound = xxhash_rust::xxh3::xxh3_128(&fs::read(&tables[&number])?) == checksum;
            if is_sound || self.try_open(&tables, &padded(alone))?.is_some() {
                usable.push(number);
            }
        }
        self.try_open(&tables, &only(&levels, &|number| usable.contains(number)))
    }

    fn try_open(
        &self,
        tables: &BTreeMap<u64, PathBuf>,
        levels: &Levels,
    ) -> io::Result<Option<(Database, Keyspace)>> {
        let fresh = self.0.join("db");
        if fresh.try_exists()? {
            fs::remove_dir_all(&fresh)?;
        }
        let quietly = || catch_unwind(AssertUnwindSafe(|| disk::open_database(&fresh, SIZES).ok()));
        if !matches!(quietly(), Ok(Some(_))) {
            return Err(io::Error::other("an empty database can't be made there"));
        }
        let Some(keyspace) = keyspace(&fresh)? else { return Ok(None) };
        fs::create_dir_all(keyspace.join("tables"))?;
        for (number, _) in levels.iter().flatten().flatten() {
            let target = keyspace.join("tables").join(number.to_string());
            // tables are never written to once they are made
            let linked = fs::hard_link(&tables[number], &target);
            linked.or_else(|_| fs::copy(&tables[number], &target).map(drop))?;
        }
        manifest::replace(&keyspace, levels)?;
        Ok(quietly().ok().flatten())
    }
}

/// Where the rows' tables are: in the one keyspace behind the database's own.
fn keyspace(db: &Path) -> io::Result<Option<PathBuf>> {
    let keyspace = db.join("keyspaces").join("1");
    Ok(keyspace.try_exists()?.then_some(keyspace))
}

/// The tables that are worth a try, by their numbers.
fn tables(keyspace: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    let dir = keyspace.join("tables");
    if !dir.try_exists()? {
        return Ok(found);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let Some(number) = number
            && manifest::has_sound_parts(&path)?
        {
            found.insert(number, path);
        }
    }
    Ok(found)
}

/// Tables of which no list says how they lie: in any order, since each row says which is newer.
fn in_runs_of_their_own(tables: &BTreeMap<u64, PathBuf>) -> io::Result<Levels> {
    let mut levels = vec![Vec::new(); LEVELS];
    for (place, (number, path)) in tables.iter().enumerate().take(LEVELS * RUNS) {
        let checksum = xxhash_rust::xxh3::xxh3_128(&fs::read(path)?);
        levels[place / RUNS].push(vec![(*number, checksum)]);
    }
    Ok(levels)
}

/// The tables that are wanted, in their places.
fn only(levels: &Levels, wanted: &dyn Fn(&u64) -> bool) -> Levels {
    let run = |run: &Vec<manifest::Table>| {
        let left: Vec<_> = run.iter().filter(|(number, _)| wanted(number)).copied().collect();
        (!left.is_empty()).then_some(left)
    };
    padded(levels.iter().map(|level| level.iter().filter_map(run).collect()).collect())
}

fn padded(mut levels: Levels) -> Levels {
    levels.resize(LEVELS, Vec::new());
    levels
}
