//! A whole client but sockets and clocks: the client machine joined to its store and its watchers.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::Client;
use crate::client::event::{Event, Status};
use crate::client::fate::{Fate, FateId, Fates};
use crate::client::interface::{
    Action, Actions, ClientConfig, Input, Misuse, NetAction, StoreAction, SyncId, SyncOutcome,
    Timer, ViewAction, Written,
};
use crate::client::wipe::Unsent;
use crate::rules::row::Rejected;
use crate::rules::view::{Record, RecordChange, Slot, Update, View};
use crate::sign_out::finish_wipes;
use crate::words::delta::Delta;
use crate::words::document::Document;
use crate::words::message::Token;
use crate::words::name::{Collection, CommitNumber, Position, RecordId};
use crate::words::store::{ClientStore, Rows, StoreError};
use crate::words::time::{Mono, Now};

/// A watcher, to be told from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// What is left to do for whoever drives a replica. To be done in order, waiting for none.
#[derive(PartialEq, Eq, Debug)]
pub enum Effect {
    /// For the network.
    Net(NetAction),
    /// For the app.
    Event(Event),
    /// A call of [`Replica::synced`] is answered.
    Synced {
        /// The call.
        id: SyncId,
        /// Its outcome.
        outcome: SyncOutcome,
    },
    /// The store has failed and the replica has stopped: it does nothing any more. Open the store
    /// anew, and a new replica on it. Said once, and last.
    Halted(StoreError),
    /// Every commit up to this one is durable: the writes in them are saved.
    Durable(CommitNumber),
    /// A write that is [followed](Replica::follow) has met its fate.
    Fate {
        /// Who is told.
        id: FateId,
        /// What became of it.
        fate: Fate,
    },
    /// A watcher has something to [take](Replica::take). Said once until it is taken.
    Watch(WatchId),
}

#[derive(Clone)]
struct Watcher {
    watched: Watched,
    slot: Slot,
}

/// A collection, or one record of it.
type Watched = (Collection, Option<RecordId>);

/// A client machine with its store and its watchers.
pub struct Replica<S> {
    client: Client,
    store: S,
    views: BTreeMap<Watched, View>,
    watchers: BTreeMap<WatchId, Watcher>,
    next_watch: WatchId,
    durable: CommitNumber,
    /// The last commit that was carried out.
    committed: CommitNumber,
    fates: Fates,
    actions: Actions,
}

/// A replica in the same state, for programs that explore what may follow.
impl<S: Clone> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            store: self.store.clone(),
            views: self.views.clone(),
            watchers: self.watchers.clone(),
            next_watch: self.next_watch,
            durable: self.durable,
            committed: self.committed,
            fates: self.fates.clone(),
            // every call carries out all of them
            actions: Actions::new(),
        }
    }
}

impl<S: ClientStore> Replica<S> {
    /// Wakes a replica up from its store. It stays offline until [`connect`](Self::connect).
    ///
    /// `seed` must be fresh for every opening: ids are drawn from it.
    ///
    /// # Errors
    /// When the store can't be read, or what it holds is damaged.
    pub fn open(
        config: ClientConfig,
        seed: u128,
        now: Now,
        mut store: S,
        out: &mut Vec<Effect>,
    ) -> Result<Self, StoreError> {
        let mut actions = Actions::new();
        let durable = store.durable()?;
        let last = finish_wipes(&mut store, durable)?;
        let client = Client::open(config, seed, now, last, store.rows(), &mut actions)?;
        let (views, watchers) = (BTreeMap::new(), BTreeMap::new());
        let next_watch = WatchId(0);
        let mut replica = Self {
            client,
            store,
            views,
            watchers,
            next_watch,
            durable,
            committed: last,
            fates: Fates::default(),
            actions,
        };
        replica.carry_out(now, out);
        Ok(replica)
    }

