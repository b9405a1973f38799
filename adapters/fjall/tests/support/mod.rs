//! The commits of the tests, and what a store holds after them.

use std::collections::BTreeMap;

use bytes::Bytes;
use synclayer_core::{Batch, Rows, Scan};

pub(crate) type Contents = BTreeMap<Vec<u8>, Bytes>;

/// Writes a new row of `size` bytes, overwrites a shared one and removes an earlier one, so that a
/// lost or a misplaced commit shows.
pub(crate) fn batch(number: u64, size: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(format!("row/{number:03}"), vec![number as u8; size]);
    batch.put(format!("shared/{}", number % 3), number.to_be_bytes().to_vec());
    batch.delete(format!("row/{:03}", number / 2));
    batch
}

pub(crate) fn contents(rows: &dyn Rows) -> Contents {
    let mut all = Contents::new();
    let visit = &mut |key: &[u8], value| {
        all.insert(key.to_vec(), value);
        Ok(Scan::Next)
    };
    rows.scan(b"", &[0xff], visit).unwrap();
    all
}
