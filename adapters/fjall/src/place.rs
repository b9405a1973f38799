//! The directories of a store, and of those beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Returns the database's directory in a store's directory.
pub(crate) fn database(path: &Path) -> PathBuf {
    path.join("db")
}

/// Puts a new store in its place where a repair ended between its two renamings.
pub(crate) fn finish_interrupted(path: &Path) -> io::Result<()> {
    let done = sibling(path, "repaired");
    // what can't be looked at is told by whoever opens it
    if !matches!((path.try_exists(), done.try_exists()), (Ok(false), Ok(true))) {
        return Ok(());
    }
    fs::rename(done, path)?;
    sync_parent(path)
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
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) && !parent.as_os_str().is_empty() => {
            File::open(parent)?.sync_all()
        }
        Some(_) | None => Ok(()),
    }
}
