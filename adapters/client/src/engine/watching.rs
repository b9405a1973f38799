//! The watchers of the app.

use std::collections::BTreeMap;

use synclayer_core::{
    Action, Collection, NamedScope, Query, QuerySnapshot, RecordId, Snapshot, WatchId,
};

use super::Replica;
use crate::listen::{QuerySlot, UpdateSlot};
use crate::mailbox::Sender;

/// The watchers, those that wait for a replica included.
#[derive(Default)]
pub(super) struct Watchers {
    begun: BTreeMap<WatchId, WatcherSlot>,
    /// Watchers that could not begin because the store is down.
    waiting: Vec<WatcherSlot>,
    /// The watchers that have something to be shown.
    news: Vec<WatchId>,
}

/// A watcher of a collection, of one record, or of a query.
struct WatcherSlot {
    collection: Collection,
    subject: Subject,
}

enum Subject {
    Records { record: Option<RecordId>, shown: Shown<UpdateSlot, Snapshot> },
    Query { scope: Option<NamedScope>, query: Box<Query>, shown: Shown<QuerySlot, QuerySnapshot> },
}

/// The part that the app has been shown.
struct Shown<B, S> {
    updates: Sender<B>,
    /// The snapshot that the app was shown last.
    last: S,
    /// The same, while the replica that showed it is gone and the next has shown nothing.
    reopened: Option<S>,
}

impl Watchers {
    /// Adds a watcher of a collection or a record, which waits until it can [begin](Self::begin).
    pub(super) fn add(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        updates: Sender<UpdateSlot>,
    ) {
        let subject = Subject::Records { record, shown: Shown::new(updates) };
        self.waiting.push(WatcherSlot { collection, subject });
    }

    /// Adds a watcher of a query, which waits until it can [begin](Self::begin).
    pub(super) fn add_query(
        &mut self,
        (collection, scope): (Collection, Option<NamedScope>),
        query: Box<Query>,
        updates: Sender<QuerySlot>,
    ) {
        let subject = Subject::Query { scope, query, shown: Shown::new(updates) };
        self.waiting.push(WatcherSlot { collection, subject });
    }

    /// Makes the watchers that wait known to the replica.
    pub(super) fn begin(&mut self, replica: &mut Replica, actions: &mut Vec<Action>) {
        while let Some(watcher) = self.waiting.pop() {
            let collection = &watcher.collection;
            let begun = match &watcher.subject {
                Subject::Records { record: None, .. } => replica.watch(collection, actions).ok(),
                Subject::Records { record: Some(id), .. } => {
                    replica.watch_record(collection, id, actions).ok()
                }
                Subject::Query { scope, query, .. } => {
                    let (scope, query) = (scope.clone(), Query::clone(query));
                    replica.watch_query(collection, scope, query, actions).ok()
                }
            };
            // a failing store is noticed, and the watchers begin when it is reopened
            let Some(id) = begun else { return self.waiting.push(watcher) };
            self.begun.insert(id, watcher);
        }
    }

    /// Takes note that a watcher has something to be shown.
    pub(super) fn has_news(&mut self, id: WatchId) {
        self.news.push(id);
    }

    /// Shows what is new.
    pub(super) fn show(&mut self, replica: &mut Replica) {
        for id in self.news.drain(..) {
            if let Some(watcher) = self.begun.get_mut(&id) {
                watcher.show(id, replica);
            }
        }
    }

    /// Lets all wait for the next replica.
    pub(super) fn pause(&mut self) {
        self.news.clear();
        for (_, mut watcher) in std::mem::take(&mut self.begun) {
            match &mut watcher.subject {
                Subject::Records { shown, .. } => shown.pause(),
                Subject::Query { shown, .. } => shown.pause(),
            }
            self.waiting.push(watcher);
        }
    }

    /// Forgets all, which ends what their readers read.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the watchers whose reader has gone.
    pub(super) fn dismiss_abandoned(&mut self, mut replica: Option<&mut Replica>) {
        self.waiting.retain(|watcher| !watcher.is_abandoned());
        self.begun.retain(|id, watcher| {
            let stays = !watcher.is_abandoned();
            if !stays && let Some(replica) = &mut replica {
                replica.unwatch(*id);
            }
            stays
        });
    }

    /// The number of watchers that have begun.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.begun.len()
    }
}

impl WatcherSlot {
    /// Shows what the replica has.
    fn show(&mut self, id: WatchId, replica: &mut Replica) {
        match &mut self.subject {
            Subject::Records { shown, .. } => {
                let Some(mut update) = replica.take(id) else { return };
                shown.go_on(&update.snapshot, &mut update.changes, Snapshot::changes_since);
                shown.updates.put(|slot| slot.put(update));
            }
            Subject::Query { shown, .. } => {
                let Some(mut update) = replica.take_query(id) else { return };
                shown.go_on(&update.snapshot, &mut update.changes, QuerySnapshot::changes_since);
                shown.updates.put(|slot| slot.put(update));
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.subject {
            Subject::Records { shown, .. } => shown.updates.is_abandoned(),
            Subject::Query { shown, .. } => shown.updates.is_abandoned(),
        }
    }
}

impl<B, S: Clone + Default> Shown<B, S> {
    fn new(updates: Sender<B>) -> Self {
        Self { updates, last: S::default(), reopened: None }
    }

    /// Takes note of the next update. If an earlier replica has shown the last one, the changes become
    /// the difference to that.
    fn go_on<C>(
        &mut self,
        snapshot: &S,
        changes: &mut Vec<C>,
        changes_since: fn(&S, &S) -> Vec<C>,
    ) {
        if let Some(reopened) = self.reopened.take() {
            *changes = changes_since(snapshot, &reopened);
        }
        self.last = snapshot.clone();
    }

    fn pause(&mut self) {
        self.reopened = Some(self.last.clone());
    }
}
