//! The machine itself: what it is made of, and how each input goes through it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use super::boot::{count, keys_of, new_identity, outbox_of, streams_of};
use super::clock::Clock;
use super::edit::{Edit, shown};
use super::event::{CollectionStatus, Event, EventKind, Status, Transport};
use super::exchange::Exchange;
use super::fallback::Fallback;
use super::interface::{ClientConfig, Input, NetAction, RequestId, SyncId, Timer};
use super::link::{Link, LinkState};
use super::outbox::{Outbox, Struggle};
use super::output::{Output, Outputs, StoreAction, ViewAction};
use super::plain::Plain;
use super::stream::Stream;
use super::wipe::Unsent;
use crate::rules::row::{
    Entry, Identity, Keys, Place, Rejected, Row, Slot, position_of, record_of,
};
use crate::rules::view::Record;
use crate::words::message::{ErrorCode, ErrorMessage, Features, Level, ServerMessage, Token};
use crate::words::name::{Collection, CommitNumber, ConnId, Epoch, Position, RecordId};
use crate::words::random::Random;
use crate::words::store::{Rows, Scan, StoreError};
use crate::words::time::{Mono, Now};
use crate::words::wire::{Incoming, decode_server};

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
    /// The streams of the collections that matter, see [`Client::stream`].
    pub(super) streams: BTreeMap<Collection, Stream>,
    /// The stream of a collection that does not matter.
    pub(super) nowhere: Stream,
    pub(super) link: Link,
    /// Whether records of some collection may be held that its server lacks.
    pub(super) short: bool,
    /// Whether the server was found to have another database since it last answered well.
    pub(super) at_other_database: bool,
    /// What the server has of the parts that it may lack, as of the last hello.
    pub(super) features: Features,
    /// The server's epoch, as of the last hello.
    pub(super) epoch: Option<Epoch>,
    /// When the last verdict came, or the first write without one was sent.
    pub(super) verdict_at: Mono,
    pub(super) struggle: Struggle,
    /// No write is sent before this time.
    pub(super) hold_until: Option<Mono>,
    /// Until when writes wait for their collection to catch up.
    pub(super) patience_until: Option<Mono>,
    /// Whether the device has slept since the last step.
    pub(super) slept: bool,
    pub(super) token_due: bool,
    /// Whether access was refused since the server last answered well.
    pub(super) token_needed: bool,
    /// Calls of `synced` that wait, each with the end of the outbox at that time.
    pub(super) syncs: Vec<(SyncId, Position)>,
    pub(super) next_sync: SyncId,
    /// The last call that the barrier under way answers.
    pub(super) barrier: Option<SyncId>,
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
    next_commit: CommitNumber,
    pub(super) durable: CommitNumber,
    /// The last commit that has to be durable before anything is sent.
    gate: CommitNumber,
    halted: Option<StoreError>,
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
            nowhere: Stream::default(),
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
            verdict_at: now.mono,
            struggle: Struggle::default(),
            hold_until: None,
            patience_until: None,
            slept: false,
            token_due: false,
            token_needed: false,
            syncs: Vec::new(),
            next_sync: SyncId(0),
            barrier: None,
            clock: Clock::new(now, seed),
            ignored_frames: 0,
            fallback: Fallback::default(),
            plain: Plain::default(),
            exchange: None,
            exchanges: 0,
            next_request: RequestId(0),
            next_commit: last_commit.next(),
            durable: last_commit,
            gate: last_commit,
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
            let last = if planted!(ReportBelieved) { up_to } else { client.last_commit() };
            let up_to = up_to.min(last);
            client.durable = client.durable.max(up_to);
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

    /// See [`Replica::connect`](crate::replica::Replica::connect).
    pub(crate) fn connect(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.wanted = true;
            client.try_at_once(edit, client.config.enable_auto_sync);
            Ok(())
        });
    }

    /// See [`Replica::disconnect`](crate::replica::Replica::disconnect).
    pub(crate) fn disconnect(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.wanted = false;
            client.give_everything_up(edit, "the app has disconnected");
            Ok(())
        });
    }

    /// See [`Replica::set_online`](crate::replica::Replica::set_online).
    pub(crate) fn set_online(
        &mut self,
        now: Now,
        online: bool,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.fallback.offline = !online;
            if online {
                client.probe_connection(edit);
                client.try_at_once(edit, client.config.enable_auto_sync);
            } else {
                client.give_everything_up(edit, "the app says that there is no network");
            }
            Ok(())
        });
    }

    /// See [`Replica::sync_now`](crate::replica::Replica::sync_now).
    pub(crate) fn sync_now(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.probe_connection(edit);
            client.ask_refused_again(true);
            if client.link.ready_since().is_some() {
                client.back_up(true);
            } else {
                client.try_at_once(edit, true);
            }
            Ok(())
        });
    }

    /// See [`Replica::set_token`](crate::replica::Replica::set_token).
    pub(crate) fn set_token(
        &mut self,
        now: Now,
        token: Token,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.config.token = Some(token);
            client.token_due = client.link.is_up();
            client.ask_refused_again(false);
            if core::mem::take(&mut client.token_needed) {
                client.forget_old_token(edit);
                client.try_at_once(edit, true);
            }
            Ok(())
        });
    }

    /// See [`Replica::subscribe`](crate::replica::Replica::subscribe).
    pub(crate) fn subscribe(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, _| {
            client.want(collection);
            client.stream(collection).held = true;
            Ok(())
        });
    }

    /// See [`Replica::unsubscribe`](crate::replica::Replica::unsubscribe).
    pub(crate) fn unsubscribe(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, edit| {
            client.leave(edit, collection);
            Ok(())
        });
    }

    /// See [`Replica::release`](crate::replica::Replica::release).
    pub(crate) fn release(
        &mut self,
        now: Now,
        collection: &Collection,
        store: &dyn Rows,
        out: &mut Outputs,
    ) {
        self.ratchet(now);
        let _ = self.step(store, out, |client, _| {
            if let Some(stream) = client.streams.get_mut(collection) {
                stream.held = false;
            }
            Ok(())
        });
    }

    /// Whether a collection is subscribed and not released.
    #[must_use]
    pub(crate) fn holds(&self, collection: &Collection) -> bool {
        self.streams.get(collection).is_some_and(|stream| stream.held)
    }

    /// See [`Replica::synced`](crate::replica::Replica::synced).
    pub(crate) fn synced(&mut self, now: Now, store: &dyn Rows, out: &mut Outputs) -> SyncId {
        self.ratchet(now);
        let id = self.next_sync;
        self.next_sync = SyncId(id.0 + 1);
        self.syncs.push((id, self.outbox.end()));
        let _ = self.step(store, out, |client, edit| {
            if client.at_other_database {
                client.fail_syncs(edit);
            }
            Ok(())
        });
        id
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
    fn outbox_deadlines(&self) -> [Option<(Mono, Timer)>; 5] {
        let ready = self.link.ready_since();
        let verdict = ready.is_some() && self.is_in_flight();
        let patience = ready.and(self.patience_until);
        let hold = ready.and(self.hold_until).filter(|_| !planted!(HoldWithoutDeadline));
        [
            verdict.then(|| (self.verdict_at + self.config.verdict_timeout, Timer::Verdict)),
            patience.map(|until| (until, Timer::Patience)),
            hold.map(|until| (until, Timer::Retry)),
            ready.and(self.resubscribe_at()).map(|at| (at, Timer::Resubscribe)),
            self.time_deadline().map(|at| (at, Timer::PingTimeout)),
        ]
    }

    fn is_in_flight(&self) -> bool {
        self.outbox.awaits_verdict()
    }

    /// How the replica is doing.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        let collection = |(name, stream): (&Collection, &Stream)| {
            let status = CollectionStatus {
                in_use: stream.wanted,
                live: stream.is_live(),
                catching_up: stream.is_catching_up(),
                cursor: stream.row.cursor.clone(),
                count: stream.row.count,
                checksum: stream.row.checksum,
                missing: stream.asks(),
            };
            (name.clone(), status)
        };
        let transport = self.transport();
        Status {
            connection: self.connection(),
            transport,
            level: transport.map(|_| self.level()),
            guarantees: transport.map(|_| self.offered()),
            client_id: self.identity.client_id.clone(),
            other_database: self.identity.other_database.clone(),
            pending_writes: self.outbox.len(),
            rejected_writes: self.rejected,
            collections: self.streams.iter().map(collection).collect(),
            clock_offset_ms: self.clock_offset_ms(),
            ignored_frames: self.ignored_frames,
            halted: self.halted.clone(),
        }
    }

    /// Whether what is held of a collection is not confirmed by the server in this time of contact
    /// with it, and whether the collection is catching up.
    #[must_use]
    pub(crate) fn standing(&self, collection: &Collection) -> (bool, bool) {
        let stream = self.streams.get(collection);
        let from_cache = stream.is_none_or(|stream| !stream.confirmed);
        (from_cache, stream.is_some_and(Stream::is_catching_up))
    }

    /// A record as the app sees it, with its pending writes made.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn get(
        &self,
        collection: &Collection,
        id: &RecordId,
        store: &dyn Rows,
    ) -> Result<Option<Record>, StoreError> {
        let row = store.get(&self.keys.row(collection, id))?.map(Row::decode).transpose()?;
        Ok(row.and_then(|row| shown(id, &row)))
    }

    /// Shows the records of a collection in order of their ids.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn each(
        &self,
        collection: &Collection,
        store: &dyn Rows,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(), StoreError> {
        let (from, to) = self.keys.rows(collection, None, None);
        store.scan(&from, &to, &mut |key, value| {
            let (_, id) = record_of(key)?;
            if let Some(record) = shown(&id, &Row::decode(value)?) {
                visit(record);
            }
            Ok(Scan::Next)
        })
    }

    /// The writes that the server has refused for good, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn rejected(&self, store: &dyn Rows) -> Result<Vec<Rejected>, StoreError> {
        let mut all = Vec::new();
        let (from, to) = self.keys.all_rejected();
        store.scan(&from, &to, &mut |key, value| {
            all.push(Rejected::decode(position_of(key)?, value)?);
            Ok(Scan::Next)
        })?;
        Ok(all)
    }

    /// See [`Replica::unsent`](crate::replica::Replica::unsent).
    pub(crate) fn unsent(&self, store: &dyn Rows) -> Result<Unsent, StoreError> {
        let mut unsent = Unsent::default();
        Edit::new(store, self.keys).places(Position(0), &mut |_, place| {
            // what is hollow was acknowledged
            if let Place::Entry(Entry { collection, record_id, .. }) = place {
                unsent.waiting += 1;
                unsent.name(&collection, &record_id);
            }
            Ok(Scan::Next)
        })?;
        let (from, to) = self.keys.all_rejected();
        store.scan(&from, &to, &mut |key, value| {
            let Rejected { collection, record_id, .. } =
                Rejected::decode(position_of(key)?, value)?;
            unsent.rejected += 1;
            unsent.name(&collection, &record_id);
            Ok(Scan::Next)
        })?;
        Ok(unsent)
    }

    /// Whose data this is.
    #[must_use]
    pub(crate) fn user(&self) -> &str {
        &self.config.user
    }

    /// A new record id, drawn from the seed.
    pub(crate) fn new_record_id(&mut self, now: Now) -> Option<RecordId> {
        self.random.record_id(now.wall)
    }

    /// Why the machine has stopped, where its store has failed.
    #[must_use]
    pub(crate) fn halted(&self) -> Option<&StoreError> {
        self.halted.as_ref()
    }

    /// The last commit that was made.
    #[must_use]
    pub(crate) fn last_commit(&self) -> CommitNumber {
        CommitNumber(self.next_commit.0 - 1)
    }

    /// A hash of the whole state, for tests that compare runs.
    #[must_use]
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        self.identity.hash(&mut hash);
        self.clock.hash(&mut hash);
        self.outbox.hash(&mut hash);
        self.streams.hash(&mut hash);
        self.link.hash(&mut hash);
        self.fallback.hash(&mut hash);
        self.exchange.hash(&mut hash);
        self.plain.hash(&mut hash);
        self.random.state().hash(&mut hash);
        self.struggle.hash(&mut hash);
        self.at_other_database.hash(&mut hash);
        (self.now.mono, self.verdict_at, self.hold_until, self.patience_until).hash(&mut hash);
        (self.next_commit, self.durable, self.gate, self.rejected).hash(&mut hash);
        hash.finish()
    }

    /// Checks what must always hold between the machine and its store. For tests: it reads the
    /// whole outbox.
    ///
    /// # Errors
    /// Says which invariant is broken.
    pub(crate) fn check(&self, store: &dyn Rows) -> Result<(), String> {
        let edit = Edit::new(store, self.keys);
        self.outbox.check(&edit)?;
        self.check_kept(store)
    }

    /// Checks that the outbox moves on a live connection: whatever is in it waits for a verdict, for
    /// the store, or for a deadline. For tests: it reads
    /// the first write that was not sent.
    ///
    /// # Errors
    /// Says which write waits for nothing.
    pub(crate) fn check_progress(&self, store: &dyn Rows) -> Result<(), String> {
        let level_2 = self.link.ready_since().is_some() && !self.plain.active;
        let waits_for_store = self.durable < self.gate;
        let waits = self.is_in_flight() || self.outbox_deadlines().iter().any(Option::is_some);
        if self.halted.is_some() || !level_2 || waits_for_store || waits {
            return Ok(());
        }
        let edit = Edit::new(store, self.keys);
        match self.outbox.first_unsent(&edit).map_err(|error| error.message)? {
            Some(position) if self.outbox.is_durable(position) => {
                Err(alloc::format!("write {position} lies in the outbox, and waits for nothing"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many records have changes of others waiting beside writes whose verdict is due. For
    /// tests.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn parked(&self, store: &dyn Rows) -> Result<usize, StoreError> {
        Ok(Edit::new(store, self.keys).parked()?.len())
    }

    /// Checks that nothing is left of what was only needed on the way. For tests, when every write
    /// has its verdict and every collection is live: it looks for changes that wait beside a base.
    ///
    /// # Errors
    /// Says what is left.
    pub(crate) fn check_at_rest(&self, store: &dyn Rows) -> Result<(), String> {
        self.outbox.check_at_rest()?;
        let parked = self.parked(store).map_err(|error| error.message)?;
        let left = [
            (parked > 0, "changes wait beside their base"),
            (!self.syncs.is_empty(), "calls of synced() wait"),
            (self.barrier.is_some(), "a barrier is under way"),
            (self.exchange.is_some(), "an exchange is under way"),
            (self.patience_until.is_some(), "writes wait for a catch-up"),
            (self.streams.values().any(|stream| stream.row.resume.is_some()), "a run was left"),
            (self.streams.values().any(Stream::is_short), "records are missing at the server"),
        ];
        match left.iter().find(|(is_left, _)| *is_left) {
            Some((_, what)) => Err((*what).into()),
            None => Ok(()),
        }
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
        next: Position,
        out: &mut Outputs,
    ) -> Result<(), StoreError> {
        let number = self.next_commit;
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
            self.gate = number;
        }
        if self.durable >= self.gate || planted!(SentBeforeDurable) {
            self.pump(&mut edit)?;
        }
        let (views, events) = (core::mem::take(&mut edit.views), core::mem::take(&mut edit.events));
        let (net, synced) = (core::mem::take(&mut edit.net), core::mem::take(&mut edit.synced));
        if !edit.is_empty() {
            let flush = edit.flush;
            self.next_commit = number.next();
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
                self.ignored_frames += 1;
            }
            Input::Disconnected { .. } => {}
            Input::Answered { request, answer } => self.answered(edit, request, answer)?,
            Input::Timeout => self.expire(edit)?,
        }
        Ok(())
    }

    fn read(&mut self, edit: &mut Edit<'_>, frame: &[u8]) -> Result<(), Fault> {
        let incoming = decode_server(frame, &self.config.limits)
            .map_err(|error| Fault::Peer(error.message))?;
        match incoming {
            Incoming::One(message) => self.obey(edit, message),
            Incoming::Batch(messages) => messages.into_iter().try_for_each(|message| {
                let message = message.map_err(|error| Fault::Peer(error.message))?;
                self.obey(edit, message)
            }),
        }
    }

    fn obey(&mut self, edit: &mut Edit<'_>, message: ServerMessage) -> Result<(), Fault> {
        let ready = self.link.ready_since().is_some();
        if !ready && Self::is_plain_word(&message) {
            self.meet_plain(edit)?;
        }
        if self.is_foreign(&message) {
            self.ignored_frames += 1;
            return Ok(());
        }
        if self.link.ready_since().is_some() && self.plain.active {
            return self.obey_plain(edit, message);
        }
        match message {
            ServerMessage::Pong { timestamp, welcome } => match (welcome, ready) {
                (Some(_), false) if !self.link.hello_is_out() => {
                    return Err(Fault::peer("it answers a hello that was not sent yet"));
                }
                (Some(welcome), false) => self.welcomed(edit, welcome, timestamp)?,
                (None, false) => self.ignored_frames += 1,
                (Some(_) | None, true) => self.ponged(edit, timestamp)?,
            },
            ServerMessage::Error(error) => self.complained(edit, error)?,
            ServerMessage::Authenticated { .. } => {}
            ServerMessage::Unknown { .. } => self.ignored_frames += 1,
            ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Change { .. }
            | ServerMessage::Sync { .. }
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
                if !ready =>
            {
                self.ignored_frames += 1;
            }
            ServerMessage::Subscribed { collection, head, mode, partial, .. } => {
                self.subscribed(edit, &collection, head, mode, partial)?;
            }
            ServerMessage::Unsubscribed { collection } => self.unsubscribed(edit, &collection),
            ServerMessage::Change { collection, record_id, change, filtered } => {
                self.changed(edit, &collection, &record_id, &change, filtered)?;
            }
            ServerMessage::Sync { collection, records, range } => {
                self.paged(edit, &collection, &records, range.as_ref())?;
            }
            ServerMessage::Synced { collection, cursor, count, checksum } => {
                self.synced_with(edit, &collection, cursor, count, checksum)?;
            }
            ServerMessage::Ack(ack) => self.acked(edit, ack)?,
        }
        Ok(())
    }

    /// The server has refused something.
    fn complained(&mut self, edit: &mut Edit<'_>, error: ErrorMessage) -> Result<(), Fault> {
        if let Some(number) = error.mutation {
            return self.refused(edit, number, error);
        }
        match (&error.code, error.collection.clone()) {
            (ErrorCode::AuthFailed | ErrorCode::AuthExpired, _) => {
                self.need_token(edit, error.code, error.message);
            }
            (ErrorCode::SessionSuperseded, _) => self.become_another(edit)?,
            (_, Some(collection)) if !self.matters(&collection) => self.ignored_frames += 1,
            (_, Some(collection)) => self.subscription_failed(edit, &collection, error),
            (ErrorCode::Unauthorized, None) if self.link.ready_since().is_none() => {
                self.need_token(edit, error.code, error.message);
            }
            (_, None) if self.link.ready_since().is_none() => {
                return Err(Fault::Peer(error.message));
            }
            (_, None) => edit.error(alloc::format!("{}: {}", error.code, error.message)),
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
        for (collection, stream) in &mut self.streams {
            stream.detach();
            stream.confirmed = false;
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

    pub(super) fn level(&self) -> Level {
        if self.plain.active { Level::Plain } else { Level::Resumable }
    }

    fn is_connecting(&self, conn: ConnId) -> bool {
        conn == self.link.conn && matches!(self.link.state, LinkState::Connecting { .. })
    }

    pub(super) fn ratchet(&mut self, now: Now) {
        self.slept |= self.has_slept(now);
        let mono = if planted!(WallClockDeadlines) {
            crate::words::time::Mono(now.wall.0.unsigned_abs())
        } else {
            now.mono
        };
        self.now = Now { mono: self.now.mono.max(mono), wall: now.wall };
        self.clock.look(self.now);
    }
}
