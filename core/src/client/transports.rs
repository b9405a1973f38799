//! Which transport is used when: the WebSocket where it comes up, else HTTP; how soon a failure is
//! followed by another try; and the backup that proves a live connection right now and then.

use core::time::Duration;

use super::config::{ClientConfig, Guarantees};
use super::edit::Edit;
use super::event::{EventKind, Transport};
use super::failure::{ConnectFailure, FailureCause};
use super::interface::Timer;
use super::link::LinkState;
use super::machine::Client;
use crate::protocol::random::Random;
use crate::protocol::time::Mono;

/// The time that a WebSocket may take to come up before HTTP is turned to.
const WEBSOCKET_TIMEOUT: Duration = Duration::from_secs(3);
/// The pace at which the WebSocket is tried where its tries are used up and there is HTTP.
const SLOW_PACE: Duration = Duration::from_secs(600);
/// The longest time from one try of a transport to the next while access is refused. *What refuses
/// it may be a portal on the way, and be gone at any moment.*
const ACCESS_PACE: Duration = Duration::from_secs(60);
/// The first tries after a failure come at any time below their limit, so that those who lost a
/// server together do not come back together; later ones keep their distance.
const SPREAD_TRIES: u32 = 3;

impl ClientConfig {
    pub(super) fn uses_websocket(&self) -> bool {
        self.websocket && self.enable_realtime_sync
    }
}

impl Client {
    /// Tries everything at once, as if nothing had failed yet.
    pub(super) fn try_at_once(&mut self, edit: &mut Edit<'_>, poll: bool) {
        self.fallback.begin_anew();
        if !self.fallback.is_wanted() {
            return;
        }
        let poll = self.config.http && poll;
        self.fallback.ask(poll, self.exchange.is_some());
        if let Some(exchange) = &mut self.exchange {
            exchange.resume();
        }
        self.peer.resume_work();
        if !self.config.uses_websocket() {
            return;
        }
        match self.link.state() {
            LinkState::Off | LinkState::Failed | LinkState::Waiting { .. } => {
                self.link.forget_attempts();
                self.dial(edit);
            }
            LinkState::Connecting { .. }
            | LinkState::Connected { .. }
            | LinkState::Ready { .. } => {}
        }
    }

    /// Gives everything up that is under way.
    pub(super) fn give_everything_up(&mut self, edit: &mut Edit<'_>, reason: &str) {
        self.drop_exchange(edit);
        self.lose_connection(edit, reason);
        self.link.off();
        self.fallback.give_up();
        self.out_of_reach(edit);
    }

    /// HTTP no longer reaches the server.
    pub(super) fn out_of_reach(&mut self, edit: &mut Edit<'_>) {
        if self.fallback.lose_reach() {
            edit.event_by(Transport::Http, EventKind::ConnectivityChanged { online: false });
            self.lose_contact(edit);
        }
    }

    /// Returns `true` if HTTP may be used: it is there, and the app wants to be connected.
    pub(super) fn may_poll(&self) -> bool {
        self.config.http && self.fallback.is_allowed()
    }

    /// Returns `true` if HTTP is the transport now.
    pub(super) fn polls(&self) -> bool {
        let waits = match self.link.state() {
            LinkState::Connected { .. } | LinkState::Ready { .. } => true,
            LinkState::Connecting { .. } => !self.fallback.has_turned(),
            // lost, and not tried again yet
            LinkState::Waiting { .. } => !self.fallback.has_turned(),
            LinkState::Off | LinkState::Failed => false,
        };
        self.may_poll() && !waits
    }

    /// When the next exchange or backup is due, or HTTP is turned to.
    pub(super) fn poll_deadline(&self) -> Option<(Mono, Timer)> {
        if let Some(until) = self.peer.work().and_then(|work| work.throttle.paused_until()) {
            return Some((until, Timer::Poll));
        }
        if let Some(at) = self.work_deadline() {
            return Some((at, Timer::Request));
        }
        if let Some(exchange) = &self.exchange {
            return exchange.deadline();
        }
        let due = match self.link.state() {
            LinkState::Ready { .. } => return self.fallback.poll_at().map(|at| (at, Timer::Poll)),
            LinkState::Connected { .. } => None,
            LinkState::Connecting { since } if !self.fallback.has_turned() && self.may_poll() => {
                Some(since + WEBSOCKET_TIMEOUT)
            }
            LinkState::Connecting { .. }
            | LinkState::Waiting { .. }
            | LinkState::Off
            | LinkState::Failed => self.fallback.poll_at().filter(|_| self.polls()),
        };
        due.map(|at| (at, Timer::Poll))
    }

