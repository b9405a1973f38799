//! The recent changes, and the connections that follow them, each behind its lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use synclayer_core::{Collection, ConnId, Followers, Interest, Moved, RingLimits, Rings};

use tokio::sync::watch;

use crate::mailbox::Mailbox;

/// The rings of all collections and the connections that follow them.
pub(crate) struct Feed {
    rings: RwLock<Rings>,
    followers: Mutex<Followers<Arc<Mailbox>>>,
    /// The watches of the server's own program.
    watches: Mutex<HashMap<Collection, watch::Sender<()>>>,
}

impl Feed {
    pub(crate) fn new(limits: RingLimits) -> Self {
        Self {
            rings: RwLock::new(Rings::new(limits)),
            followers: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// The rings, lent for one input.
    pub(crate) fn rings(&self) -> RwLockReadGuard<'_, Rings> {
        self.rings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rings, to publish what is durable.
    pub(crate) fn rings_mut(&self) -> RwLockWriteGuard<'_, Rings> {
        self.rings.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who follow what has moved.
    pub(crate) fn wake(&self, moved: &Moved) {
        self.followers().wake(moved, |_, mailbox| mailbox.wake());
        let mut watches = self.watches();
        if watches.is_empty() {
            return;
        }
        watches.retain(|_, watch| watch.receiver_count() > 0);
        for watch in moved.into_iter().filter_map(|collection| watches.get(collection)) {
            watch.send_replace(());
        }
    }

    /// Wakes the watches: what they show may have changed otherwise.
    pub(crate) fn wake_watches(&self) {
        self.watches().values().for_each(|watch| watch.send_replace(()));
    }

    /// Wakes a connection whenever something changes that it is interested in.
    pub(crate) fn follow(&self, interest: Interest, conn: ConnId, mailbox: Arc<Mailbox>) {
        self.followers().follow(interest, conn, mailbox);
    }

    /// Wakes it no longer for this collection.
    pub(crate) fn unfollow(&self, collection: &Collection, conn: ConnId) {
        self.followers().unfollow(collection, conn);
    }

    /// Forgets a connection that has ended.
    pub(crate) fn leave(&self, conn: ConnId) {
        self.followers().leave(conn);
    }

    /// A signal whenever a collection moves.
    pub(crate) fn watch(&self, collection: &Collection) -> watch::Receiver<()> {
        self.watches().entry(collection.clone()).or_default().subscribe()
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<Collection, watch::Sender<()>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, Followers<Arc<Mailbox>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