    /// The world speaks: see [`Client::handle`].
    ///
    /// What is durable only the store says: [`Input::Durable`] has it asked, as
    /// [`poll_store`](Self::poll_store) does, and a report of more than it has made durable counts
    /// for no more than that.
    ///
    /// # Panics
    /// In debug builds, when such a report says more than the store.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Effect>) {
        let reported = match &input {
            Input::Durable { up_to } => Some(*up_to),
            Input::Connected { .. }
            | Input::Frame { .. }
            | Input::Heard { .. }
            | Input::Disconnected { .. }
            | Input::Answered { .. }
            | Input::StoreFailed { .. }
            | Input::Timeout => None,
        };
        if reported.is_none() {
            self.client.handle(now, input, self.store.rows(), &mut self.actions);
        }
        self.carry_out(now, out);
        if let Some(up_to) = reported.filter(|_| self.client.halted().is_none()) {
            let durable = self.durable;
            debug_assert!(
                up_to <= durable,
                "the caller says that commit {up_to} is durable, the store says {durable}"
            );
        }
    }

    /// Asks the store what has become durable; to be called when it says that something has.
    pub fn poll_store(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.carry_out(now, out);
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`], and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        self.client.deadline()
    }

    /// How the replica is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.client.status()
    }

    /// Up to which commit everything is durable.
    #[must_use]
    pub fn durable(&self) -> CommitNumber {
        self.durable
    }

    /// The store, to look at.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for what it offers beside its contract.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back.
    #[must_use]
    pub fn into_store(self) -> S {
        self.store
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The reason why the replica has stopped, where its store has failed.
    #[must_use]
    pub fn halted(&self) -> Option<&StoreError> {
        self.client.halted()
    }

    /// Tells whether a collection is subscribed and not released.
    #[must_use]
    pub fn holds(&self, collection: &Collection) -> bool {
        self.client.holds(collection)
    }

    /// Tells whether a collection is shown as it was known earlier, not confirmed by the server in
    /// this time of contact with it, and whether it is catching up.
    #[must_use]
    pub fn standing(&self, collection: &Collection) -> (bool, bool) {
        self.client.standing(collection)
    }

    /// A hash of the whole state of the machine, for tests that compare runs.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.client.digest()
    }

    /// Tells whether writes are stamped by the server's clock by now. For tests.
    #[must_use]
    pub fn knows_server_time(&self) -> bool {
        self.client.knows_server_time()
    }

    /// Checks the invariants: see [`Client::check`].
    ///
    /// # Errors
    /// Says which invariant is broken.
    pub fn check(&self) -> Result<(), String> {
        self.client.check(self.store.rows())
    }

    /// Checks that the outbox moves: see [`Client::check_progress`].
    ///
    /// # Errors
    /// Says what does not.
    pub fn check_progress(&self) -> Result<(), String> {
        self.client.check_progress(self.store.rows())
    }

    /// Checks that nothing is left of what was only needed on the way: see
    /// [`Client::check_at_rest`]. Nobody may be watching any more.
    ///
    /// # Errors
    /// Says what is left.
    pub fn check_at_rest(&self) -> Result<(), String> {
        if !self.watchers.is_empty() || !self.views.is_empty() {
            return Err("a view is kept that nobody watches".into());
        }
        if !self.actions.is_empty() {
            return Err("actions were not carried out".into());
        }
        if !self.fates.is_empty() {
            return Err("the fate of a write is still waited for".into());
        }
        self.client.check_at_rest(self.store.rows())
    }

    /// How many records have changes of others waiting beside writes whose verdict is due. For
    /// tests.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.client.parked(self.store.rows()).unwrap_or(0)
    }

    /// See [`Client::connect`].
    pub fn connect(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.client.connect(now, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::disconnect`].
    pub fn disconnect(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.client.disconnect(now, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::set_token`].
    pub fn set_token(&mut self, now: Now, token: Token, out: &mut Vec<Effect>) {
        self.client.set_token(now, token, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::set_online`].
    pub fn set_online(&mut self, now: Now, online: bool, out: &mut Vec<Effect>) {
        self.client.set_online(now, online, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::sync_now`].
    pub fn sync_now(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.client.sync_now(now, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::subscribe`].
    pub fn subscribe(&mut self, now: Now, collection: &Collection, out: &mut Vec<Effect>) {
        self.client.subscribe(now, collection, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::unsubscribe`].
    pub fn unsubscribe(&mut self, now: Now, collection: &Collection, out: &mut Vec<Effect>) {
        self.client.unsubscribe(now, collection, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::release`].
    pub fn release(&mut self, now: Now, collection: &Collection, out: &mut Vec<Effect>) {
        self.client.release(now, collection, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
    }

    /// See [`Client::synced`].
    pub fn synced(&mut self, now: Now, out: &mut Vec<Effect>) -> SyncId {
        let id = self.client.synced(now, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
        id
    }

    /// See [`Client::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(
        &mut self,
        now: Now,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.save(now, collection, id, document, rows, actions)
        })
    }

    /// See [`Client::update`].
    ///
    /// # Errors
    /// As there.
    pub fn update(
        &mut self,
        now: Now,
        collection: &Collection,
        id: &RecordId,
        delta: &Delta,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.update(now, collection, id, delta, rows, actions)
        })
    }

    /// See [`Client::modify`].
    ///
    /// # Errors
    /// As there.
    pub fn modify(
        &mut self,
        now: Now,
        collection: &Collection,
        id: &RecordId,
        change: impl FnOnce(Option<&Document>) -> Result<Option<Document>, Misuse>,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.modify(now, collection, id, change, rows, actions)
        })
    }

    /// See [`Client::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(
        &mut self,
        now: Now,
        collection: &Collection,
        id: &RecordId,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.delete(now, collection, id, rows, actions)
        })
    }

    /// See [`Client::retry_rejected`].
    ///
    /// # Errors
    /// As there.
    pub fn retry_rejected(
        &mut self,
        now: Now,
        write: Position,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.retry_rejected(now, write, rows, actions)
        })
    }

    /// See [`Client::discard_rejected`].
    ///
    /// # Errors
    /// As there.
    pub fn discard_rejected(
        &mut self,
        now: Now,
        write: Position,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.discard_rejected(now, write, rows, actions)
        })
    }

    /// See [`Client::reject_stalled_write`].
    ///
    /// # Errors
    /// As there.
    pub fn reject_stalled_write(
        &mut self,
        now: Now,
        write: Position,
        out: &mut Vec<Effect>,
    ) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| {
            client.reject_stalled_write(now, write, rows, actions)
        })
    }

    /// See [`Client::adopt`].
    ///
    /// # Errors
    /// As there.
    pub fn adopt(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| client.adopt(now, rows, actions))
    }

    /// See [`Client::offer`].
    ///
    /// # Errors
    /// As there.
    pub fn offer(&mut self, now: Now, out: &mut Vec<Effect>) -> Result<Written, Misuse> {
        self.write(now, out, |client, rows, actions| client.offer(now, rows, actions))
    }

    /// The writes that the server has refused for good, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn rejected(&self) -> Result<Vec<Rejected>, StoreError> {
        self.client.rejected(self.store.rows())
    }

    /// See [`Client::unsent`].
    ///
    /// # Errors
    /// As there.
    pub fn unsent(&self) -> Result<Unsent, StoreError> {
        self.client.unsent(self.store.rows())
    }

    /// A record as the app sees it, with its pending writes made.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn get(
        &self,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<Record>, StoreError> {
        self.client.get(collection, id, self.store.rows())
    }

    /// All records of a collection in order of their ids.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn get_all(&self, collection: &Collection) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.client.each(collection, self.store.rows(), &mut |record| records.push(record))?;
        Ok(records)
    }

    /// A new record id, drawn from the seed.
    pub fn new_record_id(&mut self, now: Now) -> Option<RecordId> {
        self.client.new_record_id(now)
    }

    /// Watches a collection: there is an update to [take](Self::take) at once, and again after
    /// every change. The first watcher of a collection reads it whole; a change afterwards costs
    /// O(log n).
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn watch(
        &mut self,
        collection: &Collection,
        out: &mut Vec<Effect>,
    ) -> Result<WatchId, StoreError> {
        let watched = (collection.clone(), None);
        if !self.views.contains_key(&watched) {
            self.begin_view(watched.clone(), View::new(self.get_all(collection)?));
        }
        Ok(self.begin_watching(watched, out))
    }

    /// As [`watch`](Self::watch), of one record alone: the others are neither read nor shown.
    ///
    /// # Errors
    /// As there.
    pub fn watch_record(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        out: &mut Vec<Effect>,
    ) -> Result<WatchId, StoreError> {
        let watched = (collection.clone(), Some(id.clone()));
        if !self.views.contains_key(&watched) {
            let stored = self.get(collection, id)?;
            self.begin_view(watched.clone(), View::of_record(id.clone(), stored));
        }
        Ok(self.begin_watching(watched, out))
    }

    fn begin_view(&mut self, watched: Watched, mut view: View) {
        let (from_cache, catching_up) = self.client.standing(&watched.0);
        view.set_status(from_cache, catching_up);
        self.views.insert(watched, view);
    }

    fn begin_watching(&mut self, watched: Watched, out: &mut Vec<Effect>) -> WatchId {
        let id = self.next_watch;
        self.next_watch = WatchId(id.0 + 1);
        if let Some(view) = self.views.get(&watched) {
            let slot = Slot::new(view.first_update());
            self.watchers.insert(id, Watcher { watched, slot });
            out.push(Effect::Watch(id));
        }
        id
    }

    /// What a watcher has not seen yet: the latest snapshot, and all changes since the last one
    /// that it took.
    pub fn take(&mut self, id: WatchId) -> Option<Update> {
        self.watchers.get_mut(&id)?.slot.take()
    }

    /// Ends a watcher. The last one of a collection or a record frees what was held for it.
    pub fn unwatch(&mut self, id: WatchId) {
        if let Some(Watcher { watched, .. }) = self.watchers.remove(&id)
            && !planted!(ViewKept)
            && !self.watchers.values().any(|watcher| watcher.watched == watched)
        {
            self.views.remove(&watched);
        }
    }

    /// Asks to be told, by [`Effect::Fate`] and once, what becomes of a write. To be called right
    /// after the call that made it, and for writes that are waited for only, because each is kept
    /// until its fate is told or it is [given up](Self::unfollow). What a crash could undo is told
    /// when it is durable; a replica that is opened anew follows nothing.
    pub fn follow(&mut self, written: Written, out: &mut Vec<Effect>) -> FateId {
        match written.shares {
            Some(write) => self.fates.follow(write),
            None => {
                let (id, fate) = (self.fates.next_id(), Fate::Unchanged);
                out.push(Effect::Fate { id, fate });
                id
            }
        }
    }

    /// Ends a [`follow`](Self::follow): there is nobody to be told any more.
    pub fn unfollow(&mut self, id: FateId) {
        self.fates.unfollow(id);
    }

    /// Makes a write and carries it out; it was not made when its commit failed.
    fn write(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        write: impl FnOnce(&mut Client, &dyn Rows, &mut Actions) -> Result<Written, Misuse>,
    ) -> Result<Written, Misuse> {
        let written = write(&mut self.client, self.store.rows(), &mut self.actions);
        self.carry_out(now, out);
        match self.client.halted() {
            Some(error) => Err(Misuse::Store(error.clone())),
            None => written,
        }
    }

    /// Does the machine's actions until it has no more.
    fn carry_out(&mut self, now: Now, out: &mut Vec<Effect>) {
        loop {
            for action in core::mem::take(&mut self.actions) {
                if let Err(error) = self.act(action, out) {
                    // what follows a commit that failed must not be seen
                    self.fail(now, error);
                    break;
                }
            }
            self.report_durable(now, out);
            if self.actions.is_empty() {
                return;
            }
        }
    }

    fn act(&mut self, action: Action, out: &mut Vec<Effect>) -> Result<(), StoreError> {
        match action {
            Action::Store(StoreAction::Commit { number, batch }) => {
                self.store.commit(number, batch)?;
                self.committed = number;
            }
            Action::Store(StoreAction::Flush { up_to }) => self.store.flush(up_to)?,
            Action::View(action) => self.show(action, out),
            Action::Net(action) => out.push(Effect::Net(action)),
            Action::Event(event) => {
                let told = self.fates.hear(&event.kind, self.committed);
                out.push(Effect::Event(event));
                out.extend(told.into_iter().map(|(id, fate)| Effect::Fate { id, fate }));
            }
            Action::Halted(error) => out.push(Effect::Halted(error)),
            Action::Synced { id, outcome } => out.push(Effect::Synced { id, outcome }),
        }
        Ok(())
    }

    fn report_durable(&mut self, now: Now, out: &mut Vec<Effect>) {
        match self.store.durable() {
            Ok(up_to) if up_to > self.durable => {
                self.durable = up_to;
                out.push(Effect::Durable(up_to));
                let told = self.fates.durable(up_to);
                out.extend(told.into_iter().map(|(id, fate)| Effect::Fate { id, fate }));
                let input = Input::Durable { up_to };
                self.client.handle(now, input, self.store.rows(), &mut self.actions);
            }
            Ok(_) => {}
            Err(error) => self.fail(now, error),
        }
    }

    fn fail(&mut self, now: Now, error: StoreError) {
        let input = Input::StoreFailed { error };
        self.client.handle(now, input, self.store.rows(), &mut self.actions);
    }

    fn show(&mut self, action: ViewAction, out: &mut Vec<Effect>) {
        match action {
            ViewAction::Record { collection, record_id, record } => {
                let of_record = (collection.clone(), Some(record_id.clone()));
                for watched in [(collection, None), of_record] {
                    let Some(view) = self.views.get_mut(&watched) else { continue };
                    let is_news = view.get(&record_id) != record.as_ref();
                    let change = view.apply(&record_id, record.clone());
                    if is_news {
                        self.tell_watchers(&watched, change, out);
                    }
                }
            }
            ViewAction::Status { collection, from_cache, catching_up } => {
                let views = self.views.range_mut((collection.clone(), None)..);
                let news: Vec<_> = views
                    .take_while(|(watched, _)| watched.0 == collection)
                    .filter_map(|(watched, view)| {
                        view.set_status(from_cache, catching_up).then(|| watched.clone())
                    })
                    .collect();
                news.iter().for_each(|watched| self.tell_watchers(watched, None, out));
            }
        }
    }

    fn tell_watchers(
        &mut self,
        watched: &Watched,
        change: Option<RecordChange>,
        out: &mut Vec<Effect>,
    ) {
        let Some(view) = self.views.get(watched) else { return };
        for (id, watcher) in self.watchers.iter_mut().filter(|(_, w)| w.watched == *watched) {
            if watcher.slot.is_empty() {
                out.push(Effect::Watch(*id));
            }
            watcher.slot.put(view.snapshot(), change.clone());
        }
    }
}
