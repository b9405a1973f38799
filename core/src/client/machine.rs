//! The machine itself: its parts, and the way of each input through it.

use alloc::string::String;
use core::time::Duration;

use super::boot::{count, keys_of, new_identity, outbox_of, streams_of};
use super::clock::Clock;
use super::commits::Commits;
use super::config::ClientConfig;
use super::edit::Edit;
use super::event::{Event, EventKind, Transport};
use super::exchange::Exchange;
use super::fallback::Fallback;
use super::interface::{Input, NetAction, RequestId, Timer};
use super::link::{Link, LinkState};
use super::outbox::Outbox;
use super::output::{Output, Outputs, StoreAction, ViewAction};
use super::pacing::Pacing;
use super::plain::Plain;
use super::records::Records;
use super::streams::Streams;
use super::synced::Syncs;
use crate::protocol::message::Features;
use crate::protocol::name::{Collection, CommitNumber, ConnId, Epoch, WriteId};
use crate::protocol::random::Random;
use crate::protocol::time::{Mono, Now};
use crate::rules::row::{Identity, Keys, Slot};
use crate::store::{Rows, StoreError};

/// Why a step could not be taken.
pub(super) enum Fault {
    /// The peer broke the protocol: the connection is given up.
    Peer(String),
    /// The store failed: the machine stops.
    Store(StoreError),
}

impl Fault {
    pub(super) fn peer(what: &str) -> Self {
        Self::Peer(what.into())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A replica's side of the protocol.
///
/// It holds no documents: they lie in the store, which every call lends to it. What it wants done
/// it puts into the caller's sink. Its store must show every commit to later calls at once.
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
    /// Whether records of some collection may be held that its server lacks.
    pub(super) short: bool,
    /// Whether the server was found to have another database since it last answered well.
    pub(super) at_other_database: bool,
    /// What the server has of the parts that it may lack, as of the last hello.
    pub(super) features: Features,
    /// The server's epoch, as of the last hello.
    pub(super) epoch: Option<Epoch>,
    pub(super) pacing: Pacing,
    /// Whether the device has slept since the last step.
    pub(super) slept: bool,
    pub(super) token_due: bool,
    /// Whether access was refused since the server last answered well.
    pub(super) token_needed: bool,
    pub(super) syncs: Syncs,
    pub(super) rejected: usize,
    pub(super) clock: Clock,
    pub(super) ignored_frames: u64,
    pub(super) fallback: Fallback,
    pub(super) plain: Plain,
    /// What is under way by HTTP; never while a WebSocket is up.
    pub(super) exchange: Option<Exchange>,
    /// How many exchanges were begun.
    pub(super) exchanges: u64,
    pub(super) next_request: RequestId,
    pub(super) commits: Commits,
    pub(super) halted: Option<StoreError>,
}

impl Client {
    /// Wakes a replica up from what its store holds, or begins a new one where it holds nothing of
    /// this user. It stays offline until [`connect`](Self::connect).
    ///
    /// `seed` must be fresh for every opening: ids are drawn from it. `last_commit` is the last
    /// number that the store has seen in this life of it, 0 for one that was just opened.
    ///
    /// # Errors
    /// When the store can't be read or what it holds is damaged.
    pub(crate) fn open(
        config: ClientConfig,
        seed: u128,
        now: Now,
        last_commit: CommitNumber,
        store: &dyn Rows,
        out: &mut Outputs,
    ) -> Result<Self, StoreError> {
        let mut random = Random::new(seed);
        let (keys, new) = keys_of(&config.user, store)?;
        let identity = match store.get(&keys.identity())? {
            Some(row) => Identity::decode(row)?,
            None => new_identity(&mut random)?,
        };
        let mut client = Self {
            outbox: outbox_of(keys, &identity, store)?,
            streams: streams_of(keys, &config.collections, store)?,
            rejected: count(keys.all_rejected(), store)?,
            random,
            keys,
            now,
            identity,
            link: Link::new(),
            short: true,
            at_other_database: false,
            features: Features::default(),
            epoch: None,
            pacing: Pacing::new(now.mono),
            slept: false,
            token_due: false,
            token_needed: false,
            syncs: Syncs::default(),
            clock: Clock::new(now, seed),
            ignored_frames: 0,
            fallback: Fallback::default(),
            plain: Plain::default(),
            exchange: None,
            exchanges: 0,
            next_request: RequestId(0),
            commits: Commits::after(last_commit),
            halted: None,
            config,
        };
        if new {
            let mut edit = Edit::new(store, keys);
            let slot = Slot { number: keys.slot(), leaving: false };
            edit.put(Keys::user(&client.config.user), slot.encode());
            client.put_identity(&mut edit);
            edit.gates = true;
            edit.flush = true;
            let next = client.outbox.end();
            client.finish(edit, next, out)?;
        }
        Ok(client)
    }

