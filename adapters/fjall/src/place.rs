//! The directories of a store, and of those beside it.

use std::fs::{self, DirBuilder, File};
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

/// Makes a store's directory, for its owner alone, where there is none.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Something in a store's directory by which others could lead what is written there elsewhere, or
/// change it.
pub(crate) enum Weakness {
    /// A symbolic link. The directory itself may be one.
    Link(PathBuf),
    /// A directory or a file that others than its owner may write to.
    Writable(PathBuf),
}

/// Looks at a store's directory and at all that is in it.
pub(crate) fn weakness(path: &Path) -> io::Result<Option<Weakness>> {
    let mode = mode(&fs::metadata(path)?);
    if mode & OTHERS_WRITE != 0 {
        return Ok(Some(Weakness::Writable(path.to_owned())));
    }
    weakness_below(path, mode & OTHERS_ENTER != 0)
}

/// Looks at modes as long as others can get there.
fn weakness_below(path: &Path, is_reachable: bool) -> io::Result<Option<Weakness>> {
    // another process that has the store open may remove files meanwhile
    let Some(entries) = present(fs::read_dir(path))? else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        // it does not follow links
        let Some(metadata) = present(entry.metadata())? else { continue };
        let path = entry.path();
        if metadata.is_symlink() {
            return Ok(Some(Weakness::Link(path)));
        }
        if is_reachable && mode(&metadata) & OTHERS_WRITE != 0 {
            return Ok(Some(Weakness::Writable(path)));
        }
        // the root of a volume has one that is nobody's
        if metadata.is_dir() && entry.file_name() != "lost+found" {
            let is_reachable = is_reachable && mode(&metadata) & OTHERS_ENTER != 0;
            if let Some(weakness) = weakness_below(&path, is_reachable)? {
                return Ok(Some(weakness));
            }
        }
    }
    Ok(None)
}

fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// The bits of the group's and everybody's permission to write, and to enter a directory.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS_ENTER: u32 = 0o011;

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::mode(metadata)
}

#[cfg(not(unix))]
fn mode(_: &fs::Metadata) -> u32 {
    0
}

/// Says which user may not use what, of all that a store's directory needs, and whose that is.
#[cfg(unix)]
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    let closed = closed_above(path).or_else(|| closed_below(path))?;
    let metadata = fs::metadata(&closed).ok()?;
    let (user, owner, mode) =
        (rustix::process::geteuid(), metadata.uid(), metadata.mode() & 0o7777);
    let closed = closed.display();
    Some(format!(
        "user {user} may not use {closed}, which is user {owner}'s and has the mode {mode:03o}"
    ))
}

#[cfg(not(unix))]
pub(crate) fn obstacle(_: &Path) -> Option<String> {
    None
}

/// The directory above a path that can't be entered, or in which nothing can be made.
#[cfg(unix)]
fn closed_above(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<_> = path.ancestors().filter(|it| !it.as_os_str().is_empty()).collect();
    above.reverse();
    let mut last = Path::new(".");
    for dir in above {
        if fs::metadata(dir).is_err() {
            return Some(last.to_owned());
        }
        last = dir;
    }
    None
}

/// The first of a directory, and of all that is in it, that can't be read and written.
#[cfg(unix)]
fn closed_below(path: &Path) -> Option<PathBuf> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};

    let is_dir = path.is_dir();
    let needed = Access::READ_OK | Access::WRITE_OK;
    let needed = if is_dir { needed | Access::EXEC_OK } else { needed };
    if accessat(CWD, path, needed, AtFlags::EACCESS).is_err() {
        return Some(path.to_owned());
    }
    let mut entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.find_map(|entry| closed_below(&entry.path()))
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
