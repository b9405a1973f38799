//! The scopes that the app uses of a collection.

use alloc::collections::{BTreeMap, BTreeSet};

use super::unused::Unused;
use crate::rules::scope::NamedScope;

/// The scopes that the app uses of a collection, beside the stored set of those that are held.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Scoping {
    pub(super) used: BTreeSet<NamedScope>,
    /// Those of the set that nothing uses.
    pub(super) idle: BTreeMap<NamedScope, Unused>,
    /// Those that the server has refused, until they are asked for again.
    pub(super) refused: BTreeSet<NamedScope>,
    /// The number of the last `subscribe` of the connection.
    pub(super) asked: u64,
    /// `true` if a set was asked for on this connection: then what follows it has a number too.
    pub(super) numbered: bool,
    /// `true` if the set may not be the one that the app uses.
    pub(super) changed: bool,
}
