//! The state that all connections of a server share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use synclayer_core::{
    Bucket, ConnId, Epoch, ReadAnswer, ReadRequest, ServerLimits, ServerStore, SessionInput,
    StoreError, StoreErrorKind, Ticket, Token, User, UserId,
};
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::timeout;

use crate::admission::Admission;
use crate::auth::{AuthError, Authenticator, Identified};
use crate::budget::{Account, Budget};
use crate::clock::Clock;
use crate::commit::Commits;
use crate::config::ServerConfig;
use crate::fairness::Principal;
use crate::feed::Feed;
use crate::lockout::Lockout;
use crate::mailbox::{Mail, Mailbox};
use crate::reads::{self, Bounds, ReadError, Reads, Turn};
use crate::refusals::Refusals;

pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) limits: Arc<ServerLimits>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Clock,
    pub(crate) feed: Arc<Feed>,
    pub(crate) commits: Arc<Commits>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) budget: Arc<Budget>,
    lockout: Lockout,
    /// The tokens that the authenticator may be asked about beside those that it is.
    logins: Semaphore,
    /// The number of times that the tokens of all connections were to be checked again.
    round: AtomicU64,
    store: Arc<dyn ServerStore>,
    reads: Arc<Reads>,
    buckets: Mutex<HashMap<Principal, Arc<Mutex<Bucket>>>>,
    presence: Mutex<Presence>,
    pub(crate) refusals: Refusals,
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
    pub(crate) user: User,
    pub(crate) expires: Option<Instant>,
    pub(crate) login: Login,
}

/// A token that was good when the authenticator was asked.
pub(crate) struct Login {
    token: Token,
    round: u64,
}

