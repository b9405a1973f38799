//! The file that says up to where the commits of a store must be there.
//!
//! A journal that ends early looks the same whether a crash cut it or damage did; this small file
//! beside it tells the two apart. It is written after the commits that it names, and never synced
//! by itself, so it costs a system call per commit or sync and may lag behind, which is harmless.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::chain::ChainLink;

/// Two slots are written in turn, so that one is whole whatever happens to the other.
const SLOTS: [u64; 2] = [0, 512];
const FIELDS: usize = 5;
const SLOT_BYTES: usize = (FIELDS + 1) * 8;

/// The commits that must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Promise {
    /// The last commit that was handed to the operating system and acknowledged.
    pub(crate) handed: ChainLink,
    /// The last commit that the disk has.
    pub(crate) synced: u64,
    /// The running system that `handed` was promised under: with its end only `synced` counts.
    pub(crate) boot: u64,
}

/// The numbers of the commits that must be there when a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Required {
    /// The last one that must be there whatever happened.
    pub(crate) synced: u64,
    /// The last one that must be there unless the files show that the operating system lost what it
    /// was handed: it may have been another one, or a copy of a file system in use.
    pub(crate) handed: u64,
}

impl Promise {
    /// The commits that must be there under this boot.
    pub(crate) fn required(&self, boot: u64) -> Required {
        let survived = boot != UNKNOWN_BOOT && boot == self.boot;
        let handed = if survived { self.handed.number } else { 0 };
        Required { synced: self.synced, handed: handed.max(self.synced) }
    }

    fn encode(&self, serial: u64) -> [u8; SLOT_BYTES] {
        let fields = [serial, self.handed.number, self.handed.hash, self.synced, self.boot];
        let mut slot = [0; SLOT_BYTES];
        for (bytes, field) in slot.chunks_exact_mut(8).zip(fields) {
            bytes.copy_from_slice(&field.to_le_bytes());
        }
        let sum = xxh3_64(&slot[..FIELDS * 8]);
        slot[FIELDS * 8..].copy_from_slice(&sum.to_le_bytes());
        slot
    }

    /// Which write of the file it was, and what it promised.
    fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let mut fields = [0; FIELDS + 1];
        for (field, bytes) in fields.iter_mut().zip(slot.chunks_exact(8)) {
            *field = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [serial, number, hash, synced, boot, sum] = fields;
        let whole = slot.len() == SLOT_BYTES && sum == xxh3_64(&slot[..FIELDS * 8]);
        whole.then_some((serial, Self { handed: ChainLink { number, hash }, synced, boot }))
    }
}

/// The last commit that must be there in a damaged store; `None` where that can't be read.
pub(crate) fn required(store: &Path) -> Option<u64> {
    let bytes = std::fs::read(store.join("watermark")).ok()?;
    Some(newest(&bytes)?.1.required(boot()).handed)
}

fn newest(bytes: &[u8]) -> Option<(u64, Promise)> {
    let slot = |at: u64| Promise::decode(bytes.get(at as usize..at as usize + SLOT_BYTES)?);
    SLOTS.into_iter().filter_map(slot).max_by_key(|(serial, _)| *serial)
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: File,
    serial: u64,
}

impl Watermark {
    /// Opens the file, or makes one, and reads its promise: `None` where neither slot is whole.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Promise>)> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let newest = newest(&bytes);
        let serial = newest.map_or(0, |(serial, _)| serial);
        Ok((Self { file, serial }, newest.map(|(_, promise)| promise)))
    }

    /// Writes a promise over the older one.
    pub(crate) fn write(&mut self, promise: &Promise) -> io::Result<()> {
        self.serial += 1;
        let slot = SLOTS[(self.serial % SLOTS.len() as u64) as usize];
        write_at(&mut self.file, slot, &promise.encode(self.serial))
    }

    /// Makes the file and what it says last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Writes bytes at a place of a file, by one system call where there is one for it.
#[cfg(unix)]
fn write_at(file: &mut File, place: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, place)
}

#[cfg(not(unix))]
fn write_at(file: &mut File, place: u64, bytes: &[u8]) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};

    file.seek(SeekFrom::Start(place))?;
    file.write_all(bytes)
}

const UNKNOWN_BOOT: u64 = 0;

/// Which run of the operating system this is, where it tells.
pub(crate) fn boot() -> u64 {
    match std::fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) => xxh3_64(&id).max(1),
        Err(_) => UNKNOWN_BOOT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise(number: u64) -> Promise {
        Promise { handed: ChainLink { number, hash: !number }, synced: number / 2, boot: 9 }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("watermark");
        let (mut file, none) = Watermark::open(&path).unwrap();
        assert_eq!(none, None);
        for n in 1..=5 {
            file.write(&promise(n)).unwrap();
            assert_eq!(Watermark::open(&path).unwrap().1, Some(promise(n)));
        }
        let (mut file, _) = Watermark::open(&path).unwrap();
        file.write(&promise(6)).unwrap();
        // a later promise counts although it promises less
        file.write(&promise(4)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let found = Watermark::open(&path).unwrap().1.unwrap();
            assert!(found == promise(6) || found == promise(4), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn only_what_is_synced_outlives_the_system() {
        let required = |boot, promised| Promise { boot: promised, ..promise(8) }.required(boot);
        assert_eq!(required(9, 9), Required { synced: 4, handed: 8 });
        assert_eq!(required(7, 9), Required { synced: 4, handed: 4 });
        assert_eq!(required(UNKNOWN_BOOT, UNKNOWN_BOOT), Required { synced: 4, handed: 4 });
    }
}
