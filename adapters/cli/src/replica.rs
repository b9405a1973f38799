//! The replica that a command works on, and its meeting with the server.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use synclayer_core::ClientStore;
use synclayer_fjall::{ClientOptions, Durability, FjallClientStore};
use synclayer_tokio::{
    Collection, CollectionStatus, ConflictStrategy, ConnectFailure, ConnectionState, Event,
    EventKind, Events, FailureCause, Guarantees, Status, Store, SyncConfig, SyncError, SyncFailure,
    SyncFailureReason, SyncLayer, Transport, Transports, TrustedRoots,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::args::{ConflictsArg, GuaranteeArg, ReplicaArgs};
use crate::failure::{Code, Failure, unreadable};
use crate::output::Printer;
use crate::reach::Reach;
use crate::reject::stalled;

/// Failed attempts to connect before a command goes on without the server.
const TRIES: u32 = 2;
/// The base of the backoff between them.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// An address for a client that is never to connect.
const NOWHERE: &str = "http://localhost";

/// A durable replica, open and not connected yet.
pub(crate) struct OpenReplica {
    pub(crate) sync: SyncLayer,
    events: Events,
    server: Result<String, &'static str>,
    timeout: Duration,
    pub(crate) reach: Reach,
}

/// The outcome of contact with the server.
#[derive(Default)]
pub(crate) struct Meeting {
    /// The reason why the two sides are not in sync; `None` if they are.
    pub(crate) apart: Option<String>,
    /// True if the reason is that the server refuses collections, or that no SyncLayer server answers
    /// at the address.
    pub(crate) refused: bool,
    /// True if somebody has to run `synclayer adopt` or `synclayer offer`.
    pub(crate) undecided: bool,
    /// The writes that the server has refused meanwhile.
    pub(crate) refusals: Vec<Event>,
    /// The records with conflicts that were resolved.
    pub(crate) conflicts: BTreeSet<String>,
    /// The text for a clock of this device that is far off.
    pub(crate) clock: Option<String>,
}

/// Opens the replica, runs a command on it and closes it, however the command ends.
pub(crate) async fn on_replica(
    args: &ReplicaArgs,
    command: impl AsyncFnOnce(&mut OpenReplica) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut replica = OpenReplica::open(args).await?;
    let ended = command(&mut replica).await;
    replica.close().await;
    ended
}

impl OpenReplica {
    /// Opens the replica for a command. It does not connect before [`meet`](Self::meet).
    pub(crate) async fn open(args: &ReplicaArgs) -> Result<Self, Failure> {
        let config = config(args)?.reconnect_delay(RECONNECT_DELAY).max_reconnect_attempts(TRIES);
        Self::open_as(args, config).await
    }

    /// Opens the replica for a command that goes on: once told to, it never stops to connect.
    pub(crate) async fn open_to_stay(args: &ReplicaArgs) -> Result<Self, Failure> {
        Self::open_as(args, config(args)?).await
    }

    async fn open_as(args: &ReplicaArgs, config: SyncConfig) -> Result<Self, Failure> {
        let sync = SyncLayer::open(config).await?;
        let events = sync.events();
        let server = match &args.server {
            Some(_) if args.offline => Err("--offline was given"),
            Some(server) => Ok(server.clone()),
            None => Err("no --server was given"),
        };
        Ok(Self { sync, events, server, timeout: args.timeout, reach: Reach::new(args) })
    }

    pub(crate) fn collection(&self, name: &str) -> Result<Collection, Failure> {
        Ok(self.sync.collection(name)?)
    }

    /// Returns true if there is a server to contact.
    pub(crate) fn has_server(&self) -> bool {
        self.server.is_ok()
    }

    /// Connects, and waits until both sides have everything. It ends when nothing has moved for the time
    /// that is given.
    pub(crate) async fn meet(&mut self, out: Printer) -> Result<Meeting, Failure> {
        let mut meeting = Meeting::default();
        let server = match &self.server {
            Ok(server) => server.clone(),
            Err(why) => {
                meeting.apart = Some((*why).to_owned());
                meeting.find_undecided(&self.status().await?);
                return Ok(meeting);
            }
        };
        self.sync.connect().await?;
        let mut wait = Wait::begin(self.timeout, self.status().await?, out);
        let sync = self.sync.clone();
        let synced = sync.synced();
        tokio::pin!(synced);
        let mut refused = None;
        meeting.apart = loop {
            tokio::select! {
                done = &mut synced => match done {
                    Ok(()) => break None,
                    Err(SyncError::NotInSync(failures)) => {
                        let undecided = failures.iter().any(is_undecided);
                        meeting.refused = !undecided;
                        let named: Vec<_> = failures.iter().map(ToString::to_string).collect();
                        break Some(named.join("; "));
                    }
                    Err(error) => return Err(error.into()),
                },
                Some(event) = self.events.next() => {
                    let failure = failure(&event.kind);
                    let by_http = event.transport == Some(Transport::Http);
                    wait.reached |=
                        matches!(event.kind, EventKind::ConnectivityChanged { online: true });
                    let breaks = failure.is_some()
                        || matches!(
                            event.kind,
                            EventKind::WriteStalled { .. } | EventKind::RealtimeDisconnected { .. }
                        );
                    if let Some(why) = meeting.hears(event, &self.reach, &mut refused) {
                        break Some(why);
                    }
                    if breaks && let Some(why) = wait.stalls(self.status().await?) {
                        break Some(why);
                    }
                    if let Some(failure) = failure
                        && let Some(status) = self.out_of_reach(by_http).await?
                    {
                        let gave_up = status.connection == ConnectionState::Error;
                        if !gave_up && refused.is_none() && wait.reached && wait.goes_on(&status) {
                            continue;
                        }
                        let stall = stall_of(&status);
                        let failure = status.failure.unwrap_or(failure);
                        let out_of_reach =
                            || stall.unwrap_or_else(|| self.reach.explain(&failure, &server));
                        break Some(refused.take().unwrap_or_else(out_of_reach));
                    }
                }
                () = sleep_until(wait.until) => {
                    if refused.is_none() && wait.goes_on(&self.status().await?) {
                        continue;
                    }
                    let late = || self.is_late(&server);
                    break Some(match refused.take() {
                        Some(why) => why,
                        None => late().await?,
                    });
                }
            }
        };
        // what was said before the end, but not heard yet
        while let Ok(Some(event)) = timeout(Duration::ZERO, self.events.next()).await {
            meeting.hears(event, &self.reach, &mut refused);
        }
        meeting.find_undecided(&self.status().await?);
        Ok(meeting)
    }

    /// The status, if an error ends the attempts to reach the server. HTTP is the last resort.
    async fn out_of_reach(&self, by_http: bool) -> Result<Option<Status>, Failure> {
        let status = self.sync.status().await?;
        let gave_up = status.connection == ConnectionState::Error;
        Ok(Some(status).filter(|status| gave_up || by_http && status.transport.is_none()))
    }

    async fn is_late(&self, server: &str) -> Result<String, Failure> {
        let seconds = self.timeout.as_secs_f32();
        let status = self.sync.status().await?;
        if let Some(why) = stall_of(&status) {
            return Ok(why);
        }
        if let Some(failure) = &status.failure {
            return Ok(self.reach.explain(failure, server));
        }
        Ok(match status.connection {
            ConnectionState::Connected => {
                format!("the server at {server} was not through within {seconds} s")
            }
            ConnectionState::DifferentDatabase => {
                format!("the server at {server} has another database than this replica is of")
            }
            ConnectionState::Disconnected
            | ConnectionState::Connecting
            | ConnectionState::Reconnecting
            | ConnectionState::Error => {
                let why = format!("it did not answer within {seconds} s");
                let silence = ConnectFailure::new(FailureCause::Silent, why);
                self.reach.explain(&silence, server)
            }
        })
    }

    /// Says why the server is out of reach.
    pub(crate) fn explain(&self, failure: &ConnectFailure) -> String {
        self.reach.explain(failure, self.server.as_deref().unwrap_or(NOWHERE))
    }

    /// The next event.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        self.events.next().await
    }

    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        Ok(self.sync.status().await?)
    }

    /// Closes the store, so that the next command finds it free.
    pub(crate) async fn close(self) {
        self.sync.close().await;
    }
}

