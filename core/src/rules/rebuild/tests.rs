use super::*;

use alloc::vec;

use proptest::collection::vec as many;
use proptest::prelude::*;

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::message::{Cursor, Mode};
use crate::protocol::name::Epoch;
use crate::protocol::write::Change;
use crate::rules::page::{PageLimits, Position, ReadAnswer, ReadRequest, Reader};
use crate::rules::policy::AllowAll;
use crate::rules::record::EpochRow;
use crate::rules::transaction::tests::{Store, hello, id, insert, todos, unset, update, write};
use crate::rules::transaction::{HelloAnswer, TransactionAnswer};
use crate::rules::verify::verify;
use crate::store::MemoryRows;

/// The contents of a store after each of its commits.
struct History {
    store: Store,
    moments: Vec<MemoryRows>,
    written: u64,
}

/// A step in a server's history.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Insert(u8),
    Update(u8),
    Delete(u8),
    Opened,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        3 => (0..6_u8).prop_map(Happens::Insert),
        3 => (0..6_u8).prop_map(Happens::Update),
        2 => (0..6_u8).prop_map(Happens::Delete),
        1 => Just(Happens::Opened),
    ];
    many(one, 1..25)
}

impl History {
    fn new() -> Self {
        let mut store = Store::new();
        store.hello("c");
        let moments = vec![store.rows.clone()];
        Self { store, moments, written: 0 }
    }

    fn happens(&mut self, what: Happens) {
        self.written += 1;
        let document = set(self.written);
        let (record, change) = match what {
            Happens::Opened => {
                let epoch = alloc::format!("e{}", self.written + 1);
                self.store.begin(&epoch);
                self.store.hello("c");
                self.written -= 1;
                self.moments.push(self.store.rows.clone());
                return;
            }
            Happens::Insert(record) => (record, Change::insert(document)),
            Happens::Update(record) => (record, Change::update(Delta::new(document, vec![]))),
            Happens::Delete(record) => (record, Change::delete()),
        };
        let number = self.number() + 1;
        let name = alloc::format!("r{record}");
        let mut mutation = write(number, 0, &name, change);
        mutation.base = None;
        self.store.run("c", vec![mutation]);
        self.moments.push(self.store.rows.clone());
    }

    /// The last number of the client's that was applied.
    fn number(&self) -> u64 {
        let client = crate::rules::transaction::tests::client("c");
        ClientRow::load(&self.store.rows, &client).unwrap().unwrap().last_mutation.0
    }
}

