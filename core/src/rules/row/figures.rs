//! The figures of many records: their number and their checksum.

use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::name::{RecordId, Seq};

/// The number of records, and their checksum (PROTOCOL §12).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) checksum: Checksum,
}

impl Figures {
    /// Adds a record that counts so many times.
    pub(crate) fn add(&mut self, id: &RecordId, seq: Seq, document: &Document, times: u64) {
        self.count += times;
        (0..times).for_each(|_| self.checksum.add(id, seq, document));
    }

    /// Removes a record that counted so many times.
    pub(crate) fn remove(&mut self, id: &RecordId, seq: Seq, document: &Document, times: u64) {
        self.count = self.count.saturating_sub(times);
        (0..times).for_each(|_| self.checksum.remove(id, seq, document));
    }
}

/// A counting of the stored records, part by part.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Recount {
    /// The last record that was counted.
    pub(crate) up_to: Option<RecordId>,
    /// The figures of the records up to it.
    pub(crate) figures: Figures,
}
