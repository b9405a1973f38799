//! What uses which collection: handles and watches. Where nothing does any more, the replica may
//! leave it.

use std::fmt;

use synclayer_core::client::interface::Command;
use synclayer_core::protocol::name::Collection;

use super::{Engine, Inbox, Network, Replica};

/// A use of a collection by a handle or a watch, until it is dropped.
pub struct Hold<N: Network> {
    inbox: Inbox<N>,
    collection: Collection,
}

impl<N: Network> Hold<N> {
    /// A use from now on.
    pub fn new(inbox: Inbox<N>, collection: Collection) -> Self {
        let held = collection.clone();
        inbox.tell(move |engine| engine.hold(&held));
        Self { inbox, collection }
    }
}

impl<N: Network> Drop for Hold<N> {
    fn drop(&mut self) {
        let held = self.collection.clone();
        self.inbox.tell(move |engine| engine.release(&held));
    }
}

impl<N: Network> fmt::Debug for Hold<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.collection).finish()
    }
}

impl<N: Network> Engine<N> {
    /// Something uses a collection from now on. It joins those kept in sync when it is read,
    /// written or watched.
    fn hold(&mut self, collection: &Collection) {
        *self.holds.entry(collection.clone()).or_default() += 1;
    }

    /// That no longer uses it.
    fn release(&mut self, collection: &Collection) {
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
                self.command(Command::Release(collection.clone()));
            }
        }
    }
}
