//! A disk for a store in memory, whose durability, crashes and failures a test decides.

use alloc::collections::VecDeque;

use crate::protocol::name::CommitNumber;
use crate::store::{AtRisk, MemoryClientStore, MemoryRows, StoreError};

/// The disk beneath a [`MemoryClientStore`], for tests and simulators. With
/// [`when_told`](Self::when_told) its commits become durable when
/// [`make_durable`](Self::make_durable) is called, and [`crash_to`](Self::crash_to) yields any state
/// that a disk might have after a crash.
///
/// ```
/// use synclayer_core::testing::SimulatedDisk;
/// use synclayer_core::{Batch, ClientStore, CommitNumber, MemoryClientStore};
///
/// let mut store = MemoryClientStore::when_told();
/// for number in 1..=3 {
///     let mut batch = Batch::default();
///     batch.put(&b"key"[..], vec![number]);
///     store.commit(CommitNumber(number.into()), batch)?;
/// }
/// store.make_durable(CommitNumber(1));
/// assert_eq!(store.durable()?, CommitNumber(1));
///
/// let store = store.crash_to(CommitNumber(2));
/// assert_eq!(store.rows().get(b"key")?.as_deref(), Some(&[2][..]));
/// # Ok::<(), synclayer_core::StoreError>(())
/// ```
pub trait SimulatedDisk: Sized {
    /// An empty store whose commits are durable when [`make_durable`](Self::make_durable) says so.
    #[must_use]
    fn when_told() -> Self;

    /// The number of the last commit; 0 before the first one of this opening.
    #[must_use]
    fn last(&self) -> CommitNumber;

    /// The largest number for which a flush was requested; 0 before the first flush of this
    /// opening.
    #[must_use]
    fn asked(&self) -> CommitNumber;

    /// The rows as of the last commit. A clone of them does not change.
    #[must_use]
    fn memory_rows(&self) -> &MemoryRows;

    /// Makes the commits up to a number durable. It never reverts durability, and does not affect
    /// future commits.
    fn make_durable(&mut self, up_to: CommitNumber);

    /// Makes the `nth` commit from now on fail with this error (1 is the next one). After it the
    /// store refuses everything until it crashes.
    fn fail_commit(&mut self, nth: u64, error: StoreError);

    /// Makes the store fail now, as if making its commits durable had failed.
    fn fail(&mut self, error: StoreError);

    /// Sets whether replicas take the store to prove its rows, also after crashes. It does: nothing
    /// alters them but a test.
    fn set_proves_rows(&mut self, proves: bool);

    /// Returns `true` if a replica has counted all rows since the last crash.
    fn rows_are_counted(&self) -> bool;

    /// The store as reopened after a crash that lost every commit above a number. Durable commits
    /// are never lost. Failures, planned ones included, are cleared, and numbers start anew.
    #[must_use]
    fn crash_to(self, number: CommitNumber) -> Self;

    /// The store as reopened after a clean end, which loses nothing.
    #[must_use]
    fn reopen(self) -> Self;
}

impl SimulatedDisk for MemoryClientStore {
    fn when_told() -> Self {
        Self { at_risk: Some(AtRisk::default()), ..Self::default() }
    }

    fn last(&self) -> CommitNumber {
        self.last
    }

    fn asked(&self) -> CommitNumber {
        self.asked
    }

    fn memory_rows(&self) -> &MemoryRows {
        &self.rows
    }

    fn make_durable(&mut self, up_to: CommitNumber) {
        self.durable = self.durable.max(up_to.min(self.last));
        if let Some(at_risk) = &mut self.at_risk {
            at_risk.settle(self.durable);
        }
    }

    fn fail_commit(&mut self, nth: u64, error: StoreError) {
        self.faults.planned = Some((nth.max(1), error));
    }

    fn fail(&mut self, error: StoreError) {
        self.faults.failed = Some(error);
    }

    fn set_proves_rows(&mut self, proves: bool) {
        self.proves_rows = proves;
    }

    fn rows_are_counted(&self) -> bool {
        self.counted
    }

