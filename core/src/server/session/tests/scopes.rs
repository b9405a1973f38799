//! Level-1 readers of scopes: what they hold is what is in their scope.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::protocol::write::WriteKind;
use crate::rules::scope::ScopeKey;
use crate::rules::transaction::tests::{insert, unset, update};
use crate::rules::transaction::{Sweep, SweepPlace};

/// Filters, each with the model's own test of a record.
pub(super) type Test = fn(&Value) -> bool;
pub(super) const FILTERS: [(&str, Test); 6] = [
    (r#"{"room":"a"}"#, |of| of["room"] == "a"),
    (r#"{"room":1}"#, |of| of["room"].as_f64() == Some(1.0)),
    (r#"{"members[]":"ann"}"#, |of| {
        of["members"].as_array().is_some_and(|m| m.contains(&"ann".into()))
    }),
    (r#"{"members[]":true}"#, |of| {
        of["members"].as_array().is_some_and(|m| m.contains(&true.into()))
    }),
    (r#"{"status":"x","project":1}"#, |of| of["project"] == 1 && of["status"] == "x"),
    (r#"{"room":null}"#, |of| {
        of.as_object().is_some_and(|of| of.get("room") == Some(&Value::Null))
    }),
];

pub(super) fn declared(world: &mut World) {
    let keys = ["room", "members[]", "project+status"].map(|key| key.parse::<ScopeKey>().unwrap());
    let keys = BTreeMap::from([(todos(), keys.to_vec())]);
    world.store.commit(&Transaction::DeclareScopes(keys));
}

/// The knowledge of a level-1 app that puts each change into its list.
#[derive(Default)]
struct App {
    filter: usize,
    records: BTreeMap<String, Value>,
}

