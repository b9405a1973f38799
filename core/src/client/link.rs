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
    Greeting { since: Mono, hello_sent: bool },
    /// The hello was answered.
    Ready { since: Mono },
    /// Not tried again before the app does something.
    Failed,
}

/// Why a ping in JSON was sent.
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

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Link {
    pub(super) state: LinkState,
    /// The connection that counts; earlier ones are not listened to.
    pub(super) conn: ConnId,
    /// How many tries have failed since a connection last proved itself.
    pub(super) attempts: u32,
    pub(super) heard_at: Mono,
    pub(super) sent_at: Mono,
    pub(super) ping_sent: Option<Mono>,
    /// Until when a sign of life has to come, because the connection may have died unnoticed.
    pub(super) hurry: Option<Mono>,
    /// The pings in JSON without a pong, oldest first.
    pub(super) pings: VecDeque<JsonPing>,
    /// The run of the clock in which the last of them was sent on this connection.
    pub(super) pinged_in: Option<u64>,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            state: LinkState::Off,
            conn: ConnId(0),
            attempts: 0,
            heard_at: Mono(0),
            sent_at: Mono(0),
            ping_sent: None,
            hurry: None,
            pings: VecDeque::new(),
            pinged_in: None,
        }
    }

    /// A ping in JSON goes out.
    pub(super) fn pinged(&mut self, ping: JsonPing) {
        if self.pings.len() >= MAX_PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back(ping);
        self.pinged_in = Some(ping.run);
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Greeting { .. } | LinkState::Ready { .. })
    }

    /// Whether the hello was sent and is not answered.
    pub(super) fn hello_is_out(&self) -> bool {
        matches!(self.state, LinkState::Greeting { hello_sent: true, .. })
    }

    pub(super) fn ready_since(&self) -> Option<Mono> {
        match self.state {
            LinkState::Ready { since } => Some(since),
            LinkState::Off
            | LinkState::Waiting { .. }
            | LinkState::Connecting { .. }
            | LinkState::Greeting { .. }
            | LinkState::Failed => None,
        }
    }

    /// Whether something of this connection is of interest.
    pub(super) fn listens_to(&self, conn: ConnId) -> bool {
        (conn == self.conn || planted!(LateFramesHeard))
            && match self.state {
                LinkState::Connecting { .. }
                | LinkState::Greeting { .. }
                | LinkState::Ready { .. } => true,
                LinkState::Off | LinkState::Waiting { .. } | LinkState::Failed => false,
            }
    }

    pub(super) fn heard(&mut self, now: Mono) {
        self.heard_at = now;
        self.ping_sent = None;
        self.hurry = None;
    }

    fn soonest(&self, at: Mono) -> Mono {
        self.hurry.map_or(at, |hurry| hurry.min(at))
    }

    pub(super) fn deadline(&self, config: &ClientConfig) -> Option<(Mono, Timer)> {
        match self.state {
            LinkState::Off | LinkState::Failed => None,
            LinkState::Waiting { until } => Some((until, Timer::Reconnect)),
            LinkState::Connecting { since } => {
                Some((self.soonest(since + config.connect_timeout), Timer::Connect))
            }
            LinkState::Greeting { since, .. } => Some((since + config.hello_timeout, Timer::Hello)),
            LinkState::Ready { .. } => Some(match self.ping_sent {
                Some(at) => (self.soonest(at + config.ping_timeout), Timer::PingTimeout),
                None => (self.heard_at.min(self.sent_at) + config.ping_interval, Timer::Ping),
            }),
        }
    }
}
