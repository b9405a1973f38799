//! Packs a directory into one file without its zeros: a journal is 64 MiB long and mostly empty.
//!
//! A pack is a line that names the format, and then for each file and directory: the length of its
//! path as `u16` and the path below the directory, with `/` at the end of a directory's; for a file
//! its length as `u64`, the number of its pieces as `u32`, and for each piece its offset as `u64`,
//! its length as `u32` and its bytes. All numbers are little endian.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: &[u8] = b"synclayer packed directory 1\n";
/// So many zeros end a piece.
const GAP: usize = 64;

/// Packs a directory.
pub fn pack(dir: &Path) -> io::Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    pack_entries(dir, "", &mut out)?;
    Ok(out)
}

fn pack_entries(dir: &Path, prefix: &str, out: &mut Vec<u8>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            let name = format!("{name}/");
            put_path(out, &name);
            pack_entries(&entry.path(), &name, out)?;
        } else {
            put_path(out, &name);
            let bytes = fs::read(entry.path())?;
            out.extend((bytes.len() as u64).to_le_bytes());
            let pieces = pieces(&bytes);
            out.extend((pieces.len() as u32).to_le_bytes());
            for (from, to) in pieces {
                out.extend((from as u64).to_le_bytes());
                out.extend(((to - from) as u32).to_le_bytes());
                out.extend(&bytes[from..to]);
            }
        }
    }
    Ok(())
}

fn put_path(out: &mut Vec<u8>, path: &str) {
    out.extend((path.len() as u16).to_le_bytes());
    out.extend(path.as_bytes());
}

/// Where the parts of a file begin and end that lie between long runs of zeros.
fn pieces(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        match pieces.last_mut() {
            Some((_, end)) if at < *end + GAP => *end = at + 1,
            Some(_) | None => pieces.push((at, at + 1)),
        }
    }
    pieces
}

/// Makes the directory anew from its pack.
pub fn unpack(mut pack: &[u8], dir: &Path) -> io::Result<()> {
    let input = &mut pack;
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    fs::create_dir_all(dir)?;
    while !input.is_empty() {
        let mut path = vec![0; u16::from_le_bytes(take(input)?).into()];
        input.read_exact(&mut path)?;
        let path = String::from_utf8(path).map_err(|_| io::ErrorKind::InvalidData)?;
        if path.ends_with('/') {
            fs::create_dir_all(dir.join(path))?;
            continue;
        }
        let mut file = File::create(dir.join(path))?;
        file.set_len(u64::from_le_bytes(take(input)?))?;
        for _ in 0..u32::from_le_bytes(take(input)?) {
            file.seek(SeekFrom::Start(u64::from_le_bytes(take(input)?)))?;
            let mut piece = vec![0; u32::from_le_bytes(take(input)?) as usize];
            input.read_exact(&mut piece)?;
            file.write_all(&piece)?;
        }
    }
    Ok(())
}

fn take<const N: usize>(input: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}
