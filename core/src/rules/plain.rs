//! The meaning of a plain (level-1) server's messages for a record.
//!
//! A plain server has no seqs, so everything is compared by value: as JSON, not as text, because a
//! backend may write `1.0` as `1` and reorder the names inside a value. A missing field and a null
//! field are equal there, because level 1 can't express a removal (PROTOCOL 16.7).

use alloc::vec::Vec;

use serde_json::Value;

use crate::protocol::delta::{Delta, side_by_side};
use crate::protocol::document::Document;
use crate::protocol::write::{Change, WriteKind};

/// The evidence in a server's state of a record about writes that may have reached it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The first writes, so many, have arrived.
    Shown(usize),
    /// No write shows, and the fields that they touch are otherwise unchanged.
    Missing,
    /// The fields that the writes touch were changed otherwise.
    Overtaken,
}

/// Returns `true` if two JSON texts have the same value.
pub(crate) fn same_value(one: &str, other: &str) -> bool {
    one == other
        || match (serde_json::from_str(one), serde_json::from_str(other)) {
            (Ok(one), Ok(other)) => equal(&one, &other),
            (Err(_), _) | (_, Err(_)) => false,
        }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        // a peer may hold every number as a double
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |(name, one)| other.get(name).is_some_and(|other| equal(one, other));
            one.len() == other.len() && one.iter().all(has)
        }
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => one == other,
    }
}

/// Returns `true` if a field has the same value in two states, each of which may lack it.
pub(crate) fn same_field(one: Option<&str>, other: Option<&str>) -> bool {
    match (present(one), present(other)) {
        (None, None) => true,
        (Some(one), Some(other)) => same_value(one, other),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| *text != "null")
}

/// The server's state, with the JSON texts of a known state for values that are equal. It equals
/// the known state exactly if nothing differs by value.
pub(crate) fn adopt(known: Option<&Document>, told: &Document) -> Document {
    let Some(known) = known else { return told.clone() };
    let fields: Vec<_> = side_by_side(known, told)
        .filter_map(|(name, known, told)| {
            Some((name, if same_field(known, told) { known } else { told }?))
        })
        .collect();
    Document::of_sorted(&fields)
}

/// Returns a new state of the server, with the app's JSON text for each changed value that equals the
/// app's. The echo of an own write then equals the write, however the server formats JSON.
pub(crate) fn in_own_words(
    known: Option<&Document>,
    own: Option<&Document>,
    new: Document,
) -> Document {
    let Some(own) = own else { return new };
    let is_known = |name: &str, text| known.and_then(|known| known.text(name)) == text;
    let fields: Vec<_> = side_by_side(own, &new)
        .filter_map(|(name, own, new)| {
            let own = own.filter(|_| !is_known(name, new) && same_field(own, new));
            Some((name, own.or(new)?))
        })
        .collect();
    Document::of_sorted(&fields)
}

/// The state after a plain server's change. The outer option is `None` if it is unknown, because
/// the change updates a record that is not stored.
pub(crate) fn told(known: Option<&Document>, change: &Change) -> Option<Option<Document>> {
    match (change.kind, known) {
        (WriteKind::Delete, _) => Some(None),
        (WriteKind::Insert, known) => Some(Some(adopt(known, &change.delta.set))),
        (WriteKind::Update, None) => None,
        (WriteKind::Update, Some(known)) => Some(Some(merge(known, &change.delta))),
    }
}

/// Applies the received fields to the known ones; a null removes a field.
fn merge(known: &Document, delta: &Delta) -> Document {
    let fields: Vec<_> = side_by_side(known, &delta.set)
        .filter(|(name, ..)| delta.unset.iter().all(|unset| **unset != **name))
        .filter_map(|(name, known, told)| {
            let text = match told {
                Some(_) if same_field(known, told) => known,
                Some(_) => present(told),
                None => known,
            };
            Some((name, text?))
        })
        .collect();
    Document::of_sorted(&fields)
}

/// Compares a server's state with writes that were sent in this order on top of `base`. At least
/// the first `sent` of them must have arrived before the state was read; the others may have.
pub(crate) fn arrival(
    base: Option<&Document>,
    writes: &[&Change],
    sent: usize,
    server: Option<&Document>,
) -> Arrival {
    let mut states = Vec::with_capacity(writes.len() + 1);
    states.push(base.cloned());
    for write in writes {
        let next = write.apply(states.last().and_then(Option::as_ref));
        states.push(next);
    }
    let arrived = (sent.max(1)..=writes.len())
        .rev()
        .find(|count| shows(&states[*count], &writes[..*count], base, server));
    if let Some(count) = arrived {
        return Arrival::Shown(count);
    }
    let untouched = |name: &str| {
        let shown = server.and_then(|server| server.text(name));
        // these writes can have made or found every value in between
        states
            .iter()
            .any(|state| same_field(state.as_ref().and_then(|state| state.text(name)), shown))
    };
    let exists = server.is_some();
    let known = states.iter().any(|state| state.is_some() == exists);
    // an insert touches every field: without a base, someone else's record has other fields
    let touched = |name: &&str| writes.iter().any(|write| write.touches(name));
    let fits = names(&states, server).filter(touched).all(untouched);
    if known && fits { Arrival::Missing } else { Arrival::Overtaken }
}

