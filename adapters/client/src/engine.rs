//! What stands between a replica, its sockets and the app, in either client: it owns the replica and
//! its store on a thread of its own, and moves inputs and actions between them.

mod app;
mod fates;
mod holds;
mod leaving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use synclayer_core::client::event::{Event, EventKind};
use synclayer_core::client::interface::{
    ClientConfig, Command as ReplicaCommand, Input, NetAction, SyncId, SyncOutcome,
};
use synclayer_core::client::replica::{Action, Replica as CoreReplica, WatchId};
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::{Collection, CommitNumber, ConnId, RecordId};
use synclayer_core::protocol::time::{Mono, Now, Timestamp};
use synclayer_core::rules::view::{RecordChange, Slot, Snapshot};
use synclayer_core::store::{ClientStore, StoreError};
use uuid::Uuid;

pub use self::app::Made;
use self::fates::Followed;
pub use self::holds::Hold;
use self::leaving::Leaving;
use crate::call::HttpClient;
use crate::callback;
use crate::calls::Calls;
use crate::config::StoreFactory;
use crate::error::SyncError;
use crate::listen::EventQueue;
use crate::mailbox::Outlet;

/// The first delay before a failed store is opened again; it doubles up to the longest.
const REOPEN_DELAY: Duration = Duration::from_millis(500);
const LONGEST_REOPEN_DELAY: Duration = Duration::from_secs(60);

/// The replica as the clients have it.
pub type Replica = CoreReplica<Box<dyn ClientStore + Send>>;
/// What a call of the replica is to be followed by.
pub type Actions = Vec<Action>;
/// Whom to tell how a call ended. Where it is dropped, the client has ended.
pub type Answer<T = ()> = Box<dyn FnOnce(Result<T, SyncError>) + Send>;
/// Something to be done where it may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// What moves the bytes of an engine's connections, of which there is at most one at a time.
///
/// What is heard of a connection goes to [`Engine::hear`], and its end does so exactly once.
pub trait Network: Sized + 'static {
    /// Starts a connection for the replica of this life. How long it may take is not decided here.
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>);

    /// Queues a text frame, if the connection is still there.
    fn send(&mut self, conn: ConnId, frame: Bytes);

    /// Queues a ping, if the connection is still there.
    fn ping(&mut self, conn: ConnId);

    /// Ends a connection, if it is still there. Nobody listens to it any more.
    fn close(&mut self, conn: ConnId);

    /// Ends every connection, whichever it is.
    fn close_all(&mut self);

    /// Does something where it may block.
    fn run(&mut self, job: Job);
}

/// Something for an engine to do.
pub type Call<N> = Box<dyn FnOnce(&mut Engine<N>) + Send>;

/// What an engine is told.
pub enum Command<N: Network> {
    /// To do something.
    Call(Call<N>),
    /// The store has made more durable, or can't.
    Durable,
    /// The client is no longer wanted.
    Stop,
}

/// Where an engine is told what to do, from any thread.
pub struct Inbox<N: Network> {
    commands: Sender<Command<N>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Whether the user has signed out.
    signed_out: Arc<AtomicBool>,
}

impl<N: Network> Inbox<N> {
    /// An inbox, and what it is emptied by. `wake` is called after something was put in: it does
    /// nothing where the receiver is waited for.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> (Self, Receiver<Command<N>>) {
        let (commands, inbox) = channel();
        (Self { commands, wake: Arc::new(wake), signed_out: Arc::default() }, inbox)
    }

    /// Puts a command in. Where the engine has ended it is dropped, with what it holds.
    pub fn put(&self, command: Command<N>) {
        // nobody to be told: what the command holds is dropped with it, and that tells
        if self.commands.send(command).is_ok() {
            (self.wake)();
        }
    }

    /// Checks that the engine answers.
    ///
    /// # Errors
    /// When the user has signed out, or the call is made from inside a callback.
    pub fn check(&self) -> Result<(), SyncError> {
        if self.signed_out.load(Ordering::Relaxed) {
            return Err(SyncError::SignedOut);
        }
        callback::check()
    }

    /// Why an engine that has ended gives no answer.
    #[must_use]
    pub fn closed(&self) -> SyncError {
        if self.signed_out.load(Ordering::Relaxed) {
            return SyncError::SignedOut;
        }
        SyncError::Closed
    }

    /// The user has signed out.
    fn sign_out(&self) {
        self.signed_out.store(true, Ordering::Relaxed);
    }

    /// Has the engine do something, and does not wait for it.
    pub fn tell(&self, call: impl FnOnce(&mut Engine<N>) + Send + 'static) {
        self.put(Command::Call(Box::new(call)));
    }
}

