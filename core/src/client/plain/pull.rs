//! The pager: how a collection is read from a plain server whose rows move while it is read.
//!
//! A plain server pages by limit and offset. Each page is asked for so that it begins with the last
//! row of the one before, the *anchor*: as long as some row of the last page is found in the next
//! one, unaltered, everything behind it was not missed, whatever was moved, inserted or deleted in
//! front of it. Where none is found the pager steps back. Servers that know no limit, no offset or
//! no `since` are recognised by what they answer.
//!
//! A server without offsets may cut its answer off. As the number of rows does not tell that, the
//! pager asks once more, for all but the oldest of them: an answer that was cut off gives rows from
//! behind the cut in their place.

use alloc::vec::Vec;

use crate::protocol::time::{Mono, Timestamp};

/// The number of rows that are asked for at a time, at first.
pub(super) const LIMIT: usize = 500;
/// The most rows that are asked for at a time.
const MAX_LIMIT: usize = 16_000;
/// The fewest.
const MIN_LIMIT: usize = 16;
/// No server is expected to give fewer rows than this at a time when it has more.
const SMALLEST_PAGE: usize = 10;
/// So often in a row the rows may move so far that the pager begins again.
const MAX_RESTARTS: u32 = 6;
/// So often a reconcile looks again as long as it sees more than one page.
const LOOKS_AGAIN: u32 = 2;
/// The distance of `since` before the watermark.
const OVERLAP_MILLIS: i64 = 10_000;
/// The most rows of one run.
const MAX_ROWS: usize = 8_000_000;

/// The knowledge of the way in which a server pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Habits {
    /// The number of rows that are asked for at a time.
    pub(super) limit: usize,
    /// A page with fewer rows than this is the last one: the server has given as many at once.
    trusted: usize,
    /// `true` if it knows no offset.
    no_offset: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { limit: LIMIT, trusted: SMALLEST_PAGE, no_offset: false }
    }
}

impl Habits {
    /// Everything could be fetched.
    pub(super) fn grow(&mut self) {
        self.limit = (self.limit * 2).min(LIMIT).max(self.limit);
    }

    /// A page could not be fetched: perhaps it is too large to be.
    pub(super) fn shrink(&mut self) {
        self.limit = (self.limit / 4).max(MIN_LIMIT);
    }
}

/// A row, as far as the pager cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Glimpse {
    /// A hash of the record's id; `None` where the row could not be read.
    pub(super) id: Option<u64>,
    /// A hash of all that was said of it.
    pub(super) whole: u64,
    /// The server's stamp.
    pub(super) stamp: Option<Timestamp>,
}

/// The next step after a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Another page.
    More,
    /// The pull is complete.
    Done(Outcome),
    /// The server can't be read in full, or not now; for people.
    Failed(&'static str),
}

/// The outcome of a complete pull.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    /// Every change that the server stamped before this time was seen.
    pub(super) watermark: Option<Timestamp>,
    /// Hashes of the ids of all records that exist, sorted, where the pull was to find them.
    /// Records that were changed since the pull began may be missing.
    pub(super) existing: Option<Vec<u64>>,
}

/// The purpose of a pull.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Purpose {
    /// To see what changed.
    Changes,
    /// To see which records exist; the hashes of their ids.
    Reconcile { seen: Vec<u64>, again: u32 },
}

/// One reading of a collection, in one run or more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pull {
    /// Up to where earlier pulls have seen everything.
    watermark: Option<Timestamp>,
    /// `true` if the run under way asks for everything.
    whole: bool,
    purpose: Purpose,
    run: Run,
    run_began: Mono,
    /// The latest stamp that the run has seen.
    latest: Option<Timestamp>,
}

impl Pull {
    /// Sees what changed.
    pub(super) fn changes(watermark: Option<Timestamp>, now: Mono) -> Self {
        Self::new(watermark, watermark.is_none(), Purpose::Changes, now)
    }

    /// Sees everything, to find what is gone.
    pub(super) fn reconcile(watermark: Option<Timestamp>, now: Mono) -> Self {
        Self::new(watermark, true, Purpose::Reconcile { seen: Vec::new(), again: 0 }, now)
    }

    fn new(watermark: Option<Timestamp>, whole: bool, purpose: Purpose, now: Mono) -> Self {
        let careful = matches!(purpose, Purpose::Reconcile { .. });
        Self { watermark, whole, purpose, run: Run::new(careful), run_began: now, latest: None }
    }

