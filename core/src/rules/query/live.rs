//! A query that is watched: its window, kept up to date change by change.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Bound, Range};

use rpds::RedBlackTreeMapSync;

use super::definition::Query;
use super::ranked::{Key, Ranked};
use super::selection::Selection;
use crate::protocol::name::RecordId;
use crate::rules::view::Record;
use crate::store::{Scan, StoreError};

/// The records that a query returned at one moment, in its order. It never changes. Cloning is O(1).
#[derive(Clone, Default)]
pub struct QuerySnapshot {
    records: RedBlackTreeMapSync<Key, Record>,
    complete: bool,
}

impl QuerySnapshot {
    /// The records, in the query's order.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.size()
    }

    /// Returns `true` if there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns `true` if the server has confirmed that nothing is missing: the collection is
    /// subscribed and live, so that changes arrive as they are made, and a scope that the query asks about
    /// is among what is held. Pending writes of this device are among the records all the same.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The changes from an older snapshot of the same query to this one. Reads both in full; meant for
    /// callers that were not told the changes.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Vec<QueryChange> {
        let places = |of: &Self| {
            let places = of.records.iter().enumerate();
            places
                .map(|(at, (key, record))| (record.id.clone(), (at, key.clone(), record.clone())))
                .collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (places(older), places(self));
        let mut changes = Vec::new();
        for (id, (at, ..)) in &old {
            if !new.contains_key(id) {
                changes.push(QueryChange::Left { at: *at, id: id.clone() });
            }
        }
        for (id, (at, key, record)) in new {
            match old.get(&id) {
                None => changes.push(QueryChange::Entered { at, record }),
                Some((_, old_key, old)) if *old_key == key && old.shows_as(&record) => {}
                Some((from, ..)) => {
                    changes.push(QueryChange::Modified { from: *from, to: at, record });
                }
            }
        }
        sort(&mut changes);
        changes
    }
}

/// Compares the records and the status.
impl PartialEq for QuerySnapshot {
    fn eq(&self, other: &Self) -> bool {
        self.complete == other.complete && self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for QuerySnapshot {}

/// Shows the number of records, but not them: there may be many.
impl fmt::Debug for QuerySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuerySnapshot")
            .field("len", &self.len())
            .field("complete", &self.complete)
            .finish()
    }
}

/// The change of one record between two snapshots of a query. Places count from 0. What left and what
/// moved is taken out at its place in the older snapshot; what entered and what moved is put in, in the
/// order of the places, at its place in the newer one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueryChange {
    /// The record has left the result: it was deleted, no longer meets the condition, or others have
    /// pushed it out.
    Left {
        /// Its place in the older snapshot.
        at: usize,
        /// The record's id.
        id: RecordId,
    },
    /// The record has entered the result.
    Entered {
        /// Its place in the newer snapshot.
        at: usize,
        /// The record.
        record: Record,
    },
    /// The record has changed, and may have moved. A record that only others have pushed along has not.
    Modified {
        /// Its place in the older snapshot.
        from: usize,
        /// Its place in the newer one.
        to: usize,
        /// The record.
        record: Record,
    },
}

/// An update for a watcher of a query: the result now, and the changes since the update before. The
/// first update shows every record as entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryUpdate {
    /// The result now.
    pub snapshot: QuerySnapshot,
    /// The changes: first those that left, then the others, in the order of their places. Empty if only
    /// [`is_complete`](QuerySnapshot::is_complete), or the version or time of a record, changed.
    pub changes: Vec<QueryChange>,
}

fn sort(changes: &mut [QueryChange]) {
    changes.sort_unstable_by_key(|change| match change {
        QueryChange::Left { at, .. } => (false, *at),
        QueryChange::Entered { at, .. } | QueryChange::Modified { to: at, .. } => (true, *at),
    });
}

/// Reads a record from the store as of the last commit.
pub(crate) type Load<'a> = dyn Fn(&RecordId) -> Result<Option<Record>, StoreError> + 'a;

