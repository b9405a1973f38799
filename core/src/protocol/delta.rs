//! Differences between documents: the top-level fields that are set and removed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::document::{Document, Fields};

/// A change of some top-level fields. A field's value is always replaced as a whole.
///
/// ```
/// use synclayer_core::{Delta, Document, DocumentError, Limits};
///
/// let document = |json| Document::parse(json, &Limits::default());
/// let old = document(r#"{"title": "milk", "due": "today"}"#)?;
/// let new = document(r#"{"title": "oat milk"}"#)?;
///
/// let delta = Delta::new(document(r#"{"title": "oat milk"}"#)?, vec!["due".into()]);
/// assert_eq!(delta.apply(&old), new);
/// # Ok::<(), DocumentError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Delta {
    /// The fields that are set.
    pub set: Document,
    /// The fields that are removed: sorted, unique, and none of them in `set`.
    pub unset: Vec<Box<str>>,
}

impl Delta {
    /// The empty change.
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self { set: Document::empty(), unset: Vec::new() }
    }

    /// A change that sets and removes fields. A name in both is set.
    #[must_use]
    pub fn new(set: Document, mut unset: Vec<Box<str>>) -> Self {
        unset.sort_unstable();
        unset.dedup();
        unset.retain(|name| set.text(name).is_none());
        Self { set, unset }
    }

    /// The change from `old` to `new`. Values are compared as JSON texts.
    #[must_use]
    pub(crate) fn between(old: &Document, new: &Document) -> Self {
        let (mut set, mut unset) = (Vec::new(), Vec::new());
        for (name, before, after) in side_by_side(old, new) {
            match after {
                Some(text) if before != after => set.push((name, text)),
                Some(_) => {}
                None => unset.push(name.into()),
            }
        }
        Self { set: Document::of_sorted(&set), unset }
    }

    /// The document after this change.
    #[must_use]
    pub fn apply(&self, document: &Document) -> Document {
        let fields: Vec<_> = side_by_side(document, &self.set)
            .filter(|(name, _, set)| set.is_some() || !self.unsets(name))
            .filter_map(|(name, old, set)| Some((name, set.or(old)?)))
            .collect();
        Document::of_sorted(&fields)
    }

    /// A single change with the effect of this change followed by `later`.
    #[must_use]
    pub(crate) fn then(&self, later: &Self) -> Self {
        let set = Self { set: later.set.clone(), unset: later.unset.clone() }.apply(&self.set);
        Self::new(set, self.unset.iter().chain(&later.unset).cloned().collect())
    }

    /// Returns `true` if this change sets or removes a field.
    #[must_use]
    pub(crate) fn touches(&self, name: &str) -> bool {
        self.set.text(name).is_some() || self.unsets(name)
    }

    /// The fields that this change sets or removes, each with its new value's JSON text.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let set = self.set.iter().map(|(name, text)| (name, Some(text)));
        set.chain(self.unset.iter().map(|name| (&**name, None)))
    }

    /// Returns `true` if the two changes touch a field in common.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.fields().any(|(name, _)| other.touches(name))
    }

    /// Returns `true` if the change is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty()
    }

    fn unsets(&self, name: &str) -> bool {
        self.unset.binary_search_by(|unset| (**unset).cmp(name)).is_ok()
    }
}

/// Every field of either document in order of the names, with its text in both.
pub(crate) fn side_by_side<'a>(
    left: &'a Document,
    right: &'a Document,
) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
    zip_fields(left.fields(), right.fields())
}

/// Every field of either side in order of the names, with its text in both.
pub(crate) fn zip_fields<'a>(
    left: Fields<'a>,
    right: Fields<'a>,
) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
    let (mut lefts, mut rights) = (left.peekable(), right.peekable());
    core::iter::from_fn(move || {
        let order = match (lefts.peek(), rights.peek()) {
            (Some((l, _)), Some((r, _))) => l.cmp(r),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let l = if order.is_le() { lefts.next() } else { None };
        let r = if order.is_ge() { rights.next() } else { None };
        let name = l.or(r)?.0;
        Some((name, l.map(|(_, text)| text), r.map(|(_, text)| text)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::documents;
    use super::*;
    use proptest::prelude::*;

    fn deltas() -> impl Strategy<Value = Delta> {
        (documents(), proptest::collection::vec("[a-e]", 0..3))
            .prop_map(|(set, unset)| Delta::new(set, unset.into_iter().map(Into::into).collect()))
    }

    proptest! {
        #[test]
        fn applying_the_difference_gives_the_other(a in documents(), b in documents()) {
            let delta = Delta::between(&a, &b);
            prop_assert_eq!(delta.apply(&a), b.clone());
            prop_assert_eq!(delta.is_empty(), a == b);
        }

        #[test]
        fn overlap_is_symmetric(a in deltas(), b in deltas()) {
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }

        #[test]
        fn changes_that_do_not_overlap_commute(a in deltas(), b in deltas(), d in documents()) {
            prop_assume!(!a.overlaps(&b));
            prop_assert_eq!(a.apply(&b.apply(&d)), b.apply(&a.apply(&d)));
        }

        #[test]
        fn squashed_equals_one_by_one(a in deltas(), b in deltas(), d in documents()) {
            prop_assert_eq!(a.then(&b).apply(&d), b.apply(&a.apply(&d)));
        }
    }
}
