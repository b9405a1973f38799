//! The client's use of its clock: writes are stamped by the server's time as far as it is known, and
//! corrected when it is told. See [`clock`](super::clock).

use alloc::vec::Vec;

use super::clock::{STEP, round_trip};
use super::edit::Edit;
use super::event::EventKind;
use super::machine::Client;
use super::outbox::Outbox;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::{Mono, Timestamp};
use crate::rules::clocks::{Correction, MAX_RUNS, Stamped};
use crate::rules::row::{Entry, Row};
use crate::store::StoreError;

/// A wall clock that differs from the server's by more milliseconds is far off: the app is told.
const FAR_OFF: i64 = 60_000;

impl Client {
    /// The server's time, as far as it is known.
    pub(super) fn server_time(&self) -> Timestamp {
        let offset = self.clock.offset().or(self.kept_offset()).unwrap_or(0);
        Timestamp(self.clock.local(self.now.mono)).plus(offset)
    }

    /// Tells whether a server has told its time in this run, so that writes are stamped with it. For tests.
    #[must_use]
    pub(crate) fn knows_server_time(&self) -> bool {
        self.clock.offset().is_some()
    }

    /// Returns the lead of the server's clock over the wall clock, as far as it is known.
    pub(super) fn clock_offset_ms(&self) -> i64 {
        match self.clock.offset() {
            Some(_) => self.server_time().0.saturating_sub(self.now.wall.0),
            None => self.kept_offset().unwrap_or(0),
        }
    }

    /// Returns `true` if the wall clock is far off by the server's, as far as that is known.
    pub(super) fn clock_is_off(&self) -> bool {
        self.clock_offset_ms().saturating_abs() > FAR_OFF
    }

    /// Tells the app of a wall clock that is far off, once until it is right again.
    fn tell_of_clock(&mut self, edit: &mut Edit<'_>) {
        let off = self.clock_is_off();
        if off && !self.told_of_clock {
            let offset_ms = self.clock_offset_ms();
            edit.remote_event(EventKind::ClockOff { offset_ms });
        }
        self.told_of_clock = off;
    }

    fn kept_offset(&self) -> Option<i64> {
        self.identity.clocks.offset
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
        let Some(run) = self.clock.unsettled() else {
            return Ok((now.max(seen(edit, &self.outbox, collection, id, row)?.next()), None));
        };
        self.clock.stamped();
        let guessed = self.kept_offset().is_some();
        let mut stamped = Stamped { run, guessed, floor: row.updated_at.next() };
        let mut at = now;
        let last = last_write(edit, &self.outbox, collection, id, row)?;
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
        self.clock.measure(server, asked_at, self.now.mono, guess);
        let mut settled = self.clock.settle(guess);
        let waits = !self.outbox.is_empty();
        let of_wall = if server.is_some() { self.clock_offset_ms() } else { guess };
        let own = settled.correction;
        let known = waits && server.is_some() && kept.is_some();
        let earlier = if known { settled.earlier(guess) } else { Vec::new() };
        let clocks = &mut self.identity.clocks;
        for (run, millis) in earlier {
            if clocks.runs.len() < MAX_RUNS {
                clocks.runs.push((run, Correction { millis, until }));
                edit.gates = true;
            }
        }
        // without an offset to go by, that of the wall clock would count, which may have been set since
        let counts = own != 0 || kept.is_none() && of_wall != own;
        if waits && settled.stamps && counts && clocks.runs.len() < MAX_RUNS {
            clocks.runs.push((settled.run, Correction { millis: own, until }));
            edit.gates = true;
        }
        if waits && kept.is_none() && clocks.unguessed.is_none() {
            clocks.unguessed = Some(Correction { millis: of_wall, until });
            edit.gates |= server.is_some();
        }
        edit.flush |= edit.gates;
        if server.is_some() {
            clocks.offset = Some(of_wall);
            self.tell_of_clock(edit);
        }
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
        let (shown, round_trip) = (self.server_time(), round_trip(asked_at, self.now.mono));
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
        let unknown = self.clock.offset().is_none();
        let before = self.clock_offset_ms();
        self.clock.measure(server, asked_at, self.now.mono, 0);
        let moved = self.clock_offset_ms().saturating_sub(before).saturating_abs() > STEP;
        if unknown || moved {
            self.settle_clock(edit, server, asked_at);
        }
    }

    /// Keeps the offset of a wall clock that was set while the server's time was known.
    pub(super) fn keep_offset(&mut self, edit: &mut Edit<'_>) {
        if self.clock.take_step() && self.identity.clocks.offset.is_some() {
            self.identity.clocks.offset = Some(self.clock_offset_ms());
            self.put_identity(edit);
            self.tell_of_clock(edit);
        }
    }
}

/// The latest time that whoever writes this record now has seen on it.
pub(super) fn seen(
    edit: &Edit<'_>,
    outbox: &Outbox,
    collection: &Collection,
    id: &RecordId,
    row: &Row,
) -> Result<Timestamp, StoreError> {
    let last =
        last_write(edit, outbox, collection, id, row)?.map(|last| last.corrected(0).written_at);
    Ok(last.map_or(row.updated_at, |last| last.max(row.updated_at)))
}

/// The last of a record's pending writes. What its row says of it may be of before it was corrected.
fn last_write(
    edit: &Edit<'_>,
    outbox: &Outbox,
    collection: &Collection,
    id: &RecordId,
    row: &Row,
) -> Result<Option<Entry>, StoreError> {
    if row.pending.is_none() {
        return Ok(None);
    }
    match outbox.last_of(edit, collection, id)? {
        Some(write) => outbox.stamped(edit, write),
        None => Ok(None),
    }
}
