use super::*;

use alloc::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use crate::rules::record::scopes::{Built, Declared, ScopeHead, members};
use crate::rules::scope::ScopeKey;

const KEYS: [&str; 3] = ["room", "members[]", "project+status"];

fn keys(texts: &[&str]) -> Vec<ScopeKey> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn declare(texts: &[&str]) -> Transaction {
    Transaction::DeclareScopes(BTreeMap::from([(todos(), keys(texts))]))
}

/// The rows of a scope: its members and leaves by their seqs, its count, and its horizon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Scope {
    members: BTreeMap<u64, String>,
    left: BTreeMap<u64, String>,
    horizon: u64,
}

/// A scope: the text of its key, and its value as JSON.
type Name = (&'static str, String);

/// The scopes of one collection, computed in the plainest way, by nothing of the code under test.
#[derive(Default)]
struct Model {
    records: BTreeMap<String, (u64, Value)>,
    /// When each record was last changed.
    changed: BTreeMap<String, (u64, i64)>,
    scopes: BTreeMap<Name, Scope>,
}

fn names(of: &Value) -> BTreeSet<Name> {
    let mut names = BTreeSet::new();
    let plain =
        |value: &Value| (!value.is_array() && !value.is_object()).then(|| value.to_string());
    names.extend(of.get("room").and_then(plain).map(|room| ("room", room)));
    for member in of.get("members").and_then(Value::as_array).into_iter().flatten() {
        names.extend(plain(member).map(|member| ("members[]", member)));
    }
    let (project, status) = (of.get("project").and_then(plain), of.get("status").and_then(plain));
    let both = project.zip(status).map(|(project, status)| alloc::format!("{project} {status}"));
    names.extend(both.map(|both| ("project+status", both)));
    names
}

impl Model {
    fn change(&mut self, id: &str, seq: u64, now: i64, after: Option<Value>) {
        let before = self.records.remove(id);
        let old = before.as_ref().map(|(_, value)| names(value)).unwrap_or_default();
        let new = after.as_ref().map(names).unwrap_or_default();
        for name in &old {
            let scope = self.scopes.entry(name.clone()).or_default();
            scope.members.remove(&before.as_ref().unwrap().0);
            if !new.contains(name) {
                scope.left.insert(seq, id.into());
            }
        }
        for name in new {
            let scope = self.scopes.entry(name).or_default();
            scope.left.retain(|_, left| left != id);
            scope.members.insert(seq, id.into());
        }
        if let Some(after) = after {
            self.records.insert(id.into(), (seq, after));
        }
        self.changed.insert(id.into(), (seq, now));
    }

    /// Forgets the leaves of records that were last changed before a time.
    fn sweep(&mut self, cutoff: i64) {
        for (id, (_, at)) in &self.changed {
            if *at < cutoff {
                for scope in self.scopes.values_mut() {
                    let gone = scope.left.iter().filter(|(_, left)| *left == id);
                    let gone: Vec<u64> = gone.map(|(seq, _)| *seq).collect();
                    for seq in gone {
                        scope.left.remove(&seq);
                        scope.horizon = scope.horizon.max(seq);
                    }
                }
            }
        }
    }
}

/// The scopes that the rows hold.
fn stored(store: &Store, model: &Model) -> BTreeMap<Name, Scope> {
    let declared = Declared::load(&store.rows, &todos()).unwrap().unwrap();
    let mut found = BTreeMap::new();
    for name in model.scopes.keys() {
        let key = declared.keys.iter().find(|key| key.key.to_string() == name.0).unwrap();
        let value = key.key.value(name.1.split(' ')).unwrap();
        let mut scope = Scope::default();
        members(&store.rows, &todos(), key.number, &value, Seq(0), &mut |id| {
            let seq = store.record(&id).unwrap().last.seq;
            scope.members.insert(seq.0, id.to_string());
            Ok(core::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        let head = ScopeHead::load(&store.rows, &todos(), key.number, &value).unwrap();
        assert_eq!(head.count, scope.members.len() as u64);
        scope.horizon = head.horizon.0;
        for id in model.changed.keys() {
            for left in store.record(id).map(|record| record.left).unwrap_or_default() {
                if left.number == key.number && left.value == value {
                    scope.left.insert(left.seq.0, id.clone());
                }
            }
        }
        found.insert(name.clone(), scope);
    }
    found
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, Value),
    Update(u8, Value),
    Delete(u8),
    Later,
    Sweep,
}

fn documents() -> impl Strategy<Value = Value> {
    let scalar = || prop_oneof![Just("1"), Just("\"1\""), Just("null"), Just("true"), Just("[1]")];
    let fields = (
        proptest::option::of(scalar()),
        proptest::option::of(proptest::collection::vec(scalar(), 0..4)),
        proptest::option::of(scalar()),
        proptest::option::of(scalar()),
        0..3u8,
    );
    fields.prop_map(|(room, members, project, status, text)| {
        let mut fields = vec![alloc::format!("\"text\":{text}")];
        fields.extend(room.map(|room| alloc::format!("\"room\":{room}")));
        fields.extend(members.map(|list| alloc::format!("\"members\":[{}]", list.join(","))));
        fields.extend(project.map(|project| alloc::format!("\"project\":{project}")));
        fields.extend(status.map(|status| alloc::format!("\"status\":{status}")));
        serde_json::from_str(&alloc::format!("{{{}}}", fields.join(","))).unwrap()
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, documents()).prop_map(|(id, value)| Step::Insert(id, value)),
        4 => (0..3u8, documents()).prop_map(|(id, value)| Step::Update(id, value)),
        3 => (0..3u8).prop_map(Step::Delete),
        1 => Just(Step::Later),
        1 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Members, leaves and horizons are those of a model that knows all records (every commit checks
    /// the checksums against the records). A declaration at any time gives the same members.
    #[test]
    fn scopes_follow_the_records(
        steps in proptest::collection::vec(steps(), 1..40),
        late in 0..40usize,
        is_late: bool,
    ) {
        let mut store = Store::new();
        let mut model = Model::default();
        if !is_late {
            store.commit(&declare(&KEYS));
        }
        for (n, step) in steps.into_iter().enumerate() {
            if is_late && n == late {
                store.commit(&declare(&KEYS));
            }
            let (id, change, after) = match step {
                Step::Insert(id, value) => (id, insert(&value.to_string()), Some(value)),
                Step::Update(id, value) => {
                    let Some((_, before)) = model.records.get(&alloc::format!("r{id}")) else { continue };
                    let mut after = before.clone();
                    for (name, value) in value.as_object().unwrap() {
                        after[name] = value.clone();
                    }
                    (id, update(&value.to_string()), Some(after))
                }
                Step::Delete(id) => (id, Change::delete(), None),
                Step::Later => {
                    store.now = Timestamp(store.now.0 + 10_000);
                    continue;
                }
                Step::Sweep => {
                    store.sweep_tombstones(5_000);
                    model.sweep(store.now.0 - 5_000);
                    continue;
                }
            };
            let id = alloc::format!("r{id}");
            if let Verdict::Applied { seq, .. } = store.plain_to(&id, change).verdict {
                model.change(&id, seq.0, store.now.0, after);
            }
        }
        if is_late {
            store.commit(&declare(&KEYS));
            store.sweep_tombstones(u64::MAX);
            let found = stored(&store, &model);
            for (name, scope) in &model.scopes {
                prop_assert_eq!(&found[name].members, &scope.members, "{:?}", name);
            }
        } else {
            prop_assert_eq!(stored(&store, &model), model.scopes);
        }
        let declared = Declared::load(&store.rows, &todos()).unwrap().unwrap();
        prop_assert!(declared.keys.iter().all(|key| matches!(key.built, Built::Since(_))));
    }
}

#[test]
fn a_record_is_refused_that_would_be_in_too_many_scopes() {
    let mut store = Store::new();
    store.commit(&declare(&["members[]"]));
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        alloc::format!(r#"{{"members":[{}]}}"#, members.join(","))
    };
    assert!(matches!(store.plain(insert(&members(64))).verdict, Verdict::Applied { .. }));
    let Verdict::Refused { code, message } = store.plain(insert(&members(65))).verdict else {
        panic!()
    };
    assert_eq!(code, ErrorCode::PayloadTooLarge);
    assert!(message.contains("members[]"), "{message}");
    assert!(matches!(store.plain(Change::delete()).verdict, Verdict::Applied { .. }));
    assert_eq!(store.record("r").unwrap().left.len(), 64);
}

#[test]
fn the_oldest_leave_of_a_record_goes_and_raises_its_scopes_horizon() {
    let mut store = Store::new();
    store.commit(&declare(&["room"]));
    for room in 0..70 {
        store.plain(insert(&alloc::format!(r#"{{"room":{room}}}"#)));
    }
    let left = store.record("r").unwrap().left;
    assert_eq!((left.len(), left[0].seq, left[63].seq), (64, Seq(7), Seq(70)));
    let key = keys(&["room"]).remove(0);
    let horizon = |room: &str| {
        let value = key.value([room].into_iter()).unwrap();
        ScopeHead::load(&store.rows, &todos(), 1, &value).unwrap().horizon
    };
    assert_eq!((horizon("4"), horizon("5")), (Seq(6), Seq(0)), "room 4 was left at 6, room 5 at 7");
}

#[test]
fn keys_that_are_no_longer_declared_leave_no_row() {
    let mut store = Store::new();
    store.commit(&declare(&KEYS));
    for id in ["a", "b", "c"] {
        store.plain_to(id, insert(r#"{"room":1,"members":[1,2],"project":1,"status":1}"#));
    }
    assert!(store.head().scoped);
    store.commit(&declare(&["room"]));
    store.sweep_tombstones(u64::MAX);
    assert!(store.head().scoped);
    store.commit(&Transaction::DeclareScopes(BTreeMap::new()));
    store.sweep_tombstones(u64::MAX);
    assert!(!store.head().scoped);
    let mut rows = 0;
    store
        .rows
        .scan(b"s", b"t", &mut |_, _| {
            rows += 1;
            Ok(crate::store::Scan::Next)
        })
        .unwrap();
    assert_eq!(rows, 0);
    // a key that is declared again begins anew, under a number of its own
    store.plain_to("a", update(r#"{"room":2}"#));
    store.commit(&declare(&["room"]));
    let declared = Declared::load(&store.rows, &todos()).unwrap().unwrap();
    assert_eq!((declared.keys[0].number, declared.keys[0].built), (4, Built::UpTo(Seq(0))));
    store.sweep_tombstones(u64::MAX);
    let declared = Declared::load(&store.rows, &todos()).unwrap().unwrap();
    assert_eq!(
        declared.keys[0].built,
        Built::Since(Seq(4)),
        "nothing is known of what left before"
    );
}

#[test]
fn a_forgotten_removal_of_a_field_raises_the_horizon_of_the_records_scopes() {
    let mut store = Store::new();
    store.commit(&declare(&["room"]));
    store.plain_to("a", insert(r#"{"room":1,"text":1}"#));
    store.plain_to("a", unset("{}", &["text"]));
    store.plain_to("b", insert(r#"{"room":2}"#));
    store.now = Timestamp(store.now.0 + 10_000);
    store.sweep_tombstones(1_000);
    let key = keys(&["room"]).remove(0);
    let horizon = |room: &str| {
        let value = key.value([room].into_iter()).unwrap();
        ScopeHead::load(&store.rows, &todos(), 1, &value).unwrap().horizon
    };
    assert_eq!((horizon("1"), horizon("2"), store.head().horizon), (Seq(2), Seq(0), Seq(2)));
    // a later removal is kept however high the collection's horizon is
    store.plain_to("b", unset(r#"{"x":1}"#, &[]));
    store.plain_to("b", unset("{}", &["x"]));
    store.plain_to("b", update(r#"{"y":1}"#));
    assert_eq!(store.record("b").unwrap().removed.len(), 1);
}
