//! The file `store`, which says what a store's directory holds, and the look at a directory before
//! anything is made in it.
//!
//! The file is text, for people too: whose store it is, the format of what lies beside it, and for
//! a server the identity of its database, which so survives the damage of the database itself.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use synclayer_core::rules::{Owner, owner};
use synclayer_core::{DatabaseId, Rows, Scan, StoreError};
use xxhash_rust::xxh3::xxh3_64;

use crate::failure;
use crate::kinds::StoreKind;
use crate::place::database;

const FILE: &str = "store";
const TITLE: &str = "SyncLayer store\n";
/// The format that this version writes. It rises when an earlier version could no longer read what
/// is written, and not with every new row.
const FORMAT: u32 = 1;
/// Files that belong to no store: those of a volume, and those left by an opening that was refused
/// or killed.
const NOBODYS: [&str; 3] = ["lock", "lost+found", "store.new"];
/// Names of other files that are shown.
const SHOWN: usize = 3;

/// The facts about a store that are known before its database is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) kind: StoreKind,
    /// The identity of a server's database, once it has one.
    pub(crate) database: Option<DatabaseId>,
}

/// The contents of the file.
enum Said {
    Mark(Mark),
    /// It is of a format that only later versions know.
    Newer(u32),
    Nonsense,
}

/// Refuses a path at which there is something, but no store.
pub(crate) fn check_place(path: &Path) -> Result<(), StoreError> {
    let io = |error| failure::io(path, &error);
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(failure::no_directory(path)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(failure::no_directory(path));
        }
        Err(error) => return Err(io(error)),
    }
    if holds_store(path).map_err(io)? {
        return Ok(());
    }
    let mut others = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if !NOBODYS.contains(&&*name) {
            others.push(name);
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    others.sort();
    let more = others.len() > SHOWN;
    others.truncate(SHOWN);
    let others = others.join(", ") + if more { ", …" } else { "" };
    Err(failure::foreign(path, &others))
}

/// Refuses a path at which there is no store of this kind. One that doesn't say whose it is passes.
pub(crate) fn check_store(path: &Path, kind: StoreKind) -> Result<Option<Mark>, StoreError> {
    match look(path)? {
        Some(mark) if mark.kind != kind => Err(failure::wrong_kind(kind, path)),
        mark => Ok(mark),
    }
}

/// Reads a store's mark; `None` if there is none.
pub(crate) fn look(path: &Path) -> Result<Option<Mark>, StoreError> {
    check_place(path)?;
    if !holds_store(path).map_err(|error| failure::io(path, &error))? {
        return Err(failure::no_store(path));
    }
    // a mark that makes no sense is part of the damage
    match read(path).map_err(|error| failure::io(path, &error))? {
        Some(Said::Mark(mark)) => Ok(Some(mark)),
        Some(Said::Newer(format)) => Err(failure::newer(path, format, FORMAT)),
        Some(Said::Nonsense) | None => Ok(None),
    }
}

/// Guesses the owner of a store from a damaged mark.
pub(crate) fn guess(path: &Path) -> Option<StoreKind> {
    let bytes = fs::read(path.join(FILE)).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    match (text.contains("kind client\n"), text.contains("kind server\n")) {
        (true, false) => Some(StoreKind::Client),
        (false, true) => Some(StoreKind::Server),
        (true, true) | (false, false) => None,
    }
}

