//! The state that all connections of a server share.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use synclayer_core::rules::{Bucket, ReadAnswer, ReadRequest};
use synclayer_core::{
    ConnId, Epoch, ServerLimits, ServerStore, SessionInput, StoreError, StoreErrorKind, Ticket,
    Token, UserId,
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::timeout;

use crate::auth::AuthError;
use crate::clock::Clock;
use crate::commit::Commits;
use crate::config::ServerConfig;
use crate::feed::Feed;
use crate::mailbox::Mailbox;

pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) limits: Arc<ServerLimits>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    pub(crate) feed: Arc<Feed>,
    pub(crate) commits: Arc<Commits>,
    store: Arc<dyn ServerStore>,
    reads: Arc<Semaphore>,
    /// A permit for each connection; all are free when the last one has ended.
    permits: Arc<Semaphore>,
    buckets: Mutex<HashMap<UserId, Arc<Mutex<Bucket>>>>,
    presence: Mutex<Presence>,
}

/// The permit to serve a connection.
#[derive(Clone)]
pub(crate) struct ConnectionPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The WebSockets that are connected.
#[derive(Default)]
struct Presence {
    mailboxes: HashMap<ConnId, Arc<Mailbox>>,
    last: ConnId,
    ending: bool,
}

/// The user of a token, and the end of its validity.
pub(crate) struct Known {
    pub(crate) user: UserId,
    pub(crate) expires: Option<Instant>,
}

/// The caller of a request, as far as its token tells.
pub(crate) enum Caller {
    /// The server knows no users.
    Anyone,
    Known(Known),
    /// It carries no token.
    Unknown,
}

impl Shared {
    pub(crate) fn new(
        config: ServerConfig,
        store: Arc<dyn ServerStore>,
        epoch: Epoch,
        clock: Clock,
    ) -> Self {
        Self {
            limits: Arc::new(config.limits.clone()),
            epoch,
            clock,
            feed: Arc::new(Feed::new(config.rings)),
            commits: Arc::default(),
            store,
            reads: Arc::new(Semaphore::new(config.max_reads.max(1))),
            buckets: Mutex::default(),
            permits: Arc::new(Semaphore::new(max_connections(&config) as usize)),
            presence: Mutex::default(),
            config,
        }
    }

    /// Waits for the permit to serve a connection.
    pub(crate) async fn permit(&self) -> Result<ConnectionPermit, AcquireError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        Ok(ConnectionPermit { _permit: Arc::new(permit) })
    }

    /// The permit to serve a connection; `None` if there are as many as there may be.
    pub(crate) fn try_permit(&self) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(ConnectionPermit { _permit: Arc::new(permit) })
    }

    /// Waits until every connection has ended. Returns `false` if they take too long.
    pub(crate) async fn wait_for_connections(&self) -> bool {
        let time_limit = self.config.http_timeout + self.config.close_timeout;
        let all = self.permits.acquire_many(max_connections(&self.config));
        timeout(time_limit, all).await.is_ok()
    }

    /// Identifies the caller by a token.
    pub(crate) fn identify(&self, token: Option<&Token>) -> Result<Caller, AuthError> {
        match (&self.config.authenticator, token) {
            (None, _) => Ok(Caller::Anyone),
            (Some(_), None) => Ok(Caller::Unknown),
            (Some(_), Some(token)) => self.authenticate(token).map(Caller::Known),
        }
    }

    pub(crate) fn authenticate(&self, token: &Token) -> Result<Known, AuthError> {
        let authenticator = self.config.authenticator.as_ref().ok_or(AuthError::Wrong)?;
        let identified = authenticator.authenticate(token)?;
        let expires = identified.valid_for.and_then(|valid| Instant::now().checked_add(valid));
        Ok(Known { user: identified.user, expires })
    }

    /// Gives a new connection its id and its mailbox.
    pub(crate) fn enter(&self) -> (ConnId, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut presence = self.presence();
        presence.last = presence.last.next();
        let conn = presence.last;
        presence.mailboxes.insert(conn, Arc::clone(&mailbox));
        if presence.ending {
            mailbox.put(SessionInput::Shutdown);
        }
        (conn, mailbox)
    }

    pub(crate) fn leave(&self, conn: ConnId) {
        self.presence().mailboxes.remove(&conn);
    }

    /// The number of WebSockets.
    pub(crate) fn connections(&self) -> usize {
        self.presence().mailboxes.len()
    }

    /// Tells every connection, and every one that is still to come, that the server ends.
    pub(crate) fn end(&self) {
        let mut presence = self.presence();
        presence.ending = true;
        presence.mailboxes.values().for_each(|mailbox| mailbox.put(SessionInput::Shutdown));
    }

    /// The rate of all connections of a user together; `None` for any.
    pub(crate) fn bucket(&self, user: &UserId) -> Option<Arc<Mutex<Bucket>>> {
        let rate = self.limits.user_rate?;
        let now = self.clock.now().mono;
        let mut buckets = self.buckets();
        let fresh = || Arc::new(Mutex::new(Bucket::new(rate, now)));
        Some(Arc::clone(buckets.entry(user.clone()).or_insert_with(fresh)))
    }

    /// Forgets the buckets that nobody holds and that are full again.
    pub(crate) fn sweep_buckets(&self) {
        let now = self.clock.now().mono;
        let is_full = |bucket: &Mutex<Bucket>| {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(now)
        };
        self.buckets().retain(|_, bucket| Arc::strong_count(bucket) > 1 || !is_full(bucket));
    }

    /// Reads for a session, which finds the answer in its mailbox.
    pub(crate) fn start_read(self: &Arc<Self>, ticket: Ticket<ReadRequest>, mailbox: Arc<Mailbox>) {
        let shared = Arc::clone(self);
        task::spawn(async move {
            let permit = Arc::clone(&shared.reads).acquire_owned().await;
            task::spawn_blocking(move || {
                let answer = shared.read_blocking(ticket.question());
                mailbox.put(ticket.answer(answer));
                drop(permit);
            });
        });
    }

    /// Reads, and waits for the answer.
    pub(crate) async fn read(
        self: &Arc<Self>,
        request: ReadRequest,
    ) -> Result<ReadAnswer, StoreError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let shared = Arc::clone(self);
        let read = task::spawn_blocking(move || {
            let answer = shared.read_blocking(&request);
            drop(permit);
            answer
        });
        read.await.unwrap_or_else(|_| Err(unread("the server is shutting down")))
    }

    fn read_blocking(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        let mut answer = Err(unread("the store read nothing"));
        let read = || {
            self.store.read(&mut |rows| {
                answer = Ok(request.run(rows, &*self.config.policy)?);
                Ok(())
            })
        };
        // a policy that panics must not leave its reader waiting for ever
        let read = panic::catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(unread("a read panicked")));
        if let Err(error) = &read {
            tracing::error!(%error, "the store could not be read");
        }
        read.and(answer)
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<UserId, Arc<Mutex<Bucket>>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn max_connections(config: &ServerConfig) -> u32 {
    u32::try_from(config.max_connections.clamp(1, 1 << 20)).unwrap_or(u32::MAX)
}

fn unread(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Other, message)
}
