//! Calls of `synced`, and their outcome: which collections are not in step.

use alloc::vec::Vec;

use super::edit::Edit;
use super::interface::{SyncFailure, SyncFailureReason, SyncId, SyncOutcome};
use super::link::PingKind;
use super::machine::Client;
use super::stream::{Phase, Stream, StreamError};
use super::streams::Streams;
use crate::protocol::name::{Collection, WriteId};
use crate::store::StoreError;

impl Stream {
    /// Returns the reason that the server gave for the collection not being in step.
    fn failure(&self, collection: &Collection) -> Option<SyncFailure> {
        let StreamError { code, message } = self.error()?.clone();
        let reason = match self.retry_at() {
            Some(_) => SyncFailureReason::Unavailable { code, message },
            None => SyncFailureReason::Refused { code, message },
        };
        Some(SyncFailure::new(collection, reason))
    }

    /// Returns the reason why the collection is not in step, as far as it is known.
    fn any_failure(&self, collection: &Collection) -> Option<SyncFailure> {
        let of_scopes = || {
            let StreamError { code, message } = self.scope_error()?;
            Some(SyncFailure::new(collection, SyncFailureReason::Refused { code, message }))
        };
        self.failure(collection).or_else(|| self.shortfall(collection)).or_else(of_scopes)
    }
}

/// The calls of `synced` that wait for their answers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Syncs {
    /// The calls, each with the end of the outbox at its time.
    calls: Vec<(SyncId, WriteId)>,
    next: SyncId,
    /// The last call that the barrier on its way answers.
    barrier: Option<SyncId>,
}

impl Syncs {
    /// Adds a call, which waits for all writes before `end`.
    pub(super) fn call(&mut self, end: WriteId) -> SyncId {
        let id = self.next;
        self.next = SyncId(id.0 + 1);
        self.calls.push((id, end));
        id
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the id of the next call.
    pub(super) fn next(&self) -> SyncId {
        self.next
    }

    pub(super) fn has_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// Begins a barrier that answers all calls which wait for writes before `first` only. Returns
    /// `true` if there are any.
    fn begin_barrier(&mut self, first: WriteId) -> bool {
        let settled = self.calls.iter().take_while(|(_, end)| *end <= first);
        self.barrier = settled.last().map(|(last, _)| *last);
        self.has_barrier()
    }

    /// Forgets the barrier: its connection is gone.
    pub(super) fn drop_barrier(&mut self) {
        self.barrier = None;
    }

    /// Answers the calls that `which` is true of, by their ids and by the end of the outbox at their
    /// time.
    pub(super) fn answer(
        &mut self,
        edit: &mut Edit<'_>,
        outcome: &SyncOutcome,
        which: impl Fn(SyncId, WriteId) -> bool,
    ) {
        self.calls.retain(|(id, end)| {
            let done = which(*id, *end);
            if done {
                edit.synced.push((*id, outcome.clone()));
            }
            !done
        });
    }
}

impl Streams {
    /// Returns the outcome of `synced` over a live connection, if it is known: no collection is on
    /// its way.
    fn live_outcome(&self) -> Option<SyncOutcome> {
        let is_settled = |(_, stream): (_, &Stream)| match stream.phase() {
            Phase::Live => true,
            Phase::Refused => stream.error().is_some(),
            Phase::Idle | Phase::Subscribing | Phase::CatchingUp | Phase::Leaving => false,
        };
        self.wanted().all(is_settled).then(|| self.known_outcome()).flatten()
    }

    /// Returns the outcome of `synced`, if every collection was asked for: not known while all that
    /// failed is tried again.
    pub(super) fn known_outcome(&self) -> Option<SyncOutcome> {
        let mut wanted = self.wanted();
        let waits = wanted.any(|(_, stream)| stream.retry_at().is_some() || stream.is_offering());
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

    /// Returns the outcome of `synced` at a plain server, when everything was asked for and waited
    /// for.
    pub(super) fn outcome_at_plain(&self, http: bool) -> SyncOutcome {
        let unanswered = |stream: &Stream| !http && stream.plain.is_awaited();
        let failure = |(collection, stream): (&Collection, &Stream)| {
            stream.any_failure(collection).or_else(|| {
                let reason = SyncFailureReason::Unanswered;
                unanswered(stream).then(|| SyncFailure::new(collection, reason))
            })
        };
        let failures: Vec<_> = self.wanted().filter_map(failure).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn failures(&self) -> Vec<SyncFailure> {
        let wanted = self.wanted();
        wanted.filter_map(|(collection, stream)| stream.any_failure(collection)).collect()
    }
}

impl Client {
    /// Asks for a pong behind everything, when the writes of some `synced` have their verdicts and
    /// every collection is live or was refused.
    pub(super) fn send_barrier(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let waits = self.syncs.is_empty() || self.syncs.has_barrier();
        if !waits
            && self.streams.live_outcome().is_some()
            && self.syncs.begin_barrier(self.outbox.first_place(edit)?)
        {
            self.ping_in_json(edit, PingKind::Barrier);
        }
        Ok(())
    }

    /// A pong answers the barrier: every change that was committed before it has come.
    pub(super) fn barrier_passed(&mut self, edit: &mut Edit<'_>) {
        let Some(last) = self.syncs.barrier.take() else { return };
        if let Some(outcome) = self.streams.live_outcome() {
            self.syncs.answer(edit, &outcome, |id, _| id <= last);
        }
    }
}
