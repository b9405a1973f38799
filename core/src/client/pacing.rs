//! The pace of sending: when writes go out after a failure, how long they wait for a catch-up, until
//! when a verdict has to come, and how often the write at the head was turned down.

use alloc::boxed::Box;
use core::time::Duration;

use super::event::StalledWrite;
use super::interface::ClientConfig;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::WriteId;
use crate::protocol::random::Random;
use crate::protocol::time::Mono;
use crate::rules::row::Attempts;

/// After this many conflicts in a row a write is called stalled.
pub(super) const STALLED_CONFLICTS: u32 = 20;
/// After this many failures of the server in a row a write is called stalled.
pub(super) const STALLED_FAILURES: u32 = 5;

/// After this many connections in a row that broke before its verdict a write is called stalled.
const STALLED_BREAKS: u32 = 5;
/// A write of fewer bytes is not what breaks a connection: a handshake has more.
const SMALL_WRITE: usize = 4 << 10;
/// The most by which times are stretched for a write that does not come through.
const MOST_PATIENCE: u32 = 5;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pacing {
    /// The time of the last verdict, or of the first write that was sent without one.
    verdict_since: Mono,
    /// No write is sent before this time.
    held_until: Option<Mono>,
    /// The end of the wait for a collection that catches up.
    catch_up_until: Option<Mono>,
    retries: RetryState,
}

impl Pacing {
    pub(super) fn new(now: Mono) -> Self {
        let retries = RetryState::default();
        Self { verdict_since: now, held_until: None, catch_up_until: None, retries }
    }

    /// Waits for the next verdict from now on.
    pub(super) fn await_verdict(&mut self, now: Mono) {
        self.verdict_since = now;
    }

    /// Returns the time since which a verdict is awaited.
    pub(super) fn verdict_since(&self) -> Mono {
        self.verdict_since
    }

    // --- backoff ---

    /// Returns `true` if writes wait for a time that was set after a failure, even if it has come.
    pub(super) fn is_held(&self) -> bool {
        self.held_until.is_some()
    }

    /// Returns `true` if writes wait for a time that has not come.
    pub(super) fn holds(&self, now: Mono) -> bool {
        self.held_until.is_some_and(|until| until > now)
    }

    /// Returns the time before which no write is sent.
    pub(super) fn held_until(&self) -> Option<Mono> {
        self.held_until
    }

    /// Sends no write before a time.
    pub(super) fn hold(&mut self, until: Mono) {
        self.held_until = Some(until);
    }

    /// Sends no write for a while: as long as the server said, otherwise by backoff with jitter.
    pub(super) fn back_off(
        &mut self,
        now: Mono,
        failures: u32,
        at_least: Option<Duration>,
        config: &ClientConfig,
        random: &mut Random,
    ) {
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        let limit = config.reconnect_delay.saturating_mul(factor);
        let jitter = random.below(limit.min(config.max_reconnect_delay));
        let wait = at_least.map_or(jitter, |wait| wait + jitter.min(wait / 4));
        self.hold(now + wait);
    }

    /// Lets writes go out again.
    pub(super) fn release(&mut self) {
        self.held_until = None;
    }

    // --- catch-ups ---

    /// Returns the end of the wait for a collection that catches up.
    pub(super) fn catch_up_until(&self) -> Option<Mono> {
        self.catch_up_until
    }

    /// Lets writes wait for a collection until a time, or no longer.
    pub(super) fn wait_for_catch_up(&mut self, until: Option<Mono>) {
        self.catch_up_until = until;
    }

    /// Lets nothing wait any more: the connection is gone.
    pub(super) fn lose_connection(&mut self) {
        self.held_until = None;
        self.catch_up_until = None;
    }

    // --- retries ---

    /// Counts a conflict of a write. Returns the number of conflicts in a row.
    pub(super) fn count_conflict(&mut self, write: WriteId) -> u32 {
        let retries = self.retries.of(write);
        retries.conflicts += 1;
        retries.conflicts
    }

    /// Counts a failure of a write, if it is one. Returns the number of failures in a row.
    pub(super) fn count_failure(&mut self, write: WriteId, code: &ErrorCode) -> u32 {
        let retries = self.retries.of(write);
        retries.too_large = *code == ErrorCode::PayloadTooLarge;
        retries.failures += u32::from(*code == ErrorCode::ServerError || retries.too_large);
        retries.failures
    }

    /// Counts a connection that broke before a write of so many bytes had a verdict. Says whether the
    /// write is called stalled from now on.
    pub(super) fn count_break(&mut self, write: WriteId, bytes: usize) -> bool {
        if bytes <= SMALL_WRITE {
            return false;
        }
        let retries = self.retries.of(write);
        retries.breaks += 1;
        retries.breaks == STALLED_BREAKS
    }

