//! The records of one scope.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::rules::record::left::Left;
use crate::rules::record::scopes::{self, Built, Declared, DeclaredKey, LEAVE, MEMBER, ScopeHead};
use crate::rules::record::{Head, RecordRow, record_id, record_key, to_u64};
use crate::rules::scope::{Scope, ScopeSet, ScopeValue};
use crate::store::{Rows, Scan, StoreError};

/// The approximate size of a collected id besides its text, in bytes.
const ID: usize = 40;

/// A scope whose rows are built.
pub(super) struct ScopeAt<'a> {
    rows: &'a dyn Rows,
    collection: &'a Collection,
    key: DeclaredKey,
    /// `None` if no record can have this value.
    value: Option<ScopeValue>,
}

/// The scopes that a reader holds, by their keys.
#[derive(Default)]
pub(super) struct Holding {
    /// Each value with whether the scope is loaded, or still loading.
    keys: Vec<(DeclaredKey, BTreeMap<ScopeValue, bool>)>,
}

impl Holding {
    pub(super) fn add(&mut self, scope: &ScopeAt<'_>, is_loaded: bool) {
        let Some(value) = &scope.value else { return };
        let known = self.keys.iter().position(|(key, _)| key.number == scope.key.number);
        let at = known.unwrap_or_else(|| {
            self.keys.push((scope.key.clone(), BTreeMap::new()));
            self.keys.len() - 1
        });
        self.keys[at].1.insert(value.clone(), is_loaded);
    }

    /// Returns `true` if a scope of a record is loaded, `false` if none is and one is loading; `None` if it
    /// is in none that is held.
    pub(super) fn place_of(&self, record: &RecordRow) -> Option<bool> {
        let places = self.keys.iter().flat_map(|(key, values)| {
            key.scopes_of(record).into_iter().filter_map(|value| values.get(&value).copied())
        });
        places.max()
    }

    /// Returns `true` if a record has left a loaded scope by a change above a seq.
    pub(super) fn was_left_above(&self, record: &RecordRow, seq: Seq) -> bool {
        let is_loaded = |left: &Left| {
            let mut keys = self.keys.iter().filter(|(key, _)| key.number == left.number);
            keys.any(|(_, values)| values.get(&left.value) == Some(&true))
        };
        record.left.iter().any(|left| left.seq > seq && is_loaded(left))
    }

    /// Returns `true` if a field of a key was changed above a seq, so that a record may have entered.
    pub(super) fn may_have_entered(&self, record: &RecordRow, floor: Seq) -> bool {
        let mut fields = self.keys.iter().flat_map(|(key, _)| key.key.fields());
        fields.any(|field| record.stamp(field).seq > floor)
    }
}

/// Opens the scopes of a set.
pub(super) fn open<'a>(
    rows: &'a dyn Rows,
    collection: &'a Collection,
    set: &ScopeSet,
) -> Result<Result<Vec<ScopeAt<'a>>, NoScope>, StoreError> {
    let declared = Declared::load(rows, collection)?.unwrap_or_default();
    let open = |scope: &Scope| {
        let (name, value) = scope.parts();
        let key = declared.keys.iter().find(|known| known.key.to_string().as_bytes() == name);
        let Some(key) = key else {
            return Err(undeclared(collection, &String::from_utf8_lossy(name)));
        };
        built(collection, key)?;
        Ok(ScopeAt { rows, collection, key: key.clone(), value: Some(value.to_vec()) })
    };
    Ok(set.iter().map(open).collect())
}

