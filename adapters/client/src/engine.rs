//! The engine of a client: it owns the replica and its store on a thread of its own, and moves
//! commands, inputs and actions between them, the network and the app.

mod app;
mod failure;
mod fates;
mod holds;
mod reads;
mod requests;
mod sign_out;
mod statuses;
#[cfg(test)]
mod tests;
mod waiting;
mod watching;

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use synclayer_core::{
    Action, ClientConfig, ClientStore, Command, ConnId, Event, EventKind, Input, Mono, NetAction,
    Now, Replica as CoreReplica, StoreError, Timestamp,
};
use tracing::{debug, warn};

use self::failure::{FailedStore, open_replica};
use self::fates::FollowedFates;
use self::holds::Holds;
use self::reads::PublishedReads;
use self::requests::Requests;
use self::sign_out::SigningOut;
use self::statuses::StatusWatchers;
use self::waiting::WaitingCalls;
use self::watching::Watchers;
use crate::callback;
use crate::command::{EngineCommand, Inbox, SocketEvent};
use crate::config::StoreFactory;
use crate::listen::EventQueue;
use crate::mailbox::Sender;
use crate::metrics::Counts;
use crate::network::Network;
use crate::setup::Setup;

/// The number of commands that are taken before the watchers are shown what is new.
const BATCH: usize = 256;

type Replica = CoreReplica<Box<dyn ClientStore + Send>>;

/// A replica with its clock, its connections and its users.
pub(crate) struct Engine {
    config: ClientConfig,
    /// The app wants to be connected.
    connected: bool,
    /// There is a network, as far as the app says.
    online: bool,
    factory: StoreFactory,
    network: Box<dyn Network>,
    inbox: Inbox,
    requests: Requests,
    started: Instant,
    // dropped before the replica, whose store it holds open
    reads: PublishedReads,
    /// The number of this replica: input for an earlier one is dropped.
    life: u64,
    replica: Result<Replica, FailedStore>,
    /// The reason why the replica has stopped, until that is seen to.
    halted: Option<StoreError>,
    actions: Vec<Action>,
    calls: WaitingCalls,
    fates: FollowedFates,
    holds: Holds,
    /// `true` while a command is about a part of a collection, and does not use the whole.
    is_part: bool,
    watchers: Watchers,
    listeners: Vec<Sender<EventQueue>>,
    statuses: StatusWatchers,
    counts: Counts,
    stopping: bool,
    signing_out: Option<SigningOut>,
}

impl Engine {
    /// Opens the store and the replica.
    ///
    /// # Errors
    /// When the store can't be opened, or what it holds is damaged.
    pub(crate) fn open(
        setup: Setup,
        network: Box<dyn Network>,
        inbox: Inbox,
    ) -> Result<Self, StoreError> {
        let Setup { client: config, connected, mut factory, http, .. } = setup;
        let started = Instant::now();
        let mut actions = Vec::new();
        let replica = open_replica(&config, &mut factory, &inbox, now(started), &mut actions)?;
        let mut engine = Self {
            holds: Holds::new(&config.collections, &config.scopes),
            is_part: false,
            config,
            connected,
            online: true,
            factory,
            network,
            reads: PublishedReads::new(&inbox),
            inbox,
            requests: Requests::new(http),
            started,
            life: 0,
            replica: Ok(replica),
            halted: None,
            actions,
            calls: WaitingCalls::default(),
            fates: FollowedFates::default(),
            watchers: Watchers::default(),
            listeners: Vec::new(),
            statuses: StatusWatchers::default(),
            counts: Counts::default(),
            stopping: false,
            signing_out: None,
        };
        engine.publish_reads();
        engine.act();
        engine.start();
        engine.check_store();
        Ok(engine)
    }

    /// Runs until the client is no longer wanted, and then lets go of the store and the network.
    pub(crate) fn run(mut self, commands: &Receiver<EngineCommand>) {
        let mut more = true;
        while !self.is_done() {
            let timeout = if more { Some(Duration::ZERO) } else { self.timeout() };
            // without a place to sleep nothing can be heard, and the calls of the app end
            let Ok(first) = self.network.wait(commands, timeout) else { break };
            more = self.take_turn(first, commands);
            self.network.flush();
            self.end_turn();
            self.network.flush();
        }
        let (network, signing_out) = self.into_last_parts();
        network.shut_down();
        if let Some(signing_out) = signing_out {
            signing_out.reply();
        }
    }

    /// Lets the commands of a turn share one commit.
    fn begin_group(&mut self) {
        if let Ok(replica) = &mut self.replica {
            replica.begin_group();
        }
    }