    /// Returns the parameters of the next page: `since` and the offset.
    pub(super) fn ask(&self) -> (Option<Timestamp>, usize) {
        let since = since(self.watermark).filter(|_| !self.whole);
        (self.run.check.since().or(since), self.run.offset)
    }

    /// Returns `true` if a page of it has come.
    pub(super) fn has_read(&self) -> bool {
        self.run.rows > 0
    }

    /// Takes the rows of the page that was asked for.
    pub(super) fn page(&mut self, rows: &[Glimpse], now: Mono, habits: &mut Habits) -> Step {
        self.latest = self.latest.max(rows.iter().filter_map(|row| row.stamp).max());
        if let Purpose::Reconcile { seen, .. } = &mut self.purpose {
            seen.extend(rows.iter().filter_map(|row| row.id));
        }
        match self.run.page(rows, habits) {
            Progress::More => Step::More,
            Progress::Done => self.finish(now),
            Progress::Partial => {
                Step::Failed("the server gives only so many records at a time, and knows no offset")
            }
            Progress::GaveUp => Step::Failed("the records moved faster than they could be read"),
        }
    }

    /// A run is complete.
    fn finish(&mut self, now: Mono) -> Step {
        // what the run did not see because it moved was changed while the run lasted, by the
        // server's clock too, so it was stamped after the latest stamp less that time
        let took = i64::try_from(now.since(self.run_began).as_millis()).unwrap_or(i64::MAX);
        let reached = self.latest.map(|latest| Timestamp(latest.0.saturating_sub(took)));
        self.watermark = self.watermark.max(reached);
        let Purpose::Reconcile { seen, again } = &mut self.purpose else {
            return Step::Done(Outcome { watermark: self.watermark, existing: None });
        };
        // a record that was changed between two pages can have stepped over the gap: it shows among
        // the changes since, or where those can't be told from the rest, in another look at all
        if self.run.pages > 1 && *again < LOOKS_AGAIN {
            *again += 1;
            self.whole = self.watermark.is_none();
            self.run = Run::new(self.whole);
            self.run_began = now;
            self.latest = None;
            return Step::More;
        }
        seen.sort_unstable();
        seen.dedup();
        let existing = Some(core::mem::take(seen));
        Step::Done(Outcome { watermark: self.watermark, existing })
    }
}

/// Returns the `since` that shows every change behind a watermark: a server may stamp a change some time
/// before others can see it.
fn since(watermark: Option<Timestamp>) -> Option<Timestamp> {
    Some(Timestamp(watermark?.0.saturating_sub(OVERLAP_MILLIS)))
}

/// The next step in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// Another page.
    More,
    /// That was all, each record in it as it was at some time since the pull began.
    Done,
    /// Not everything can be had from this server.
    Partial,
    /// The rows moved faster than they could be read.
    GaveUp,
}

/// One run over a collection's rows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Run {
    offset: usize,
    /// `true` if the end has to be seen, and not only to be likely.
    careful: bool,
    /// The rows of the last page.
    anchors: Vec<u64>,
    /// The distance of the page under way from the anchor's old position.
    back: usize,
    /// Where the anchor was.
    expected: usize,
    /// `true` if the server may know no offset.
    suspected: bool,
    restarts: u32,
    rows: usize,
    /// The number of pages that were read.
    pages: u32,
    check: Check,
}

/// The check of an answer without offset that may have been cut off.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Check {
    No,
    /// All but the oldest of the rows are asked for; the ids of the rows, sorted.
    Behind {
        since: Timestamp,
        ids: Vec<u64>,
    },
    /// Others came, which a cut hid or which are new: it is not cut off if so many rows are
    /// no longer all.
    Again {
        rows: usize,
    },
}

impl Check {
    fn since(&self) -> Option<Timestamp> {
        match self {
            Self::Behind { since, .. } => Some(*since),
            Self::No | Self::Again { .. } => None,
        }
    }
}

impl Run {
    fn new(careful: bool) -> Self {
        Self {
            offset: 0,
            careful,
            anchors: Vec::new(),
            back: 0,
            expected: 0,
            suspected: false,
            restarts: 0,
            rows: 0,
            pages: 0,
            check: Check::No,
        }
    }

