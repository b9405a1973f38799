//! What a replica keeps in order to notice that its server has forgotten it, and which of its writes
//! the server may have applied before.
//!
//! A server forgets clients that were silent for longer than its retention. Then nobody knows whether
//! the writes that were on their way have arrived. An insert among them could bring back a record that
//! was deleted since. So the server is asked for an update in its place, which is in conflict with
//! whatever the server has, and the strategy decides.

use alloc::vec::Vec;

use crate::words::codec::{Reader, put_u64};
use crate::words::name::{Position, SessionNumber};
use crate::words::store::StoreError;

/// What was learnt of the server's memory of this replica, and which writes it may have forgotten.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Forgotten {
    /// The session of the first hello that the server remembers, as it told last. Another one shows
    /// that it has forgotten what was sent before.
    pub(crate) first_session: Option<SessionNumber>,
    /// No entry from this position on was ever sent. `None`: any may have been.
    pub(crate) unsent_from: Option<Position>,
    /// The first entry that may have been applied and forgotten.
    pub(crate) from: Position,
    /// The end of these entries.
    pub(crate) until: Position,
}

impl Forgotten {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the entry at this position may have been applied and forgotten.
    pub(crate) fn covers(&self, position: Position) -> bool {
        self.from <= position && position < self.until
    }

    /// Whether entries of an outbox that begins at `head` may have been applied and forgotten.
    pub(crate) fn is_open(&self, head: Position) -> bool {
        self.from.max(head) < self.until
    }

    /// Every entry in front of `until` may have been applied by a server that knows nothing of it.
    /// An entry that was never sent is not among them.
    pub(crate) fn begin(&mut self, until: Position) {
        let unsent = self.unsent_from.filter(|_| !planted!(NeverSentForgotten));
        let until = unsent.map_or(until, |unsent| unsent.min(until));
        (self.from, self.until) = (Position(0), self.until.max(until));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (first, unsent) = (self.first_session.map(|it| it.0), self.unsent_from.map(|it| it.0));
        for number in [first, unsent] {
            out.push(u8::from(number.is_some()));
            if let Some(number) = number {
                put_u64(&mut out, number);
            }
        }
        put_u64(&mut out, self.from.0);
        put_u64(&mut out, self.until.0);
        out
    }

    pub(crate) fn decode(mut row: Reader) -> Result<Self, StoreError> {
        let forgotten = Self {
            first_session: if row.flag()? { Some(SessionNumber(row.u64()?)) } else { None },
            unsent_from: if row.flag()? { Some(Position(row.u64()?)) } else { None },
            from: Position(row.u64()?),
            until: Position(row.u64()?),
        };
        row.end()?;
        Ok(forgotten)
    }
}
