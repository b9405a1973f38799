//! The database's errors, as texts for those who run a store.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use synclayer_core::{StoreError, StoreErrorKind};

use crate::kinds::StoreKind;
use crate::place::{database, obstacle};

impl StoreKind {
    /// The remedy for damage, with which the error texts end. A program that has another remedy
    /// can replace it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Client => {
                "save the unsent writes (FjallClientStore::salvage), move the directory aside \
                 (FjallClientStore::move_aside) and sync again"
            }
            Self::Server => {
                "save what can be read (FjallServerStore::repair), or move the directory aside and \
                 restore a backup"
            }
        }
    }
}

/// The error for a store whose contents differ from what was written.
pub(crate) fn damaged(kind: StoreKind, path: &Path, what: impl std::fmt::Display) -> StoreError {
    let path = path.display();
    StoreError::new(
        StoreErrorKind::Damaged,
        format!("the store at {path} is damaged: {what}; {}", kind.remedy()),
    )
}

/// An error of the file system.
pub(crate) fn io(path: &Path, error: &io::Error) -> StoreError {
    if is_full(error) {
        return full(path);
    }
    if has_no_descriptor(error) {
        return no_descriptor(path);
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return denied(path);
    }
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return read_only(path);
    }
    let message = format!("the store at {} can't be read or written: {error}", path.display());
    StoreError::new(StoreErrorKind::Other, message)
}

/// An error of the database.
// the database's errors may grow in number; all that aren't named are about what it has read
#[allow(clippy::wildcard_enum_match_arm)]
pub(crate) fn fjall(kind: StoreKind, path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            of_io(kind, path, &error)
        }
        fjall::Error::Locked => in_use(path, None),
        fjall::Error::Poisoned => stopped(path),
        fjall::Error::InvalidVersion(None) if !names_a_version(path) => {
            damaged(kind, path, "the file that names its version is unreadable")
        }
        fjall::Error::InvalidVersion(_) => {
            let path = path.display();
            foreign_error(format!(
                "the store at {path} was written with another version of its database, fjall; \
                 nothing was changed: use the version of the program that wrote it"
            ))
        }
        error => damaged(kind, path, error),
    }
}

/// There is a file where the store's directory should be.
pub(crate) fn no_directory(path: &Path) -> StoreError {
    let path = path.display();
    foreign_error(format!(
        "{path} is a file, or lies below one, and a store is a directory; nothing was changed: \
         give a directory that is empty or not there yet"
    ))
}

/// There is a directory of somebody else's.
pub(crate) fn foreign(path: &Path, others: &str) -> StoreError {
    let path = path.display();
    foreign_error(format!(
        "{path} holds other files ({others}) and no store; nothing was changed: give a directory \
         that is empty or not there yet"
    ))
}

/// There is a link among the files of a store.
pub(crate) fn link(entry: &Path) -> StoreError {
    let entry = entry.display();
    foreign_error(format!(
        "{entry} is a symbolic link, and what is written to it could land anywhere; nothing was \
         changed: put in its place what it leads to, or remove it (the store's directory itself \
         may be a link)"
    ))
}

/// There is a directory or a file of a store that others could change.
pub(crate) fn writable(path: &Path, entry: &Path) -> StoreError {
    let (path, entry) = (path.display(), entry.display());
    let message = format!(
        "others than its owner may write to {entry}, so what is stored there could be changed by \
         them; nothing was changed: take that away with `chmod -R go-w {path}`"
    );
    StoreError::new(StoreErrorKind::Other, message)
}

/// There is something that the user may not use: a store's directory, or what is above or in it.
fn denied(path: &Path) -> StoreError {
    let who = obstacle(path).unwrap_or_else(|| "whoever runs this may not use it".to_owned());
    let path = path.display();
    let message = format!(
        "the store at {path} can't be read or written: {who}; run the program as the owner, give the \
         directory away (chown -R), or use another one"
    );
    StoreError::new(StoreErrorKind::Other, message)
}

fn read_only(path: &Path) -> StoreError {
    let path = path.display();
    let message = format!(
        "the store at {path} lies on a file system that is mounted read-only, so nothing can be stored \
         there: mount it for writing, or use another directory"
    );
    StoreError::new(StoreErrorKind::Other, message)
}

/// There is no store where one is to be repaired.
pub(crate) fn no_store(path: &Path) -> StoreError {
    let path = path.display();
    foreign_error(format!("there is no store at {path}: give the directory of one"))
}

/// There is a store that can't be renamed.
pub(crate) fn mount_point(path: &Path) -> StoreError {
    let path = path.display();
    let message = format!(
        "{path} is the root of a file system, which can't be renamed; nothing was changed: move \
         what is in it into a directory below it, and repair that"
    );
    StoreError::new(StoreErrorKind::Other, message)
}