impl Meeting {
    /// Returns the outcome of a command that has printed the stored records.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        match (self.undecided, self.refused) {
            (true, _) => Err(Failure::said(Code::Undecided)),
            (false, true) => Err(Failure::said(Code::NotInSync)),
            (false, false) => Ok(()),
        }
    }

    /// Says why the two sides are not in sync where somebody has to decide something first.
    fn find_undecided(&mut self, status: &Status) {
        const DECIDE: &str = "`synclayer adopt` takes what the server has, `synclayer offer` sends what is held here";
        if status.other_database.is_some() {
            self.undecided = true;
            self.apart = Some(format!(
                "the server has another database than this replica is of, so nothing is taken from \
                 it and nothing sent; {DECIDE}"
            ));
            return;
        }
        let lacks = |(name, of): (&_, &CollectionStatus)| {
            Some(format!("{} records of {name}", of.missing?))
        };
        let lacking: Vec<_> = status.collections.iter().filter_map(lacks).collect();
        if !lacking.is_empty() {
            self.undecided = true;
            let what = lacking.join(", ");
            self.apart = Some(format!(
                "the server does not have {what} any more, which are held here; {DECIDE}"
            ));
        }
    }

    /// Takes an event in. Returns why there is no point in waiting any longer, if it says so.
    #[allow(clippy::wildcard_enum_match_arm)] // there may be more kinds of events one day
    fn hears(
        &mut self,
        event: Event,
        reach: &Reach,
        refused: &mut Option<String>,
    ) -> Option<String> {
        match &event.kind {
            EventKind::TokenNeeded { code, message, by_server: true } => {
                return Some(reach.not_let_in(Some(code), message));
            }
            // another way may lead there
            EventKind::TokenNeeded { code, message, by_server: false } => {
                *refused = Some(reach.not_let_in(Some(code), message));
            }
            EventKind::NoServer { message } => {
                self.refused = true;
                return Some(message.clone());
            }
            EventKind::SyncFailed { collection, code, message } => {
                *refused = Some(format!("the server refuses {collection} ({code}): {message}"));
            }
            EventKind::GuaranteesMissing { offered, .. } => {
                let offered = guarantees(*offered);
                return Some(format!(
                    "the server guarantees {offered}, which is less than --require asks for, so \
                     nothing is sent to it; ask for less, or use another server"
                ));
            }
            EventKind::OperationFailed { .. } => self.refusals.push(event),
            EventKind::ConflictResolved { collection, record_id, .. } => {
                self.conflicts.insert(format!("{collection}/{record_id}"));
            }
            EventKind::ClockOff { offset_ms } => self.clock = Some(clock_is_off(*offset_ms)),
            // of no concern to a command that only waits
            _ => {}
        }
        None
    }
}

