//! The watchers of the app.

use std::collections::BTreeMap;

use synclayer_core::{Action, Collection, RecordId, Snapshot, Update, WatchId};

use super::Replica;
use crate::listen::UpdateSlot;
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

/// A watcher of a collection or of one record.
struct WatcherSlot {
    collection: Collection,
    record: Option<RecordId>,
    updates: Sender<UpdateSlot>,
    /// The snapshot that the app was shown last.
    shown: Snapshot,
    /// The same, while the replica that showed it is gone and the next has shown nothing.
    reopened: Option<Snapshot>,
}

impl Watchers {
    /// Adds a watcher, which waits until it can [begin](Self::begin).
    pub(super) fn add(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        updates: Sender<UpdateSlot>,
    ) {
        let shown = Snapshot::default();
        self.waiting.push(WatcherSlot { collection, record, updates, shown, reopened: None });
    }

    /// Makes the watchers that wait known to the replica.
    pub(super) fn begin(&mut self, replica: &mut Replica, actions: &mut Vec<Action>) {
        while let Some(watcher) = self.waiting.pop() {
            let begun = match &watcher.record {
                None => replica.watch(&watcher.collection, actions),
                Some(id) => replica.watch_record(&watcher.collection, id, actions),
            };
            // a failing store is noticed, and the watchers begin when it is reopened
            let Ok(id) = begun else { return self.waiting.push(watcher) };
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
            if let Some(watcher) = self.begun.get_mut(&id)
                && let Some(update) = replica.take(id)
            {
                watcher.show(update);
            }
        }
    }

    /// Lets all wait for the next replica.
    pub(super) fn pause(&mut self) {
        self.news.clear();
        for (_, mut watcher) in std::mem::take(&mut self.begun) {
            watcher.reopened = Some(watcher.shown.clone());
            self.waiting.push(watcher);
        }
    }

    /// Forgets all, which ends what their readers read.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the watchers whose reader has gone.
    pub(super) fn dismiss_abandoned(&mut self, mut replica: Option<&mut Replica>) {
        self.waiting.retain(|watcher| !watcher.updates.is_abandoned());
        self.begun.retain(|id, watcher| {
            let stays = !watcher.updates.is_abandoned();
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
    /// Shows an update. If an earlier replica has shown the last one, the changes are the
    /// difference to that.
    fn show(&mut self, mut update: Update) {
        if let Some(shown) = self.reopened.take() {
            update.changes = update.snapshot.changes_since(&shown);
        }
        self.shown = update.snapshot.clone();
        self.updates.put(|slot| slot.put(update));
    }
}
