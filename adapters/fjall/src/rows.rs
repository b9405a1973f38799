//! Rows as the database keeps them, and the two ways to look at them.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Keyspace, Readable, Slice, Snapshot};
use synclayer_core::{Rows, Scan, StoreError, Visit};

use crate::failure;
use crate::kinds::StoreKind;

/// The first byte of the key of a row that belongs to the store's user.
pub(crate) const ROW: u8 = b'r';

/// Values below this size are copied out of the block of the database that they lie in, since a
/// short value that is kept would keep the whole block.
const SHARED_FROM: usize = 4096;

/// The table of all rows, and what its errors need to know.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) rows: Keyspace,
    pub(crate) path: Arc<PathBuf>,
    pub(crate) kind: StoreKind,
}

impl Table {
    pub(crate) fn failure(&self, error: fjall::Error) -> StoreError {
        failure::fjall(self.kind, &self.path, error)
    }

    fn read_scan(&self, found: fjall::Iter, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for row in found {
            let (key, value) = row.into_inner().map_err(|error| self.failure(error))?;
            if visit(user_key(&key), owned(value))? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    fn read_last(&self, mut found: fjall::Iter) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let Some(row) = found.next_back() else { return Ok(None) };
        let (key, value) = row.into_inner().map_err(|error| self.failure(error))?;
        Ok(Some((Bytes::copy_from_slice(user_key(&key)), owned(value))))
    }

    fn read_get(&self, found: fjall::Result<Option<Slice>>) -> Result<Option<Bytes>, StoreError> {
        Ok(found.map_err(|error| self.failure(error))?.map(owned))
    }
}

/// The rows as they are.
pub(crate) struct Latest(pub(crate) Table);

impl Rows for Latest {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.read_get(self.0.rows.get(row_key(key)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = range(from, to) else { return Ok(()) };
        self.0.read_scan(self.0.rows.range(range), visit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let Some(range) = range(from, to) else { return Ok(None) };
        self.0.read_last(self.0.rows.range(range))
    }
}

/// The rows as they were at one moment.
pub(crate) struct View {
    pub(crate) table: Table,
    pub(crate) at: Snapshot,
}

impl Rows for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.table.read_get(self.at.get(&self.table.rows, row_key(key)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = range(from, to) else { return Ok(()) };
        self.table.read_scan(self.at.range(&self.table.rows, range), visit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let Some(range) = range(from, to) else { return Ok(None) };
        self.table.read_last(self.at.range(&self.table.rows, range))
    }
}

/// The key under which the database keeps a user's row.
pub(crate) fn row_key(key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(ROW);
    full.extend_from_slice(key);
    full
}

fn user_key(full: &[u8]) -> &[u8] {
    full.get(1..).unwrap_or_default()
}

/// `None` where the range holds nothing.
fn range(from: &[u8], to: &[u8]) -> Option<Range<Vec<u8>>> {
    (from < to).then(|| row_key(from)..row_key(to))
}

fn owned(value: Slice) -> Bytes {
    if value.len() < SHARED_FROM { Bytes::copy_from_slice(&value) } else { value.into() }
}
