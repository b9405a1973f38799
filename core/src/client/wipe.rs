//! Removing everything that a store holds of a user, in bounded batches that a crash may interrupt.
//!
//! The user's row is marked first, and removed last. So the slot stays taken until nothing lies in
//! it any more, and whoever opens the store finds the wipes that are to be finished.

use alloc::vec::Vec;

use crate::protocol::name::{Collection, RecordId};
use crate::rules::row::{Keys, Slot};
use crate::store::{Batch, Rows, Scan, StoreError};

/// The maximal number of rows that one batch removes.
pub(crate) const ROWS: usize = 1_000;

/// The batch that begins the wipe of a user; `None` where the store holds nothing of the user.
pub(crate) fn begin(user: &str, store: &dyn Rows) -> Result<Option<Batch>, StoreError> {
    let Some(row) = store.get(&Keys::user(user))? else { return Ok(None) };
    let slot = Slot { leaving: true, ..Slot::decode(&row)? };
    let mut batch = Batch::default();
    batch.put(Keys::user(user), slot.encode());
    Ok(Some(batch))
}

/// The next batch of a wipe that was begun; `None` where all are finished.
pub(crate) fn next(store: &dyn Rows) -> Result<Option<Batch>, StoreError> {
    let mut leaving = None;
    let (from, to) = Keys::users();
    store.scan(&from, &to, &mut |key, row| {
        let slot = Slot::decode(&row)?;
        leaving = slot.leaving.then(|| (key.to_vec(), slot));
        Ok(if slot.leaving { Scan::Stop } else { Scan::Next })
    })?;
    let Some((user, slot)) = leaving else { return Ok(None) };
    let (from, to) = Keys::new(slot.number).everything();
    let mut keys = Vec::new();
    store.scan(&from, &to, &mut |key, _| {
        keys.push(key.to_vec());
        Ok(if keys.len() == ROWS { Scan::Stop } else { Scan::Next })
    })?;
    let mut batch = Batch::default();
    let last = keys.len() < ROWS;
    keys.into_iter().for_each(|key| batch.delete(key));
    if last {
        batch.delete(user);
    }
    Ok(Some(batch))
}

/// The slot that a new user gets: one above all that are taken, of those who leave too.
pub(crate) fn free_slot(store: &dyn Rows) -> Result<u32, StoreError> {
    let (mut next, mut users) = (0, 0);
    let (from, to) = Keys::users();
    store.scan(&from, &to, &mut |_, row| {
        users += 1;
        next = next.max(Slot::decode(&row)?.number.saturating_add(1));
        Ok(Scan::Next)
    })?;
    Ok(next)
}

/// The data that a user would lose by a wipe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unsent {
    /// The number of writes that wait for the server.
    pub waiting: usize,
    /// The number of writes in the list of rejected ones.
    pub rejected: usize,
    /// The first of the records that they are about, at most 100.
    pub records: Vec<(Collection, RecordId)>,
}

impl Unsent {
    /// The maximal number of records that are named.
    pub(super) const NAMED: usize = 100;

    /// Returns `true` if nothing would be lost.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0 && self.rejected == 0
    }

    pub(super) fn name(&mut self, collection: &Collection, id: &RecordId) {
        let named = self.records.iter().any(|(of, record)| of == collection && record == id);
        if self.records.len() < Self::NAMED && !named {
            self.records.push((collection.clone(), id.clone()));
        }
    }
}

impl core::fmt::Display for Unsent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const SHOWN: usize = 5;
        let Self { waiting, rejected, records } = self;
        write!(f, "{waiting} writes that the server does not have, {rejected} that it refused: ")?;
        for (index, (collection, id)) in records.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{collection}/{id}")?;
        }
        if records.len() > SHOWN { f.write_str(" …") } else { Ok(()) }
    }
}
