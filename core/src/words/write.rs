//! What a write does to a record.

use core::fmt;

use super::delta::Delta;
use super::document::Document;

/// The three kinds of writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WriteKind {
    /// Sets the whole record, whether it existed or not. Touches every field.
    Insert = 0,
    /// Sets or removes some fields of an existing record.
    Update = 1,
    /// Removes the record. Touches every field.
    Delete = 2,
}

impl WriteKind {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Insert, Self::Update, Self::Delete].get(usize::from(byte)).copied()
    }
}

impl fmt::Display for WriteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change of one record: its kind, and for an insert the whole record in `delta.set`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// What is done to the record.
    pub kind: WriteKind,
    /// The fields: the whole record of an insert, the changed ones of an update, none of a delete.
    pub delta: Delta,
}

impl Change {
    /// Sets the whole record.
    #[must_use]
    pub fn insert(document: Document) -> Self {
        Self {
            kind: WriteKind::Insert,
            delta: Delta { set: document, unset: alloc::vec::Vec::new() },
        }
    }

    /// Changes some fields.
    #[must_use]
    pub fn update(delta: Delta) -> Self {
        Self { kind: WriteKind::Update, delta }
    }

    /// Removes the record.
    #[must_use]
    pub fn delete() -> Self {
        Self { kind: WriteKind::Delete, delta: Delta::empty() }
    }

    /// What turns one state of a record into another; `None` where they are equal.
    #[must_use]
    pub fn between(old: Option<&Document>, new: Option<&Document>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (Some(_), None) => Some(Self::delete()),
            (None, Some(new)) => Some(Self::insert(new.clone())),
            (Some(old), Some(new)) => {
                let delta = Delta::between(old, new);
                (!delta.is_empty()).then(|| Self::update(delta))
            }
        }
    }

    /// The record after this change. An update of a missing record leaves it missing.
    #[must_use]
    pub fn apply(&self, record: Option<&Document>) -> Option<Document> {
        match self.kind {
            WriteKind::Insert => Some(self.delta.set.clone()),
            WriteKind::Update => record.map(|document| self.delta.apply(document)),
            WriteKind::Delete => None,
        }
    }

    /// One change that does what this one and then `later` do to a record that this one fits.
    /// `None` where no single change can, which is when a removed record is updated.
    #[must_use]
    pub fn then(&self, later: &Self) -> Option<Self> {
        match (self.kind, later.kind) {
            (_, WriteKind::Insert | WriteKind::Delete) => Some(later.clone()),
            (WriteKind::Insert, WriteKind::Update) => {
                Some(Self::insert(later.delta.apply(&self.delta.set)))
            }
            (WriteKind::Update, WriteKind::Update) => {
                Some(Self::update(self.delta.then(&later.delta)))
            }
            (WriteKind::Delete, WriteKind::Update) => None,
        }
    }

    /// Whether the two changes touch a field in common. An insert and a delete touch every field.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let both_update = self.kind == WriteKind::Update && other.kind == WriteKind::Update;
        !both_update || self.delta.overlaps(&other.delta)
    }

    /// Whether a field is touched. An insert and a delete touch every field.
    #[must_use]
    pub fn touches(&self, name: &str) -> bool {
        self.kind != WriteKind::Update || self.delta.touches(name)
    }
}
