//! The file `closed`: how a store's files looked when a replica closed it in good order.
//!
//! The chain of commits says that none is missing, and tables have checksums; but a program that opens
//! the store, or its database, and changes a row leaves both whole. Where the files look as they did when
//! the last replica left them, nobody was there since.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::place::database;

const FILE: &str = "closed";
/// The times of files are no finer than this, on the file systems that stores lie on.
const TICK: Duration = Duration::from_millis(10);

/// Writes the file when it is dropped, if it is told to: after the database is closed.
pub(crate) struct Seal {
    path: PathBuf,
    wanted: AtomicBool,
}

impl Seal {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), wanted: AtomicBool::new(false) }
    }

    /// The store is closed in good order, with rows that a replica answers for.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }
}

impl Drop for Seal {
    /// Without the file the rows are counted at the next opening: errors do no harm.
    fn drop(&mut self) {
        if !*self.wanted.get_mut() {
            return;
        }
        // a change by somebody else has another time than the last one of ours
        thread::sleep(TICK);
        if let Ok(looks) = looks(&self.path) {
            drop(fs::write(self.path.join(FILE), looks));
        }
    }
}

/// Takes the file away, before anything is changed. Returns `true` if the files look as it says.
pub(crate) fn take(path: &Path) -> bool {
    let file = path.join(FILE);
    let said = fs::read(&file);
    if said.is_ok() && fs::remove_file(file).is_err() {
        return false;
    }
    matches!((said, looks(path)), (Ok(said), Ok(looks)) if said == looks)
}

/// A hash of the names, lengths and times of a store's files.
fn looks(path: &Path) -> io::Result<[u8; 8]> {
    let mut files = vec![path.join("watermark")];
    list(&database(path), &mut files)?;
    files.sort();
    let mut hash = Xxh3::new();
    for file in files {
        let metadata = fs::metadata(&file)?;
        let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&metadata.len().to_le_bytes());
        times(&metadata)?.iter().for_each(|time| hash.update(&time.to_le_bytes()));
    }
    Ok(hash.digest().to_le_bytes())
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => list(&entry.path(), files)?,
            false => files.push(entry.path()),
        }
    }
    Ok(())
}

/// When a file was changed, by the clock that nobody sets for a file.
#[cfg(unix)]
fn times(metadata: &Metadata) -> io::Result<Vec<i64>> {
    use std::os::unix::fs::MetadataExt;

    Ok(vec![metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()])
}

#[cfg(not(unix))]
fn times(metadata: &Metadata) -> io::Result<Vec<i64>> {
    let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH);
    let since = since.map_err(io::Error::other)?;
    Ok(vec![since.as_secs() as i64, i64::from(since.subsec_nanos())])
}
