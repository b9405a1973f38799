//! The repair of a damaged server's store: what can be read goes into a new one, which takes its
//! place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synclayer_core::rules::rebuild::{Kept, Lost, Rebuild, Rebuilt};
use synclayer_core::words::name::DatabaseId;
use synclayer_core::words::store::{Batch, ServerStore, StoreError};

use crate::chain::Gaps;
use crate::clock;
use crate::disk;
use crate::failure;
use crate::mark;
use crate::remains;
use crate::rows::ROW;
use crate::salvage;
use crate::watermark;
use crate::{FjallServerStore, ServerOptions, StoreKind};

/// How many rows, and about how many bytes of them, go into one commit of the new store.
const ROWS: usize = 1000;
const BYTES: usize = 1 << 20;

/// What came of a server's [repair](FjallServerStore::repair).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Repair {
    /// Where the damaged store is now.
    pub aside: PathBuf,
    /// What was saved.
    pub kept: Kept,
    /// What is known to be lost of single records and clients.
    pub lost: Lost,
    /// How many acknowledged commits can't be read, as far as their numbers tell. Part of what they
    /// changed may have been saved from elsewhere.
    pub lost_commits: u64,
    /// The database's identity; `None` where it is lost, so that the next opening gives another.
    pub database: Option<DatabaseId>,
}

/// See [`FjallServerStore::repair`].
pub(crate) fn repair(path: &Path) -> Result<Repair, StoreError> {
    clock::check(path)?;
    finish_interrupted(path)?;
    let mark = mark::check_store(path, StoreKind::Server)?;
    let path = &salvage::movable(path)?;
    let io = |error| failure::io(path, &error);
    let _lock = disk::lock(path)?;
    let fresh = sibling(path, "repairing");
    let done = sibling(path, "repaired");
    for left_behind in [&fresh, &done] {
        if left_behind.try_exists().map_err(io)? {
            fs::remove_dir_all(left_behind).map_err(io)?;
        }
    }
    let database = mark.and_then(|mark| mark.database);
    let (rebuilt, lost_commits) = rebuild(path, &fresh, database)?;
    if rebuilt.kept == Kept::default() && (lost_commits > 0 || rebuilt.lost != Lost::default()) {
        // an empty database would tell every replica that all is gone
        fs::remove_dir_all(&fresh).map_err(io)?;
        return Err(failure::damaged(StoreKind::Server, path, "nothing of it can be read"));
    }
    // from here on the new store is whole, and an opening finds it by this name
    fs::rename(&fresh, &done).map_err(io)?;
    sync_parent(path).map_err(io)?;
    let aside = salvage::rename_aside(path)?;
    fs::rename(&done, path).map_err(io)?;
    sync_parent(path).map_err(io)?;
    let Rebuilt { kept, lost, database, batch: _ } = rebuilt;
    Ok(Repair { aside, kept, lost, lost_commits, database })
}

/// Puts a new store in its place where a repair ended between its two renamings.
pub(crate) fn finish_interrupted(path: &Path) -> Result<(), StoreError> {
    let io = |error| failure::io(path, &error);
    let done = sibling(path, "repaired");
    // what can't be looked at is told by whoever opens it
    if !matches!((path.try_exists(), done.try_exists()), (Ok(false), Ok(true))) {
        return Ok(());
    }
    fs::rename(done, path).map_err(io)?;
    sync_parent(path).map_err(io)
}

/// Makes the new store, and says what came of it and how many commits are missing.
fn rebuild(
    path: &Path,
    fresh: &Path,
    database: Option<DatabaseId>,
) -> Result<(Rebuilt, u64), StoreError> {
    let store = FjallServerStore::open(fresh, ServerOptions::default())?;
    let mut rebuild = Rebuild::new(database);
    let mut gaps = Gaps::default();
    let (mut some, mut bytes) = (Vec::new(), 0);
    let step = |some: Vec<(Bytes, Bytes)>, rebuild: &mut Rebuild| {
        let mut some = Some(some);
        store.transact(&mut |new| rebuild.step(some.take().unwrap_or_default(), new))
    };
    remains::each(path, StoreKind::Server, &[], &mut |key, value| {
        if key.first() != Some(&ROW) {
            gaps.see(key, &value);
            return Ok(());
        }
        bytes += key.len() + value.len();
        some.push((Bytes::copy_from_slice(&key[1..]), value));
        if some.len() < ROWS && bytes < BYTES {
            return Ok(());
        }
        bytes = 0;
        step(std::mem::take(&mut some), &mut rebuild)
    })?;
    step(some, &mut rebuild)?;
    let (mut rebuild, mut rebuilt) = (Some(rebuild), None);
    store.transact(&mut |new| {
        let Some(rebuild) = rebuild.take() else { return Ok(Batch::new()) };
        let ended = rebuild.finish(new)?;
        let batch = ended.batch.clone();
        rebuilt = Some(ended);
        Ok(batch)
    })?;
    let nothing = || failure::damaged(StoreKind::Server, path, "nothing was read of it");
    Ok((rebuilt.ok_or_else(nothing)?, gaps.count(watermark::required(path))))
}

/// A directory beside another, of the same name and this behind it.
pub(crate) fn sibling(path: &Path, what: &str) -> PathBuf {
    // without a slash at its end
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(".");
    name.push(what);
    name.into()
}

/// Makes the renaming of a directory last.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) && !parent.as_os_str().is_empty() => {
            File::open(parent)?.sync_all()
        }
        Some(_) | None => Ok(()),
    }
}
