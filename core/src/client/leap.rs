//! Leaps of the wall clock, by sleep or by hand: the server's time is asked for again, and until it is
//! told no write goes out and no conflict is decided.
//!
//! So whatever was stamped since the leap can still be corrected. Over a WebSocket a ping asks, by HTTP
//! another hello. What was asked before the leap may have been answered before it too: such an answer
//! tells nothing of the present.

use super::edit::Edit;
use super::link::{JsonPing, PingKind};
use super::machine::Client;
use crate::protocol::message::ClientMessage;
use crate::protocol::time::{Mono, Timestamp};
use crate::store::StoreError;

impl Client {
    /// Returns `true` if writes wait for the server to tell its time.
    ///
    /// A plain server need not tell any: they wait only for the answer to a ping that asked for it.
    pub(super) fn awaits_time(&self) -> bool {
        let Some(run) = self.clock.unsettled() else { return false };
        if self.peer.is_plain() {
            return self.link.time_ping(run).is_some();
        }
        self.link.is_up() || self.exchange.is_some()
    }

    /// Returns `true` if conflicts wait for the server's time. At a plain server they never do: it has no
    /// digests that a decided write would have to keep.
    pub(super) fn decides_later(&self) -> bool {
        !self.peer.is_plain() && self.awaits_time()
    }

    /// Returns `true` if the answer to a question of this run of the clock tells the present time.
    pub(super) fn is_of_this_run(&self, run: u64) -> bool {
        run == self.clock.run()
    }

    /// Asks the server for its time over a live connection, once in each run of the clock that does
    /// not know it.
    pub(super) fn ask_time(&mut self, edit: &mut Edit<'_>) {
        let Some(run) = self.clock.unsettled() else { return };
        let asked = self.link.pinged_in() == Some(run) || self.link.ready_since().is_none();
        if asked || self.peer.is_plain() && !self.pings_in_json() {
            return;
        }
        self.link.await_life(self.now.mono);
        self.ping_in_json(edit, PingKind::Time);
    }

    pub(super) fn ping_in_json(&mut self, edit: &mut Edit<'_>, kind: PingKind) {
        self.note_ping(kind);
        self.send(edit, &ClientMessage::Ping { hello: None });
    }

    pub(super) fn note_ping(&mut self, kind: PingKind) {
        self.link.pinged_in_json(JsonPing { kind, at: self.now.mono, run: self.clock.run() });
    }

    /// Until when the server has to tell its time, where writes wait for that: as long as for a
    /// verdict. The pong may come late, behind pages of a catch-up; another connection's hello is
    /// answered at once.
    pub(super) fn time_deadline(&self) -> Option<Mono> {
        let run = self.clock.unsettled()?;
        let waits = self.outbox.len() > self.outbox.in_flight();
        let asked = self.link.ready_since().and(self.link.time_ping(run)).filter(|_| waits)?;
        Some(asked.at + self.config.verdict_timeout)
    }

    /// A pong has come on a connection of level 2 whose hello was answered.
    pub(super) fn ponged(
        &mut self,
        edit: &mut Edit<'_>,
        timestamp: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let Some(ping) = self.link.answered_ping() else { return Ok(()) };
        if self.clock.unsettled().is_some() && self.is_of_this_run(ping.run) {
            self.settle_after_leap(edit, timestamp, ping.at);
            self.rebase_deferred(edit)?;
        }
        if ping.kind == PingKind::Barrier {
            self.barrier_passed(edit);
        }
        Ok(())
    }
}