/// Reads the records that a query returns from the store as of the last commit, in its order.
pub(crate) type More<'a> = dyn Fn(&Query) -> Result<Vec<Record>, StoreError> + 'a;

/// The minimal and the maximal number of places that are kept behind a window which can be refilled: as
/// many as it has itself.
const MARGIN: (usize, usize) = (1, 64);

/// A query that is watched. It keeps the documents of the records in the window, and the places of those
/// that meet the condition: of all of them, or, where more of them can be read in the query's order, of the
/// window and a margin.
#[derive(Clone)]
pub(crate) struct LiveQuery {
    query: Query,
    /// The places of the matches, up to `known_to`.
    matches: Ranked,
    keys: BTreeMap<RecordId, Key>,
    /// The place behind which matches are not known; `None` where all are.
    known_to: Option<Key>,
    /// The numbers of places that a refill leaves, and from which on some are forgotten; `None` where all
    /// are known.
    kept: Option<(usize, usize)>,
    window: QuerySnapshot,
    /// The records that the commit has changed, as they are now; `None` for those that the query no
    /// longer finds.
    touched: BTreeMap<RecordId, Option<(Key, Record)>>,
    /// The status has changed, or a record in a way that is no change to watchers.
    is_new: bool,
}

/// A record that a commit has changed, and its places before and after.
struct Moved {
    id: RecordId,
    old: Option<Key>,
    new: Option<(Key, Record)>,
    from: Option<usize>,
}

impl LiveQuery {
    /// A query over the records that `each` shows, in the order of their ids.
    pub(crate) fn new(
        query: Query,
        complete: bool,
        each: impl FnOnce(&mut dyn FnMut(Record) -> Scan) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut keys = BTreeMap::new();
        let mut window = Selection::new(&query);
        each(&mut |record| {
            let Record { id, document, .. } = &record;
            if let Some(key) = query.key_if_found(id, document) {
                keys.insert(id.clone(), Key::new(&key, id));
                window.keep(key, document, || Some(record.clone()));
            }
            Scan::Next
        })?;
        let mut sorted: Vec<Key> = keys.values().cloned().collect();
        sorted.sort_unstable();
        let matches = Ranked::of_sorted(&sorted);
        let window = sorted.into_iter().skip(query.offset).zip(window.finish());
        let window = QuerySnapshot { records: window.collect(), complete };
        let (touched, known_to, kept) = (BTreeMap::new(), None, None);
        Ok(Self { query, matches, keys, known_to, kept, window, touched, is_new: false })
    }

    /// A query with a limit, of whose matches as many are read as are needed.
    pub(crate) fn of_window(
        query: Query,
        complete: bool,
        more: &More<'_>,
    ) -> Result<Self, StoreError> {
        let last = query.limit.unwrap_or(usize::MAX).saturating_add(query.offset);
        let margin = last.clamp(MARGIN.0, MARGIN.1);
        let kept = last.saturating_add(margin);
        let found = more(&Query { limit: Some(kept), offset: 0, ..query.clone() })?;
        let sorted: Vec<Key> = found
            .iter()
            .filter_map(|Record { id, document, .. }| {
                Some(Key::new(&query.key_if_found(id, document)?, id))
            })
            .collect();
        let keys = found.iter().map(|record| record.id.clone()).zip(sorted.iter().cloned());
        let window = sorted.iter().cloned().zip(found.iter().cloned());
        let window = window.take(last).skip(query.offset).collect();
        Ok(Self {
            keys: keys.collect(),
            matches: Ranked::of_sorted(&sorted),
            known_to: if found.len() < kept { None } else { sorted.last().cloned() },
            kept: Some((kept, kept.saturating_add(margin))),
            window: QuerySnapshot { records: window, complete },
            query,
            touched: BTreeMap::new(),
            is_new: false,
        })
    }

    /// The update for a watcher that has seen nothing.
    pub(crate) fn first_update(&self) -> QueryUpdate {
        let entered =
            |(at, record): (usize, &Record)| QueryChange::Entered { at, record: record.clone() };
        let changes = self.window.iter().enumerate().map(entered).collect();
        QueryUpdate { snapshot: self.window.clone(), changes }
    }

