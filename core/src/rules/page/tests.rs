mod indexes;

use alloc::format;
use alloc::vec::Vec;

use super::*;
use crate::rules::policy::AllowAll;
use crate::rules::transaction::tests::{Store, doc, id, insert, todos, unset};

fn page(store: &Store, position: Position, limits: PageLimits) -> Page {
    let reader = Reader::from(todos());
    let request = ReadRequest::CatchUp { reader, position, limits };
    let ReadAnswer::Page(page) = request.run(&store.rows, &AllowAll).unwrap() else { panic!() };
    page
}

/// The number of changes above a seq in one page.
fn changes(store: &Store, above: u64, bytes: usize) -> usize {
    let position = Position::Delta { floor: Seq(above), after: Seq(above) };
    let page = page(store, position, PageLimits { records: 100, bytes });
    let Content::Changes(changes) = page.content else { panic!() };
    changes.len()
}

#[test]
fn a_snapshot_s_page_looks_at_few_tombstones() {
    let mut store = Store::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        store.plain_to(name, insert("{}"));
        store.plain_to(name, Change::delete());
    }
    store.plain_to("z", insert("{}"));
    let position = Position::Snapshot { snapshot_seq: store.head().seq, after: None };
    let first = page(&store, position, PageLimits { records: 1, bytes: 1 << 10 });
    let Content::Snapshot { records, range } = first.content else { panic!() };
    assert_eq!((records.len(), range.up_to), (0, Some(id("d"))), "four looks for one record");
    let Next::More(position) = first.next else { panic!() };
    let second = page(&store, position, PageLimits { records: 1, bytes: 1 << 10 });
    let Content::Snapshot { records, range } = second.content else { panic!() };
    let found: Vec<_> = records.iter().map(|record| (record.id.as_str(), record.seq)).collect();
    assert_eq!(found, [("z", Some(store.head().seq))]);
    assert_eq!((range.after, range.up_to), (Some(id("d")), None));
}

#[test]
fn a_record_larger_than_a_page_stands_alone() {
    let mut store = Store::new();
    let large = format!(r#"{{"field":"{}"}}"#, "x".repeat(2_000));
    for (name, json) in [("a", "{}"), ("b", &*large), ("c", "{}"), ("d", "{}")] {
        store.plain_to(name, insert(json));
    }
    let limits = PageLimits { records: 100, bytes: 1 << 10 };
    let pages = |mut position: Position| {
        let mut pages = Vec::new();
        loop {
            let page = page(&store, position, limits);
            pages.push(match page.content {
                Content::Changes(changes) => changes.len(),
                Content::Snapshot { records, .. } | Content::Load { records, .. } => records.len(),
                Content::Loads(_) => panic!("no set is read"),
            });
            match page.next {
                Next::More(next) => position = next,
                Next::Done { .. } => return pages,
            }
        }
    };
    // a link that breaks by the large one has brought the small one before it
    assert_eq!(pages(Position::Delta { floor: Seq(0), after: Seq(0) }), [1, 1, 2]);
    let snapshot_seq = store.head().seq;
    assert_eq!(pages(Position::Snapshot { snapshot_seq, after: None }), [1, 1, 2]);
}

#[test]
fn a_page_is_full_when_the_next_record_does_not_fit() {
    let mut store = Store::new();
    for name in ["a", "b", "c"] {
        store.plain_to(name, insert(r#"{"field":"value"}"#));
    }
    // an id, a document, and what a record costs besides
    let each = 1 + doc(r#"{"field":"value"}"#).size() + 100;
    assert_eq!(changes(&store, 0, each), 1);
    assert_eq!(changes(&store, 0, 2 * each - 1), 1);
    assert_eq!(changes(&store, 0, 2 * each), 2);
    assert_eq!(changes(&store, 0, 3 * each), 3);
    assert_eq!(changes(&store, 0, 1), 1, "one at least");
}

#[test]
fn the_names_of_removed_fields_take_room_too() {
    let mut store = Store::new();
    for name in ["a", "b"] {
        store.plain_to(name, insert(r#"{"field":1,"other":2}"#));
    }
    for name in ["a", "b"] {
        store.plain_to(name, unset("{}", &["field", "other"]));
    }
    let each = 1 + doc("{}").size() + 2 * (5 + 3) + 100;
    assert_eq!(changes(&store, 2, 2 * each - 1), 1);
    assert_eq!(changes(&store, 2, 2 * each), 2);
}

#[test]
fn what_is_read_as_a_whole_is_bounded_by_ids_and_documents() {
    let mut store = Store::new();
    for name in ["first", "later"] {
        store.plain_to(name, insert(r#"{"field":"value"}"#));
    }
    let each = 5 + doc(r#"{"field":"value"}"#).size() + 100;
    let ask = |request: ReadRequest| request.run(&store.rows, &AllowAll).unwrap();
    let reader = || Reader::from(todos());

    let position = || Position::Snapshot { snapshot_seq: store.head().seq, after: None };
    let snapshot = |bytes| {
        let page = page(&store, position(), PageLimits { records: 100, bytes });
        let Content::Snapshot { records, .. } = page.content else { panic!() };
        records.len()
    };
    assert_eq!((snapshot(2 * each - 1), snapshot(2 * each)), (1, 2));

    let whole = |bytes| {
        let answer = ask(ReadRequest::Whole { reader: reader(), bytes });
        let ReadAnswer::Whole(whole) = answer else { panic!() };
        whole.records
    };
    assert_eq!(whole(2 * each), None);
    let records = whole(2 * each + 1).unwrap();
    assert!(records.len() == 2 && records.iter().all(|record| record.seq.is_none()));

    let query = |query: HttpQuery, bytes| {
        let request = ReadRequest::Query { reader: reader(), query, bytes };
        let ReadAnswer::Found(found) = ask(request) else { panic!() };
        found.map(|found| found.len())
    };
    assert_eq!(query(HttpQuery::default(), 2 * each), None);
    assert_eq!(query(HttpQuery::default(), 2 * each + 1), Some(2));
    let second = HttpQuery { offset: 1, ..HttpQuery::default() };
    assert_eq!(query(second, each + 1), Some(1), "what is left out takes no room");
}

#[test]
fn a_head_below_the_changes_is_damage() {
    let mut store = Store::new();
    store.plain_to("a", insert("{}"));
    let mut batch = crate::store::Batch::default();
    batch.delete(record::head_key(&todos()));
    store.rows.apply(batch);
    let reader = Reader::from(todos());
    let position = Position::Delta { floor: Seq(0), after: Seq(0) };
    let limits = PageLimits { records: 1, bytes: 1 << 10 };
    let answer = ReadRequest::CatchUp { reader, position, limits }.run(&store.rows, &AllowAll);
    // a stream that is live at the head would fall behind, catch up, and fall behind, for ever
    assert!(answer.is_err(), "{answer:?}");
}
