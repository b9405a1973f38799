//! Progress of a catch-up, for the app.

use core::hash::{Hash, Hasher};

/// The part of a catch-up that has come; of the last one, while none is under way. It decides nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Received {
    pub(super) records: u64,
    /// The approximate size of what has come.
    pub(super) bytes: u64,
    /// The number of records that come, or of changes that come at most, where that is known.
    pub(super) of: Option<u64>,
}

impl Hash for Received {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Received {
    /// Nothing has come of a catch-up of so many records.
    pub(super) fn nothing_of(of: Option<u64>) -> Self {
        Self { of, ..Self::default() }
    }

    /// Some records have come.
    pub(super) fn add(&mut self, records: usize, bytes: usize) {
        self.records += records as u64;
        self.bytes += bytes as u64;
    }
}
