//! The repair of a damaged server's store: what can be read goes into a new one, which takes its
//! place.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synclayer_core::rules::{Kept, Lost, Rebuild, Rebuilt};
use synclayer_core::{Batch, DatabaseId, ServerStore, StoreError};

use crate::chain::Gaps;
use crate::clock;
use crate::disk;
use crate::failure;
use crate::kinds::StoreKind;
use crate::mark;
use crate::place::{self, sibling, sync_parent};
use crate::remains;
use crate::rows::ROW;
use crate::salvage;
use crate::server::{FjallServerStore, ServerOptions};
use crate::watermark;

/// Rows, and roughly their bytes, in one commit of the new store.
const ROWS: usize = 1000;
const BYTES: usize = 1 << 20;

/// The outcome of a server's [repair](FjallServerStore::repair).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Repair {
    /// The damaged store's new directory.
    pub aside: PathBuf,
    /// The records and clients that were saved.
    pub kept: Kept,
    /// The known losses of single records and clients.
    pub lost: Lost,
    /// Acknowledged commits that can't be read, as far as their numbers tell. Some of their changes
    /// may have been saved from elsewhere.
    pub lost_commits: u64,
    /// The database's identity; `None` where it is lost, so that the next opening gives another.
    pub database: Option<DatabaseId>,
}

impl FjallServerStore {
    /// Makes a new store of everything that can be read of a damaged one, also from behind the
    /// damage, and puts it in its place; the damaged one is renamed, with `.damaged-1` behind its
    /// name, or the next number that is free. It is the same database, and the next opening begins
    /// an epoch that knows no earlier one: every client takes a snapshot, and finds out what the
    /// server no longer has.
    ///
    /// It needs about as much space beside the directory as there is in it. A repair that is
    /// interrupted is done again, or is finished by the next opening.
    ///
    /// # Errors
    /// When there is no server's store, it is in use, nothing of it can be read, the new one can't
    /// be written, or the directory can't be renamed. Then it is as it was.
    pub fn repair(path: impl AsRef<Path>) -> Result<Repair, StoreError> {
        repair(path.as_ref())
    }
}

fn repair(path: &Path) -> Result<Repair, StoreError> {
    clock::check(path)?;
    place::finish_interrupted(path).map_err(|error| failure::io(path, &error))?;
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
        let Some(rebuild) = rebuild.take() else { return Ok(Batch::default()) };
        let ended = rebuild.finish(new)?;
        let batch = ended.batch.clone();
        rebuilt = Some(ended);
        Ok(batch)
    })?;
    let nothing = || failure::damaged(StoreKind::Server, path, "nothing was read of it");
    Ok((rebuilt.ok_or_else(nothing)?, gaps.count(watermark::required(path))))
}
