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

use super::edit::Edit;
use super::machine::Client;
use super::past::Past;
use crate::rules::clocks::{Correction, MAX_RUNS, Stamped};
use crate::rules::row::{Entry, Row};
use crate::words::name::{Collection, RecordId};
use crate::words::store::StoreError;
use crate::words::time::{Mono, Now, Timestamp};

/// A wall clock that moves against the monotonic one by more than this was set, or the device slept.
const STEP: i64 = 1_000;

/// The clock of the present run, in milliseconds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Clock {
    /// A number that no other run of this replica has.
    run: u64,
    /// What the wall clock shows where the monotonic one shows 0, as far as this run is concerned.
    anchor: i64,
    /// How far the wall clock was ahead of that when it was looked at last.
    drift: i64,
    /// How far the server's clock is ahead of this run's; `None` before a server has told its time.
    offset: Option<i64>,
    /// Whether it has stamped a write without knowing the server's time.
    stamps: bool,
    /// Whether the wall clock was set since its offset was kept.
    stepped: bool,
    /// What led to this run since the time was known last.
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
    fn local(&self, now: Mono) -> i64 {
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
        if planted!(StepsFollowed) {
            (self.anchor, self.drift) = (self.anchor.saturating_add(drift), 0);
        } else if step > 0 && !planted!(LeapsIgnored) {
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

impl Client {
    /// The server's time, as far as it is known.
    pub(super) fn server_time(&self) -> Timestamp {
        let offset = self.clock.offset.or(self.kept_offset()).unwrap_or(0);
        Timestamp(self.clock.local(self.now.mono)).plus(offset)
    }

    /// Whether a server has told its time in this run, so that writes are stamped with it. For tests.
    #[must_use]
    pub fn knows_server_time(&self) -> bool {
        self.clock.offset.is_some()
    }

    /// How far the server's clock is ahead of the wall clock, as far as it is known.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        match self.clock.offset {
            Some(_) => self.server_time().0.saturating_sub(self.now.wall.0),
            None => self.kept_offset().unwrap_or(0),
        }
    }

    fn kept_offset(&self) -> Option<i64> {
        self.identity.clocks.offset.filter(|_| !planted!(OffsetForgotten))
    }

    /// Stamps a write that the app makes: by the server's clock as far as it is known, and later than
    /// everything that its author can have seen of the record.
    pub(super) fn stamp(
        &mut self,
        edit: &Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        row: &Row,
    ) -> Result<(Timestamp, Option<Stamped>), StoreError> {
        let now = self.server_time();
        if planted!(StampNotCausal) {
            return Ok((now, None));
        }
        let Some(run) = self.clock.unsettled() else {
            return Ok((now.max(seen(edit, collection, id, row)?.next()), None));
        };
        self.clock.stamps = true;
        let guessed = self.kept_offset().is_some();
        let mut stamped = Stamped { run, guessed, floor: row.updated_at.next() };
        let mut at = now;
        let last = last_write(edit, collection, id, row)?;
        match last.map(|last| (last.written_at, last.stamped)) {
            Some((before, Some(earlier))) => {
                stamped.floor = stamped.floor.max(earlier.floor.next());
                // a time of another run is wrong by something else
                if earlier.run == run {
                    at = at.max(before.next());
                }
            }
            Some((before, None)) => stamped.floor = stamped.floor.max(before.next()),
            None => {}
        }
        Ok((at, Some(stamped)))
    }

    /// A server has answered a hello, and told its time, as it should. What was stamped without it is
    /// corrected from now on, and that is durable before anything is sent.
    pub(super) fn settle_clock(
        &mut self,
        edit: &mut Edit<'_>,
        server: Option<Timestamp>,
        asked_at: Mono,
    ) {
        let kept = self.kept_offset();
        let guess = kept.unwrap_or(0);
        let until = self.outbox.end();
        let stamps = core::mem::take(&mut self.clock.stamps);
        self.measure(server, asked_at, guess);
        let waits = !self.outbox.is_empty() && !planted!(RunsUncorrected);
        let of_wall = if server.is_some() { self.clock_offset_ms() } else { guess };
        let own = self.clock.offset.map_or(0, |offset| offset.saturating_sub(guess));
        let past = core::mem::take(&mut self.clock.past);
        let zero = self.clock.anchor.saturating_add(self.clock.offset.unwrap_or(guess));
        let known =
            waits && server.is_some() && kept.is_some() && !planted!(EarlierRunsUncorrected);
        let earlier = if known { past.corrections(zero, guess) } else { Vec::new() };
        let clocks = &mut self.identity.clocks;
        for (run, millis) in earlier {
            if clocks.runs.len() < MAX_RUNS {
                clocks.runs.push((run, Correction { millis, until }));
                edit.gates |= !planted!(CorrectionUngated);
            }
        }
        // without an offset to go by, that of the wall clock would count, which may have been set since
        let counts = own != 0 || kept.is_none() && of_wall != own;
        if waits && stamps && counts && clocks.runs.len() < MAX_RUNS {
            clocks.runs.push((self.clock.run, Correction { millis: own, until }));
            edit.gates |= !planted!(CorrectionUngated);
        }
        if waits && kept.is_none() && clocks.unguessed.is_none() {
            clocks.unguessed = Some(Correction { millis: of_wall, until });
            edit.gates |= server.is_some() && !planted!(CorrectionUngated);
        }
        edit.flush |= edit.gates;
        if server.is_some() {
            clocks.offset = Some(of_wall);
        }
        self.clock.stepped = false;
        edit.in_time(&self.identity.clocks, self.clock.unsettled_runs());
        self.put_identity(edit);
    }

    /// The same, of a ping's answer. It may have waited behind much else, so that the wall clock, with
    /// the offset that was kept, knows better: what it shows counts where the answer allows for it.
    pub(super) fn settle_after_leap(
        &mut self,
        edit: &mut Edit<'_>,
        server: Option<Timestamp>,
        asked_at: Mono,
    ) {
        let (shown, round_trip) = (self.server_time(), self.round_trip(asked_at));
        let allows = |server: &Timestamp| (*server..=server.plus(round_trip)).contains(&shown);
        match server.filter(allows).and(self.kept_offset()) {
            Some(_) => self.settle_clock(edit, Some(shown), self.now.mono),
            None => self.settle_clock(edit, server, asked_at),
        }
    }

    /// A server has told its time beside other things. Nothing is written down where that is as it
    /// was.
    pub(super) fn hear_time(
        &mut self,
        edit: &mut Edit<'_>,
        server: Option<Timestamp>,
        asked_at: Mono,
    ) {
        if server.is_none() {
            return;
        }
        let unknown = self.clock.offset.is_none();
        let before = self.clock_offset_ms();
        self.measure(server, asked_at, 0);
        let moved = self.clock_offset_ms().saturating_sub(before).saturating_abs() > STEP;
        if unknown || moved {
            self.settle_clock(edit, server, asked_at);
        }
    }

    /// How far the server's clock is ahead, if its answer took as long as the question, which was
    /// asked at `asked_at` (Cristian's algorithm, 1989). Where it does not tell, `guess` has to do.
    fn measure(&mut self, server: Option<Timestamp>, asked_at: Mono, guess: i64) {
        let Some(server) = server else {
            self.clock.offset = self.clock.offset.or(Some(guess));
            return;
        };
        let half = self.round_trip(asked_at) / 2;
        let local = self.clock.local(self.now.mono);
        self.clock.offset = Some(server.0.saturating_add(half).saturating_sub(local));
    }

    fn round_trip(&self, asked_at: Mono) -> i64 {
        i64::try_from(self.now.mono.since(asked_at).as_millis()).unwrap_or(0)
    }

    /// Keeps the offset of a wall clock that was set while the server's time was known.
    pub(super) fn keep_offset(&mut self, edit: &mut Edit<'_>) {
        if core::mem::take(&mut self.clock.stepped) && self.identity.clocks.offset.is_some() {
            self.identity.clocks.offset = Some(self.clock_offset_ms());
            self.put_identity(edit);
        }
    }
}

/// The latest time that whoever writes this record now has seen on it.
pub(super) fn seen(
    edit: &Edit<'_>,
    collection: &Collection,
    id: &RecordId,
    row: &Row,
) -> Result<Timestamp, StoreError> {
    let last = last_write(edit, collection, id, row)?.map(|last| last.corrected(0).written_at);
    Ok(last.map_or(row.updated_at, |last| last.max(row.updated_at)))
}

/// The last of a record's pending writes. What its row says of it may be of before it was corrected.
fn last_write(
    edit: &Edit<'_>,
    collection: &Collection,
    id: &RecordId,
    row: &Row,
) -> Result<Option<Entry>, StoreError> {
    if row.pending.is_some() { edit.last_of(collection, id) } else { Ok(None) }
}

fn millis(mono: Mono) -> i64 {
    i64::try_from(mono.0).unwrap_or(i64::MAX)
}
