//! Figures of a client's work since it was opened.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use synclayer_core::{
    Action, Collection, Event, EventKind, FailureCause, HttpAnswer, Input, Mono, NetAction,
    Timestamp,
};

/// The number of syncs whose durations are averaged.
const DURATIONS: usize = 100;
/// The number of errors that are counted apart; a server may name any number of them.
const ERRORS: usize = 64;
/// The most letters of an error's name.
const ERROR_LETTERS: usize = 64;
/// The number of errors that are told.
const TOP_ERRORS: usize = 5;

/// Figures of a client's work since it was opened, by the names of SyncLayer 1.7 as far as they have
/// one there. They are kept in memory, and go on where the store fails and is opened again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Metrics {
    /// The catch-ups of a collection that have begun.
    pub sync_attempts: u64,
    /// The catch-ups after which the collection was found in step with the server.
    pub sync_successes: u64,
    /// The catch-ups that were refused, or that ended with their connection.
    pub sync_failures: u64,
    /// The mean time from the begin of a catch-up to its success, of the last 100.
    pub average_sync_duration: Option<Duration>,
    /// The time at which a collection was last found in step with the server.
    pub last_sync_time: Option<Timestamp>,
    /// The writes that were put into the outbox, the members of transactions among them.
    pub operations_queued: u64,
    /// The writes that the server has taken.
    pub operations_synced: u64,
    /// The writes that were rejected for good.
    pub operations_failed: u64,
    /// The changes of others that touched a field of a waiting write.
    pub conflicts_detected: u64,
    /// The conflicts that the strategy has decided.
    pub conflicts_resolved: u64,
    /// The five most frequent errors, the most frequent first: the code of a refusal, or the
    /// [cause](FailureCause) of a failed connection, with its number.
    pub top_errors: Vec<(String, u64)>,
    /// The records and changes that came from the server, without own writes that came back.
    pub records_received: u64,
    /// The bytes of the frames and bodies that were handed to the network: neither headers nor what TLS
    /// adds is counted.
    pub bytes_sent: u64,
    /// The bytes of the frames and bodies that came, counted in the same way.
    pub bytes_received: u64,
    /// The WebSockets that came up and were answered on.
    pub connections: u64,
    /// The HTTP requests that were made.
    pub requests: u64,
}

impl Metrics {
    /// The share of the catch-ups that were successful, from 0 to 1; 0 before the first.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // nobody catches up as often as that
    pub fn success_rate(&self) -> f64 {
        if self.sync_attempts == 0 {
            return 0.0;
        }
        self.sync_successes as f64 / self.sync_attempts as f64
    }
}

/// The counting of what [`Metrics`] tell.
#[derive(Default)]
pub(crate) struct Counts {
    /// The figures but for the mean and the list of errors, which are made when they are asked for.
    counted: Metrics,
    /// The catch-ups under way, each with its begin.
    begun: BTreeMap<Collection, Begun>,
    durations: VecDeque<Duration>,
    errors: BTreeMap<String, u64>,
}

/// A catch-up under way.
struct Begun {
    at: Mono,
    /// Its records that were counted.
    records: u64,
}

impl Counts {
    /// The figures now.
    pub(crate) fn metrics(&self) -> Metrics {
        let count = u32::try_from(self.durations.len()).unwrap_or(u32::MAX);
        let mut errors: Vec<_> = self.errors.clone().into_iter().collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        errors.truncate(TOP_ERRORS);
        Metrics {
            average_sync_duration: self.durations.iter().sum::<Duration>().checked_div(count),
            top_errors: errors,
            ..self.counted.clone()
        }
    }

    /// Counts what an input brings.
    pub(crate) fn take(&mut self, input: &Input<'_>) {
        self.counted.bytes_received += match input {
            Input::Frame { frame, .. } => frame.len() as u64,
            Input::Answered { answer: HttpAnswer::Answered { body, .. }, .. } => body.len() as u64,
            Input::Answered { .. }
            | Input::Connected { .. }
            | Input::Heard { .. }
            | Input::Progress { .. }
            | Input::RequestProgress { .. }
            | Input::Disconnected { .. }
            | Input::Timeout => 0,
        };
    }

    /// Counts what an action sends or tells.
    pub(crate) fn act(&mut self, now: Mono, action: &Action) {
        match action {
            Action::Net(NetAction::Send { frame, .. }) => {
                self.counted.bytes_sent += frame.len() as u64;
            }
            Action::Net(NetAction::Request(ticket)) => {
                self.counted.requests += 1;
                self.counted.bytes_sent +=
                    ticket.request.body.as_ref().map_or(0, |body| body.len() as u64);
            }
            Action::Event(event) => self.hear(now, event),
            Action::Net(
                NetAction::Connect { .. } | NetAction::Ping { .. } | NetAction::Close { .. },
            )
            | Action::Synced { .. }
            | Action::Halted(_)
            | Action::Durable(_)
            | Action::Fate { .. }
            | Action::Watch(_) => {}
        }
    }

