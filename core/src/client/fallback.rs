//! The wishes of the app for the transports, and how HTTP has fared lately.

use core::time::Duration;

use crate::protocol::name::Collection;
use crate::protocol::time::Mono;

/// The longest that a server's `Retry-After` is believed.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Every how many backups one covers also the collections that nothing has come of.
const BACKUPS_OF_QUIET: u32 = 12;

/// Every how many failures it is looked into again what a refused hello means.
const FAILURES_UNTIL_SEARCH: u32 = 8;
/// The number of searches in a row, each behind a hello, after which an empty list shows a plain server.
const EMPTY_LISTS: u32 = 3;

/// The wishes of the app for the transports, and the use of HTTP: when it is next, and how it went.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Fallback {
    /// `true` if the app wants to be connected at all.
    wanted: bool,
    /// `true` if the app says that there is no network.
    offline: bool,
    /// `true` if the server offers less than the app requires.
    short: bool,
    /// `true` if the WebSocket has failed or takes long, so that HTTP is turned to.
    turned: bool,
    /// `true` if an exchange is due now.
    due: bool,
    /// `true` if one was asked for while another is under way, which may already have read the
    /// collections that the app wants to see.
    again: bool,
    /// The time of the next exchange, or, over a WebSocket, of the next backup.
    poll_at: Option<Mono>,
    /// The number of exchanges in a row that have failed.
    failures: u32,
    /// The number of exchanges in a row that went through, but for a collection that could not be
    /// pulled.
    troubles: u32,
    /// The time until which the server wants to be left alone, whichever the transport.
    rest_until: Option<Mono>,
    /// `true` if the last exchange reached the server.
    reached: bool,
    /// `true` if the next exchange has to begin with a hello.
    in_doubt: bool,
    /// The most writes of a push, where the server or something before it has refused more.
    push_limit: Option<usize>,
    /// The collection whose pull was the last to fail without an answer.
    stuck: Option<Collection>,
    /// The status of a refused hello that was looked into: what is there did not show itself as a plain
    /// server.
    searched: Option<u16>,
    /// The searches in a row that have found an empty list and nothing better.
    empty_lists: u32,
    /// The number of backups since one that covered every collection.
    backups: u32,
}

/// The wishes of the app.
impl Fallback {
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    pub(super) fn set_online(&mut self, online: bool) {
        self.offline = !online;
    }

    /// Returns `true` if the app wants to be connected, and says nothing against a network.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted && !self.offline
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.is_wanted() && !self.short
    }

    /// The server offers less than the app requires.
    pub(super) fn fall_short(&mut self) {
        self.short = true;
    }
}

/// The turns to HTTP and back.
impl Fallback {
    /// Nothing counts as failed any more.
    pub(super) fn begin_anew(&mut self) {
        (self.failures, self.troubles, self.rest_until) = (0, 0, None);
        self.short = false;
    }

    pub(super) fn turn(&mut self) {
        self.turned = true;
    }

    pub(super) fn has_turned(&self) -> bool {
        self.turned
    }

    /// The WebSocket is used from now on.
    pub(super) fn turn_back(&mut self) {
        let Self { wanted, offline, push_limit, .. } = *self;
        *self = Self { wanted, offline, push_limit, ..Self::default() };
    }

    /// Everything that is under way is given up.
    pub(super) fn give_up(&mut self) {
        (self.poll_at, self.due, self.turned) = (None, false, false);
    }

    pub(super) fn reaches(&self) -> bool {
        self.reached
    }

    /// The server has answered. Returns `true` if it was in reach already.
    pub(super) fn reach(&mut self) -> bool {
        core::mem::replace(&mut self.reached, true)
    }

    /// The server is out of reach. Returns `true` if it was in reach.
    pub(super) fn lose_reach(&mut self) -> bool {
        core::mem::take(&mut self.reached)
    }
}

/// The time of the next exchange.
impl Fallback {
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    /// An exchange is due now, or as soon as the server need not be left alone any more.
    pub(super) fn set_due(&mut self, now: Mono) {
        match self.resting(now) {
            Some(until) => self.poll_by(until),
            None => self.due = true,
        }
    }

    /// The app asks for an exchange, or no longer, perhaps while another is under way.
    pub(super) fn ask(&mut self, asked: bool, busy: bool) {
        self.due = asked && !busy;
        self.again = asked && busy;
    }

    /// No exchange is due any more.
    pub(super) fn clear_due(&mut self) {
        self.due = false;
    }

    /// An exchange begins.
    pub(super) fn begin(&mut self) {
        (self.due, self.again, self.poll_at) = (false, false, None);
    }

