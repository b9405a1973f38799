//! The answers to calls of `synced`: when one is known, and which collections are not in step.

use alloc::vec::Vec;

use super::edit::Edit;
use super::interface::{SyncFailure, SyncFailureReason, SyncId, SyncOutcome};
use super::link::PingKind;
use super::machine::Client;
use super::stream::{Phase, Stream, StreamError};
use crate::protocol::name::{Collection, WriteId};
use crate::store::StoreError;

impl Stream {
    /// Why the collection is not in step, where the server has said so.
    fn failure(&self, collection: &Collection) -> Option<SyncFailure> {
        let StreamError { code, message } = (**self.error.as_ref()?).clone();
        let reason = match self.retry_at {
            Some(_) => SyncFailureReason::Unavailable { code, message },
            None => SyncFailureReason::Refused { code, message },
        };
        Some(SyncFailure::new(collection, reason))
    }

    /// Why the collection is not in step, as far as it is known.
    fn any_failure(&self, collection: &Collection) -> Option<SyncFailure> {
        self.failure(collection).or_else(|| self.shortfall(collection))
    }
}

impl Client {
    /// Asks for a pong behind everything, when the writes of some `synced` have their verdicts and
    /// every collection is live or was refused.
    pub(super) fn send_barrier(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.syncs.is_empty() || self.barrier.is_some() || self.live_outcome().is_none() {
            return Ok(());
        }
        let first = self.outbox.first_place(edit)?;
        let settled = self.syncs.iter().take_while(|(_, until)| *until <= first);
        if let Some((last, _)) = settled.last() {
            self.barrier = Some(*last);
            self.ping_in_json(edit, PingKind::Barrier);
        }
        Ok(())
    }

    /// A pong that answers a barrier: every change that was committed before it has come.
    pub(super) fn barrier_passed(&mut self, edit: &mut Edit<'_>) {
        let Some(last) = self.barrier.take() else { return };
        if let Some(outcome) = self.live_outcome() {
            self.answer_syncs(edit, &outcome, |id, _| id <= last);
        }
    }

    /// Answers the calls of `synced` that `which` is true of, by their id and by where the outbox
    /// ended when they were made.
    pub(super) fn answer_syncs(
        &mut self,
        edit: &mut Edit<'_>,
        outcome: &SyncOutcome,
        which: impl Fn(SyncId, WriteId) -> bool,
    ) {
        self.syncs.retain(|(id, until)| {
            let done = which(*id, *until);
            if done {
                edit.synced.push((*id, outcome.clone()));
            }
            !done
        });
    }

    /// The outcome of `synced` over a live connection, if it is known: no collection is on its way.
    fn live_outcome(&self) -> Option<SyncOutcome> {
        let is_settled = |(_, stream): (_, &Stream)| {
            stream.phase == Phase::Live || stream.phase == Phase::Refused && stream.error.is_some()
        };
        self.wanted().all(is_settled).then(|| self.known_outcome()).flatten()
    }

    /// The outcome of `synced`, if every collection was asked for: not known while all that failed
    /// is tried again.
    pub(super) fn known_outcome(&self) -> Option<SyncOutcome> {
        let mut wanted = self.wanted();
        let waits = wanted.any(|(_, stream)| stream.retry_at.is_some() || stream.is_offering());
        let failures = self.failures();
        let final_ones = failures.iter().any(|failure| match failure.reason {
            SyncFailureReason::Refused { .. }
            | SyncFailureReason::Unanswered
            | SyncFailureReason::RecordsMissing { .. }
            | SyncFailureReason::DifferentDatabase { .. } => true,
            SyncFailureReason::Unavailable { .. } => false,
        });
        match (waits, final_ones) {
            (true, false) => None,
            (false, false) => Some(Ok(())),
            (_, true) => Some(Err(failures)),
        }
    }

    /// The outcome of `synced` at a plain server, when everything was asked for and waited for.
    pub(super) fn outcome_at_plain(&self) -> SyncOutcome {
        let unanswered = |stream: &Stream| !self.config.http && stream.plain.is_awaited();
        let failures: Vec<_> = self
            .wanted()
            .filter_map(|(collection, stream)| {
                stream.any_failure(collection).or_else(|| {
                    let reason = SyncFailureReason::Unanswered;
                    unanswered(stream).then(|| SyncFailure::new(collection, reason))
                })
            })
            .collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn failures(&self) -> Vec<SyncFailure> {
        let wanted = self.wanted();
        wanted.filter_map(|(collection, stream)| stream.any_failure(collection)).collect()
    }

    /// The collections in use.
    fn wanted(&self) -> impl Iterator<Item = (&Collection, &Stream)> {
        self.streams.wanted()
    }
}
