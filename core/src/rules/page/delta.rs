//! The changes above a cursor, in pages: those of a collection, or of scopes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::limits::{Budget, PageLimits};
use super::scope::ScopeAt;
use super::{Content, Next, PageChange, Position, ReaderView, bytes_of_change, hidden};
use crate::protocol::message::DeleteReason;
use crate::protocol::name::{RecordId, Seq};
use crate::rules::record::RecordRow;
use crate::store::{Scan, StoreError};

impl ReaderView<'_> {
    /// The changes above a seq.
    pub(super) fn delta(
        &self,
        floor: Seq,
        after: Seq,
        limits: PageLimits,
    ) -> Result<(Content, Next), StoreError> {
        if let Some(scopes) = &self.scopes {
            return self.delta_of_scopes(scopes, floor, after, limits);
        }
        let mut budget = Budget::new(limits);
        let mut changes = Vec::new();
        let (mut last, mut done) = (after, true);
        self.changed(after.next(), &mut |seq, id, record| {
            let change = self.change(id, record, floor);
            if !budget.takes(bytes_of_change(id, &change.change)) {
                done = false;
                return Ok(Scan::Stop);
            }
            changes.push(change);
            last = seq;
            Ok(Scan::Next)
        })?;
        Ok((Content::Changes(changes), self.next(done, floor, last)?))
    }

    fn next(&self, done: bool, floor: Seq, after: Seq) -> Result<Next, StoreError> {
        if done { self.done() } else { Ok(Next::More(Position::Delta { floor, after })) }
    }

    fn change(&self, id: &RecordId, record: &RecordRow, floor: Seq) -> PageChange {
        let filtered = !self.shows(id, record);
        let change = if filtered {
            hidden(record.last.seq)
        } else if self.reader.partial || self.reader.whole {
            record.state()
        } else {
            record.change_above(floor)
        };
        PageChange {
            record_id: id.clone(),
            change,
            reason: filtered.then_some(DeleteReason::Filter),
        }
    }

    /// The changes of scopes above a seq: of each record that is in one of them its fields, or the
    /// whole of one that may have entered since; of each that is in none any more, that it left.
    fn delta_of_scopes(
        &self,
        scopes: &[ScopeAt<'_>],
        floor: Seq,
        after: Seq,
        limits: PageLimits,
    ) -> Result<(Content, Next), StoreError> {
        let room = limits.records.max(1);
        let mut noted = BTreeMap::new();
        for scope in scopes {
            // one more tells that there is more
            scope.note_changes(after, room + 1, &mut noted)?;
        }
        let mut budget = Budget::new(limits);
        let (mut changes, mut last, mut done) = (Vec::new(), after, noted.len() <= room);
        for (seq, id) in noted {
            let record = RecordRow::load(self.rows, &self.reader.collection, &id)?
                .ok_or_else(|| StoreError::damaged("a scope names a missing record"))?;
            if let Some(change) = self.change_in_scopes(scopes, seq, &id, &record, floor) {
                if !budget.takes(bytes_of_change(&id, &change.change)) {
                    done = false;
                    break;
                }
                changes.push(change);
            }
            last = seq;
        }
        Ok((Content::Changes(changes), self.next(done, floor, last)?))
    }

    /// The change with this seq of a record, for a reader of scopes; `None` if it is told by another.
    fn change_in_scopes(
        &self,
        scopes: &[ScopeAt<'_>],
        seq: Seq,
        id: &RecordId,
        record: &RecordRow,
        floor: Seq,
    ) -> Option<PageChange> {
        if scopes.iter().any(|scope| scope.has(record)) {
            if seq < record.last.seq {
                return None;
            }
            let is_whole = scopes.iter().any(|scope| scope.may_have_entered(record, floor));
            return Some(self.change(id, record, if is_whole { Seq(0) } else { floor }));
        }
        if scopes.iter().any(|scope| scope.was_left_above(record, seq)) {
            return None;
        }
        let is_deletion = record.document.is_none() && record.last.seq == seq;
        let change = if is_deletion { record.state() } else { hidden(seq) };
        let reason = (!is_deletion).then_some(DeleteReason::Scope);
        Some(PageChange { record_id: id.clone(), change, reason })
    }
}