    /// An exchange has ended. One that was asked for meanwhile is due.
    pub(super) fn end(&mut self, now: Mono) {
        if core::mem::take(&mut self.again) {
            self.set_due(now);
        }
    }

    pub(super) fn poll_at(&self) -> Option<Mono> {
        self.poll_at
    }

    pub(super) fn set_poll(&mut self, at: Option<Mono>) {
        self.poll_at = at.map(|at| self.rested(at));
    }

    /// The next exchange comes by this time.
    pub(super) fn poll_by(&mut self, at: Mono) {
        let at = self.rested(at);
        self.poll_at = Some(self.poll_at.map_or(at, |due| due.min(at)));
    }

    /// Brings the next exchange forward to this time, if one is planned.
    pub(super) fn hasten(&mut self, soon: Mono) {
        let soon = self.rested(soon);
        self.poll_at = self.poll_at.map(|at| at.min(soon));
    }

    /// Puts the next exchange off to this time, also one that is due.
    pub(super) fn postpone(&mut self, until: Mono) {
        if core::mem::take(&mut self.due) {
            self.poll_at = Some(until);
        }
        self.poll_at = self.poll_at.map(|at| at.max(until));
    }

    /// The server wants to be left alone for so long. Returns the time to wait, with that asked for
    /// before.
    pub(super) fn rest(&mut self, now: Mono, wait: Duration) -> Duration {
        let until = now + wait.min(LONGEST_WAIT);
        let until = self.resting(now).map_or(until, |rest| rest.max(until));
        self.rest_until = Some(until).filter(|until| *until > now);
        until.since(now)
    }

    /// Returns this time, or that until which the server wants to be left alone, if that is later.
    pub(super) fn rested(&self, at: Mono) -> Mono {
        self.rest_until.map_or(at, |until| until.max(at))
    }

    /// Returns the time until which the server wants to be left alone, if it is not over.
    pub(super) fn resting(&self, now: Mono) -> Option<Mono> {
        self.rest_until.filter(|until| *until > now)
    }

    /// Counts a backup. Returns `true` if it covers every collection.
    pub(super) fn count_backup(&mut self, all: bool) -> bool {
        self.backups += 1;
        let all = all || self.backups >= BACKUPS_OF_QUIET;
        if all {
            self.backups = 0;
        }
        all
    }
}

/// The outcome of exchanges.
impl Fallback {
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn count_failure(&mut self) {
        self.failures += 1;
    }

    pub(super) fn forget_failures(&mut self) {
        self.failures = 0;
    }

    pub(super) fn troubles(&self) -> u32 {
        self.troubles
    }

    /// An exchange went through, but perhaps for a collection that could not be pulled.
    pub(super) fn went_through(&mut self, troubled: bool) {
        self.troubles = if troubled { self.troubles + 1 } else { 0 };
        self.in_doubt |= troubled;
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The next exchange has to begin with a hello.
    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// A hello was answered.
    pub(super) fn trust(&mut self) {
        (self.in_doubt, self.empty_lists) = (false, 0);
    }

    /// Returns `true` if an empty list shows a plain server by now.
    pub(super) fn believes_empty_list(&self) -> bool {
        self.empty_lists + 1 >= EMPTY_LISTS
    }

    /// A search has found an empty list and nothing better: the next one is due now.
    pub(super) fn count_empty_list(&mut self, now: Mono) {
        self.empty_lists += 1;
        self.set_due(now);
    }

    /// A hello was refused with this status, and nothing has shown a plain server.
    pub(super) fn search_in_vain(&mut self, status: u16) {
        self.searched = Some(status);
        self.empty_lists = 0;
    }

    /// Returns `true` if it was searched in vain for what answers so, and it is not yet time to search
    /// again.
    pub(super) fn searched_in_vain(&self, status: u16) -> bool {
        self.searched == Some(status) && !self.failures.is_multiple_of(FAILURES_UNTIL_SEARCH)
    }

    pub(super) fn push_limit(&self) -> Option<usize> {
        self.push_limit
    }

    /// No push may hold more writes.
    pub(super) fn limit_pushes(&mut self, writes: usize) {
        self.push_limit = Some(writes);
    }

    /// The collection whose pull was the last to fail without an answer.
    pub(super) fn stuck(&self) -> Option<&Collection> {
        self.stuck.as_ref()
    }

    /// The pull of a collection has failed without an answer. Returns the last one before it.
    pub(super) fn stick(&mut self, collection: &Collection) -> Option<Collection> {
        self.stuck.replace(collection.clone())
    }

    /// A collection was pulled.
    pub(super) fn unstick(&mut self, collection: &Collection) {
        self.stuck.take_if(|stuck| stuck == collection);
    }
}
