//! The figures of what is held, and whether the rows bear them out.

use super::Stream;
use crate::rules::row::Figures;

impl Stream {
    /// Returns `true` until the records that the store held at the start have been compared, and while
    /// there are scopes for which they were not counted.
    pub(in super::super) fn is_unverified(&self) -> bool {
        self.unverified || self.row.set.as_ref().is_some_and(|set| set.uncounted)
    }

    /// Returns `true` while the records that the store held at the start are being counted.
    pub(in super::super) fn is_counting(&self) -> bool {
        self.row.recount.is_some()
    }

    /// The number of held records, and their checksum.
    pub(in super::super) fn held(&self) -> Figures {
        self.row.figures
    }

    /// The held records differ from the server's. Returns the number of times in a row.
    pub(in super::super) fn count_mismatch(&mut self) -> u32 {
        self.mismatches += 1;
        self.mismatches
    }

    /// The held records are counted from here on, part by part.
    pub(in super::super) fn begin_counting(&mut self) {
        self.row.recount.get_or_insert_default();
    }

    /// The held records were counted by the rows themselves.
    pub(in super::super) fn recounted(&mut self, figures: Figures) {
        self.row.figures = figures;
        self.row.recount = None;
        self.unverified = false;
        if let Some(set) = &mut self.row.set {
            set.uncounted = false;
        }
    }

    /// The store vouches for the rows, and so for the figures beside them.
    pub(in super::super) fn trust_rows(&mut self) {
        self.unverified = false;
    }
}
