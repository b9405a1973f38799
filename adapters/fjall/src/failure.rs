//! What the database's errors mean to the people who run a store.

use std::io;
use std::path::Path;

use synclayer_core::words::store::{StoreError, StoreErrorKind};

/// Whose store it is, and so what helps against damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    fn remedy(self) -> &'static str {
        match self {
            Self::Client => {
                "save the unsent writes (FjallClientStore::salvage), move the directory aside \
                 (FjallClientStore::move_aside) and sync again"
            }
            Self::Server => "move the directory aside and restore a backup",
        }
    }
}

/// What is stored at this path is not what was written.
pub(crate) fn damaged(role: Role, path: &Path, what: impl std::fmt::Display) -> StoreError {
    let path = path.display();
    StoreError::damaged(format!("the store at {path} is damaged: {what}; {}", role.remedy()))
}

/// An error of the file system.
pub(crate) fn io(path: &Path, error: &io::Error) -> StoreError {
    if is_full(error) {
        return full(path);
    }
    let message = format!("the store at {} can't be read or written: {error}", path.display());
    StoreError::new(StoreErrorKind::Other, message)
}

/// An error of the database.
// the database's errors may grow in number; all that aren't named are about what it has read
#[allow(clippy::wildcard_enum_match_arm)]
pub(crate) fn fjall(role: Role, path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            of_io(role, path, &error)
        }
        fjall::Error::Locked => in_use(path),
        fjall::Error::Poisoned => stopped(path),
        fjall::Error::InvalidVersion(None) if !names_a_version(path) => {
            damaged(role, path, "the file that names its version is unreadable")
        }
        fjall::Error::InvalidVersion(_) => {
            let path = path.display();
            let message = format!("the store at {path} was written by another version of fjall");
            StoreError::new(StoreErrorKind::Other, message)
        }
        error => damaged(role, path, error),
    }
}

/// Another store has this path open.
pub(crate) fn in_use(path: &Path) -> StoreError {
    let path = path.display();
    let message = format!(
        "the store at {path} is in use by another process, or by another store in this one; \
         close that, or use another directory"
    );
    StoreError::new(StoreErrorKind::InUse, message)
}

fn of_io(role: Role, path: &Path, error: &io::Error) -> StoreError {
    let of_contents = matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
            // what the database says of an empty file, and where one is missing among others
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::AlreadyExists
    );
    if of_contents { damaged(role, path, error) } else { io(path, error) }
}

/// Whether the database's version is stated at all, if only one that is unknown here.
fn names_a_version(path: &Path) -> bool {
    let stated = std::fs::read(crate::disk::database(path).join("version"));
    stated.is_ok_and(|bytes| bytes.len() == 4 && bytes.starts_with(b"FJL"))
}

/// A background task of the database failed before and did not tell why.
fn stopped(path: &Path) -> StoreError {
    if !has_room(path) {
        return full(path);
    }
    let message = format!(
        "the store at {} stopped after a failed write; what was acknowledged is kept; \
         look at the disk and open the store again",
        path.display()
    );
    StoreError::new(StoreErrorKind::Other, message)
}

fn full(path: &Path) -> StoreError {
    let message = format!(
        "the disk of the store at {} is full; what was acknowledged is kept; \
         free some space and open the store again",
        path.display()
    );
    StoreError::new(StoreErrorKind::Full, message)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Tries to write as much as the database writes at once.
fn has_room(path: &Path) -> bool {
    let probe = path.join("probe");
    let written = std::fs::write(&probe, vec![1; 64 * 1024]);
    // a probe that stays behind does no harm, and is overwritten by the next one
    drop(std::fs::remove_file(&probe));
    !written.is_err_and(|error| is_full(&error))
}
