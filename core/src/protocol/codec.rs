//! The encoding of rows: LEB128 numbers and length-prefixed byte strings.
//!
//! A row type that gained fields after stores were written ends in tagged parts, written by
//! [`put_part`] and read by [`Reader::part`], in ascending tags. A part with its default value is
//! absent. So rows from before the part existed still decode, and rows that don't need it are
//! written unchanged.

use alloc::vec::Vec;

use bytes::{Buf, Bytes};

use crate::store::StoreError;

/// Appends a number as LEB128.
pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, zigzag-coded.
pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends 1 and the bytes, or 0 for none.
pub(crate) fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

/// Appends an optional part of a row: a tag and the bytes.
pub(crate) fn put_part(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_bytes(out, bytes);
}

/// Reads the output of the `put_` functions, sharing the row's buffer. Arbitrary bytes give an
/// error, never a panic.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(row: Bytes) -> Self {
        Self { rest: row }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, StoreError> {
        let byte = *self.rest.first().ok_or_else(cut_short)?;
        self.rest.advance(1);
        Ok(byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(StoreError::damaged(alloc::format!("a stored flag is {other}"))),
        }
    }

    /// A LEB128 number of at most 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.u64()?).map_err(|_| StoreError::damaged("a stored number is too large"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, StoreError> {
        let (value, len) = read_u64(&self.rest).ok_or_else(cut_short)?;
        self.rest.advance(len);
        Ok(value)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, StoreError> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, StoreError> {
        let len = self.len()?;
        Ok(self.rest.split_to(len))
    }

    /// The length of a byte string that follows.
    fn len(&mut self) -> Result<usize, StoreError> {
        let len = usize::try_from(self.u64()?).ok().filter(|len| *len <= self.rest.len());
        len.ok_or_else(cut_short)
    }

    /// A byte string that must be UTF-8, converted by `make`.
    pub(crate) fn str<T>(&mut self, make: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let len = self.len()?;
        let text = core::str::from_utf8(&self.rest[..len]).ok().and_then(make);
        self.rest.advance(len);
        text.ok_or_else(|| StoreError::damaged("a stored text is no valid name"))
    }

    pub(crate) fn option(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.flag()? { Ok(Some(self.bytes()?)) } else { Ok(None) }
    }

    /// The content of the part with this tag, if it is the row's next one. Call it in ascending
    /// order of the tags. A part that is not read makes [`end`](Self::end) fail.
    pub(crate) fn part(&mut self, tag: u8) -> Result<Option<Self>, StoreError> {
        if self.rest.first() != Some(&tag) {
            return Ok(None);
        }
        self.byte()?;
        Ok(Some(Self::new(self.bytes()?)))
    }

    /// Returns an error unless everything was read.
    pub(crate) fn end(self) -> Result<(), StoreError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(StoreError::damaged("a stored row is longer than it should be"))
        }
    }
}

/// A LEB128 number at the start of `bytes`, and the number of bytes that it takes.
pub(crate) fn read_u64(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if i == 9 && byte > 1 {
            return None;
        }
        value |= part << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

fn cut_short() -> StoreError {
    StoreError::damaged("a stored row is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(a: u64, b: i64, text: Vec<u8>) {
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            put_bytes(&mut out, &text);
            put_option(&mut out, None);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.u64().unwrap(), a);
            prop_assert_eq!(reader.i64().unwrap(), b);
            prop_assert_eq!(&reader.bytes().unwrap()[..], &text[..]);
            prop_assert_eq!(reader.option().unwrap(), None);
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn parts_come_back_and_unknown_ones_are_an_error(
            parts: [Option<Vec<u8>>; 3],
            unknown: bool,
        ) {
            let mut row = alloc::vec![7];
            for (tag, part) in (1..).zip(&parts) {
                if let Some(part) = part {
                    put_part(&mut row, tag, part);
                }
            }
            if unknown {
                put_part(&mut row, 9, &[]);
            }
            let mut reader = Reader::new(row.into());
            prop_assert_eq!(reader.byte().unwrap(), 7);
            for (tag, part) in (1..).zip(parts) {
                let found = reader.part(tag).unwrap();
                prop_assert_eq!(found.map(|found| found.rest.to_vec()), part);
            }
            prop_assert_eq!(reader.end().is_err(), unknown);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.into());
            while let Ok(Some(_)) = reader.part(1) {}
            while reader.u64().is_ok() && reader.bytes().is_ok() && reader.option().is_ok() {}
        }
    }
}
