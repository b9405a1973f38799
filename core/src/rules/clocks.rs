//! The state that a replica keeps about its device's wall clock, which may be wrong.
//!
//! Writes are stamped with the server's time. Before a server has told it in a clock run, a write
//! is stamped by the device's clock plus the offset from an earlier run, if any, and marked with
//! its run. When a server tells its time, the correction of these runs is settled, once and
//! durably, before any of their writes is sent; from then on a write is read with the correction of
//! its run. So a write that may have been sent is sent again unchanged (PROTOCOL 9.8).

use alloc::vec::Vec;

use crate::protocol::codec::{Reader, put_i64, put_u64};
use crate::protocol::name::WriteId;
use crate::protocol::time::Timestamp;
use crate::store::StoreError;

/// The maximal number of runs whose corrections are kept. The times of further runs stay
/// uncorrected.
pub(crate) const MAX_RUNS: usize = 32;

/// The known facts about a device's clock, in milliseconds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Clocks {
    /// The last known offset of the server's clock from the wall clock.
    pub(crate) offset: Option<i64>,
    /// The correction of all unlisted runs that had no such offset.
    pub(crate) unguessed: Option<Correction>,
    /// The runs with a correction of their own whose writes may still be in the outbox.
    pub(crate) runs: Vec<(u64, Correction)>,
}

/// A correction of the times of writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Correction {
    pub(crate) millis: i64,
    /// The id behind the writes of the run.
    pub(crate) until: WriteId,
}

/// The origin of a write's time, if its run did not know the server's time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Stamped {
    /// The number of the run, unique to it.
    pub(crate) run: u64,
    /// `true` if the time includes an offset from an earlier run.
    pub(crate) guessed: bool,
    /// The lower bound of the corrected time: its author had seen everything that was written just
    /// before.
    pub(crate) floor: Timestamp,
}

impl Clocks {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The correction of a write's times, as far as it is settled.
    pub(crate) fn correction_of(&self, stamped: Stamped) -> i64 {
        let own = self.runs.iter().find(|(run, _)| *run == stamped.run);
        let all = self.unguessed.as_ref().filter(|_| !stamped.guessed);
        own.map(|(_, correction)| correction).or(all).map_or(0, |correction| correction.millis)
    }

    /// Returns `true` if the correction of an earlier run's write is settled: it had an offset, or
    /// a server has told its time since.
    pub(crate) fn settle(&self, stamped: Stamped) -> bool {
        stamped.guessed || self.unguessed.is_some()
    }

    /// Forgets corrections of runs without writes in the outbox, which begins at `head`.
    pub(crate) fn forget(&mut self, head: WriteId, is_empty: bool) {
        let waits = |correction: &Correction| !is_empty && correction.until > head;
        self.unguessed.take_if(|correction| !waits(correction));
        self.runs.retain(|(_, correction)| waits(correction));
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(u8::from(self.offset.is_some()));
        if let Some(offset) = self.offset {
            put_i64(&mut out, offset);
        }
        out.push(u8::from(self.unguessed.is_some()));
        if let Some(correction) = self.unguessed {
            correction.put(&mut out);
        }
        put_u64(&mut out, self.runs.len() as u64);
        for (run, correction) in &self.runs {
            put_u64(&mut out, *run);
            correction.put(&mut out);
        }
        out
    }

    pub(crate) fn decode(mut row: Reader) -> Result<Self, StoreError> {
        let offset = if row.flag()? { Some(row.i64()?) } else { None };
        let unguessed = if row.flag()? { Some(Correction::take(&mut row)?) } else { None };
        let count = row.u64()?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push((row.u64()?, Correction::take(&mut row)?));
        }
        row.end()?;
        Ok(Self { offset, unguessed, runs })
    }
}

impl Correction {
    fn put(self, out: &mut Vec<u8>) {
        put_i64(out, self.millis);
        put_u64(out, self.until.0);
    }

    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        Ok(Self { millis: row.i64()?, until: WriteId(row.u64()?) })
    }
}

impl Stamped {
    /// The time of this write by the server's clock.
    pub(crate) fn corrected(self, at: Timestamp, correction: i64) -> Timestamp {
        at.plus(correction).max(self.floor)
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.run);
        out.push(u8::from(self.guessed));
        put_i64(&mut out, self.floor.0);
        out
    }

    pub(crate) fn decode(mut row: Reader) -> Result<Self, StoreError> {
        let (run, guessed) = (row.u64()?, row.flag()?);
        let stamped = Self { run, guessed, floor: Timestamp(row.i64()?) };
        row.end()?;
        Ok(stamped)
    }
}
