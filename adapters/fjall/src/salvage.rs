//! Remedies for a damaged client store: reading it, and moving it aside.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synclayer_core::rules::{Owner, owner};
use synclayer_core::{StoreError, StoreErrorKind};

use crate::chain::{CHAIN, Gaps};
use crate::clock;
use crate::disk;
use crate::failure;
use crate::kinds::StoreKind;
use crate::mark;
use crate::place::sibling;
use crate::remains;
use crate::rows::row_key;
use crate::watermark;

impl StoreKind {
    /// Returns the kind of the store in a directory, even a damaged one; `None` if it does not tell, or
    /// if both kinds have written there, which versions without this distinction allowed.
    ///
    /// # Errors
    /// When there is no store, or it is in use.
    pub fn of(path: impl AsRef<Path>) -> Result<Option<Self>, StoreError> {
        kind(path.as_ref())
    }
}

/// See [`FjallClientStore::salvage`](crate::FjallClientStore::salvage).
pub(crate) fn salvage(path: &Path, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    clock::check(path)?;
    mark::check_store(path, StoreKind::Client)?;
    rows(path, prefix)
}

fn kind(path: &Path) -> Result<Option<StoreKind>, StoreError> {
    if let Some(mark) = mark::look(path)? {
        return Ok(Some(mark.kind));
    }
    let readable = |prefix: &[u8]| match rows(path, prefix) {
        // nothing of it can be read
        Err(error) if error.kind == StoreErrorKind::Damaged => Ok(Vec::new()),
        read => read,
    };
    Ok(match owner(readable)? {
        Owner::Client => Some(StoreKind::Client),
        Owner::Server => Some(StoreKind::Server),
        Owner::Both => None,
        Owner::Nobody => mark::guess(path),
    })
}

/// The rows that can still be read whose keys have a prefix.
fn rows(path: &Path, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let _lock = disk::lock(path)?;
    let mut rows = Vec::new();
    remains::each(path, StoreKind::Client, &row_key(prefix), &mut |key, value| {
        rows.push((Bytes::copy_from_slice(&key[1..]), value));
        Ok(())
    })?;
    Ok(rows)
}

/// See [`FjallClientStore::lost_commits`](crate::FjallClientStore::lost_commits).
pub(crate) fn lost_commits(path: &Path) -> Result<u64, StoreError> {
    clock::check(path)?;
    mark::check_store(path, StoreKind::Client)?;
    let _lock = disk::lock(path)?;
    let mut gaps = Gaps::default();
    remains::each(path, StoreKind::Client, &[CHAIN], &mut |key, value| {
        gaps.see(key, &value);
        Ok(())
    })?;
    Ok(gaps.count(watermark::required(path)))
}

/// See [`FjallClientStore::move_aside`](crate::FjallClientStore::move_aside).
pub(crate) fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    mark::check_store(path, StoreKind::Client)?;
    let path = movable(path)?;
    let _lock = disk::lock(&path)?;
    rename_aside(&path)
}

/// Where a store's directory really is, if it can be renamed there.
pub(crate) fn movable(path: &Path) -> Result<PathBuf, StoreError> {
    let io = |error| failure::io(path, &error);
    let real = fs::canonicalize(path).map_err(io)?;
    let device = |path: &Path| fs::metadata(path).map(|metadata| device_of(&metadata)).map_err(io);
    match real.parent() {
        Some(parent) if device(parent)? == device(&real)? => Ok(real),
        Some(_) | None => Err(failure::mount_point(path)),
    }
}

#[cfg(unix)]
fn device_of(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(metadata)
}

#[cfg(not(unix))]
fn device_of(_: &fs::Metadata) -> u64 {
    0
}

/// Gives a store's directory the next name that is free.
pub(crate) fn rename_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let io = |error| failure::io(path, &error);
    let mut number = 1_u32;
    let aside = loop {
        let name = sibling(path, &format!("damaged-{number}"));
        if !name.try_exists().map_err(io)? {
            break name;
        }
        number += 1;
    };
    fs::rename(path, &aside).map_err(io)?;
    Ok(aside)
}
