//! The outbox as far as it is kept in memory: its ends, and what of it is on its way. The writes
//! themselves lie in the store.

use alloc::collections::VecDeque;

use crate::words::hash::Digest;
use crate::words::message::ErrorCode;
use crate::words::name::{Collection, CommitNumber, Position, RecordId};

/// After this many conflicts in a row a write is called stalled.
pub(super) const STALLED_CONFLICTS: u32 = 20;
/// After this many failures of the server in a row a write is called stalled.
pub(super) const STALLED_FAILURES: u32 = 5;

/// A write that was sent on this connection and has no verdict yet, or one only behind it has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct InFlight {
    pub(super) position: Position,
    pub(super) digest: Digest,
    pub(super) bytes: usize,
    /// Whether it is acknowledged and only keeps its place.
    pub(super) hollow: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Outbox {
    /// How many places it has, hollow ones included.
    pub(super) len: usize,
    /// No place lies in front of this position. A store steps over the remains of what was removed
    /// one by one, so no scan should begin before it.
    pub(super) head: Position,
    /// The position of the next write.
    pub(super) next: Position,
    /// The last entry, while it may be joined by another write to its record.
    pub(super) tail: Option<(Position, Collection, RecordId)>,
    /// Every entry in front of this position may have been sent.
    pub(super) frozen_until: Position,
    /// The first places, in order: what was sent on this connection.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Where the search for the next write to send begins.
    pub(super) unsent: Position,
    /// Commits that are not durable yet, each with the end of the outbox that it made.
    marks: VecDeque<(CommitNumber, Position)>,
    /// Every entry in front of this position is durable as it is.
    pub(super) durable_until: Position,
}

impl Outbox {
    /// The outbox as it was found in a store: everything in it may have been sent.
    pub(super) fn found(len: usize, next: Position) -> Self {
        Self { len, next, frozen_until: next, durable_until: next, ..Self::default() }
    }

    pub(super) fn bytes_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|sent| !sent.hollow).map(|sent| sent.bytes).sum()
    }

    /// Whether a write can join the last entry: never one that may have been sent.
    pub(super) fn joinable(&self, collection: &Collection, id: &RecordId) -> Option<Position> {
        let (position, of, record) = self.tail.as_ref()?;
        let free = *position >= self.frozen_until || planted!(SquashedIntoSent);
        (of == collection && record == id && free).then_some(*position)
    }

    /// The entry at `position`, the last one, is as commit `number` makes it.
    pub(super) fn written(&mut self, number: CommitNumber, position: Position) {
        self.durable_until = self.durable_until.min(position);
        while self.marks.back().is_some_and(|(_, end)| *end > position) {
            self.marks.pop_back();
        }
        self.marks.push_back((number, position.next()));
    }

    pub(super) fn durable(&mut self, up_to: CommitNumber) {
        while let Some((number, end)) = self.marks.front()
            && *number <= up_to
        {
            self.durable_until = *end;
            self.marks.pop_front();
        }
    }

    /// Whether commits are remembered until they are durable.
    pub(super) fn is_marked(&self) -> bool {
        !self.marks.is_empty()
    }

    pub(super) fn sent(&mut self, sent: InFlight) {
        self.unsent = sent.position.next();
        self.frozen_until = self.frozen_until.max(self.unsent);
        self.in_flight.push_back(sent);
    }

    /// The connection is gone: what was sent on it stays frozen, and will be numbered anew.
    pub(super) fn lose_connection(&mut self) {
        self.in_flight.clear();
        self.unsent = self.head;
    }

    /// Everything from the `index`-th write in flight on was not applied, and is free again.
    pub(super) fn go_back(&mut self, index: usize) {
        if let Some(sent) = self.in_flight.get(index) {
            self.unsent = sent.position;
            self.frozen_until = sent.position;
            self.in_flight.truncate(index);
        }
    }

    /// The first place is no longer in the outbox.
    pub(super) fn pass(&mut self, position: Position) {
        self.head = self.head.max(position.next());
        self.forget(position);
    }

    /// An entry is no longer in the outbox.
    pub(super) fn forget(&mut self, position: Position) {
        self.len = self.len.saturating_sub(1);
        if self.tail.as_ref().is_some_and(|(tail, ..)| *tail == position) {
            self.tail = None;
        }
    }
}

/// How often the write at the head was not taken.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Struggle {
    position: Position,
    pub(super) conflicts: u32,
    pub(super) failures: u32,
    /// Whether the last failure was that something on its way found it too large.
    pub(super) too_large: bool,
}

impl Struggle {
    pub(super) fn is_stalled(&self) -> bool {
        self.conflicts >= STALLED_CONFLICTS || self.failures >= STALLED_FAILURES
    }

    /// What the server kept saying.
    pub(super) fn code(&self) -> ErrorCode {
        match self.failures >= STALLED_FAILURES {
            true if self.too_large => ErrorCode::PayloadTooLarge,
            true => ErrorCode::ServerError,
            false => ErrorCode::Conflict,
        }
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The struggle of the write at a position, which begins anew where it was another's.
    pub(super) fn at(&mut self, position: Position) -> &mut Self {
        if self.position != position {
            *self = Self { position, ..Self::default() };
        }
        self
    }
}
