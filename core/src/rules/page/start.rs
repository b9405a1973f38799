//! The position at which a run begins.

use super::{Position, ReaderView};
use crate::protocol::message::{Cursor, Resume};
use crate::protocol::name::{Epoch, Seq};
use crate::rules::record::EpochRow;
use crate::store::StoreError;

impl ReaderView<'_> {
    /// The position at which a run begins for a reader with this cursor and resume. A reader with
    /// records of a lost tail gets a snapshot (PROTOCOL 8.8, 8.9).
    pub(super) fn start(
        &self,
        cursor: Option<&Cursor>,
        resume: Option<&Resume>,
    ) -> Result<Position, StoreError> {
        if let Some(Resume::Snapshot { epoch, snapshot_seq: seq, after }) = resume {
            let goes_on = self.is_current(epoch, *seq)? && *seq >= self.head.horizon;
            let snapshot_seq = if goes_on { *seq } else { self.head.seq };
            // the reader has records of the run, which a delta above a cursor would not remove
            return Ok(Position::Snapshot { snapshot_seq, after: goes_on.then(|| after.clone()) });
        }
        let Some(cursor) = cursor else {
            return Ok(self.fresh_snapshot());
        };
        if !self.vouches_for(cursor)? {
            return Ok(self.fresh_snapshot());
        }
        let mut after = cursor.seq;
        if let Some(Resume::Delta { epoch, seq }) = resume {
            if self.is_current(epoch, *seq)? {
                after = after.max(*seq);
            } else if !self.vouches_for(&Cursor { epoch: epoch.clone(), seq: *seq })? {
                return Ok(self.fresh_snapshot());
            }
        }
        let floor = cursor.seq;
        Ok(Position::Delta { floor, after })
    }

    /// Returns `true` if a run can go on from a position of this epoch (PROTOCOL 8.8). From one of
    /// an earlier epoch it can't, even if nothing up to there was lost: a record that the run
    /// skipped because it changed again is back at its old seq if that change was lost.
    pub(super) fn is_current(&self, epoch: &Epoch, seq: Seq) -> Result<bool, StoreError> {
        let here = *epoch == self.epoch()?;
        Ok(here && self.vouches_for(&Cursor { epoch: epoch.clone(), seq })?)
    }

    pub(super) fn fresh_snapshot(&self) -> Position {
        Position::Snapshot { snapshot_seq: self.head.seq, after: None }
    }

    /// Returns `true` if this seq was given in this epoch of this database.
    pub(super) fn vouches_for(&self, cursor: &Cursor) -> Result<bool, StoreError> {
        let Some(number) = EpochRow::number(self.rows, &cursor.epoch)? else {
            return Ok(false);
        };
        let current = EpochRow::current(self.rows)?.map_or(0, |(number, _)| number);
        let end = if number == current {
            self.head.seq
        } else {
            EpochRow::began_at(self.rows, &self.reader.collection, number + 1)?
        };
        Ok(cursor.seq <= end.min(self.head.seq))
    }
}
