//! Scopes as messages name them, and the set of scopes that a `subscribe` is for.

use core::fmt;

use alloc::string::String;
use alloc::vec::Vec;

use super::message::SyncRecord;
use super::name::{Collection, Epoch, RecordId, Seq};

/// The maximal number of scopes of a collection that a connection may subscribe.
pub(crate) const MAX_SET: usize = 256;

/// A scope by its name: the parts of its key, each with the JSON text of its value (PROTOCOL 6.10).
///
/// Several names may be of one scope: `1` and `1.0` are the same value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScopeName {
    pub(crate) parts: Vec<(String, String)>,
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (part, value)) in self.parts.iter().enumerate() {
            write!(f, "{}{part}={value}", if place > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

/// A scope of a set, and how much of it the client holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AskedScope {
    pub(crate) name: ScopeName,
    pub(crate) place: ScopePlace,
}

/// The part of a scope that a client holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ScopePlace {
    /// It is loaded: the cursor says up to where.
    Loaded,
    /// Its load was interrupted here.
    Loading(LoadPlace),
    /// Nothing of it was loaded.
    Waiting,
}

/// The position in the load of a scope.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LoadPlace {
    /// The epoch in which the seqs were given.
    pub(crate) epoch: Epoch,
    /// The head of the collection when the load began.
    pub(crate) snapshot_seq: Seq,
    /// The seq up to which the scope's members and leaves were received.
    pub(crate) after: Seq,
}

/// A page of the load of a scope.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScopePage {
    pub(crate) collection: Collection,
    /// The number of the set.
    pub(crate) set: u64,
    pub(crate) scope: ScopeName,
    /// The members whose seqs are in the range of the page, in their order, whole.
    pub(crate) records: Vec<SyncRecord>,
    /// The records that left the scope with a seq in the range, and above `snapshot_seq`.
    pub(crate) left: Vec<LeftRecord>,
    /// The exclusive start of the range; `None` is before the first seq.
    pub(crate) after: Option<Seq>,
    /// The inclusive end of the range; `None` marks the last page.
    pub(crate) up_to: Option<Seq>,
    /// The head of the collection when the load began.
    pub(crate) snapshot_seq: Seq,
}

/// A record that has left a scope.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LeftRecord {
    pub(crate) id: RecordId,
    /// The seq of the change or deletion by which it left.
    pub(crate) seq: Seq,
}
