//! Connections: how one is made, lost, given up and tried again, and what time does to it.

use alloc::vec::Vec;

use super::edit::Edit;
use super::event::{ConnectionState, EventKind, Transport};
use super::failure::{ConnectFailure, FailureCause};
use super::interface::{Disconnect, NetAction, Timer};
use super::link::{LinkState, PingKind};
use super::machine::Client;
use crate::protocol::time::Mono;
use crate::store::StoreError;

impl Client {
    pub(super) fn disconnected(&mut self, edit: &mut Edit<'_>, why: Disconnect) {
        match why {
            Disconnect::Refused { status, retry_after, body } => {
                self.turned_away(edit, status, retry_after, &body);
            }
            Disconnect::Lost(failure) => self.fail_connection(edit, failure),
        }
    }

    /// Gives the connection up and tries again after a while.
    pub(super) fn fail_connection(
        &mut self,
        edit: &mut Edit<'_>,
        failure: impl Into<ConnectFailure>,
    ) {
        let failure = failure.into();
        let was_ready = self.link.ready_since().is_some();
        let longest = self.longest_backoff();
        if self.link.ready_since().is_some_and(|since| since + longest <= self.now.mono) {
            // however little it was used for, another one after so long is no haste
            self.link.forget_attempts();
        }
        if was_ready {
            self.judge_portions(edit);
        }
        let told = self.failure.as_ref().map(|failure| failure.cause);
        self.lose_connection(edit, &failure.message);
        self.note_failure(failure.clone());
        self.back_off(edit);
        if !was_ready && self.config.http {
            self.turn_to_http(edit, &failure);
        } else if !was_ready
            && told != Some(failure.cause)
            && failure.cause != FailureCause::Protocol
        {
            // what breaks the protocol was told already
            edit.unreachable(&failure);
        }
    }

    /// Keeps the reason why the server is out of reach, if it is.
    pub(super) fn note_failure(&mut self, failure: ConnectFailure) {
        if self.transport().is_none() {
            self.failure = Some(failure);
        }
    }

    fn fail_silent_connection(&mut self, edit: &mut Edit<'_>, reason: &str) {
        let failure = ConnectFailure::new(FailureCause::Silent, reason);
        self.fail_connection(edit, failure);
    }

    /// Nothing is connected any more; the caller says what comes next.
    pub(super) fn lose_connection(&mut self, edit: &mut Edit<'_>, reason: &str) {
        if self.link.is_open() {
            edit.net.push(NetAction::Close { conn: self.link.conn() });
        }
        if self.link.ready_since().is_some() {
            let reason = reason.into();
            edit.remote_event(EventKind::RealtimeDisconnected { reason });
            edit.remote_event(EventKind::ConnectivityChanged { online: false });
            // that of the next backup
            self.fallback.set_poll(None);
            self.lose_contact(edit);
        }
        // nothing of a connection that is not up is under way
        if self.exchange.is_none() {
            self.detach(edit);
        }
    }

    /// The server is out of reach: what is held may be outdated from now on.
    pub(super) fn lose_contact(&mut self, edit: &mut Edit<'_>) {
        let mut lost = Vec::new();
        for (collection, stream) in self.streams.iter_mut() {
            if stream.lose_confirmation() {
                lost.push(collection.clone());
            }
        }
        for collection in lost {
            self.show_status(edit, &collection);
        }
    }

    /// Nothing is under way any more, whichever way it went.
    pub(super) fn detach(&mut self, edit: &mut Edit<'_>) {
        self.outbox.lose_connection();
        if let Some(plain) = self.peer.plain_mut() {
            plain.lose_connection();
        }
        for stream in self.streams.values_mut() {
            stream.detach();
        }
        let names = self.streams.names();
        for collection in names {
            self.show_status(edit, &collection);
        }
        self.syncs.drop_barrier();
        self.pacing.lose_connection();
        self.token_due = false;
    }

    /// Something has brought a place forward, here or at the server: the next failure of the way that
    /// it came is the first one.
    pub(super) fn made_progress(&mut self, transport: Transport) {
        match transport {
            Transport::WebSocket => self.link.forget_attempts(),
            Transport::Http => {
                self.fallback.forget_failures();
                if let Some(exchange) = &mut self.exchange {
                    exchange.has_moved();
                }
            }
        }
    }

    pub(super) fn dial(&mut self, edit: &mut Edit<'_>) {
        let conn = self.link.dial(self.now.mono);
        edit.net.push(NetAction::Connect { conn, token: self.config.token.clone() });
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let now = self.now.mono;
        while let Some((at, timer)) = self.deadline()
            && at <= now
        {
            match timer {
                Timer::Reconnect => self.dial(edit),
                Timer::Connect => self.fail_silent_connection(edit, "no connection came up"),
                Timer::Hello => {
                    if !self.meet_silence(edit)? {
                        self.fail_silent_connection(edit, "the server did not answer the hello");
                    }
                }
                Timer::Probe => self.probe(edit),
                Timer::Leave => self.leave_unused(edit)?,
                Timer::Index => self.work_on_indexes(edit)?,
                Timer::Count => self.count_on(edit)?,
                Timer::Ping => self.ping(edit),
                Timer::PingTimeout => {
                    self.fail_silent_connection(edit, "the server did not answer a ping");
                }
                Timer::Verdict => {
                    self.fail_silent_connection(edit, "the server gives no verdict");
                }
                // what waited for these is sent at the end of the step
                Timer::CatchUp => self.end_catch_up_wait(edit),
                Timer::Retry => self.pacing.release(),
                Timer::Resubscribe => self.resubscribe(now),
                Timer::Poll => self.poll_due(edit),
                Timer::Request => self.request_timed_out(edit),
                Timer::Confirm => self.plain_due(edit)?,
            }
        }
        Ok(())
    }

    /// Asks the other end of a connection for a sign of life.
    pub(super) fn ping(&mut self, edit: &mut Edit<'_>) {
        self.link.pinged(self.now.mono);
        if self.pings_in_json() {
            self.ping_in_json(edit, PingKind::Life);
        } else {
            edit.net.push(NetAction::Ping { conn: self.link.conn() });
        }
    }

    pub(super) fn resubscribe_at(&self) -> Option<Mono> {
        self.streams.retry_at()
    }

    fn resubscribe(&mut self, now: Mono) {
        for stream in self.streams.values_mut() {
            stream.ask_again_if_due(now);
        }
    }

    /// The transport that is in use.
    pub(super) fn transport(&self) -> Option<Transport> {
        match self.link.ready_since() {
            Some(_) => Some(Transport::WebSocket),
            None => self.fallback.reaches().then_some(Transport::Http),
        }
    }

    pub(super) fn connection(&self) -> ConnectionState {
        let (wanted, failures) = (self.fallback.is_wanted(), self.fallback.failures());
        match self.link.state() {
            LinkState::Failed => ConnectionState::Error,
            _ if self.transport().is_some() => ConnectionState::Connected,
            _ if self.at_other_database && wanted => ConnectionState::DifferentDatabase,
            LinkState::Off if wanted && failures == 0 => ConnectionState::Connecting,
            LinkState::Off if wanted => ConnectionState::Reconnecting,
            LinkState::Off => ConnectionState::Disconnected,
            LinkState::Waiting { .. } => ConnectionState::Reconnecting,
            LinkState::Ready { .. } => ConnectionState::Connected,
            LinkState::Connecting { .. } | LinkState::Connected { .. } => {
                if self.link.attempts() == 0 {
                    ConnectionState::Connecting
                } else {
                    ConnectionState::Reconnecting
                }
            }
        }
    }
}