    /// Takes the rows of the page that was asked for.
    fn page(&mut self, page: &[Glimpse], habits: &mut Habits) -> Progress {
        let rows: Vec<u64> = page.iter().map(|row| row.whole).collect();
        self.pages += 1;
        self.rows += rows.len();
        let limit = habits.limit;
        habits.trusted = habits.trusted.max(rows.len());
        if self.rows > MAX_ROWS {
            return Progress::GaveUp;
        }
        if !self.is_joined(&rows) {
            return self.step_back(habits);
        }
        if self.offset == 0 && (habits.no_offset || self.suspected && rows == self.anchors) {
            habits.no_offset = true;
            return self.without_offset(page, habits);
        }
        if self.offset > 0 && self.back == 0 && rows == self.anchors {
            // it may know no offset, or as many rows were inserted in front: the start will tell
            self.suspected = true;
            self.offset = 0;
            return Progress::More;
        }
        self.suspected = false;
        // shorter than what the server is known to give at once, it is the last page; to be sure
        // of that, nothing may lie behind its end
        let ends = self.offset > 0 && rows.last() == self.anchors.last();
        let sure = ends || !self.careful || rows.len() < SMALLEST_PAGE;
        if rows.len() < limit.min(habits.trusted) && sure {
            return Progress::Done;
        }
        self.expected = self.offset + rows.len() - 1;
        self.offset = self.expected;
        self.back = 0;
        self.anchors = rows;
        Progress::More
    }

    /// Returns `true` if nothing can lie between the page before and this one.
    fn is_joined(&self, rows: &[u64]) -> bool {
        if self.offset == 0 || rows.first().is_some_and(|row| self.anchors.last() == Some(row)) {
            return true;
        }
        let mut sorted = rows.to_vec();
        sorted.sort_unstable();
        self.anchors.iter().any(|anchor| sorted.binary_search(anchor).is_ok())
    }

    /// The rows have moved: the anchor is looked for further to the front, in the end at the start.
    fn step_back(&mut self, habits: &mut Habits) -> Progress {
        self.back = (self.back * 2).max(habits.limit / 2).max(1);
        self.offset = self.expected.saturating_sub(self.back);
        if self.offset == 0 { self.begin_again(habits) } else { Progress::More }
    }

    fn begin_again(&mut self, habits: &mut Habits) -> Progress {
        if !self.may_restart() {
            return Progress::GaveUp;
        }
        if self.restarts > 1 {
            habits.limit = (habits.limit * 2).min(MAX_LIMIT);
        }
        self.offset = 0;
        self.anchors.clear();
        self.back = 0;
        self.pages = 0;
        Progress::More
    }

    fn may_restart(&mut self) -> bool {
        self.restarts += 1;
        self.restarts <= MAX_RESTARTS
    }

    /// The server gives the same page at every offset: a larger one may hold everything.
    fn without_offset(&mut self, rows: &[Glimpse], habits: &mut Habits) -> Progress {
        self.pages = 1;
        match core::mem::replace(&mut self.check, Check::No) {
            Check::Behind { ids, .. } => return self.look_behind(&ids, rows),
            Check::Again { rows: before } if rows.len() == before => return Progress::Partial,
            Check::Again { .. } if !self.may_restart() => return Progress::GaveUp,
            Check::Again { .. } | Check::No => {}
        }
        if rows.len() == habits.limit {
            if habits.limit >= MAX_LIMIT {
                return Progress::Partial;
            }
            habits.limit = (habits.limit * 4).min(MAX_LIMIT);
            return Progress::More;
        }
        if rows.len() < habits.trusted {
            return Progress::Done;
        }
        let Some(oldest) = rows.iter().filter_map(|row| row.stamp).min() else {
            return Progress::Done;
        };
        let mut ids: Vec<u64> = rows.iter().filter_map(|row| row.id).collect();
        ids.sort_unstable();
        self.check = Check::Behind { since: Timestamp(oldest.0.saturating_add(1)), ids };
        Progress::More
    }

    /// All but the oldest rows were asked for.
    fn look_behind(&mut self, ids: &[u64], rows: &[Glimpse]) -> Progress {
        let mut shown = rows.iter().filter_map(|row| row.id);
        if shown.all(|id| ids.binary_search(&id).is_ok()) {
            return Progress::Done;
        }
        self.check = Check::Again { rows: ids.len() };
        Progress::More
    }
}

#[cfg(test)]
mod tests;
