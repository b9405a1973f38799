//! Hashes that both ends compute: the checksum of a collection and the digest of a write.
//!
//! Both are XXH3 with 64 bits and seed 0 (Yann Collet's xxHash, <https://xxhash.com>): fast, well
//! distributed, and available in every language. They detect accidents, not forgery.

use core::fmt;

use alloc::boxed::Box;

use xxhash_rust::xxh3::Xxh3;

use super::delta::Delta;
use super::document::Document;
use super::name::{Collection, RecordId, Seq};
use super::time::Timestamp;
use super::write::WriteKind;

/// The checksum of a collection: a wrapping sum over its live records. The order of changes does
/// not matter, and a change costs only the term of its record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Adds a record's term.
    pub fn add(&mut self, id: &RecordId, seq: Seq, document: &Document) {
        self.0 = self.0.wrapping_add(share(id, seq, document));
    }

    /// Subtracts a record's term.
    pub(crate) fn remove(&mut self, id: &RecordId, seq: Seq, document: &Document) {
        self.0 = self.0.wrapping_sub(share(id, seq, document));
    }

    /// Parses the form of [`Display`](fmt::Display).
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A tag for the rights by which a reader is shown a part of a collection: another one where their rights
/// are others. A client keeps it with its cursor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RightsTag {
    /// A number for the rules, and the claims that they ask for.
    pub(crate) rules: u64,
    /// A number for the state of the collections whose records the rules look at; `None` if they look at
    /// none, or at nobody knows which.
    pub(crate) related: Option<u64>,
}

impl RightsTag {
    /// Parses the form of [`Display`](fmt::Display).
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rules, related) = text.split_at_checked(16)?;
        let related = match related {
            "" => None,
            digits => Some(parse_hex(digits)?),
        };
        Some(Self { rules: parse_hex(rules)?, related })
    }
}

/// 16 hexadecimal digits for the rules, and 16 for what they look at.
impl fmt::Display for RightsTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.rules)?;
        self.related.map_or(Ok(()), |related| write!(f, "{related:016x}"))
    }
}

/// The digest of one write, by which a client recognises its own writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of a write as it is sent. Its number and base are not part of it, because a
    /// resent write may carry others (PROTOCOL 12.6).
    #[must_use]
    pub(crate) fn of(
        kind: WriteKind,
        collection: &Collection,
        id: &RecordId,
        delta: &Delta,
        timestamp: Timestamp,
        at: &[(Box<str>, Timestamp)],
    ) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&[kind as u8]);
        text(&mut hash, collection);
        text(&mut hash, id);
        hash.update(&timestamp.0.to_le_bytes());
        for (name, value) in delta.set.iter() {
            text(&mut hash, name);
            text(&mut hash, value);
        }
        // no JSON value is empty, so a removed field can't be taken for a set one
        for name in &delta.unset {
            text(&mut hash, name);
            text(&mut hash, "");
        }
        // no text is that long, so the rest can't be mistaken for a field
        if !at.is_empty() {
            hash.update(&[0xff; 4]);
            for (name, at) in at {
                text(&mut hash, name);
                hash.update(&at.0.to_le_bytes());
            }
        }
        Self(hash.digest())
    }

    /// Computes the digest of an expectation of a unit.
    #[must_use]
    pub(crate) fn of_expectation(collection: &Collection, id: &RecordId) -> Self {
        /// The kind behind those of the writes.
        const EXPECT: u8 = 3;
        let mut hash = Xxh3::new();
        hash.update(&[EXPECT]);
        text(&mut hash, collection);
        text(&mut hash, id);
        hash.update(&Timestamp::default().0.to_le_bytes());
        Self(hash.digest())
    }

    /// Parses the form of [`Display`](fmt::Display).
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// hash64(id, seq) plus, for each field, hash64(id, name, value).
fn share(id: &RecordId, seq: Seq, document: &Document) -> u64 {
    let mut of_id = Xxh3::new();
    text(&mut of_id, id);
    let mut hash = of_id.clone();
    hash.update(&seq.0.to_le_bytes());
    let mut sum = hash.digest();
    for (name, value) in document.iter() {
        let mut hash = of_id.clone();
        text(&mut hash, name);
        hash.update(value.as_bytes());
        sum = sum.wrapping_add(hash.digest());
    }
    sum
}

/// Hashes a length (u32, little endian) and the bytes: different sequences of texts give different
/// input.
fn text(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u32).to_le_bytes());
    hash.update(text.as_bytes());
}

fn parse_hex(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::Limits;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn a_tag_of_rights_has_one_half_or_two() {
        let half = RightsTag { rules: 0x9c1e, related: None };
        assert_eq!(half.to_string(), "0000000000009c1e");
        for tag in [half, RightsTag { related: Some(7), ..half }] {
            assert_eq!(RightsTag::parse(&tag.to_string()), Some(tag));
        }
        for text in ["", "9c1e", "0000000000009c1e7", "0000000000009c1\u{e9}", "000000000000000g"] {
            assert_eq!(RightsTag::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_digest_of_a_write_covers_the_times_of_its_fields() {
        let (collection, id) = (Collection::new("c").unwrap(), RecordId::new("r").unwrap());
        let set = Document::parse(r#"{"x":1,"y":2}"#, &Limits::default()).unwrap();
        let of = |unset: &[&str], at: &[(&str, i64)]| {
            let delta = Delta::new(set.clone(), unset.iter().map(|name| (*name).into()).collect());
            let at: vec::Vec<_> =
                at.iter().map(|(name, at)| ((*name).into(), Timestamp(*at))).collect();
            Digest::of(WriteKind::Update, &collection, &id, &delta, Timestamp(7), &at).0
        };
        // as it was before there were such times
        assert_eq!(of(&[], &[]), OLD);
        let all = [
            OLD,
            of(&[], &[("x", 5)]),
            of(&[], &[("x", 6)]),
            of(&[], &[("y", 5)]),
            of(&[], &[("x", 5), ("y", 5)]),
            of(&["z"], &[]),
            of(&["z"], &[("z", 5)]),
        ];
        let mut unlike = all.to_vec();
        unlike.sort_unstable();
        unlike.dedup();
        assert_eq!(unlike.len(), all.len());
    }

    /// The result of an earlier version of the code.
    const OLD: u64 = 3_877_936_829_949_366_578;
}
