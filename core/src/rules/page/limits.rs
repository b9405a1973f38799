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

    /// Returns `true` if a page is not half full when this is the rest of its limits.
    pub(super) fn is_roomy(self, rest: Self) -> bool {
        rest.records > self.records / 2 && rest.bytes > self.bytes / 2
    }
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { records: 1000, bytes: 256 << 10 }
    }
}

/// The remaining limits of a page.
pub(super) struct Budget {
    records: usize,
    bytes: usize,
    /// Nothing was taken.
    fresh: bool,
}

impl Budget {
    /// The approximate overhead of a record besides its id and content, in bytes.
    const RECORD: usize = 100;

    pub(super) fn new(limits: PageLimits) -> Self {
        Self { records: limits.records.max(1), bytes: limits.bytes.max(1), fresh: true }
    }

    /// Takes a record of so many bytes, if there is room for it. A page begins with any record, so that
    /// it gets on; one that is larger than a page stands alone.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let has_room = self.records > 0 && bytes + Self::RECORD <= self.bytes;
        if !(has_room || self.fresh) {
            return false;
        }
        self.spend_bytes(bytes);
        true
    }

    pub(super) fn spend_bytes(&mut self, bytes: usize) {
        self.fresh = false;
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes + Self::RECORD);
    }

    /// The limits of what still fits.
    pub(super) fn rest(&self) -> PageLimits {
        PageLimits { records: self.records, bytes: self.bytes }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}
