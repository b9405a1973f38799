//! What is left to do with a damaged client store. None of it changes the store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use synclayer_core::memory::MemoryRows;
use synclayer_core::rules::salvage::{OWNERS, Owner, owner};
use synclayer_core::words::store::{Batch, StoreError};

use crate::StoreKind;
use crate::disk::{self, Sizes};
use crate::failure;
use crate::journal;
use crate::manifest;
use crate::mark;
use crate::rows::row_key;

/// See [`FjallClientStore::salvage`](crate::FjallClientStore::salvage).
pub(crate) fn salvage(path: &Path, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    mark::check_store(path, StoreKind::Client)?;
    rows(path, prefix)
}

/// See [`StoreKind::of`].
pub(crate) fn kind(path: &Path) -> Result<Option<StoreKind>, StoreError> {
    if let Some(mark) = mark::look(path)? {
        return Ok(Some(mark.kind));
    }
    let mut found = MemoryRows::new();
    for prefix in OWNERS {
        let mut batch = Batch::new();
        rows(path, prefix)?.into_iter().for_each(|(key, value)| batch.put(key, value));
        found.apply(batch);
    }
    Ok(match owner(&found)? {
        Owner::Client => Some(StoreKind::Client),
        Owner::Server => Some(StoreKind::Server),
        Owner::Nobody | Owner::Both => None,
    })
}

/// The rows that can still be read whose keys have a prefix.
fn rows(path: &Path, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let _lock = disk::lock(path)?;
    let io = |error| failure::io(path, &error);
    let prefix = row_key(prefix);
    let db = disk::database(path);
    let copy = path.join("salvage");
    copy_tables(&db, &copy).map_err(io)?;
    let mut rows = BTreeMap::new();
    // what the tables can't tell, the journals may
    let read = match manifest::check(&copy) {
        Ok(Ok(())) => {
            catch_unwind(AssertUnwindSafe(|| read_tables(&copy, &prefix, &mut rows).is_ok()))
        }
        _ => Ok(false),
    };
    fs::remove_dir_all(&copy).map_err(io)?;
    let journals = read_journals(&db, &prefix, &mut rows);
    if journals.is_err() && !matches!(read, Ok(true)) {
        let what = "neither its tables nor its journals can be read";
        return Err(failure::damaged(StoreKind::Client, path, what));
    }
    let row = |(key, value): (Vec<u8>, _)| (Bytes::from(key).slice(1..), value);
    Ok(rows.into_iter().map(row).collect())
}

/// See [`FjallClientStore::move_aside`](crate::FjallClientStore::move_aside).
pub(crate) fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
    mark::check_store(path, StoreKind::Client)?;
    let _lock = disk::lock(path)?;
    let io = |error| failure::io(path, &error);
    let mut number = 1_u32;
    let aside = loop {
        let mut name = OsString::from(path);
        name.push(format!(".damaged-{number}"));
        if !Path::new(&name).try_exists().map_err(io)? {
            break PathBuf::from(name);
        }
        number += 1;
    };
    fs::rename(path, &aside).map_err(io)?;
    Ok(aside)
}

/// Copies a database without its journals, which the database would cut and replay.
fn copy_tables(from: &Path, to: &Path) -> io::Result<()> {
    if to.try_exists()? {
        fs::remove_dir_all(to)?;
    }
    copy_dir(from, to)?;
    for (_, path) in journal::list(to)? {
        fs::remove_file(path)?;
    }
    // with no journal at all the database forgets how far it had counted
    File::create(to.join("0.jnl"))?;
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn read_tables(
    copy: &Path,
    prefix: &[u8],
    rows: &mut BTreeMap<Vec<u8>, Bytes>,
) -> fjall::Result<()> {
    let sizes = Sizes { cache_bytes: 1 << 20, memtable_bytes: 4 << 20, workers: 1 };
    let (_db, table) = disk::open_database(copy, sizes)?;
    for row in table.prefix(prefix) {
        let (key, value) = row.into_inner()?;
        rows.insert(key.to_vec(), Bytes::copy_from_slice(&value));
    }
    Ok(())
}

fn read_journals(db: &Path, prefix: &[u8], rows: &mut BTreeMap<Vec<u8>, Bytes>) -> io::Result<()> {
    for (_, path) in journal::list(db)? {
        for (key, value) in journal::changes(&path)? {
            if key.starts_with(prefix) {
                match value {
                    Some(value) => rows.insert(key, value.into()),
                    None => rows.remove(&key),
                };
            }
        }
    }
    Ok(())
}