/// There is a store of the other kind.
pub(crate) fn wrong_kind(wanted: StoreKind, path: &Path) -> StoreError {
    let path = path.display();
    foreign_error(match wanted {
        StoreKind::Client => format!(
            "{path} is the store of a server, not of a client; nothing was changed: give the \
             client a directory of its own"
        ),
        StoreKind::Server => format!(
            "{path} is the store of a client, with records and perhaps unsent writes in it, not \
             of a server; nothing was changed: give the server a directory of its own"
        ),
    })
}

/// There is a store that only later versions can read.
pub(crate) fn newer(path: &Path, format: u32, known: u32) -> StoreError {
    let path = path.display();
    foreign_error(format!(
        "the store at {path} was written by a later version of SyncLayer, in format {format}, and \
         this version knows formats up to {known}; nothing was changed: use the later version, or \
         another directory"
    ))
}

fn foreign_error(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Foreign, message)
}

/// Another store has this path open, in a process that may be known.
pub(crate) fn in_use(path: &Path, process: Option<u32>) -> StoreError {
    let path = path.display();
    let who = match process {
        Some(process) if process == std::process::id() => "another part of this program".to_owned(),
        Some(process) => format!("process {process}"),
        None => "another process, or another part of this program".to_owned(),
    };
    let message =
        format!("the store at {path} is in use by {who}; close that, or use another directory");
    StoreError::new(StoreErrorKind::InUse, message)
}

fn of_io(kind: StoreKind, path: &Path, error: &io::Error) -> StoreError {
    let of_contents = matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotFound
            // what the database says of an empty file, and where one is missing among others
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::AlreadyExists
    );
    if of_contents { damaged(kind, path, error) } else { io(path, error) }
}

/// Returns true if the database states a version, even one that is unknown here.
fn names_a_version(path: &Path) -> bool {
    let stated = std::fs::read(database(path).join("version"));
    stated.is_ok_and(|bytes| bytes.len() == 4 && bytes.starts_with(b"FJL"))
}

/// A background task of the database failed before and did not tell why.
pub(crate) fn stopped(path: &Path) -> StoreError {
    if let Err(error) = probe(path, PROBE_BYTES) {
        return error;
    }
    let message = format!("the store at {} {STOPPED}", path.display());
    StoreError::new(StoreErrorKind::Other, message)
}

/// Tells if the cause of a failure may pass by itself, and took nothing along that the operating
/// system was handed: a full disk, no descriptor, or a background task that met one of them.
pub(crate) fn passes(error: &StoreError) -> bool {
    let is_one_of_ours = |text| error.message.ends_with(text);
    error.kind == StoreErrorKind::Full || [STOPPED, NO_DESCRIPTOR].into_iter().any(is_one_of_ours)
}

const STOPPED: &str = "stopped after a failed write; what was acknowledged is kept; look at the disk \
                       (a server or a client then opens it again by itself)";

const NO_DESCRIPTOR: &str = "can't open a file: the process has as many open as it may have; what was \
                             acknowledged is kept; raise the limit (ulimit -n), or let it close some \
                             (a server or a client then opens it again by itself)";

fn no_descriptor(path: &Path) -> StoreError {
    let message = format!("the store at {} {NO_DESCRIPTOR}", path.display());
    StoreError::new(StoreErrorKind::Other, message)
}

fn full(path: &Path) -> StoreError {
    let message = format!(
        "the disk of the store at {} is full; what was acknowledged is kept; free some space (a \
         server or a client then opens it again by itself)",
        path.display()
    );
    StoreError::new(StoreErrorKind::Full, message)
}

/// The process or the system has as many open files as it may have.
fn has_no_descriptor(error: &io::Error) -> bool {
    // EMFILE and ENFILE, for which the standard library has no name
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The number of bytes that the database writes at once.
const PROBE_BYTES: u64 = 64 << 10;

/// The number of files that the database opens at once.
const PROBE_FILES: usize = 16;

/// Looks if there is room for this many bytes, and for a few descriptors.
pub(crate) fn probe(path: &Path, bytes: u64) -> Result<(), StoreError> {
    let file = path.join("probe");
    let probed = (|| {
        let mut files = Vec::with_capacity(PROBE_FILES);
        for _ in 0..PROBE_FILES {
            files.push(File::create(&file)?);
        }
        let chunk = vec![1; 64 << 10];
        for _ in 0..bytes.div_ceil(chunk.len() as u64) {
            files[0].write_all(&chunk)?;
        }
        Ok(())
    })();
    // a probe that stays behind does no harm, and is overwritten by the next one
    drop(std::fs::remove_file(&file));
    match probed {
        Err(error) if is_full(&error) => Err(full(path)),
        Err(error) if has_no_descriptor(&error) => Err(no_descriptor(path)),
        Ok(()) | Err(_) => Ok(()),
    }
}
