//! Whole collections: in pages by the ids of the records, or at once for level 1.

use alloc::vec::Vec;

use super::limits::{Budget, PageLimits};
use super::{Content, Next, Position, ReaderView, bytes_of, sync_record};
use crate::protocol::message::{PageRange, SyncRecord};
use crate::protocol::name::{RecordId, Seq};
use crate::store::{Scan, StoreError};

impl ReaderView<'_> {
    pub(super) fn snapshot(
        &self,
        snapshot_seq: Seq,
        after: Option<&RecordId>,
        limits: PageLimits,
    ) -> Result<(Content, Next), StoreError> {
        if self.scopes.is_some() {
            // level 1 has no words for it
            return Ok((Content::Changes(Vec::new()), self.done()?));
        }
        let mut budget = Budget::new(limits);
        // tombstones and withheld records cost time, even if no bytes
        let mut looks = limits.records.saturating_mul(4).max(1);
        let mut records = Vec::new();
        let mut up_to = None;
        let mut done = true;
        self.records(after, &mut |id, record| {
            if budget.is_spent() || looks == 0 {
                done = false;
                return Ok(Scan::Stop);
            }
            looks -= 1;
            if let Some(document) = &record.document
                && self.shows(id, record)
            {
                let record = sync_record(id, record, document);
                if !budget.takes(id.len() + document.size() + bytes_of(&record.at)) {
                    done = false;
                    return Ok(Scan::Stop);
                }
                records.push(record);
            }
            up_to = Some(id.clone());
            Ok(Scan::Next)
        })?;
        let next = if !done {
            Next::More(Position::Snapshot { snapshot_seq, after: up_to.clone() })
        } else if self.head.seq == snapshot_seq {
            self.done()?
        } else {
            Next::More(Position::Delta { floor: snapshot_seq, after: snapshot_seq })
        };
        let up_to = up_to.filter(|_| !done);
        let range = PageRange { after: after.cloned(), up_to, snapshot_seq };
        Ok((Content::Snapshot { records, range }, next))
    }

    pub(super) fn whole(&self, bytes: usize) -> Result<Option<Vec<SyncRecord>>, StoreError> {
        let mut budget = Budget::new(PageLimits { records: usize::MAX, bytes });
        let mut records = Vec::new();
        let one = self.scopes.as_ref().and_then(|scopes| scopes.first());
        self.records_in(one, None, bytes, &mut |id, record| {
            if let Some(document) = &record.document
                && self.shows(id, record)
            {
                budget.spend_bytes(id.len() + document.size());
                // level 1 can't express the times of fields
                let (seq, at) = (None, Vec::new());
                records.push(SyncRecord { seq, at, ..sync_record(id, record, document) });
            }
            Ok(if budget.is_spent() { Scan::Stop } else { Scan::Next })
        })?;
        Ok((!budget.is_spent()).then_some(records))
    }
}