impl<N: Network> Clone for Inbox<N> {
    fn clone(&self) -> Self {
        let (wake, signed_out) = (Arc::clone(&self.wake), Arc::clone(&self.signed_out));
        Self { commands: self.commands.clone(), wake, signed_out }
    }
}

/// What an engine works with, in every life of its replica.
pub struct Parts<N: Network> {
    /// How the machine is configured.
    pub config: ClientConfig,
    /// Whether to connect at once.
    pub connected: bool,
    /// What opens the store.
    pub factory: StoreFactory,
    /// What makes HTTP calls, where any are made.
    pub http: Option<HttpClient>,
    /// What moves the bytes of the connections.
    pub network: N,
    /// Where the engine is told what to do.
    pub inbox: Inbox<N>,
}

/// A replica that lives: with its clock, its connections, and those who use it.
///
/// Whoever drives it waits for a command or until [`patience`](Self::patience) is over, then
/// [takes](Self::take) the commands there are, and ends the [turn](Self::turn).
pub struct Engine<N: Network> {
    config: ClientConfig,
    connected: bool,
    /// Whether the app says that there is a network.
    online: bool,
    factory: StoreFactory,
    network: N,
    inbox: Inbox<N>,
    calls: Calls,
    started: Instant,
    /// Which replica this is: what was meant for an earlier one is dropped.
    life: u64,
    replica: Result<Replica, Failure>,
    /// Why the replica has stopped, until that is seen to.
    halted: Option<StoreError>,
    effects: Actions,
    saves: VecDeque<(CommitNumber, Answer)>,
    /// Writes whose fate is followed.
    fates: Followed,
    syncs: BTreeMap<SyncId, Answer>,
    /// Those of `syncs` that are through.
    done: Vec<(Answer, SyncOutcome)>,
    /// How many handles and watches use each collection.
    holds: BTreeMap<Collection, usize>,
    /// The collections that the configuration names.
    named: BTreeSet<Collection>,
    watchers: BTreeMap<WatchId, Watcher>,
    /// Watchers that could not begin because the store is down.
    waiting: Vec<Watcher>,
    /// The watchers that have something to be shown.
    news: Vec<WatchId>,
    listeners: Vec<Outlet<EventQueue>>,
    stopping: bool,
    /// The user who signs out, if so.
    leaving: Option<Leaving>,
}

/// A store that has failed, and when it is opened again.
struct Failure {
    error: StoreError,
    retry_at: Instant,
    delay: Duration,
}

struct Watcher {
    collection: Collection,
    record: Option<RecordId>,
    outlet: Outlet<Slot>,
    /// What the app was shown last.
    shown: Snapshot,
    /// The same, while the replica that showed it is gone and the next has shown nothing.
    reopened: Option<Snapshot>,
}

impl<N: Network> Engine<N> {
    /// Opens the store and the replica.
    ///
    /// # Errors
    /// When the store can't be opened, or what it holds is damaged.
    pub fn open(parts: Parts<N>) -> Result<Self, StoreError> {
        let Parts { config, connected, mut factory, http, network, inbox } = parts;
        let started = Instant::now();
        let named = config.collections.iter().cloned().collect();
        let mut effects = Actions::new();
        let replica = open_replica(&config, &mut factory, &inbox, now(started), &mut effects)?;
        let mut engine = Self {
            config,
            connected,
            online: true,
            factory,
            network,
            inbox,
            calls: Calls::new(http),
            started,
            life: 0,
            replica: Ok(replica),
            halted: None,
            effects,
            saves: VecDeque::new(),
            fates: Followed::default(),
            syncs: BTreeMap::new(),
            done: Vec::new(),
            holds: BTreeMap::new(),
            named,
            watchers: BTreeMap::new(),
            waiting: Vec::new(),
            news: Vec::new(),
            listeners: Vec::new(),
            stopping: false,
            leaving: None,
        };
        engine.act();
        engine.come_alive();
        engine.check_store();
        Ok(engine)
    }

