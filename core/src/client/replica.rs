//! A whole client but sockets and clocks: the client machine joined to its store and its watchers.

mod check;
mod query;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::client::config::ClientConfig;
use crate::client::event::{Event, PendingWrite, Status};
use crate::client::fate::{Fate, FateId, Fates};
use crate::client::group::Group;
use crate::client::interface::{
    Command, Input, Misuse, NetAction, SyncId, SyncOutcome, Timer, Write, Written,
};
use crate::client::machine::Client;
use crate::client::output::{Output, Outputs, StoreAction, ViewAction};
use crate::client::queries::WatchedQueries;
use crate::client::sign_out::finish_wipes;
use crate::client::wipe::Unsent;
use crate::protocol::name::{Collection, CommitNumber, RecordId};
use crate::protocol::time::{Mono, Now};
use crate::rules::row::Rejected;
use crate::rules::view::{Filling, Record, RecordChange, Slot, Update, View};
use crate::store::{ClientStore, Layered, Scan, StoreError};

/// A watcher, to be told from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// An action for the driver of a replica. Do them in order, and wait for none.
#[derive(PartialEq, Eq, Debug)]
pub enum Action {
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
        /// The follower.
        id: FateId,
        /// The fate.
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
    queries: WatchedQueries,
    next_watch: WatchId,
    durable: CommitNumber,
    /// The last commit that was carried out.
    committed: CommitNumber,
    /// The store has not proved its rows, and they are not all counted yet.
    unproved: bool,
    fates: Fates,
    group: Group,
    actions: Outputs,
}

/// A replica in the same state, for programs that explore what may follow. Calls that share a commit
/// which was not made yet are not in it.
impl<S: Clone> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            store: self.store.clone(),
            views: self.views.clone(),
            watchers: self.watchers.clone(),
            queries: self.queries.clone(),
            next_watch: self.next_watch,
            durable: self.durable,
            committed: self.committed,
            unproved: self.unproved,
            fates: self.fates.clone(),
            group: Group::default(),
            // every call carries out all of them
            actions: Outputs::new(),
        }
    }
}

