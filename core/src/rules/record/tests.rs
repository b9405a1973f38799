use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::protocol::delta::Delta;
use crate::protocol::write::Change;
use crate::rules::transaction::tests::{Store, doc, insert};
use crate::rules::verify::{Report, verify};

const HEAD: Head = Head {
    seq: Seq(9),
    count: 1,
    checksum: Checksum(0),
    horizon: Seq(0),
    swept: Seq(0),
    committed_at: Timestamp(0),
    bytes: 0,
    measured: Seq(0),
    scoped: false,
    indexed: false,
};

fn stamp(seq: u64) -> Stamp {
    Stamp { seq: Seq(seq), version: seq, at: Timestamp(0) }
}

fn sound() -> RecordRow {
    RecordRow {
        document: Some(doc(r#"{"a":1,"b":2,"c":3}"#)),
        last: stamp(9),
        whole: stamp(3),
        fields: vec![("a".into(), stamp(5)), ("c".into(), stamp(9))],
        removed: vec![("d".into(), stamp(4)), ("e".into(), stamp(8))],
        committed_at: Timestamp(0),
        user: None,
        left: vec![],
    }
}

#[test]
fn each_fault_of_a_record_is_named() {
    assert_eq!(sound().faults(HEAD), Vec::<&str>::new());
    let inserted = RecordRow { fields: vec![], removed: vec![], whole: stamp(9), ..sound() };
    assert_eq!(inserted.faults(HEAD), Vec::<&str>::new());

    let beyond = Head { seq: Seq(8), ..HEAD };
    assert_eq!(sound().faults(beyond), ["its seq is not one of the collection's"]);
    let never = RecordRow { last: stamp(0), whole: stamp(0), ..inserted.clone() };
    assert_eq!(never.faults(HEAD), ["its seq is not one of the collection's"]);

    let ahead = "a part of it changed after the whole";
    assert_eq!(RecordRow { whole: stamp(10), ..inserted }.faults(HEAD), [ahead]);
    let field = vec![("a".into(), stamp(10))];
    assert_eq!(RecordRow { fields: field, ..sound() }.faults(HEAD), [ahead]);
    let removed = vec![("d".into(), stamp(10))];
    assert_eq!(RecordRow { removed, ..sound() }.faults(HEAD), [ahead]);

    let before = "a field of it changed before it was inserted";
    let field = vec![("a".into(), stamp(2))];
    assert_eq!(RecordRow { fields: field, ..sound() }.faults(HEAD), [before]);

    let disorder = "its fields are out of order";
    let twice = vec![("a".into(), stamp(5)), ("a".into(), stamp(6))];
    assert_eq!(RecordRow { fields: twice, ..sound() }.faults(HEAD), [disorder]);
    let twice = vec![("e".into(), stamp(5)), ("d".into(), stamp(6))];
    assert_eq!(RecordRow { removed: twice, ..sound() }.faults(HEAD), [disorder]);

    let disagree = "its fields and their stamps disagree";
    let unknown = vec![("x".into(), stamp(5))];
    assert_eq!(RecordRow { fields: unknown, ..sound() }.faults(HEAD), [disagree]);
    let present = vec![("b".into(), stamp(5))];
    assert_eq!(RecordRow { removed: present, ..sound() }.faults(HEAD), [disagree]);
}

#[test]
fn a_change_above_a_seq_has_nothing_of_that_seq() {
    let above = |floor| sound().change_above(Seq(floor)).change;
    let change = |set, unset| Change::update(Delta::new(doc(set), unset));
    assert_eq!(above(3), change(r#"{"a":1,"c":3}"#, vec!["d".into(), "e".into()]));
    assert_eq!(above(4), change(r#"{"a":1,"c":3}"#, vec!["e".into()]));
    assert_eq!(above(5), change(r#"{"c":3}"#, vec!["e".into()]));
    assert_eq!(above(8), change(r#"{"c":3}"#, vec![]));
    assert_eq!(above(9), change("{}", vec![]));
    assert_eq!(above(2), insert(r#"{"a":1,"b":2,"c":3}"#), "it is another one since");
}

#[test]
fn a_report_counts_tombstones_and_lists_a_hundred_faults() {
    let mut store = Store::new();
    for name in ["a", "b", "c"] {
        store.plain_to(name, insert("{}"));
    }
    store.plain_to("a", Change::delete());
    store.plain_to("b", Change::delete());
    assert_eq!(verify(&store.rows).unwrap().tombstones, 2);
    let mut report = Report::default();
    (0..200).for_each(|n| report.fault(alloc::format!("{n}")));
    assert_eq!(report.faults.len(), 100);
}

#[test]
fn a_checksum_comes_back_from_its_row() {
    let head = Head { checksum: Checksum(0xf1e2_d3c4_b5a6_9788), ..HEAD };
    assert_eq!(Head::from_row(head.to_row().into()), Ok(head));
}
