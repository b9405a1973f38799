//! Decoding of scopes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::super::limits::Limits;
use super::super::super::name::{Epoch, RecordId, Seq};
use super::super::super::scopes::{
    AskedScope, LeftRecord, LoadPlace, MAX_SET, ScopeName, ScopePage, ScopePlace,
};
use super::field::{Fault, Field, Fields, fields, required};
use super::{Envelope, sync_records};

/// The maximal number of parts of a scope's key.
const MAX_PARTS: usize = 8;
/// The maximal length of the names of a scope's parts together, in bytes.
const MAX_KEY: usize = 512;
/// The maximal length of the JSON texts of a scope's values together, in bytes. The encoding of them has
/// 256 at most; escapes make it longer.
const MAX_VALUES: usize = 2048;

fields! {
    /// The fields of a scope of a set.
    struct Scope {
        by: "by",
        is: "is",
        new: "new",
        resume: "resume",
    }
}

fields! {
    /// The fields of the position in a load.
    struct Place {
        epoch: "epoch",
        snapshot_seq: "snapshotSeq",
        after: "after",
    }
}

fields! {
    /// The fields of a record that has left a scope.
    struct Left {
        id: "id",
        seq: "seq",
    }
}

/// The scopes of a set, which has a number.
pub(super) fn asked(
    field: Field<'_>,
    name: &str,
    set: Option<u64>,
) -> Result<Vec<AskedScope>, Fault> {
    let Some(list) = field.list(name, MAX_SET)? else { return Ok(Vec::new()) };
    if list.is_empty() {
        return Err(Fault::new(format!("`{name}` is empty: without it, the whole is meant")));
    }
    required(set, "set")?;
    let asked = |field: Field<'_>| {
        let scope: Scope<'_> = required(field.object(name)?, name)?;
        Ok(AskedScope { name: scope.name(name)?, place: scope.place(name)? })
    };
    list.into_iter().map(asked).collect()
}

/// A list of scopes.
pub(super) fn names(field: Field<'_>, name: &str) -> Result<Vec<ScopeName>, Fault> {
    let list = field.list(name, MAX_SET)?.unwrap_or_default();
    list.into_iter().map(|scope| one(scope, name)).collect()
}

fn one(field: Field<'_>, name: &str) -> Result<ScopeName, Fault> {
    let scope: Scope<'_> = required(field.object(name)?, name)?;
    scope.name(name)
}

impl Scope<'_> {
    fn name(&self, name: &str) -> Result<ScopeName, Fault> {
        let by = required(self.by.list(name, MAX_PARTS)?, "by")?;
        let is = required(self.is.list(name, MAX_PARTS)?, "is")?;
        if by.is_empty() || by.len() != is.len() {
            return Err(Fault::new(format!("`{name}`: `by` and `is` are not of one length")));
        }
        let mut parts = Vec::with_capacity(by.len());
        for (part, value) in by.into_iter().zip(is) {
            let part = required(part.text("by")?, "by")?;
            parts.push((String::from(&*part), String::from(value.json())));
        }
        let bytes = |of: fn(&(String, String)) -> usize| parts.iter().map(of).sum::<usize>();
        if bytes(|(part, _)| part.len()) > MAX_KEY || bytes(|(_, value)| value.len()) > MAX_VALUES {
            return Err(Fault::new(format!("`{name}` holds a key that is too long")));
        }
        Ok(ScopeName { parts })
    }

    fn place(&self, name: &str) -> Result<ScopePlace, Fault> {
        let Some(place) = self.resume.object::<Place<'_>>("resume")? else {
            return Ok(if self.new.is_true() { ScopePlace::Waiting } else { ScopePlace::Loaded });
        };
        if self.new.is_true() {
            return Err(Fault::new(format!("`{name}`: a scope is new or has a `resume`")));
        }
        let seq = |field: Field<'_>, name: &str| required(field.number(name)?, name).map(Seq);
        Ok(ScopePlace::Loading(LoadPlace {
            epoch: required(place.epoch.name("resume.epoch", Epoch::new)?, "resume.epoch")?,
            snapshot_seq: seq(place.snapshot_seq, "resume.snapshotSeq")?,
            after: seq(place.after, "resume.after")?,
        }))
    }
}

impl Envelope<'_> {
    /// A page of the load of a scope.
    pub(super) fn load(
        &self,
        records: Vec<Field<'_>>,
        left: Field<'_>,
        limits: &Limits,
    ) -> Result<ScopePage, Fault> {
        let m = &self.metadata;
        let snapshot_seq = m.snapshot_seq.number("metadata.snapshotSeq")?;
        Ok(ScopePage {
            collection: self.collection()?,
            set: required(self.set()?, "metadata.set")?,
            scope: one(m.scope, "metadata.scope")?,
            records: sync_records(records, limits)?,
            left: lefts(left)?,
            after: m.after.number("metadata.after")?.map(Seq),
            up_to: m.up_to.number("metadata.upTo")?.map(Seq),
            snapshot_seq: Seq(required(snapshot_seq, "metadata.snapshotSeq")?),
        })
    }
}

fn lefts(field: Field<'_>) -> Result<Vec<LeftRecord>, Fault> {
    const LEFT: &str = "data.left[]";
    let left = |field: Field<'_>| {
        let left: Left<'_> = required(field.object(LEFT)?, LEFT)?;
        Ok(LeftRecord {
            id: required(left.id.name(LEFT, RecordId::new)?, LEFT)?,
            seq: Seq(required(left.seq.number(LEFT)?, LEFT)?),
        })
    };
    field.list("data.left", usize::MAX)?.unwrap_or_default().into_iter().map(left).collect()
}
