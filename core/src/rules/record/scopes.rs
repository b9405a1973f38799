//! The rows of scopes: which records are in them, and which have left them.
//!
//! | key | value |
//! | --- | --- |
//! | `k` collection | [`Declared`]: the collection's scope keys |
//! | `s` collection 0 number `h` value | [`ScopeHead`]: count, checksum, horizon |
//! | `s` collection 0 number `m` value seq | the id of a member, at the seq of its last change |
//! | `s` collection 0 number `l` value seq | the id of a record that left the scope at this seq |
//!
//! The number of a key takes 4 bytes. No value is the beginning of another one.
//! The rows change in the transaction that changes the record.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;

use super::declared::Stored;
pub(crate) use super::declared::{Built, Declarable, Declaration, Declarations};
use super::left::{Left, MAX_LEFT};
use super::{Head, RecordRow, be_u64, record_id};
use crate::protocol::codec::{Reader, put_u64};
use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::rules::scope::{MAX_KEYS, Scope, ScopeChange, ScopeKey, ScopeValue, TooMany};
use crate::store::{Batch, Rows, Scan, StoreError};

/// The scope keys of a collection.
pub(crate) type Declared = Declarations<ScopeKey>;
/// One of them.
pub(crate) type DeclaredKey = Declaration<ScopeKey>;

/// The state of a scope as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ScopeHead {
    /// The number of members.
    pub(crate) count: u64,
    /// Their checksum.
    pub(crate) checksum: Checksum,
    /// The horizon: what was forgotten of the scope has a seq up to this one.
    pub(crate) horizon: Seq,
}

impl Declarable for ScopeKey {
    const TAG: u8 = b'k';
    const NAME: &'static str = "scope keys";
    const MOST: usize = MAX_KEYS;
    const ROWS: u8 = b's';

    fn are_in_use(head: &Head) -> bool {
        head.scoped
    }

    fn set_in_use(head: &mut Head, are_in_use: bool) {
        head.scoped = are_in_use;
    }

    fn build(
        key: &DeclaredKey,
        declared: &Declared,
        of: &Stored<'_>,
        left: &mut usize,
    ) -> Result<(Built, Batch), StoreError> {
        let mut scopes = ScopeRows::new(of.rows, of.collection, declared);
        let built = key.build(of, left, &mut |id, record| {
            let values = record.document.as_ref().map(|document| key.key.scopes(document));
            // a record that is in too many scopes is in none
            for value in values.and_then(Result::ok).unwrap_or_default() {
                scopes.add_member(key.number, &value, id, record)?;
            }
            Ok(())
        })?;
        Ok((built, scopes.into_batch()))
    }
}

impl Declared {
    /// The key in whose scopes a document is too often, if there is one.
    pub(crate) fn too_many(&self, document: &Document) -> Option<&ScopeKey> {
        let keys = self.keys.iter().map(|declared| &declared.key);
        keys.into_iter().find(|key| key.scopes(document) == Err(TooMany))
    }
}

impl DeclaredKey {
    /// The scopes of a record that the rows hold.
    pub(crate) fn scopes_of(&self, record: &RecordRow) -> BTreeSet<ScopeValue> {
        let document = record.document.as_ref().filter(|_| self.covers(record.last.seq));
        document.and_then(|document| self.key.scopes(document).ok()).unwrap_or_default()
    }
}

impl ScopeHead {
    pub(crate) fn load(
        rows: &dyn Rows,
        collection: &Collection,
        number: u32,
        value: &[u8],
    ) -> Result<Self, StoreError> {
        let row = rows.get(&scope_key(collection, number, HEAD, value))?;
        row.map_or_else(|| Ok(Self::default()), Self::from_row)
    }

    fn to_row(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        put_u64(&mut out, self.count);
        out.extend_from_slice(&self.checksum.0.to_be_bytes());
        put_u64(&mut out, self.horizon.0);
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let head = Self {
            count: reader.u64()?,
            checksum: Checksum(be_u64(&mut reader)?),
            horizon: Seq(reader.u64()?),
        };
        reader.end()?;
        Ok(head)
    }
}

/// The rows of a collection's scopes, while records are changed.
pub(crate) struct ScopeRows<'a> {
    rows: &'a dyn Rows,
    collection: &'a Collection,
    declared: &'a Declared,
    heads: BTreeMap<(u32, ScopeValue), ScopeHead>,
    batch: Batch,
}

impl<'a> ScopeRows<'a> {
    pub(crate) fn new(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        declared: &'a Declared,
    ) -> Self {
        Self { rows, collection, declared, heads: BTreeMap::new(), batch: Batch::default() }
    }

