//! A client's store that counts what is asked of it.

use std::cell::Cell;

use bytes::Bytes;
use synclayer_core::{Batch, ClientStore, CommitNumber, Rows, Scan, StoreError, Visit};

/// Calls made to a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Rows that were asked for by their keys.
    pub gets: u64,
    /// Scans that were begun.
    pub scans: u64,
    /// Rows that scans have shown.
    pub scanned: u64,
    /// Batches.
    pub commits: u64,
    /// Changes of rows in them.
    pub ops: u64,
}

/// A store, and what was asked of it.
#[derive(Debug)]
pub struct Counted<S> {
    store: S,
    counts: Cell<Counts>,
}

impl<S: ClientStore> Counted<S> {
    /// Counts from now on.
    pub fn new(store: S) -> Self {
        Self { store, counts: Cell::default() }
    }

    /// Returns the calls made since the last call of this.
    pub fn take(&self) -> Counts {
        self.counts.take()
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        count(&mut counts);
        self.counts.set(counts);
    }
}

impl<S: ClientStore> Rows for Counted<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.count(|counts| counts.gets += 1);
        self.store.rows().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.count(|counts| counts.scans += 1);
        self.store.rows().scan(from, to, &mut |key, value| -> Result<Scan, StoreError> {
            self.count(|counts| counts.scanned += 1);
            visit(key, value)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.count(|counts| counts.gets += 1);
        self.store.rows().last(from, to)
    }
}

impl<S: ClientStore> ClientStore for Counted<S> {
    fn rows(&self) -> &dyn Rows {
        self
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        let ops = batch.ops().len() as u64;
        self.count(|counts| {
            counts.commits += 1;
            counts.ops += ops;
        });
        self.store.commit(number, batch)
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.store.flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.store.durable()
    }
}
