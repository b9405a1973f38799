//! The calls of the app that are answered later.

use std::collections::{BTreeMap, VecDeque};

use synclayer_core::{CommitNumber, SyncId, SyncOutcome};

use crate::error::SyncError;
use crate::pending::Responder;
use crate::saved::{Saved, SavedTransaction};

/// Calls that wait for the store or for the server.
#[derive(Default)]
pub(super) struct WaitingCalls {
    /// Writes whose commits are not durable yet, in the order of the commits.
    writes: VecDeque<(CommitNumber, WaitingWrite)>,
    syncs: BTreeMap<SyncId, Responder<()>>,
    /// Calls of `synced` that are through.
    synced: Vec<(Responder<()>, SyncOutcome)>,
}

/// A write that waits for its commit to be durable.
pub(super) enum WaitingWrite {
    /// A write of a record.
    Record(Responder<Saved>, Saved),
    /// Transactions.
    Transactions(Responder<Vec<SavedTransaction>>, Vec<SavedTransaction>),
    /// A write that is not of one record.
    Decision(Responder<()>),
}

impl WaitingCalls {
    /// Adds a write that was made.
    pub(super) fn add_write(&mut self, commit: CommitNumber, write: WaitingWrite) {
        self.writes.push_back((commit, write));
    }

    /// Adds a call of `synced`.
    pub(super) fn add_sync(&mut self, id: SyncId, reply: Responder<()>) {
        self.syncs.insert(id, reply);
    }

    /// Takes note of the outcome of a call of `synced`.
    pub(super) fn settle_sync(&mut self, id: SyncId, outcome: SyncOutcome) {
        self.synced.extend(self.syncs.remove(&id).map(|reply| (reply, outcome)));
    }

    /// Returns `true` if writes wait to be durable.
    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Answers the writes that are durable up to this commit, and the calls of `synced` that are
    /// through.
    pub(super) fn answer(&mut self, durable: CommitNumber) {
        let durable = self.writes.partition_point(|(commit, _)| *commit <= durable);
        self.writes.drain(..durable).for_each(|(_, write)| write.answer(Ok(())));
        for (reply, outcome) in self.synced.drain(..) {
            reply.send(outcome.map_err(SyncError::NotInSync));
        }
    }

    /// Answers all writes.
    pub(super) fn answer_writes(&mut self, outcome: &Result<(), SyncError>) {
        self.writes.drain(..).for_each(|(_, write)| write.answer(outcome.clone()));
    }

    /// Fails all calls of `synced`.
    pub(super) fn fail_syncs(&mut self, error: &SyncError) {
        let syncs = std::mem::take(&mut self.syncs).into_values();
        for reply in syncs.chain(self.synced.drain(..).map(|(reply, _)| reply)) {
            reply.send(Err(error.clone()));
        }
    }
}

impl WaitingWrite {
    fn answer(self, outcome: Result<(), SyncError>) {
        match self {
            Self::Record(reply, saved) => reply.send(outcome.map(|()| saved)),
            Self::Transactions(reply, saved) => reply.send(outcome.map(|()| saved)),
            Self::Decision(reply) => reply.send(outcome),
        }
    }
}
