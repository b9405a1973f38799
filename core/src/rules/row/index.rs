//! The row of an index: the collection and the fields that it is of, and how much of it there is.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::protocol::codec::{Reader, put_bytes};
use crate::protocol::name::{Collection, RecordId};
use crate::rules::query::Index;
use crate::store::StoreError;

/// An index that the store holds rows of.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct IndexRow {
    pub(crate) collection: Collection,
    pub(crate) index: Index,
    pub(crate) state: IndexState,
}

/// The part of an index that is in the store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum IndexState {
    /// It has the records up to this one, and some of the others.
    Building(Option<RecordId>),
    /// It has all records.
    Ready,
    /// It is being removed, and is not kept in step with the records.
    Leaving,
}

impl IndexRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(&mut out, self.collection.as_bytes());
        put_bytes(&mut out, alloc::format!("{}", self.index).as_bytes());
        match &self.state {
            IndexState::Building(None) => out.push(0),
            IndexState::Building(Some(id)) => {
                out.push(1);
                put_bytes(&mut out, id.as_bytes());
            }
            IndexState::Ready => out.push(2),
            IndexState::Leaving => out.push(3),
        }
        out
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let collection = row.str(|text| Collection::new(text).ok())?;
        let index = row.str(|text| text.parse().ok())?;
        let state = match row.byte()? {
            0 => IndexState::Building(None),
            1 => IndexState::Building(Some(row.str(|text| RecordId::new(text).ok())?)),
            2 => IndexState::Ready,
            3 => IndexState::Leaving,
            _ => return Err(StoreError::damaged("the state of a stored index is none")),
        };
        row.end()?;
        Ok(Self { collection, index, state })
    }
}