    /// Follows a change of a record, whose new row gets its list of the scopes that it has left. Returns
    /// the scopes that readers can follow, if there are any.
    pub(crate) fn change(
        &mut self,
        id: &RecordId,
        before: Option<&RecordRow>,
        after: &mut RecordRow,
    ) -> Result<Option<ScopeChange>, StoreError> {
        let seq = after.last.seq;
        let prev = before.map(|before| before.last.seq);
        let mut told = ScopeChange { before: Vec::new(), after: Vec::new(), prev, entering: None };
        let mut left = before.map_or_else(Vec::new, |before| before.left.clone());
        left.retain(|left| self.declared.keys.iter().any(|key| key.number == left.number));
        for declared in &self.declared.keys {
            let number = declared.number;
            let old = before.map(|before| declared.scopes_of(before)).unwrap_or_default();
            let new = declared.scopes_of(after);
            // while its rows are built there are no readers to tell
            let is_built = matches!(declared.built, Built::Since(_));
            if is_built {
                let scope = |value| Scope::new(&declared.key, value);
                told.before.extend(old.iter().map(|value| scope(value)));
                told.after.extend(new.iter().map(|value| scope(value)));
            }
            for value in &old {
                if let Some(before) = before {
                    self.remove_member(number, value, id, before)?;
                }
                if is_built && !new.contains(value) {
                    self.put(number, LEAVE, value, seq, id);
                    left.push(Left { number, value: value.clone(), seq });
                }
            }
            for value in &new {
                self.add_member(number, value, id, after)?;
                // it has returned
                if let Some(at) = left.iter().position(|l| l.number == number && l.value == *value)
                {
                    let leave = left.remove(at);
                    self.delete(number, LEAVE, value, leave.seq);
                }
            }
        }
        let over = left.len().saturating_sub(MAX_LEFT);
        for leave in left.drain(..over) {
            self.forget(&leave)?;
        }
        after.left = left;
        let is_update = after.whole.seq < after.last.seq;
        if is_update && told.after.iter().any(|scope| !told.before.contains(scope)) {
            told.entering = Some(after.state());
        }
        let is_scoped = !(told.before.is_empty() && told.after.is_empty());
        Ok(is_scoped.then_some(told))
    }

    /// Forgets all scopes that a record has left, as its tombstone is forgotten.
    pub(crate) fn forget_left(&mut self, record: &mut RecordRow) -> Result<(), StoreError> {
        for leave in record.left.drain(..) {
            if self.declared.keys.iter().any(|key| key.number == leave.number) {
                self.forget(&leave)?;
            }
        }
        Ok(())
    }

    /// Raises the horizons of a record's scopes, since something in it up to a seq is forgotten.
    pub(crate) fn raise(&mut self, record: &RecordRow, seq: Seq) -> Result<(), StoreError> {
        for declared in &self.declared.keys {
            for value in declared.scopes_of(record) {
                let head = self.head(declared.number, &value)?;
                head.horizon = head.horizon.max(seq);
            }
        }
        Ok(())
    }

    fn add_member(
        &mut self,
        number: u32,
        value: &ScopeValue,
        id: &RecordId,
        record: &RecordRow,
    ) -> Result<(), StoreError> {
        let Some(document) = &record.document else { return Ok(()) };
        self.put(number, MEMBER, value, record.last.seq, id);
        let head = self.head(number, value)?;
        head.count += 1;
        head.checksum.add(id, record.last.seq, document);
        Ok(())
    }

    fn remove_member(
        &mut self,
        number: u32,
        value: &ScopeValue,
        id: &RecordId,
        record: &RecordRow,
    ) -> Result<(), StoreError> {
        let Some(document) = &record.document else { return Ok(()) };
        self.delete(number, MEMBER, value, record.last.seq);
        let head = self.head(number, value)?;
        head.count = head.count.saturating_sub(1);
        head.checksum.remove(id, record.last.seq, document);
        Ok(())
    }

    fn forget(&mut self, leave: &Left) -> Result<(), StoreError> {
        self.delete(leave.number, LEAVE, &leave.value, leave.seq);
        let head = self.head(leave.number, &leave.value)?;
        head.horizon = head.horizon.max(leave.seq);
        Ok(())
    }

    fn head(&mut self, number: u32, value: &[u8]) -> Result<&mut ScopeHead, StoreError> {
        use alloc::collections::btree_map::Entry;
        Ok(match self.heads.entry((number, value.to_vec())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let head = ScopeHead::load(self.rows, self.collection, number, value)?;
                unknown.insert(head)
            }
        })
    }

    fn put(&mut self, number: u32, kind: u8, value: &[u8], seq: Seq, id: &RecordId) {
        let key = changed_key(self.collection, number, kind, value, seq);
        self.batch.put(key, Bytes::copy_from_slice(id.as_bytes()));
    }

    fn delete(&mut self, number: u32, kind: u8, value: &[u8], seq: Seq) {
        self.batch.delete(changed_key(self.collection, number, kind, value, seq));
    }

    /// The changes of the rows.
    pub(crate) fn into_batch(self) -> Batch {
        let Self { collection, heads, mut batch, .. } = self;
        for ((number, value), head) in heads {
            let key = scope_key(collection, number, HEAD, &value);
            if head == ScopeHead::default() {
                batch.delete(key);
            } else {
                batch.put(key, head.to_row());
            }
        }
        batch
    }
}

/// Visits the ids of a scope's members whose last change is at or above a seq, in the order of the
/// changes, until `visit` breaks.
pub(crate) fn members(
    rows: &dyn Rows,
    collection: &Collection,
    number: u32,
    value: &[u8],
    from: Seq,
    visit: &mut dyn FnMut(RecordId) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let first = changed_key(collection, number, MEMBER, value, from);
    let last = changed_key(collection, number, MEMBER, value, Seq(u64::MAX));
    rows.scan(&first, &last, &mut |_, id| {
        Ok(match visit(record_id(&id)?)? {
            ControlFlow::Continue(()) => Scan::Next,
            ControlFlow::Break(()) => Scan::Stop,
        })
    })
}

/// The kinds of a scope's rows.
pub(crate) const HEAD: u8 = b'h';
pub(crate) const MEMBER: u8 = b'm';
pub(crate) const LEAVE: u8 = b'l';

/// The key of a scope's head, or the beginning of the keys of its other rows.
pub(crate) fn scope_key(collection: &Collection, number: u32, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut key = ScopeKey::range(collection, number).0;
    key.push(kind);
    key.extend_from_slice(value);
    key
}

pub(crate) fn changed_key(
    collection: &Collection,
    number: u32,
    kind: u8,
    value: &[u8],
    seq: Seq,
) -> Vec<u8> {
    let mut key = scope_key(collection, number, kind, value);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}