impl App {
    fn hear(&mut self, frame: &str) {
        let Incoming::One(message) = decode_server(frame.as_bytes(), &Limits::default()).unwrap()
        else {
            panic!("no batches at level 1");
        };
        match message {
            ServerMessage::Subscribed { .. } => {}
            ServerMessage::Sync { records, .. } => {
                let records =
                    records.into_iter().map(|of| (of.id.to_string(), value(&of.document)));
                self.records = records.collect();
            }
            ServerMessage::Change { record_id, change, .. } => {
                let before = self.records.remove(record_id.as_str());
                match change.change.kind {
                    // one that was in the scope between two pages is new to the app
                    WriteKind::Delete => {}
                    WriteKind::Insert => {
                        let document = change.change.apply(None).unwrap();
                        self.records.insert(record_id.to_string(), value(&document));
                    }
                    WriteKind::Update => {
                        let mut after = before.expect("an update of what the app has not got");
                        for (name, text) in change.change.delta.fields() {
                            let text = text.unwrap_or("null");
                            after[name] = serde_json::from_str(text).unwrap();
                        }
                        self.records.insert(record_id.to_string(), after);
                    }
                }
            }
            ServerMessage::Authenticated { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Error(_)
            | ServerMessage::Pong { .. }
            | ServerMessage::Unknown { .. } => panic!("nobody asked for {frame}"),
        }
    }
}

pub(super) fn value(document: &crate::protocol::document::Document) -> Value {
    serde_json::to_value(document).unwrap()
}

/// A document without nulls that were fields once: level 1 can't tell the two apart.
fn seen(of: &Value) -> Value {
    let fields = of.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(super) fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#""room":"a""#,
        r#""room":"b""#,
        r#""room":1"#,
        r#""room":1.0"#,
        r#""room":null"#,
        r#""room":[1]"#,
        r#""members":["ann"]"#,
        r#""members":["bob",true]"#,
        r#""members":[]"#,
        r#""members":["ann","bob"]"#,
        r#""project":1"#,
        r#""status":"x""#,
        r#""status":"y""#,
        r#""n":1"#,
        r#""n":2"#,
    ])
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, &'static str, &'static str),
    Update(u8, &'static str),
    Unset(u8, &'static str),
    Delete(u8),
    /// An app takes another filter.
    Filter(u8, usize),
    /// A socket has room.
    Pump(u8, usize),
    Settle,
    LoseRings,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let fields = prop::sample::select(vec!["room", "members", "project", "n"]);
    prop_oneof![
        4 => (0..4_u8, field(), field()).prop_map(|(id, a, b)| Step::Insert(id, a, b)),
        8 => (0..4_u8, field()).prop_map(|(id, field)| Step::Update(id, field)),
        2 => (0..4_u8, fields).prop_map(|(id, field)| Step::Unset(id, field)),
        2 => (0..4_u8).prop_map(Step::Delete),
        2 => (0..3_u8, 0..FILTERS.len()).prop_map(|(conn, filter)| Step::Filter(conn, filter)),
        3 => (0..3_u8, 1..400_usize).prop_map(|(conn, room)| Step::Pump(conn, room)),
        3 => Just(Step::Settle),
        1 => Just(Step::LoseRings),
        1 => Just(Step::Sweep),
    ]
}

struct Apps {
    world: World,
    apps: Vec<App>,
    /// The records, computed by nothing of the code under test.
    records: BTreeMap<String, Value>,
}

impl Apps {
    fn new(ring: usize, page: usize) -> Self {
        let mut world = World::new();
        declared(&mut world);
        world.rings = Rings::new(RingLimits { collection_bytes: ring, ..RingLimits::default() });
        world.limits.page.records = page;
        let mut this = Self { world, apps: Vec::new(), records: BTreeMap::new() };
        for conn in 0..3 {
            this.world.connect(u64::from(conn), Identity::Open);
            this.apps.push(App::default());
            this.filter(conn, usize::from(conn));
        }
        this
    }

    fn filter(&mut self, conn: u8, filter: usize) {
        let conn = usize::from(conn);
        self.apps[conn] = App { filter, records: BTreeMap::new() };
        self.listen();
        self.apps[conn].records.clear();
        let filter = FILTERS[filter].0;
        for kind in ["subscribe", "sync"] {
            let text = format!(
                r#"{{"type":"{kind}","collection":"todos","metadata":{{"filter":{filter}}}}}"#
            );
            self.world.say(conn as u64, &text);
            self.world.settle();
        }
        // only the answer of the `sync` counts from here on: an app that subscribes anew waits for it
        let frames = self.world.took_raw(conn as u64);
        let sync = frames.iter().rposition(|frame| frame.starts_with(r#"{"type":"sync""#)).unwrap();
        frames[sync..].iter().for_each(|frame| self.apps[conn].hear(frame));
        self.listen();
    }

    fn write(&mut self, id: u8, change: Change) {
        let name = id.to_string();
        self.world.later(1);
        self.world.elsewhere(&name, change);
        self.world.rings.check().unwrap();
        let record = self.world.store.record(&name).and_then(|record| record.document);
        match record {
            Some(document) => self.records.insert(name, value(&document)),
            None => self.records.remove(&name),
        };
    }

    fn listen(&mut self) {
        for (conn, app) in self.apps.iter_mut().enumerate() {
            self.world.took_raw(conn as u64).iter().for_each(|frame| app.hear(frame));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(id, a, b) => self.write(id, insert(&format!("{{{}}}", joined(a, b)))),
            Step::Update(id, field) => self.write(id, update(&format!("{{{field}}}"))),
            Step::Unset(id, field) => self.write(id, unset("{}", &[field])),
            Step::Delete(id) => self.write(id, Change::delete()),
            Step::Filter(conn, filter) => {
                self.world.settle();
                self.listen();
                self.filter(conn, filter);
            }
            Step::Pump(conn, room) => {
                self.world.input(u64::from(conn), SessionInput::Pump { room });
                self.world.commit_and_answer();
                self.world.read_and_answer();
            }
            Step::Settle => self.settle(),
            Step::LoseRings => {
                let head = self.world.rings.head(&todos());
                let limits = RingLimits { collection_bytes: 700, ..RingLimits::default() };
                self.world.rings = Rings::new(limits);
                self.world.rings.note_head(&todos(), head);
            }
            Step::Sweep => {
                // nobody is behind, or a level-1 reader would be sent away
                self.settle();
                self.world.later(1000);
                let retention = core::time::Duration::from_millis(1);
                let from = SweepPlace::default();
                self.world.store.commit(&Transaction::Sweep(Sweep {
                    retention,
                    from,
                    budget: 1000,
                }));
            }
        }
        self.listen();
    }

    fn settle(&mut self) {
        self.world.settle();
        self.listen();
        for (conn, app) in self.apps.iter().enumerate() {
            assert_eq!(self.world.closed(conn as u64), None);
            let expected = self.records.iter().filter(|(_, record)| FILTERS[app.filter].1(record));
            let expected: BTreeMap<_, _> =
                expected.map(|(id, of)| (id.clone(), seen(of))).collect();
            let held: BTreeMap<_, _> =
                app.records.iter().map(|(id, of)| (id.clone(), seen(of))).collect();
            assert_eq!(held, expected, "connection {conn}, {}", FILTERS[app.filter].0);
        }
    }
}

/// Two fields, or the second one where both are the same.
pub(super) fn joined(a: &str, b: &str) -> String {
    let name = |field: &str| String::from(field.split(':').next().unwrap());
    if name(a) == name(b) { b.into() } else { format!("{a},{b}") }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn an_app_with_a_filter_holds_what_is_in_its_scope(
        steps in prop::collection::vec(step(), 1..60),
        ring in prop::sample::select(vec![500_usize, 2_000, 1 << 20]),
        page in 1..4_usize,
    ) {
        let mut apps = Apps::new(ring, page);
        steps.into_iter().for_each(|step| apps.step(step));
        apps.settle();
    }
}

fn filtered(world: &mut World, conn: u64, filter: &str) {
    world.connect(conn, Identity::Open);
    let text = format!(r#"{{"type":"subscribe","collection":"todos","filter":{filter}}}"#);
    world.say(conn, &text);
    world.settle();
}

fn kinds(world: &mut World, conn: u64) -> Vec<String> {
    let frames = world.took_raw(conn);
    let kind = |frame: &String| {
        let frame: Value = serde_json::from_str(frame).unwrap();
        format!("{} {}", frame["type"].as_str().unwrap(), frame["recordId"].as_str().unwrap_or("-"))
    };
    frames.iter().map(kind).collect()
}

#[test]
fn a_record_enters_as_an_insert_and_leaves_as_a_delete() {
    let world = &mut World::new();
    declared(world);
    world.elsewhere("1", insert(r#"{"room":"b","n":1}"#));
    filtered(world, 1, r#"{"room":"a"}"#);
    world.elsewhere("1", update(r#"{"room":"a"}"#));
    world.elsewhere("1", update(r#"{"n":2}"#));
    world.elsewhere("1", update(r#"{"room":"b"}"#));
    world.elsewhere("1", update(r#"{"n":3}"#));
    world.elsewhere("1", Change::delete());
    world.settle();
    assert_eq!(kinds(world, 1), ["subscribed -", "insert 1", "update 1", "delete 1"]);
}

#[test]
fn a_quiet_scope_of_a_busy_collection_is_not_behind() {
    let world = &mut World::new();
    declared(world);
    world.rings = Rings::new(RingLimits { collection_bytes: 2_000, ..RingLimits::default() });
    filtered(world, 1, r#"{"room":"a"}"#);
    world.took(1);
    for n in 0..100 {
        world.elsewhere(&n.to_string(), insert(r#"{"room":"b"}"#));
    }
    world.elsewhere("x", insert(r#"{"room":"a"}"#));
    // nobody has looked since: the ring has forgotten most of the others' changes
    world.settle();
    assert_eq!(kinds(world, 1), ["insert x"]);
    assert_eq!(world.session(1).status().counters.fell_behind, 0);
}

#[test]
fn a_filter_that_names_no_scope_is_refused() {
    let world = &mut World::new();
    declared(world);
    for (filter, why) in [
        (r#"{"text":"x"}"#, "has no scope key text"),
        (r#"{"project":1}"#, "has no scope key project"),
        (r#"{"room":["a"]}"#, "no record can be in such a scope"),
        (r#"{}"#, "`filter` is empty"),
    ] {
        filtered(world, 1, filter);
        let text = world.took_raw(1).concat();
        assert!(text.contains("INVALID_MESSAGE") && text.contains(why), "{filter}: {text}");
        assert_eq!(world.session(1).status().subscriptions, 0, "{filter}");
    }
    world.connect_resumable(2);
    world.say(2, r#"{"type":"subscribe","collection":"todos","filter":{"room":"a"}}"#);
    assert!(world.took_raw(2).concat().contains("`filter` is for level 1"));
}
