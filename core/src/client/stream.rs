//! One collection's stream: its subscription, and whether the app sees what the server has.

mod cursor;
mod proof;
mod scopes;
mod usage;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::hash::{Hash, Hasher};

use super::plain::PlainStream;
use super::received::Received;
use super::scoping::Scoping;
use super::unused::Unused;
use crate::protocol::message::{Cursor, ErrorCode, Mode, Resume};
use crate::protocol::name::RecordId;
use crate::protocol::time::Mono;
use crate::rules::row::StreamRow;

/// After this many connections in a row that broke before anything came, a page or a write is suspected to
/// be larger than what they carry: by then the smallest pages were asked for.
pub(super) const SUSPECT_BREAKS: u32 = 3;

/// The error by which the server refused a collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StreamError {
    pub(super) code: ErrorCode,
    /// For people.
    pub(super) message: String,
}

impl Hash for StreamError {
    /// Leaves the message out: nothing is decided by it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.code.hash(state);
    }
}

impl StreamError {
    pub(super) fn new(code: &ErrorCode, message: &str) -> Box<Self> {
        Box::new(Self { code: code.clone(), message: message.to_owned() })
    }
}

/// Where a subscription stands on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Phase {
    /// Not asked for yet.
    #[default]
    Idle,
    /// Asked for; what still comes of an earlier subscription is not listened to.
    Subscribing,
    /// Changes come that bring it up to the head.
    CatchingUp,
    /// Every change comes as it is made.
    Live,
    /// The server has refused it.
    Refused,
    /// The app has ended it, and the server has not confirmed that.
    Leaving,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Stream {
    /// The stored part of it.
    pub(super) row: StreamRow,
    /// The part of it that only a plain server needs.
    pub(super) plain: PlainStream,
    /// `true` if the collection is kept in sync.
    wanted: bool,
    /// `true` if the app has subscribed it and not released it; waiting writes use it too.
    subscribed: bool,
    /// `true` if the app has subscribed it since the start and not left it.
    was_subscribed: bool,
    unused: Unused,
    /// The scopes that the app uses of it.
    scoping: Scoping,
    phase: Phase,
    /// `true` if the server withholds some records; `None` until it has said so since the start.
    withholds: Option<bool>,
    /// `true` if the answer to the hello may take the cursor back, so that it is not offered before.
    in_doubt: bool,
    /// `true` if the cursor is known to be of the server's present history.
    trusted: bool,
    /// `true` if it was in step with the server since contact was made, and nothing says that it is
    /// so no longer.
    confirmed: bool,
    /// `true` until the records that the store held at the start have been compared.
    unverified: bool,
    /// The number of times in a row that its contents differed from the server's.
    mismatches: u32,
    /// `true` if something has come of it since it was last proved to be in step.
    moved: bool,
    /// `true` if it was live and is asked for again only for a fresh proof, unless the answer is that there
    /// is news.
    refreshing: bool,
    /// The last HTTP exchange in which it was pulled or refused.
    pulled: u64,
    /// The time since which the server's answer to a `subscribe` is awaited, or its changes come, on
    /// this connection, unless it was live before.
    awaited_since: Option<Mono>,
    /// The time at which it is asked for again after a failure.
    retry_at: Option<Mono>,
    /// The error by which the server refused the collection, until it serves it or is asked on
    /// another connection.
    error: Option<Box<StreamError>>,
    /// The last of the held records that was offered to the server, or has gone, while they do.
    passed: Option<RecordId>,
    /// `true` if something of a catch-up has come on this connection.
    arrived: bool,
    /// The number of connections and pulls in a row that broke before anything of the next page came.
    breaks: u32,
    /// `true` if the app was told that it stalls.
    told_stalled: bool,
    /// The standing at the end of the last step.
    shown: (bool, bool),
    pub(super) received: Received,
}

impl Stream {
    /// Returns the stream of a collection as it was found in the store.
    pub(super) fn found(row: StreamRow) -> Self {
        let mut stream = Self { unverified: row.figures.count > 0, row, ..Self::default() };
        stream.set_is_right();
        stream.scoping.changed = stream.uses_scopes();
        stream
    }

    // --- state ---

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns `true` if the collection is kept in sync.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Returns `true` if the whole collection is kept in sync.
    pub(super) fn is_wanted_whole(&self) -> bool {
        self.wanted && !self.is_scoped()
    }

