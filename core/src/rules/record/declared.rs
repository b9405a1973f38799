//! Keys of collections that are declared and for which rows are kept beside the records: which there are,
//! and how far the rows of each are built.
//!
//! The number of a key stands in the keys of its rows; it is never given twice.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Display;
use core::str::FromStr;

use bytes::Bytes;

use super::{Head, RecordRow, index_key, index_of, record_id, tagged, to_u64, within};
use crate::protocol::codec::{Reader, put_bytes, put_u64};
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::store::{Batch, Rows, Scan, StoreError};

/// A kind of key that can be declared. Its text is what is stored.
pub(crate) trait Declarable: Clone + PartialEq + Display + FromStr {
    /// The beginning of the keys of the rows that say what is declared.
    const TAG: u8;
    /// The name of several, for people.
    const NAME: &'static str;
    /// The maximal number of a collection.
    const MOST: usize;

    /// The beginning of the keys of the rows that are kept for them.
    const ROWS: u8;

    /// Returns `true` if a collection with this head has rows of such keys, or not yet removed ones.
    fn are_in_use(head: &Head) -> bool;

    /// Notes that in a head.
    fn set_in_use(head: &mut Head, are_in_use: bool);

    /// Builds rows of a key by [`Declaration::build`]. Returns how far they are there then, and the changes of
    /// rows.
    fn build(
        key: &Declaration<Self>,
        declared: &Declarations<Self>,
        of: &Stored<'_>,
        left: &mut usize,
    ) -> Result<(Built, Batch), StoreError>;

    /// The rows of the key with a number, which takes 4 bytes in their keys.
    fn range(collection: &Collection, number: u32) -> (Vec<u8>, Vec<u8>) {
        let mut from = within(Self::ROWS, collection);
        let mut to = from.clone();
        from.extend_from_slice(&number.to_be_bytes());
        to.extend_from_slice(&number.saturating_add(1).to_be_bytes());
        (from, to)
    }
}

/// A collection as it is stored.
pub(crate) struct Stored<'a> {
    pub(crate) rows: &'a dyn Rows,
    pub(crate) collection: &'a Collection,
    pub(crate) head: Head,
}

/// The keys of a collection, as far as its rows know of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Declarations<K> {
    /// The keys that are declared.
    pub(crate) keys: Vec<Declaration<K>>,
    /// The numbers of earlier keys, whose rows are being removed.
    pub(crate) dropped: Vec<u32>,
    /// The number of numbers that were given so far.
    given: u32,
}

/// A key with the state of its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Declaration<K> {
    pub(crate) key: K,
    /// The number in the keys of its rows.
    pub(crate) number: u32,
    pub(crate) built: Built,
}

/// The progress of building the rows of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Built {
    /// They are there for the records up to this seq, and for no later one.
    UpTo(Seq),
    /// They are for all, since the collection's head was this one. Of what was before nothing is known.
    Since(Seq),
}

impl<K> Default for Declarations<K> {
    fn default() -> Self {
        Self { keys: Vec::new(), dropped: Vec::new(), given: 0 }
    }
}

impl<K: Declarable> Declarations<K> {
    /// The keys of a collection; `None` if nothing is stored of any.
    pub(crate) fn load(
        rows: &dyn Rows,
        collection: &Collection,
    ) -> Result<Option<Self>, StoreError> {
        rows.get(&tagged(K::TAG, collection))?.map(Self::from_row).transpose()
    }

    /// The keys of a collection with this head; `None` if it never had one.
    pub(crate) fn of(
        rows: &dyn Rows,
        collection: &Collection,
        head: Option<&Head>,
    ) -> Result<Option<Self>, StoreError> {
        match head {
            Some(head) if !K::are_in_use(head) => Ok(None),
            Some(_) | None => Self::load(rows, collection),
        }
    }

    /// Replaces the keys that are declared. Returns `true` if that changes anything.
    pub(crate) fn declare(&mut self, keys: &[K]) -> bool {
        let before = self.clone();
        let (kept, dropped) =
            core::mem::take(&mut self.keys).into_iter().partition(|old| keys.contains(&old.key));
        self.keys = kept;
        self.dropped.extend(dropped.into_iter().map(|old: Declaration<K>| old.number));
        for key in keys {
            if self.keys.iter().all(|known| known.key != *key) {
                self.given += 1;
                let (key, number) = (key.clone(), self.given);
                self.keys.push(Declaration { key, number, built: Built::UpTo(Seq(0)) });
            }
        }
        *self != before
    }

