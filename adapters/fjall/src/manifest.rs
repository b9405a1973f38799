//! Looks at the database's lists of tables, and at the tables' own lists of parts, before the
//! database does.
//!
//! Both have checksums, of which the database never looks at the one and looks at the other too
//! late: a wrong bit in a count makes it ask for more memory than there is, which no process
//! survives.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// The bytes of the file that names the list in use: its number, its checksum, the checksum's kind.
const CURRENT_BYTES: usize = 25;
/// The trailer of a table: this, a version, the checksum's kind, the checksum of its list of parts,
/// and where that list begins and how long it is.
const TRAILER: &[u8] = b"SFA!";
const TRAILER_BYTES: u64 = 38;
/// The first bytes of a list of parts.
const PARTS: &[u8] = b"TOC!";

/// Looks at the lists of all keyspaces of a database.
///
/// # Errors
/// When a file can't be read; the flaw, where one is damaged.
pub(crate) fn check(db: &Path) -> io::Result<Result<(), String>> {
    let keyspaces = db.join("keyspaces");
    if !keyspaces.try_exists()? {
        return Ok(Ok(()));
    }
    for keyspace in fs::read_dir(keyspaces)? {
        let keyspace = keyspace?.path();
        if !is_sound(&keyspace)? {
            return Ok(Err("a list of its tables is unreadable".into()));
        }
        let tables = keyspace.join("tables");
        if !tables.try_exists()? {
            continue;
        }
        for table in fs::read_dir(tables)? {
            if !has_sound_parts(&table?.path())? {
                return Ok(Err("a table's list of parts is unreadable".into()));
            }
        }
    }
    Ok(Ok(()))
}

/// Returns true if the list in use is as it was written. The database notices a missing one.
fn is_sound(keyspace: &Path) -> io::Result<bool> {
    let Some(current) = read(&keyspace.join("current"))? else { return Ok(true) };
    let Ok(current) = <[u8; CURRENT_BYTES]>::try_from(current) else { return Ok(false) };
    let mut number = [0; 8];
    number.copy_from_slice(&current[..8]);
    let path = keyspace.join(format!("v{}", u64::from_le_bytes(number)));
    let Some(list) = read(&path)? else { return Ok(false) };
    let is_named = current[8..24] == xxh3_128(&list).to_le_bytes() && current[24] == 0;
    // after a failed sync the database writes a list anew under the same number, and may end
    // before it names it: then the list is sound if all that it says is true
    Ok(is_named || current[24] == 0 && has_sound_parts(&path)? && is_true(&list, keyspace)?)
}

/// Returns true if a list names the tables and nothing else that could mislead the database.
fn is_true(list: &[u8], keyspace: &Path) -> io::Result<bool> {
    let Some(sections) = sections(list) else { return Ok(false) };
    let section = |wanted: &[u8]| {
        sections.iter().find(|(name, _)| *name == wanted).map_or(&[][..], |(_, bytes)| *bytes)
    };
    // the stores keep all values in their tables
    let plain = section(b"format_version") == [3]
        && section(b"tree_type") == [0]
        && section(b"level_count") == [7]
        && section(b"filter_hash_type") == [0]
        && section(b"blob_files") == [0; 4]
        && section(b"blob_gc_stats") == [0; 4];
    let Some(levels) = levels_in(section(b"tables")).filter(|_| plain) else { return Ok(false) };
    for (number, checksum) in levels.into_iter().flatten().flatten() {
        let table = read(&keyspace.join("tables").join(number.to_string()))?;
        if table.is_none_or(|bytes| xxh3_128(&bytes) != checksum) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The parts of a list by their names.
fn sections(list: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let end = list.len().checked_sub(TRAILER_BYTES as usize)?;
    let trailer = &list[end..];
    let begins = usize::try_from(u64::from_le_bytes(trailer[22..30].try_into().ok()?)).ok()?;
    let mut rest = list.get(begins..end)?.strip_prefix(PARTS)?;
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut sections = Vec::new();
    for _ in 0..count {
        let from = usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?;
        let len = usize::try_from(u64::from_le_bytes(take(&mut rest)?)).ok()?;
        let name_len = u16::from_le_bytes(take(&mut rest)?);
        let (name, after) = rest.split_at_checked(name_len.into())?;
        rest = after;
        sections.push((name, list.get(from..from.checked_add(len)?)?));
    }
    Some(sections)
}

/// A table's number and checksum.
pub(crate) type Table = (u64, u128);
/// The tables of a keyspace: by level, and in it by run.
pub(crate) type Levels = Vec<Vec<Vec<Table>>>;

fn levels_in(mut section: &[u8]) -> Option<Levels> {
    let rest = &mut section;
    let mut all = Levels::new();
    let [levels] = take(rest)?;
    for _ in 0..levels {
        let mut level = Vec::new();
        let [runs] = take(rest)?;
        for _ in 0..runs {
            let mut run = Vec::new();
            for _ in 0..u32::from_le_bytes(take(rest)?) {
                let number = u64::from_le_bytes(take(rest)?);
                let [kind] = take(rest)?;
                let checksum = u128::from_le_bytes(take(rest)?);
                let offset: [u8; 8] = take(rest)?;
                if kind != 0 || offset != [0; 8] {
                    return None;
                }
                run.push((number, checksum));
            }
            level.push(run);
        }
        all.push(level);
    }
    rest.is_empty().then_some(all)
}

/// The tables of a keyspace by its list in use; `None` where that is damaged.
pub(crate) fn levels(keyspace: &Path) -> io::Result<Option<Levels>> {
    if !is_sound(keyspace)? {
        return Ok(None);
    }
    let Some(current) = read(&keyspace.join("current"))? else { return Ok(None) };
    let Some(number) = current.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Ok(None);
    };
    let list = read(&keyspace.join(format!("v{number}")))?.unwrap_or_default();
    let sections = sections(&list).unwrap_or_default();
    let tables = sections.iter().find(|(name, _)| *name == b"tables");
    Ok(tables.and_then(|(_, bytes)| levels_in(bytes)))
}

/// Makes these the tables of a keyspace that has a list of its own.
pub(crate) fn replace(keyspace: &Path, levels: &Levels) -> io::Result<()> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let current = read(&keyspace.join("current"))?.ok_or_else(broken)?;
    let number = u64::from_le_bytes(*current.first_chunk().ok_or_else(broken)?);
    let list = read(&keyspace.join(format!("v{number}")))?.ok_or_else(broken)?;
    let list = with_tables(&list, levels).ok_or_else(broken)?;
    let number = number + 1;
    fs::write(keyspace.join(format!("v{number}")), &list)?;
    let mut current = number.to_le_bytes().to_vec();
    current.extend(xxh3_128(&list).to_le_bytes());
    current.push(0);
    fs::write(keyspace.join("current"), current)
}

