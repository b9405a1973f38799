//! The client's own thread: it owns the replica and its store, so that a slow disk never holds up
//! an async worker, and moves inputs and actions between them, the sockets and the app.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use synclayer_core::client::event::{Event, EventKind};
use synclayer_core::client::interface::{
    ClientConfig, HttpAnswer, Input, NetAction, SyncId, Written,
};
use synclayer_core::replica::{Effect, Replica as CoreReplica, WatchId};
use synclayer_core::rules::view::{RecordChange, Slot, Snapshot};
use synclayer_core::words::message::Token;
use synclayer_core::words::name::{Collection, CommitNumber, ConnId, RecordId};
use synclayer_core::words::store::{ClientStore, StoreError};
use synclayer_core::words::time::{Mono, Now, Timestamp};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::config::StoreFactory;
use crate::error::SyncError;
use crate::mailbox::Outlet;
use crate::socket::{Dialer, Heard, Report, Socket};
use crate::stream::Queue;

/// How many commands are handled before the watchers are told.
const RUN: usize = 256;
/// The first delay before a failed store is opened again; it doubles up to the longest.
const REOPEN_DELAY: Duration = Duration::from_millis(500);
const LONGEST_REOPEN_DELAY: Duration = Duration::from_secs(60);

/// The replica as this adapter has it.
pub(crate) type Replica = CoreReplica<Box<dyn ClientStore + Send>>;
/// What a call of the replica is to be followed by.
pub(crate) type Effects = Vec<Effect>;

/// What the engine's thread is told.
pub(crate) enum Command {
    /// The app calls.
    Call(Box<dyn FnOnce(&mut Engine) + Send>),
    /// A connection reports.
    Socket(Report),
    /// The store has made more durable, or can't.
    Durable,
    /// The client is no longer wanted.
    Stop,
}

impl From<Report> for Command {
    fn from(report: Report) -> Self {
        Self::Socket(report)
    }
}

/// What the engine works with, in every life of its replica.
pub(crate) struct Setup {
    pub(crate) config: ClientConfig,
    pub(crate) online: bool,
    pub(crate) factory: StoreFactory,
    pub(crate) dialer: Dialer,
    pub(crate) inbox: Sender<Command>,
}

pub(crate) struct Engine {
    setup: Setup,
    started: Instant,
    /// Which replica this is: reports that were meant for an earlier one are dropped.
    life: u64,
    replica: Result<Replica, Failure>,
    effects: Effects,
    socket: Option<(ConnId, Socket)>,
    saves: VecDeque<(CommitNumber, Answer)>,
    syncs: BTreeMap<SyncId, Answer>,
    /// Those of `syncs` that are through.
    done: Vec<Answer>,
    watchers: BTreeMap<WatchId, Watcher>,
    /// Watchers that could not begin because the store is down.
    waiting: Vec<Watcher>,
    /// The watchers that have something to be shown.
    news: Vec<WatchId>,
    listeners: Vec<Outlet<Queue>>,
    stopping: bool,
}

pub(crate) type Answer = oneshot::Sender<Result<(), SyncError>>;

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

impl Engine {
    /// Opens the store and the replica.
    pub(crate) fn open(mut setup: Setup) -> Result<Self, StoreError> {
        let started = Instant::now();
        let mut effects = Effects::new();
        let replica = open_replica(&mut setup, now(started), &mut effects)?;
        let mut engine = Self {
            setup,
            started,
            life: 0,
            replica: Ok(replica),
            effects,
            socket: None,
            saves: VecDeque::new(),
            syncs: BTreeMap::new(),
            done: Vec::new(),
            watchers: BTreeMap::new(),
            waiting: Vec::new(),
            news: Vec::new(),
            listeners: Vec::new(),
            stopping: false,
        };
        engine.act();
        engine.come_alive();
        engine.check_store();
        Ok(engine)
    }

