//! Stores in memory: for programs that don't need their data after they end, and for simulations of
//! disk failures.

use alloc::collections::VecDeque;
use core::fmt;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::protocol::name::CommitNumber;
use crate::store::{Batch, ClientStore, Op, Rows, Scan, StoreError, StoreErrorKind, Visit};

/// Rows in memory: a persistent ordered map. Cloning is O(1) and yields an independent map.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MemoryRows {
    rows: RedBlackTreeMapSync<Bytes, Bytes>,
}

impl MemoryRows {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.size()
    }

    /// Returns `true` if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.rows.iter()
    }

    /// Applies a batch, without checking its keys.
    pub fn apply(&mut self, batch: Batch) {
        for op in batch {
            match op {
                Op::Put(key, value) => self.rows.insert_mut(key, value),
                Op::Delete(key) => {
                    self.rows.remove_mut(&key);
                }
            }
        }
    }

    fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        // the map refuses a range that ends before it starts
        let from = Bytes::copy_from_slice(from.min(to));
        self.rows.range(from..Bytes::copy_from_slice(to))
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for (key, value) in self.range(from, to) {
            if visit(key, value.clone())? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        Ok(self.range(from, to).next_back().map(|(key, value)| (key.clone(), value.clone())))
    }
}

/// Shows the number of rows, but not their contents.
impl fmt::Debug for MemoryRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRows({})", self.len())
    }
}

/// A client's store in memory.
///
/// A store made by [`new`](Self::new) has commits that are durable at once, as far as memory is. A
/// store made by [`when_told`](Self::when_told) is for simulators: its commits become durable when
/// [`make_durable`](Self::make_durable) is called, and [`crash_to`](Self::crash_to) yields any
/// state that a disk might have after a crash.
///
/// Cloning is O(non-durable commits) and yields an independent store.
///
/// ```
/// use synclayer_core::{Batch, ClientStore, CommitNumber, MemoryClientStore};
///
/// let mut store = MemoryClientStore::when_told();
/// for number in 1..=3 {
///     let mut batch = Batch::new();
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
#[derive(Clone, Debug, Default)]
pub struct MemoryClientStore {
    rows: MemoryRows,
    last: CommitNumber,
    asked: CommitNumber,
    durable: CommitNumber,
    /// The non-durable commits, if durability comes by [`make_durable`](Self::make_durable).
    at_risk: Option<AtRisk>,
    faults: Faults,
}

/// The states that a crash may leave: the rows as of the last durable commit, and as of each later
/// one.
#[derive(Clone, Debug, Default)]
struct AtRisk {
    durable: MemoryRows,
    later: VecDeque<(CommitNumber, MemoryRows)>,
}

impl MemoryClientStore {
    /// An empty store whose commits are durable at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose commits are durable when [`make_durable`](Self::make_durable) says so.
    #[must_use]
    pub fn when_told() -> Self {
        Self { at_risk: Some(AtRisk::default()), ..Self::default() }
    }

    /// The number of the last commit; 0 before the first one of this opening.
    #[must_use]
    pub fn last(&self) -> CommitNumber {
        self.last
    }

    /// The largest number for which a flush was requested; 0 before the first flush of this
    /// opening.
    #[must_use]
    pub fn asked(&self) -> CommitNumber {
        self.asked
    }

    /// The rows as of the last commit. A clone of them does not change.
    #[must_use]
    pub fn memory_rows(&self) -> &MemoryRows {
        &self.rows
    }

    /// Makes the commits up to a number durable. It never reverts durability, and does not affect
    /// future commits.
    pub fn make_durable(&mut self, up_to: CommitNumber) {
        self.durable = self.durable.max(up_to.min(self.last));
        if let Some(at_risk) = &mut self.at_risk {
            at_risk.settle(self.durable);
        }
    }

    /// Makes the `nth` commit from now on fail with this error (1 is the next one). After it the
    /// store refuses everything until it crashes.
    pub fn fail_commit(&mut self, nth: u64, error: StoreError) {
        self.faults.plan(nth, error);
    }

    /// Makes the store fail now, as if making its commits durable had failed.
    pub fn fail(&mut self, error: StoreError) {
        self.faults.failed = Some(error);
    }

    /// The store as reopened after a crash that lost every commit above a number. Durable commits
    /// are never lost. Failures, planned ones included, are cleared, and numbers start anew.
    #[must_use]
    pub fn crash_to(self, number: CommitNumber) -> Self {
        let Some(at_risk) = self.at_risk else {
            return Self { rows: self.rows, ..Self::default() };
        };
        let rows = at_risk.left_by(number);
        let at_risk = AtRisk { durable: rows.clone(), later: VecDeque::new() };
        Self { rows, at_risk: Some(at_risk), ..Self::default() }
    }

    /// The store as reopened after a clean end, which loses nothing.
    #[must_use]
    pub fn reopen(self) -> Self {
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

impl ClientStore for MemoryClientStore {
    fn rows(&self) -> &dyn Rows {
        &self.rows
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.faults.check()?;
        batch.check_keys()?;
        if number <= self.last {
            let message = format_args!("commit {number} came after commit {}", self.last);
            return Err(StoreError::new(StoreErrorKind::Other, alloc::fmt::format(message)));
        }
        self.faults.count()?;
        self.rows.apply(batch);
        self.last = number;
        match &mut self.at_risk {
            Some(at_risk) => at_risk.later.push_back((number, self.rows.clone())),
            None => self.durable = number,
        }
        Ok(())
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.faults.check()?;
        self.asked = self.asked.max(up_to);
        Ok(())
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.faults.check()?;
        Ok(self.durable)
    }
}

/// A planned failure, and the failure that has occurred.
#[derive(Clone, Debug, Default)]
struct Faults {
    planned: Option<(u64, StoreError)>,
    failed: Option<StoreError>,
}

impl Faults {
    fn plan(&mut self, nth: u64, error: StoreError) {
        self.planned = Some((nth.max(1), error));
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Counts a commit, which may be the one that fails.
    fn count(&mut self) -> Result<(), StoreError> {
        match self.planned.take() {
            None => Ok(()),
            Some((1, error)) => {
                self.failed = Some(error.clone());
                Err(error)
            }
            Some((n, error)) => {
                self.planned = Some((n - 1, error));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::{self, ClientStores};

    struct AtOnce;

    impl ClientStores for AtOnce {
        type Store = MemoryClientStore;

        fn fresh(&mut self) -> MemoryClientStore {
            MemoryClientStore::new()
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
        let mut batch = Batch::new();
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