    /// The world speaks. Never fails: what a peer does wrong costs its connection, and a failing
    /// store stops the machine, which [`status`](Self::status) then tells.
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
        let _ = self.step(store, out, |_, _| Err(Fault::Store(error)));
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`], and why; `None` when there
    /// is nothing to wait for.
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
        ];
        own.into_iter().chain(self.outbox_deadlines()).flatten().min()
    }

    /// When something is done for the writes that wait.
    pub(super) fn outbox_deadlines(&self) -> [Option<(Mono, Timer)>; 5] {
        let ready = self.link.ready_since();
        let verdict = ready.is_some() && self.is_in_flight();
        let catch_up = ready.and(self.pacing.catch_up_until());
        let hold = ready.and(self.pacing.held_until()).filter(|_| !planted!(HoldWithoutDeadline));
        [
            verdict.then(|| {
                (self.pacing.verdict_since() + self.config.verdict_timeout, Timer::Verdict)
            }),
            catch_up.map(|until| (until, Timer::Patience)),
            hold.map(|until| (until, Timer::Retry)),
            ready.and(self.resubscribe_at()).map(|at| (at, Timer::Resubscribe)),
            self.time_deadline().map(|at| (at, Timer::PingTimeout)),
        ]
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.outbox.awaits_verdict()
    }

    /// One step: `change` decides, then everything that follows from it goes out.
    pub(super) fn step(
        &mut self,
        store: &dyn Rows,
        out: &mut Outputs,
        change: impl FnOnce(&mut Self, &mut Edit<'_>) -> Result<(), Fault>,
    ) -> Result<(), StoreError> {
        if let Some(error) = &self.halted {
            return Err(error.clone());
        }
        let mut edit = Edit::new(store, self.keys);
        edit.in_time(&self.identity.clocks, self.clock.unsettled_runs());
        let next = self.outbox.end();
        self.keep_offset(&mut edit);
        let changed = match change(self, &mut edit) {
            Err(Fault::Peer(what)) => {
                match edit.transport {
                    Transport::Http => self.fail_exchange(&mut edit, &what, Duration::ZERO),
                    Transport::WebSocket => {
                        edit.error(alloc::format!("the connection is given up: {what}"));
                        self.fail_connection(&mut edit, &what, Duration::ZERO);
                    }
                }
                Ok(())
            }
            Err(Fault::Store(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        self.ignored_frames += edit.ignored;
        if changed.is_ok() && core::mem::take(&mut self.slept) {
            self.wake_up(&mut edit);
        }
        changed
            .and_then(|()| self.finish(edit, next, out))
            .inspect_err(|error| self.halt(error, out))
    }

    /// Commits a step, before which `next` was the position of the next write, and sends what may be
    /// sent after it.
    fn finish(
        &mut self,
        mut edit: Edit<'_>,
        next: WriteId,
        out: &mut Outputs,
    ) -> Result<(), StoreError> {
        let number = self.commits.next();
        if let Some(position) = edit.written {
            self.outbox.written(number, position);
        }
        let written = edit.written;
        self.pursue_losses(&mut edit)?;
        self.leave_unused(&mut edit)?;
        self.prepare_exchange(&mut edit)?;
        self.note_unsent(&mut edit, next);
        if let Some(position) = edit.written.filter(|_| edit.written != written) {
            self.outbox.written(number, position);
        }
        if edit.gates && !edit.is_empty() {
            self.commits.gate();
        }
        if self.commits.may_send() || planted!(SentBeforeDurable) {
            self.pump(&mut edit)?;
        }
        let (views, events) = (core::mem::take(&mut edit.views), core::mem::take(&mut edit.events));
        let (net, synced) = (core::mem::take(&mut edit.net), core::mem::take(&mut edit.synced));
        if !edit.is_empty() {
            let flush = edit.flush;
            self.commits.made();
            out.push(Output::Store(StoreAction::Commit { number, batch: edit.into_batch() }));
            if flush {
                out.push(Output::Store(StoreAction::Flush { up_to: number }));
            }
        }
        out.extend(views.into_iter().map(Output::View));
        out.extend(events.into_iter().map(Output::Event));
        out.extend(net.into_iter().map(Output::Net));
        out.extend(synced.into_iter().map(|(id, outcome)| Output::Synced { id, outcome }));
        Ok(())
    }

    fn react(&mut self, edit: &mut Edit<'_>, input: Input<'_>) -> Result<(), Fault> {
        match input {
            Input::Connected { conn } if self.is_connecting(conn) => self.greet(edit)?,
            Input::Frame { conn, frame } if self.link.listens_to(conn) => {
                self.link.heard(self.now.mono);
                self.read(edit, frame)?;
            }
            Input::Heard { conn } if self.link.listens_to(conn) => {
                self.link.heard(self.now.mono);
                self.plain_heard(edit)?;
            }
            Input::Disconnected { conn, why } if self.link.listens_to(conn) => {
                self.disconnected(edit, why);
            }
            Input::Connected { .. } | Input::Frame { .. } | Input::Heard { .. } => {
                edit.ignore();
            }
            Input::Disconnected { .. } => {}
            Input::Answered { request, answer } => self.answered(edit, request, answer)?,
            Input::Timeout => self.expire(edit)?,
        }
        Ok(())
    }

    fn halt(&mut self, error: &StoreError, out: &mut Outputs) {
        if self.halted.is_some() {
            return;
        }
        if self.link.listens_to(self.link.conn) {
            out.push(Output::Net(NetAction::Close { conn: self.link.conn }));
        }
        self.exchange = None;
        let (was_ready, polled) = (self.link.ready_since().is_some(), self.fallback.reached);
        self.fallback.reached = false;
        self.link.state = LinkState::Failed;
        self.halted = Some(error.clone());
        let reason = alloc::format!("the store has failed: {error}");
        for (collection, stream) in self.streams.iter_mut() {
            stream.detach();
            stream.lose_confirmation();
            let (collection, from_cache) = (collection.clone(), true);
            let status = ViewAction::Status { collection, from_cache, catching_up: false };
            out.push(Output::View(status));
        }
        let lost = EventKind::RealtimeDisconnected { reason: reason.clone() };
        let offline = EventKind::ConnectivityChanged { online: false };
        let lost = was_ready.then(|| Event::remote(lost));
        let offline = (was_ready || polled).then(|| Event::local(offline));
        out.extend(lost.into_iter().chain(offline).map(Output::Event));
        out.push(Output::Event(Event::local(EventKind::Error { message: reason })));
        out.push(Output::Halted(error.clone()));
    }

    /// Rebases every record whose writes are no longer frozen.
    pub(super) fn rebase_parked(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        for (collection, id) in edit.parked()? {
            if let Some(mut records) = self.records(&collection) {
                records.rebase_row(edit, &id)?;
            }
        }
        Ok(())
    }

    /// Returns the records of a collection, if it matters.
    pub(super) fn records<'a>(&'a mut self, collection: &'a Collection) -> Option<Records<'a>> {
        let decides_later = self.decides_later();
        Some(Records {
            collection,
            stream: self.streams.get_mut(collection)?,
            outbox: &mut self.outbox,
            plain: &mut self.plain,
            strategy: &self.config.conflict_strategy,
            on_server_loss: self.config.on_server_loss,
            epoch: self.epoch.as_ref(),
            decides_later,
        })
    }

    fn is_connecting(&self, conn: ConnId) -> bool {
        conn == self.link.conn && matches!(self.link.state, LinkState::Connecting { .. })
    }

    pub(super) fn ratchet(&mut self, now: Now) {
        self.slept |= self.has_slept(now);
        let mono = if planted!(WallClockDeadlines) {
            crate::protocol::time::Mono(now.wall.0.unsigned_abs())
        } else {
            now.mono
        };
        self.now = Now { mono: self.now.mono.max(mono), wall: now.wall };
        self.clock.look(self.now);
    }
}