    /// For how long there is nothing to do unless a command comes; `None`: for ever.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        if let Some(leaving) = &self.leaving {
            return leaving.patience();
        }
        match &self.replica {
            Ok(replica) => replica.deadline().map(|(at, _)| at.since(self.now().mono)),
            Err(failure) => Some(failure.retry_at.saturating_duration_since(Instant::now())),
        }
    }

    /// Does what a command says.
    pub fn take(&mut self, command: Command<N>) {
        match command {
            Command::Call(call) => call(self),
            Command::Durable => self.step(Replica::poll_store),
            Command::Stop => {
                self.stopping = true;
                self.command(ReplicaCommand::Disconnect);
            }
        }
        self.check_store();
    }

    /// Hears what a connection has to say to the replica of this life.
    pub fn hear(&mut self, life: u64, input: Input<'_>) {
        if life == self.life {
            self.step(|replica, now, out| replica.handle(now, input, out));
            self.check_store();
        }
    }

    /// Ends a turn: does what is due by now, shows the watchers what is new, and then answers, so
    /// that a write that is answered is shown already.
    pub fn turn(&mut self) {
        if self.leaving.is_some() {
            return self.depart();
        }
        self.keep_time();
        self.deliver();
        self.answer();
    }

    /// Whether the client is no longer wanted, and what was saved is durable.
    #[must_use]
    pub fn is_done(&self) -> bool {
        if let Some(leaving) = &self.leaving {
            return leaving.is_over();
        }
        self.stopping && (self.saves.is_empty() || self.replica.is_err())
    }

    /// What moves the bytes of the connections.
    pub fn network(&mut self) -> &mut N {
        &mut self.network
    }

    /// Hears the answer to an HTTP call.
    pub(crate) fn answered(&mut self, life: u64, input: Input<'_>) {
        self.calls.ended();
        self.hear(life, input);
        self.make_calls();
    }

    /// Does what is due by now.
    fn keep_time(&mut self) {
        match &self.replica {
            Ok(replica) => {
                if replica.deadline().is_some_and(|(at, _)| at <= self.now().mono) {
                    self.step(|replica, now, out| replica.handle(now, Input::Timeout, out));
                    self.check_store();
                }
            }
            Err(failure) if failure.retry_at <= Instant::now() => self.reopen(),
            Err(_) => {}
        }
    }

    /// Runs a step of the replica and does its actions. Nothing happens while the store is down.
    fn command(&mut self, command: ReplicaCommand) {
        self.step(|replica, now, out| replica.command(now, command, out));
    }

    fn step(&mut self, step: impl FnOnce(&mut Replica, Now, &mut Actions)) {
        let now = self.now();
        let Ok(replica) = &mut self.replica else { return };
        callback::run(|| step(replica, now, &mut self.effects));
        self.act();
    }

    fn act(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Action::Net(NetAction::Connect { conn, token }) => {
                    self.network.connect(self.life, conn, token.as_ref());
                }
                Action::Net(NetAction::Send { conn, frame }) => self.network.send(conn, frame),
                Action::Net(NetAction::Ping { conn }) => self.network.ping(conn),
                Action::Net(NetAction::Close { conn }) => self.network.close(conn),
                Action::Net(NetAction::Request(ticket)) => self.calls.push(self.life, ticket),
                Action::Event(event) => self.tell(&event),
                Action::Synced { id, outcome } => {
                    self.done.extend(self.syncs.remove(&id).map(|answer| (answer, outcome)));
                }
                Action::Fate { id, fate } => self.fates.met(id, fate),
                // asked for when it is time to answer
                Action::Durable(_) => {}
                Action::Halted(error) => self.halted = Some(error),
                Action::Watch(id) => self.news.push(id),
            }
        }
        self.make_calls();
    }

    fn make_calls(&mut self) {
        while let Some(job) = self.calls.next(&self.inbox) {
            self.network.run(job);
        }
    }

    fn tell(&mut self, event: &Event) {
        self.listeners.retain(|listener| !listener.is_abandoned());
        for listener in &self.listeners {
            listener.put(|queue| queue.push(event.clone()));
        }
    }

    /// Shows the watchers what is new.
    fn deliver(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        for id in std::mem::take(&mut self.news) {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && let Some(update) = replica.take(id)
            {
                watcher.show(update.snapshot, update.changes);
            }
        }
    }

    /// Answers the writes that are durable by now, and whoever waited for the server.
    fn answer(&mut self) {
        let Ok(replica) = &self.replica else { return };
        let durable = self.saves.partition_point(|(commit, _)| *commit <= replica.durable());
        let saved = self.saves.drain(..durable).map(|(_, answer)| answer);
        saved.for_each(|answer| answer(Ok(())));
        self.fates.tell();
        for (answer, outcome) in self.done.drain(..) {
            answer(outcome.map_err(SyncError::NotInSync));
        }
    }

    fn now(&self) -> Now {
        now(self.started)
    }
}

