//! The machine itself: its parts, and the way of each input through it.

use super::clock::Clock;
use super::commits::Commits;
use super::config::ClientConfig;
use super::edit::Edit;
use super::exchange::Exchange;
use super::failure::ConnectFailure;
use super::fallback::Fallback;
use super::indexes::Indexes;
use super::interface::{Input, RequestId, Timer};
use super::link::Link;
use super::outbox::Outbox;
use super::output::Outputs;
use super::pacing::Pacing;
use super::peer::Peer;
use super::portion::Portions;
use super::step::StepError;
use super::streams::Streams;
use super::synced::Syncs;
use crate::protocol::name::{CommitNumber, ConnId};
use crate::protocol::random::Random;
use crate::protocol::time::{Mono, Now};
use crate::rules::row::{Identity, Keys};
use crate::store::{Rows, StoreError};

/// A replica's side of the protocol.
///
/// It holds no documents: they lie in the store, which every call lends to it. It puts its actions
/// into the caller's sink. Its store must show every commit to later calls at once.
#[derive(Clone)]
pub(crate) struct Client {
    pub(super) config: ClientConfig,
    pub(super) random: Random,
    pub(super) keys: Keys,
    pub(super) now: Now,
    pub(super) identity: Identity,
    pub(super) outbox: Outbox,
    pub(super) streams: Streams,
    pub(super) link: Link,
    /// `true` if records of some collection may be held that its server lacks.
    pub(super) short: bool,
    /// `true` if the server was found to have another database since it last answered well.
    pub(super) at_other_database: bool,
    pub(super) peer: Peer,
    pub(super) pacing: Pacing,
    pub(super) portions: Portions,
    /// `true` if the device has slept since the last step.
    pub(super) slept: bool,
    pub(super) token_due: bool,
    /// `true` if access was refused since the server last answered well.
    pub(super) token_needed: bool,
    /// The reason why the server is out of reach, since it was in reach last.
    pub(super) failure: Option<ConnectFailure>,
    pub(super) syncs: Syncs,
    pub(super) rejected: usize,
    pub(super) clock: Clock,
    /// `true` if the app knows that the wall clock is far off.
    pub(super) told_of_clock: bool,
    pub(super) ignored_frames: u64,
    pub(super) fallback: Fallback,
    /// The exchange under way by HTTP; never while a WebSocket is up.
    pub(super) exchange: Option<Exchange>,
    /// The number of exchanges that were begun.
    pub(super) exchanges: u64,
    pub(super) next_request: RequestId,
    /// A number that rises as bytes and places move.
    pub(super) progress: u64,
    pub(super) commits: Commits,
    pub(super) indexes: Indexes,
    /// The time at which the next part of a counting of rows is due.
    pub(super) count_at: Option<Mono>,
    pub(super) halted: Option<StoreError>,
}

impl Client {
    /// Takes in an input. Never fails: a peer's mistake costs its connection, and a failing store
    /// stops the machine, which [`status`](Self::status) then tells.
    pub(crate) fn handle(
        &mut self,
        now: Now,
        input: Input<'_>,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| client.react(edit, input));
    }

    /// Lets the steps that follow share one commit, until [`end_group`](Self::end_group).
    pub(crate) fn begin_group(&mut self) {
        self.commits.share();
    }

    /// The commit that steps have shared has all of them.
    pub(crate) fn end_group(&mut self) {
        self.commits.end_sharing();
    }

    /// The store has made every commit up to this one durable. What was not committed yet can't be.
    pub(crate) fn durable(
        &mut self,
        now: Now,
        up_to: CommitNumber,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, _| {
            let up_to = client.commits.durable(up_to);
            client.outbox.durable(up_to);
            Ok(())
        });
    }

    /// The store has failed: the machine stops.
    pub(crate) fn fail(
        &mut self,
        now: Now,
        error: StoreError,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |_, _| Err(StepError::Store(error)));
    }

    /// The time to call [`handle`](Self::handle) with [`Input::Timeout`], and the reason; `None` if
    /// there is nothing to wait for.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<(Mono, Timer)> {
        if self.halted.is_some() {
            return None;
        }
        let own = [
            self.link_deadline(),
            self.poll_deadline(),
            self.plain_deadline().map(|at| (at, Timer::Confirm)),
            self.leave_deadline().map(|at| (at, Timer::Leave)),
            self.index_deadline().map(|at| (at, Timer::Index)),
            self.count_deadline().map(|at| (at, Timer::Count)),
        ];
        own.into_iter().chain(self.outbox_deadlines()).flatten().min()
    }

    fn react(&mut self, edit: &mut Edit<'_>, input: Input<'_>) -> Result<(), StepError> {
        match input {
            Input::Connected { conn } if self.is_connecting(conn) => self.on_connected(edit)?,
            Input::Frame { conn, frame } if self.link.listens_to(conn) => {
                self.link.heard(self.now.mono);
                self.read(edit, frame)?;
            }
            Input::Heard { conn } if self.link.listens_to(conn) => {
                self.link.heard(self.now.mono);
                self.plain_heard(edit)?;
            }
            Input::Progress { conn } if self.link.listens_to(conn) => {
                self.link.heard(self.now.mono);
                self.pacing.await_verdict(self.now.mono);
                self.progress += 1;
            }
            Input::RequestProgress { request } => {
                self.request_moves(request);
                self.progress += 1;
            }
            Input::Disconnected { conn, why } if self.link.listens_to(conn) => {
                self.disconnected(edit, why);
            }
            Input::Connected { .. } | Input::Frame { .. } | Input::Heard { .. } => {
                edit.ignore();
            }
            Input::Progress { .. } | Input::Disconnected { .. } => {}
            Input::Answered { request, answer } => self.answered(edit, request, answer)?,
            Input::Timeout => self.expire(edit)?,
        }
        Ok(())
    }

    fn is_connecting(&self, conn: ConnId) -> bool {
        conn == self.link.conn() && self.link.is_connecting()
    }

    pub(super) fn ratchet(&mut self, now: Now) {
        self.slept |= self.has_slept(now);
        self.now = Now { mono: self.now.mono.max(now.mono), wall: now.wall };
        self.clock.look(self.now);
    }
}
