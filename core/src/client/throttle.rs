//! The pauses of calls by HTTP that a server asks for, or something before it.

use core::time::Duration;

use crate::protocol::time::Mono;

/// The number of answers in a row that may ask to slow down before that is a failure.
const MOST_LIMITED: u32 = 3;
/// The time to wait where such an answer names none; the next in a row doubles it.
const LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// The pauses between the calls of an exchange, or of the work at a plain server.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Throttle {
    /// The number of answers in a row that asked to slow down.
    limited: u32,
    /// The time until which nothing is asked.
    until: Option<Mono>,
}

impl Throttle {
    /// Returns the time until which nothing is asked, if that is so.
    pub(super) fn paused_until(&self) -> Option<Mono> {
        self.until
    }

    /// An answer has come that did not ask to slow down.
    pub(super) fn serve(&mut self) {
        self.limited = 0;
    }

    /// An answer asks to slow down, and perhaps says for how long. Returns the time to wait; `None` if
    /// it is asked too often, or for longer than `longest`.
    pub(super) fn limit(&mut self, wait: Option<Duration>, longest: Duration) -> Option<Duration> {
        let wait = wait.unwrap_or(LIMIT_PAUSE * (1 << self.limited.min(MOST_LIMITED)));
        self.limited += 1;
        let helps = self.limited <= MOST_LIMITED && wait <= longest;
        helps.then_some(wait)
    }

    /// Nothing is asked until a time.
    pub(super) fn pause(&mut self, until: Mono) {
        self.until = Some(until);
    }

    /// Goes on at once. Returns `true` if it was paused.
    pub(super) fn resume(&mut self) -> bool {
        self.until.take().is_some()
    }
}
