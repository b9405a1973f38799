//! Waking up: what looks alive may have died unnoticed while the device slept or was elsewhere, so
//! a sign of life is asked for at once, and not waited for long.

use core::time::Duration;

use super::edit::Edit;
use super::machine::Client;
use crate::protocol::time::Now;

/// The wall clock has to run so much ahead of the monotonic one, from one input to the next, for the
/// device to have slept: in a suspended device only the wall clock goes on. *Corrections by NTP are
/// below a second once a clock is set, and a connection survives a shorter sleep. A clock that is set
/// forward by hand costs a ping.*
const SLEEP: Duration = Duration::from_secs(10);

impl Client {
    /// Returns `true` if the device has slept since the last input.
    pub(super) fn has_slept(&self, now: Now) -> bool {
        let wall = now.wall.0.saturating_sub(self.now.wall.0);
        let mono = now.mono.since(self.now.mono);
        let mono = i64::try_from(mono.as_millis()).unwrap_or(i64::MAX);
        let ahead = u64::try_from(wall.saturating_sub(mono)).unwrap_or(0);
        Duration::from_millis(ahead) > SLEEP
    }

    /// Asks a connection that looks alive for a sign of life.
    pub(super) fn probe_connection(&mut self, edit: &mut Edit<'_>) {
        if self.link.ready_since().is_none() {
            return;
        }
        self.ask_time(edit);
        if !self.link.awaits_life() {
            self.ping(edit);
        }
        self.hurry();
    }

    /// The device has slept: whatever is under way may be dead.
    pub(super) fn wake_up(&mut self, edit: &mut Edit<'_>) {
        self.probe_connection(edit);
        if self.link.is_connecting() {
            self.hurry();
        }
        self.hasten();
        let until = self.now.mono + self.config.probe_timeout;
        if let Some(exchange) = &mut self.exchange {
            exchange.hurry(until);
        }
        self.hurry_work(until);
    }

    /// Tries again soon what failed before the device slept, unless the server wants to be left alone.
    fn hasten(&mut self) {
        let soon = self.now.mono + self.random.below(self.config.reconnect_delay);
        let soon = self.resting().map_or(soon, |rest| rest.max(soon));
        self.link.hasten(soon);
        if self.link.ready_since().is_none() {
            self.fallback.hasten(soon);
        }
    }

    fn hurry(&mut self) {
        self.link.expect_life_by(self.now.mono + self.config.probe_timeout);
    }
}
