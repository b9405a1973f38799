//! Snapshots of a collection for watchers, and the changes between two of them.
//!
//! A [`View`] follows a collection change by change. Its [`Snapshot`]s share their structure with
//! it and with each other, so taking a snapshot is O(1), and a change of one record costs O(log n).
//! A [`Slot`] holds the pending update of a watcher: the newest snapshot and the merged changes
//! since the last update, instead of a queue.

mod filling;

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::{fmt, mem};

use rpds::RedBlackTreeSetSync;

pub(crate) use self::filling::Filling;
use crate::protocol::document::Document;
use crate::protocol::name::RecordId;
use crate::protocol::time::Timestamp;

/// A record as the app sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The record's id.
    pub id: RecordId,
    /// The content, pending writes included.
    pub document: Document,
    /// The number of changes at the server; 0 if the server has never had the record.
    pub version: u64,
    /// The time of the last change.
    pub updated_at: Timestamp,
    /// `true` if the record has pending writes.
    pub pending: bool,
}

impl Record {
    /// Returns `true` if both look the same to an app: the same document and the same `pending`.
    pub(super) fn shows_as(&self, other: &Self) -> bool {
        (&self.document, self.pending) == (&other.document, other.pending)
    }
}

/// A collection at one moment. It never changes. Cloning is O(1).
///
/// ```
/// # use synclayer_core::{MemoryClientStore, Replica};
/// use synclayer_core::{
///     ClientConfig, Collection, Document, Limits, Now, RecordChange, RecordId, Write,
/// };
///
/// # fn document(json: &str) -> Document { Document::parse(json, &Limits::default()).unwrap() }
/// # let (now, mut out) = (Now::default(), Vec::new());
/// # let store = MemoryClientStore::default();
/// # let mut replica = Replica::open(ClientConfig::default(), 7, now, store, &mut out)?;
/// let (todos, id) = (Collection::new("todos")?, RecordId::new("1")?);
/// let watch = replica.watch(&todos, &mut out)?;
/// let empty = replica.take(watch).expect("the first update").snapshot;
///
/// let milk = document(r#"{"title": "milk"}"#);
/// replica.write(now, Write::Save(todos, id, milk.clone()), &mut out)?;
/// let update = replica.take(watch).expect("an update");
/// assert!(matches!(&update.changes[..], [RecordChange::Added(record)] if record.document == milk));
///
/// let snapshot = update.snapshot;
/// assert!(empty.is_empty() && snapshot.len() == 1);
/// assert!(snapshot.pending(), "the server has not taken the write");
/// assert!(snapshot.from_cache(), "the server has not been asked");
/// assert_eq!(snapshot.changes_since(&empty), update.changes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Snapshot {
    records: RedBlackTreeSetSync<ById>,
    pending: usize,
    status: Status,
}

/// A record that is found by its id. It is not kept beside the record once more: there may be millions.
#[derive(Clone, Debug)]
struct ById(Record);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Status {
    from_cache: bool,
    catching_up: bool,
}

impl Snapshot {
    /// The record of this id, in O(log n).
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id).map(|ById(record)| record)
    }

    /// The records in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().map(|ById(record)| record)
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

    /// Returns `true` if the server has not confirmed this state, has become unreachable since, or
    /// refuses the collection. Changes of others may be missing then.
    #[must_use]
    pub fn from_cache(&self) -> bool {
        self.status.from_cache
    }

    /// Returns `true` while a catch-up is in progress, so that some records may be newer than
    /// others.
    #[must_use]
    pub fn catching_up(&self) -> bool {
        self.status.catching_up
    }

    /// Returns `true` if some record has pending writes.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.pending > 0
    }

    /// The changes from an older snapshot to this one, in order of the ids. Reads both in full;
    /// meant for callers that were not told the changes.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Vec<RecordChange> {
        let of_new = |new: &Record| match older.get(&new.id) {
            None => Some(RecordChange::Added(new.clone())),
            Some(old) if !old.shows_as(new) => Some(RecordChange::Modified(new.clone())),
            Some(_) => None,
        };
        let gone = older.iter().filter(|old| self.get(&old.id).is_none());
        let mut changes: Vec<_> = self.iter().filter_map(of_new).collect();
        changes.extend(gone.map(|old| RecordChange::Removed(old.id.clone())));
        changes.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        changes
    }

    /// Sets or removes a record.
    fn put(&mut self, id: &RecordId, record: Option<Record>) {
        let was_pending = self.get(id).is_some_and(|old| old.pending);
        let is_pending = record.as_ref().is_some_and(|new| new.pending);
        self.pending = self.pending + usize::from(is_pending) - usize::from(was_pending);
        match record {
            Some(record) => {
                self.records.insert_mut(ById(record));
            }
            None => {
                self.records.remove_mut(&**id);
            }
        }
    }
}

