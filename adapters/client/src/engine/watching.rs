//! The watchers of the app.

use synclayer_core::{Collection, RecordId, Snapshot, Update};

use super::Engine;
use crate::callback;
use crate::listen::UpdateSlot;
use crate::mailbox::Sender;

/// A watcher of a collection or of one record.
pub(super) struct WatcherSlot {
    collection: Collection,
    record: Option<RecordId>,
    /// Its slot.
    updates: Sender<UpdateSlot>,
    /// The snapshot that the app was shown last.
    shown: Snapshot,
    /// The same, while the replica that showed it is gone and the next has shown nothing.
    reopened: Option<Snapshot>,
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

impl Engine {
    /// Shows a collection, or one record of it, from now on.
    pub(super) fn watch(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        updates: Sender<UpdateSlot>,
    ) {
        self.join(&collection);
        let shown = Snapshot::default();
        self.waiting.push(WatcherSlot { collection, record, updates, shown, reopened: None });
        self.begin_watching();
    }

    /// Makes the watchers that wait known to the replica.
    pub(super) fn begin_watching(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        while let Some(watcher) = self.waiting.pop() {
            let begun = callback::run(|| match &watcher.record {
                None => replica.watch(&watcher.collection, &mut self.actions),
                Some(id) => replica.watch_record(&watcher.collection, id, &mut self.actions),
            });
            match begun {
                Ok(id) => {
                    self.watchers.insert(id, watcher);
                }
                // the failing store is noticed, and the watchers begin when it is reopened
                Err(_) => {
                    self.waiting.push(watcher);
                    break;
                }
            }
        }
        self.act();
    }

    /// Shows the watchers what is new.
    pub(super) fn show_news(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        for id in self.news.drain(..) {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && let Some(update) = replica.take(id)
            {
                watcher.show(update);
            }
        }
    }

    /// Lets the watchers wait for the next replica.
    pub(super) fn pause_watchers(&mut self) {
        self.news.clear();
        for (_, mut watcher) in std::mem::take(&mut self.watchers) {
            watcher.reopened = Some(watcher.shown.clone());
            self.waiting.push(watcher);
        }
    }

    /// Forgets the watchers whose reader has gone.
    pub(super) fn dismiss_watchers(&mut self) {
        self.waiting.retain(|watcher| !watcher.updates.is_abandoned());
        self.watchers.retain(|id, watcher| {
            let stays = !watcher.updates.is_abandoned();
            if !stays && let Ok(replica) = &mut self.replica {
                replica.unwatch(*id);
            }
            stays
        });
    }
}