/// The store's failures and recoveries.
impl<N: Network> Engine<N> {
    /// Notices that the store has failed: the replica ends, and whoever waits learns why.
    fn check_store(&mut self) {
        let Some(error) = self.halted.take() else { return };
        // what was durable before is saved
        self.answer();
        self.network.close_all();
        self.calls.forget();
        self.news.clear();
        for (_, mut watcher) in std::mem::take(&mut self.watchers) {
            watcher.reopened = Some(watcher.shown.clone());
            self.waiting.push(watcher);
        }
        let saves = self.saves.drain(..).map(|(_, answer)| answer);
        for answer in saves.chain(std::mem::take(&mut self.syncs).into_values()) {
            answer(Err(error.clone().into()));
        }
        self.fates.end(&error.clone().into());
        let retry_at = Instant::now() + REOPEN_DELAY;
        // the store is closed before it is opened again
        self.replica = Err(Failure { error, retry_at, delay: REOPEN_DELAY });
    }

    fn reopen(&mut self) {
        let now = self.now();
        let opened =
            open_replica(&self.config, &mut self.factory, &self.inbox, now, &mut self.effects);
        match opened {
            Ok(replica) => {
                self.life += 1;
                self.replica = Ok(replica);
                self.release_unheld();
                self.come_alive();
                self.begin_watching();
                self.check_store();
            }
            Err(error) => {
                self.tell(&Event {
                    kind: EventKind::Error {
                        message: format!("the store could not be opened again: {error}"),
                    },
                    transport: None,
                    collection: None,
                    record_id: None,
                });
                if let Err(failure) = &mut self.replica {
                    let delay = (failure.delay * 2).min(LONGEST_REOPEN_DELAY);
                    *failure = Failure { error, retry_at: Instant::now() + delay, delay };
                }
            }
        }
    }

    fn come_alive(&mut self) {
        if !self.online {
            self.command(ReplicaCommand::SetOnline(false));
        }
        if self.connected && !self.stopping {
            self.command(ReplicaCommand::Connect);
        }
    }

    /// Makes the watchers that wait known to the replica.
    fn begin_watching(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        while let Some(watcher) = self.waiting.pop() {
            let begun = callback::run(|| match &watcher.record {
                None => replica.watch(&watcher.collection, &mut self.effects),
                Some(id) => replica.watch_record(&watcher.collection, id, &mut self.effects),
            });
            match begun {
                Ok(id) => {
                    self.watchers.insert(id, watcher);
                }
                // the failing store is noticed, and the watchers begin when it is reopened
                Err(_) => {
                    self.waiting.push(watcher);
                    break;
                }
            }
        }
        self.act();
    }
}

impl Watcher {
    /// Shows a snapshot, and what changed: where the app was shown an earlier replica's, how this
    /// one differs from it.
    fn show(&mut self, snapshot: Snapshot, changes: Vec<RecordChange>) {
        let changes = match self.reopened.take() {
            Some(shown) => snapshot.changes_since(&shown),
            None => changes,
        };
        self.shown = snapshot.clone();
        self.outlet.put(|slot| slot.put(snapshot, changes));
    }
}

fn open_replica<N: Network>(
    config: &ClientConfig,
    factory: &mut StoreFactory,
    inbox: &Inbox<N>,
    now: Now,
    effects: &mut Actions,
) -> Result<Replica, StoreError> {
    let inbox = inbox.clone();
    let on_durable = Box::new(move || inbox.put(Command::Durable));
    let seed = Uuid::new_v4().as_u128();
    callback::run(|| Replica::open(config.clone(), seed, now, factory(on_durable)?, effects))
}