/// Puts the sums over scopes into the head of their collection. Of what left before the rows of a key
/// were built nothing is known: that is below the horizon.
pub(super) fn sum(scopes: &[ScopeAt<'_>], head: &mut Head) -> Result<(), StoreError> {
    (head.count, head.checksum, head.horizon) = Default::default();
    for scope in scopes {
        let ScopeHead { count, checksum, .. } = scope.head()?;
        head.count += count;
        head.checksum.0 = head.checksum.0.wrapping_add(checksum.0);
        head.horizon = head.horizon.max(scope.horizon()?);
    }
    Ok(())
}

pub(super) fn undeclared(collection: &Collection, name: &str) -> NoScope {
    let message = format!("{collection} has no scope key {name}: the server has to declare it");
    (ErrorCode::InvalidMessage, message)
}

pub(super) fn built(collection: &Collection, key: &DeclaredKey) -> Result<(), NoScope> {
    if let Built::Since(_) = key.built {
        return Ok(());
    }
    let message = format!("the scopes of {collection} by {} are being built: try again", key.key);
    Err((ErrorCode::ServerError, message))
}

type Visit<'v> = dyn FnMut(&RecordId, &RecordRow) -> Result<Scan, StoreError> + 'v;

/// The reason why there is no scope to read.
pub(super) type NoScope = (ErrorCode, String);

impl<'a> ScopeAt<'a> {
    /// The scope with this value of a key.
    pub(super) fn at(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        key: DeclaredKey,
        value: &[u8],
    ) -> Self {
        Self { rows, collection, key, value: Some(value.to_vec()) }
    }

    /// The scope with these values of the parts of its key; `None` if there are no parts.
    pub(super) fn find(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        parts: &[(String, String)],
    ) -> Result<Result<Option<Self>, NoScope>, StoreError> {
        if parts.is_empty() {
            return Ok(Ok(None));
        }
        let declared = Declared::load(rows, collection)?.unwrap_or_default();
        let value_of = |part: &str| {
            let value = parts.iter().find(|(name, _)| name == part);
            value.map(|(_, text)| text.as_str())
        };
        let known = declared.keys.iter().find_map(|declared| {
            let names: Vec<_> = declared.key.parts().collect();
            let values: Option<Vec<_>> = names.iter().map(|part| value_of(part)).collect();
            Some((declared, values.filter(|values| values.len() == parts.len())?))
        });
        let Some((key, values)) = known else {
            let names: Vec<_> = parts.iter().map(|(name, _)| name.as_str()).collect();
            return Ok(Err(undeclared(collection, &names.join("+"))));
        };
        if let Err(reason) = built(collection, key) {
            return Ok(Err(reason));
        }
        let value = key.key.value(values.into_iter());
        Ok(Ok(Some(Self { rows, collection, key: key.clone(), value })))
    }

    /// Visits the members whose last change is at or above a seq, in the order of the changes.
    pub(super) fn changed(&self, from: Seq, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.members(from, &mut |id| {
            Ok(match self.visit(&id, visit)? {
                Scan::Next => ControlFlow::Continue(()),
                Scan::Stop => ControlFlow::Break(()),
            })
        })
    }

    /// The ids of the members behind an id; `None` if they are more than this many bytes together.
    pub(super) fn ids(
        &self,
        after: Option<&RecordId>,
        mut bytes: usize,
    ) -> Result<Option<BTreeSet<RecordId>>, StoreError> {
        // members come in the order of their changes
        let mut ids = BTreeSet::new();
        let mut fits = true;
        self.members(Seq(0), &mut |id| {
            if after.is_none_or(|after| id > *after) {
                let Some(rest) = bytes.checked_sub(ID + id.len()) else {
                    fits = false;
                    return Ok(ControlFlow::Break(()));
                };
                bytes = rest;
                ids.insert(id);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(fits.then_some(ids))
    }

    /// The seq up to which something of the scope may be forgotten.
    pub(super) fn horizon(&self) -> Result<Seq, StoreError> {
        let since = if let Built::Since(seq) = self.key.built { seq } else { Seq(0) };
        Ok(self.head()?.horizon.max(since))
    }

    pub(super) fn head(&self) -> Result<ScopeHead, StoreError> {
        let Some(value) = &self.value else { return Ok(ScopeHead::default()) };
        ScopeHead::load(self.rows, self.collection, self.key.number, value)
    }

    /// Notes the first changes, as many as there is room for: of members above the first seq, and by which
    /// records left above the second.
    pub(super) fn note_changes(
        &self,
        after: [Seq; 2],
        room: usize,
        noted: &mut BTreeMap<Seq, RecordId>,
    ) -> Result<(), StoreError> {
        let Some(value) = &self.value else { return Ok(()) };
        for (kind, after) in [MEMBER, LEAVE].into_iter().zip(after) {
            let range = [after.next(), Seq(u64::MAX)]
                .map(|seq| scopes::changed_key(self.collection, self.key.number, kind, value, seq));
            self.rows.scan(&range[0], &range[1], &mut |key, id| {
                let seq = Seq(to_u64(&key[key.len().saturating_sub(8)..])?);
                if noted.len() >= room
                    && noted.last_key_value().is_some_and(|(last, _)| *last < seq)
                {
                    return Ok(Scan::Stop);
                }
                noted.insert(seq, record_id(&id)?);
                if noted.len() > room {
                    noted.pop_last();
                }
                Ok(Scan::Next)
            })?;
        }
        Ok(())
    }

    /// Returns `true` if a record is in the scope.
    pub(super) fn has(&self, record: &RecordRow) -> bool {
        self.value.as_ref().is_some_and(|value| self.key.scopes_of(record).contains(value))
    }

    fn members(
        &self,
        from: Seq,
        visit: &mut dyn FnMut(RecordId) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(value) = &self.value else { return Ok(()) };
        scopes::members(self.rows, self.collection, self.key.number, value, from, visit)
    }

    /// Reads a record as a scan, so that a long read gives way to others between two of them.
    pub(super) fn visit(&self, id: &RecordId, visit: &mut Visit<'_>) -> Result<Scan, StoreError> {
        let key = record_key(self.collection, id);
        let mut end = key.clone();
        end.push(0);
        let mut next = None;
        self.rows.scan(&key, &end, &mut |_, row| {
            next = Some(visit(id, &RecordRow::from_row(row)?)?);
            Ok(Scan::Stop)
        })?;
        next.ok_or_else(|| StoreError::damaged("a scope names a missing record"))
    }
}
