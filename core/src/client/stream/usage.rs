//! The app's use of a collection.

use core::time::Duration;

use super::super::unused::Unused;
use super::{Phase, Stream};
use crate::protocol::time::Mono;

impl Stream {
    /// The app uses the collection: of one that is held by scopes, what they cover. With `trusted` there is
    /// no cursor of it that a server which has answered could call invalid.
    pub(in super::super) fn want(&mut self, trusted: bool) {
        self.wanted |= !self.is_scoped();
        self.trusted |= trusted;
    }

    /// The app subscribes the collection.
    pub(in super::super) fn subscribe(&mut self) {
        (self.wanted, self.subscribed, self.was_subscribed) = (true, true, true);
        self.scoping.changed |= self.is_scoped();
    }

    /// Nothing of the app's uses the collection any more.
    pub(in super::super) fn release(&mut self) {
        self.subscribed = false;
        self.scoping.changed |= self.uses_scopes();
    }

    /// The collection is no longer kept in sync. Returns `true` if it is live until the server is
    /// told: the app may use it again before that.
    pub(in super::super) fn leave(&mut self, is_up: bool) -> bool {
        (self.wanted, self.subscribed, self.was_subscribed) = (false, false, false);
        self.scoping.changed |= self.uses_scopes();
        self.unused = Unused::default();
        let is_live = is_up && self.phase == Phase::Live;
        self.confirmed &= is_live;
        // used again, it is asked for again: what the app may do can have changed
        if self.phase == Phase::Refused && self.retry_at.is_none() {
            self.phase = Phase::Idle;
            self.error = None;
        }
        is_live
    }

    /// Returns `true` if the collection is kept in sync although the app has not subscribed it, or
    /// the time is counted in which it was.
    pub(in super::super) fn lingers(&self) -> bool {
        self.wanted && !self.subscribed || self.unused != Unused::default()
    }

    /// Returns the time at which the collection has been unused for long enough.
    pub(in super::super) fn unused_until(&self, keep_for: Duration) -> Option<Mono> {
        self.unused.until(keep_for)
    }

    /// Counts the time in which the collection is unused and in step. Returns `true` if that was long
    /// enough.
    pub(in super::super) fn count_unused(&mut self, now: Mono, keep_for: Duration) -> bool {
        self.unused.count(self.confirmed, now, keep_for)
    }

    /// The collection is in use, so that it counts as unused from the next time on.
    pub(in super::super) fn count_used(&mut self) {
        self.unused = Unused::default();
    }
}
