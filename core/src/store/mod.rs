//! The store interface of the state machines: ordered rows of bytes, read through a borrowed view
//! and changed by atomic batches. Only the state machines interpret the bytes.

mod memory;
mod overlay;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::protocol::name::CommitNumber;

pub(crate) use memory::AtRisk;
pub use memory::{MemoryClientStore, MemoryRows};
pub(crate) use overlay::{Changes, Layered, Overlay};

/// The kind of a store error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no space left. Earlier commits are intact; free some space and reopen.
    Full,
    /// The stored data is damaged.
    Damaged,
    /// Another process has the store open.
    InUse,
    /// The path holds something else: a store of the other kind or of a later format, files of
    /// another program, or a file. Nothing was changed; use another path.
    Foreign,
    /// Anything else: an I/O error, missing rights.
    Other,
}

/// A store's failure: its kind, and a text that says what happened and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// The kind, for programs.
    pub kind: StoreErrorKind,
    /// The text, for people.
    pub message: String,
}

impl StoreError {
    /// An error of this kind with this text.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A row that this program can't have written.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Damaged, message)
    }
}

/// The decision of a visitor to continue or end a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Continue with the next row.
    Next,
    /// End the scan.
    Stop,
}

/// The visitor of a scan. It gets the key and the value of one row at a time.
pub type Visit<'a> = dyn FnMut(&[u8], Bytes) -> Result<Scan, StoreError> + 'a;

/// The maximal length of a key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 1024;

/// A consistent, read-only view of a store's rows, in the byte order of their keys.
///
/// Keys have between 1 and 1,024 bytes; the bounds of a range may be empty or longer. A
/// range whose end isn't above its start is empty.
pub trait Rows {
    /// The value of a row, if there is one.
    ///
    /// # Errors
    /// When the store can't be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `visit` with the rows `from <= key < to`, in ascending order, until it ends the scan
    /// or fails.
    ///
    /// # Errors
    /// When the store can't be read, and every error of `visit`.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// The last row with `from <= key < to`.
    ///
    /// # Errors
    /// When the store can't be read.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError>;
}

/// One change of a batch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Sets a row.
    Put(Bytes, Bytes),
    /// Removes a row, if it exists.
    Delete(Bytes),
}

impl Op {
    /// The key of the row that changes.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Changes that take effect together or not at all; none by default. The last change of a key counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(key.into(), value.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete(key.into()));
    }

    /// Appends the changes of another batch.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
    }

    /// The changes in their order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Returns `true` if the batch is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Checks the requirements of every store on a batch.
    ///
    /// # Errors
    /// When a key is empty or longer than 1,024 bytes.
    pub fn check_keys(&self) -> Result<(), StoreError> {
        for op in &self.ops {
            let bytes = op.key().len();
            if bytes == 0 || bytes > MAX_KEY_BYTES {
                let message =
                    format!("a row's key has {bytes} bytes; 1 to {MAX_KEY_BYTES} are allowed");
                return Err(StoreError::new(StoreErrorKind::Other, message));
            }
        }
        Ok(())
    }
}

/// Consumes the batch and yields its changes in order.
impl IntoIterator for Batch {
    type Item = Op;
    type IntoIter = alloc::vec::IntoIter<Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

/// A client's store: synchronous, owned by one replica.
///
/// At any time, also after a crash, the store equals a prefix of the commits that it was given, and
/// that prefix includes every commit that [`durable`](Self::durable) has reported.
pub trait ClientStore {
    /// The rows as of the last commit.
    fn rows(&self) -> &dyn Rows;

    /// Makes a batch visible to every later read. Numbers increase strictly while the store is
    /// open; they may restart when it is reopened.
    ///
    /// # Errors
    /// When the batch could not be stored. Then no row has changed, and the store takes no further
    /// batch until it is reopened. A batch with an invalid key and a number that doesn't increase
    /// are faults of the caller: they are refused without further effect.
    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError>;