/// The wait of a command for the server, which lasts for as long as something gets through.
struct Wait {
    until: Instant,
    /// The longest time in which nothing may get through.
    silence: Duration,
    /// The state when something was last known to.
    seen: Status,
    /// `true` if the server has answered: bytes of a handshake that fails bring nothing.
    reached: bool,
    out: Printer,
}

impl Wait {
    fn begin(silence: Duration, seen: Status, out: Printer) -> Self {
        Self { until: Instant::now() + silence, silence, seen, reached: false, out }
    }

    /// Says why waiting is in vain, if a write does not get through and the last connection has brought
    /// no collection further.
    fn stalls(&mut self, status: Status) -> Option<String> {
        let why = stall_of(&status)?;
        let places = |status: &Status| {
            let of = status.collections.values().map(|of| (of.count, of.cursor.clone()));
            of.collect::<Vec<_>>()
        };
        let moved = places(&status) != places(&self.seen);
        self.seen.collections = status.collections;
        (!moved).then_some(why)
    }

    /// Goes on, and tells how far it has come, if something has got through since that was last seen.
    fn goes_on(&mut self, status: &Status) -> bool {
        if status.progress <= self.seen.progress {
            return false;
        }
        for (name, of) in &status.collections {
            let count = self.seen.collections.get(name).map_or(0, |of| of.count);
            if of.from_cache && of.count > count {
                let count = of.count;
                let whole = of.cursor.is_none().then_some(of.expected_records).flatten();
                let most = whole.map(|most| format!(" of {most}")).unwrap_or_default();
                self.out
                    .note(format_args!("{count}{most} records of {name} so far, and more to come"));
            }
        }
        let left = status.pending_writes;
        if (1..self.seen.pending_writes).contains(&left) {
            self.out.note(format_args!("{left} writes still wait for the server"));
        }
        (self.seen, self.until) = (status.clone(), Instant::now() + self.silence);
        true
    }
}