    /// Commits what the commands since [`begin_group`](Self::begin_group) have changed.
    fn end_group(&mut self) {
        self.step(Replica::end_group);
        self.check_store();
    }

    /// Takes the commands there are in one commit, and returns `true` if there may be more.
    fn take_turn(
        &mut self,
        first: Option<EngineCommand>,
        commands: &Receiver<EngineCommand>,
    ) -> bool {
        self.begin_group();
        if let Some(first) = first {
            self.take(first);
        }
        let more = self.take_batch(commands);
        self.end_group();
        more
    }

    /// Takes the commands there are, and returns `true` if there may be more.
    fn take_batch(&mut self, commands: &Receiver<EngineCommand>) -> bool {
        for _ in 0..BATCH {
            let Some(command) = self.network.next(commands) else { return false };
            self.take(command);
        }
        true
    }

    /// Drops all but the parts that outlive the replica.
    fn into_last_parts(self) -> (Box<dyn Network>, Option<SigningOut>) {
        (self.network, self.signing_out)
    }

    /// Carries out a command.
    fn take(&mut self, command: EngineCommand) {
        self.reads.took(&command);
        self.take_counted(command);
        self.check_store();
    }

    /// Carries out a command that is counted.
    fn take_counted(&mut self, command: EngineCommand) {
        match command {
            EngineCommand::Part(command) => {
                self.is_part = true;
                self.take_counted(*command);
                self.is_part = false;
            }
            EngineCommand::Write { id, write, reply } => self.write(id, write, reply),
            EngineCommand::Transact { parts, touched, reply } => {
                self.transact(parts, &touched, reply);
            }
            EngineCommand::Retry { write, reply } => self.retry(write, reply),
            EngineCommand::Decide { write, reply } => self.decide(write, reply),
            EngineCommand::Get { collection, id, reply } => reply.send(self.get(&collection, &id)),
            EngineCommand::GetAll { collection, reply } => reply.send(self.get_all(&collection)),
            EngineCommand::Query { collection, query, reply } => {
                reply.send(self.query(&collection, |replica| replica.query(&collection, &query)));
            }
            EngineCommand::Count { collection, query, reply } => {
                reply.send(self.query(&collection, |replica| replica.count(&collection, &query)));
            }
            EngineCommand::Explain { collection, query, reply } => {
                reply.send(self.query(&collection, |replica| replica.explain(&collection, &query)));
            }
            EngineCommand::Status(reply) => reply.send(self.status()),
            EngineCommand::Metrics(reply) => reply.send(Ok(self.counts.metrics())),
            EngineCommand::Rejected(reply) => reply.send(self.rejected()),
            EngineCommand::Pending(reply) => reply.send(self.pending()),
            EngineCommand::Synced(reply) => self.await_sync(reply),
            EngineCommand::Replica(command, reply) => {
                self.command(command);
                reply.send(Ok(()));
            }
            EngineCommand::SignOut(how, reply) => self.sign_out(how, reply),
            EngineCommand::Watch { collection, record, updates } => {
                // it begins with what is committed
                self.end_group();
                self.watch(collection, record, updates);
                self.begin_group();
            }
            EngineCommand::WatchQuery { collection, scope, query, updates } => {
                self.end_group();
                self.join(&collection);
                self.watchers.add_query((collection, scope), query, updates);
                self.begin_watching();
                self.begin_group();
            }
            EngineCommand::DismissWatchers => {
                self.watchers.dismiss_abandoned(self.replica.as_mut().ok());
            }
            EngineCommand::Listen(listener) => self.listeners.push(listener),
            EngineCommand::WatchStatus(watcher) => self.statuses.add(watcher),
            EngineCommand::Hold(collection) => self.holds.add(collection),
            EngineCommand::Release(collection) => self.release(&collection),
            EngineCommand::HoldScope(collection, scope) => self.hold_scope(collection, scope),
            EngineCommand::ReleaseScope(collection, scope) => self.release_scope(collection, scope),
            EngineCommand::Socket { life, conn, event } => self.take_news(life, conn, event),
            EngineCommand::RequestProgress { life, request } => {
                self.handle(life, Input::RequestProgress { request });
            }
            EngineCommand::Answered { life, input } => {
                self.requests.ended();
                self.handle(life, input);
                self.make_requests();
            }
            EngineCommand::Durable => self.step(Replica::poll_store),
            EngineCommand::Stop => {
                self.stopping = true;
                self.step(|replica, now, out| replica.command(now, Command::Disconnect, out));
            }
        }
    }