    pub(super) fn poll_due(&mut self, edit: &mut Edit<'_>) {
        if let Some(exchange) = &mut self.exchange {
            return exchange.resume();
        }
        if self.peer.resume_work() {
            return;
        }
        match self.link.state() {
            LinkState::Ready { .. } => self.back_up(false),
            LinkState::Connecting { .. } if !self.fallback.has_turned() => {
                let failure = ConnectFailure::new(FailureCause::Silent, "it takes long");
                self.turn_to_http(edit, &failure);
            }
            LinkState::Connecting { .. }
            | LinkState::Connected { .. }
            | LinkState::Waiting { .. }
            | LinkState::Off
            | LinkState::Failed => {
                self.fallback.set_poll(None);
                self.fallback.set_due(self.now.mono);
            }
        }
    }

    /// The WebSocket is what is used from now on.
    pub(super) fn turn_to_websocket(&mut self) {
        self.failure = None;
        self.fallback.turn_back();
        self.schedule_backup();
    }

    fn schedule_backup(&mut self) {
        let interval = self.config.sync_interval;
        let auto = self.config.enable_auto_sync;
        self.fallback.set_poll(auto.then(|| self.now.mono + interval));
    }

    /// Asks for a fresh proof that the live collections are in step: those that something has come
    /// of since the last one, now and then the others too.
    pub(super) fn back_up(&mut self, all: bool) {
        self.schedule_backup();
        if self.peer.is_plain() {
            self.begin_poll();
            return;
        }
        let all = self.fallback.count_backup(all);
        if all {
            self.ask_refused_again(false);
        }
        for stream in self.streams.values_mut() {
            stream.refresh(all);
        }
    }

    /// The WebSocket could not be made, or was lost: it is tried again after a while.
    pub(super) fn back_off(&mut self, edit: &mut Edit<'_>) {
        // a failure after which less is tried, or a write is named, is none of the connection
        let further =
            self.portions.steps() + self.pacing.breaks_to_judge() + self.streams.breaks_to_judge();
        let used_up = self.config.max_reconnect_attempts;
        let used_up = used_up.is_some_and(|max| self.link.attempts() >= max + further);
        let now = self.now.mono;
        let rest = self.resting();
        let free_from = rest.unwrap_or(now);
        let until = if !used_up {
            let longest = self.longest_backoff();
            let (config, attempts) = (&self.config, self.link.attempts());
            let wait = backoff(&mut self.random, config.reconnect_delay, attempts, longest);
            self.link.count_attempt();
            Some(free_from + wait)
        } else if self.config.http {
            let wait = SLOW_PACE - self.random.below(SLOW_PACE / 10);
            Some(free_from.max(now + wait))
        } else {
            None
        };
        if let Some(until) = until {
            self.link.wait_until(until);
        } else {
            self.link.give_up();
            let last =
                self.failure.as_ref().map(|failure| alloc::format!(" (the last: {failure})"));
            let last = last.unwrap_or_default();
            edit.error(alloc::format!(
                "the tries to connect are used up{last}; connect() begins anew"
            ));
        }
        if let Some(rest) = rest {
            self.fallback.postpone(rest);
        }
    }

