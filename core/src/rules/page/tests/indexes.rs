//! Queries by the indexes of a server's collection find what they find without, and read less.

use core::cell::Cell;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::time::Timestamp;
use crate::rules::query::{Index, Predicate, Query, parse_order};
use crate::rules::transaction::tests::update;
use crate::rules::transaction::{Sweep, SweepPlace, Transaction, TransactionAnswer};
use crate::rules::verify::verify;
use crate::store::Visit;

const INDEXES: [&str; 3] = ["a,-b", "b", "c.d,a"];

fn declare(store: &mut Store, texts: &[&str]) {
    let indexes: Vec<Index> = texts.iter().map(|text| text.parse().unwrap()).collect();
    store.commit(&Transaction::DeclareIndexes(BTreeMap::from([(todos(), indexes)])));
}

/// Builds a part of what is to be built. Returns `true` at the end.
fn build(store: &mut Store, budget: usize, place: &mut SweepPlace) -> bool {
    let (retention, from) = (core::time::Duration::MAX, place.clone());
    let sweep = Transaction::Sweep(Sweep { retention, from, budget });
    let TransactionAnswer::Swept(swept) = store.commit(&sweep) else { panic!() };
    *place = swept.next.clone().unwrap_or_default();
    swept.next.is_none()
}

fn found(store: &Store, query: &HttpQuery) -> Vec<String> {
    let (reader, query) = (Reader::from(todos()), query.clone());
    let request = ReadRequest::Query { reader, query, bytes: usize::MAX };
    let ReadAnswer::Found(found) = request.run(&store.rows, &AllowAll).unwrap() else { panic!() };
    found.unwrap().iter().map(|record| record.id.to_string()).collect()
}

fn query(condition: &str, order: &str, limit: Option<usize>) -> Query {
    let order = if order.is_empty() { Vec::new() } else { parse_order(order).unwrap() };
    let predicate = match condition {
        "" => Predicate::default(),
        _ => Predicate::parse(condition).unwrap(),
    };
    Query { predicate, order, limit, ..Query::default() }
}

fn values() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("1"), Just("2.0"), Just("\"1\""), Just("null"), Just("true"), Just("[1]")]
}

fn documents() -> impl Strategy<Value = String> {
    let field = || proptest::option::of(values());
    (field(), field(), field()).prop_map(|(a, b, d)| {
        let of = |name: &str, value: Option<&str>| value.map(|value| format!("\"{name}\":{value}"));
        let inner = of("d", d).map(|inner| format!("\"c\":{{{inner}}}"));
        let fields: Vec<_> = [of("a", a), of("b", b), inner].into_iter().flatten().collect();
        format!("{{{}}}", fields.join(","))
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, String),
    Update(u8, String),
    Delete(u8),
    /// Declares these of the indexes.
    Declare(u8),
    Build(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12u8, documents()).prop_map(|(id, json)| Step::Insert(id, json)),
        4 => (0..12u8, documents()).prop_map(|(id, json)| Step::Update(id, json)),
        2 => (0..12u8).prop_map(Step::Delete),
        1 => (0..8u8).prop_map(Step::Declare),
        2 => (1..12usize).prop_map(Step::Build),
    ]
}

