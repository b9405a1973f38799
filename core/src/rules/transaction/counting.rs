//! The counting of what versions without the counts have stored, a bounded number of rows at a time.

use alloc::collections::BTreeMap;

use crate::protocol::name::{ClientId, Collection, Seq, UserId};
use crate::rules::record::{self, ClientRow, Counted, Head, RecordRow, Totals};
use crate::store::{Batch, Rows, Scan, StoreError};

/// Adds the rows of a collection's records to its size, in the order of their seqs, until `left` rows
/// are read. Returns `true` at the end.
pub(super) fn measure(
    rows: &dyn Rows,
    collection: &Collection,
    head: &mut Head,
    left: &mut usize,
) -> Result<bool, StoreError> {
    if head.measured == head.seq {
        return Ok(true);
    }
    let from = record::index_key(collection, head.measured.next());
    let mut done = true;
    rows.scan(&from, &record::index_of(collection).1, &mut |key, id| {
        if *left == 0 {
            done = false;
            return Ok(Scan::Stop);
        }
        *left -= 1;
        head.measured = Seq(record::to_u64(&key[key.len().saturating_sub(8)..])?);
        let id = record::record_id(&id)?;
        head.bytes += RecordRow::load_sized(rows, collection, &id)?.1;
        Ok(Scan::Next)
    })?;
    if done {
        head.measured = head.seq;
    }
    Ok(done)
}

/// The changes of the numbers of client ids.
pub(super) struct Census {
    totals: Totals,
    moved: bool,
    /// By user: how many were added, and how many removed.
    changes: BTreeMap<Option<UserId>, (u64, u64)>,
}

impl Census {
    pub(super) fn begin(rows: &dyn Rows) -> Result<Self, StoreError> {
        Ok(Self { totals: Totals::load(rows)?, moved: false, changes: BTreeMap::new() })
    }

    /// Counts clients in the order of their ids, until `left` rows are read. Returns `true` at the
    /// end.
    pub(super) fn count(&mut self, rows: &dyn Rows, left: &mut usize) -> Result<bool, StoreError> {
        let from = match &self.totals.counted {
            Counted::All => return Ok(true),
            Counted::UpTo(id) => super::sweep::after(record::client_key(id)),
            Counted::Nobody => record::range_of(b'u').0,
        };
        self.moved = true;
        let mut done = true;
        rows.scan(&from, &record::range_of(b'u').1, &mut |key, row| {
            if *left == 0 {
                done = false;
                return Ok(Scan::Stop);
            }
            *left -= 1;
            let id = record::name_in(key, |name| ClientId::new(name).ok())?;
            self.changes.entry(ClientRow::from_row(row)?.user).or_default().0 += 1;
            self.totals.counted = Counted::UpTo(id);
            Ok(Scan::Next)
        })?;
        if done {
            self.totals.counted = Counted::All;
        }
        Ok(done)
    }

    /// A client is removed.
    pub(super) fn remove(&mut self, id: &ClientId, user: Option<UserId>) {
        if self.totals.counted.includes(id) {
            self.changes.entry(user).or_default().1 += 1;
        }
    }

    pub(super) fn finish(self, rows: &dyn Rows, batch: &mut Batch) -> Result<(), StoreError> {
        if self.moved {
            self.totals.put(batch);
        }
        for (user, (added, removed)) in self.changes {
            let count = record::clients_of(rows, user.as_ref())? + added;
            record::put_clients_of(user.as_ref(), count.saturating_sub(removed), batch);
        }
        Ok(())
    }
}