/// Returns true if a directory holds a store, even a damaged one.
fn holds_store(path: &Path) -> io::Result<bool> {
    for file in [FILE, "watermark"] {
        if path.join(file).is_file() {
            return Ok(true);
        }
    }
    let entries = match fs::read_dir(database(path)) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_journal = Path::new(&name).extension().is_some_and(|of| of == "jnl");
        if is_journal || ["version", "keyspaces"].iter().any(|own| name == *own) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Mark {
    /// Reads the mark of a store that is about to be opened, and makes it for a new one. `None` for
    /// a store of before there were marks.
    pub(crate) fn open(path: &Path, kind: StoreKind) -> Result<Option<Self>, StoreError> {
        let io = |error| failure::io(path, &error);
        match read(path).map_err(io)? {
            Some(Said::Mark(mark)) if mark.kind == kind => Ok(Some(mark)),
            Some(Said::Mark(_)) => Err(failure::wrong_kind(kind, path)),
            Some(Said::Newer(format)) => Err(failure::newer(path, format, FORMAT)),
            Some(Said::Nonsense) => {
                Err(failure::damaged(kind, path, "its file \"store\" is unreadable"))
            }
            None if holds_store(path).map_err(io)? => Ok(None),
            None => {
                let mark = Self { kind, database: None };
                mark.write(path).map_err(io)?;
                Ok(Some(mark))
            }
        }
    }

    /// Marks a store of before there were marks by what it holds. `None` for one in which both a
    /// client and a server have written, which earlier versions let happen: it opens for both, as
    /// it always did, since to refuse one of them would take its records away.
    pub(crate) fn of_rows(
        path: &Path,
        kind: StoreKind,
        rows: &dyn Rows,
    ) -> Result<Option<Self>, StoreError> {
        let with = |prefix: &[u8]| {
            let mut found = Vec::new();
            let mut end = prefix.to_vec();
            end.last_mut().into_iter().for_each(|last| *last += 1);
            rows.scan(prefix, &end, &mut |key, row| {
                found.push((Bytes::copy_from_slice(key), row));
                Ok(Scan::Next)
            })?;
            Ok::<_, StoreError>(found)
        };
        let owner = owner(with)?;
        match (owner, kind) {
            (Owner::Both, _) => return Ok(None),
            (Owner::Client, StoreKind::Server) | (Owner::Server, StoreKind::Client) => {
                return Err(failure::wrong_kind(kind, path));
            }
            (
                Owner::Nobody | Owner::Client | Owner::Server,
                StoreKind::Client | StoreKind::Server,
            ) => {}
        }
        let mark = Self { kind, database: None };
        mark.write(path).map_err(|error| failure::io(path, &error))?;
        Ok(Some(mark))
    }

    /// Puts the file in the place of an earlier one, so that one of the two is whole at any time.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.join("store.new");
        let mut file = File::create(&fresh)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, path.join(FILE))?;
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }

    fn text(&self) -> String {
        let kind = match self.kind {
            StoreKind::Client => "client",
            StoreKind::Server => "server",
        };
        let mut text = format!("{TITLE}kind {kind}\nformat {FORMAT}\n");
        if let Some(database) = &self.database {
            text += &format!("database {database}\n");
        }
        let check = xxh3_64(text.as_bytes());
        text + &format!("check {check:016x}\n")
    }
}

fn read(path: &Path) -> io::Result<Option<Said>> {
    match fs::read(path.join(FILE)) {
        Ok(bytes) => Ok(Some(std::str::from_utf8(&bytes).map_or(Said::Nonsense, parse))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Said {
    parse_lines(text).unwrap_or(Said::Nonsense)
}

fn parse_lines(text: &str) -> Option<Said> {
    let body = text.get(..text.rfind("check ")?)?;
    if text != format!("{body}check {:016x}\n", xxh3_64(body.as_bytes())) {
        return None;
    }
    let lines: Vec<_> = body.strip_prefix(TITLE)?.lines().collect();
    let field =
        |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    // what later formats add is not looked at
    let format: u32 = field("format")?.parse().ok()?;
    if format > FORMAT {
        return Some(Said::Newer(format));
    }
    let kind = match field("kind")? {
        "client" => StoreKind::Client,
        "server" => StoreKind::Server,
        _ => return None,
    };
    let database = match field("database") {
        Some(name) => Some(DatabaseId::new(name).ok()?),
        None => None,
    };
    Some(Said::Mark(Mark { kind, database }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        let database = DatabaseId::new("check this").unwrap();
        Mark { kind: StoreKind::Server, database: Some(database) }
    }

    #[test]
    fn a_mark_comes_back_and_a_wrong_bit_in_it_is_noticed() {
        let bare = Mark { kind: StoreKind::Client, database: None };
        for mark in [mark(), bare] {
            let text = mark.text();
            let Said::Mark(found) = parse(&text) else { panic!("{text}") };
            assert_eq!(found, mark);
            for bit in 0..text.len() * 8 {
                let mut bytes = text.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let said = std::str::from_utf8(&bytes).map_or(Said::Nonsense, parse);
                assert!(matches!(said, Said::Nonsense), "bit {bit} of {text}");
            }
        }
    }

    #[test]
    fn a_later_format_is_told_from_nonsense() {
        let body = format!("{TITLE}kind cluster\nformat {}\nshards 3\n", FORMAT + 1);
        let text = format!("{body}check {:016x}\n", xxh3_64(body.as_bytes()));
        assert!(matches!(parse(&text), Said::Newer(format) if format == FORMAT + 1));
    }
}
