//! Queries by index: against the oracle, and the choice of the index.

use super::*;
use crate::checked::Checked;
use crate::client::{ClientConfig, Input, Replica, Write};
use crate::protocol::name::Collection;
use crate::protocol::time::{Mono, Now, Timestamp};
use crate::store::MemoryClientStore;

/// Two texts that are equal in what an index keeps of them, and few other values.
fn few_values() -> impl Strategy<Value = Json> {
    prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        4 => "[0-3]".prop_map(|digits| Json::Number { negative: false, digits, exponent: 0 }),
        1 => numbers(),
        2 => texts().prop_map(Json::Text),
        2 => (0..3_usize).prop_map(|n| Json::Text(format!("{}{n}", "a".repeat(crate::rules::query::index::MAX_KEY)))),
    ]
}

fn few_fields() -> impl Strategy<Value = BTreeMap<String, Json>> {
    proptest::collection::btree_map("[abc]", few_values(), 0..4)
}

/// Lets all records have some fields of the first one, and the condition ask for them.
fn share(records: &mut [BTreeMap<String, Json>], condition: &mut Condition, fields: u8) {
    let (Some((first, others)), Condition::And(tests)) = (records.split_first_mut(), condition)
    else {
        return;
    };
    for (bit, name) in [(1, "a"), (2, "b"), (4, "c")] {
        let Some(value) = first.get(name).filter(|_| fields & bit > 0) else { continue };
        others.iter_mut().for_each(|of| drop(of.insert(name.into(), value.clone())));
        tests.push(Condition::Field(vec![name.into()], "isEqualTo", value.clone()));
    }
}

fn tests() -> impl Strategy<Value = Condition> {
    let test = ("[abc]", 0..NAMES.len(), few_values(), any::<bool>()).prop_map(
        |(name, operator, value, flag)| {
            let (operator, value) = match (NAMES[operator], value) {
                (name @ ("isNull" | "isNotNull" | "exists"), _) => (name, Json::Bool(flag)),
                (name @ ("arrayContainsAny" | "whereIn" | "whereNotIn"), value) => {
                    (name, Json::Array(vec![value]))
                }
                (name @ ("startsWith" | "endsWith" | "contains"), value @ Json::Text(_)) => {
                    (name, value)
                }
                ("endsWith" | "contains", value) => ("isEqualTo", value),
                ("startsWith", value) => ("isLessThan", value),
                (name, value) => (name, value),
            };
            Condition::Field(vec![name], operator, value)
        },
    );
    proptest::collection::vec(test, 0..3).prop_map(Condition::And)
}

fn orders() -> impl Strategy<Value = Vec<(String, bool)>> {
    proptest::collection::vec(("[abc]", any::<bool>()), 0..3)
}

