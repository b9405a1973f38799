//! The connection: when it is made, how it is kept alive, when it is given up.

use alloc::collections::VecDeque;

use crate::protocol::name::ConnId;
use crate::protocol::time::Mono;

use super::config::ClientConfig;
use super::interface::Timer;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum LinkState {
    /// None is wanted: the app said so, or has not asked for one yet.
    Off,
    /// The next try comes at this time.
    Waiting { until: Mono },
    /// Asked for, and not up yet.
    Connecting { since: Mono },
    /// Up; the hello is answered next.
    Connected { since: Mono, hello_sent: bool },
    /// The hello was answered.
    Ready { since: Mono },
    /// Not tried again before the app does something.
    Failed,
}

/// The reason for a ping in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum PingKind {
    /// It holds the hello.
    Hello,
    /// Its pong is a sign of life.
    Life,
    /// Its pong stands behind everything that came before.
    Barrier,
    /// Its pong tells the server's time after a leap of the wall clock.
    Time,
}

/// A ping in JSON whose pong has not come. Pongs come in the order of their pings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct JsonPing {
    pub(super) kind: PingKind,
    pub(super) at: Mono,
    /// The run of the clock in which it was sent.
    pub(super) run: u64,
}

/// The most pings in JSON that are remembered: a plain server may leave some out.
const MAX_PINGS: usize = 16;

/// The WebSocket: the connection that counts, and the tries to make one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Link {
    state: LinkState,
    /// The connection that counts; earlier ones are not listened to.
    conn: ConnId,
    /// The number of tries that have failed since a connection last proved itself.
    attempts: u32,
    signs: Signs,
}

/// The signs of life of the present connection. Nothing of them outlives it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Signs {
    heard_at: Mono,
    sent_at: Mono,
    /// The time of the ping that waits for a sign of life.
    ping_sent: Option<Mono>,
    /// The time by which a sign of life has to come, if the connection may have died unnoticed.
    expected_by: Option<Mono>,
    /// The pings in JSON without a pong, oldest first.
    pings: VecDeque<JsonPing>,
    /// The run of the clock in which the last of them was sent.
    pinged_in: Option<u64>,
    /// `true` if it was probed for a live WebSocket while the hello was not answered.
    probed: bool,
    /// `true` if it answered that.
    probe_answered: bool,
}

impl Link {
    pub(super) fn new() -> Self {
        Self { state: LinkState::Off, conn: ConnId(0), attempts: 0, signs: Signs::default() }
    }

