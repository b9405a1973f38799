//! The uses of collections by handles and watches. When nothing uses one any more, the replica may
//! leave it.

use synclayer_core::{Collection, Command};

use super::{Engine, Replica};

impl Engine {
    /// Counts one more user of a collection. It joins those kept in sync when it is read, written
    /// or watched.
    pub(super) fn hold(&mut self, collection: Collection) {
        *self.holds.entry(collection).or_default() += 1;
    }

    /// Counts one user less.
    pub(super) fn release(&mut self, collection: &Collection) {
        let left = self.holds.get_mut(collection).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            self.holds.remove(collection);
            self.release_unheld();
        }
    }

    /// Tells the replica which of the collections that joined nothing uses any more.
    pub(super) fn release_unheld(&mut self) {
        let is_unheld =
            |name: &&Collection| !self.named.contains(*name) && !self.holds.contains_key(*name);
        let unheld: Vec<_> = self.config.collections.iter().filter(is_unheld).cloned().collect();
        for collection in unheld {
            let held = |replica: &Replica| replica.holds(&collection);
            if self.replica.as_ref().is_ok_and(held) {
                self.command(Command::Release(collection));
            }
        }
    }
}
