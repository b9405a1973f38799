//! Snapshots of a collection for watchers, and the changes between two of them.
//!
//! A [`View`] follows a collection change by change. Its [`Snapshot`]s share their structure with
//! it and with each other, so taking a snapshot is O(1), and a change of one record costs O(log n).
//! A [`Slot`] holds the pending update of a watcher: the newest snapshot and the merged changes
//! since the last update, instead of a queue.

mod filling;
#[cfg(test)]
mod tests;

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

    /// Returns `true` if the server has confirmed that nothing is missing, and changes arrive as they are
    /// made: neither [`from_cache`](Self::from_cache) nor [`catching_up`](Self::catching_up). Pending writes
    /// of this device are among the records all the same. Where the collection is held by scopes, this is
    /// about the scopes that are held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.status.from_cache && !self.status.catching_up
    }

    /// Returns `true` if the server has not confirmed this state, has become unreachable since, or
    /// refuses the collection. Changes of others may be missing then. The opposite of it is not enough to
    /// say that all is here: see [`is_complete`](Self::is_complete).
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
