//! One collection's stream, as the client sees it.

use crate::rules::row::StreamRow;
use crate::words::name::Seq;
use crate::words::time::Mono;

/// Where a subscription stands on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Phase {
    /// Not asked for yet.
    #[default]
    Idle,
    /// Asked for; what still comes of an earlier subscription is not listened to.
    Subscribing,
    /// Changes come that bring it up to the head.
    CatchingUp,
    /// Every change comes as it is made.
    Live,
    /// The server has refused it.
    Refused,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Stream {
    /// What is stored of it.
    pub(super) row: StreamRow,
    /// Whether the app uses the collection.
    pub(super) wanted: bool,
    pub(super) phase: Phase,
    /// Whether the server withholds some records.
    pub(super) partial: bool,
    /// Whether the cursor is known to be of the server's present history.
    pub(super) trusted: bool,
    /// Whether it has been in step with the server since the machine was made.
    pub(super) confirmed: bool,
    /// How many times in a row its contents differed from the server's.
    pub(super) mismatches: u32,
    /// When it is asked for again after a failure.
    pub(super) retry_at: Option<Mono>,
}

impl Stream {
    /// The seq up to which everything is known; 0 where there is no cursor.
    pub(super) fn reached(&self) -> Seq {
        self.row.cursor.as_ref().map_or(Seq(0), |cursor| cursor.seq)
    }

    /// The connection is gone.
    pub(super) fn detach(&mut self) {
        self.phase = Phase::Idle;
        self.trusted = false;
        self.retry_at = None;
    }

    /// Nothing that was learnt so far says anything about the server's present seqs.
    pub(super) fn begin_generation(&mut self) {
        self.row.generation += 1;
        self.row.cursor = None;
        self.row.resume = None;
    }
}
