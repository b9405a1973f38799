//! The files of stores.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The owner of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Client,
    Server,
}

/// All files of a store, in the order of their names.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// Copies a store, its journals without the zeros that they were made with.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else if source.extension().is_some_and(|extension| extension == "jnl") {
            fs::write(target, used(&source))?;
        } else {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

pub(crate) fn used(journal: &Path) -> Vec<u8> {
    let mut bytes = fs::read(journal).unwrap();
    // a chunk at a time: 64 MiB a byte at a time take most of a second in a debug build
    while bytes.len() >= 4096 && bytes[bytes.len() - 4096..] == [0; 4096] {
        bytes.truncate(bytes.len() - 4096);
    }
    let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(len);
    bytes
}

/// A directory in memory where there is one: thousands of openings would wait for a disk.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
