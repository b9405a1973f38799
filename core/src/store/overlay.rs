//! Rows with changes on top that are not committed yet.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use bytes::Bytes;

use crate::store::{Batch, Op, Rows, Scan, StoreError, Visit};

/// Changes of rows that are not committed yet, the last one of each row.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    rows: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl Changes {
    /// Applies the changes of a batch.
    pub(crate) fn apply(&mut self, batch: Batch) {
        for op in batch {
            match op {
                Op::Put(key, value) => self.set(key, Some(value)),
                Op::Delete(key) => self.set(key, None),
            }
        }
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.rows.insert(key, value);
    }

    /// The bytes of all changes that were made, those included that others have replaced.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All changes as one batch.
    #[must_use]
    pub(crate) fn into_batch(self) -> Batch {
        let op = |(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        Batch { ops: self.rows.into_iter().map(op).collect() }
    }
}

/// Rows as they will be when some changes are committed.
#[derive(Clone, Copy)]
pub(crate) struct Layered<'a> {
    below: &'a dyn Rows,
    changes: &'a Changes,
}

impl<'a> Layered<'a> {
    /// These rows with these changes.
    #[must_use]
    pub(crate) fn new(below: &'a dyn Rows, changes: &'a Changes) -> Self {
        Self { below, changes }
    }
}

impl Rows for Layered<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.changes.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut changed = self.changes.rows.range::<[u8], _>(bounds);
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
        if from >= to {
            return Ok(None);
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let changed = self.changes.rows.range::<[u8], _>(bounds).rev();
        let above = changed.filter_map(|(key, value)| Some((key, value.as_ref()?))).next();
        // rows below that were changed say nothing any more
        let mut below = self.below.last(from, to)?;
        while let Some((key, _)) = &below
            && self.changes.rows.contains_key(key)
        {
            below = self.below.last(from, key)?;
        }
        Ok(match (above, below) {
            (Some((key, value)), Some(below)) if *key > below.0 => {
                Some((key.clone(), value.clone()))
            }
            (Some((key, value)), None) => Some((key.clone(), value.clone())),
            (_, below) => below,
        })
    }
}

/// Rows with the changes of uncommitted batches on top, so that further transactions can be decided
/// before the first one is committed.
pub(crate) struct Overlay<'a> {
    below: &'a dyn Rows,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    /// These rows, without changes.
    #[must_use]
    pub(crate) fn new(below: &'a dyn Rows) -> Self {
        Self { below, changes: Changes::default() }
    }

    /// Sets a row.
    pub(crate) fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.set(key.into(), Some(value.into()));
    }

    /// Removes a row.
    pub(crate) fn delete(&mut self, key: impl Into<Bytes>) {
        self.changes.set(key.into(), None);
    }

    /// Returns `true` if there are no changes.
    #[must_use]
    pub(crate) fn is_unchanged(&self) -> bool {
        self.changes.rows.is_empty()
    }

    /// Applies the changes of a batch.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        self.changes.apply(batch.clone());
    }

    /// All changes as one batch.
    #[must_use]
    pub(crate) fn into_batch(self) -> Batch {
        self.changes.into_batch()
    }

    fn layered(&self) -> Layered<'_> {
        Layered::new(self.below, &self.changes)
    }
}

impl Rows for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.layered().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.layered().scan(from, to, visit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.layered().last(from, to)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryRows;

    fn batch(changes: &[(u8, Option<u8>)]) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(Vec::from([*key]), Vec::from([*value])),
                None => batch.delete(Vec::from([*key])),
            }
        }
        batch
    }

    proptest! {
        #[test]
        fn changes_on_top_are_read_as_if_they_were_made(
            below in proptest::collection::vec((0..20_u8, any::<Option<u8>>()), 0..20),
            above in proptest::collection::vec((0..20_u8, any::<Option<u8>>()), 0..20),
            from in 0..22_u8,
            to in 0..22_u8,
        ) {
            let mut rows = MemoryRows::default();
            rows.apply(batch(&below));
            let mut made = rows.clone();
            made.apply(batch(&above));
            let mut changes = Changes::default();
            changes.apply(batch(&above));
            let layered = Layered::new(&rows, &changes);
            let all = |rows: &dyn Rows| {
                let mut all = Vec::new();
                rows.scan(&[from], &[to], &mut |key, value| {
                    all.push((key.to_vec(), value));
                    Ok(Scan::Next)
                })
                .unwrap();
                all
            };
            prop_assert_eq!(all(&layered), all(&made));
            prop_assert_eq!(layered.last(&[from], &[to]), made.last(&[from], &[to]));
            prop_assert_eq!(layered.get(&[from]), made.get(&[from]));
        }
    }
}