    /// Takes note of a record's new state, `None` if it was removed.
    pub(crate) fn touch(&mut self, id: &RecordId, record: Option<Record>) {
        let found = record.and_then(|record| {
            let key = Key::new(&self.query.key_if_found(id, &record.document)?, id);
            let is_known = self.known_to.as_ref().is_none_or(|known| key <= *known);
            is_known.then_some((key, record))
        });
        if found.is_some() || self.keys.contains_key(id) || self.touched.contains_key(id) {
            self.touched.insert(id.clone(), found);
        }
    }

    /// Takes note of whether everything is here.
    pub(crate) fn set_complete(&mut self, complete: bool) {
        self.is_new |= self.window.complete != complete;
        self.window.complete = complete;
    }

    /// The update since the last one, if watchers see something new. Its costs grow with the number of
    /// changed records, not with that of all.
    pub(crate) fn update(
        &mut self,
        load: &Load<'_>,
        more: &More<'_>,
    ) -> Result<Option<QueryUpdate>, StoreError> {
        let mut moved = self.place_touched();
        self.refill(&mut moved, more)?;
        let mut changes = Vec::new();
        self.pass_edges(&moved, load, &mut changes)?;
        for Moved { id, old, new, from } in moved {
            let shown = old.as_ref().filter(|_| from.is_some());
            let shown = shown.and_then(|key| self.window.records.get(key).cloned());
            if let Some(key) = old.filter(|_| from.is_some()) {
                self.window.records.remove_mut(&key);
                self.is_new = true;
                if let Some((new_key, record)) = &new
                    && *new_key == key
                    && shown.is_some_and(|shown| shown.shows_as(record))
                    && self.place_in_window(new_key).is_some()
                {
                    self.window.records.insert_mut(key, record.clone());
                    continue;
                }
            }
            let new =
                new.and_then(|(key, record)| Some((self.place_in_window(&key)?, key, record)));
            changes.extend(match (from, new) {
                (None, None) => None,
                (Some(at), None) => Some(QueryChange::Left { at, id }),
                (from, Some((to, key, record))) => {
                    self.window.records.insert_mut(key, record.clone());
                    Some(match from {
                        Some(from) => QueryChange::Modified { from, to, record },
                        None => QueryChange::Entered { at: to, record },
                    })
                }
            });
        }
        self.let_go()?;
        sort(&mut changes);
        let is_new = core::mem::take(&mut self.is_new) || !changes.is_empty();
        Ok(is_new.then(|| QueryUpdate { snapshot: self.window.clone(), changes }))
    }

    /// Moves the records that were touched to their new places among the matches.
    fn place_touched(&mut self) -> Vec<Moved> {
        let mut moved = Vec::new();
        for (id, new) in core::mem::take(&mut self.touched) {
            let old = self.keys.get(&id).cloned();
            let from = old.as_ref().and_then(|key| self.place_in_window(key));
            moved.push(Moved { id, old, new, from });
        }
        for Moved { id, old, new, .. } in &moved {
            let key = new.as_ref().map(|(key, _)| key);
            if old.as_ref() == key {
                continue;
            }
            if let Some(old) = old {
                self.matches.remove(old);
            }
            match key {
                Some(key) => {
                    self.matches.insert(key.clone());
                    self.keys.insert(id.clone(), key.clone());
                }
                None => {
                    self.keys.remove(id);
                }
            }
        }
        moved
    }

