//! Readers of sets of scopes at level 2: what they hold is what is in the scopes that they hold. The
//! reader is written from PROTOCOL 8.22 to 8.33, and shares nothing with the code under test.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::Value;

use super::scopes::{FILTERS, declared, field, joined, value};
use super::*;
use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::message::{Ack, ServerChange};
use crate::protocol::name::{RecordId, Seq};
use crate::protocol::scopes::ScopePage;
use crate::protocol::write::WriteKind;
use crate::rules::transaction::tests::{insert, unset, update};

#[derive(Clone, PartialEq, Debug)]
enum Place {
    Loaded,
    Loading { epoch: String, snapshot_seq: u64, after: u64 },
    Waiting,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Phase {
    /// A `subscribe` is under way, or none was sent.
    Asked,
    CatchingUp,
    Live,
}

#[derive(Clone, Debug)]
struct Row {
    document: Document,
    seq: u64,
    /// Shown since the last reload.
    fresh: bool,
}

/// The knowledge of a client.
struct Replica {
    places: BTreeMap<usize, Place>,
    cursor: Option<(String, u64)>,
    resume: Option<(String, u64)>,
    /// The cursor does not vouch for the rows if the epoch is another.
    behind: bool,
    rows: BTreeMap<String, Row>,
    set: u64,
    phase: Phase,
    epoch: String,
    /// Own writes without a verdict.
    sent: Vec<(u64, String, Change)>,
    number: u64,
    confirmed: u64,
}

/// The scopes, as a message names them.
fn named(scope: usize) -> String {
    let of: serde_json::Map<String, Value> = serde_json::from_str(FILTERS[scope].0).unwrap();
    let by: Vec<_> = of.keys().map(|part| format!("{part:?}")).collect();
    let is: Vec<_> = of.values().map(ToString::to_string).collect();
    format!(r#""by":[{}],"is":[{}]"#, by.join(","), is.join(","))
}

impl Replica {
    fn new() -> Self {
        Self {
            places: BTreeMap::new(),
            cursor: None,
            resume: None,
            behind: false,
            rows: BTreeMap::new(),
            set: 0,
            phase: Phase::Asked,
            epoch: "e1".into(),
            sent: Vec::new(),
            number: 0,
            confirmed: 0,
        }
    }

    /// The scopes that hold a document: those that are loaded or loading.
    fn holds(&self, document: &Document) -> bool {
        let document = value(document);
        let mut held = self.places.iter().filter(|(_, place)| **place != Place::Waiting);
        held.any(|(scope, _)| FILTERS[*scope].1(&document))
    }

    fn take_out(&mut self, scope: usize) {
        if matches!(self.places.remove(&scope), Some(Place::Loading { .. })) {
            self.behind = true;
        }
        self.behind |= self.resume.take().is_some();
        self.drop_unheld();
    }

    fn drop_unheld(&mut self) {
        let mut rows = core::mem::take(&mut self.rows);
        rows.retain(|_, row| self.holds(&row.document));
        self.rows = rows;
        if !self.places.values().any(|place| *place == Place::Loaded) && self.cursor.is_some() {
            self.reload();
        }
    }

    fn reload(&mut self) {
        self.places.values_mut().for_each(|place| *place = Place::Waiting);
        (self.cursor, self.resume, self.behind) = (None, None, false);
        self.rows.values_mut().for_each(|row| row.fresh = false);
    }

    fn subscribe(&mut self) -> String {
        let of_epoch = self.cursor.as_ref().map(|(epoch, _)| epoch.clone()).or_else(|| {
            self.places.values().find_map(|place| match place {
                Place::Loading { epoch, .. } => Some(epoch.clone()),
                Place::Loaded | Place::Waiting => None,
            })
        });
        if self.behind && of_epoch.as_ref() != Some(&self.epoch) {
            self.reload();
        }
        self.set += 1;
        self.phase = Phase::Asked;
        let scope = |(scope, place): (&usize, &Place)| {
            let place = match place {
                Place::Loaded => String::new(),
                Place::Waiting => r#","new":true"#.into(),
                Place::Loading { epoch, snapshot_seq, after } => format!(
                    r#","resume":{{"epoch":"{epoch}","snapshotSeq":{snapshot_seq},"after":{after}}}"#
                ),
            };
            format!("{{{}{place}}}", named(*scope))
        };
        let scopes: Vec<_> = self.places.iter().map(scope).collect();
        let cursor = self.cursor.as_ref().map_or(String::new(), |(epoch, seq)| {
            let resume = self.resume.as_ref().map_or(String::new(), |(epoch, seq)| {
                format!(r#","resume":{{"epoch":"{epoch}","seq":{seq}}}"#)
            });
            format!(r#""cursor":{{"epoch":"{epoch}","seq":{seq}{resume}}},"#)
        });
        format!(
            r#"{{"type":"subscribe","collection":"todos","metadata":{{{cursor}"set":{},"scopes":[{}]}}}}"#,
            self.set,
            scopes.join(",")
        )
    }

    fn hear(&mut self, frame: &str) {
        match decode_server(frame.as_bytes(), &Limits::default()).unwrap() {
            Incoming::One(message) => self.message(message),
            Incoming::Batch(messages) => {
                messages.into_iter().for_each(|message| self.message(message.unwrap()));
            }
        }
    }

    fn message(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Pong { welcome, .. } => {
                let welcome = welcome.unwrap();
                self.epoch = welcome.epoch.to_string();
            }
            ServerMessage::Ack(ack) => self.ack(&ack),
            // the record is not there any more: the next write takes the number
            ServerMessage::Error(error) if error.mutation.is_some() => {
                self.sent.clear();
                self.number = self.confirmed;
            }
            ServerMessage::Subscribed { set, mode, .. } if set == Some(self.set) => {
                self.phase = Phase::CatchingUp;
                if mode == Some(Mode::Snapshot) {
                    self.reload();
                }
            }
            ServerMessage::Subscribed { .. } => {}
            ServerMessage::Change { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
                if self.phase == Phase::Asked => {}
            ServerMessage::Change { record_id, change, prev, .. } => {
                self.change(&record_id, &change, prev);
            }
            ServerMessage::Load(page) => self.load(page),
            ServerMessage::Synced { cursor, count, checksum, set, .. } => {
                assert_eq!(set, Some(self.set));
                self.synced((cursor.epoch.to_string(), cursor.seq.0), count, checksum.unwrap());
            }
            other @ (ServerMessage::Authenticated { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Sync { .. }
            | ServerMessage::Error(_)
            | ServerMessage::Unknown { .. }) => panic!("{other:?}"),
        }
    }

    fn change(&mut self, id: &RecordId, change: &ServerChange, prev: Option<Seq>) {
        let seq = change.seq.unwrap().0;
        let known = self.rows.get(id.as_str()).filter(|row| row.fresh).map_or(0, |row| row.seq);
        if self.phase == Phase::Live {
            if change.change.kind == WriteKind::Update {
                assert_eq!(prev.map(|prev| prev.0), Some(known), "the record's own seq");
            }
            let cursor = self.cursor.as_mut().unwrap();
            assert!(seq > cursor.1, "each change once, in the order of the seqs");
            cursor.1 = seq;
        } else {
            self.resume = Some((self.epoch.clone(), seq));
        }
        if seq > known {
            self.apply(id.as_str(), &change.change, seq);
        }
    }

    fn apply(&mut self, id: &str, change: &Change, seq: u64) {
        let before = self.rows.remove(id);
        if change.kind == WriteKind::Update {
            assert!(
                before.as_ref().is_some_and(|row| row.fresh),
                "fields of a record not held: {id}"
            );
        }
        let Some(document) = change.apply(before.map(|row| row.document).as_ref()) else { return };
        assert!(self.holds(&document), "a record outside of the set came whole: {id}");
        self.rows.insert(id.into(), Row { document, seq, fresh: true });
    }

    fn load(&mut self, page: ScopePage) {
        assert_eq!(page.set, self.set);
        let name = |scope: &usize| {
            let of: serde_json::Map<String, Value> =
                serde_json::from_str(FILTERS[*scope].0).unwrap();
            of.into_iter().map(|(part, value)| (part, value.to_string())).collect::<Vec<_>>()
        };
        let scope = *self.places.keys().find(|scope| name(scope) == page.scope.parts).unwrap();
        let snapshot_seq = page.snapshot_seq.0;
        match &self.places[&scope] {
            Place::Waiting => assert_eq!(page.after, None),
            Place::Loading { snapshot_seq: began, after, .. } => {
                assert_eq!((page.after, snapshot_seq), (Some(Seq(*after)), *began));
            }
            Place::Loaded => panic!("it is loaded"),
        }
        self.behind = true;
        let epoch = self.epoch.clone();
        let place = match page.up_to {
            Some(after) => Place::Loading { epoch: epoch.clone(), snapshot_seq, after: after.0 },
            None => Place::Loaded,
        };
        self.places.insert(scope, place);
        if page.up_to.is_none() && self.cursor.is_none() {
            self.cursor = Some((epoch, snapshot_seq));
        }
        for record in page.records {
            assert!(FILTERS[scope].1(&value(&record.document)));
            let (id, seq) = (record.id.to_string(), record.seq.unwrap().0);
            if self.rows.get(&id).is_none_or(|row| !row.fresh || seq > row.seq) {
                self.rows.insert(id, Row { document: record.document, seq, fresh: true });
            }
        }
        for left in page.left {
            if self.rows.get(left.id.as_str()).is_some_and(|row| left.seq.0 > row.seq) {
                self.rows.remove(left.id.as_str());
            }
        }
    }

    fn synced(&mut self, cursor: (String, u64), count: u64, checksum: Checksum) {
        assert!(self.places.values().all(|place| *place == Place::Loaded), "all is loaded");
        self.phase = Phase::Live;
        self.cursor = Some(cursor);
        (self.resume, self.behind) = (None, false);
        self.rows.retain(|_, row| row.fresh);
        let (mut sum, mut live) = (0_u64, 0);
        for (id, row) in &self.rows {
            let of = value(&row.document);
            let times = self.places.keys().filter(|scope| FILTERS[**scope].1(&of)).count() as u64;
            let mut one = Checksum::default();
            one.add(&RecordId::new(id).unwrap(), Seq(row.seq), &row.document);
            sum = sum.wrapping_add(one.0.wrapping_mul(times));
            live += times;
        }
        assert_eq!((live, sum), (count, checksum.0), "the sums over the set");
    }

    fn ack(&mut self, ack: &Ack) {
        assert_eq!(ack.mutation.0, self.confirmed + 1, "acks in their order");
        self.confirmed += 1;
        let (_, id, change) = self.sent.remove(0);
        let Some(seq) = ack.seq.filter(|_| self.phase == Phase::Live) else { return };
        let cursor = self.cursor.as_mut().unwrap();
        assert!(seq.0 > cursor.1);
        cursor.1 = seq.0;
        let before = self.rows.remove(&id);
        assert!(change.kind == WriteKind::Insert || before.is_some(), "the record can be told");
        if let Some(document) = change.apply(before.map(|row| row.document).as_ref())
            && self.holds(&document)
        {
            self.rows.insert(id, Row { document, seq: seq.0, fresh: true });
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, &'static str, &'static str),
    Update(u8, &'static str),
    Unset(u8, &'static str),
    Delete(u8),
    /// A write of the client's own.
    Own(u8, u8, &'static str),
    /// A client adds a scope to its set, or takes it out.
    Toggle(u8, usize),
    Reconnect(u8),
    Pump(u8, usize),
    Commit,
    Read,
    Settle,
    LoseRings,
    Sweep,
    Save,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let fields = prop::sample::select(vec!["room", "members", "project", "n"]);
    prop_oneof![
        (0..4_u8, field(), field()).prop_map(|(id, a, b)| Step::Insert(id, a, b)),
        (0..4_u8, field()).prop_map(|(id, field)| Step::Update(id, field)),
        (0..4_u8, field()).prop_map(|(id, field)| Step::Update(id, field)),
        prop_oneof![
            (0..4_u8, fields).prop_map(|(id, field)| Step::Unset(id, field)),
            (0..4_u8).prop_map(Step::Delete),
        ],
        (0..2_u8, 0..4_u8, field()).prop_map(|(conn, id, field)| Step::Own(conn, id, field)),
        (0..2_u8, 0..FILTERS.len()).prop_map(|(conn, scope)| Step::Toggle(conn, scope)),
        (0..2_u8, 1..400_usize).prop_map(|(conn, room)| Step::Pump(conn, room)),
        prop_oneof![Just(Step::Commit), Just(Step::Read), Just(Step::Settle)],
        prop_oneof![
            (0..2_u8).prop_map(Step::Reconnect),
            Just(Step::LoseRings),
            Just(Step::Sweep),
            Just(Step::Save),
            Just(Step::Restore),
        ],
    ]
}

struct Readers {
    world: World,
    replicas: Vec<Replica>,
    /// The connection of each, and their number so far.
    conns: Vec<u64>,
    next: u64,
    saved: Option<crate::store::MemoryRows>,
    epochs: u64,
}

impl Readers {
    fn new(ring: usize, page: usize) -> Self {
        let mut world = World::new();
        declared(&mut world);
        world.rings = Rings::new(RingLimits { collection_bytes: ring, ..RingLimits::default() });
        world.limits.page.records = page;
        let replicas = vec![Replica::new(), Replica::new()];
        let mut this =
            Self { world, replicas, conns: vec![0; 2], next: 10, saved: None, epochs: 1 };
        for of in 0..2 {
            this.replicas[of].places.insert(of, Place::Waiting);
            this.connect(of);
        }
        this
    }

    fn connect(&mut self, of: usize) {
        self.next += 1;
        let conn = self.next;
        self.world.connect(conn, Identity::Open);
        self.world.hello(conn, 1);
        self.world.commit_and_answer();
        self.conns[of] = conn;
        let replica = &mut self.replicas[of];
        // each connection is a client of its own: writes are another test's affair
        (replica.number, replica.confirmed) = (0, 0);
        replica.sent.clear();
        replica.set = 0;
        self.listen();
        let subscribe = self.replicas[of].subscribe();
        self.world.say(conn, &subscribe);
    }

    fn disconnect(&mut self, of: usize) {
        self.world.conns.remove(&self.conns[of]);
    }

    fn listen(&mut self) {
        for (of, conn) in self.conns.iter().enumerate() {
            if self.world.conns.contains_key(conn) {
                let frames = self.world.took_raw(*conn);
                frames.iter().for_each(|frame| self.replicas[of].hear(frame));
            }
        }
    }

    fn elsewhere(&mut self, id: u8, change: Change) {
        self.world.later(1);
        self.world.elsewhere(&id.to_string(), change);
        self.world.rings.check().unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(id, a, b) => self.elsewhere(id, insert(&format!("{{{}}}", joined(a, b)))),
            Step::Update(id, field) => self.elsewhere(id, update(&format!("{{{field}}}"))),
            Step::Unset(id, field) => self.elsewhere(id, unset("{}", &[field])),
            Step::Delete(id) => self.elsewhere(id, Change::delete()),
            Step::Own(of, id, field) => self.own(usize::from(of), id, field),
            Step::Toggle(of, scope) => self.toggle(usize::from(of), scope),
            Step::Reconnect(of) => {
                self.disconnect(usize::from(of));
                self.connect(usize::from(of));
            }
            Step::Pump(of, room) => {
                self.world.input(self.conns[usize::from(of)], SessionInput::Pump { room });
            }
            Step::Commit => self.world.commit_and_answer(),
            Step::Read => self.world.read_and_answer(),
            Step::Settle => self.settle(),
            Step::LoseRings => {
                let head = self.world.rings.head(&todos());
                self.world.rings =
                    Rings::new(RingLimits { collection_bytes: 700, ..RingLimits::default() });
                self.world.rings.note_head(&todos(), head);
            }
            Step::Sweep => {
                self.world.later(1000);
                self.world.store.sweep_tombstones(1);
            }
            Step::Save => self.saved = Some(self.world.store.rows.clone()),
            Step::Restore => self.restore(),
        }
        self.listen();
    }

    fn own(&mut self, of: usize, id: u8, field: &str) {
        let exists = self.world.store.record(&id.to_string()).is_some_and(|r| r.document.is_some());
        let replica = &mut self.replicas[of];
        replica.number += 1;
        let (kind, change) = match exists {
            true => ("update", update(&format!("{{{field}}}"))),
            false => ("insert", insert(&format!("{{{field}}}"))),
        };
        replica.sent.push((replica.number, id.to_string(), change));
        let text = format!(
            r#"{{"type":"{kind}","collection":"todos","recordId":"{id}","data":{{{field}}},"metadata":{{"mutation":{}}}}}"#,
            replica.number
        );
        self.world.later(1);
        self.world.say(self.conns[of], &text);
        self.world.commit_and_answer();
    }

    fn toggle(&mut self, of: usize, scope: usize) {
        let replica = &mut self.replicas[of];
        match replica.places.get(&scope) {
            None => drop(replica.places.insert(scope, Place::Waiting)),
            Some(_) if replica.places.len() > 1 => replica.take_out(scope),
            Some(_) => return,
        }
        let subscribe = replica.subscribe();
        self.world.say(self.conns[of], &subscribe);
    }

    fn restore(&mut self) {
        let Some(saved) = self.saved.clone() else { return };
        (0..2).for_each(|of| self.disconnect(of));
        self.world.store.rows = saved;
        self.epochs += 1;
        self.world.store.begin(&format!("e{}", self.epochs));
        self.world.rings = Rings::new(RingLimits::default());
        let head = self.world.store.head().seq;
        self.world.rings.note_head(&todos(), head);
        self.saved = None;
        (0..2).for_each(|of| self.connect(of));
    }

    fn settle(&mut self) {
        self.world.settle();
        self.listen();
        for (of, replica) in self.replicas.iter().enumerate() {
            assert_eq!(self.world.closed(self.conns[of]), None);
            assert_eq!(replica.phase, Phase::Live, "reader {of}");
            assert!(replica.sent.is_empty(), "reader {of} has a verdict on each write");
            let records = (0..4_u8).filter_map(|id| {
                let record = self.world.store.record(&id.to_string())?;
                Some((id.to_string(), record.last.seq.0, record.document?))
            });
            let expected: Vec<_> = records
                .filter(|(.., of)| replica.places.keys().any(|s| FILTERS[*s].1(&value(of))))
                .map(|(id, seq, of)| (id, seq, value(&of)))
                .collect();
            let held =
                replica.rows.iter().map(|(id, row)| (id.clone(), row.seq, value(&row.document)));
            assert_eq!(held.collect::<Vec<_>>(), expected, "reader {of}, {:?}", replica.places);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_of_a_set_holds_what_is_in_its_scopes(
        steps in prop::collection::vec(step(), 1..80),
        ring in prop::sample::select(vec![500_usize, 2_000, 1 << 20]),
        page in 1..4_usize,
    ) {
        let mut readers = Readers::new(ring, page);
        steps.into_iter().for_each(|step| readers.step(step));
        readers.settle();
    }
}

/// Subscribes so many rooms of one record each. Returns the number of reads, and the sizes of the pages.
fn load_rooms(rooms: usize, page: usize) -> (usize, Vec<usize>) {
    let mut world = World::new();
    declared(&mut world);
    world.limits.page.records = page;
    for room in 0..rooms {
        world.elsewhere(&room.to_string(), insert(&format!(r#"{{"room":{room}}}"#)));
    }
    world.connect(1, Identity::Open);
    world.hello(1, 1);
    world.settle();
    world.took_raw(1);
    let scopes = (0..rooms).map(|room| format!(r#"{{"by":["room"],"is":[{room}],"new":true}}"#));
    let scopes = scopes.collect::<Vec<_>>().join(",");
    world.say(
        1,
        &format!(
            r#"{{"type":"subscribe","collection":"todos","metadata":{{"set":1,"scopes":[{scopes}]}}}}"#
        ),
    );
    let (mut reads, mut pages) = (0, Vec::new());
    for _ in 0..2 * rooms {
        let answers = world.read();
        reads += answers.len();
        for (conn, answer) in answers {
            world.input(conn, answer);
        }
        world.pump(1);
        for frame in world.took_raw(1) {
            let frame: Value = serde_json::from_str(&frame).unwrap();
            pages.extend(frame["data"]["records"].as_array().map(Vec::len));
        }
    }
    (reads, pages)
}

#[test]
fn a_set_of_small_scopes_is_loaded_by_few_reads() {
    assert_eq!(load_rooms(100, 1_000), (1, vec![1; 100]));
    // pages that hold more than one scope are filled by half
    assert_eq!(load_rooms(100, 20), (10, vec![1; 100]));
    assert_eq!(load_rooms(4, 1), (4, vec![1; 4]));
}
