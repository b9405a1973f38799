//! Several leaps of the wall clock before the server tells its time again: which of them were sleeps?
//!
//! While a device sleeps the server's clock goes on, and while somebody sets its clock it does not. So
//! the server's time tells for how long the device slept in all, and which of the leaps add up to that.

use alloc::vec::Vec;

/// The most leaps of which that is found out. Beyond these, the times of the runs between them count
/// as they are. *In real life there are two, seldom.*
const MAX_LEAPS: usize = 8;

/// The leaps since the time was known, and the runs of the clock between them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Past {
    /// The server's time at which the monotonic clock showed 0, as far as it was known.
    zero: i64,
    /// `true` if the offset that was kept from an earlier run is still to be added to that.
    guessed: bool,
    /// The first run that does not know the time.
    first: u64,
    /// The leaps in their order, in milliseconds.
    leaps: Vec<i64>,
    runs: Vec<PastRun>,
}

/// A run that stamped writes without knowing the server's time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct PastRun {
    run: u64,
    /// The wall-clock time at which the monotonic clock showed 0.
    anchor: i64,
    /// The number of leaps before it.
    leaps: usize,
}

impl Past {
    pub(super) fn is_empty(&self) -> bool {
        self.leaps.is_empty()
    }

    /// The first run that does not know the time, where there were leaps since.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.first)
    }

    /// The time was known, or guessed, until now.
    pub(super) fn begin(&mut self, zero: i64, guessed: bool, first: u64) {
        *self = Self { zero, guessed, first, ..Self::default() };
    }

    pub(super) fn end_run(&mut self, run: u64, anchor: i64) {
        self.runs.push(PastRun { run, anchor, leaps: self.leaps.len() });
    }

    pub(super) fn leap(&mut self, millis: i64) {
        if self.leaps.len() >= MAX_LEAPS {
            self.leaps.clear();
            self.runs.clear();
        }
        self.leaps.push(millis);
    }

    /// Returns the corrections of the times of each run, if they are not 0. `zero` is the server's time
    /// at which the monotonic clock shows 0, from now on; `guess` is the offset that was kept.
    pub(super) fn corrections(self, zero: i64, guess: i64) -> Vec<(u64, i64)> {
        let before = self.zero.saturating_add(if self.guessed { guess } else { 0 });
        let sleeps = self.sleeps(zero.saturating_sub(before));
        let correction = |it: &PastRun| {
            let slept = sum(&self.leaps, sleeps, it.leaps);
            let own = zero.saturating_sub(slept).saturating_sub(it.anchor).saturating_sub(guess);
            (it.run, own)
        };
        self.runs.iter().map(correction).filter(|(_, own)| *own != 0).collect()
    }

    /// The leaps that add up best to a time asleep, a bit each. Where several do, as many as can be.
    fn sleeps(&self, asleep: i64) -> u32 {
        let all = (1_u32 << self.leaps.len()) - 1;
        let off = |bits: &u32| sum(&self.leaps, *bits, 0).saturating_sub(asleep).saturating_abs();
        (0..=all).rev().min_by_key(off).unwrap_or(all)
    }
}

/// Returns the length of the leaps from the `from`-th on whose bits are set, together.
fn sum(leaps: &[i64], bits: u32, from: usize) -> i64 {
    let chosen = leaps.iter().enumerate().skip(from).filter(|(index, _)| bits >> index & 1 == 1);
    chosen.fold(0, |sum, (_, leap)| sum.saturating_add(*leap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const SLEEP: i64 = 70_000;
    const SET: i64 = 86_400_000;

    /// Three leaps, and a run after each. The wall clock was right before.
    fn past(leaps: [i64; 3]) -> Past {
        let mut past = Past::default();
        past.begin(1_000, false, 0);
        let mut anchor = 1_000;
        for (index, leap) in leaps.into_iter().enumerate() {
            past.leap(leap);
            anchor += leap;
            past.end_run(index as u64, anchor);
        }
        past
    }

    #[test]
    fn sleeps_and_sets_are_told_apart_by_their_sum() {
        let cases = [
            ([SLEEP, SLEEP, SLEEP], 3 * SLEEP, vec![]),
            ([SET, SLEEP, 9_000], SLEEP + 9_000, vec![(0, -SET), (1, -SET), (2, -SET)]),
            ([SLEEP, SET, 9_000], SLEEP + 9_000, vec![(1, -SET), (2, -SET)]),
            ([SLEEP, 9_000, SET], SLEEP + 9_000, vec![(2, -SET)]),
            ([SET, SLEEP, SET + 1], SLEEP, vec![(0, -SET), (1, -SET), (2, -2 * SET - 1)]),
        ];
        for (leaps, asleep, corrections) in cases {
            assert_eq!(past(leaps).corrections(1_000 + asleep, 0), corrections, "{leaps:?}");
        }
    }

    #[test]
    fn an_answer_that_took_its_time_is_close_enough() {
        let found = past([SET, SLEEP, 9_000]).corrections(1_000 + SLEEP + 9_000 + 300, 0);
        assert_eq!(found, vec![(0, 300 - SET), (1, 300 - SET), (2, 300 - SET)]);
    }

    #[test]
    fn leaps_beyond_the_most_are_forgotten() {
        let mut past = past([SLEEP, SLEEP, SLEEP]);
        (0..1_000).for_each(|_| past.leap(SLEEP));
        assert!(past.leaps.len() <= MAX_LEAPS);
        assert!(past.runs.is_empty());
    }
}