    /// Takes news of a connection.
    fn take_news(&mut self, life: u64, conn: ConnId, event: SocketEvent) {
        match event {
            SocketEvent::Connected => self.handle(life, Input::Connected { conn }),
            SocketEvent::Frame(frame) => {
                self.handle(life, Input::Frame { conn, frame: &frame });
                self.network.handled(conn, frame.len());
            }
            SocketEvent::Heard => {
                self.handle(life, Input::Heard { conn });
                self.network.handled(conn, 0);
            }
            SocketEvent::Progress => self.handle(life, Input::Progress { conn }),
            SocketEvent::Disconnected(why) => {
                self.handle(life, Input::Disconnected { conn, why });
            }
        }
    }

    /// Gives an input to the replica of this life.
    fn handle(&mut self, life: u64, input: Input<'_>) {
        if life == self.life {
            self.counts.take(&input);
            self.step(|replica, now, out| replica.handle(now, input, out));
        }
    }

    /// Ends a turn: does what is due by now, shows the watchers what is new, and then answers, so
    /// that a write is shown before its call is answered.
    fn end_turn(&mut self) {
        if self.signing_out.is_some() {
            return self.go_on_signing_out();
        }
        self.keep_time();
        if let Ok(replica) = &mut self.replica {
            self.watchers.show(replica);
            self.statuses.show(|| replica.status());
        }
        self.reads.have_been_committed();
        self.answer();
    }

    /// The time for which there is nothing to do unless a command comes; `None`: for ever.
    fn timeout(&self) -> Option<Duration> {
        if let Some(signing_out) = &self.signing_out {
            return signing_out.timeout();
        }
        match &self.replica {
            Ok(replica) => replica.deadline().map(|(at, _)| at.since(self.now().mono)),
            Err(failure) => Some(failure.retry_at.saturating_duration_since(Instant::now())),
        }
    }

    /// Returns `true` if the client is no longer wanted and what was saved is durable.
    fn is_done(&self) -> bool {
        if let Some(signing_out) = &self.signing_out {
            return signing_out.is_over();
        }
        self.stopping && (self.replica.is_err() || !self.calls.has_writes())
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
    fn step(&mut self, step: impl FnOnce(&mut Replica, Now, &mut Vec<Action>)) {
        let now = self.now();
        let Ok(replica) = &mut self.replica else { return };
        callback::run(|| step(replica, now, &mut self.actions));
        self.act();
    }

    /// Does the actions of the replica.
    fn act(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        let now = self.now().mono;
        for action in actions.drain(..) {
            self.counts.act(now, &action);
            match action {
                Action::Net(action) => self.act_on_network(action),
                Action::Event(event) => self.notify(&event),
                Action::Synced { id, outcome } => self.calls.settle_sync(id, outcome),
                Action::Fate { id, fate } => self.fates.settle(id, fate),
                // asked for when it is time to answer
                Action::Durable(_) => {}
                Action::Halted(error) => self.halted = Some(error),
                Action::Watch(id) => self.watchers.has_news(id),
            }
        }
        // the next step fills the same memory
        self.actions = actions;
        self.make_requests();
    }

    fn act_on_network(&mut self, action: NetAction) {
        match action {
            NetAction::Connect { conn, token } => {
                self.network.connect(self.life, conn, token.as_ref());
            }
            NetAction::Send { conn, frame } => self.network.send(conn, frame),
            NetAction::Ping { conn } => self.network.ping(conn),
            NetAction::Close { conn } => self.network.close(conn),
            NetAction::Request(ticket) => self.requests.push(self.life, ticket),
        }
    }

    fn make_requests(&mut self) {
        while let Some(job) = self.requests.next(&self.inbox) {
            self.network.run(job);
        }
    }

    fn notify(&mut self, event: &Event) {
        if let EventKind::Error { message, .. } = &event.kind {
            warn!(via = ?event.transport, "{message}");
        } else {
            debug!(via = ?event.transport, kind = ?event.kind, "told");
        }
        self.listeners.retain(|listener| !listener.is_abandoned());
        for listener in &self.listeners {
            listener.put(|queue| queue.push(event.clone()));
        }
    }

    /// Tells what is known by now: the fates of writes, the writes that are durable, and the calls
    /// of `synced` that are through.
    fn answer(&mut self) {
        let Ok(replica) = &self.replica else { return };
        self.fates.publish();
        self.calls.answer(replica.durable());
    }

    fn now(&self) -> Now {
        now(self.started)
    }
}

/// Reads both clocks; the monotonic one counts from the start of the client.
fn now(started: Instant) -> Now {
    let millis = |duration: Duration| duration.as_millis();
    let mono = Mono(u64::try_from(millis(started.elapsed())).unwrap_or(u64::MAX));
    let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(millis(since)).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(millis(before.duration())).map_or(i64::MIN, |ms| -ms),
    };
    Now { mono, wall: Timestamp(wall) }
}