fn set(n: u64) -> Document {
    Document::parse(&alloc::format!(r#"{{"n":{n}}}"#), &Limits::default()).unwrap()
}

/// Damaged rows: some are missing, others are of an earlier moment, others are invalid.
fn damage(history: &History, fates: &[u8]) -> MemoryRows {
    let (mut rows, mut fate) = (MemoryRows::default(), fates.iter().cycle());
    let mut batch = Batch::default();
    let mut keys: Vec<Bytes> =
        history.moments.iter().flat_map(|rows| rows.iter().map(|(key, _)| key.clone())).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let fate = *fate.next().unwrap_or(&0);
        let last = history.moments.len() - 1;
        let moment = match fate {
            0..=9 => continue,
            10..=19 => usize::from(fate) * last / 20,
            _ => last,
        };
        let Some(row) = history.moments[moment].get(&key).unwrap() else { continue };
        let row = if fate == 20 { row.slice(..row.len() / 2) } else { row };
        batch.put(key, row);
    }
    rows.apply(batch);
    rows
}

fn rebuild(rows: &MemoryRows, at_once: usize) -> (MemoryRows, Rebuilt) {
    let mut new = MemoryRows::default();
    let mut rebuild = Rebuild::new(None);
    let all: Vec<_> = rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
    for some in all.chunks(at_once) {
        let batch = rebuild.step(some.to_vec(), &new).unwrap();
        new.apply(batch);
    }
    let rebuilt = rebuild.finish(&new).unwrap();
    new.apply(rebuilt.batch.clone());
    (new, rebuilt)
}

fn mode(rows: &MemoryRows, cursor: Option<Cursor>) -> Mode {
    let reader = Reader::from(todos());
    let position = Position::Start { cursor, resume: None };
    let request = ReadRequest::CatchUp { reader, position, limits: PageLimits::default() };
    let Ok(ReadAnswer::Page(page)) = request.run(rows, &AllowAll) else { panic!("no page") };
    page.opened.unwrap().mode
}

proptest! {
    /// For any damage, the rebuilt store is sound, holds every readable record, keeps the
    /// database's identity, and accepts no earlier cursor.
    #[test]
    fn what_is_rebuilt_is_sound(
        happenings in happenings(),
        fates in many(0..60_u8, 1..200),
        at_once in 1..40_usize,
    ) {
        let mut history = History::new();
        happenings.into_iter().for_each(|what| history.happens(what));
        let damaged = damage(&history, &fates);
        let (new, rebuilt) = rebuild(&damaged, at_once);
        let report = verify(&new).unwrap();
        prop_assert_eq!(&report.faults, &Vec::<alloc::string::String>::new());
        prop_assert_eq!(rebuilt.kept.tombstones, report.tombstones);
        for (key, row) in damaged.iter().filter(|(key, _)| key[0] == b'r') {
            let Ok(found) = RecordRow::from_row(row.clone()) else { continue };
            let kept = RecordRow::from_row(new.get(key).unwrap().expect("a record is lost")).unwrap();
            prop_assert_eq!(kept.document, found.document);
        }
        let head = report.collections.get(&todos()).copied().unwrap_or_default();
        prop_assert_eq!(head.horizon, head.seq, "tombstones may be gone");
        let database = damaged.get(DATABASE).unwrap();
        let database = database.map(|name| core::str::from_utf8(&name).unwrap().into());
        let database = database.filter(|name: &alloc::string::String| !name.is_empty());
        prop_assert_eq!(rebuilt.database.as_deref(), database.as_deref());

        // the next opening begins an epoch, in which no earlier cursor counts
        let mut store = history.store;
        let known: Vec<Epoch> = (1..40).map(|n| Epoch::new(&alloc::format!("e{n}")).unwrap()).collect();
        store.rows = new;
        store.begin("after");
        for epoch in known {
            for seq in [Seq(0), Seq(1), head.seq] {
                let cursor = Cursor { epoch: epoch.clone(), seq };
                prop_assert_eq!(mode(&store.rows, Some(cursor)), Mode::Snapshot);
            }
        }
        let after = Cursor { epoch: Epoch::new("after").unwrap(), seq: head.seq };
        prop_assert_eq!(mode(&store.rows, Some(after)), Mode::Delta);
        // and a client goes on
        let session = 1_000_000;
        let TransactionAnswer::Hello(HelloAnswer::Open { last_mutation, .. }) = store.commit(&hello("c", session))
        else {
            panic!("no hello")
        };
        let mut next = write(last_mutation.0 + 1, 0, "new", Change::insert(set(0)));
        next.base = None;
        store.session = session;
        store.run("c", vec![next]);
        prop_assert!(RecordRow::load(&store.rows, &todos(), &id("new")).unwrap().is_some());
        prop_assert!(EpochRow::current(&store.rows).unwrap().is_some());
    }

    /// An undamaged store loses nothing.
    #[test]
    fn a_sound_store_comes_out_as_it_went_in(happenings in happenings()) {
        let mut history = History::new();
        happenings.into_iter().for_each(|what| history.happens(what));
        let (new, rebuilt) = rebuild(&history.store.rows, 7);
        prop_assert_eq!(rebuilt.lost, Lost::default());
        prop_assert_eq!(rebuilt.database.as_deref(), Some("d-e1"));
        for (key, row) in history.store.rows.iter().filter(|(key, _)| b"druxc".contains(&key[0])) {
            if key[0] == b'c' {
                let (was, is) = (Head::from_row(row.clone()), new.get(key).unwrap());
                let (was, is) = (was.unwrap(), Head::from_row(is.unwrap()).unwrap());
                let of = |head: Head| (head.seq, head.count, head.checksum, head.committed_at);
                prop_assert_eq!(of(was), of(is));
            } else {
                prop_assert_eq!(new.get(key).unwrap(), Some(row.clone()));
            }
        }
    }
}

#[test]
fn what_is_lost_is_counted_as_far_as_it_shows() {
    let mut history = History::new();
    for record in 0..6 {
        history.happens(Happens::Insert(record));
    }
    let before = history.store.rows.clone();
    history.happens(Happens::Update(4));
    let mut rows = history.store.rows.clone();
    let mut batch = Batch::default();
    batch.delete(record_key(&todos(), &id("r1")));
    batch.put(record_key(&todos(), &id("r2")), &b"nonsense"[..]);
    let earlier = before.get(&record_key(&todos(), &id("r4"))).unwrap().unwrap();
    batch.put(record_key(&todos(), &id("r4")), earlier);
    batch.put(client_key(&ClientId::new("d").unwrap()), &b"nonsense"[..]);
    batch.delete(DATABASE);
    rows.apply(batch);
    let (_, rebuilt) = rebuild(&rows, 100);
    assert_eq!(rebuilt.kept, Kept { records: 4, tombstones: 0, clients: 1 });
    assert_eq!(rebuilt.lost, Lost { records: 2, outdated: 1, clients: 1 });
    assert_eq!(rebuilt.database, None);
}

/// A record with the same seq as another one is kept.
#[test]
fn two_records_with_one_seq_are_both_kept() {
    let mut history = History::new();
    history.happens(Happens::Insert(1));
    let mut rows = history.store.rows.clone();
    let twin = rows.get(&record_key(&todos(), &id("r1"))).unwrap().unwrap();
    let mut batch = Batch::default();
    batch.put(record_key(&todos(), &id("r2")), twin);
    rows.apply(batch);
    let (new, rebuilt) = rebuild(&rows, 1);
    assert_eq!(rebuilt.kept.records, 2);
    assert_eq!(verify(&new).unwrap().faults, Vec::<alloc::string::String>::new());
}

/// A record that gets a new seq conflicts with every earlier base: nothing tells which of its fields
/// were changed since.
#[test]
fn a_record_with_a_new_seq_is_as_if_it_was_inserted_there() {
    let mut store = Store::new();
    store.hello("c");
    let changes = [insert("{\"a\":1,\"b\":1}"), update("{\"a\":2}"), unset("{}", &["b"])];
    for (number, change) in (1..).zip(changes) {
        store.run("c", vec![write(number, number - 1, "r1", change)]);
    }
    let load = |rows: &MemoryRows, of| RecordRow::load(rows, &todos(), &id(of)).unwrap().unwrap();
    let twin = load(&store.rows, "r1");
    assert!(!twin.fields.is_empty() && !twin.removed.is_empty());
    let mut batch = Batch::default();
    batch.put(record_key(&todos(), &id("r2")), twin.to_row());
    store.rows.apply(batch);
    let (new, _) = rebuild(&store.rows, 1);
    let moved = load(&new, "r2");
    assert_eq!(moved.last.seq, Seq(4));
    assert_eq!(moved.whole, moved.last);
    assert!(moved.fields.is_empty() && moved.removed.is_empty());
    assert_eq!(load(&new, "r1"), twin, "the other one keeps its stamps");
}