/// Returns `true` if a server's state includes the effect of these writes.
fn shows(
    made: &Option<Document>,
    writes: &[&Change],
    base: Option<&Document>,
    server: Option<&Document>,
) -> bool {
    let (Some(made), Some(server)) = (made, server) else {
        return made.is_none() && server.is_none();
    };
    let agrees = |name: &str| same_field(made.text(name), server.text(name));
    let touched = |name: &str| writes.iter().any(|write| write.touches(name));
    let updates = writes.iter().rev().take_while(|write| write.kind == WriteKind::Update);
    // a server may add fields of its own to what it stores, but none that was removed last
    made.iter().all(|(name, _)| !touched(name) || agrees(name))
        && base.is_none_or(|base| base.iter().all(|(name, _)| !touched(name) || agrees(name)))
        && updates.flat_map(|write| write.delta.fields()).all(|(name, _)| agrees(name))
}

fn names<'a>(
    states: &'a [Option<Document>],
    server: Option<&'a Document>,
) -> impl Iterator<Item = &'a str> {
    let states = states.iter().filter_map(Option::as_ref).chain(server);
    states.flat_map(|state| state.iter().map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::document::tests::documents;
    use crate::protocol::limits::Limits;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn doc(json: &str) -> Document {
        Document::parse(json, &Limits::default()).unwrap()
    }

    fn state(json: &str) -> Option<Document> {
        (!json.is_empty()).then(|| doc(json))
    }

    fn update(json: &str) -> Change {
        Change::update(Delta::new(doc(json), Vec::new()))
    }

    #[test]
    fn values_are_compared_as_values() {
        for (one, other) in [
            ("1", "1.0"),
            ("1e2", "100"),
            ("9007199254740993", "9007199254740992"),
            (r#""\u00e9""#, "\"é\""),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b": [2.0], "a": 1 }"#),
        ] {
            assert!(same_value(one, other), "{one} {other}");
        }
        for (one, other) in [("1", "\"1\""), ("1", "2"), ("{}", r#"{"a":null}"#), ("[1]", "[1,1]")]
        {
            assert!(!same_value(one, other), "{one} {other}");
        }
        assert!(same_field(None, Some("null")) && !same_field(None, Some("0")));
    }

    #[test]
    fn what_says_the_same_stays_as_it_was_written_here() {
        let known = doc(r#"{"n":1.0,"x":null,"gone":3}"#);
        let told = doc(r#"{"n":1,"y":null,"new":2}"#);
        assert_eq!(adopt(Some(&known), &told).to_string(), r#"{"n":1.0,"new":2,"x":null}"#);
    }

    #[test]
    fn an_own_write_that_comes_back_stays_as_it_was_written() {
        let known = doc(r#"{"mine":0,"other":1,"theirs":2}"#);
        let own = doc(r#"{"mine":1.0,"other":1.0,"theirs":2.0,"unsent":4}"#);
        let new = doc(r#"{"mine":1,"other":1,"theirs":3}"#);
        let taken = |known, own| in_own_words(known, own, new.clone()).to_string();
        assert_eq!(taken(Some(&known), Some(&own)), r#"{"mine":1.0,"other":1,"theirs":3}"#);
        assert_eq!(taken(None, Some(&own)), r#"{"mine":1.0,"other":1.0,"theirs":3}"#);
        assert_eq!(taken(Some(&known), None), new.to_string());
    }

    #[test]
    fn an_update_is_a_merge_and_a_null_removes() {
        let known = doc(r#"{"a":1,"b":2,"c":null}"#);
        let after = told(Some(&known), &update(r#"{"a":null,"b":2.0,"c":null,"d":4,"e":null}"#));
        assert_eq!(after.unwrap().unwrap().to_string(), r#"{"b":2,"c":null,"d":4}"#);
        let unset = Change::update(Delta::new(doc(r#"{"d":4}"#), alloc::vec!["a".into()]));
        let after = told(Some(&known), &unset).unwrap().unwrap();
        assert_eq!(after.to_string(), r#"{"b":2,"c":null,"d":4}"#, "so does its name alone");
        assert_eq!(told(None, &update("{}")), None, "of a record that is not held");
        assert_eq!(told(Some(&known), &Change::delete()), Some(None));
        let whole = told(Some(&known), &Change::insert(doc("{\"a\":1}"))).unwrap().unwrap();
        assert_eq!(whole.to_string(), r#"{"a":1,"c":null}"#, "to level 1 a null is nothing");
    }

    #[test]
    fn the_servers_state_says_what_became_of_writes() {
        use Arrival::{Missing, Overtaken, Shown};
        let one = [update(r#"{"a":1}"#)];
        let two = [update(r#"{"a":1}"#), update(r#"{"a":2,"b":1}"#)];
        let insert = [Change::insert(doc(r#"{"a":1}"#))];
        let delete = [Change::delete()];
        let cases: [(&str, &[Change], usize, &str, Arrival); 19] = [
            (r#"{"a":0}"#, &one, 1, r#"{"a":1}"#, Shown(1)),
            (r#"{"a":0}"#, &one, 1, r#"{"a":1.0,"z":9}"#, Shown(1)),
            (r#"{"a":0}"#, &one, 1, r#"{"a":0,"z":9}"#, Missing),
            (r#"{"a":0}"#, &one, 1, r#"{"a":7}"#, Overtaken),
            (r#"{"a":0}"#, &one, 1, "", Overtaken),
            (r#"{"a":0}"#, &two, 2, r#"{"a":2,"b":1}"#, Shown(2)),
            (r#"{"a":0}"#, &two, 1, r#"{"a":1}"#, Shown(1)),
            (r#"{"a":0}"#, &two, 2, r#"{"a":1}"#, Missing),
            (r#"{"a":0}"#, &two, 2, r#"{"a":0}"#, Missing),
            (r#"{"a":0}"#, &two, 2, r#"{"a":3}"#, Overtaken),
            ("", &insert, 1, r#"{"a":1,"createdAt":"now"}"#, Shown(1)),
            ("", &insert, 1, "", Missing),
            ("", &insert, 1, r#"{"a":2}"#, Overtaken),
            (r#"{"b":1}"#, &insert, 1, r#"{"a":1,"b":1}"#, Missing),
            (r#"{"b":1}"#, &insert, 1, r#"{"a":1,"b":null}"#, Shown(1)),
            (r#"{"a":0}"#, &delete, 1, "", Shown(1)),
            (r#"{"a":0}"#, &delete, 1, r#"{"a":0}"#, Missing),
            (r#"{"a":0}"#, &delete, 1, r#"{"a":5}"#, Overtaken),
            (r#"{"a":0}"#, &delete, 1, r#"{"a":0,"b":5}"#, Overtaken),
        ];
        for (base, writes, sent, server, expected) in cases {
            let writes: Vec<_> = writes.iter().collect();
            let found = arrival(state(base).as_ref(), &writes, sent, state(server).as_ref());
            assert_eq!(found, expected, "{base} {writes:?} {server}");
        }
    }

    #[test]
    fn a_removed_field_shows_as_nothing() {
        let remove = Change::update(Delta::new(Document::empty(), alloc::vec!["a".into()]));
        let base = state(r#"{"a":1}"#);
        for (server, expected) in [
            (r#"{}"#, Arrival::Shown(1)),
            (r#"{"a":null}"#, Arrival::Shown(1)),
            (r#"{"a":1}"#, Arrival::Missing),
            (r#"{"a":2}"#, Arrival::Overtaken),
        ] {
            assert_eq!(arrival(base.as_ref(), &[&remove], 1, state(server).as_ref()), expected);
        }
    }

    #[test]
    fn a_removal_behind_an_insert_has_not_arrived_while_the_field_is_there() {
        let remove = Change::update(Delta::new(Document::empty(), alloc::vec!["a".into()]));
        let insert = Change::insert(doc(r#"{"a":1,"b":1}"#));
        let found = |writes: &[&Change], server| arrival(None, writes, 1, state(server).as_ref());
        assert_eq!(found(&[&insert, &remove], r#"{"a":1,"b":1}"#), Arrival::Shown(1));
        assert_eq!(found(&[&insert, &remove], r#"{"b":1,"id":7}"#), Arrival::Shown(2));
        assert_eq!(found(&[&remove], r#"{"a":1}"#), Arrival::Overtaken, "nobody wrote it here");
        // fields from before the last insert are dropped
        let again = Change::insert(doc(r#"{"b":2}"#));
        let writes = [&insert, &remove, &Change::delete(), &again];
        assert_eq!(found(&writes, r#"{"a":"by default","b":2}"#), Arrival::Shown(4));
    }

    proptest! {
        #[test]
        fn what_was_applied_shows_and_what_was_not_is_missing(
            base in proptest::option::of(documents()),
            states in proptest::collection::vec(proptest::option::of(documents()), 1..4),
        ) {
            let mut writes = Vec::new();
            let mut last = base.clone();
            for state in states {
                let Some(write) = Change::between(last.as_ref(), state.as_ref()) else { continue };
                last = state;
                writes.push(write);
            }
            prop_assume!(!writes.is_empty());
            let writes: Vec<_> = writes.iter().collect();
            let count = writes.len();
            let all = arrival(base.as_ref(), &writes, count, last.as_ref());
            prop_assert_eq!(all, Arrival::Shown(count));
            let none = arrival(base.as_ref(), &writes, count, base.as_ref());
            prop_assert_ne!(none, Arrival::Overtaken);
        }

        #[test]
        fn adopting_is_by_value_and_keeps_what_is_known(a in documents(), b in documents()) {
            let adopted = adopt(Some(&a), &b);
            for name in ["a", "b", "c", "d", "e"] {
                prop_assert!(same_field(adopted.text(name), b.text(name)));
            }
            prop_assert_eq!(adopt(Some(&a), &a), a.clone());
            prop_assert_eq!(adopt(Some(&b), &adopted), b);
        }
    }
}