    /// Returns the factor by which times are longer while a write is under way: it may take longer than
    /// they are, in buffers where nobody sees it move.
    pub(super) fn patience(&self, write: Option<WriteId>) -> u32 {
        1 << write.map_or(0, |write| self.breaks_of(write)).min(MOST_PATIENCE)
    }

    /// Returns the number of connections in a row that broke before a write had its verdict.
    pub(super) fn breaks_of(&self, write: WriteId) -> u32 {
        if write == self.retries.write { self.retries.breaks } else { 0 }
    }

    /// The app was told that a write is stalled.
    pub(super) fn tell(&mut self, stalled: StalledWrite) {
        let write = stalled.write;
        self.retries.of(write).told = Some(Box::new(stalled));
    }

    /// The write of which the app was told that it is stalled.
    pub(super) fn told(&self) -> Option<&StalledWrite> {
        self.retries.told.as_deref()
    }

    /// A write is no longer in the outbox.
    pub(super) fn settle(&mut self, write: WriteId) {
        if self.retries.write == write {
            self.retries = RetryState::default();
        }
    }

    /// Returns `true` if connections keep breaking before a write has its verdict.
    pub(super) fn keeps_breaking(&self, write: WriteId) -> bool {
        self.breaks_of(write) >= STALLED_BREAKS
    }

    /// The attempts in vain to bring a write to the server that may be too large for the way: they
    /// count over restarts.
    pub(super) fn attempts(&self) -> Option<Attempts> {
        let RetryState { write, failures, too_large, breaks, given_up, .. } = self.retries;
        let refusals = if too_large { failures } else { 0 };
        let tried = given_up || breaks + refusals > 0;
        tried.then_some(Attempts { write, breaks, refusals, given_up })
    }

    /// Goes on with the attempts of before a restart.
    pub(super) fn recall(&mut self, attempts: Attempts) {
        let Attempts { write, breaks, refusals, given_up } = attempts;
        let too_large = refusals > 0;
        let retries = RetryState::default();
        self.retries =
            RetryState { write, breaks, failures: refusals, too_large, given_up, ..retries };
    }

    /// Returns the number of further connections that may tell whether the first write stalls.
    pub(super) fn breaks_to_judge(&self) -> u32 {
        if self.retries.told.is_some() { 0 } else { self.retries.breaks }
    }

    /// The app rejects a write of which it is not known whether the server has it.
    pub(super) fn give_up(&mut self, write: WriteId) {
        self.retries.of(write).given_up = true;
    }

    /// Takes the write that the app rejects, now that it is known that the server does not have it.
    pub(super) fn take_given_up(&mut self) -> Option<WriteId> {
        core::mem::take(&mut self.retries.given_up).then_some(self.retries.write)
    }

    /// Returns the number of conflicts in a row of the write that goes out next.
    pub(super) fn conflicts_of(&mut self, write: WriteId) -> u32 {
        self.retries.of(write).conflicts
    }

    /// Returns `true` if a write had at least so many conflicts in a row.
    pub(super) fn has_conflicts(&self, write: WriteId, at_least: u32) -> bool {
        self.retries.write == write && self.retries.conflicts >= at_least
    }

    /// Returns the reason why a write is stalled, if it is.
    pub(super) fn stalled(&self, write: WriteId) -> Option<ErrorCode> {
        let RetryState { conflicts, failures, too_large, breaks, .. } = self.retries;
        let code = match failures >= STALLED_FAILURES {
            true if too_large => ErrorCode::PayloadTooLarge,
            true => ErrorCode::ServerError,
            false if conflicts >= STALLED_CONFLICTS => ErrorCode::Conflict,
            false if breaks >= STALLED_BREAKS => ErrorCode::PayloadTooLarge,
            false => return None,
        };
        (self.retries.write == write).then_some(code)
    }
}

/// The verdicts that did not take the write at the head.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct RetryState {
    write: WriteId,
    conflicts: u32,
    failures: u32,
    /// `true` if the last failure was that something on the way found the write too large.
    too_large: bool,
    /// The number of connections in a row that broke before it had a verdict.
    breaks: u32,
    /// `true` if the app rejects it as soon as it is known that the server does not have it.
    given_up: bool,
    /// The news of it that the app has.
    told: Option<Box<StalledWrite>>,
}

impl RetryState {
    /// Returns the state of a write, which begins anew if the last one was another's.
    fn of(&mut self, write: WriteId) -> &mut Self {
        if self.write != write {
            *self = Self { write, ..Self::default() };
        }
        self
    }
}
