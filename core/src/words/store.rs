//! What the machines ask of a store: ordered rows of bytes, read through a lent view and changed
//! by atomic batches. What the bytes mean is the machines' own affair.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::name::CommitNumber;

/// What went wrong in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no space left. What was committed before is intact; free some space and reopen.
    Full,
    /// What is stored is not what was written.
    Damaged,
    /// Another process has the store open.
    InUse,
    /// There is something else in its place: a store of the other kind or of a later format, files
    /// of another program, or a file. Nothing was changed; use another place.
    Foreign,
    /// Anything else: an I/O error, missing rights.
    Other,
}

/// A store's failure: what kind, and a text that says what happened and what to do.
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

    /// A row that can't be what this program wrote.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Damaged, message)
    }
}

/// Whether a scan goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Show me the next row.
    Next,
    /// I have seen enough.
    Stop,
}

/// What a scan shows its rows to: a key and its value at a time.
pub type Visit<'a> = dyn FnMut(&[u8], Bytes) -> Result<Scan, StoreError> + 'a;

/// The longest key of a row.
pub const MAX_KEY_BYTES: usize = 1024;

/// A consistent, read-only view of a store's rows, in the byte order of their keys.
///
/// Keys have between 1 and [`MAX_KEY_BYTES`] bytes; the bounds of a range may be empty or longer.
/// A range whose end isn't above its start holds nothing.
pub trait Rows {
    /// The value of a row, if there is one.
    ///
    /// # Errors
    /// When the store can't be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Shows the rows with `from <= key < to`, in ascending order, until `visit` stops or fails.
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
    /// Removes a row; nothing happens where there is none.
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

/// Changes that take effect together or not at all, in their order: the last change of a key
/// counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a row.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(key.into(), value.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete(key.into()));
    }

    /// Adds the changes of another batch behind these.
    pub fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
    }

    /// The changes in their order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What every store asks of a batch before it takes it.
    ///
    /// # Errors
    /// When a key is empty or longer than [`MAX_KEY_BYTES`].
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

/// Gives the changes up, in their order.
impl IntoIterator for Batch {
    type Item = Op;
    type IntoIter = alloc::vec::IntoIter<Op>;

    fn into_iter(self) -> Self::IntoIter {
        self.ops.into_iter()
    }
}

/// A client's store: synchronous, owned by one replica.
///
/// The store equals at any time, also after a crash, a prefix of the commits that it was given,
/// and that prefix holds every commit that [`durable`](Self::durable) has reported.
pub trait ClientStore {
    /// The rows as of the last commit.
    fn rows(&self) -> &dyn Rows;

    /// Makes a batch visible to every later read. Numbers rise with every call, from one opening
    /// of the store to the next as they like.
    ///
    /// # Errors
    /// When the batch could not be stored. Then no row has changed, and the store takes no further
    /// batch until it is opened anew. A batch with a bad key and a number that doesn't rise are
    /// the caller's fault: they are refused, and that is all.
    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError>;

    /// Starts to make everything durable up to a commit, and does not wait for it.
    ///
    /// # Errors
    /// When the store has failed.
    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError>;

    /// The largest number up to which all commits of this opening are durable; 0 before the first.
    ///
    /// # Errors
    /// When making them durable failed; the store takes no further batch until it is opened anew.
    fn durable(&mut self) -> Result<CommitNumber, StoreError>;
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
}

/// A server's store: shared by all sessions, and blocking, so its callers give it threads.
pub trait ServerStore: Send + Sync {
    /// Runs `decide` on the current rows and commits the batch that it returns. When this returns,
    /// the batch is as durable as the store was configured to make it, and visible to every later
    /// read. No other transaction runs between the reads of `decide` and the commit.
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

/// Rows with the changes of batches laid over them: what a second decision reads before the first
/// one is committed.
pub struct Overlay<'a> {
    below: &'a dyn Rows,
    changed: alloc::collections::BTreeMap<Bytes, Option<Bytes>>,
}

impl<'a> Overlay<'a> {
    /// These rows, with nothing changed yet.
    #[must_use]
    pub fn new(below: &'a dyn Rows) -> Self {
        Self { below, changed: alloc::collections::BTreeMap::new() }
    }

    /// Lays a row over what is there.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changed.insert(key.into(), Some(value.into()));
    }

    /// Hides a row.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.changed.insert(key.into(), None);
    }

    /// Whether nothing was laid over.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.changed.is_empty()
    }

    /// Lays the changes of a batch over what is there.
    pub fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            let (key, value) = match op {
                Op::Put(key, value) => (key, Some(value.clone())),
                Op::Delete(key) => (key, None),
            };
            self.changed.insert(key.clone(), value);
        }
    }

    /// One batch of everything that was laid over.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        let op = |(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        Batch { ops: self.changed.into_iter().map(op).collect() }
    }
}

impl Rows for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changed.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut changed = self
            .changed
            .range::<[u8], _>((core::ops::Bound::Included(from), core::ops::Bound::Excluded(to)));
        let mut above = changed.next();
        let mut stopped = false;
        self.below.scan(from, to, &mut |key, value| {
            while let Some((k, v)) = above
                && k.as_ref() < key
            {
                above = changed.next();
                if let Some(v) = v
                    && visit(k, v.clone())? == Scan::Stop
                {
                    stopped = true;
                    return Ok(Scan::Stop);
                }
            }
            let value = match above {
                Some((k, v)) if k.as_ref() == key => {
                    above = changed.next();
                    v.clone()
                }
                Some(_) | None => Some(value),
            };
            match value {
                Some(value) => {
                    let scan = visit(key, value)?;
                    stopped = scan == Scan::Stop;
                    Ok(scan)
                }
                None => Ok(Scan::Next),
            }
        })?;
        while let Some((key, value)) = above
            && !stopped
        {
            if let Some(value) = value {
                stopped = visit(key, value.clone())? == Scan::Stop;
            }
            above = changed.next();
        }
        Ok(())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let mut last = None;
        self.scan(from, to, &mut |key, value| {
            last = Some((Bytes::copy_from_slice(key), value));
            Ok(Scan::Next)
        })?;
        Ok(last)
    }
}