    fn crash_to(self, number: CommitNumber) -> Self {
        let proves_rows = self.proves_rows;
        let Some(at_risk) = self.at_risk else {
            return Self { rows: self.rows, proves_rows, ..Self::default() };
        };
        let rows = at_risk.left_by(number);
        let at_risk = AtRisk { durable: rows.clone(), later: VecDeque::new() };
        Self { rows, at_risk: Some(at_risk), proves_rows, ..Self::default() }
    }

    fn reopen(self) -> Self {
        let last = self.last;
        self.crash_to(last)
    }
}

impl AtRisk {
    fn settle(&mut self, up_to: CommitNumber) {
        let settled = self.later.iter().take_while(|(number, _)| *number <= up_to).count();
        if let Some((_, rows)) = self.later.drain(..settled).next_back() {
            self.durable = rows;
        }
    }

    fn left_by(mut self, number: CommitNumber) -> MemoryRows {
        self.settle(number);
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, ClientStore, StoreErrorKind};
    use crate::testing::conformance::{self, ClientStores};

    struct AtOnce;

    impl ClientStores for AtOnce {
        type Store = MemoryClientStore;

        fn fresh(&mut self) -> MemoryClientStore {
            MemoryClientStore::default()
        }

        fn reopen(&mut self, store: MemoryClientStore) -> Option<MemoryClientStore> {
            Some(store.reopen())
        }
    }

    struct WhenTold;

    impl ClientStores for WhenTold {
        type Store = MemoryClientStore;

        fn fresh(&mut self) -> MemoryClientStore {
            MemoryClientStore::when_told()
        }

        fn reopen(&mut self, store: MemoryClientStore) -> Option<MemoryClientStore> {
            Some(store.crash_to(CommitNumber(0)))
        }

        fn work(&mut self, store: &mut MemoryClientStore) {
            store.make_durable(store.asked());
        }
    }

    #[test]
    fn the_memory_stores_conform() {
        conformance::client_store(&mut AtOnce);
        conformance::client_store(&mut WhenTold);
    }

    fn put(store: &mut MemoryClientStore, n: u8) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(&b"n"[..], alloc::vec![n]);
        store.commit(CommitNumber(n.into()), batch)
    }

    fn value(store: &MemoryClientStore) -> Option<u8> {
        store.rows().get(b"n").unwrap().map(|value| value[0])
    }

    #[test]
    fn a_crash_leaves_what_was_asked_for_but_everything_durable() {
        let mut store = MemoryClientStore::when_told();
        for n in 1..=9 {
            put(&mut store, n).unwrap();
        }
        store.make_durable(CommitNumber(4));
        assert_eq!(store.durable(), Ok(CommitNumber(4)));
        let left = |number| value(&store.clone().crash_to(CommitNumber(number)));
        assert_eq!([0, 4, 6, 9, 99].map(left), [4, 4, 6, 9, 9].map(Some));
        assert_eq!(value(&store.clone().reopen()), Some(9));
        // the state after a crash is durable
        let again = store.crash_to(CommitNumber(6)).crash_to(CommitNumber(0));
        assert_eq!(value(&again), Some(6));
        assert_eq!(value(&MemoryClientStore::when_told().crash_to(CommitNumber(3))), None);
    }

    #[test]
    fn durability_is_neither_taken_back_nor_given_ahead() {
        let mut store = MemoryClientStore::when_told();
        put(&mut store, 1).unwrap();
        store.make_durable(CommitNumber(8));
        put(&mut store, 2).unwrap();
        store.make_durable(CommitNumber(0));
        assert_eq!(store.durable(), Ok(CommitNumber(1)));
    }

    #[test]
    fn a_planned_failure_comes_when_it_was_planned_and_stays() {
        let full = StoreError::new(StoreErrorKind::Full, "full");
        let mut store = MemoryClientStore::when_told();
        store.fail_commit(2, full.clone());
        put(&mut store, 1).unwrap();
        assert_eq!(put(&mut store, 2), Err(full.clone()));
        assert_eq!(value(&store), Some(1));
        assert_eq!(put(&mut store, 3), Err(full.clone()));
        assert_eq!(store.flush(CommitNumber(1)), Err(full.clone()));
        assert_eq!(store.durable(), Err(full.clone()));
        let mut store = store.reopen();
        put(&mut store, 1).unwrap();
        store.fail(full.clone());
        assert_eq!(store.durable(), Err(full));
    }
}