    /// Starts to make every commit up to this one durable, without waiting for it.
    ///
    /// # Errors
    /// When the store has failed.
    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError>;

    /// The largest number up to which all commits of this opening are durable; 0 before the first.
    ///
    /// When making them durable failed; the store takes no further batch until it is reopened.
    fn durable(&mut self) -> Result<CommitNumber, StoreError>;

    /// Returns `true` if the store knows that it holds what a replica left there: no row was lost, none
    /// was altered by anybody else, and all are of one time. Then the count and the checksum that a
    /// replica keeps beside the rows are trusted when it is opened, and the rows are counted only where
    /// these differ from the server's. `false` by default: every collection is counted once after each
    /// opening.
    ///
    /// A replica asks once, when it is opened. Who changes rows without asking is no replica.
    fn proves_rows(&mut self) -> bool {
        false
    }

    /// Learns that a replica to which it has not proved its rows has counted all of them since.
    fn rows_are_proved(&mut self) {}

    /// The same rows as [`rows`](Self::rows), always as of the last commit, for reads on other threads
    /// while the store is in use. The store stays open until this is dropped. `None`, the default, where
    /// a store has no such view: every read is then made by its owner.
    fn reader(&self) -> Option<Arc<dyn Rows + Send + Sync>> {
        None
    }
}

impl<S: ClientStore + ?Sized> ClientStore for Box<S> {
    fn rows(&self) -> &dyn Rows {
        (**self).rows()
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(number, batch)
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        (**self).flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        (**self).durable()
    }

    fn proves_rows(&mut self) -> bool {
        (**self).proves_rows()
    }

    fn rows_are_proved(&mut self) {
        (**self).rows_are_proved();
    }

    fn reader(&self) -> Option<Arc<dyn Rows + Send + Sync>> {
        (**self).reader()
    }
}

/// A server's store. It is shared by all sessions and blocking, so callers need threads for it.
///
/// [`testing::conformance`](crate::testing::conformance) tests any store.
///
/// ```
/// use std::sync::Mutex;
///
/// use synclayer_core::{Batch, MemoryRows, Rows, ServerStore, StoreError};
///
/// /// Rows in memory. A transaction works on a copy, so reads don't wait for it.
/// #[derive(Default)]
/// struct Simple {
///     writer: Mutex<()>,
///     rows: Mutex<MemoryRows>,
/// }
///
/// impl ServerStore for Simple {
///     fn transact(
///         &self,
///         decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
///     ) -> Result<(), StoreError> {
///         let _writer = self.writer.lock().unwrap();
///         let mut rows = self.rows.lock().unwrap().clone();
///         let batch = decide(&rows)?;
///         batch.check_keys()?;
///         rows.apply(batch);
///         *self.rows.lock().unwrap() = rows;
///         Ok(())
///     }
///
///     fn read(
///         &self,
///         read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
///     ) -> Result<(), StoreError> {
///         let rows = self.rows.lock().unwrap().clone();
///         read(&rows)
///     }
/// }
///
/// # use synclayer_core::testing::conformance::{self, ServerStores};
/// # struct Suite;
/// # impl ServerStores for Suite {
/// #     type Store = Simple;
/// #     fn fresh(&mut self) -> Simple {
/// #         Simple::default()
/// #     }
/// # }
/// # conformance::server_store(&mut Suite);
/// ```
pub trait ServerStore: Send + Sync {
    /// Runs `decide` on the current rows and commits the batch that it returns. On return the batch
    /// is visible to every later read, and as durable as the store is configured to make it. No
    /// other transaction runs between the reads of `decide` and the commit.
    ///
    /// A store shared by several servers may run `decide` more than once; the last run counts.
    ///
    /// # Errors
    /// When `decide` fails, or the batch could not be committed.
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError>;

    /// Runs `read` on one consistent view of the rows.
    ///
    /// # Errors
    /// When the store can't be read, and every error of `read`.
    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
}
