//! A server's store in memory.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, mem};

use synclayer_core::{Batch, MemoryRows, Rows, ServerStore, StoreError};

/// A server's store in memory: for tests, and for servers whose data may end with them.
///
/// Reads run on a snapshot and never wait for a transaction's decision. Transactions wait for each
/// other. [`clone`](Clone::clone) yields an independent store with the same rows in O(1).
///
/// ```
/// use synclayer_core::testing::conformance::{self, ServerStores};
/// use synclayer_server::MemoryServerStore;
///
/// struct InMemory;
///
/// impl ServerStores for InMemory {
///     type Store = MemoryServerStore;
///
///     fn fresh(&mut self) -> MemoryServerStore {
///         MemoryServerStore::new()
///     }
/// }
///
/// conformance::server_store(&mut InMemory);
/// ```
#[derive(Default)]
pub struct MemoryServerStore {
    /// Held by a transaction from its first read to its commit.
    writer: Mutex<Health>,
    /// Locked for no longer than a clone or a replacement takes.
    rows: Mutex<MemoryRows>,
}

impl MemoryServerStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a store that holds these rows.
    #[must_use]
    pub fn with_rows(rows: MemoryRows) -> Self {
        Self { rows: Mutex::new(rows), ..Self::default() }
    }

    /// Returns the rows as of the last transaction; later ones don't change them.
    #[must_use]
    pub fn snapshot(&self) -> MemoryRows {
        locked(&self.rows).clone()
    }

    /// Makes the next transaction that changes something fail with this error, as a full disk would.
    /// The store takes no transaction after it; reads go on, and clones of the store are sound.
    pub fn fail(&self, error: StoreError) {
        *locked(&self.writer) = Health::Failing(error);
    }
}

impl Clone for MemoryServerStore {
    fn clone(&self) -> Self {
        Self::with_rows(self.snapshot())
    }
}

impl fmt::Debug for MemoryServerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryServerStore").field(&self.snapshot()).finish()
    }
}

impl ServerStore for MemoryServerStore {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        let mut health = locked(&self.writer);
        if let Health::Failed(error) = &*health {
            return Err(error.clone());
        }
        let mut rows = self.snapshot();
        let batch = decide(&rows)?;
        if batch.is_empty() {
            return Ok(());
        }
        batch.check_keys()?;
        health.commit()?;
        rows.apply(batch);
        *locked(&self.rows) = rows;
        Ok(())
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let rows = self.snapshot();
        read(&rows)
    }
}

/// The state of a store that a test may let fail.
#[derive(Default)]
enum Health {
    #[default]
    Sound,
    /// The next commit fails.
    Failing(StoreError),
    Failed(StoreError),
}

impl Health {
    /// Takes note of a commit, which fails where that was asked for.
    fn commit(&mut self) -> Result<(), StoreError> {
        match mem::take(self) {
            Self::Sound => Ok(()),
            Self::Failing(error) | Self::Failed(error) => {
                *self = Self::Failed(error.clone());
                Err(error)
            }
        }
    }
}

/// Locks a value. A decision that panicked leaves nothing half done, since rows are replaced whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use synclayer_core::StoreErrorKind;
    use synclayer_core::testing::conformance::{self, ServerStores};

    use super::*;

    struct Cloned;

    impl ServerStores for Cloned {
        type Store = MemoryServerStore;

        fn fresh(&mut self) -> MemoryServerStore {
            MemoryServerStore::new()
        }

        fn reopen(&mut self, store: MemoryServerStore) -> Option<MemoryServerStore> {
            Some(store.clone())
        }
    }

    #[test]
    fn the_memory_store_conforms() {
        conformance::server_store(&mut Cloned);
    }

    #[test]
    fn threads_lose_no_addition() {
        let store = MemoryServerStore::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| conformance::increment(&store, 500));
            }
        });
        conformance::check_count(&store, 2_000);
    }

    #[test]
    fn a_failed_transaction_ends_the_store_and_not_its_clone() {
        let full = StoreError::new(StoreErrorKind::Full, "full");
        let store = MemoryServerStore::new();
        conformance::increment(&store, 3);
        store.fail(full.clone());
        let mut one = Batch::default();
        one.put(&b"n"[..], &b"1"[..]);
        for _ in 0..2 {
            assert_eq!(store.transact(&mut |_| Ok(one.clone())), Err(full.clone()));
        }
        conformance::check_count(&store, 3);
        conformance::increment(&store.clone(), 1);
        conformance::check_count(&store, 3);
    }

    #[test]
    fn a_decision_that_panics_changes_nothing_and_leaves_the_store_usable() {
        let store = MemoryServerStore::new();
        conformance::increment(&store, 2);
        let died = thread::scope(|scope| {
            let store = &store;
            scope.spawn(move || store.transact(&mut |_| panic!("a decision's bug"))).join()
        });
        assert!(died.is_err());
        conformance::increment(&store, 1);
        conformance::check_count(&store, 3);
    }
}
