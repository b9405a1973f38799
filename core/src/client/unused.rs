//! The time for which nothing uses what is kept in sync.

use core::time::Duration;

use crate::protocol::time::Mono;

/// The time for which nothing used a collection, or a scope of one, while that was in step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Unused {
    /// The beginning of the present such time.
    since: Option<Mono>,
    /// The length of the earlier ones.
    before: Duration,
}

impl Unused {
    /// Counts the time for which something is unused and in step. Returns `true` if that was long enough.
    pub(super) fn count(&mut self, in_step: bool, now: Mono, keep_for: Duration) -> bool {
        match (in_step, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.before += now.since(since);
                self.since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
        self.since.is_some_and(|since| self.before + now.since(since) >= keep_for)
    }

    /// The time at which that was long enough.
    pub(super) fn until(&self, keep_for: Duration) -> Option<Mono> {
        Some(self.since? + keep_for.saturating_sub(self.before))
    }
}
