//! Parts of rows that several kinds of rows have.

use alloc::vec::Vec;

use crate::protocol::codec::{Reader, put_bytes, put_i64, put_option, put_u64};
use crate::protocol::document::Document;
use crate::protocol::name::{DatabaseId, Epoch};
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::store::StoreError;

/// The first byte of an optional part of a row, with a flag in it.
pub(super) fn tag(is_there: bool, mark: bool) -> u8 {
    u8::from(is_there) | u8::from(mark) << 1
}

pub(super) fn untag(tag: u8) -> Result<(bool, bool), StoreError> {
    match tag {
        0..=3 => Ok((tag & 1 == 1, tag & 2 == 2)),
        _ => Err(StoreError::damaged("a stored part is neither there nor absent")),
    }
}

pub(super) fn addresses(row: &mut Reader) -> Result<Vec<u64>, StoreError> {
    let count = row.u64()?;
    (0..count).map(|_| row.u64()).collect()
}

pub(super) fn put_times(out: &mut Vec<u8>, times: &FieldTimes) {
    put_u64(out, times.len() as u64);
    for (name, at) in times {
        put_bytes(out, name.as_bytes());
        put_i64(out, at.0);
    }
}

pub(super) fn times(row: &mut Reader) -> Result<FieldTimes, StoreError> {
    let count = row.u64()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let name = row.str(|text| Some(text.into()))?;
        times.push((name, Timestamp(row.i64()?)));
    }
    Ok(times)
}

pub(super) fn put_document(out: &mut Vec<u8>, document: Option<&Document>) {
    put_option(out, document.map(Document::as_row));
}

pub(super) fn document(row: &mut Reader) -> Result<Option<Document>, StoreError> {
    row.option()?.map(Document::from_row).transpose()
}

pub(super) fn database(row: &mut Reader) -> Result<Option<DatabaseId>, StoreError> {
    let Some(bytes) = row.option()? else { return Ok(None) };
    let name = core::str::from_utf8(&bytes).ok().and_then(|text| DatabaseId::new(text).ok());
    name.map(Some).ok_or_else(|| StoreError::damaged("a stored database id is no valid name"))
}

pub(super) fn epoch(row: &mut Reader) -> Result<Epoch, StoreError> {
    row.str(|text| Epoch::new(text).ok())
}