/// The reason why a token was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Too many wrong ones came from this address. The time for which no other is looked at.
    #[error("too many wrong tokens came from this address: wait before you try again")]
    LockedOut(Duration),
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
            admission: Arc::new(Admission::new(&config)),
            budget: Arc::new(Budget::new(config.memory_budget)),
            lockout: Lockout::new(config.login_failures, config.login_lockout),
            logins: Semaphore::new(config.max_logins.clamp(1, Semaphore::MAX_PERMITS)),
            round: AtomicU64::new(0),
            store,
            reads: Arc::new(Reads::new(config.max_reads)),
            buckets: Mutex::default(),
            presence: Mutex::default(),
            refusals: Refusals::default(),
            config,
        }
    }

    /// Waits until every connection has ended. Returns `false` if they take too long.
    pub(crate) async fn wait_for_connections(&self) -> bool {
        let time_limit = self.config.http_timeout + self.config.close_timeout;
        self.admission.wait_for_all(time_limit).await
    }

    /// Identifies the caller by a token.
    pub(crate) async fn identify(
        &self,
        token: Option<&Token>,
        address: Option<IpAddr>,
    ) -> Result<Caller, LoginError> {
        match (&self.config.authenticator, token) {
            (None, _) => Ok(Caller::Anyone),
            (Some(_), None) => Ok(Caller::Unknown),
            (Some(_), Some(token)) => self.authenticate(token, address).await.map(Caller::Known),
        }
    }

    /// Finds out whose token this is, unless too many wrong ones came from this address.
    pub(crate) async fn authenticate(
        &self,
        token: &Token,
        address: Option<IpAddr>,
    ) -> Result<Known, LoginError> {
        let now = Instant::now();
        self.lockout.check(address, now).map_err(LoginError::LockedOut)?;
        let known = self.ask(token, now).await.inspect_err(|error| {
            if *error == AuthError::Wrong && self.lockout.note_failure(address, now) {
                tracing::warn!(?address, "locked an address out, which sent many wrong tokens");
            }
        })?;
        Ok(known)
    }

    async fn ask(&self, token: &Token, now: Instant) -> Result<Known, AuthError> {
        // before the authenticator, or a change of its mind just then would be missed
        let round = self.round.load(Ordering::SeqCst);
        let authenticator = self.config.authenticator.as_ref().ok_or(AuthError::Wrong)?;
        let identified = self.ask_in_time(&**authenticator, token).await?;
        let expires = identified.valid_for.and_then(|valid| now.checked_add(valid));
        let login = Login { token: token.clone(), round };
        let user = User { id: identified.user, claims: identified.claims };
        Ok(Known { user, expires, login })
    }

    /// Asks for as long as one may wait, when it is this token's turn.
    async fn ask_in_time(
        &self,
        authenticator: &dyn Authenticator,
        token: &Token,
    ) -> Result<Identified, AuthError> {
        let ask = async {
            let _turn = self.logins.acquire().await;
            // not called before it is polled: the call may panic, too
            AssertUnwindSafe(async { authenticator.authenticate(token).await }).catch_unwind().await
        };
        let failure = match timeout(self.config.login_timeout, ask).await {
            Ok(Ok(Err(AuthError::Unavailable))) => "it says so",
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => "it panicked",
            Err(_) => "it took too long",
        };
        self.refusals.authenticator(failure);
        Err(AuthError::Unavailable)
    }

    /// Lets every connection ask again whose its token is.
    pub(crate) fn recheck_tokens(&self) {
        self.round.fetch_add(1, Ordering::SeqCst);
        self.presence().mailboxes.values().for_each(|mailbox| mailbox.wake());
    }

    /// Ends the connections of a user.
    pub(crate) fn kick(&self, user: &UserId) {
        let presence = self.presence();
        presence.mailboxes.values().for_each(|mailbox| mailbox.put(Mail::Kick(user.clone())));
    }

    /// Lets every connection ask again what its user may see.
    pub(crate) fn recheck_rights(&self) {
        let presence = self.presence();
        presence.mailboxes.values().for_each(|mailbox| mailbox.put(SessionInput::RightsChanged));
        drop(presence);
        self.feed.wake_watches();
    }

    /// Returns `true` if the token of a connection was let in before all were to be checked again.
    pub(crate) fn is_outdated(&self, login: &Login) -> bool {
        login.round != self.round.load(Ordering::SeqCst)
    }

    /// Asks again whose the token of a connection is.
    pub(crate) async fn recheck(&self, login: &Login) -> Result<Known, AuthError> {
        self.ask(&login.token, Instant::now()).await
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

    /// Tells all present and later connections that the server stops.
    pub(crate) fn end(&self) {
        let mut presence = self.presence();
        presence.ending = true;
        presence.mailboxes.values().for_each(|mailbox| mailbox.put(SessionInput::Shutdown));
    }

    /// The rate of all connections of a principal together; `None` for any.
    pub(crate) fn bucket(&self, principal: &Principal) -> Option<Arc<Mutex<Bucket>>> {
        let rate = self.limits.user_rate?;
        let now = self.clock.now().mono;
        let mut buckets = self.buckets();
        let fresh = || Arc::new(Mutex::new(Bucket::new(rate, now)));
        Some(Arc::clone(buckets.entry(principal.clone()).or_insert_with(fresh)))
    }

    /// Forgets the buckets that nobody holds and that are full again, and lockouts that are over.
    pub(crate) fn sweep_peers(&self) {
        self.lockout.sweep(Instant::now());
        let now = self.clock.now().mono;
        let is_full = |bucket: &Mutex<Bucket>| {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(now)
        };
        self.buckets().retain(|_, bucket| Arc::strong_count(bucket) > 1 || !is_full(bucket));
    }

    /// Reads for a session, which finds the answer in its mailbox.
    pub(crate) fn start_read(
        self: &Arc<Self>,
        ticket: Ticket<ReadRequest>,
        principal: Principal,
        mailbox: Arc<Mailbox>,
    ) {
        let shared = Arc::clone(self);
        task::spawn(async move {
            let bounds = shared.bounds(Arc::default(), false);
            let mut account = shared.budget.open(&principal, None);
            let request = ticket.question().clone();
            let answer = shared.run(request, principal, bounds, &mut account).await;
            let answer = answer.map_err(|error| match error {
                ReadError::Store(error) => error,
                ReadError::TooLong | ReadError::Busy | ReadError::SetBack => {
                    unread("the read took too long")
                }
            });
            mailbox.put(ticket.answer(answer));
        });
    }

    /// Reads, and waits for the answer, which counts as held by the account.
    pub(crate) async fn read(
        self: &Arc<Self>,
        request: ReadRequest,
        principal: Principal,
        account: &mut Account,
    ) -> Result<ReadAnswer, ReadError> {
        let waiting = Waiting::default();
        let bounds = self.bounds(Arc::clone(&waiting.gone), true);
        self.run(request, principal, bounds, account).await
    }

    /// Reads for the server's own program, which says itself how much it wants.
    pub(crate) async fn read_locally(
        self: &Arc<Self>,
        request: ReadRequest,
    ) -> Result<ReadAnswer, ReadError> {
        let waiting = Waiting::default();
        let cancelled = Arc::clone(&waiting.gone);
        let bounds = Bounds { time_limit: Duration::MAX, cancelled, may_end: false };
        let mut account = self.budget.open(&Principal::Local, None);
        self.run(request, Principal::Local, bounds, &mut account).await
    }

    async fn run(
        self: &Arc<Self>,
        request: ReadRequest,
        principal: Principal,
        bounds: Bounds,
        account: &mut Account,
    ) -> Result<ReadAnswer, ReadError> {
        let mut is_set_back = false;
        loop {
            let turn = self.reads.turn(principal.clone(), &request, is_set_back).await;
            let (shared, request, bounds) = (Arc::clone(self), request.clone(), bounds.clone());
            let mut held = self.budget.open(&principal, None);
            let read = task::spawn_blocking(move || {
                let answer = shared.read_blocking(&request, turn, &bounds, &mut held);
                (answer, held)
            });
            match read.await {
                Ok((Err(ReadError::SetBack), _)) => is_set_back = true,
                Ok((answer, held)) => {
                    account.set(held.bytes());
                    return answer;
                }
                Err(_) => return Err(ReadError::Store(unread("the server is shutting down"))),
            }
        }
    }

    fn bounds(&self, cancelled: Arc<AtomicBool>, may_end: bool) -> Bounds {
        Bounds { time_limit: self.config.read_time, cancelled, may_end }
    }

    fn read_blocking(
        &self,
        request: &ReadRequest,
        turn: Turn,
        bounds: &Bounds,
        account: &mut Account,
    ) -> Result<ReadAnswer, ReadError> {
        let mut turn = Some(turn);
        let mut answer = Err(ReadError::Store(unread("the store read nothing")));
        let read = || {
            self.store.read(&mut |rows| {
                if let Some(turn) = turn.take() {
                    answer = reads::run(request, rows, &*self.config.policy, turn, bounds, account);
                }
                Ok(())
            })
        };
        // a policy that panics must not leave its reader waiting for ever
        let read = panic::catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(unread("a read panicked")));
        let answer = read.map_err(ReadError::Store).and(answer);
        if let Err(ReadError::Store(error)) = &answer {
            tracing::error!(%error, "the store could not be read");
        }
        answer
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<Principal, Arc<Mutex<Bucket>>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits for an answer; dropped when nobody does any more.
#[derive(Default)]
struct Waiting {
    gone: Arc<AtomicBool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

fn unread(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Other, message)
}