/// A list with other tables.
fn with_tables(list: &[u8], levels: &Levels) -> Option<Vec<u8>> {
    let trailer = &list[list.len().checked_sub(TRAILER_BYTES as usize)?..];
    let tables = encode(levels)?;
    let (mut body, mut parts) = (Vec::new(), PARTS.to_vec());
    let sections = sections(list)?;
    parts.extend(u32::try_from(sections.len()).ok()?.to_le_bytes());
    for (name, bytes) in sections {
        let bytes = if name == b"tables" { &tables } else { bytes };
        parts.extend((body.len() as u64).to_le_bytes());
        parts.extend((bytes.len() as u64).to_le_bytes());
        parts.extend(u16::try_from(name.len()).ok()?.to_le_bytes());
        parts.extend(name);
        body.extend(bytes);
    }
    let begins = body.len() as u64;
    body.extend(&parts);
    body.extend(&trailer[..6]);
    body.extend(xxh3_128(&parts).to_le_bytes());
    body.extend(begins.to_le_bytes());
    body.extend((parts.len() as u64).to_le_bytes());
    Some(body)
}

fn encode(levels: &Levels) -> Option<Vec<u8>> {
    let mut out = vec![u8::try_from(levels.len()).ok()?];
    for level in levels {
        out.push(u8::try_from(level.len()).ok()?);
        for run in level {
            out.extend(u32::try_from(run.len()).ok()?.to_le_bytes());
            for (number, checksum) in run {
                out.extend(number.to_le_bytes());
                out.push(0);
                out.extend(checksum.to_le_bytes());
                out.extend([0; 8]);
            }
        }
    }
    Some(out)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

/// Returns true if a table's list of parts is as it was written, or there is none: a table without
/// one was never finished, or the database notices it.
pub(crate) fn has_sound_parts(table: &Path) -> io::Result<bool> {
    let mut file = File::open(table)?;
    let len = file.metadata()?.len();
    let Some(end) = len.checked_sub(TRAILER_BYTES) else { return Ok(true) };
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut trailer)?;
    let mut begins = [0; 8];
    begins.copy_from_slice(&trailer[22..30]);
    let begins = u64::from_le_bytes(begins);
    if !trailer.starts_with(TRAILER) || begins >= end {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(begins))?;
    let mut parts = Vec::new();
    file.by_ref().take(end - begins).take(PARTS.len() as u64).read_to_end(&mut parts)?;
    if parts != PARTS {
        return Ok(true);
    }
    file.take(end - begins - PARTS.len() as u64).read_to_end(&mut parts)?;
    Ok(trailer[6..22] == xxh3_128(&parts).to_le_bytes())
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