    pub(super) fn state(&self) -> LinkState {
        self.state
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Connected { .. } | LinkState::Ready { .. })
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.state, LinkState::Connecting { .. })
    }

    /// Returns `true` if the hello was sent and is not answered.
    pub(super) fn hello_is_out(&self) -> bool {
        matches!(self.state, LinkState::Connected { hello_sent: true, .. })
    }

    pub(super) fn ready_since(&self) -> Option<Mono> {
        match self.state {
            LinkState::Ready { since } => Some(since),
            LinkState::Off
            | LinkState::Waiting { .. }
            | LinkState::Connecting { .. }
            | LinkState::Connected { .. }
            | LinkState::Failed => None,
        }
    }

    /// Returns `true` if inputs of this connection count.
    pub(super) fn listens_to(&self, conn: ConnId) -> bool {
        conn == self.conn && self.is_open()
    }

    /// Returns `true` if there is a connection, or one is on its way.
    pub(super) fn is_open(&self) -> bool {
        self.is_connecting() || self.is_up()
    }

    // --- its states ---

    /// A new connection is asked for. Returns its id.
    pub(super) fn dial(&mut self, now: Mono) -> ConnId {
        self.conn = self.conn.next();
        self.enter(LinkState::Connecting { since: now });
        self.conn
    }

    /// The connection is up.
    pub(super) fn connected(&mut self, now: Mono) {
        self.heard(now);
        self.sent(now);
        self.state = LinkState::Connected { since: now, hello_sent: false };
    }

    /// Returns `true` if the hello is to be sent, which counts as done by that.
    pub(super) fn take_hello(&mut self) -> bool {
        match &mut self.state {
            LinkState::Connected { hello_sent, .. } => !core::mem::replace(hello_sent, true),
            LinkState::Off
            | LinkState::Waiting { .. }
            | LinkState::Connecting { .. }
            | LinkState::Ready { .. }
            | LinkState::Failed => false,
        }
    }

    /// The hello was answered, or is not waited for.
    pub(super) fn ready(&mut self, now: Mono) {
        self.state = LinkState::Ready { since: now };
    }

    /// No connection is wanted.
    pub(super) fn off(&mut self) {
        self.enter(LinkState::Off);
    }

    /// No connection is tried before the app does something.
    pub(super) fn give_up(&mut self) {
        self.enter(LinkState::Failed);
    }

    /// The next try comes at this time.
    pub(super) fn wait_until(&mut self, until: Mono) {
        self.enter(LinkState::Waiting { until });
    }

    fn enter(&mut self, state: LinkState) {
        self.state = state;
        self.signs = Signs::default();
    }

    /// Brings the next try forward to this time, if it is waited for.
    pub(super) fn hasten(&mut self, soon: Mono) {
        if let LinkState::Waiting { until } = &mut self.state {
            *until = soon.min(*until);
        }
    }

    /// Puts the next try off to this time, if it is waited for.
    pub(super) fn postpone(&mut self, at: Mono) {
        if let LinkState::Waiting { until } = &mut self.state {
            *until = at.max(*until);
        }
    }

    /// The next try that fails counts as the first one.
    pub(super) fn forget_attempts(&mut self) {
        self.attempts = 0;
    }

    pub(super) fn count_attempt(&mut self) {
        self.attempts += 1;
    }

    // --- its signs of life ---

    pub(super) fn heard(&mut self, now: Mono) {
        self.signs.heard_at = now;
        self.signs.ping_sent = None;
        self.signs.expected_by = None;
    }

    pub(super) fn sent(&mut self, now: Mono) {
        self.signs.sent_at = now;
    }

    /// The time at which something was last sent.
    pub(super) fn sent_at(&self) -> Mono {
        self.signs.sent_at
    }

    /// A ping that asks for a sign of life goes out.
    pub(super) fn pinged(&mut self, now: Mono) {
        self.signs.ping_sent = Some(now);
        self.signs.sent_at = now;
    }

    pub(super) fn awaits_life(&self) -> bool {
        self.signs.ping_sent.is_some()
    }

    /// A sign of life is waited for from now on, if it is not already.
    pub(super) fn await_life(&mut self, now: Mono) {
        self.signs.ping_sent.get_or_insert(now);
    }

    /// No sign of life is waited for.
    pub(super) fn forget_ping(&mut self) {
        self.signs.ping_sent = None;
    }

    /// A sign of life has to come by this time.
    pub(super) fn expect_life_by(&mut self, until: Mono) {
        self.signs.expected_by = Some(self.earliest(until));
    }

    fn earliest(&self, at: Mono) -> Mono {
        self.signs.expected_by.map_or(at, |expected| expected.min(at))
    }

    /// A ping goes out that asks whether there is a WebSocket at all at the other end.
    pub(super) fn probe(&mut self) {
        self.signs.probed = true;
    }

    pub(super) fn is_probed(&self) -> bool {
        self.signs.probed
    }

    /// A WebSocket pong has come before the answer to the hello.
    pub(super) fn pong_before_hello(&mut self) {
        self.signs.probe_answered = self.signs.probed;
    }

    pub(super) fn has_answered_probe(&self) -> bool {
        self.signs.probe_answered
    }

    /// A ping in JSON goes out.
    pub(super) fn pinged_in_json(&mut self, ping: JsonPing) {
        let pings = &mut self.signs.pings;
        if pings.len() >= MAX_PINGS {
            pings.pop_front();
        }
        pings.push_back(ping);
        self.signs.pinged_in = Some(ping.run);
    }

    /// A pong in JSON has come. Returns its ping.
    pub(super) fn answered_ping(&mut self) -> Option<JsonPing> {
        self.signs.pings.pop_front()
    }

    /// Returns the ping that asks for the server's time in a run of the clock.
    pub(super) fn time_ping(&self, run: u64) -> Option<&JsonPing> {
        self.signs.pings.iter().find(|ping| ping.kind == PingKind::Time && ping.run == run)
    }

    /// The run of the clock in which the last ping in JSON was sent.
    pub(super) fn pinged_in(&self) -> Option<u64> {
        self.signs.pinged_in
    }

    /// The next deadline, where the answer to a ping may take `patience` times as long as usual.
    pub(super) fn deadline(&self, config: &ClientConfig, patience: u32) -> Option<(Mono, Timer)> {
        let signs = &self.signs;
        match self.state {
            LinkState::Off | LinkState::Failed => None,
            LinkState::Waiting { until } => Some((until, Timer::Reconnect)),
            LinkState::Connecting { since } => {
                Some((self.earliest(since + config.connect_timeout), Timer::Connect))
            }
            LinkState::Connected { since, .. } => {
                Some((since + config.hello_timeout, Timer::Hello))
            }
            LinkState::Ready { .. } => Some(match signs.ping_sent {
                Some(at) => {
                    let timeout = config.ping_timeout.saturating_mul(patience);
                    (self.earliest(at + timeout), Timer::PingTimeout)
                }
                None => (signs.heard_at.min(signs.sent_at) + config.ping_interval, Timer::Ping),
            }),
        }
    }
}
