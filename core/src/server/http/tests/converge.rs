//! A client that pulls pages of any size while others write ends with the server's rows.

use super::*;

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::protocol::hash::Checksum;
use crate::protocol::message::{Cursor, Mode, Resume, ServerChange, ServerMessage};
use crate::protocol::name::{Epoch, Seq};
use crate::protocol::wire::http::{PageAnswer, PageFrom, PageQuery};
use crate::rules::transaction::tests::todos;

#[derive(Clone, Debug)]
enum Move {
    /// Someone writes.
    Write(u8, Change),
    /// Time passes, and old tombstones go.
    Sweep,
    /// The server is opened anew.
    Reopen,
    /// The client asks for a page of so many records.
    Pull(usize),
    /// An answer is lost.
    Lose(usize),
}

fn changes() -> impl Strategy<Value = Change> {
    let field = || prop_oneof![Just("x"), Just("y"), Just("z")];
    prop_oneof![
        2 => (field(), 0..3).prop_map(|(name, value)| insert(&format!("{{\"{name}\":{value}}}"))),
        4 => (field(), 0..3).prop_map(|(name, value)| update(&format!("{{\"{name}\":{value}}}"))),
        1 => field().prop_map(|name| unset("{}", &[name])),
        2 => Just(Change::delete()),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        8 => (0_u8..8, changes()).prop_map(|(id, change)| Move::Write(id, change)),
        1 => Just(Move::Sweep),
        1 => Just(Move::Reopen),
        5 => (1_usize..4).prop_map(Move::Pull),
        1 => (1_usize..4).prop_map(Move::Lose),
    ];
    prop::collection::vec(step, 0..60)
}

/// A client by the book.
#[derive(Default)]
struct Puller {
    records: BTreeMap<RecordId, (Seq, Document)>,
    from: PageFrom,
}

impl Puller {
    fn ask(&self, store: &mut Store, limit: usize) -> PageAnswer {
        let query =
            PageQuery { from: self.from.clone(), limit: Some(limit), ..PageQuery::default() };
        let target = query.target(&todos());
        let reply = ask_with(store, &AllowAll, &ServerLimits::default(), "GET", &target, "");
        assert_eq!(reply.status, 200);
        PageAnswer::decode(&reply.body, &Limits::default()).unwrap()
    }

    /// Applies a page. Returns whether it was the last.
    fn pull(&mut self, store: &mut Store, limit: usize) -> bool {
        let page = self.ask(store, limit);
        assert_eq!(page.from, self.from);
        let mut done = false;
        for message in page.messages {
            match message {
                ServerMessage::Subscribed { mode, .. } => self.opened(mode.unwrap()),
                ServerMessage::Change { record_id, change, .. } => {
                    let seq = change.seq.unwrap();
                    self.change(record_id, change);
                    self.from.resume = Some(Resume::Delta { epoch: page.epoch.clone(), seq });
                }
                ServerMessage::Sync { records, range, .. } => {
                    let range = range.unwrap();
                    if range.after.is_none() {
                        self.from = PageFrom::default();
                    }
                    let covers = |id: &RecordId| {
                        range.after.as_ref().is_none_or(|after| id > after)
                            && range.up_to.as_ref().is_none_or(|up_to| id <= up_to)
                    };
                    self.records.retain(|id, _| !covers(id));
                    for record in records {
                        assert!(covers(&record.id));
                        self.records.insert(record.id, (record.seq.unwrap(), record.document));
                    }
                    self.covered(&page.epoch, range.snapshot_seq, range.up_to);
                }
                ServerMessage::Synced { cursor, count, checksum, .. } => {
                    assert!(self.from.cursor.is_some(), "a snapshot ends with its last page");
                    self.from =
                        PageFrom { cursor: Some(cursor), resume: None, ..PageFrom::default() };
                    assert_eq!((count, checksum.unwrap()), self.totals());
                    done = true;
                }
                other @ (ServerMessage::Authenticated { .. }
                | ServerMessage::Unsubscribed { .. }
                | ServerMessage::Load(_)
                | ServerMessage::Ack(_)
                | ServerMessage::Error(_)
                | ServerMessage::Pong { .. }
                | ServerMessage::Unknown { .. }) => panic!("{other:?}"),
            }
        }
        done
    }

    fn opened(&mut self, mode: Mode) {
        let resumes = matches!(self.from.resume, Some(Resume::Snapshot { .. }));
        match mode {
            Mode::Delta => assert!(self.from.cursor.is_some()),
            Mode::Snapshot if resumes => {}
            Mode::Snapshot => self.from = PageFrom::default(),
        }
    }

    fn covered(&mut self, epoch: &Epoch, snapshot_seq: Seq, up_to: Option<RecordId>) {
        let epoch = epoch.clone();
        self.from = match up_to {
            Some(after) => PageFrom {
                cursor: self.from.cursor.take(),
                resume: Some(Resume::Snapshot { epoch, snapshot_seq, after }),
                ..PageFrom::default()
            },
            None => PageFrom {
                cursor: Some(Cursor { epoch, seq: snapshot_seq }),
                resume: None,
                ..PageFrom::default()
            },
        };
    }

    fn change(&mut self, id: RecordId, news: ServerChange) {
        let seq = news.seq.unwrap();
        let held = self.records.get(&id);
        if held.is_some_and(|(held, _)| *held >= seq) {
            return;
        }
        let before = held.map(|(_, document)| document);
        assert!(news.change.kind != WriteKind::Update || before.is_some(), "an update of nothing");
        match news.change.apply(before) {
            Some(document) => drop(self.records.insert(id, (seq, document))),
            None => drop(self.records.remove(&id)),
        }
    }

    fn totals(&self) -> (u64, Checksum) {
        let mut checksum = Checksum::default();
        for (id, (seq, document)) in &self.records {
            checksum.add(id, *seq, document);
        }
        (self.records.len() as u64, checksum)
    }
}

proptest! {
    #[test]
    fn whoever_pulls_has_the_rows_in_the_end(steps in steps(), last in 1_usize..4) {
        let store = &mut Store::new();
        let mut puller = Puller::default();
        let mut epoch = 1;
        for step in steps {
            match step {
                Move::Write(id, change) => {
                    store.now = Timestamp(store.now.0 + 1000);
                    store.plain_to(&format!("r{id}"), change);
                }
                Move::Sweep => {
                    store.sweep_tombstones(2000);
                }
                Move::Reopen => {
                    epoch += 1;
                    store.begin(&format!("e{epoch}"));
                }
                Move::Pull(limit) => {
                    puller.pull(store, limit);
                }
                Move::Lose(limit) => {
                    puller.ask(store, limit);
                }
            }
        }
        let pages = (0..100).find(|_| puller.pull(store, last));
        prop_assert!(pages.is_some(), "it ends");
        let head = store.head();
        prop_assert_eq!((head.count, head.checksum), puller.totals());
        for n in 0..8 {
            let id = RecordId::new(&format!("r{n}")).unwrap();
            let held = puller.records.get(&id).map(|(seq, document)| (*seq, document.clone()));
            let record = store.record(&id);
            let kept = record.and_then(|r| Some((r.last.seq, r.document?)));
            prop_assert_eq!(held, kept);
        }
    }
}