fn now(millis: u64) -> Now {
    Now { mono: Mono(millis), wall: Timestamp(i64::try_from(millis).unwrap()) }
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

fn config(indexes: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::default();
    let indexes = indexes.iter().map(|text| text.parse().unwrap()).collect();
    config.indexes.insert(todos(), indexes);
    config.index_rows = 2;
    config
}

/// A replica with these indexes, which are built as far as there is something to be done at once.
fn open(indexes: &[&str], store: MemoryClientStore) -> Replica<MemoryClientStore> {
    let mut replica = Replica::open(config(indexes), 7, now(1), store, &mut Vec::new()).unwrap();
    let mut millis = 1;
    while replica.deadline().is_some_and(|(at, _)| at <= Mono(millis)) {
        replica.handle(now(millis), Input::Timeout, &mut Vec::new());
        replica.check().unwrap();
        millis += 1;
    }
    replica
}

fn save(replica: &mut Replica<MemoryClientStore>, n: usize, document: &Document) {
    let write = Write::Save(todos(), id(n), document.clone());
    replica.write(now(1), write, &mut Vec::new()).unwrap();
}

fn delete(replica: &mut Replica<MemoryClientStore>, n: usize) {
    replica.write(now(1), Write::Delete(todos(), id(n)), &mut Vec::new()).unwrap();
}

proptest! {
    #[test]
    fn a_query_by_index_returns_what_the_oracle_says(
        mut records in proptest::collection::vec(few_fields(), 0..12),
        earlier in proptest::collection::vec(few_fields(), 0..14),
        mut condition in tests(),
        shared in prop_oneof![Just(0), 0..8_u8],
        order in orders(),
        limit in proptest::option::of(0..6_usize),
        offset in 0..3_usize,
        // most cursors lie on a record
        bounds in (0..30_u8, 0..30_u8, any::<u8>()),
        indexes in proptest::collection::vec(orders(), 1..4),
        built_late: bool,
    ) {
        share(&mut records, &mut condition, shared);
        let case = Case { records, condition: Some(condition), order, limit, offset, bounds };
        let (query, documents, expected) = case.window();
        let texts: Vec<_> = indexes.iter().map(|order| {
            let fields = order.iter().map(|(name, down)| format!("{}{name}", if *down { "-" } else { "" }));
            fields.collect::<Vec<_>>().join(",")
        }).filter(|text| text.parse::<Index>().is_ok()).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let mut replica = open(if built_late { &[] } else { &texts }, MemoryClientStore::default());
        for (n, of) in earlier.iter().enumerate() {
            save(&mut replica, n, &document(&Json::Object(of.clone()).text(bounds.2)));
        }
        for (n, of) in documents.iter().enumerate() {
            save(&mut replica, n, of);
        }
        for n in documents.len()..earlier.len() {
            delete(&mut replica, n);
        }
        if built_late {
            replica = open(&texts, replica.into_store());
        }
        replica.check().unwrap();
        let expected: Vec<_> = expected.into_iter().map(id).collect();
        let found = replica.query(&todos(), &query).unwrap();
        let found: Vec<_> = found.into_iter().map(|record| record.id).collect();
        let how = replica.explain(&todos(), &query).unwrap().to_string();
        prop_assert_eq!(&found, &expected, "{}", how);
        prop_assert_eq!(replica.count(&todos(), &query).unwrap(), expected.len(), "{}", how);
    }
}

/// Twenty records: `n` from 0 to 9 twice, `done` for the even ones, and an `owner.name` that is one of two.
fn filled(indexes: &[&str]) -> Replica<MemoryClientStore> {
    let mut replica = open(indexes, MemoryClientStore::default());
    for n in 0..20 {
        let (number, done, name) = (n % 10, n % 2 == 0, ["ann", "bob"][n / 10]);
        let json = format!(r#"{{"n":{number},"done":{done},"owner":{{"name":"{name}"}}}}"#);
        save(&mut replica, n, &document(&json));
    }
    replica
}

fn ask(predicate: &str, order: &str, limit: Option<usize>) -> Query {
    let predicate = match predicate {
        "" => Predicate::default(),
        json => Predicate::parse(json).unwrap(),
    };
    let order = if order.is_empty() { Vec::new() } else { parse_order(order).unwrap() };
    Query { predicate, order, limit, ..Query::default() }
}

const NOT_DONE: &str = r#"{"field": "done", "isEqualTo": false}"#;

#[test]
fn each_alternative_of_an_or_or_a_list_is_read_by_an_index() {
    let replica = filled(&["n", "done,n"]);
    for (predicate, order, limit, how) in [
        (
            r#"{"field": "n", "whereIn": [3, 5, 77]}"#,
            "",
            None,
            "the index n, 1 of its fields equal to values, in its order, in 3 parts: 4 records read, 4 returned",
        ),
        (
            r#"{"or": [{"field": "n", "==": 3}, {"field": "n", ">": 7}]}"#,
            "-n",
            None,
            "the index n, one in a range, in its order, in 2 parts: 6 records read, 6 returned",
        ),
        // a record of both parts is returned once
        (
            r#"{"or": [{"field": "n", ">": 6}, {"field": "n", ">": 7}]}"#,
            "n",
            Some(3),
            "the index n, one in a range, in its order, in 2 parts: 6 records read, 3 returned",
        ),
        (
            r#"{"and": [{"field": "done", "==": true}, {"field": "n", "whereIn": [2, 3, 4]}]}"#,
            "",
            None,
            "the index done,n, 2 of its fields equal to values, in its order, in 3 parts: 4 records read, 4 returned",
        ),
        // no index serves one of them
        (
            r#"{"or": [{"field": "n", "==": 3}, {"field": "owner.name", "==": "ann"}]}"#,
            "",
            None,
            "every record of the collection, in its order: 20 records read, 11 returned",
        ),
    ] {
        let query = ask(predicate, order, limit);
        let explained = replica.explain(&todos(), &query).unwrap();
        assert_eq!(explained.to_string(), how, "{predicate}");
        assert_eq!(replica.count(&todos(), &query).unwrap(), explained.returned, "{predicate}");
    }
}

#[test]
fn the_longest_equal_prefix_is_chosen_then_a_range_then_the_order() {
    let replica = filled(&["n", "done", "done,-n", "owner.name,n"]);
    let range = r#"{"field": "n", "isGreaterThan": 7}"#;
    let both = format!(r#"{{"and": [{NOT_DONE}, {range}]}}"#);
    let of_ann = r#"{"and": [{"field": "owner.name", "==": "ann"}, {"field": "n", "==": 3}]}"#;
    for (predicate, order, limit, how) in [
        (
            "",
            "",
            None,
            "every record of the collection, in its order: 20 records read, 20 returned",
        ),
        ("", "n", None, "every record of the collection: 20 records read, 20 returned"),
        ("", "n", Some(3), "the index n, in its order: 3 records read, 3 returned"),
        ("", "-n", Some(3), "the index n, in its order: 3 records read, 3 returned"),
        ("", "n,done", Some(3), "every record of the collection: 20 records read, 3 returned"),
        (
            NOT_DONE,
            "",
            None,
            "the index done, 1 of its fields equal to values, in its order: 10 records read, 10 returned",
        ),
        (
            NOT_DONE,
            "-n",
            Some(3),
            "the index done,-n, 1 of its fields equal to values, in its order: 3 records read, 3 returned",
        ),
        (
            NOT_DONE,
            "done,n",
            Some(3),
            "the index done,-n, 1 of its fields equal to values, in its order: 3 records read, 3 returned",
        ),
        (range, "", None, "the index n, one in a range: 4 records read, 4 returned"),
        (
            &both,
            "",
            None,
            "the index done,-n, 1 of its fields equal to values, one in a range: 2 records read, 2 returned",
        ),
        (
            of_ann,
            "done",
            None,
            "the index owner.name,n, 2 of its fields equal to values: 1 records read, 1 returned",
        ),
        (
            r#"{"not": {"field": "done", "==": true}}"#,
            "",
            None,
            "every record of the collection, in its order: 20 records read, 10 returned",
        ),
    ] {
        let query = ask(predicate, order, limit);
        assert_eq!(
            replica.explain(&todos(), &query).unwrap().to_string(),
            how,
            "{predicate} {order}"
        );
    }
}

/// A page begins where the one before it ended, without the records before it.
#[test]
fn a_page_reads_its_own_records_alone() {
    let replica = filled(&["n"]);
    for order in ["n", "-n"] {
        let mut query = ask("", order, Some(6));
        let mut all = Vec::new();
        loop {
            let page = replica.query(&todos(), &query).unwrap();
            let read = replica.explain(&todos(), &query).unwrap().read;
            assert!(read <= page.len() + 2, "{read} records for {}", page.len());
            let Some(last) = page.last() else { break };
            query.start = Bound::Excluded(query.cursor(&last.id, &last.document));
            all.extend(page);
        }
        assert_eq!(all, replica.query(&todos(), &ask("", order, None)).unwrap());
    }
}

/// Fields that equal a value are no part of an order by an index; a cursor has them all the same.
#[test]
fn a_cursor_with_a_field_that_the_index_lacks_finds_the_next_page() {
    let replica = filled(&["n,done"]);
    let of_ann =
        format!(r#"{{"and": [{NOT_DONE}, {{"field": "owner.name", "isEqualTo": "ann"}}]}}"#);
    let mut query = ask(&of_ann, "owner.name,n", Some(2));
    let mut all = Vec::new();
    loop {
        let page = replica.query(&todos(), &query).unwrap();
        let how = replica.explain(&todos(), &query).unwrap();
        assert!(how.ordered && how.read < 10, "{how}");
        let Some(last) = page.last() else { break };
        query.start = Bound::Excluded(query.cursor(&last.id, &last.document));
        all.extend(page);
    }
    assert_eq!(all, replica.query(&todos(), &ask(&of_ann, "owner.name,n", None)).unwrap());
}

/// An index sees what the app sees: pending writes, and nothing of what they have replaced.
#[test]
fn an_index_follows_every_change_of_a_record() {
    let mut replica = filled(&["n"]);
    let count = |replica: &Replica<MemoryClientStore>, n: u8| {
        let query = ask(&format!(r#"{{"field": "n", "==": {n}}}"#), "", None);
        assert!(replica.explain(&todos(), &query).unwrap().index.is_some());
        replica.count(&todos(), &query).unwrap()
    };
    save(&mut replica, 3, &document(r#"{"n": 4}"#));
    assert_eq!((count(&replica, 3), count(&replica, 4)), (1, 3));
    delete(&mut replica, 4);
    assert_eq!(count(&replica, 4), 2);
    save(&mut replica, 14, &document("{}"));
    assert_eq!(count(&replica, 4), 1);
    replica.check().unwrap();
}

/// An index is built in steps, and queries go without it until it is whole; one that is declared no
/// longer goes in steps too, and comes back whole.
#[test]
fn an_index_is_built_and_removed_in_steps() {
    let mut store = filled(&[]).into_store();
    let by_n = ask(r#"{"field": "n", "==": 3}"#, "", None);
    for declared in [true, false, true] {
        let indexes = if declared { &["n"][..] } else { &[] };
        let mut replica =
            Replica::open(config(indexes), 7, now(1), store, &mut Vec::new()).unwrap();
        let mut millis = 1;
        let mut told = 0;
        while let Some((at, timer)) = replica.deadline() {
            assert_eq!((at, timer), (Mono(millis), crate::client::Timer::Index));
            let explanation = replica.explain(&todos(), &by_n).unwrap();
            assert_eq!((explanation.index, explanation.returned), (None, 2));
            let mut actions = Vec::new();
            replica.handle(now(millis), Input::Timeout, &mut actions);
            told +=
                actions.iter().filter(|of| matches!(of, crate::client::Action::Event(_))).count();
            // the building goes on in the next life, and with what is written meanwhile
            save(&mut replica, 19, &document(&format!(r#"{{"n": {}}}"#, 20 + millis)));
            replica.check().unwrap();
            if millis == 4 {
                replica = Replica::open(
                    config(indexes),
                    7,
                    now(millis + 1),
                    replica.into_store(),
                    &mut Vec::new(),
                )
                .unwrap();
            }
            millis += 1;
        }
        assert_eq!(millis, 12, "ten steps, and one that finds nothing more");
        let found = replica.explain(&todos(), &by_n).unwrap();
        assert_eq!((found.index.is_some(), found.returned), (declared, 2));
        assert_eq!(told > 0, declared);
        store = replica.into_store();
    }
}

#[test]
fn an_index_that_can_not_be_is_refused() {
    for (text, problem) in [
        ("", "a name is empty"),
        ("a,-a", "one is there twice"),
        ("a,b,c,d,e,f,g,h,i", "there are 9, at most 8"),
        (&"a".repeat(600), "they have more than 512 bytes"),
    ] {
        let error = text.parse::<Index>().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
