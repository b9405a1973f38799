//! The times of writes: that each field has the one at which it was written, by a clock that is right
//! as far as it can be, and that of two who wrote a field the later one wins.

use std::collections::BTreeMap;
use std::time::Duration;

use synclayer_core::{Document, Timestamp, WriteKind};

use crate::guarantees::ledger::{Ledger, STRANGER, Write};
use crate::guarantees::{hot, is_permanent};
use crate::plan::Strategy;
use crate::world::{Committed, Device, Place, World};

/// Tolerated error of a time: a device takes the answer to a question as half as old as the
/// question, and a question may be under way for long.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(40);

/// A write of a device's app, as far as its time goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// The true time.
    pub at: Timestamp,
    /// The time that it was stamped with; `None` where its device did not know the server's time,
    /// so that it is corrected later.
    pub stamp: Option<Timestamp>,
    /// Which life of the device it was, and how often its wall clock had been set by then.
    pub clock: (u64, u64),
    /// True if the device slept in that life and its clocks could not show it.
    pub slept_unseen: bool,
    /// Number of sleeps of the device, if its clock had been set while it did not know the server's
    /// time. A sleep begins another run of the clock, which knows nothing of that.
    pub set_before_nap: Option<u64>,
    /// True if it was in contact with a server, which had to tell its time again after a leap.
    pub leapt: bool,
    /// True if it wrote the contested field.
    pub contested: bool,
}

impl Made {
    /// Returns `true` if its device can't tell its time any more.
    fn is_doubtful(&self, this: &Device) -> bool {
        // a sleep begins another run of the clock, which knows nothing of one that was set before
        let forgotten = self.set_before_nap.is_some_and(|naps| this.naps > naps);
        let other_clock = self.clock != clock_of(this) && this.clock_moves > 0;
        // nobody can know of a sleep in which both clocks stood still
        self.slept_unseen || forgotten || other_clock
    }
}

/// The times of the writes of a run, by their tokens.
#[derive(Clone, Debug, Default)]
pub struct Times(BTreeMap<u64, Made>);

impl Times {
    /// The app of a device has written a record, as `token`.
    pub(crate) fn made(&mut self, token: u64, world: &World, device: usize, place: &Place) {
        let this = &world.devices[device];
        let Ok(Some(record)) = this.replica.get(&place.0, &place.1) else { return };
        let knows = this.replica.status().knows_server_time;
        self.0.insert(
            token,
            Made {
                at: world.now.wall,
                stamp: knows.then_some(record.updated_at),
                clock: clock_of(this),
                slept_unseen: this.slept_unseen,
                set_before_nap: (!knows && this.clock_moves > 0).then_some(this.naps),
                leapt: !knows && this.replica.status().transport.is_some(),
                contested: hot(Some(&record.document)).1 == token,
            },
        );
    }

    /// A write is made again: it is later than what was seen since.
    pub(crate) fn made_again(&mut self, token: u64) {
        self.0.remove(&token);
    }

    fn get(&self, token: u64) -> Option<Made> {
        self.0.get(&token).copied()
    }
}

fn clock_of(device: &Device) -> (u64, u64) {
    (device.lives, device.clock_moves)
}

/// The points that a committed write comes by.
pub(crate) fn points_of(ledger: &Ledger, committed: &Committed) -> Vec<&'static str> {
    let mut points = Vec::new();
    if !committed.at.is_empty() {
        points.push("fields of other times");
    }
    let made = own_fields(committed).filter_map(|(token, _)| ledger.times.get(token));
    let unknown: Vec<_> = made.filter(|made| made.stamp.is_none()).collect();
    if unknown.iter().any(|made| !made.leapt) {
        points.push("write of before the first contact");
    }
    if unknown.iter().any(|made| made.leapt) {
        points.push("write after a leap in contact");
    }
    points
}

