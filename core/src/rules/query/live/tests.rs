//! Live queries against fresh ones.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use proptest::prelude::*;

use super::super::{Direction, Predicate};
use super::*;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::time::Timestamp;

fn id(n: u8) -> RecordId {
    RecordId::new(&format!("r{n:02}")).unwrap()
}

/// A record that sorts by `n`, `None` for no such field, and is found if it is `shown`.
fn record(id: &RecordId, n: Option<u8>, shown: bool) -> Record {
    let n = n.map_or_else(String::new, |n| format!(",\"n\":{n}"));
    let json = format!("{{\"shown\":{shown}{n}}}");
    Record {
        id: id.clone(),
        document: Document::parse(&json, &Limits::default()).unwrap(),
        version: 1,
        updated_at: Timestamp(0),
        pending: false,
    }
}

type Records = BTreeMap<RecordId, Record>;

fn query(descending: bool, limit: Option<usize>, offset: usize) -> Query {
    let direction = if descending { Direction::Descending } else { Direction::Ascending };
    let predicate = Predicate::parse(r#"{"field": "shown", "isEqualTo": true}"#).unwrap();
    let order = vec![("n".parse().unwrap(), direction)];
    Query { predicate, order, limit, offset, ..Query::default() }
}

/// A query that is watched in both ways: with the places of all matches, and, if it has a limit, with those
/// of the window and a margin. They have to say the same.
struct Both {
    all: LiveQuery,
    window: Option<LiveQuery>,
}

impl Both {
    fn touch(&mut self, id: &RecordId, record: Option<Record>) {
        self.all.touch(id, record.clone());
        if let Some(window) = &mut self.window {
            window.touch(id, record);
        }
    }

    fn update(&mut self, records: &Records) -> Option<QueryUpdate> {
        let load = |id: &RecordId| Ok(records.get(id).cloned());
        let never = |_: &Query| unreachable!("all is known");
        let update = self.all.update(&load, &never).unwrap();
        if let Some(window) = &mut self.window {
            let of_window = window.update(&load, &|query| Ok(fresh(query, records))).unwrap();
            assert_eq!(of_window, update, "both ways say the same");
            let most = window.kept.unwrap().1;
            assert!(window.matches.len() < most, "{} places are kept", window.matches.len());
            assert_eq!(window.matches.len(), window.keys.len());
        }
        update
    }

    fn window(&self) -> &QuerySnapshot {
        self.all.window()
    }
}

fn live(query: &Query, records: &Records) -> Both {
    let all = LiveQuery::new(query.clone(), true, |visit| {
        records.values().cloned().for_each(|record| {
            visit(record);
        });
        Ok(())
    })
    .unwrap();
    let window = query.limit.map(|_| {
        let more = |query: &Query| Ok(fresh(query, records));
        LiveQuery::of_window(query.clone(), true, &more).unwrap()
    });
    if let Some(window) = &window {
        assert_eq!(window.first_update(), all.first_update());
    }
    Both { all, window }
}

fn fresh(query: &Query, records: &Records) -> Vec<Record> {
    let mut selection = Selection::new(query);
    for record in records.values() {
        selection.offer(&record.id, &record.document, || Some(record.clone()));
    }
    selection.finish()
}

/// Changes the records in one commit.
fn commit(
    live: &mut Both,
    records: &mut Records,
    changes: &[(u8, Option<Record>)],
) -> Option<QueryUpdate> {
    for (n, record) in changes {
        let id = id(*n);
        match record {
            Some(record) => records.insert(id.clone(), record.clone()),
            None => records.remove(&id),
        };
        live.touch(&id, record.clone());
    }
    live.update(records)
}

/// The older result with the changes made, as their documentation says.
fn applied(older: &[Record], changes: &[QueryChange]) -> Vec<Record> {
    let mut gone = BTreeSet::new();
    let mut come = BTreeMap::new();
    for change in changes {
        let (from, to) = match change {
            QueryChange::Left { at, id } => {
                assert_eq!(older[*at].id, *id);
                (Some(*at), None)
            }
            QueryChange::Entered { at, record } => (None, Some((*at, record))),
            QueryChange::Modified { from, to, record } => {
                assert_eq!(older[*from].id, record.id);
                (Some(*from), Some((*to, record)))
            }
        };
        assert!(from.is_none_or(|at| gone.insert(at)), "taken out twice");
        assert!(
            to.is_none_or(|(at, record)| come.insert(at, record.clone()).is_none()),
            "put in twice"
        );
    }
    let stays = older.iter().enumerate().filter(|(at, _)| !gone.contains(at));
    let mut newer: Vec<_> = stays.map(|(_, record)| record.clone()).collect();
    for (at, record) in come {
        newer.insert(at, record);
    }
    newer
}

proptest! {
    #[test]
    fn the_live_result_is_that_of_a_fresh_query_after_every_commit(
        begin in proptest::collection::btree_map(0..24_u8, (proptest::option::of(0..4_u8), any::<bool>()), 0..24),
        commits in proptest::collection::vec(
            proptest::collection::vec(
                (0..24_u8, proptest::option::weighted(0.8, (proptest::option::of(0..4_u8), proptest::bool::weighted(0.8)))),
                1..6,
            ),
            1..20,
        ),
        descending: bool,
        limit in proptest::option::of(0..6_usize),
        offset in 0..4_usize,
        bounds: (Option<u8>, Option<u8>),
    ) {
        let mut query = query(descending, limit, offset);
        let cursor = |n: u8| query.cursor(&id(n), &record(&id(n), Some(n % 4), true).document);
        (query.start, query.end) = (
            bounds.0.map_or(core::ops::Bound::Unbounded, |n| core::ops::Bound::Excluded(cursor(n))),
            bounds.1.map_or(core::ops::Bound::Unbounded, |n| core::ops::Bound::Included(cursor(n))),
        );
        let mut records: Records = begin
            .into_iter()
            .map(|(n, (value, shown))| (id(n), record(&id(n), value, shown)))
            .collect();
        let mut live = live(&query, &records);
        let mut shown = applied(&[], &live.all.first_update().changes);
        let mut older = live.window().clone();
        prop_assert_eq!(&shown, &fresh(&query, &records));
        for changes in commits {
            let changes: Vec<_> = changes
                .into_iter()
                .map(|(n, to)| (n, to.map(|(value, found)| record(&id(n), value, found))))
                .collect();
            let update = commit(&mut live, &mut records, &changes);
            let expected = fresh(&query, &records);
            let ids: Vec<_> = expected.iter().map(|record| &record.id).collect();
            let window: Vec<_> = live.window().iter().map(|record| &record.id).collect();
            prop_assert_eq!(window, ids);
            if let Some(QueryUpdate { snapshot, changes }) = update {
                prop_assert_eq!(&snapshot.changes_since(&older), &changes, "told as found");
                shown = applied(&shown, &changes);
                older = snapshot;
            }
            prop_assert_eq!(&shown, &expected);
        }
    }
}

/// The changes of an update, in short: `-` and the place for what left, `+` for what entered, `from>to`.
fn told(update: Option<&QueryUpdate>) -> String {
    let changes = update.map_or(&[][..], |update| &update.changes);
    let texts = changes.iter().map(|change| match change {
        QueryChange::Left { at, id } => format!("-{at} {id}"),
        QueryChange::Entered { at, record } => format!("+{at} {}", record.id),
        QueryChange::Modified { from, to, record } => format!("{from}>{to} {}", record.id),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// A query of the records r01, r02, …, with these values of the field that they are sorted by.
struct Story {
    live: Both,
    records: Records,
}

impl Story {
    fn new(query: &Query, values: &[u8]) -> Self {
        let records: Records = (1..)
            .zip(values)
            .map(|(n, value)| (id(n), record(&id(n), Some(*value), true)))
            .collect();
        Self { live: live(query, &records), records }
    }

    fn commit(&mut self, changes: &[(u8, Option<u8>)]) -> String {
        let changes: Vec<_> = changes
            .iter()
            .map(|(n, value)| (*n, value.map(|value| record(&id(*n), Some(value), true))))
            .collect();
        told(commit(&mut self.live, &mut self.records, &changes).as_ref())
    }
}

#[test]
fn a_window_is_refilled_after_a_delete_and_never_loses_a_tie() {
    let mut story = Story::new(&query(false, Some(2), 0), &[5, 5, 5, 5]);
    assert_eq!(story.commit(&[(1, None)]), "-0 r01, +1 r03");
    assert_eq!(story.commit(&[(2, None), (3, None)]), "-0 r02, -1 r03, +0 r04");
    assert_eq!(story.commit(&[(9, Some(5))]), "+1 r09");
    assert_eq!(story.commit(&[(1, Some(5))]), "-1 r09, +0 r01");
}

#[test]
fn a_row_that_moves_out_of_the_window_and_back_in_one_commit_has_not_moved() {
    let mut story = Story::new(&query(false, Some(2), 0), &[1, 2, 3, 4]);
    assert_eq!(story.commit(&[(1, Some(9)), (1, Some(1))]), "");
    assert_eq!(story.commit(&[(1, None), (1, Some(1))]), "");
    assert_eq!(story.commit(&[(1, Some(9))]), "-0 r01, +1 r03");
    assert_eq!(story.commit(&[(7, Some(0)), (7, None)]), "", "nor one that was never seen");
}

#[test]
fn the_sort_key_of_a_row_inside_the_top_changes() {
    let mut story = Story::new(&query(true, Some(3), 0), &[10, 20, 30, 40]);
    assert_eq!(story.commit(&[(3, Some(41))]), "1>0 r03");
    assert_eq!(story.commit(&[(3, Some(15))]), "0>2 r03");
    assert_eq!(story.commit(&[(3, Some(5))]), "-2 r03, +2 r01");
    assert_eq!(story.commit(&[(4, Some(1)), (1, Some(50))]), "-0 r04, 2>0 r01, +2 r03");
}

#[test]
fn a_descending_window_that_is_not_full_grows_at_its_end() {
    let mut story = Story::new(&query(true, Some(3), 0), &[2]);
    assert_eq!(story.commit(&[(2, Some(1))]), "+1 r02");
    assert_eq!(story.commit(&[(3, Some(0))]), "+2 r03");
    assert_eq!(story.commit(&[(4, Some(0))]), "", "the tie with the larger id is outside");
    assert_eq!(story.commit(&[(5, Some(9))]), "-2 r03, +0 r05");
}

#[test]
fn a_limit_of_1_is_the_beginning_of_a_limit_of_2_on_one_order() {
    let [mut one, mut two] =
        [1, 2].map(|limit| Story::new(&query(false, Some(limit), 0), &[3, 3, 1]));
    for changes in [&[(3, None)][..], &[(1, Some(4))], &[(5, Some(3))], &[(2, None), (5, None)]] {
        one.commit(changes);
        two.commit(changes);
        assert!(one.live.window().iter().eq(two.live.window().iter().take(1)));
    }
}

#[test]
fn an_offset_moves_with_what_comes_and_goes_before_it() {
    let mut story = Story::new(&query(false, Some(2), 2), &[1, 2, 3, 4, 5]);
    assert_eq!(story.commit(&[(9, Some(0))]), "-1 r04, +0 r02");
    assert_eq!(story.commit(&[(9, None)]), "-0 r02, +1 r04");
    assert_eq!(story.commit(&[(1, None), (2, None), (3, None), (4, None)]), "-0 r03, -1 r04");
    assert_eq!(story.commit(&[(6, Some(0)), (7, Some(0))]), "+0 r05");
}

#[test]
fn many_matches_keep_their_places() {
    let all = query(false, None, 0);
    let mut records = Records::new();
    for n in 0..3_000_u32 {
        let id = RecordId::new(&format!("{n:05}")).unwrap();
        records.insert(id.clone(), record(&id, Some((n * 7 % 251) as u8), true));
    }
    let mut live = live(&all, &records).all;
    let none = |_: &Query| unreachable!("all is known");
    for n in (0..3_000_u32).step_by(2) {
        let id = RecordId::new(&format!("{n:05}")).unwrap();
        records.remove(&id);
        live.touch(&id, None);
        let update = live.update(&|_| unreachable!("nothing is outside"), &none).unwrap().unwrap();
        assert_eq!(update.changes.len(), 1);
    }
    assert!(live.window().iter().eq(&fresh(&all, &records)));
    let same = records.values().next().unwrap().clone();
    live.touch(&same.id, Some(Record { version: 2, ..same.clone() }));
    let update = live.update(&|_| Ok(None), &none).unwrap().unwrap();
    assert!(update.changes.is_empty(), "a new version alone is no change");
    live.set_complete(true);
    assert_eq!(live.update(&|_| Ok(None), &none).unwrap(), None);
    live.set_complete(false);
    assert!(!live.update(&|_| Ok(None), &none).unwrap().unwrap().snapshot.is_complete());
}

/// However many records there are, and whatever becomes of them: a window keeps a few places.
#[test]
fn a_window_over_many_records_keeps_a_few_places_and_reads_on_seldom() {
    let query = query(false, Some(10), 0);
    let mut records = Records::new();
    let numbered = |n: u32| RecordId::new(&format!("{n:05}")).unwrap();
    for n in 0..3_000_u32 {
        records.insert(numbered(n), record(&numbered(n), Some((n / 250) as u8), true));
    }
    let reads = core::cell::Cell::new(0);
    let more = |records: &Records, query: &Query| {
        reads.set(reads.get() + 1);
        Ok(fresh(query, records))
    };
    let mut live =
        LiveQuery::of_window(query.clone(), true, &|query| more(&records, query)).unwrap();
    for n in 0..500 {
        let id = numbered(n);
        records.remove(&id);
        live.touch(&id, None);
        let load = |id: &RecordId| Ok(records.get(id).cloned());
        let update = live.update(&load, &|query| more(&records, query)).unwrap().unwrap();
        assert_eq!(update.changes.len(), 2, "one leaves, and one enters");
        assert!(live.matches.len() <= 20, "{} places", live.matches.len());
    }
    assert_eq!(reads.get(), 1 + 500 / 11, "one when the margin is used up, and one more is gone");
    assert!(live.window().iter().eq(&fresh(&query, &records)));
}