    /// HTTP is turned to after a WebSocket that could not be made, or is not made in time.
    pub(super) fn turn_to_http(&mut self, edit: &mut Edit<'_>, failure: &ConnectFailure) {
        if self.may_poll() && !self.fallback.has_turned() {
            let message = alloc::format!(
                "the WebSocket does not come up ({failure}): the server is asked by HTTP until it does"
            );
            edit.unreachable(&ConnectFailure::new(failure.cause, message));
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.fallback.turn();
        let auto = self.config.enable_auto_sync;
        if auto && self.fallback.poll_at().is_none() && self.exchange.is_none() {
            self.fallback.set_due(self.now.mono);
        }
    }

    /// When the next exchange comes after one that went well.
    ///
    /// After one in which a collection could not be pulled it comes sooner, and does not begin with
    /// that pull.
    pub(super) fn schedule_poll(&mut self, troubled: bool) {
        let mut interval = self.config.sync_interval;
        self.fallback.went_through(troubled);
        if troubled {
            interval = interval.min(self.longest_backoff());
        }
        // those who were started together need not poll together
        let jitter = self.random.below(interval / 20);
        let auto = self.config.enable_auto_sync;
        self.fallback.set_poll(auto.then(|| self.now.mono + interval + jitter));
        if let Some(until) = self.pacing.held_until() {
            self.fallback.poll_by(until);
        }
    }

    /// Something waits for the next exchange: at once, or a while after one in which a collection could
    /// not be pulled; not before a time.
    pub(super) fn poll_soon(&mut self, from: Mono) {
        let (now, troubles) = (self.now.mono, self.fallback.troubles());
        let wait = match troubles {
            0 => Duration::ZERO,
            _ => {
                let (delay, longest) = (self.config.reconnect_delay, self.longest_backoff());
                let limit = delay.saturating_mul(1 << troubles.min(16)).min(longest);
                late(&mut self.random, limit)
            }
        };
        self.fallback.poll_by(from.max(now + wait));
    }

    /// When the next exchange comes after one that has failed.
    pub(super) fn poll_later(&mut self) {
        let (now, rest) = (self.now.mono, self.resting());
        let (failures, longest) = (self.fallback.failures(), self.longest_backoff());
        let delay = self.config.reconnect_delay;
        let wait = if self.config.uses_websocket() {
            // the WebSocket's tries are the ones that find the server soon
            let factor = 4u32.saturating_pow(failures).saturating_mul(30);
            late(&mut self.random, delay.saturating_mul(factor).min(longest))
        } else {
            backoff(&mut self.random, delay, failures, longest)
        };
        self.fallback.count_failure();
        let auto = self.config.enable_auto_sync || !self.syncs.is_empty();
        self.fallback.set_poll(auto.then(|| rest.unwrap_or(now) + wait));
        if let Some(rest) = rest {
            self.link.postpone(rest);
        }
    }

    /// The exchange that has just failed had brought something forward: the next one goes on from there
    /// as soon as after a first failure of the only transport.
    pub(super) fn go_on_soon(&mut self) {
        let (delay, longest) = (self.config.reconnect_delay, self.longest_backoff());
        let wait = backoff(&mut self.random, delay, 0, longest);
        let soon = self.now.mono + wait;
        self.fallback.hasten(soon);
    }

    /// The server, or something before it, wants to be left alone for a time, whichever the transport
    /// and whatever else its answer says.
    pub(super) fn rest(&mut self, wait: Option<Duration>) {
        if let Some(wait) = wait {
            self.fallback.rest(self.now.mono, wait);
        }
    }

    /// Until when the server wants to be left alone, if that time is not over.
    pub(super) fn resting(&self) -> Option<Mono> {
        self.fallback.resting(self.now.mono)
    }

    /// HTTP has reached the server after a time without it: the WebSocket need not wait long.
    pub(super) fn hasten_websocket(&mut self) {
        if let LinkState::Waiting { .. } = self.link.state()
            && self.fallback.failures() > 0
        {
            let soon =
                self.now.mono + self.random.below(self.config.reconnect_delay.saturating_mul(4));
            self.link.hasten(self.fallback.rested(soon));
        }
    }

    /// With two transports to try, each is tried half as often.
    pub(super) fn longest_backoff(&self) -> Duration {
        let both = self.config.http && self.config.uses_websocket();
        let longest = self.config.max_reconnect_delay.saturating_mul(if both { 2 } else { 1 });
        if self.token_needed { longest.min(ACCESS_PACE) } else { longest }
    }

    /// Returns the guarantees of the server, as far as they are known.
    pub(super) fn offered(&self) -> Guarantees {
        if self.peer.is_plain() {
            return Guarantees::default();
        }
        let mut wanted = self.streams.wanted();
        let verified = wanted.all(|(_, stream)| !stream.is_partial());
        Guarantees { verified, atomic: self.peer.takes_units(), ..Guarantees::ALL }
    }

    /// Gives everything up and returns `true` if the server offers less than the app requires.
    pub(super) fn falls_short(&mut self, edit: &mut Edit<'_>) -> bool {
        let (offered, required) = (self.offered(), self.config.required);
        if offered.cover(required) {
            return false;
        }
        edit.remote_event(EventKind::GuaranteesMissing { offered, required });
        self.give_everything_up(edit, "the server offers less than what is required");
        self.link.give_up();
        self.fallback.fall_short();
        true
    }
}

/// Exponential backoff: the first tries with full jitter (M. Brooker, "Exponential Backoff and
/// Jitter", 2015), later ones within the last part of their time, which bounds how many fit into
/// an outage.
fn backoff(random: &mut Random, delay: Duration, attempts: u32, longest: Duration) -> Duration {
    let factor = 1u32.checked_shl(attempts).unwrap_or(u32::MAX);
    let limit = delay.saturating_mul(factor).min(longest);
    if attempts < SPREAD_TRIES { random.below(limit) } else { late(random, limit) }
}

/// A time in the last part of `limit`.
fn late(random: &mut Random, limit: Duration) -> Duration {
    limit - random.below(limit / 20 * 3)
}
