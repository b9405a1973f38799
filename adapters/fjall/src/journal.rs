//! Looks at the database's journals before the database does.
//!
//! The database takes some of the places that it can't read for the end of a journal, and cuts the
//! file off there, although whole commits may follow; at others it gives up, although nothing
//! follows that was ever acknowledged. So a store looks first: it refuses what is damaged while
//! everything is still there to be saved, and cuts off what a loss of power left of commits that
//! nobody was told of, and of commits that were only handed to the operating system. What it
//! doesn't understand it leaves to the database and to the chain.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::chain;
use crate::watermark::Required;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// The kind of a change that sets a row.
const VALUE: u8 = 0;
/// The bytes from the start of a batch to its first item.
const START_BYTES: usize = 13;
/// The bytes of an item before its key: tag, kind, compression, keyspace, three lengths.
const ITEM_HEAD: usize = 21;
/// The bytes behind a batch's last item.
const END_BYTES: u64 = 13;
/// Bytes searched behind an unreadable place: less than this follows if a crash caused it.
const WINDOW: u64 = 16 << 20;
/// Where a journal ends well, it goes on with zeros, or not at all.
const BLANK: u64 = 64 << 10;
/// The least that a disk writes at once.
const SECTOR: usize = 512;
/// The extension of a journal that was set aside.
const ASIDE: &str = "torn";

/// One change of a row, under its full key; `None` removes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// A visitor of the changes in a batch: kind, key and value.
type Show<'a> = dyn FnMut(u8, &[u8], &[u8]) + 'a;

/// The journals of a database, oldest first, each with its number.
pub(crate) fn list(db: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if let Some(number) = number(&path) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The number of a journal; `None` for a file that isn't one.
fn number(path: &Path) -> Option<u64> {
    path.extension().filter(|extension| *extension == "jnl")?;
    path.file_stem()?.to_str()?.parse().ok()
}

/// Looks at a database's journals, of which some commits are required. `None` where that isn't known.
///
/// A newest journal without a readable commit is set aside, where those required may all lie in
/// tables: see [`settle`].
///
/// # Errors
/// When a journal can't be read; the flaw, where one is damaged.
pub(crate) fn prepare(db: &Path, required: Option<Required>) -> io::Result<Result<(), String>> {
    put_back(db)?;
    let journals = list(db)?;
    let mut last = None;
    for (place, (number, path)) in journals.iter().enumerate() {
        let journal = Readable::of(path)?;
        last = journal.last.or(last);
        if journal.is_all {
            continue;
        }
        let Some(required) = required else {
            if journal.goes_on {
                return Ok(Err(unreadable(*number, journal.end)));
            }
            continue;
        };
        let is_newest = place + 1 == journals.len();
        let needed = if journal.is_torn { required.synced } else { required.handed };
        if is_newest && last.unwrap_or(0) >= needed {
            cut(path, journal.end)?;
        } else if is_newest && last.is_none() && needed == required.synced {
            fs::rename(path, path.with_extension(ASIDE))?;
            File::create(path)?.sync_all()?;
        } else {
            return Ok(Err(unreadable(*number, journal.end)));
        }
    }
    Ok(match last.zip(required) {
        Some((last, required)) if last < required.synced => Err(ends_early(last, required.synced)),
        Some(_) | None => Ok(()),
    })
}

/// Puts a journal in its place again that was set aside.
pub(crate) fn put_back(db: &Path) -> io::Result<()> {
    each_aside(db, &|aside| fs::rename(aside, aside.with_extension("jnl")))
}

/// Removes a journal that was set aside: all commits that are required are elsewhere.
pub(crate) fn settle(db: &Path) -> io::Result<()> {
    each_aside(db, &|aside| fs::remove_file(aside))
}

fn each_aside(db: &Path, act: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(db)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ASIDE) {
            act(&path)?;
            // it must not come back over what will be written
            if cfg!(unix) {
                File::open(db)?.sync_all()?;
            }
        }
    }
    Ok(())
}

/// Describes a store that lacks commits at its end.
pub(crate) fn ends_early(last: u64, required: u64) -> String {
    format!("it ends with commit {last}, and commit {required} was acknowledged")
}

fn unreadable(number: u64, at: u64) -> String {
    format!("its journal {number} is unreadable at byte {at}")
}

