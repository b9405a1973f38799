//! Reads of records beside the engine: where the store has a view for them, they don't wait for the
//! engine's thread.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use synclayer_core::{Collection, Record, RecordId, StoreError};

/// Reads a record of the engine's store.
pub(crate) type Reader =
    Box<dyn Fn(&Collection, &RecordId) -> Result<Option<Record>, StoreError> + Send + Sync>;

/// The view of the engine's store, and what a read has to wait for.
#[derive(Default)]
pub(crate) struct SharedReads {
    view: RwLock<Option<ReadView>>,
    /// The number of commands that a read must see the effect of.
    made: AtomicU64,
    /// The number of those whose effect can be read.
    done: AtomicU64,
}

/// The rows of an open store. It is dropped before the store is.
pub(crate) struct ReadView {
    pub(crate) reader: Reader,
    /// The collections that are kept in sync. A read of another one makes it so, which is the
    /// engine's to do.
    pub(crate) joined: BTreeSet<Collection>,
}

impl SharedReads {
    /// Reads a record, or returns `None` if that is for the engine to do: a command of before waits for
    /// it, it has to join the collection, or the store can't be read.
    pub(crate) fn get(&self, collection: &Collection, id: &RecordId) -> Option<Option<Record>> {
        let view = self.view();
        if self.made.load(Ordering::SeqCst) != self.done.load(Ordering::SeqCst) {
            return None;
        }
        let view = view.as_ref().filter(|view| view.joined.contains(collection))?;
        (view.reader)(collection, id).ok()
    }

    /// Counts a command that is on its way to the engine.
    pub(crate) fn count_made(&self) {
        self.made.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts commands whose effect can be read: what they write is committed.
    pub(crate) fn count_done(&self, commands: u64) {
        self.done.fetch_add(commands, Ordering::SeqCst);
    }

    /// Shows the rows of another store, or of none. Returns when nobody reads the earlier one any more.
    pub(crate) fn show(&self, view: Option<ReadView>) {
        *self.view_mut() = view;
    }

    /// Takes note that a collection is kept in sync, or is so no longer.
    pub(crate) fn set_joined(&self, collection: &Collection, joined: bool) {
        if let Some(view) = &mut *self.view_mut() {
            if joined {
                view.joined.insert(collection.clone());
            } else {
                view.joined.remove(collection);
            }
        }
    }

    // nothing under this lock leaves the view half changed

    fn view(&self) -> RwLockReadGuard<'_, Option<ReadView>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, Option<ReadView>> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}