    /// The thread's loop: waits for a command or the deadline, handles what there is, tells the
    /// watchers, until the client is no longer wanted and what was saved is durable.
    pub(crate) fn run(mut self, inbox: &Receiver<Command>) {
        while !self.is_done() {
            match self.wait(inbox) {
                Ok(first) => {
                    self.take(first);
                    inbox.try_iter().take(RUN).for_each(|command| self.take(command));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.keep_time();
            // a write that is answered is shown already
            self.deliver();
            self.answer();
        }
    }

    fn wait(&self, inbox: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        let patience = match &self.replica {
            Ok(replica) => replica.deadline().map(|(at, _)| at.since(self.now().mono)),
            Err(failure) => Some(failure.retry_at.saturating_duration_since(Instant::now())),
        };
        match patience {
            Some(patience) => inbox.recv_timeout(patience),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Call(call) => call(self),
            Command::Socket(report) if report.life == self.life => self.hear(report),
            Command::Socket(_) => {}
            Command::Durable => self.step(Replica::poll_store),
            Command::Stop => {
                self.stopping = true;
                self.step(Replica::disconnect);
            }
        }
        self.check_store();
    }

    fn hear(&mut self, Report { conn, heard, .. }: Report) {
        self.step(|replica, now, out| match &heard {
            Heard::Opened => replica.handle(now, Input::Connected { conn }, out),
            Heard::Alive => replica.handle(now, Input::Heard { conn }, out),
            Heard::Frame(frame) => {
                replica.handle(now, Input::Frame { conn, frame: &frame.bytes }, out);
            }
            Heard::Ended(why) => {
                replica.handle(now, Input::Disconnected { conn, why: why.clone() }, out);
            }
        });
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
    fn step(&mut self, step: impl FnOnce(&mut Replica, Now, &mut Effects)) {
        let now = self.now();
        let Ok(replica) = &mut self.replica else { return };
        step(replica, now, &mut self.effects);
        self.act();
    }

    fn act(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Net(NetAction::Connect { conn, token }) => {
                    let (life, inbox) = (self.life, self.setup.inbox.clone());
                    let socket = self.setup.dialer.dial(life, conn, token.as_ref(), inbox);
                    self.socket = Some((conn, socket));
                }
                Effect::Net(NetAction::Send { conn, frame }) => {
                    self.on(conn, |socket| socket.send(frame));
                }
                Effect::Net(NetAction::Ping { conn }) => self.on(conn, Socket::ping),
                Effect::Net(NetAction::Close { conn }) => {
                    self.socket.take_if(|(open, _)| *open == conn);
                }
                Effect::Net(NetAction::Request(ticket)) => {
                    let answer = HttpAnswer::Failed("this client has no HTTP".into());
                    let input = ticket.answer(answer);
                    self.step(|replica, now, out| replica.handle(now, input, out));
                }
                Effect::Event(event) => self.tell(&event),
                Effect::Synced(id) => self.done.extend(self.syncs.remove(&id)),
                // asked for when it is time to answer
                Effect::Durable(_) => {}
                Effect::Watch(id) => self.news.push(id),
            }
        }
    }

    fn on(&self, conn: ConnId, act: impl FnOnce(&Socket)) {
        if let Some((_, socket)) = self.socket.as_ref().filter(|(open, _)| *open == conn) {
            act(socket);
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
        for answer in saved.chain(self.done.drain(..)) {
            // whoever no longer waits has what it asked for all the same
            let _ = answer.send(Ok(()));
        }
    }

    fn is_done(&self) -> bool {
        self.stopping && (self.saves.is_empty() || self.replica.is_err())
    }

    fn now(&self) -> Now {
        now(self.started)
    }
}

/// The calls of the app.
impl Engine {
    /// Makes a write and answers when it is durable.
    pub(crate) fn save(
        &mut self,
        answer: Answer,
        write: impl FnOnce(&mut Replica, Now, &mut Effects) -> Result<Written, SyncError>,
    ) {
        match self.call(write) {
            Ok(written) => self.saves.push_back((written.commit, answer)),
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// Calls the replica and does its actions.
    pub(crate) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Replica, Now, &mut Effects) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        let now = self.now();
        let replica = match &mut self.replica {
            Ok(replica) => replica,
            Err(failure) => return Err(failure.error.clone().into()),
        };
        let result = call(replica, now, &mut self.effects);
        self.act();
        result
    }

    pub(crate) fn synced(&mut self, answer: Answer) {
        match self.call(|replica, now, out| Ok(replica.synced(now, out))) {
            Ok(id) => {
                self.syncs.insert(id, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    pub(crate) fn watch(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        outlet: Outlet<Slot>,
    ) {
        self.join(&collection);
        self.waiting.push(Watcher {
            collection,
            record,
            outlet,
            shown: Snapshot::default(),
            reopened: None,
        });
        self.begin_watching();
    }

    /// Forgets the watchers whose reader has gone.
    pub(crate) fn dismiss_watchers(&mut self) {
        self.waiting.retain(|watcher| !watcher.outlet.is_abandoned());
        self.watchers.retain(|id, watcher| {
            let stays = !watcher.outlet.is_abandoned();
            if !stays && let Ok(replica) = &mut self.replica {
                replica.unwatch(*id);
            }
            stays
        });
    }

    /// Keeps a collection in sync from its first use on, in this replica's life and the next.
    pub(crate) fn join(&mut self, collection: &Collection) {
        if !self.setup.config.collections.contains(collection) {
            self.setup.config.collections.push(collection.clone());
            self.step(|replica, now, out| replica.subscribe(now, collection, out));
        }
    }

    pub(crate) fn listen(&mut self, outlet: Outlet<Queue>) {
        self.listeners.push(outlet);
    }

    pub(crate) fn set_online(&mut self, online: bool) {
        self.setup.online = online;
        self.step(if online { Replica::connect } else { Replica::disconnect });
    }

    pub(crate) fn set_token(&mut self, token: Token) {
        self.setup.config.token = Some(token.clone());
        self.step(|replica, now, out| replica.set_token(now, token, out));
    }
}

/// The store's failures and recoveries.
impl Engine {
    /// Notices that the store has failed: the replica ends, and whoever waits learns why.
    fn check_store(&mut self) {
        let halted = |replica: &Replica| replica.client().halted().cloned();
        let Some(error) = self.replica.as_ref().ok().and_then(halted) else { return };
        // what was durable before is saved
        self.answer();
        self.socket = None;
        self.news.clear();
        for (_, mut watcher) in std::mem::take(&mut self.watchers) {
            watcher.reopened = Some(watcher.shown.clone());
            self.waiting.push(watcher);
        }
        let saves = self.saves.drain(..).map(|(_, answer)| answer);
        for answer in saves.chain(std::mem::take(&mut self.syncs).into_values()) {
            let _ = answer.send(Err(error.clone().into()));
        }
        let retry_at = Instant::now() + REOPEN_DELAY;
        // the store is closed before it is opened again
        self.replica = Err(Failure { error, retry_at, delay: REOPEN_DELAY });
    }

    fn reopen(&mut self) {
        let now = self.now();
        match open_replica(&mut self.setup, now, &mut self.effects) {
            Ok(replica) => {
                self.life += 1;
                self.replica = Ok(replica);
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
        if self.setup.online && !self.stopping {
            self.step(Replica::connect);
        }
    }

    /// Makes the watchers that wait known to the replica.
    fn begin_watching(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        while let Some(watcher) = self.waiting.pop() {
            let begun = match &watcher.record {
                None => replica.watch(&watcher.collection, &mut self.effects),
                Some(id) => replica.watch_record(&watcher.collection, id, &mut self.effects),
            };
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

fn open_replica(setup: &mut Setup, now: Now, effects: &mut Effects) -> Result<Replica, StoreError> {
    let inbox = setup.inbox.clone();
    let store = (setup.factory)(Box::new(move || {
        // an engine that has ended needs to know no more
        let _ = inbox.send(Command::Durable);
    }))?;
    let seed = Uuid::new_v4().as_u128();
    Replica::open(setup.config.clone(), seed, now, store, effects)
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
    use crate::config::SyncConfig;
    use crate::{SyncLayer, Watch};

    #[tokio::test]
    async fn a_watch_that_was_dropped_is_forgotten() {
        let config = SyncConfig {
            base_url: "http://localhost:1".into(),
            enable_realtime_sync: false,
            ..SyncConfig::default()
        };
        let sync = SyncLayer::open(config).await.unwrap();
        let todos = sync.collection("todos").unwrap();
        let watches: Vec<Watch> = (0..3).map(|_| todos.watch()).collect();
        assert_eq!(sync.ask(|engine| engine.watchers.len()).await, Ok(3));
        drop(watches);
        assert_eq!(sync.ask(|engine| engine.watchers.len()).await, Ok(0));
    }
}
