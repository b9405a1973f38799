//! The failures of the store, and the lives of the replica between them.

use std::time::{Duration, Instant};

use synclayer_core::{
    Action, ClientConfig, Command, Event, EventKind, Now, StoreError, StoreErrorKind,
};
use uuid::Uuid;

use super::{Engine, Replica};
use crate::callback;
use crate::command::{EngineCommand, Inbox};
use crate::config::StoreFactory;
use crate::error::SyncError;

/// The first delay before a failed store is opened again; it doubles up to the longest.
const REOPEN_DELAY: Duration = Duration::from_millis(500);
/// The cause may pass at any time, and until then nothing can be saved.
const LONGEST_REOPEN_DELAY: Duration = Duration::from_secs(5);

/// A store that has failed, and the time when it is opened again.
pub(super) struct FailedStore {
    pub(super) error: StoreError,
    pub(super) retry_at: Instant,
    delay: Duration,
}

impl FailedStore {
    pub(super) fn new(error: StoreError, delay: Duration) -> Self {
        Self { error, retry_at: Instant::now() + delay, delay }
    }
}

impl Engine {
    /// Notices that the store has failed: the replica ends, and whoever waits learns why.
    pub(super) fn check_store(&mut self) {
        let Some(error) = self.halted.take() else { return };
        // what was durable before is saved
        self.answer();
        self.network.close_all();
        self.requests.forget();
        self.watchers.pause();
        let failed = SyncError::from(error.clone());
        self.calls.answer_writes(&Err(failed.clone()));
        self.calls.fail_syncs(&failed);
        self.fates.end(&failed);
        // the store is closed before it is opened again
        self.reads.end();
        self.replica = Err(FailedStore::new(error, REOPEN_DELAY));
    }

    /// Takes the replica away, and leaves the reason in its place.
    ///
    /// # Errors
    /// When the store has failed already.
    pub(super) fn take_replica(&mut self, reason: &str) -> Result<Replica, StoreError> {
        if let Err(failed) = &self.replica {
            return Err(failed.error.clone());
        }
        self.reads.end();
        let reason = StoreError::new(StoreErrorKind::Other, reason);
        let gone = FailedStore::new(reason, Duration::ZERO);
        std::mem::replace(&mut self.replica, Err(gone)).map_err(|failed| failed.error)
    }

    /// Opens the store again, with a new replica.
    pub(super) fn reopen(&mut self) {
        let now = self.now();
        let opened =
            open_replica(&self.config, &mut self.factory, &self.inbox, now, &mut self.actions);
        match opened {
            Ok(replica) => {
                self.life += 1;
                self.replica = Ok(replica);
                self.publish_reads();
                self.release_unused();
                self.start();
                self.begin_watching();
                self.check_store();
            }
            Err(error) => {
                self.notify(&Event {
                    timestamp: self.now().wall,
                    transport: None,
                    kind: EventKind::Error {
                        collection: None,
                        record_id: None,
                        message: format!("the store could not be opened again: {error}"),
                        cause: None,
                    },
                });
                if let Err(failure) = &mut self.replica {
                    let delay = (failure.delay * 2).min(LONGEST_REOPEN_DELAY);
                    *failure = FailedStore::new(error, delay);
                }
            }
        }
    }

    /// Starts a replica as the app has left the last one: offline, or connected.
    pub(super) fn start(&mut self) {
        if !self.online {
            self.command(Command::SetOnline(false));
        }
        if self.connected && !self.stopping {
            self.command(Command::Connect);
        }
    }
}

/// Opens the store, and a replica on it.
pub(super) fn open_replica(
    config: &ClientConfig,
    factory: &mut StoreFactory,
    inbox: &Inbox,
    now: Now,
    actions: &mut Vec<Action>,
) -> Result<Replica, StoreError> {
    let inbox = inbox.clone();
    let on_durable = Box::new(move || inbox.put(EngineCommand::Durable));
    let seed = Uuid::new_v4().as_u128();
    callback::run(|| Replica::open(config.clone(), seed, now, factory(on_durable)?, actions))
}
