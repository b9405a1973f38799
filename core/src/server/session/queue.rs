//! The requests of a client that wait to be served.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::hash::RightsTag;
use crate::protocol::message::{Cursor, ErrorMessage, Hello, Resume};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::protocol::unit::Submission;
use crate::server::checks::ensure;
use crate::server::sets::{AskedSet, Filter};

/// The requests that were received and not served yet. Everything is served in its order: a
/// `subscribe` after the verdicts of the writes before it, a write after the `subscribe` before it.
#[derive(Clone, Hash, Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<(QueuedRequest, usize)>,
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum QueuedRequest {
    Hello(Hello),
    Ping,
    Subscribe {
        collection: Collection,
        cursor: Option<Cursor>,
        resume: Option<Resume>,
        /// The rights by which that was reached.
        rights: Option<RightsTag>,
        /// A scope instead of the whole collection, at level 1.
        filter: Option<Filter>,
        /// The number and the scopes of its set, at level 2.
        set: (Option<u64>, Option<AskedSet>),
        page_bytes: Option<usize>,
    },
    Unsubscribe(Collection),
    /// A whole collection, or a scope of it.
    Sync(Collection, Option<Filter>),
    /// A write, or a unit.
    Write(Submission),
    /// A numbered write that could not be taken.
    Refused(MutationNumber, ErrorMessage),
}

/// A ping whose pong waits until the streams have passed what was committed before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Barrier {
    /// The seqs that the streams have to pass.
    pub(super) targets: Vec<(Collection, Seq)>,
    /// Verdicts below this number have to be out.
    pub(super) below: MutationNumber,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn push(&mut self, request: QueuedRequest, bytes: usize) {
        self.bytes += bytes;
        self.items.push_back((request, bytes));
    }

    pub(super) fn front(&self) -> Option<&QueuedRequest> {
        self.items.front().map(|(request, _)| request)
    }

    pub(super) fn pop(&mut self) -> Option<QueuedRequest> {
        let (request, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        if self.items.is_empty() {
            // an idle connection holds no buffer
            self.items = VecDeque::new();
        }
        Some(request)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let bytes: usize = self.items.iter().map(|(_, bytes)| bytes).sum();
        ensure(bytes == self.bytes, "the queue's bytes")?;
        Ok(())
    }
}
