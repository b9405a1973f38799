//! Reads the database's journals without changing them.
//!
//! The database takes a place that it can't read for the end of a journal, and cuts the file off
//! there, although whole commits may follow. So a store looks first, while everything is still
//! there to be saved. What it doesn't understand it leaves to the database and to the chain.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// The bytes from the start of a batch to its first item.
const START_BYTES: usize = 13;
/// How much behind an unreadable place is looked at: less than this follows if a crash caused it.
const WINDOW: u64 = 16 << 20;
/// Where a journal ends well, it goes on with zeros, or not at all.
const BLANK: u64 = 64 << 10;

/// One change of a row, under its full key; `None` removes it.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

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

/// Finds an unreadable place that is followed by whole batches, which no crash leaves.
pub(crate) fn flaw(path: &Path) -> io::Result<Option<String>> {
    let mut reader = BufReader::with_capacity(BLANK as usize, File::open(path)?);
    let mut good = 0;
    loop {
        match read_batch(&mut reader) {
            Ok((_, bytes)) => good += bytes,
            Err(error) if is_content(&error) => break,
            Err(error) => return Err(error),
        }
    }
    let mut file = reader.into_inner();
    file.seek(SeekFrom::Start(good))?;
    let mut rest = Vec::new();
    file.by_ref().take(BLANK).read_to_end(&mut rest)?;
    if rest.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    file.take(WINDOW).read_to_end(&mut rest)?;
    let follows = next_batch(&rest, 0).is_some();
    let name = path.file_name().unwrap_or_default().display();
    Ok(follows.then(|| format!("its journal {name} is unreadable at byte {good}")))
}

/// All changes of a journal that can be read, in their order.
pub(crate) fn changes(path: &Path) -> io::Result<Vec<Change>> {
    let bytes = fs::read(path)?;
    let mut at = 0;
    let mut all = Vec::new();
    while let Some((changes, end)) = next_batch(&bytes, at) {
        all.extend(changes);
        at = end;
    }
    Ok(all)
}

/// The next whole batch at or behind a place, and where it ends.
fn next_batch(bytes: &[u8], from: usize) -> Option<(Vec<Change>, usize)> {
    let ends = bytes.len().saturating_sub(START_BYTES);
    let may_start = |at: &usize| bytes[*at] == START && bytes[*at + START_BYTES] == ITEM;
    (from..ends).filter(may_start).find_map(|at| {
        let (changes, len) = read_batch(&mut &bytes[at..]).ok()?;
        Some((changes, at + len as usize))
    })
}

/// Reads a batch, and says how many bytes it took.
fn read_batch(input: &mut impl Read) -> io::Result<(Vec<Change>, u64)> {
    expect(u8::from_le_bytes(read(input)?) == START)?;
    let count = u32::from_le_bytes(read(input)?);
    let _sequence: [u8; 8] = read(input)?;
    let mut changes = Vec::new();
    let mut hash = Xxh3::new();
    let mut bytes = START_BYTES as u64;
    for _ in 0..count {
        let (change, item) = read_item(input)?;
        hash.update(&item);
        bytes += item.len() as u64;
        changes.push(change);
    }
    expect(u8::from_le_bytes(read(input)?) == END)?;
    expect(u64::from_le_bytes(read(input)?) == hash.digest())?;
    expect(read(input)? == TRAILER)?;
    Ok((changes, bytes + 13))
}

/// Reads a change, and gives the bytes that it took as well.
fn read_item(input: &mut impl Read) -> io::Result<(Change, Vec<u8>)> {
    let head: [u8; 21] = read(input)?;
    let [tag, kind, compression, rest @ ..] = head;
    // the stores switch compression off in journals
    expect(tag == ITEM && kind <= 2 && compression == 0)?;
    let len = |at: usize, bytes: usize| {
        rest[at..at + bytes].iter().rev().fold(0, |len, byte| len << 8 | usize::from(*byte))
    };
    let (key, value) = (len(8, 2), len(14, 4));
    expect(len(10, 4) == value)?;
    let mut item = head.to_vec();
    // bounded by what is there, not by what the length says
    input.take((key + value) as u64).read_to_end(&mut item)?;
    let Some((key, value)) = item[head.len()..].split_at_checked(key) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let value = (kind == 0).then(|| value.to_vec());
    Ok(((key.to_vec(), value), item))
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
