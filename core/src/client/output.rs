//! The things that the machine wants done, for its replica to carry out.

use alloc::vec::Vec;

use super::event::Event;
use super::interface::{NetAction, SyncId, SyncOutcome};
use crate::protocol::name::{Collection, CommitNumber, RecordId};
use crate::rules::view::Record;
use crate::store::{Batch, StoreError};

/// A thing that the machine wants done. To be done in order, waiting for none.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// For the store.
    Store(StoreAction),
    /// For the network.
    Net(NetAction),
    /// For the watchers.
    View(ViewAction),
    /// For the app.
    Event(Event),
    /// A call of [`synced`](crate::client::replica::Replica::synced) is answered.
    Synced {
        /// The call.
        id: SyncId,
        /// Its outcome.
        outcome: SyncOutcome,
    },
    /// The store has failed and the machine has stopped: it does nothing any more. Open the store
    /// anew, and build a new machine. Said once, and last.
    Halted(StoreError),
}

/// The sink of a machine.
pub(crate) type Outputs = Vec<Output>;

/// A thing for the store to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StoreAction {
    /// Make this batch visible to every later read.
    Commit {
        /// Its number.
        number: CommitNumber,
        /// The changes.
        batch: Batch,
    },
    /// Start to make every commit up to this one durable.
    Flush {
        /// The last such commit.
        up_to: CommitNumber,
    },
}

/// A thing for the watchers to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ViewAction {
    /// A record is to be shown like this, or no longer.
    Record {
        /// Its collection.
        collection: Collection,
        /// Its id.
        record_id: RecordId,
        /// The record, where it is shown.
        record: Option<Record>,
    },
    /// A collection is known better or worse than before.
    Status {
        /// The collection.
        collection: Collection,
        /// Set while the server has not confirmed it.
        from_cache: bool,
        /// Set while a catch-up is under way.
        catching_up: bool,
    },
}