    /// Returns `true` if there are rows to keep or to remove.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.keys.is_empty() || !self.dropped.is_empty()
    }

    pub(crate) fn put(&self, collection: &Collection, batch: &mut Batch) {
        batch.put(tagged(K::TAG, collection), self.to_row());
    }

    fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, u64::from(self.given));
        put_u64(&mut out, self.keys.len() as u64);
        for Declaration { key, number, built } in &self.keys {
            put_u64(&mut out, u64::from(*number));
            put_bytes(&mut out, key.to_string().as_bytes());
            let (tag, seq) = match built {
                Built::UpTo(seq) => (0, seq),
                Built::Since(seq) => (1, seq),
            };
            out.push(tag);
            put_u64(&mut out, seq.0);
        }
        put_u64(&mut out, self.dropped.len() as u64);
        for number in &self.dropped {
            put_u64(&mut out, u64::from(*number));
        }
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let mut declared = Self { given: reader.u32()?, ..Self::default() };
        for _ in 0..reader.u64()? {
            let number = reader.u32()?;
            let key = reader.str(|text| text.parse().ok())?;
            let is_built = reader.flag()?;
            let seq = Seq(reader.u64()?);
            let built = if is_built { Built::Since(seq) } else { Built::UpTo(seq) };
            declared.keys.push(Declaration { key, number, built });
        }
        for _ in 0..reader.u64()? {
            declared.dropped.push(reader.u32()?);
        }
        reader.end()?;
        Ok(declared)
    }

    /// Builds rows for keys that are new, and removes those of keys that are gone, until `left` rows are
    /// read. Returns the keys as they are then, and the changes of rows; `None` if there is nothing to do.
    pub(crate) fn build(
        &self,
        of: &Stored<'_>,
        left: &mut usize,
    ) -> Result<Option<(Self, Batch)>, StoreError> {
        let (mut after, mut batch) = (self.clone(), Batch::default());
        for key in &mut after.keys {
            let (built, rows) = K::build(key, self, of, left)?;
            key.built = built;
            batch.append(rows);
        }
        after.drop_rows(of.rows, of.collection, left, &mut batch)?;
        let is_idle = after == *self && batch.is_empty();
        Ok((!is_idle).then_some((after, batch)))
    }

    /// Removes the rows of keys that are gone, until `left` rows are read.
    fn drop_rows(
        &mut self,
        rows: &dyn Rows,
        collection: &Collection,
        left: &mut usize,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        while let Some(number) = self.dropped.last() {
            let (from, to) = K::range(collection, *number);
            let mut end = true;
            rows.scan(&from, &to, &mut |key, _| {
                if *left == 0 {
                    end = false;
                    return Ok(Scan::Stop);
                }
                *left -= 1;
                batch.delete(key.to_vec());
                Ok(Scan::Next)
            })?;
            if !end {
                break;
            }
            self.dropped.pop();
        }
        Ok(())
    }
}

impl<K> Declaration<K> {
    /// Returns `true` if there are rows for a record with this seq.
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        match self.built {
            Built::UpTo(built) => seq <= built,
            Built::Since(_) => true,
        }
    }

    /// Shows the records for which rows are to be built, until `left` of them are read. Returns how far
    /// the rows are there then.
    pub(super) fn build(
        &self,
        &Stored { rows, collection, head }: &Stored<'_>,
        left: &mut usize,
        add: &mut dyn FnMut(&RecordId, &RecordRow) -> Result<(), StoreError>,
    ) -> Result<Built, StoreError> {
        let Built::UpTo(built) = self.built else { return Ok(self.built) };
        let (from, to) = (index_key(collection, built.next()), index_of(collection).1);
        let (mut reached, mut end) = (built, true);
        rows.scan(&from, &to, &mut |entry, id| {
            if *left == 0 {
                end = false;
                return Ok(Scan::Stop);
            }
            *left -= 1;
            reached = Seq(to_u64(&entry[entry.len().saturating_sub(8)..])?);
            let id = record_id(&id)?;
            let record = RecordRow::load(rows, collection, &id)?
                .ok_or_else(|| StoreError::damaged("the change index names a missing record"))?;
            add(&id, &record)?;
            Ok(Scan::Next)
        })?;
        Ok(if end { Built::Since(head.seq) } else { Built::UpTo(reached) })
    }
}
