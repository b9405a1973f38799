//! The laws of documents, deltas, changes and the strategies of this crate.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::time::Timestamp;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::conflict::{ConflictStrategy, Resolver};
use crate::rules::merge::FieldWise;
use crate::testing::laws::{Case, Law, Laws};

/// Checks the laws of documents, of the deltas and changes from the first state of a record to the
/// second and from there to the third, and of this crate's conflict strategies. In the conflict the
/// first state is the base, the second the local and the third the remote one. The times are those of
/// the local and of the remote write, and of the local write of the field `a`.
///
/// # Panics
/// When a law is broken.
pub fn check_changes(states: [Option<&Document>; 3], [local_at, remote_at, a_at]: [Timestamp; 3]) {
    states.into_iter().flatten().for_each(is_itself);
    let [a, b, c] = states;
    if let (Some(a), Some(b)) = (a, b) {
        differ(a, b);
    }
    if let (Some(one), Some(later)) = (change(a, b), change(b, c)) {
        squash(&one, &later, a);
        assert_eq!(one.meets(&later), later.meets(&one));
    }
    let [base, local, remote] = states.map(Option::<&Document>::cloned);
    let local_field_at = Vec::from([("a".into(), a_at)]);
    let remote_field_at = Vec::new();
    resolve(&Case { base, local, remote, local_at, remote_at, local_field_at, remote_field_at });
}

fn resolve(case: &Case) {
    let all: [(&dyn Resolver, Laws); 9] = [
        (&ConflictStrategy::LastWriteWins, Laws::default().symmetric()),
        (&ConflictStrategy::ServerWins, Laws::default()),
        (&ConflictStrategy::ClientWins, Laws::default()),
        (&FieldWise::merge_arrays(), Laws::default()),
        (&FieldWise::sum_numbers(), Laws::default().without(Law::KeepsAgreed)),
        (&FieldWise::max_value(), Laws::default()),
        (&FieldWise::keep_local().only(["a"]), Laws::default()),
        (&FieldWise::field_last_write_wins(), Laws::default().symmetric()),
        (&FieldWise::deep_merge().or_else(FieldWise::merge_arrays()), Laws::default()),
    ];
    for (resolver, laws) in all {
        if let Some(broken) = laws.breach_in(case, resolver) {
            panic!("{broken}");
        }
        case.ask(resolver).iter().for_each(is_itself);
    }
}

fn is_itself(document: &Document) {
    let again = Document::parse(&document.to_string(), &Limits::default());
    assert_eq!(again.as_ref(), Ok(document));
    assert_eq!(document.iter().count(), document.len());
    assert!(document.iter().is_sorted());
    assert!(document.iter().all(|(name, text)| document.text(name) == Some(text)));
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