    #[allow(clippy::wildcard_enum_match_arm)] // the others are not counted
    fn hear(&mut self, now: Mono, event: &Event) {
        let counted = &mut self.counted;
        match &event.kind {
            EventKind::SyncStarted { collection } => {
                counted.sync_attempts += 1;
                // one that was not ended is begun anew
                let again = self.begun.insert(collection.clone(), Begun { at: now, records: 0 });
                counted.sync_failures += u64::from(again.is_some());
            }
            EventKind::SyncCompleted { collection } => {
                counted.last_sync_time = Some(event.timestamp);
                if let Some(begun) = self.begun.remove(collection) {
                    counted.sync_successes += 1;
                    if self.durations.len() == DURATIONS {
                        self.durations.pop_front();
                    }
                    self.durations.push_back(now.since(begun.at));
                }
            }
            EventKind::SyncFailed { collection, code, .. } => {
                // it may be refused before anything of it came
                counted.sync_attempts += u64::from(self.begun.remove(collection).is_none());
                counted.sync_failures += 1;
                self.count_error(code.as_str());
            }
            EventKind::RealtimeDisconnected { .. } => self.break_off(),
            EventKind::Error { cause: Some(cause), .. } => {
                self.break_off();
                self.count_error(name(*cause));
            }
            EventKind::TokenNeeded { code, .. } => self.count_error(code.as_str()),
            EventKind::OperationQueued { .. } => counted.operations_queued += 1,
            EventKind::OperationSynced { .. } => counted.operations_synced += 1,
            EventKind::OperationFailed { code, with, .. } => {
                // those that fell with it have no event of their own
                counted.operations_failed += 1 + with.len() as u64;
                self.count_error(code.as_str());
            }
            EventKind::ConflictDetected { .. } => counted.conflicts_detected += 1,
            EventKind::ConflictResolved { .. } => counted.conflicts_resolved += 1,
            EventKind::RealtimeConnected => counted.connections += 1,
            EventKind::RealtimeInsert { .. }
            | EventKind::RealtimeUpdate { .. }
            | EventKind::RealtimeDelete { .. } => counted.records_received += 1,
            EventKind::SyncProgress { collection, records, .. } => {
                if let Some(begun) = self.begun.get_mut(collection) {
                    counted.records_received += records.saturating_sub(begun.records);
                    begun.records = *records;
                }
            }
            // a plain server tells nothing else of them
            EventKind::RealtimeSync { collection, records } => {
                if let Some(begun) = self.begun.get_mut(collection) {
                    counted.records_received += *records as u64;
                    begun.records += *records as u64;
                }
            }
            _ => {}
        }
    }

    /// Every catch-up under way has ended with its connection.
    fn break_off(&mut self) {
        self.counted.sync_failures += self.begun.len() as u64;
        self.begun.clear();
    }

    fn count_error(&mut self, error: &str) {
        let error: String = error.chars().take(ERROR_LETTERS).collect();
        let is_known = self.errors.contains_key(&error);
        let error = if is_known || self.errors.len() < ERRORS { error } else { "OTHER".to_owned() };
        *self.errors.entry(error).or_default() += 1;
    }
}

/// The name of a cause among the codes.
fn name(cause: FailureCause) -> &'static str {
    #[allow(clippy::match_same_arms, clippy::wildcard_enum_match_arm)] // there may be more one day
    match cause {
        FailureCause::UnknownHost => "UNKNOWN_HOST",
        FailureCause::Refused => "CONNECTION_REFUSED",
        FailureCause::NoRoute => "NO_ROUTE",
        FailureCause::Silent => "SILENT",
        FailureCause::Certificate => "CERTIFICATE",
        FailureCause::Tls => "TLS",
        FailureCause::PlainPort => "PLAIN_PORT",
        FailureCause::TlsPort => "TLS_PORT",
        FailureCause::NotHttp => "NOT_HTTP",
        FailureCause::Proxy => "PROXY",
        FailureCause::Redirected => "REDIRECTED",
        FailureCause::NoServer => "NO_SERVER",
        FailureCause::Access => "ACCESS",
        FailureCause::Declined => "DECLINED",
        FailureCause::Protocol => "PROTOCOL",
        FailureCause::Lost => "CONNECTION_LOST",
        _ => "OTHER",
    }
}
