//! Stores in memory: for programs that don't need their data after they end, and for simulations of
//! disk failures.

use alloc::collections::VecDeque;
use core::fmt;

use bytes::Bytes;
use rpds::RedBlackTreeMapSync;

use crate::protocol::name::CommitNumber;
use crate::store::{Batch, ClientStore, Op, Rows, Scan, StoreError, StoreErrorKind, Visit};

/// Rows in memory: a persistent ordered map, empty by default. Cloning is O(1) and yields an independent map.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MemoryRows {
    rows: RedBlackTreeMapSync<Bytes, Bytes>,
}

impl MemoryRows {
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
        write!(f, "MemoryRows({})", self.rows.size())
    }
}

/// A client's store in memory, empty by default. Its commits are durable at once, as far as memory is.
///
/// Cloning is O(non-durable commits) and yields an independent store.
///
/// [`SimulatedDisk`](crate::testing::SimulatedDisk) lets a test decide when its commits become
/// durable, and let it crash and fail.
///
/// ```
/// use synclayer_core::{Batch, ClientStore, CommitNumber, MemoryClientStore};
///
/// let mut store = MemoryClientStore::default();
/// let mut batch = Batch::default();
/// batch.put(&b"key"[..], &b"value"[..]);
/// store.commit(CommitNumber(1), batch)?;
/// assert_eq!(store.rows().get(b"key")?.as_deref(), Some(&b"value"[..]));
/// assert_eq!(store.durable()?, CommitNumber(1));
/// # Ok::<(), synclayer_core::StoreError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryClientStore {
    pub(crate) rows: MemoryRows,
    pub(crate) last: CommitNumber,
    pub(crate) asked: CommitNumber,
    pub(crate) durable: CommitNumber,
    /// The non-durable commits, if durability comes when a test says so.
    pub(crate) at_risk: Option<AtRisk>,
    pub(crate) faults: Faults,
    /// It is taken to notice by itself when rows are altered.
    pub(crate) proves_rows: bool,
    /// A replica has counted the rows that it does not prove.
    pub(crate) counted: bool,
}

/// The states that a crash may leave: the rows as of the last durable commit, and as of each later
/// one.
#[derive(Clone, Debug, Default)]
pub(crate) struct AtRisk {
    pub(crate) durable: MemoryRows,
    pub(crate) later: VecDeque<(CommitNumber, MemoryRows)>,
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

    fn proves_rows(&mut self) -> bool {
        self.proves_rows
    }

    fn rows_are_proved(&mut self) {
        self.counted = true;
    }
}

/// A planned failure, and the failure that has occurred.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) planned: Option<(u64, StoreError)>,
    pub(crate) failed: Option<StoreError>,
}

impl Faults {
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