fn queries() -> impl Strategy<Value = HttpQuery> {
    let field = || prop_oneof![Just("a"), Just("b"), Just("c.d")];
    let test = (field(), values(), prop_oneof![Just("isEqualTo"), Just("isGreaterThanOrEqualTo")])
        .prop_map(|(field, value, test)| format!("{{\"field\":\"{field}\",\"{test}\":{value}}}"));
    let conditions = proptest::collection::vec(test, 1..3);
    let joined = prop_oneof![Just("and"), Just("or")];
    let order =
        prop_oneof![Just(""), Just("-b"), Just("b"), Just("a,-b"), Just("-a,b"), Just("c.d")];
    let limit = proptest::option::of(0..5usize);
    (conditions, joined, order, limit, 0..3usize, proptest::option::of(1..40i64)).prop_map(
        |(conditions, joined, order, limit, offset, since)| {
            let condition = format!("{{\"{joined}\":[{}]}}", conditions.join(","));
            let query = Query { offset, ..query(&condition, order, limit) };
            let since = since.filter(|n| n % 4 == 0).map(Timestamp);
            HttpQuery { query: Some(Box::new(query)), since, ..HttpQuery::default() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One store has no indexes, one has them from the start, and of one they come and go.
    #[test]
    fn a_query_by_an_index_finds_what_it_finds_without(
        steps in proptest::collection::vec(steps(), 1..40),
        queries in proptest::collection::vec(queries(), 4..8),
    ) {
        let mut stores = [Store::new(), Store::new(), Store::new()];
        declare(&mut stores[1], &INDEXES);
        let mut place = SweepPlace::Start;
        for (at, step) in steps.iter().enumerate() {
            for (n, store) in stores.iter_mut().enumerate() {
                store.now = Timestamp(at as i64);
                match step {
                    Step::Insert(id, json) => drop(store.plain_to(&id.to_string(), insert(json))),
                    Step::Update(id, json) => drop(store.plain_to(&id.to_string(), update(json))),
                    Step::Delete(id) => drop(store.plain_to(&id.to_string(), Change::delete())),
                    Step::Declare(which) if n == 2 => {
                        let declared = INDEXES.into_iter().enumerate();
                        let declared = declared.filter(|(at, _)| which >> at & 1 == 1);
                        declare(store, &declared.map(|(_, text)| text).collect::<Vec<_>>());
                    }
                    Step::Build(budget) if n == 2 => drop(build(store, *budget, &mut place)),
                    Step::Declare(_) | Step::Build(_) => {}
                }
            }
            for store in &stores {
                let report = verify(&store.rows).unwrap();
                prop_assert!(report.faults.is_empty(), "{:?}", report.faults);
            }
        }
        for query in &queries {
            let expected = found(&stores[0], query);
            prop_assert_eq!(found(&stores[1], query), expected.clone(), "from the start");
            prop_assert_eq!(found(&stores[2], query), expected, "built later");
        }
    }
}

/// Rows that count how often they are read.
struct Counting<'a>(&'a dyn Rows, Cell<usize>);

impl Rows for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.1.set(self.1.get() + 1);
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(from, to, &mut |key, row| {
            self.1.set(self.1.get() + 1);
            visit(key, row)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.1.set(self.1.get() + 1);
        self.0.last(from, to)
    }
}

/// The rows that a query reads.
fn read(rows: &dyn Rows, query: Query, since: Option<i64>) -> usize {
    let since = since.map(Timestamp);
    let query = HttpQuery { query: Some(Box::new(query)), since, ..HttpQuery::default() };
    let counting = Counting(rows, Cell::new(0));
    let request = ReadRequest::Query { reader: Reader::from(todos()), query, bytes: usize::MAX };
    request.run(&counting, &AllowAll).unwrap();
    counting.1.get()
}

#[test]
fn an_index_that_is_built_saves_the_reading_of_the_rest() {
    let mut store = Store::new();
    for n in 0..1_000i64 {
        store.now = Timestamp(n);
        store.plain_to(
            &format!("{n:04}"),
            insert(&format!("{{\"n\":{n},\"even\":{}}}", n % 2 == 0)),
        );
    }
    let one = || query(r#"{"field":"n","isEqualTo":500}"#, "", None);
    let last = || query("", "-n", Some(3));
    let reads = |store: &Store| (read(&store.rows, one(), None), read(&store.rows, last(), None));
    let (all, sorted) = reads(&store);
    assert!(all > 1_000 && sorted > 1_000, "{all} {sorted}");
    declare(&mut store, &["n"]);
    let mut place = SweepPlace::Start;
    assert!(!build(&mut store, 600, &mut place));
    assert_eq!(reads(&store), (all + 1, sorted + 1), "it is not whole yet");
    while !build(&mut store, 600, &mut place) {}
    let (one_row, three_rows) = reads(&store);
    assert!(one_row < 8 && three_rows < 30, "{one_row} {three_rows}");

    // and since a time, what has changed since is read
    let even = || query(r#"{"field":"even","isEqualTo":true}"#, "-n", None);
    assert!(read(&store.rows, even(), Some(990)) < 60);

    declare(&mut store, &[]);
    while !build(&mut store, 600, &mut place) {}
    assert_eq!(reads(&store).0, all, "and its rows are gone");
    let (from, to) = record::range_of(b'y');
    assert_eq!(store.rows.last(&from, &to), Ok(None));
}
