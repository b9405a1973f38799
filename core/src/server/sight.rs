//! The part of a collection that a user may see.

use crate::protocol::name::Collection;
use crate::rules::policy::{Access, Asker, Policy};

/// The part of a collection, or of scopes of it, that a user may see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sight {
    pub(crate) access: Access,
    /// The policy's number for it; 0 if it is everything, or nothing.
    pub(crate) stamp: u64,
}

impl Sight {
    /// The part that a user with this access may see.
    pub(crate) fn new(
        access: Access,
        policy: &dyn Policy,
        by: &Asker<'_>,
        collection: &Collection,
    ) -> Self {
        let stamp = if access.is_partial() { policy.stamp(by, collection) } else { 0 };
        Self { access, stamp }
    }
}