/// Says what does not get through, to the server or from it, if that is so.
fn stall_of(status: &Status) -> Option<String> {
    let write = status.stalled.as_ref().map(stalled);
    let page = || status.collections.values().find_map(|of| of.stalled.as_deref());
    write.or_else(|| page().map(str::to_owned))
}

/// Returns the reason of a failed attempt to reach the server, if an event tells one.
#[allow(clippy::wildcard_enum_match_arm)] // there may be more kinds of events one day
fn failure(kind: &EventKind) -> Option<ConnectFailure> {
    match kind {
        EventKind::Error { message, cause, .. } => {
            Some(ConnectFailure::new(cause.unwrap_or_default(), message))
        }
        EventKind::TokenNeeded { message, .. } => {
            Some(ConnectFailure::new(FailureCause::Access, message))
        }
        _ => None,
    }
}

/// Returns true if a collection is not in sync because a decision is due.
fn is_undecided(failure: &SyncFailure) -> bool {
    matches!(
        failure.reason,
        SyncFailureReason::RecordsMissing { .. } | SyncFailureReason::DifferentDatabase { .. }
    )
}

/// Says how far this device's clock is off, and the remedy.
pub(crate) fn clock_is_off(offset_ms: i64) -> String {
    let seconds = offset_ms.unsigned_abs() / 1000;
    let (length, unit) = match seconds {
        172_800.. => (86_400, "days"),
        7_200.. => (3_600, "hours"),
        120.. => (60, "minutes"),
        _ => (1, "seconds"),
    };
    let number = (seconds + length / 2) / length;
    let side = if offset_ms > 0 { "behind" } else { "ahead of" };
    format!(
        "this device's clock is {number} {unit} {side} the server's: set it, since what is written here \
         before the server was met may count as earlier or later than it was"
    )
}

/// Names the guarantees of a server.
pub(crate) fn guarantees(of: Guarantees) -> String {
    let all = [
        (of.resume, "resume"),
        (of.exactly_once, "exactly once"),
        (of.ordered, "order"),
        (of.verified, "verification"),
        (of.atomic, "transactions"),
    ];
    let held: Vec<_> = all.iter().filter(|(holds, _)| *holds).map(|(_, name)| *name).collect();
    if held.is_empty() { "nothing".to_owned() } else { held.join(", ") }
}

/// Opens the store in a directory, as the client does.
pub(crate) fn store(args: &ReplicaArgs) -> Store {
    let path = args.data.clone();
    Store::opened_by(move |on_durable| {
        let options = ClientOptions::new().durability(Durability::Synced).on_durable(on_durable);
        let store = FjallClientStore::open(&path, options)?;
        Ok(Box::new(store) as Box<dyn ClientStore + Send>)
    })
}

fn config(args: &ReplicaArgs) -> Result<SyncConfig, Failure> {
    let mut config = SyncConfig::new(args.server.as_deref().unwrap_or(NOWHERE))
        .user(&args.user)
        .connect_at_start(false)
        .conflict_strategy(match args.conflicts {
            ConflictsArg::LastWriteWins => ConflictStrategy::LastWriteWins,
            ConflictsArg::ServerWins => ConflictStrategy::ServerWins,
            ConflictsArg::ClientWins => ConflictStrategy::ClientWins,
        })
        .transports(match (args.poll_only, args.realtime_only) {
            (true, _) => Transports::PollOnly,
            (false, true) => Transports::RealtimeOnly,
            (false, false) => Transports::Both,
        })
        .required_guarantees(Guarantees {
            resume: args.require.contains(&GuaranteeArg::Resume),
            exactly_once: args.require.contains(&GuaranteeArg::ExactlyOnce),
            ordered: args.require.contains(&GuaranteeArg::Ordered),
            verified: args.require.contains(&GuaranteeArg::Verified),
            atomic: args.require.contains(&GuaranteeArg::Atomic),
        })
        .token_in_query(args.token_in_query)
        .allow_insecure(args.allow_insecure)
        .store(store(args));
    config.auth_token = args.token.as_ref().map(|token| token.0.clone());
    config.websocket_url.clone_from(&args.websocket);
    config.trusted_roots = match &args.ca {
        None => TrustedRoots::System,
        Some(file) => TrustedRoots::Pem(fs::read(file).map_err(|error| {
            let text = format!("--ca {}", unreadable(file, &error));
            Failure::new(Code::Usage, text)
        })?),
    };
    Ok(config)
}
