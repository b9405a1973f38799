//! The subscriptions of a connection.

use alloc::boxed::Box;

use crate::protocol::name::{Collection, Seq};
use crate::rules::page::{PageLimits, Position};

/// A collection that the client follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Subscription {
    /// `true` if each record has to be permitted by the policy.
    pub(super) partial: bool,
    /// The limits of its pages.
    pub(super) page: PageLimits,
    pub(super) progress: Progress,
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
    /// The seq up to which a live stream was sent.
    pub(super) fn live_at(&self) -> Option<Seq> {
        match self.progress {
            Progress::Live(at) => Some(at),
            Progress::CatchingUp(_) => None,
        }
    }
}

/// The read that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PendingRead {
    pub(super) generation: u64,
    pub(super) collection: Collection,
    /// `true` for a level-1 `sync`.
    pub(super) whole: bool,
    /// `true` if nobody waits for it any more.
    pub(super) stale: bool,
}
