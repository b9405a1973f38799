//! The change of a record by a write.

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
    pub(crate) fn as_str(self) -> &'static str {
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

/// The name on the wire: `insert`, `update` or `delete`.
impl fmt::Display for WriteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A change of one record: its kind, and for an insert the whole record in `delta.set`.
///
/// ```
/// use synclayer_core::{Change, Delta, Document, DocumentError, Limits};
///
/// let milk = Document::parse(r#"{"title": "milk"}"#, &Limits::default())?;
/// let done = Document::parse(r#"{"done": true}"#, &Limits::default())?;
///
/// let update = Change::update(Delta::new(done, Vec::new()));
/// let updated = update.apply(Some(&milk)).expect("the record is there");
/// assert_eq!(updated.to_string(), r#"{"done":true,"title":"milk"}"#);
///
/// assert_eq!(update.apply(None), None, "an update of a missing record leaves it missing");
/// # Ok::<(), DocumentError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// The kind of change.
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

    /// The change from one state of a record to another; `None` if they are equal.
    #[must_use]
    pub(crate) fn between(old: Option<&Document>, new: Option<&Document>) -> Option<Self> {
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

    /// A single change with the effect of this change followed by `later`, for a record to which
    /// this change applies. `None` if there is none, which is so for an update after a delete.
    #[must_use]
    pub(crate) fn then(&self, later: &Self) -> Option<Self> {
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

    /// Returns `true` if the two changes touch a field in common. An insert and a delete touch
    /// every field.
    #[must_use]
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let both_update = self.kind == WriteKind::Update && other.kind == WriteKind::Update;
        !both_update || self.delta.overlaps(&other.delta)
    }

    /// Returns `true` if a field is touched. An insert and a delete touch every field.
    #[must_use]
    pub(crate) fn touches(&self, name: &str) -> bool {
        self.kind != WriteKind::Update || self.delta.touches(name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::documents;
    use super::*;
    use proptest::option::of as optional;
    use proptest::prelude::*;

    fn changes() -> impl Strategy<Value = Change> {
        let unset = proptest::collection::vec("[a-e]", 0..3);
        prop_oneof![
            documents().prop_map(Change::insert),
            (documents(), unset).prop_map(|(set, unset)| {
                Change::update(Delta::new(set, unset.into_iter().map(Into::into).collect()))
            }),
            Just(Change::delete()),
        ]
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_state_to_the_other(
            old in optional(documents()),
            new in optional(documents()),
        ) {
            match Change::between(old.as_ref(), new.as_ref()) {
                Some(change) => {
                    prop_assert_ne!(&old, &new);
                    prop_assert_eq!(change.apply(old.as_ref()), new);
                }
                None => prop_assert_eq!(old, new),
            }
        }

        #[test]
        fn squashed_equals_one_by_one(
            one in changes(),
            later in changes(),
            record in optional(documents()),
        ) {
            // an update fits an existing record only
            prop_assume!(one.kind != WriteKind::Update || record.is_some());
            let one_by_one = later.apply(one.apply(record.as_ref()).as_ref());
            match one.then(&later) {
                Some(squashed) => prop_assert_eq!(squashed.apply(record.as_ref()), one_by_one),
                None => {
                    let kinds = (one.kind, later.kind);
                    prop_assert_eq!(kinds, (WriteKind::Delete, WriteKind::Update));
                }
            }
        }

        #[test]
        fn squashing_is_associative(a in changes(), b in changes(), c in changes()) {
            let left = a.then(&b).and_then(|ab| ab.then(&c));
            let right = b.then(&c).and_then(|bc| a.then(&bc));
            // a write that a delete swallows can be squashed in one order only
            if let (Some(left), Some(right)) = (left, right) {
                prop_assert_eq!(left, right);
            }
        }

        #[test]
        fn a_meeting_is_mutual(a in changes(), b in changes()) {
            prop_assert_eq!(a.meets(&b), b.meets(&a));
            let shared = ["a", "b", "c", "d", "e"].iter().any(|f| a.touches(f) && b.touches(f));
            prop_assert!(!shared || a.meets(&b), "what touches one field meets");
        }
    }
}
