//! Counts over all collections and clients, for the limits on them.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{name_of, tagged};
use crate::protocol::codec::{Reader, put_bytes, put_u64};
use crate::protocol::name::{ClientId, UserId};
use crate::store::{Batch, Rows, StoreError};

/// The counts of the whole store. Every opening counts the collections. Clients that a version
/// without these rows has stored are counted by sweeps, in the order of their ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    /// The number of collections, those without records included.
    pub(crate) collections: u64,
    /// The clients that the counts of their users include.
    pub(crate) counted: Counted,
}

/// The clients that are counted. A new one among these is counted when it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Counted {
    /// None of them.
    #[default]
    Nobody,
    /// Those up to this id.
    UpTo(ClientId),
    /// All of them.
    All,
}

/// The key of the row of [`Totals`].
const TOTALS: &[u8] = b"t";

impl Totals {
    /// The stored totals; `None` in a store that no version with totals has opened.
    pub(crate) fn stored(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        rows.get(TOTALS)?.map(Self::from_row).transpose()
    }

    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        Ok(Self::stored(rows)?.unwrap_or_default())
    }

    pub(crate) fn put(&self, batch: &mut Batch) {
        let mut out = Vec::new();
        put_u64(&mut out, self.collections);
        match &self.counted {
            Counted::Nobody => out.push(0),
            Counted::UpTo(id) => {
                out.push(1);
                put_bytes(&mut out, id.as_bytes());
            }
            Counted::All => out.push(2),
        }
        batch.put(TOTALS.to_vec(), out);
    }

    fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let collections = reader.u64()?;
        let counted = match reader.byte()? {
            0 => Counted::Nobody,
            1 => Counted::UpTo(reader.str(|text| ClientId::new(text).ok())?),
            2 => Counted::All,
            _ => return Err(StoreError::damaged("it is not stored which clients are counted")),
        };
        reader.end()?;
        Ok(Self { collections, counted })
    }
}

impl Counted {
    /// Returns `true` if the count of its user includes this client.
    pub(crate) fn includes(&self, id: &ClientId) -> bool {
        match self {
            Self::Nobody => false,
            Self::UpTo(last) => id <= last,
            Self::All => true,
        }
    }
}

/// The number of a user's client ids, as far as they are counted.
pub(crate) fn clients_of(rows: &dyn Rows, user: Option<&UserId>) -> Result<u64, StoreError> {
    rows.get(&clients_key(user))?.map_or(Ok(0), from_count)
}

/// Stores the number of a user's client ids.
pub(crate) fn put_clients_of(user: Option<&UserId>, count: u64, batch: &mut Batch) {
    let key = clients_key(user);
    if count == 0 {
        return batch.delete(key);
    }
    let mut row = Vec::new();
    put_u64(&mut row, count);
    batch.put(key, row);
}

/// The user and the number in a row of [`clients_of`].
pub(crate) fn counted_user(key: &[u8], row: Bytes) -> Result<(Option<UserId>, u64), StoreError> {
    let user = match key.get(1..) {
        None | Some([]) => None,
        Some(name) => Some(name_of(name, UserId::new)?),
    };
    Ok((user, from_count(row)?))
}

fn from_count(row: Bytes) -> Result<u64, StoreError> {
    let mut reader = Reader::new(row);
    let count = reader.u64()?;
    reader.end()?;
    Ok(count)
}

/// No user has an empty name, so the row of the clients without a user is that of none.
fn clients_key(user: Option<&UserId>) -> Vec<u8> {
    tagged(b'n', user.map_or("", |user| user))
}