/// **Times:** a field that one writer alone has written keeps the time of its stamp, whatever its
/// write was joined with or merged into; and that is the true time, where a server has told the
/// device its own.
///
/// # Errors
/// Which field has another.
pub fn fields_keep_their_times(
    ledger: &Ledger,
    world: &World,
    committed: &Committed,
    device: usize,
) -> Result<(), String> {
    let restored = committed.kind == WriteKind::Insert && committed.before.is_some();
    if ledger.is_loose() || restored || !is_permanent(&committed.place.1) {
        return Ok(());
    }
    for (token, time) in own_fields(committed) {
        let Some(made) = ledger.times.get(token) else { continue };
        if ledger.writes()[token as usize - 1].device != device {
            continue;
        }
        // the server takes a time from the future as its own present
        let present = |time: Timestamp| time >= made.at || world.server_clock_moved;
        let cut = |stamp: Timestamp| time < stamp && present(time);
        if let Some(stamp) = made.stamp.filter(|stamp| *stamp != time && !cut(*stamp)) {
            return Err(format!("t{token} was stamped {stamp}, and came as written at {time}"));
        }
        let this = &world.devices[device];
        let off = u128::from((time.0 - made.at.0).unsigned_abs());
        let known = !(this.slept_unseen || this.heard_late || world.server_clock_moved);
        if known && off > TOLERANCE.as_millis() && !is_doubtful(ledger, this, token) {
            return Err(format!("t{token} was written at {}, and came as of {time}", made.at));
        }
    }
    Ok(())
}

/// Returns `true` if nobody can know the time of a write of a device, or of one before it in the same
/// record: a write is later than what its author saw, whatever the time is.
fn is_doubtful(ledger: &Ledger, this: &Device, token: u64) -> bool {
    let until = &ledger.writes()[..token as usize];
    let Some(write) = until.last() else { return false };
    let same = |other: &Write| (other.device, &other.place) == (write.device, &write.place);
    let tokens = (1..).zip(until).filter(|(_, other)| same(other)).map(|(token, _)| token);
    tokens.filter_map(|token| ledger.times.get(token)).any(|made| made.is_doubtful(this))
}

/// The fields in a committed write that only one writer writes, each with its token and its time.
fn own_fields(committed: &Committed) -> impl Iterator<Item = (u64, Timestamp)> + '_ {
    let before = committed.before.as_ref();
    let new = committed.after.iter().flat_map(Document::iter);
    let new = new.filter(move |(name, _)| before.is_none_or(|b| b.text(name).is_none()));
    new.filter_map(|(name, _)| {
        let token = name.strip_prefix('t')?.parse().ok()?;
        let at = committed.at.iter().find(|(field, _)| **field == *name);
        Some((token, at.map(|(_, at)| *at).or(committed.timestamp)?))
    })
}

/// **The later write wins**, at rest: of all who wrote the contested field of a record, the one with
/// the latest stamp is there at last, where the strategy is to let the last write win. A stamp of the
/// future counts as the server's present, which is not before the write was made.
///
/// # Errors
/// Names the write that should have won.
pub fn the_later_write_won(ledger: &Ledger, world: &World) -> Result<(), String> {
    let judged = ledger.strategy() == Strategy::Lww && !ledger.is_partial();
    if ledger.is_loose() || !judged || world.server_clock_moved {
        return Ok(());
    }
    let mut latest = BTreeMap::<&Place, Option<(Timestamp, u64)>>::new();
    for (index, write) in ledger.writes().iter().enumerate() {
        let token = index as u64 + 1;
        if write.device == STRANGER {
            latest.insert(&write.place, None);
        }
        let gone = write.lost || write.rejected || write.wiped;
        if gone || !is_permanent(&write.place.1) {
            continue;
        }
        let made = ledger.times.get(token);
        if write.device != STRANGER && made.is_some_and(|made| !made.contested) {
            continue;
        }
        // of a place where somebody's time is not known nothing can be said
        let at_least = |made: Made| Some(made.stamp?.min(made.at));
        let stamp = made.and_then(at_least).filter(|_| !write.retried);
        let known = latest.entry(&write.place).or_insert(Some((Timestamp(i64::MIN), 0)));
        *known = match (*known, stamp) {
            (Some(before), Some(stamp)) => Some(before.max((stamp, token))),
            (_, None) | (None, _) => None,
        };
    }
    for (place, latest) in latest {
        let Some((stamp, token)) = latest else { continue };
        let won = hot(world.histories().present().now(place)).1;
        let of_winner = ledger.times.get(won).and_then(|made| made.stamp);
        if of_winner.is_some_and(|of_winner| of_winner < stamp) {
            return Err(format!("{won} stands in {place:?}, although {token} was written later"));
        }
    }
    Ok(())
}
