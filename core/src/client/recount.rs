//! The counting of rows that the store does not vouch for, a bounded part at a time.
//!
//! Where a record changes, [`StreamRow::set_server`](crate::rules::row::StreamRow::set_server) changes what
//! was counted of it too: so the counting only has to come by every record once.

use core::time::Duration;

use super::edit::Edit;
use super::machine::Client;
use super::records::Records;
use crate::protocol::document::Document;
use crate::protocol::time::Mono;
use crate::rules::row::Recount;
use crate::store::{Scan, StoreError};

/// The size of the documents that one step of a counting reads at most, and one more.
const STEP_BYTES: usize = 1 << 18;
/// The time from one step to the next, which leaves time for everything else.
const PAUSE: Duration = Duration::from_millis(1);

impl Client {
    /// The time at which the next part of a counting is due.
    pub(super) fn count_deadline(&self) -> Option<Mono> {
        self.count_at
    }

    /// The number of rows that one step reads at most.
    pub(super) fn rows_at_once(&self) -> usize {
        self.config.index_rows.max(1)
    }

    /// The rest of a counting follows, beginning now.
    pub(super) fn count_soon(&mut self) {
        self.count_at.get_or_insert(self.now.mono);
    }

    /// Counts a part of the rows of a collection. Where all of them say something else than the running
    /// figures, a row was altered behind the replica's back, which a fresh proof shows by the right ones.
    pub(super) fn count_on(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let most = self.rows_at_once();
        if let Some(collection) = self.streams.first_counting()
            && let Some(mut records) = self.records(&collection)
        {
            let kept = records.stream.held();
            records.count_part(edit, most)?;
            if records.stream.held() != kept {
                records.save(edit);
                records.stream.refresh(true);
            }
        }
        let is_done = self.streams.first_counting().is_none();
        self.count_at = (!is_done).then(|| self.now.mono + PAUSE);
        Ok(())
    }
}

impl Records<'_> {
    /// Begins to count the rows. Few of them are counted at once.
    pub(super) fn begin_counting(
        &mut self,
        edit: &Edit<'_>,
        most: usize,
    ) -> Result<(), StoreError> {
        self.stream.begin_counting();
        self.count_part(edit, most)
    }

    /// Counts the next rows, at most so many. The figures are those of the rows after the last one.
    fn count_part(&mut self, edit: &Edit<'_>, most: usize) -> Result<(), StoreError> {
        let row = &mut self.stream.row;
        let Some(mut counted) = row.recount.take() else { return Ok(()) };
        let (mut rows, mut bytes, mut last) = (0, 0, None);
        edit.rows_behind(self.collection, counted.up_to.as_ref(), &mut |id, found| {
            row.add_to(&mut counted.figures, &id, &found);
            bytes += found.server.as_ref().map_or(0, Document::size);
            rows += 1;
            if rows < most && bytes < STEP_BYTES {
                return Scan::Next;
            }
            last = Some(id);
            Scan::Stop
        })?;
        match last {
            None => self.stream.recounted(counted.figures),
            up_to => row.recount = Some(Recount { up_to, ..counted }),
        }
        Ok(())
    }
}
