//! The subscriptions of a connection.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::protocol::hash::{Checksum, RightsTag};
use crate::protocol::message::Cursor;
use crate::protocol::name::{Collection, Seq};
use crate::protocol::scopes::ScopeName;
use crate::rules::page::{PageLimits, Position, SetPosition};
use crate::rules::policy::Access;
use crate::rules::scope::ScopeSet;
use crate::server::looks::Looks;
use crate::server::ring::{Ring, Upcoming};
use crate::server::sets::{Filter, NamedSet};
use crate::server::sight::Sight;

/// A collection that the client follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Subscription {
    /// The part of it that the user may see.
    pub(super) sight: Sight,
    /// The rights by which its run is shown, as the client was told last.
    pub(super) rights: Option<RightsTag>,
    /// The scopes that it is of; `None` for the whole collection.
    pub(super) scopes: Option<ScopeSet>,
    /// The name of its scope at level 1.
    pub(super) filter: Option<Filter>,
    /// The number of its set, and the names of its scopes at level 2.
    pub(super) set: Option<Box<NamedSet>>,
    /// The records that the user's rights look at.
    pub(super) looks: Looks,
    /// The limits of its pages.
    pub(super) page: PageLimits,
    pub(super) progress: Progress,
    /// `true` if it was live when the client subscribed again, and no page has shown anything since: the
    /// client still takes it for live.
    pub(super) again: bool,
    /// `true` if the client takes it for live: since the last `synced` nothing has told it otherwise.
    pub(super) told_live: bool,
}

/// The position in the stream of a collection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Progress {
    /// The next page begins here.
    CatchingUp(Box<Position>),
    /// Every change up to here was sent.
    Live(Seq),
}

impl Subscription {
    /// Returns `true` if each record has to be permitted by the policy.
    pub(super) fn is_partial(&self) -> bool {
        self.sight.access.is_partial()
    }

    /// Returns `true` if the policy looks at other records as well: the ring does not have them, so every
    /// change is read from the store.
    pub(super) fn is_related(&self) -> bool {
        self.sight.access == Access::Related
    }

    /// The seq up to which a live stream was sent.
    pub(super) fn live_at(&self) -> Option<Seq> {
        match self.progress {
            Progress::Live(at) => Some(at),
            Progress::CatchingUp(_) => None,
        }
    }

    /// The number of scopes that it takes, at least 1.
    pub(super) fn weight(&self) -> usize {
        self.set.as_ref().map_or(1, |set| set.names.len().max(1))
    }

    /// The number of its set, and the scopes of which the user may read nothing.
    pub(super) fn numbered(&self) -> (Option<u64>, Vec<ScopeName>) {
        self.set.as_ref().map_or_else(Default::default, |set| (set.number, set.refused.clone()))
    }

    /// The position in the store of one that was sent everything up to a seq.
    pub(super) fn behind(&self, at: Seq) -> Position {
        match &self.set {
            Some(set) if !set.names.is_empty() => {
                Position::Set(Box::new(SetPosition::behind(at, set.names.keys().cloned())))
            }
            Some(_) | None => Position::Delta { floor: at, after: at },
        }
    }

    /// The next change for a live stream, in the ring of its collection.
    pub(super) fn upcoming<'r>(&self, ring: &'r Ring) -> Option<Upcoming<'r>> {
        ring.next(self.live_at()?, self.scopes.as_ref())
    }

    /// Returns `true` if a live stream is behind only because its ring has forgotten in which scopes the
    /// changes since then were.
    pub(super) fn may_lack_nothing(&self, ring: &Ring) -> bool {
        self.scopes.is_some() && self.live_at().is_some_and(|at| ring.has_forgotten(at))
    }
}

/// The read that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PendingRead {
    pub(super) generation: u64,
    pub(super) collection: Collection,
    /// `true` for a level-1 `sync`.
    pub(super) whole: bool,
    /// The scope that it is of at level 1; `None` for the whole collection.
    pub(super) filter: Option<Filter>,
    /// Its view has everything that was published up to this number.
    pub(super) published: u64,
    /// `true` if nobody waits for it any more.
    pub(super) stale: bool,
}

/// The end of a catch-up, whose `synced` has yet to be sent.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PendingSync {
    pub(super) collection: Collection,
    /// The position up to which the catch-up is complete.
    pub(super) cursor: Cursor,
    pub(super) count: u64,
    pub(super) checksum: Option<Checksum>,
}