    /// Reads on behind what is known, where too few matches are left for the window. A record that was
    /// touched may be among what is read: it has moved behind what was known.
    fn refill(&mut self, moved: &mut [Moved], more: &More<'_>) -> Result<(), StoreError> {
        let (Some(known), Some((kept, _))) = (&self.known_to, self.kept) else { return Ok(()) };
        if self.matches.len() >= self.range().end {
            return Ok(());
        }
        let missing = kept - self.matches.len();
        let start = Bound::Excluded(known.cursor(&self.query));
        let found = more(&Query { start, limit: Some(missing), offset: 0, ..self.query.clone() })?;
        let is_all = found.len() < missing;
        let places = moved.iter().enumerate();
        let places: BTreeMap<_, _> = places.map(|(at, moved)| (moved.id.clone(), at)).collect();
        let mut last = None;
        for record in found {
            let id = record.id.clone();
            let Some(key) = self.query.key_if_found(&id, &record.document) else { continue };
            let key = Key::new(&key, &id);
            self.matches.insert(key.clone());
            self.keys.insert(id.clone(), key.clone());
            last = Some(key.clone());
            if let Some(moved) = places.get(&id).and_then(|at| moved.get_mut(*at)) {
                moved.new = Some((key, record));
            }
        }
        self.known_to = last.filter(|_| !is_all);
        Ok(())
    }

    /// Forgets places far behind the window.
    fn let_go(&mut self) -> Result<(), StoreError> {
        let Some((kept, most)) = self.kept else { return Ok(()) };
        if self.matches.len() < most {
            return Ok(());
        }
        for key in self.matches.split_off(kept) {
            self.keys.remove(&key.id()?);
        }
        self.known_to = self.matches.get(kept - 1).cloned();
        Ok(())
    }

    /// Lets the records that were not touched pass the edges of the window, where those that were
    /// have pushed them out or made room: at most one for each of these.
    fn pass_edges(
        &mut self,
        moved: &[Moved],
        load: &Load<'_>,
        changes: &mut Vec<QueryChange>,
    ) -> Result<(), StoreError> {
        if moved.is_empty() {
            return Ok(());
        }
        let Range { start, end } = self.range();
        // those that were in the window and were not touched lie between these
        let (first, last) = match (self.window.records.first(), self.window.records.last()) {
            (Some((first, _)), Some((last, _))) => {
                let last_stays = self.matches.get(self.matches.rank(last)) == Some(last);
                let behind = self.matches.rank(last) + usize::from(last_stays);
                (self.matches.rank(first), behind)
            }
            (None, _) | (_, None) => (start, start),
        };
        let touched: BTreeSet<&RecordId> = moved.iter().map(|moved| &moved.id).collect();
        for rank in (first..last.min(start)).chain(first.max(end)..last) {
            let Some(key) = self.matches.get(rank) else { break };
            let id = key.id()?;
            if !touched.contains(&id) {
                let at = old_rank(key, rank, moved) - start;
                self.window.records.remove_mut(&key.clone());
                changes.push(QueryChange::Left { at, id });
            }
        }
        let len = self.matches.len();
        for rank in (start..first.min(end)).chain(last.max(start)..end.min(len)) {
            let Some(key) = self.matches.get(rank) else { break };
            let id = key.id()?;
            if touched.contains(&id) {
                continue;
            }
            let gone = || StoreError::damaged("a record that a live query counts is missing");
            let record = load(&id)?.ok_or_else(gone)?;
            self.window.records.insert_mut(key.clone(), record.clone());
            changes.push(QueryChange::Entered { at: rank - start, record });
        }
        Ok(())
    }

    /// The places of the window among the matches.
    fn range(&self) -> Range<usize> {
        let start = self.query.offset;
        start..start.saturating_add(self.query.limit.unwrap_or(usize::MAX))
    }

    fn place_in_window(&self, key: &Key) -> Option<usize> {
        let (range, rank) = (self.range(), self.matches.rank(key));
        range.contains(&rank).then(|| rank - range.start)
    }

    /// The window, for checks.
    pub(crate) fn window(&self) -> &QuerySnapshot {
        &self.window
    }

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }
}

/// The place that a record had that was not touched and now has this one.
fn old_rank(key: &Key, rank: usize, moved: &[Moved]) -> usize {
    let gone = moved.iter().filter(|moved| moved.old.as_ref().is_some_and(|old| old < key));
    let come = moved.iter().filter(|moved| moved.new.as_ref().is_some_and(|(new, _)| new < key));
    rank + gone.count() - come.count()
}

#[cfg(test)]
mod tests;
