//! The recent changes, and who is woken by them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use synclayer_core::rules::transaction::Published;
use synclayer_core::server::ring::{RingLimits, Rings};
use synclayer_core::words::name::{Collection, ConnId};

use crate::mailbox::Mailbox;

/// The rings of all collections and the connections that follow them.
pub(crate) struct Feed {
    rings: RwLock<Rings>,
    followers: Mutex<Followers>,
}

type Followers = HashMap<Collection, HashMap<ConnId, Arc<Mailbox>>>;

impl Feed {
    pub(crate) fn new(limits: RingLimits) -> Self {
        Self { rings: RwLock::new(Rings::new(limits)), followers: Mutex::default() }
    }

    /// The rings, lent for one input.
    pub(crate) fn rings(&self) -> RwLockReadGuard<'_, Rings> {
        self.rings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows changes that are durable, in the order of their seqs, and wakes who follows them.
    pub(crate) fn publish(&self, changes: &[Published]) {
        if changes.is_empty() {
            return;
        }
        {
            let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
            changes.iter().for_each(|change| rings.publish(change));
        }
        let moved: BTreeSet<&Collection> = changes.iter().map(|c| &c.collection).collect();
        let followers = self.followers();
        for collection in moved {
            followers.get(collection).into_iter().flatten().for_each(|(_, mailbox)| mailbox.ring());
        }
    }

    /// Wakes a connection whenever a collection moves.
    pub(crate) fn follow(&self, collection: Collection, conn: ConnId, mailbox: Arc<Mailbox>) {
        self.followers().entry(collection).or_default().insert(conn, mailbox);
    }

    /// No longer.
    pub(crate) fn unfollow(&self, collection: &Collection, conn: ConnId) {
        let mut followers = self.followers();
        if let Some(those) = followers.get_mut(collection) {
            those.remove(&conn);
            if those.is_empty() {
                followers.remove(collection);
            }
        }
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
