//! The scopes that a record has left, in its row.

use alloc::vec::Vec;

use crate::protocol::codec::{Reader, put_bytes, put_u64};
use crate::protocol::name::Seq;
use crate::rules::scope::ScopeValue;
use crate::store::StoreError;

/// The maximal number of scopes that a record lists as left.
pub(crate) const MAX_LEFT: usize = 64;

/// A scope that a record has left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// The number of the scope's key.
    pub(crate) number: u32,
    pub(crate) value: ScopeValue,
    /// The seq of the change by which it left.
    pub(crate) seq: Seq,
}

impl Left {
    pub(super) fn put_all(left: &[Self], out: &mut Vec<u8>) {
        for Self { number, value, seq } in left {
            put_u64(out, u64::from(*number));
            put_bytes(out, value);
            put_u64(out, seq.0);
        }
    }

    pub(super) fn take_all(mut reader: Reader) -> Result<Vec<Self>, StoreError> {
        let mut left = Vec::new();
        while !reader.is_empty() {
            let number = reader.u32()?;
            let value = reader.bytes()?.to_vec();
            left.push(Self { number, value, seq: Seq(reader.u64()?) });
        }
        Ok(left)
    }
}
