//! The queries that the app of a device watches: what they show is what a fresh query returns, after
//! every commit, and what they say makes the newer result of the older one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use synclayer_core::testing::InspectReplica;
use synclayer_core::{Collection, Direction, Predicate, Query, QueryChange, Record, WatchId};

use super::World;
use crate::invariants::Invariant;

/// A query that is watched, and the result as the app has put it together from the changes.
pub(super) struct AppQuery {
    collection: Collection,
    watch: WatchId,
    shown: Vec<Record>,
    complete: bool,
}

impl World {
    /// The app of a device watches three queries of each collection: two with a window, one without.
    pub(super) fn watch_queries(&mut self, device: usize) {
        let mut window = Query::default();
        window.order = vec![
            ("hot".parse().expect("a field"), Direction::Descending),
            ("flag".parse().expect("a field"), Direction::Ascending),
        ];
        (window.limit, window.offset, window.start) = (Some(3), 1, Bound::Unbounded);
        // its margin is used up by every record that goes
        let mut first = window.clone();
        (first.limit, first.offset) = (Some(1), 0);
        let mut with_field = Query::default();
        with_field.predicate =
            Predicate::parse(r#"{"field": "flag", "exists": true}"#).expect("a condition");
        let this = &mut self.devices[device];
        this.queries.clear();
        for collection in this.collections() {
            for query in [window.clone(), first.clone(), with_field.clone()] {
                // an app that can't read begins again when its store is sound
                let Ok(watch) = this.replica.watch_query(&collection, None, query, &mut Vec::new())
                else {
                    continue;
                };
                let collection = collection.clone();
                let query = AppQuery { collection, watch, shown: Vec::new(), complete: false };
                this.queries.push(query);
            }
        }
    }

    /// The app of a device watches no queries any more.
    pub(super) fn unwatch_queries(&mut self, device: usize) {
        let this = &mut self.devices[device];
        for query in std::mem::take(&mut this.queries) {
            this.replica.unwatch(query.watch);
        }
    }

    /// Takes what the queries of a device have to say, and checks it.
    pub(super) fn take_queries(&mut self, device: usize) {
        let this = &mut self.devices[device];
        let (mut changed, mut broken) = (0, Vec::new());
        let status = this.replica.status();
        for AppQuery { collection, watch, shown, complete } in &mut this.queries {
            let of = status.collections.get(collection);
            let is_complete = of.is_some_and(|of| !of.from_cache && !of.catching_up);
            if let Some(update) = this.replica.take_query(*watch) {
                *complete = update.snapshot.is_complete();
                // each of its parts by an index, where the life has declared one
                if let (Ok(found), Ok(all)) =
                    (this.replica.query(collection, &either()), this.replica.get_all(collection))
                    && !found
                        .iter()
                        .eq(all.iter().filter(|it| either().predicate.matches(&it.document)))
                {
                    broken.push(format!("a query of {collection} by parts returns {found:?}"));
                }
                changed += update.changes.len() as u64;
                match applied(shown, &update.changes) {
                    Some(newer) => *shown = newer,
                    None => {
                        broken.push(format!("a query of {collection} says {:?}", update.changes))
                    }
                }
                let is_same = |(one, other): (&Record, &Record)| {
                    (&one.id, &one.document, one.pending)
                        == (&other.id, &other.document, other.pending)
                };
                let snapshot = &update.snapshot;
                if snapshot.len() != shown.len() || !snapshot.iter().zip(&*shown).all(is_same) {
                    broken.push(format!(
                        "the changes of a query of {collection} tell another result"
                    ));
                }
            }
            // what the calls of a group have led to is told at its end
            let is_told = this.shared == 0 && !this.replica.has_halted();
            if is_complete != *complete && is_told {
                broken
                    .push(format!("a query of {collection} says that it is complete: {complete}"));
            }
        }
        if changed > 0 {
            self.count("live query changed");
        }
        for what in broken {
            self.fail(Invariant::Contract, format!("device {device}: {what}"));
        }
    }
}

/// A query with two alternatives, both of which many records meet.
fn either() -> Query {
    let either =
        r#"{"or": [{"field": "flag", "isGreaterThan": 3}, {"field": "flag", "isLessThan": 9}]}"#;
    let mut query = Query::default();
    query.predicate = Predicate::parse(either).expect("a condition");
    query
}

/// The older result with the changes made; `None` if they don't fit it.
fn applied(older: &[Record], changes: &[QueryChange]) -> Option<Vec<Record>> {
    let (mut gone, mut come) = (BTreeSet::new(), BTreeMap::new());
    for change in changes {
        let (from, id, to) = match change {
            QueryChange::Left { at, id } => (Some(*at), id, None),
            QueryChange::Entered { at, record } => (None, &record.id, Some((*at, record))),
            QueryChange::Modified { from, to, record } => {
                (Some(*from), &record.id, Some((*to, record)))
            }
        };
        if let Some(from) = from
            && (older.get(from)?.id != *id || !gone.insert(from))
        {
            return None;
        }
        if let Some((to, record)) = to
            && come.insert(to, record.clone()).is_some()
        {
            return None;
        }
    }
    let stays = older.iter().enumerate().filter(|(at, _)| !gone.contains(at));
    let mut newer: Vec<_> = stays.map(|(_, record)| record.clone()).collect();
    for (at, record) in come {
        if at > newer.len() {
            return None;
        }
        newer.insert(at, record);
    }
    Some(newer)
}