/// Compares records and status.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.status == other.status && self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Snapshot {}

/// Shows the counts and the status, but not the records: there may be many.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("len", &self.len())
            .field("pending", &self.pending)
            .field("status", &self.status)
            .finish()
    }
}

/// The change of one record between two snapshots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordChange {
    /// The record was added.
    Added(Record),
    /// The record's document or `pending` changed. A new version or time alone is no change.
    Modified(Record),
    /// The record was removed.
    Removed(RecordId),
}

impl RecordChange {
    /// The id of the record.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        match self {
            Self::Added(record) | Self::Modified(record) => &record.id,
            Self::Removed(id) => id,
        }
    }

    /// The record after the change; `None` if it was removed.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Added(record) | Self::Modified(record) => Some(record),
            Self::Removed(_) => None,
        }
    }

    /// A single change with the effect of this change followed by `later`, both of one record.
    /// `None` if they cancel each other.
    #[must_use]
    pub(crate) fn then(self, later: Self) -> Option<Self> {
        match (self, later) {
            (Self::Added(_), Self::Added(new) | Self::Modified(new)) => Some(Self::Added(new)),
            (Self::Added(_), Self::Removed(_)) => None,
            (Self::Modified(_) | Self::Removed(_), Self::Added(new) | Self::Modified(new)) => {
                Some(Self::Modified(new))
            }
            (Self::Modified(_) | Self::Removed(_), Self::Removed(id)) => Some(Self::Removed(id)),
        }
    }
}

/// An update for a watcher: the newest snapshot, and the changes since the previous update. The
/// first update lists every record as added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// The collection now.
    pub snapshot: Snapshot,
    /// The changes, in order of the ids, at most one for each record. Empty if only the status of
    /// the snapshot, or the version or time of a record, changed.
    pub changes: Vec<RecordChange>,
}

/// The pending update of one watcher, into which newer ones are merged.
///
/// It holds at most one change per record, even for a slow watcher.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    snapshot: Option<Snapshot>,
    changes: Changes,
}

/// The changes of an update that waits.
#[derive(Clone, Debug)]
enum Changes {
    /// Every record of the snapshot was added: no update was taken before. They are listed then.
    All,
    Of(BTreeMap<RecordId, RecordChange>),
}

impl Default for Changes {
    fn default() -> Self {
        Self::Of(BTreeMap::new())
    }
}

impl From<Update> for Slot {
    fn from(first: Update) -> Self {
        let changes = first.changes.into_iter().map(|change| (change.id().clone(), change));
        Self { snapshot: Some(first.snapshot), changes: Changes::Of(changes.collect()) }
    }
}

impl Slot {
    /// Adds the next snapshot and its changes, in O(log n) for each change.
    pub fn put(&mut self, snapshot: Snapshot, changes: impl IntoIterator<Item = RecordChange>) {
        if let Changes::Of(merged) = &mut self.changes {
            changes.into_iter().for_each(|change| add(merged, change));
        }
        self.snapshot = Some(snapshot);
    }

    /// Returns `true` if there is no update.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.snapshot.is_none()
    }

    /// Takes the pending update.
    pub fn take(&mut self) -> Option<Update> {
        let snapshot = self.snapshot.take()?;
        let changes = match mem::take(&mut self.changes) {
            Changes::All => snapshot.iter().cloned().map(RecordChange::Added).collect(),
            Changes::Of(changes) => changes.into_values().collect(),
        };
        Some(Update { snapshot, changes })
    }
}

/// Merges a change into those that wait.
fn add(changes: &mut BTreeMap<RecordId, RecordChange>, change: RecordChange) {
    match changes.entry(change.id().clone()) {
        Entry::Vacant(entry) => {
            entry.insert(change);
        }
        Entry::Occupied(entry) => {
            let (id, earlier) = entry.remove_entry();
            if let Some(both) = earlier.then(change) {
                changes.insert(id, both);
            }
        }
    }
}

/// The state behind the watchers of one collection, or of one record of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    snapshot: Snapshot,
    only: Option<RecordId>,
}

impl View {
    /// A view of a whole collection with these stored records. Its status is `from_cache`.
    #[must_use]
    pub(crate) fn new(stored: impl IntoIterator<Item = Record>) -> Self {
        let mut filling = Filling::default();
        stored.into_iter().for_each(|record| filling.add(record));
        filling.finish()
    }

    /// A view of one record; its snapshots contain no other records.
    #[must_use]
    pub(crate) fn of_record(id: RecordId, stored: Option<Record>) -> Self {
        Self { only: Some(id), ..Self::new(stored) }
    }