/// Both clocks; the monotonic one counts from the start of the client.
fn now(started: Instant) -> Now {
    let millis = |duration: Duration| duration.as_millis();
    let mono = Mono(u64::try_from(millis(started.elapsed())).unwrap_or(u64::MAX));
    let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(millis(since)).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(millis(before.duration())).map_or(i64::MIN, |ms| -ms),
    };
    Now { mono, wall: Timestamp(wall) }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use synclayer_core::client::interface::Write;
    use synclayer_core::protocol::document::Document;
    use synclayer_core::protocol::limits::Limits;
    use synclayer_core::store::MemoryClientStore;
    use synclayer_core::store::StoreErrorKind;

    use super::*;
    use crate::mailbox::mailbox;

    /// A network without a wire, on which every job is dropped.
    struct Nowhere;

    impl Network for Nowhere {
        fn connect(&mut self, _: u64, _: ConnId, _: Option<&Token>) {}
        fn send(&mut self, _: ConnId, _: Bytes) {}
        fn ping(&mut self, _: ConnId) {}
        fn close(&mut self, _: ConnId) {}
        fn close_all(&mut self) {}
        fn run(&mut self, _: Job) {}
    }

    fn open(config: ClientConfig) -> (Engine<Nowhere>, Receiver<Command<Nowhere>>) {
        let (inbox, commands) = Inbox::new(|| {});
        let parts = Parts {
            config,
            connected: true,
            factory: Box::new(|_| Ok(Box::new(MemoryClientStore::new()))),
            http: None,
            network: Nowhere,
            inbox,
        };
        (Engine::open(parts).unwrap(), commands)
    }

    #[test]
    fn a_call_that_is_never_made_is_answered_all_the_same() {
        let collections = vec![Collection::new("todos").unwrap()];
        let (mut engine, commands) =
            open(ClientConfig { http: true, websocket: false, collections, ..Default::default() });
        assert_eq!(engine.calls.running(), 1, "the hello");
        assert!(commands.try_iter().map(|command| engine.take(command)).count() == 1);
        assert_eq!(engine.calls.running(), 0);
        let status = engine.status().unwrap();
        assert_eq!(status.ignored_frames, 0, "the machine waited for it");
    }

    fn open_on(
        open: impl Fn() -> MemoryClientStore + Send + 'static,
    ) -> (Engine<Nowhere>, Receiver<Command<Nowhere>>) {
        let (inbox, commands) = Inbox::new(|| {});
        let parts = Parts {
            config: ClientConfig::default(),
            connected: false,
            factory: Box::new(move |_| Ok(Box::new(open()))),
            http: None,
            network: Nowhere,
            inbox,
        };
        (Engine::open(parts).unwrap(), commands)
    }

    fn save(engine: &mut Engine<Nowhere>, id: &str) -> Receiver<Result<Made, SyncError>> {
        let (answer, answered) = channel();
        let document =
            Document::parse(&format!("{{\"id\":\"{id}\"}}"), &Limits::default()).unwrap();
        let (todos, id) = (Collection::new("todos").unwrap(), RecordId::new(id).unwrap());
        let answer = Box::new(move |made| answer.send(made).unwrap());
        engine.write(Write::Save(todos, id, document), answer);
        engine.turn();
        answered
    }

    #[test]
    fn writes_that_nobody_waits_for_are_followed_no_longer() {
        let (mut engine, _commands) = open_on(MemoryClientStore::new);
        let kept = save(&mut engine, "kept").recv().unwrap().unwrap();
        for n in 0..5_000 {
            drop(save(&mut engine, &format!("r{n}")));
        }
        assert!(engine.fates.len() <= 1_024, "{}", engine.fates.len());
        let mut context = Context::from_waker(Waker::noop());
        assert!(kept.fate.poll(&mut context).is_pending());
        drop(engine);
        assert_eq!(kept.fate.poll(&mut context), Poll::Ready(Err(SyncError::Closed)));
    }

    #[test]
    fn a_store_that_fails_leaves_nobody_waiting() {
        let full = || StoreError::new(StoreErrorKind::Full, "there is no space left");
        let (mut engine, _commands) = open_on(move || {
            let mut store = MemoryClientStore::new();
            store.fail_commit(3, full());
            store
        });
        let first = save(&mut engine, "a").recv().unwrap().unwrap();
        assert_eq!(save(&mut engine, "b").recv().unwrap().map(drop), Err(full().into()));
        engine.take(Command::Durable);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(first.fate.poll(&mut context), Poll::Ready(Err(full().into())));
    }

    #[test]
    fn a_watcher_whose_reader_has_gone_is_forgotten() {
        let (mut engine, _commands) = open(ClientConfig::default());
        let todos = Collection::new("todos").unwrap();
        let inlets: Vec<_> = (0..3)
            .map(|_| {
                let (outlet, inlet) = mailbox(Slot::default());
                engine.watch(todos.clone(), None, outlet);
                inlet
            })
            .collect();
        assert_eq!(engine.watchers.len(), 3);
        drop(inlets);
        engine.dismiss_watchers();
        assert_eq!(engine.watchers.len(), 0);
    }
}
