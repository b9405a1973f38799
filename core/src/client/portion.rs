//! The size of what is asked for or sent at a time: less where connections break before it has come
//! through, and more again once it does.

/// The size of a portion without a limit, as it is assumed.
const USUAL: usize = 256 << 10;
/// A portion that did not come through is followed by one of this part of it: pauses grow by the same
/// failures, so that few have to be enough.
const PART: usize = 4;
/// No portion is smaller because of failures.
const LEAST: usize = 4 << 10;
/// The number of portions that one connection has to carry until they are twice as large.
const GROWTH: u32 = 4;

/// The sizes of what is asked for and sent at a time.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Portions {
    /// The pages of catch-ups.
    pub(super) pages: Portion,
    /// The writes that are on their way without a verdict.
    pub(super) writes: Portion,
}

/// The size of one kind of things.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Portion {
    /// The most bytes; `None` as long as there is no need for a limit.
    bytes: Option<usize>,
    /// The number of portions that the present connection has carried, or about so many bytes.
    carried: u32,
    /// The bytes of the next one.
    begun: usize,
}

impl Portions {
    /// A connection begins.
    pub(super) fn begin(&mut self) {
        for portion in [&mut self.pages, &mut self.writes] {
            (portion.carried, portion.begun) = (0, 0);
        }
    }

    /// Returns the number of failures that have made them as small as they are.
    pub(super) fn steps(&self) -> u32 {
        self.pages.steps() + self.writes.steps()
    }
}

impl Portion {
    fn steps(&self) -> u32 {
        self.bytes.map_or(0, |bytes| (USUAL / bytes).ilog(PART))
    }

    /// The most bytes at a time; `None`: any number.
    pub(super) fn limit(&self) -> Option<usize> {
        self.bytes
    }

    /// This many bytes have come through, and stay where they are whatever becomes of the connection.
    pub(super) fn carry(&mut self, bytes: usize) {
        let most = self.bytes.unwrap_or(USUAL);
        self.begun += bytes;
        if self.begun >= most / 2 {
            (self.carried, self.begun) = (self.carried + 1, 0);
        }
        if self.carried >= GROWTH {
            self.carried = 1;
            self.bytes = self.bytes.map(|most| most * 2).filter(|more| *more < USUAL);
        }
    }

    /// Returns `true` if no smaller portion is tried.
    pub(super) fn is_least(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes <= LEAST)
    }

    /// The connection has ended before what was under way came through. Where it has not carried one
    /// portion, less is tried on the next.
    pub(super) fn fail(&mut self) {
        if self.carried == 0 {
            let most = self.bytes.unwrap_or(USUAL);
            self.bytes = Some((most / PART).max(LEAST));
        }
        (self.carried, self.begun) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn portions_shrink_with_failures_and_grow_with_what_comes_through() {
        let mut portion = Portion::default();
        let sizes = |portion: &mut Portion, what: fn(&mut Portion)| {
            let one = |_| {
                what(portion);
                portion.limit().map(|bytes| bytes >> 10)
            };
            (0..4).map(one).collect::<Vec<_>>()
        };
        let failed = [Some(64), Some(16), Some(4), Some(4)];
        assert_eq!(sizes(&mut portion, Portion::fail), failed);
        portion.carry(128 << 10);
        let more = |portion: &mut Portion| (0..3).for_each(|_| portion.carry(128 << 10));
        assert_eq!(sizes(&mut portion, more), [Some(8), Some(16), Some(32), Some(64)]);
        assert_eq!(sizes(&mut portion, more), [Some(128), None, None, None]);
    }

    #[test]
    fn a_connection_that_carries_a_portion_has_not_failed() {
        let mut portion = Portion::default();
        portion.carry(200 << 10);
        portion.fail();
        assert_eq!(portion.limit(), None);
        portion.fail();
        for _ in 0..9 {
            portion.carry(64 << 10);
            portion.fail();
            assert_eq!(portion.limit(), Some(64 << 10));
        }
        // what is small and comes first, each time, is not what did not come through
        portion.carry(1 << 10);
        portion.fail();
        assert_eq!(portion.limit(), Some(16 << 10));
    }
}