impl<S: ClientStore> Replica<S> {
    /// Wakes a replica up from its store. It stays offline until [`Command::Connect`].
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
        out: &mut Vec<Action>,
    ) -> Result<Self, StoreError> {
        let mut actions = Outputs::new();
        let durable = store.durable()?;
        let last = finish_wipes(&mut store, durable)?;
        let mut client = Client::open(config, seed, now, last, store.rows(), &mut actions)?;
        let unproved = !store.proves_rows();
        if !unproved {
            client.trust_rows();
        }
        let (views, watchers) = (BTreeMap::new(), BTreeMap::new());
        let mut replica = Self {
            client,
            store,
            views,
            watchers,
            queries: WatchedQueries::default(),
            next_watch: WatchId(0),
            durable,
            committed: last,
            unproved,
            fates: Fates::default(),
            group: Group::default(),
            actions,
        };
        replica.carry_out(now, out);
        Ok(replica)
    }

    /// Takes in what the world says. Never fails: what a peer does wrong costs its connection, and
    /// a failing store stops the replica, which [`Action::Halted`] tells.
    pub fn handle(&mut self, now: Now, input: Input<'_>, out: &mut Vec<Action>) {
        self.client.handle(now, input, &self.group.rows(self.store.rows()), &mut self.actions);
        self.carry_out(now, out);
    }

    /// Asks the store what has become durable; to be called when it says that something has.
    pub fn poll_store(&mut self, now: Now, out: &mut Vec<Action>) {
        self.carry_out(now, out);
    }

    /// When to call [`handle`](Self::handle) with [`Input::Timeout`], and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Mono, Timer)> {
        self.client.deadline()
    }

    /// Returns the state of the replica.
    #[must_use]
    pub fn status(&self) -> Status {
        self.client.status()
    }

    /// Up to which commit everything is durable.
    #[must_use]
    pub fn durable(&self) -> CommitNumber {
        self.durable
    }

    /// The store.
    #[must_use]
    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// The store, for tests that let it fail.
    pub(crate) fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back.
    #[must_use]
    pub(crate) fn into_store(self) -> S {
        self.store
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The reason why the replica has stopped, where its store has failed.
    #[must_use]
    pub(super) fn halted(&self) -> Option<&StoreError> {
        self.client.halted()
    }

    /// Tells whether a collection is subscribed and not released.
    #[must_use]
    pub fn holds(&self, collection: &Collection) -> bool {
        self.client.holds(collection)
    }

    /// Carries out a command of the app's.
    pub fn command(&mut self, now: Now, command: Command, out: &mut Vec<Action>) {
        self.client.command(now, command, &self.group.rows(self.store.rows()), &mut self.actions);
        self.carry_out(now, out);
    }

    /// Asks to be told, by [`Action::Synced`], when every write made before this call has its
    /// verdict and every collection in use was found in step with the server after it.
    ///
    /// The outcome names the collections that are not in step. A collection that the server refuses
    /// is one: the call waits for the writes and for the other collections, not for it. One that
    /// the server can't serve now and that is asked for again (`SERVER_ERROR`,
    /// `RATE_LIMIT_EXCEEDED`) is waited for, unless another one is refused, so that the outcome is
    /// known. Without a connection the call waits for one.
    pub fn synced(&mut self, now: Now, out: &mut Vec<Action>) -> SyncId {
        let rows = self.group.rows(self.store.rows());
        let id = self.client.synced(now, &rows, &mut self.actions);
        self.carry_out(now, out);
        id
    }

    /// Makes a write of the app's, in one commit.
    ///
    /// # Errors
    /// When the write can't be made, as its kind says; when a record would break a limit or the
    /// outbox is full; when the store has failed.
    pub fn write(
        &mut self,
        now: Now,
        write: Write,
        out: &mut Vec<Action>,
    ) -> Result<Written, Misuse> {
        let rows = self.group.rows(self.store.rows());
        let written = self.client.write(now, write, &rows, &mut self.actions);
        self.carry_out(now, out);
        // it was not made when its commit failed
        match self.client.halted() {
            Some(error) => Err(Misuse::Store(error.clone())),
            None => written,
        }
    }

    /// The writes that the server has refused for good, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn rejected(&self) -> Result<Vec<Rejected>, StoreError> {
        self.client.rejected(&self.rows())
    }

    /// The writes that wait for the server, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn pending(&self) -> Result<Vec<PendingWrite>, StoreError> {
        self.client.pending(&self.rows())
    }

    /// Returns the data that the user would lose if everything that the store holds of them were removed now.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(super) fn unsent(&self) -> Result<Unsent, StoreError> {
        self.client.unsent(&self.rows())
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
        self.client.get(collection, id, &self.rows())
    }

    /// Reads records as [`get`](Self::get) does, on any thread and beside the replica's owner, if the
    /// store has a [view](ClientStore::reader) for that. It sees every write that was made before. The
    /// store stays open until it is dropped.
    pub fn reader(
        &self,
    ) -> Option<
        impl Fn(&Collection, &RecordId) -> Result<Option<Record>, StoreError> + Send + Sync + use<S>,
    > {
        self.store.reader().map(|rows| self.client.reader(rows))
    }

    /// All records of a collection in order of their ids.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn get_all(&self, collection: &Collection) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        self.client.each(collection, &self.rows(), &mut |record| {
            records.push(record);
            Scan::Next
        })?;
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
        out: &mut Vec<Action>,
    ) -> Result<WatchId, StoreError> {
        let watched = (collection.clone(), None);
        if !self.views.contains_key(&watched) {
            let mut filling = Filling::default();
            self.client.each(collection, self.store.rows(), &mut |record| {
                filling.add(record);
                Scan::Next
            })?;
            self.begin_view(watched.clone(), filling.finish());
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
        out: &mut Vec<Action>,
    ) -> Result<WatchId, StoreError> {
        let watched = (collection.clone(), Some(id.clone()));
        if !self.views.contains_key(&watched) {
            let stored = self.get(collection, id)?;
            self.begin_view(watched.clone(), View::of_record(id.clone(), stored));
        }
        Ok(self.begin_watching(watched, out))
    }

    pub(super) fn new_watch(&mut self) -> WatchId {
        let id = self.next_watch;
        self.next_watch = WatchId(id.0 + 1);
        id
    }

    fn begin_view(&mut self, watched: Watched, mut view: View) {
        let (from_cache, catching_up) = self.client.standing(&watched.0);
        view.set_status(from_cache, catching_up);
        self.views.insert(watched, view);
    }

    fn begin_watching(&mut self, watched: Watched, out: &mut Vec<Action>) -> WatchId {
        let id = self.new_watch();
        if let Some(view) = self.views.get(&watched) {
            let slot = view.first_slot();
            self.watchers.insert(id, Watcher { watched, slot });
            out.push(Action::Watch(id));
        }
        id
    }

    /// Takes the news of a watcher: the latest snapshot, and all changes since the last one
    /// that it took.
    pub fn take(&mut self, id: WatchId) -> Option<Update> {
        self.watchers.get_mut(&id)?.slot.take()
    }

    /// Ends a watcher. The last one of a collection or a record frees what was held for it.
    pub fn unwatch(&mut self, id: WatchId) {
        self.queries.remove(id);
        if let Some(Watcher { watched, .. }) = self.watchers.remove(&id)
            && !self.watchers.values().any(|watcher| watcher.watched == watched)
        {
            self.views.remove(&watched);
        }
    }

    /// Asks to be told, by [`Action::Fate`] and once, what becomes of a write. To be called right
    /// after the call that made it, and for writes that are waited for only, because each is kept
    /// until its fate is told or it is [given up](Self::unfollow). What a crash could undo is told
    /// when it is durable; a replica that is opened anew follows nothing.
    pub fn follow(&mut self, written: Written, out: &mut Vec<Action>) -> FateId {
        match (written.transaction, written.shares) {
            (Some(transaction), _) => self.fates.follow_transaction(transaction),
            (None, Some(write)) => self.fates.follow(write),
            (None, None) => {
                let (id, fate) = (self.fates.next_id(), Fate::Unchanged);
                out.push(Action::Fate { id, fate });
                id
            }
        }
    }

    /// Ends a [`follow`](Self::follow): there is nobody to be told any more.
    pub fn unfollow(&mut self, id: FateId) {
        self.fates.unfollow(id);
    }

    /// Lets the calls that follow share one commit, until [`end_group`](Self::end_group). Later ones
    /// of them see the changes of earlier ones. Their actions wait for the commit: do not sleep
    /// before the group has ended.
    ///
    /// A group whose changes take very much memory is ended by itself, and begun anew.
    pub fn begin_group(&mut self) {
        self.group.open();
        self.client.begin_group();
    }

    /// Commits what the calls since [`begin_group`](Self::begin_group) have changed. If that fails,
    /// none of them has happened.
    pub fn end_group(&mut self, now: Now, out: &mut Vec<Action>) {
        self.client.end_group();
        self.actions.append(&mut self.group.close());
        self.carry_out(now, out);
    }

    /// The rows as the next call sees them.
    pub(crate) fn rows(&self) -> Layered<'_> {
        self.group.rows(self.store.rows())
    }

    /// Does the machine's actions until it has no more. In a group they wait for its end, unless the
    /// replica has stopped, which undoes the group.
    fn carry_out(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.group.is_open() {
            if self.client.halted().is_none() {
                self.group.take_in(&mut self.actions);
                if self.group.is_full() {
                    self.end_group(now, out);
                    self.begin_group();
                }
                return;
            }
            self.group = Group::default();
        }
        loop {
            for action in core::mem::take(&mut self.actions) {
                if let Err(error) = self.act(action, out) {
                    // what follows a commit that failed must not be seen
                    self.fail(now, error);
                    break;
                }
            }
            if let Err(error) = self.show_queries(out) {
                self.fail(now, error);
            }
            self.report_durable(now, out);
            if self.actions.is_empty() {
                return self.prove_rows();
            }
        }
    }

    /// Tells the store when all its rows have been counted.
    fn prove_rows(&mut self) {
        if self.unproved && self.client.has_counted_rows() {
            self.unproved = false;
            self.store.rows_are_proved();
        }
    }

    fn act(&mut self, action: Output, out: &mut Vec<Action>) -> Result<(), StoreError> {
        match action {
            Output::Store(StoreAction::Commit { number, batch }) => {
                // they show each commit by itself
                self.show_queries(out)?;
                self.store.commit(number, batch)?;
                self.committed = number;
            }
            Output::Store(StoreAction::Flush { up_to }) => self.store.flush(up_to)?,
            Output::View(action) => self.show(action, out),
            Output::Net(action) => out.push(Action::Net(action)),
            Output::Event(event) => {
                let told = self.fates.hear(&event.kind, self.committed);
                out.push(Action::Event(event));
                out.extend(told.into_iter().map(|(id, fate)| Action::Fate { id, fate }));
            }
            Output::Halted(error) => out.push(Action::Halted(error)),
            Output::Synced { id, outcome } => out.push(Action::Synced { id, outcome }),
        }
        Ok(())
    }

    fn report_durable(&mut self, now: Now, out: &mut Vec<Action>) {
        match self.store.durable() {
            Ok(up_to) if up_to > self.durable => {
                self.durable = up_to;
                out.push(Action::Durable(up_to));
                let told = self.fates.durable(up_to);
                out.extend(told.into_iter().map(|(id, fate)| Action::Fate { id, fate }));
                let rows = self.group.rows(self.store.rows());
                self.client.durable(now, up_to, &rows, &mut self.actions);
            }
            Ok(_) => {}
            Err(error) => self.fail(now, error),
        }
    }

    fn fail(&mut self, now: Now, error: StoreError) {
        let rows = self.group.rows(self.store.rows());
        self.client.fail(now, error, &rows, &mut self.actions);
    }

    fn show(&mut self, action: ViewAction, out: &mut Vec<Action>) {
        match action {
            ViewAction::Record { collection, record_id, record } => {
                self.queries.touch(&collection, &record_id, record.as_ref());
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
                let client = &self.client;
                self.queries
                    .set_complete(&collection, |scope| client.is_complete(&collection, scope));
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
        out: &mut Vec<Action>,
    ) {
        let Some(view) = self.views.get(watched) else { return };
        for (id, watcher) in self.watchers.iter_mut().filter(|(_, w)| w.watched == *watched) {
            if watcher.slot.is_empty() {
                out.push(Action::Watch(*id));
            }
            watcher.slot.put(view.snapshot(), change.clone());
        }
    }
}
