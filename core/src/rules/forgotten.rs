//! The state by which a replica notices that its server has forgotten it, and which of its writes
//! the server may have applied before.
//!
//! A server forgets clients that were silent for longer than its retention. Then it is unknown
//! whether the writes that were on their way have arrived. An insert among them could bring back a
//! record that was deleted since. So it is sent as an update, which conflicts with any state of the
//! server, and the strategy decides (PROTOCOL 9.29, 11.9).

use alloc::vec::Vec;

use crate::protocol::codec::{Reader, put_u64};
use crate::protocol::name::{SessionNumber, WriteId};
use crate::store::StoreError;

/// The known facts about the server's memory of this replica, and the writes that it may have
/// forgotten.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Forgotten {
    /// The last known session of the first hello that the server remembers. Another value shows
    /// that it has forgotten everything that was sent before.
    pub(crate) first_session: Option<SessionNumber>,
    /// The first id from which on no entry was ever sent. `None`: any entry may have been
    /// sent.
    pub(crate) unsent_from: Option<WriteId>,
    /// The first entry that may have been applied and forgotten.
    pub(crate) from: WriteId,
    /// The end of these entries.
    pub(crate) until: WriteId,
}

impl Forgotten {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns `true` if this write may have been applied and forgotten.
    pub(crate) fn covers(&self, write: WriteId) -> bool {
        self.from <= write && write < self.until
    }

    /// Returns `true` if entries of an outbox whose first place is `first` may have been applied and
    /// forgotten.
    pub(crate) fn is_open(&self, first: WriteId) -> bool {
        self.from.max(first) < self.until
    }

    /// Marks every entry before `until` as possibly applied by a server that has forgotten it,
    /// except entries that were never sent.
    pub(crate) fn begin(&mut self, until: WriteId) {
        let unsent = self.unsent_from;
        let until = unsent.map_or(until, |unsent| unsent.min(until));
        (self.from, self.until) = (WriteId(0), self.until.max(until));
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
            unsent_from: if row.flag()? { Some(WriteId(row.u64()?)) } else { None },
            from: WriteId(row.u64()?),
            until: WriteId(row.u64()?),
        };
        row.end()?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_that_was_sent_may_have_been_applied_and_forgotten() {
        let covered = |forgotten: &Forgotten| {
            (0..9).filter(|write| forgotten.covers(WriteId(*write))).collect::<Vec<_>>()
        };
        let mut forgotten = Forgotten { unsent_from: Some(WriteId(3)), ..Forgotten::default() };
        assert!(covered(&forgotten).is_empty());
        forgotten.begin(WriteId(5));
        assert_eq!(covered(&forgotten), [0, 1, 2]);
        forgotten.unsent_from = None;
        forgotten.begin(WriteId(5));
        assert_eq!(covered(&forgotten), [0, 1, 2, 3, 4]);
        forgotten.from = WriteId(4);
        assert_eq!(covered(&forgotten), [4]);
        forgotten.begin(WriteId(2));
        assert_eq!(covered(&forgotten), [0, 1, 2, 3, 4], "what was forgotten before stays so");
    }
}
