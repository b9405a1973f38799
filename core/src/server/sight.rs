//! The part of a collection that a user may see.

use crate::protocol::hash::RightsTag;
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

    /// The tag that a reader keeps with its cursor; `None` where everything is seen, which is proved by
    /// count and checksum.
    pub(crate) fn rights(self) -> Option<RightsTag> {
        (self.stamp != 0).then_some(RightsTag(self.stamp))
    }

    /// Returns `true` if a cursor says what was seen of a collection, which a reader has reached by these
    /// rights.
    pub(crate) fn keeps_cursor(self, rights: Option<RightsTag>) -> bool {
        self.access != Access::Related && self.keeps_run(rights)
    }

    /// Returns `true` if a run goes on that was begun by these rights.
    pub(crate) fn keeps_run(self, rights: Option<RightsTag>) -> bool {
        rights == self.rights()
    }
}
