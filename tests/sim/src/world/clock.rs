//! Clocks: everyone has one of their own, and some are wrong.

use synclayer_core::{Mono, Now, Timestamp};

/// One machine's clocks, as they differ from the world's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// The lead of the monotonic clock, in milliseconds. It decreases while the machine sleeps.
    pub mono_ahead: i64,
    /// The lead of the wall clock, in milliseconds.
    pub wall_ahead: i64,
    /// Where the monotonic clock stands while the machine sleeps.
    pub stands_at: Option<Mono>,
    /// Where the wall clock has stopped.
    pub stopped_at: Option<Timestamp>,
}

impl Clock {
    /// The present readings of this machine's clocks.
    #[must_use]
    pub fn read(&self, world: Now) -> Now {
        let wall = Timestamp(world.wall.0.saturating_add(self.wall_ahead));
        let mono = Mono(world.mono.0.saturating_add_signed(self.mono_ahead));
        Now { mono: self.stands_at.unwrap_or(mono), wall: self.stopped_at.unwrap_or(wall) }
    }

    /// When, by the world's clock, this machine's monotonic clock shows a time.
    #[must_use]
    pub fn when(&self, local: Mono) -> Mono {
        Mono(local.0.saturating_add_signed(-self.mono_ahead))
    }

    /// Sets the wall clock so far ahead; a stopped one goes again.
    pub fn set(&mut self, wall_ahead: i64) {
        self.wall_ahead = wall_ahead;
        self.stopped_at = None;
    }

    /// Stops the wall clock.
    pub fn stop(&mut self, world: Now) {
        self.stopped_at = Some(self.read(world).wall);
    }
}