fn cut(path: &Path, len: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

/// The readable part of a journal, from its start.
struct Readable {
    /// The last commit.
    last: Option<u64>,
    /// Where it ends.
    end: u64,
    /// True if nothing is behind that.
    is_all: bool,
    /// True if a whole batch is behind that.
    goes_on: bool,
    /// True if what is behind that lacks bytes that were never written.
    is_torn: bool,
}

impl Readable {
    fn of(path: &Path) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BLANK as usize, File::open(path)?);
        let (mut end, mut last) = (0, None);
        loop {
            let mut number = None;
            let mut change = |_, key: &[u8], _: &[u8]| number = chain::number(key).or(number);
            match read_batch(&mut reader, &mut change) {
                Ok(bytes) => end += bytes,
                Err(error) if is_content(&error) => break,
                Err(error) => return Err(error),
            }
            last = number.or(last);
        }
        let mut file = reader.into_inner();
        file.seek(SeekFrom::Start(end))?;
        let mut rest = Vec::new();
        file.by_ref().take(BLANK).read_to_end(&mut rest)?;
        let is_all = rest.iter().all(|byte| *byte == 0);
        let (mut goes_on, mut is_torn) = (false, false);
        if !is_all {
            file.take(WINDOW).read_to_end(&mut rest)?;
            let next = next_batch(&rest, 0).map(|(begins, ..)| begins);
            goes_on = next.is_some();
            is_torn = lacks_bytes(&rest[..next.unwrap_or(rest.len())], end, goes_on);
        }
        Ok(Self { last, end, is_all, goes_on, is_torn })
    }
}

/// Returns true if the bytes from a place in a journal, up to the next whole batch if it goes on, are
/// what is left when not all that was written reached the disk: its first bytes or a sector are
/// blank, or it breaks off. A wrong bit does neither.
fn lacks_bytes(bytes: &[u8], from: u64, goes_on: bool) -> bool {
    let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return true };
    let written = &bytes[..=last];
    let to_sector = (SECTOR - from as usize % SECTOR) % SECTOR;
    let mut sectors = written.get(to_sector..).unwrap_or_default().chunks_exact(SECTOR);
    let starts_blank = written.first_chunk::<START_BYTES>().is_some_and(|start| is_blank(start));
    if starts_blank || sectors.any(is_blank) {
        return true;
    }
    let trailer = written.last_chunk().copied().unwrap_or_default();
    let differing = u32::from_le_bytes(trailer) ^ u32::from_le_bytes(TRAILER);
    !goes_on && differing.count_ones() > 1
}

/// Shows all changes of a journal that can be read, in their order.
pub(crate) fn changes(path: &Path, change: &mut dyn FnMut(Change)) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let mut at = 0;
    while let Some((_, changes, end)) = next_batch(&bytes, at) {
        changes.into_iter().for_each(&mut *change);
        at = end;
    }
    Ok(())
}

/// The next whole batch at or behind a place: where it begins, its changes, and where it ends.
fn next_batch(bytes: &[u8], from: usize) -> Option<(usize, Vec<Change>, usize)> {
    let ends = bytes.len().saturating_sub(START_BYTES);
    let may_start = |at: &usize| bytes[*at] == START && bytes[*at + START_BYTES] == ITEM;
    (from..ends).filter(may_start).find_map(|at| {
        let mut changes = Vec::new();
        let change = &mut |kind, key: &[u8], value: &[u8]| {
            changes.push((key.to_vec(), (kind == VALUE).then(|| value.to_vec())));
        };
        let len = read_batch(&mut &bytes[at..], change).ok()?;
        Some((at, changes, at + len as usize))
    })
}

/// Shows each change of a batch as its kind, key and value, and says how many bytes the batch took.
/// Only at its end is it known whether the batch is whole.
fn read_batch(input: &mut impl Read, change: &mut Show<'_>) -> io::Result<u64> {
    expect(u8::from_le_bytes(read(input)?) == START)?;
    let count = u32::from_le_bytes(read(input)?);
    let _sequence: [u8; 8] = read(input)?;
    let mut item = Vec::new();
    let mut hash = Xxh3::new();
    let mut bytes = START_BYTES as u64;
    for _ in 0..count {
        let (kind, key) = read_item(input, &mut item)?;
        let (key, value) = item[ITEM_HEAD..].split_at(key);
        change(kind, key, value);
        hash.update(&item);
        bytes += item.len() as u64;
    }
    expect(u8::from_le_bytes(read(input)?) == END)?;
    expect(u64::from_le_bytes(read(input)?) == hash.digest())?;
    expect(read(input)? == TRAILER)?;
    Ok(bytes + END_BYTES)
}

/// Reads all bytes of a change, and says its kind and the length of its key.
fn read_item(input: &mut impl Read, item: &mut Vec<u8>) -> io::Result<(u8, usize)> {
    let head: [u8; ITEM_HEAD] = read(input)?;
    let [tag, kind, compression, ..] = head;
    // the stores switch compression off in journals
    expect(tag == ITEM && kind <= 2 && compression == 0)?;
    let len = |at: usize, bytes: usize| {
        head[at..at + bytes].iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte))
    };
    let (key, value) = (len(11, 2), len(13, 4));
    expect(len(17, 4) == value)?;
    item.clear();
    item.extend_from_slice(&head);
    // bounded by what is there, not by what the length says
    let read = input.take((key + value) as u64).read_to_end(item)?;
    if read == key + value { Ok((kind, key)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn expect(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn is_content(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
