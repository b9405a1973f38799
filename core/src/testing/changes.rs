//! The laws of documents, deltas and changes.

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::write::{Change, WriteKind};

use alloc::string::ToString;

/// Checks the laws of documents, and of the deltas and changes from the first state of a record to the
/// second, and from there to the third.
///
/// # Panics
/// When a law is broken.
pub fn check_changes([a, b, c]: [Option<&Document>; 3]) {
    [a, b, c].into_iter().flatten().for_each(is_itself);
    if let (Some(a), Some(b)) = (a, b) {
        differ(a, b);
    }
    if let (Some(one), Some(later)) = (change(a, b), change(b, c)) {
        squash(&one, &later, a);
        assert_eq!(one.meets(&later), later.meets(&one));
    }
}

fn is_itself(document: &Document) {
    let again = Document::parse(&document.to_string(), &Limits::default());
    assert_eq!(again.as_ref(), Ok(document));
    assert_eq!(document.iter().count(), document.len());
    assert!(document.iter().is_sorted());
    assert!(document.iter().all(|(name, text)| document.get(name) == Some(text)));
    assert!(Delta::between(document, document).is_empty());
}

fn differ(a: &Document, b: &Document) {
    let (forth, back) = (Delta::between(a, b), Delta::between(b, a));
    assert_eq!(&forth.apply(a), b);
    assert_eq!(&back.apply(b), a);
    assert_eq!(&forth.then(&back).apply(a), a);
    assert_eq!(forth.overlaps(&back), !forth.is_empty());
    assert_eq!(forth.fields().count(), back.fields().count());
}

fn change(old: Option<&Document>, new: Option<&Document>) -> Option<Change> {
    let change = Change::between(old, new);
    match &change {
        Some(change) => assert_eq!(change.apply(old).as_ref(), new),
        None => assert_eq!(old, new),
    }
    change
}

fn squash(one: &Change, later: &Change, record: Option<&Document>) {
    let one_by_one = later.apply(one.apply(record).as_ref());
    match one.then(later) {
        Some(squashed) => assert_eq!(squashed.apply(record), one_by_one),
        None => assert_eq!((one.kind, later.kind), (WriteKind::Delete, WriteKind::Update)),
    }
}
