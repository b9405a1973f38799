//! The time of writes: the server's, as far as it is known.
//!
//! A server tells its time at a hello. From then on the monotonic clock carries it on, so that a step
//! of the wall clock changes nothing. Before that, the wall clock as it stood at the start of the run
//! and the monotonic one give a time that may be wrong by any amount, but by the same for every write
//! of the run: it is corrected when a server tells its own. See [`clocks`](crate::rules::clocks).
//!
//! The monotonic clock of some systems stands still while the device sleeps. Where the wall clock has
//! leapt ahead of it, the device has slept, or somebody has set its clock; in either case nothing
//! vouches for the time any more, and a new run begins. See [`leap`](super::leap).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use xxhash_rust::xxh3::xxh3_64;

use super::past::Past;
use crate::protocol::time::{Mono, Now, Timestamp};

/// A wall clock that moves against the monotonic one by more than this was set, or the device slept.
pub(super) const STEP: i64 = 1_000;

/// The clock of the present run, in milliseconds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Clock {
    /// A number that no other run of this replica has.
    run: u64,
    /// The wall-clock time at which the monotonic clock shows 0, as of this run.
    anchor: i64,
    /// The lead of the wall clock over that when it was looked at last.
    drift: i64,
    /// The lead of the server's clock over this run's; `None` before a server has told its time.
    offset: Option<i64>,
    /// `true` if it has stamped a write without knowing the server's time.
    stamps: bool,
    /// `true` if the wall clock was set since its offset was kept.
    stepped: bool,
    /// The leaps that led to this run since the time was known last.
    past: Past,
}

impl Clock {
    /// The clock of a machine that was made with a fresh seed.
    pub(super) fn new(now: Now, seed: u128) -> Self {
        Self::begin(now, xxh3_64(&seed.to_le_bytes()))
    }

    fn begin(now: Now, run: u64) -> Self {
        let anchor = now.wall.0.saturating_sub(millis(now.mono));
        Self {
            run,
            anchor,
            drift: 0,
            offset: None,
            stamps: false,
            stepped: false,
            past: Past::default(),
        }
    }

    /// The time by this run's clock.
    pub(super) fn local(&self, now: Mono) -> i64 {
        self.anchor.saturating_add(millis(now))
    }

    /// Looks at both clocks.
    pub(super) fn look(&mut self, now: Now) {
        let drift = now.wall.0.saturating_sub(self.local(now.mono));
        let step = drift.saturating_sub(self.drift);
        self.drift = drift;
        if step.saturating_abs() <= STEP {
            return;
        }
        if step > 0 {
            let past = self.leave(step);
            *self = Self { past, ..Self::begin(now, self.run.wrapping_add(1)) };
        } else if self.offset.is_some() {
            self.stepped = true;
        }
    }

    /// Ends this run by a leap.
    fn leave(&mut self, leap: i64) -> Past {
        let mut past = core::mem::take(&mut self.past);
        match self.offset {
            Some(offset) => {
                past.begin(self.anchor.saturating_add(offset), false, self.run.wrapping_add(1));
            }
            None if past.is_empty() => past.begin(self.anchor, true, self.run),
            None => {}
        }
        if self.stamps {
            past.end_run(self.run, self.anchor);
        }
        past.leap(leap);
        past
    }

    /// Returns the lead of the server's clock over this run's; `None` before a server has told its time.
    pub(super) fn offset(&self) -> Option<i64> {
        self.offset
    }

    /// Notes that a write was stamped without the server's time.
    pub(super) fn stamped(&mut self) {
        self.stamps = true;
    }

    /// Says, once, that the wall clock was set while the server's time was known.
    pub(super) fn take_step(&mut self) -> bool {
        core::mem::take(&mut self.stepped)
    }

    /// Measures how far the server's clock is ahead, if its answer took as long as the question,
    /// which was asked at `asked_at` (Cristian's algorithm, 1989). Where it does not tell, `guess`
    /// has to do.
    pub(super) fn measure(
        &mut self,
        server: Option<Timestamp>,
        asked_at: Mono,
        now: Mono,
        guess: i64,
    ) {
        let Some(server) = server else {
            self.offset = self.offset.or(Some(guess));
            return;
        };
        let half = round_trip(asked_at, now) / 2;
        self.offset = Some(server.0.saturating_add(half).saturating_sub(self.local(now)));
    }

    /// Ends the time in which the server's was not known, after it was measured.
    pub(super) fn settle(&mut self, guess: i64) -> Settled {
        self.stepped = false;
        Settled {
            run: self.run,
            stamps: core::mem::take(&mut self.stamps),
            correction: self.offset.map_or(0, |offset| offset.saturating_sub(guess)),
            past: core::mem::take(&mut self.past),
            zero: self.anchor.saturating_add(self.offset.unwrap_or(guess)),
        }
    }

    /// The present run.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// The runs up to the present one that do not know the server's time.
    pub(super) fn unsettled_runs(&self) -> Option<RangeInclusive<u64>> {
        let run = self.unsettled()?;
        Some(self.past.first().unwrap_or(run)..=run)
    }

    /// The run, as long as it does not know the server's time.
    pub(super) fn unsettled(&self) -> Option<u64> {
        self.offset.is_none().then_some(self.run)
    }
}

/// The outcome of [`Clock::settle`].
pub(super) struct Settled {
    pub(super) run: u64,
    /// `true` if the run has stamped writes without knowing the server's time.
    pub(super) stamps: bool,
    /// By how many milliseconds those are corrected.
    pub(super) correction: i64,
    past: Past,
    /// The server's time where the monotonic clock shows 0.
    zero: i64,
}

impl Settled {
    /// By how many milliseconds the writes of earlier runs are corrected.
    pub(super) fn earlier(&mut self, guess: i64) -> Vec<(u64, i64)> {
        core::mem::take(&mut self.past).corrections(self.zero, guess)
    }
}

/// The milliseconds from a question to now.
pub(super) fn round_trip(asked_at: Mono, now: Mono) -> i64 {
    i64::try_from(now.since(asked_at).as_millis()).unwrap_or(0)
}

fn millis(mono: Mono) -> i64 {
    i64::try_from(mono.0).unwrap_or(i64::MAX)
}
