//! The changes above a cursor, in pages: those of a collection, or of scopes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::limits::{Budget, PageLimits};
use super::scope::{Holding, ScopeAt};
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
            let mut holding = Holding::default();
            scopes.iter().for_each(|scope| holding.add(scope, true));
            let (changes, last, done) = self.changes_in(scopes, &holding, floor, after, limits)?;
            return Ok((Content::Changes(changes), self.next(done, floor, last)?));
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
        } else if self.reader.access.is_partial() || self.reader.whole {
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

    /// The changes of loaded scopes above a seq, the seq of the last, and whether they are all: of each
    /// record that is in one of them its fields, or the whole of one that may have entered since; of each
    /// that is in none that is held any more, that it left.
    pub(super) fn changes_in(
        &self,
        loaded: &[ScopeAt<'_>],
        holding: &Holding,
        floor: Seq,
        after: Seq,
        limits: PageLimits,
    ) -> Result<(Vec<PageChange>, Seq, bool), StoreError> {
        let room = limits.records.max(1);
        let mut noted = BTreeMap::new();
        for scope in loaded {
            // one more tells that there is more
            scope.note_changes([after; 2], room + 1, &mut noted)?;
        }
        let mut budget = Budget::new(limits);
        let (mut changes, mut last) = (Vec::new(), after);
        let mut done = noted.len() <= room;
        for (seq, id) in noted.into_iter().take(room) {
            let record = RecordRow::load(self.rows, &self.reader.collection, &id)?
                .ok_or_else(|| StoreError::damaged("a scope names a missing record"))?;
            if let Some(change) = self.change_in_scopes(holding, seq, &id, &record, floor) {
                if !budget.takes(bytes_of_change(&id, &change.change)) {
                    done = false;
                    break;
                }
                changes.push(change);
            }
            last = seq;
        }
        Ok((changes, last, done))
    }

    /// The change with this seq of a record, for a reader of scopes; `None` if it is told by another.
    fn change_in_scopes(
        &self,
        holding: &Holding,
        seq: Seq,
        id: &RecordId,
        record: &RecordRow,
        floor: Seq,
    ) -> Option<PageChange> {
        match holding.place_of(record) {
            Some(true) if seq < record.last.seq => return None,
            Some(true) => {
                let is_whole = holding.may_have_entered(record, floor);
                return Some(self.change(id, record, if is_whole { Seq(0) } else { floor }));
            }
            // its load shows it
            Some(false) => return None,
            None if holding.was_left_above(record, seq) => return None,
            None => {}
        }
        let is_deletion = record.document.is_none() && record.last.seq == seq;
        let change = if is_deletion { record.state() } else { hidden(seq) };
        let reason = (!is_deletion).then_some(DeleteReason::Scope);
        Some(PageChange { record_id: id.clone(), change, reason })
    }
}