    /// Applies the new state of a record, `None` if it was removed, in O(log n).
    ///
    /// Returns the change that watchers see. That is none if only the version or time of the record
    /// changed, or if the record is outside this view.
    pub(crate) fn apply(&mut self, id: &RecordId, record: Option<Record>) -> Option<RecordChange> {
        if self.only.as_ref().is_some_and(|only| only != id) {
            return None;
        }
        let change = match (self.snapshot.get(id), &record) {
            (None, None) => return None,
            (Some(old), Some(new)) if old.shows_as(new) => {
                if old != new {
                    self.snapshot.put(id, record);
                }
                return None;
            }
            (Some(_), Some(new)) => RecordChange::Modified(new.clone()),
            (None, Some(new)) => RecordChange::Added(new.clone()),
            (Some(_), None) => RecordChange::Removed(id.clone()),
        };
        self.snapshot.put(id, record);
        Some(change)
    }

    /// Sets the status of the snapshots. Returns `true` if it changed.
    pub(crate) fn set_status(&mut self, from_cache: bool, catching_up: bool) -> bool {
        let status = Status { from_cache, catching_up };
        mem::replace(&mut self.snapshot.status, status) != status
    }

    /// The record of this id, if it is in this view.
    #[must_use]
    pub(crate) fn get(&self, id: &str) -> Option<&Record> {
        self.snapshot.get(id)
    }

