//! The beginning of a view, with all stored records of a collection.

use alloc::vec::Vec;

use super::{ById, Record, View};
use crate::protocol::document::Document;

/// The size of the documents that share one buffer from the beginning of a view on, and one more. A buffer
/// is freed when none of them is used any more.
const PACK_BYTES: usize = 16 << 10;

/// A view that stored records are added to, and that is shown to nobody yet.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    view: View,
    /// The last records, and the size of their documents.
    records: Vec<Record>,
    bytes: usize,
}

impl Filling {
    /// Adds a record.
    pub(crate) fn add(&mut self, record: Record) {
        self.bytes += record.document.size();
        self.records.push(record);
        if self.bytes >= PACK_BYTES {
            self.pack();
        }
    }

    /// Returns the view with all records.
    #[must_use]
    pub(crate) fn finish(mut self) -> View {
        self.pack();
        self.view.set_status(true, false);
        self.view
    }

    fn pack(&mut self) {
        Document::pack(self.records.iter_mut().map(|record| &mut record.document));
        for record in self.records.drain(..) {
            self.view.snapshot.pending += usize::from(record.pending);
            self.view.snapshot.records.insert_mut(ById(record));
        }
        self.bytes = 0;
    }
}
