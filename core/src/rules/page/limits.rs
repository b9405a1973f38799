//! The limits of a page.

/// The limits of one page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct PageLimits {
    /// The maximal number of records. Default 1,000.
    pub records: usize,
    /// The approximate maximal size in bytes; a page always holds at least one record. Default 256
    /// KiB.
    pub bytes: usize,
}

/// The smallest page that a client may ask for. Each one costs a look into the store.
const LEAST_PAGE_BYTES: usize = 1 << 10;

impl PageLimits {
    /// These limits for a client that wants no larger pages than this, if it says so.
    pub(crate) fn at_most(self, wanted: Option<usize>) -> Self {
        let wanted = wanted.map_or(usize::MAX, |bytes| bytes.max(LEAST_PAGE_BYTES));
        Self { bytes: self.bytes.min(wanted), ..self }
    }
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { records: 1000, bytes: 256 << 10 }
    }
}