    /// The current snapshot.
    #[must_use]
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The slot of a new watcher, with its first update: every record as added.
    #[must_use]
    pub(crate) fn first_slot(&self) -> Slot {
        Slot { snapshot: Some(self.snapshot()), changes: Changes::All }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::limits::Limits;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn id(id: u8) -> RecordId {
        RecordId::new(&id.to_string()).unwrap()
    }

    fn record(n: u8, value: u8, pending: bool) -> Record {
        Record {
            id: id(n),
            document: Document::parse(&format!("{{\"v\":{value}}}"), &Limits::default()).unwrap(),
            version: u64::from(value),
            updated_at: Timestamp(0),
            pending,
        }
    }

    /// One step of a view's life, and whether the watcher takes its update after it.
    #[derive(Clone, PartialEq, Debug)]
    enum Step {
        Record(u8, Option<(u8, bool)>),
        Status(bool, bool),
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let value = proptest::option::weighted(0.7, (0..2u8, any::<bool>()));
        let step = prop_oneof![
            6 => (0..4u8, value).prop_map(|(n, value)| Step::Record(n, value)),
            1 => any::<(bool, bool)>().prop_map(|(a, b)| Step::Status(a, b)),
            2 => Just(Step::Take),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn step(view: &mut View, step: &Step) -> Option<Update> {
        let changes: Vec<_> = match *step {
            Step::Record(n, value) => {
                let record = value.map(|(value, pending)| record(n, value, pending));
                view.apply(&id(n), record).into_iter().collect()
            }
            Step::Status(from_cache, catching_up) => {
                let news = view.set_status(from_cache, catching_up);
                return news.then(|| Update { snapshot: view.snapshot(), changes: Vec::new() });
            }
            Step::Take => return None,
        };
        (!changes.is_empty()).then(|| Update { snapshot: view.snapshot(), changes })
    }

    /// The older snapshot with the changes of an update applied. Strict: it is an error to add a
    /// record twice or to remove a missing one.
    fn replay(older: &Snapshot, update: &Update) -> Snapshot {
        let mut view = View { snapshot: older.clone(), only: None };
        for change in &update.changes {
            let before = older.get(change.id()).is_some();
            assert_eq!(before, !matches!(change, RecordChange::Added(_)), "{change:?}");
            view.apply(change.id(), change.record().cloned());
        }
        view.snapshot.status = update.snapshot.status;
        view.snapshot
    }

    proptest! {
        #[test]
        fn what_a_watcher_takes_leads_from_one_snapshot_to_the_next(steps in steps()) {
            let mut view = View::new([]);
            let (mut slot, mut seen) = (view.first_slot(), Snapshot::default());
            for next in steps.iter().chain([&Step::Take]) {
                if let Some(update) = step(&mut view, next) {
                    slot.put(update.snapshot, update.changes);
                    prop_assert!(!slot.is_empty());
                }
                if *next == Step::Take
                    && let Some(update) = slot.take()
                {
                    prop_assert_eq!(&replay(&seen, &update), &update.snapshot);
                    prop_assert_eq!(&update.snapshot, &view.snapshot());
                    let all = update.snapshot.changes_since(&seen);
                    prop_assert!(all.iter().all(|change| update.changes.contains(change)));
                    let all = Update { changes: all, ..update.clone() };
                    prop_assert_eq!(&replay(&seen, &all), &update.snapshot);
                    prop_assert!(update.changes.is_sorted_by(|a, b| a.id() < b.id()));
                    seen = update.snapshot;
                }
                prop_assert!(slot.is_empty() || *next != Step::Take);
            }
        }

        #[test]
        fn a_slot_merges_updates_alike_however_they_were_merged_before(
            steps in steps(),
            split: proptest::sample::Index,
        ) {
            let mut view = View::new([]);
            let updates: Vec<_> = steps.iter().filter_map(|s| step(&mut view, s)).collect();
            prop_assume!(!updates.is_empty());
            let merged = |updates: &[Update]| {
                let mut slot = Slot::default();
                updates.iter().cloned().for_each(|u| slot.put(u.snapshot, u.changes));
                slot.take()
            };
            let (left, right) = updates.split_at(split.index(updates.len()));
            let halves: Vec<_> = merged(left).into_iter().chain(merged(right)).collect();
            prop_assert_eq!(merged(&halves), merged(&updates));
        }

        #[test]
        fn a_snapshot_knows_whether_something_is_pending(steps in steps()) {
            let mut view = View::new([]);
            for next in &steps {
                step(&mut view, next);
                let snapshot = view.snapshot();
                prop_assert_eq!(snapshot.pending(), snapshot.iter().any(|r| r.pending));
                prop_assert_eq!(snapshot.len(), snapshot.iter().count());
            }
        }

        #[test]
        fn a_view_of_one_record_shows_that_record(steps in steps()) {
            let (mut all, mut one) = (View::new([]), View::of_record(id(1), None));
            for next in &steps {
                step(&mut all, next);
                step(&mut one, next);
                let (all, one) = (all.snapshot(), one.snapshot());
                prop_assert_eq!(all.get("1"), one.get("1"));
                prop_assert!(one.len() <= 1);
            }
        }
    }

    #[test]
    fn a_snapshot_does_not_change() {
        let mut view = View::new([record(1, 0, false), record(2, 0, true)]);
        let before = view.snapshot();
        assert!(before.from_cache() && before.pending() && !before.catching_up());
        assert!(before.len() == 2 && !before.is_empty() && View::new([]).snapshot().is_empty());
        assert_eq!(view.first_slot().take().unwrap().changes.len(), 2);
        let change = view.apply(&id(2), Some(record(2, 1, false)));
        assert_eq!(change, Some(RecordChange::Modified(record(2, 1, false))));
        assert_eq!(view.apply(&id(2), Some(record(2, 1, false))), None, "nothing changed");
        assert_eq!(view.apply(&id(3), None), None, "nothing to remove");
        assert!(view.set_status(false, true));
        assert!(!view.set_status(false, true));
        assert_eq!(before.get("2"), Some(&record(2, 0, true)));
        let shown = format!("{before:?}");
        assert!(shown.contains("len: 2") && !shown.contains("\"v\""), "counts alone: {shown}");
        let after = view.snapshot();
        assert!(!after.from_cache() && !after.pending() && after.catching_up());
        let mut other = View::new([record(1, 0, false), record(2, 1, false)]);
        assert_ne!(after, other.snapshot(), "of another status");
        other.set_status(false, true);
        assert_eq!(after, other.snapshot());
        other.apply(&id(2), Some(record(2, 2, false)));
        assert_ne!(after, other.snapshot(), "of another content");
        assert_eq!(other.snapshot().changes_since(&after).len(), 1);
    }

    #[test]
    fn a_new_version_or_time_alone_is_no_change() {
        let mut view = View::new([record(1, 0, true)]);
        let before = view.snapshot();
        let newer = Record { version: 7, updated_at: Timestamp(9), ..record(1, 0, true) };
        assert_eq!(view.apply(&id(1), Some(newer.clone())), None);
        assert_eq!(view.get("1"), Some(&newer), "the snapshot has it all the same");
        assert_eq!(view.snapshot().changes_since(&before), []);
        let settled = Record { pending: false, ..newer };
        let told = view.apply(&id(1), Some(settled.clone()));
        assert_eq!(told, Some(RecordChange::Modified(settled)), "no longer pending");
    }

    #[test]
    fn a_change_leaves_the_other_records_where_they_are() {
        let mut view = View::new((0..100).map(|n| record(n, 0, false)));
        let before = view.snapshot();
        view.apply(&id(50), Some(record(50, 1, false)));
        let after = view.snapshot();
        let moved = before.iter().zip(after.iter()).filter(|(a, b)| !core::ptr::eq(*a, *b));
        assert_eq!(moved.count(), 1);
    }
}