    /// Returns `true` if the app has subscribed the collection and not released it.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscribed
    }

    /// Returns `true` if it was in step with the server since contact was made.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Returns `true` if the cursor is known to be of the server's present history.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Returns `true` if the server was asked to go on from a cursor, and has not said whether that
    /// still counts.
    pub(super) fn awaits_judgement(&self) -> bool {
        !self.trusted && matches!(self.phase, Phase::Subscribing | Phase::CatchingUp)
    }

    pub(super) fn error(&self) -> Option<&StreamError> {
        self.error.as_deref()
    }

    /// Returns the time at which the collection is asked for again after a failure.
    pub(super) fn retry_at(&self) -> Option<Mono> {
        self.retry_at
    }

    /// Returns the time since which the server's answer or changes are awaited.
    pub(super) fn awaited_since(&self) -> Option<Mono> {
        self.awaited_since
    }

    /// Returns `true` if every change comes as it is made. A collection that is asked for again for a
    /// fresh proof goes on as it was until the answer comes.
    pub(super) fn follows(&self) -> bool {
        match self.phase {
            Phase::Live => true,
            // of a set nothing counts until the newest `subscribe` is answered
            Phase::Idle | Phase::Subscribing => self.refreshing && !self.is_scoped(),
            Phase::CatchingUp | Phase::Refused | Phase::Leaving => false,
        }
    }

    /// Returns `true` if the app sees changes as they are made.
    pub(super) fn is_live(&self) -> bool {
        (self.phase == Phase::Live || self.refreshing) && !self.is_short() && !self.lacks_scopes()
    }

    /// Returns `true` if the app sees a catch-up under way.
    pub(super) fn is_catching_up(&self) -> bool {
        let lacks = self.confirmed && self.lacks_scopes();
        self.phase == Phase::CatchingUp && !self.refreshing || self.is_short() || lacks
    }

    /// The status that the app sees: whether the collection is confirmed, and whether it catches up.
    fn standing(&self) -> (bool, bool) {
        (self.is_confirmed(), self.is_catching_up())
    }

    /// Returns `true` if the app sees another status than at the end of the last step.
    pub(super) fn is_unshown(&self) -> bool {
        self.shown != self.standing()
    }

    /// The app is shown the status.
    pub(super) fn show(&mut self) {
        self.shown = self.standing();
    }

    /// Returns `true` if records are held that the server lacks and about which nothing is decided.
    pub(super) fn is_short(&self) -> bool {
        self.row.loss.is_some_and(|loss| loss.missing.is_some())
    }

    /// Returns `true` if the server is known to withhold some records.
    pub(super) fn is_partial(&self) -> bool {
        self.withholds == Some(true)
    }

    /// Returns `true` if the server is known to withhold none, and all are asked for.
    pub(super) fn is_complete(&self) -> bool {
        self.withholds == Some(false) && !self.is_scoped()
    }

    // --- subscriptions ---

    /// Returns `true` if the collection is to be subscribed now. A plain server needs no cursor.
    pub(super) fn is_subscribe_due(&self, plain: bool) -> bool {
        // nothing is asked for by a set without a scope: it would mean the whole collection
        let is_empty = self.is_scoped() && self.scopes().next().is_none();
        let idle = self.phase == Phase::Idle && self.retry_at.is_none() && !is_empty;
        self.wanted && idle && (plain || !self.in_doubt)
    }

    /// Returns `true` if its subscription may be due to begin or to end, at a server of either level.
    pub(super) fn may_be_due(&self) -> bool {
        self.is_subscribe_due(true) || self.is_unsubscribe_due()
    }

    /// A `subscribe` goes out. A plain server need not confirm it.
    pub(super) fn subscribe_sent(&mut self, plain: bool, now: Mono) {
        self.phase = if plain { Phase::Live } else { Phase::Subscribing };
        if !self.refreshing {
            self.awaited_since.get_or_insert(now);
        }
    }

    /// Returns `true` if the subscription is to be ended now.
    pub(super) fn is_unsubscribe_due(&self) -> bool {
        let is_asked = match self.phase {
            Phase::Live | Phase::CatchingUp => true,
            Phase::Idle | Phase::Subscribing => self.refreshing,
            Phase::Refused | Phase::Leaving => false,
        };
        !self.wanted && is_asked
    }

    /// An `unsubscribe` goes out. A plain server need not confirm it. Returns `true` if the
    /// collection was live.
    pub(super) fn unsubscribe_sent(&mut self, plain: bool) -> bool {
        let was_live = self.phase == Phase::Live;
        self.phase = if plain { Phase::Idle } else { Phase::Leaving };
        self.confirmed = false;
        self.refreshing = false;
        self.awaited_since = None;
        was_live
    }

    /// The server has ended the subscription.
    pub(super) fn unsubscribed(&mut self) {
        self.phase = Phase::Idle;
        self.confirmed = false;
        self.awaited_since = None;
        self.retry_at = None;
    }

    /// The server begins to send what the collection lacks. With `goes_on` this continues the
    /// catch-up under way.
    pub(super) fn begin_catch_up(&mut self, mode: Mode, partial: bool, goes_on: bool) {
        // what was asked for is no setback: a poll, a fresh proof, a change of the transport
        let asked = goes_on || matches!(self.phase, Phase::Idle | Phase::Subscribing);
        self.confirmed &= asked && mode == Mode::Delta;
        self.phase = Phase::CatchingUp;
        self.withholds = Some(partial);
        self.refreshing &= mode == Mode::Delta;
        self.retry_at = None;
        self.error = None;
        match mode {
            Mode::Delta => self.trusted = true,
            // a reload shows each scope from the beginning
            Mode::Snapshot if self.is_scoped() => {
                self.begin_generation();
                self.trusted = true;
            }
            // whether an interrupted snapshot goes on or begins anew shows on its first page
            Mode::Snapshot if matches!(self.row.resume, Some(Resume::Snapshot { .. })) => {}
            Mode::Snapshot => self.begin_snapshot(),
        }
    }

    /// The server has answered the subscription, though not by serving it.
    pub(super) fn answered(&mut self) {
        self.awaited_since = None;
    }

    /// The server has not looked at a `subscribe` because it came too fast: a live collection is
    /// still live. It is asked for again at a time.
    pub(super) fn postpone(&mut self, retry_at: Option<Mono>) {
        self.phase = Phase::Idle;
        self.retry_at = retry_at;
        self.error = None;
    }

    /// The server does not serve the collection. With `retry_at` it is asked for again then.
    pub(super) fn refuse(&mut self, error: Box<StreamError>, retry_at: Option<Mono>) {
        self.confirmed = false;
        self.refreshing = false;
        self.phase = Phase::Refused;
        self.retry_at = retry_at;
        self.error = Some(error);
    }

    /// Asks for the collection again at a time, or when something else leads to it.
    pub(super) fn ask_again_at(&mut self, at: Option<Mono>) {
        self.retry_at = at;
    }

    /// Asks again for a collection that the server has refused, where it may think otherwise by now.
    /// With `at_once` also for one that is asked for later.
    pub(super) fn ask_again(&mut self, plain: bool, at_once: bool) {
        let is_refused = self.phase == Phase::Refused || plain && self.error.is_some();
        if is_refused && (at_once || self.retry_at.is_none()) {
            self.phase = Phase::Idle;
            self.retry_at = None;
        }
    }

    /// Asks again for a collection whose time for that has come.
    pub(super) fn ask_again_if_due(&mut self, now: Mono) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            // an `unsubscribe` that came too fast is sent again
            self.phase = match self.phase {
                Phase::Leaving if !self.wanted => Phase::CatchingUp,
                Phase::Idle
                | Phase::Subscribing
                | Phase::CatchingUp
                | Phase::Live
                | Phase::Refused
                | Phase::Leaving => Phase::Idle,
            };
        }
    }

    /// Asks a live collection for a fresh proof that it is in step: with `all` also one of which
    /// nothing has come since the last one.
    pub(super) fn refresh(&mut self, all: bool) {
        if self.wanted && self.phase == Phase::Live && (all || self.moved) {
            self.phase = Phase::Idle;
            self.refreshing = true;
        }
    }

    // --- by HTTP ---

    /// An exchange begins.
    pub(super) fn begin_exchange(&mut self, now: Mono) {
        self.phase = Phase::Idle;
        self.retry_at = self.retry_at.filter(|at| *at > now);
    }

    /// Returns `true` if the collection is to be pulled in an exchange.
    pub(super) fn is_pull_due(&self, exchange: u64) -> bool {
        self.wanted && self.pulled != exchange && self.retry_at.is_none()
    }

    /// A page is asked for.
    pub(super) fn page_asked(&mut self) {
        if self.phase != Phase::CatchingUp {
            self.phase = Phase::Subscribing;
        }
    }

    /// The collection was pulled, or refused, in an exchange.
    pub(super) fn pulled_in(&mut self, exchange: u64) {
        self.pulled = exchange;
        if self.phase == Phase::Live {
            self.phase = Phase::Idle;
        }
    }

    /// A hello was answered in an exchange: a collection whose cursor it did not confirm is pulled
    /// again.
    pub(super) fn pull_unless_trusted(&mut self) {
        if self.phase != Phase::Refused && (!self.trusted || self.row.cursor.is_none()) {
            self.pulled = 0;
        }
    }

    // --- at a plain server ---

    /// The server turned out to be a plain one, which knows no seqs. What is held is found by
    /// reconciling, and counted again at a server of level 2.
    pub(super) fn become_plain(&mut self) {
        self.forget_seqs();
        self.trusted = true;
        self.row.loss = None;
        self.row.recount = None;
        self.unverified = true;
    }

    /// The connection, on which the collection was asked for, is one of a plain server. Returns
    /// `true` if it was.
    pub(super) fn go_live(&mut self) -> bool {
        let asked = self.phase == Phase::Subscribing;
        if asked {
            self.phase = Phase::Live;
        }
        asked
    }

    /// The whole collection was read. Returns `true` if it was confirmed before.
    pub(super) fn read_whole(&mut self) -> bool {
        self.error = None;
        core::mem::replace(&mut self.confirmed, true)
    }

    /// The server has answered a call about the collection with an error.
    pub(super) fn note_error(&mut self, error: Box<StreamError>) {
        self.error = Some(error);
    }

    // --- proofs ---

    /// Returns `true` if the collection was confirmed, and no longer is.
    pub(super) fn lose_confirmation(&mut self) -> bool {
        core::mem::take(&mut self.confirmed)
    }

    /// The collection holds what the server has.
    pub(super) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// A catch-up is complete, and verified.
    pub(super) fn caught_up(&mut self, cursor: Cursor) {
        self.arrive_at(cursor);
        self.row.behind = false;
        self.phase = Phase::Live;
        self.awaited_since = None;
        self.mismatches = 0;
        self.arrive();
        self.moved = false;
    }

    // --- connections that break ---

    /// Something of a catch-up has come, and stays.
    pub(super) fn arrive(&mut self) {
        (self.arrived, self.breaks, self.told_stalled) = (true, 0, false);
        self.refreshing = false;
    }

    /// The connection, or the pull, has broken. Returns the number of times in a row that nothing came
    /// of what was waited for.
    pub(super) fn count_break(&mut self) -> u32 {
        if self.is_asked_for() && !self.arrived {
            self.breaks += 1;
        }
        self.breaks
    }

    /// Returns `true` if parts of a catch-up are under way, or its beginning is.
    pub(super) fn is_asked_for(&self) -> bool {
        matches!(self.phase, Phase::Subscribing | Phase::CatchingUp)
    }

    /// Returns `true` if its next page may be what breaks the connections.
    pub(super) fn is_suspected(&self) -> bool {
        self.breaks >= SUSPECT_BREAKS
    }

    /// The app is told that the catch-up stalls. Returns `true` if it was not told before.
    pub(super) fn tell_stalled(&mut self) -> bool {
        !core::mem::replace(&mut self.told_stalled, true)
    }

    /// Returns the number of connections and pulls in a row that broke before anything of the next page
    /// came.
    pub(super) fn breaks(&self) -> u32 {
        self.breaks
    }

    // --- held records that go or are offered ---

    /// Takes the last of the held records that was offered, or has gone.
    pub(super) fn take_passed(&mut self) -> Option<RecordId> {
        self.passed.take()
    }

    /// Notes the last of the held records that was offered, or has gone.
    pub(super) fn pass(&mut self, last: Option<RecordId>) {
        self.passed = last;
    }

    /// The connection is gone.
    pub(super) fn detach(&mut self) {
        self.phase = Phase::Idle;
        self.arrived = false;
        self.in_doubt = false;
        self.trusted = false;
        self.refreshing = false;
        self.retry_at = None;
        self.awaited_since = None;
        self.error = None;
        self.detach_scopes();
    }
}
