//! A server without a listener, from its opening to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use axum::Router;
use synclayer_core::{
    DatabaseId, Epoch, Health, NameError, ServerStore, StoreError, Sweep, SweepPlace, Transaction,
    TransactionAnswer, UserId,
};
use tokio::sync::watch;
use tokio::task;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::commit::Backend;
use crate::config::ServerConfig;
use crate::ending::wait_for_end;
use crate::fairness::Principal;
use crate::local::Local;
use crate::shared::Shared;
use crate::{host, origin, routes};

/// The number of rows that one transaction of a sweep looks at.
const SWEPT_ROWS: usize = 1000;

/// A server inside a program that has an axum server already. The program mounts its
/// [`router`](Self::router), until [`shutdown`](Self::shutdown). Dropping it ends it too, but
/// nobody waits for that.
///
/// ```
/// use std::sync::Arc;
///
/// use axum::Router;
/// use axum::routing::get;
/// use synclayer_server::{Embedded, MemoryServerStore, ServerConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), synclayer_server::StartError> {
/// let sync = Embedded::open(ServerConfig::default(), Arc::new(MemoryServerStore::new())).await?;
/// let app: Router = Router::new()
///     .route("/", get(|| async { "the program's own page" }))
///     .nest("/live", sync.router());
/// // clients open `http://HOST/live`, and the WebSocket is `/live/ws`
/// # drop(app);
/// sync.shutdown().await;
/// # Ok(())
/// # }
/// ```
///
/// `examples/axum.rs` of this crate is a whole program.
pub struct Embedded {
    shared: Arc<Shared>,
    ending: watch::Sender<bool>,
    committer: Option<thread::JoinHandle<()>>,
}

/// The reason why a server could not be opened.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_server::{MemoryServerStore, Server, ServerConfig, StartError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let open = ServerConfig::new().listen(([0, 0, 0, 0], 0)); // and no authenticator
/// let refused = Server::bind(open, Arc::new(MemoryServerStore::new())).await;
/// assert!(matches!(refused.err(), Some(StartError::Exposed(_))));
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It would let in everyone who can reach this machine.
    #[error(
        "without tokens the server is open to everyone, so it listens on loopback only, not on \
         {0}: add a token, or listen on 127.0.0.1"
    )]
    Exposed(SocketAddr),
    /// The address can't be had.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// A field of the [`ServerConfig`] has a value that can't be meant.
    #[error("{field}: {why}")]
    Setting {
        /// The name of the field.
        field: &'static str,
        /// The value, the reason, and a value that would do.
        why: String,
    },
    /// The system has no random bytes or no thread to give.
    #[error("the system refuses what a server needs: {0}")]
    System(#[source] io::Error),
    /// The store could not begin its epoch.
    #[error("the store can't be written: {0}")]
    Store(#[source] StoreError),
}

impl Embedded {
    /// Begins an epoch of the store, and starts the thread that commits to it.
    /// [`ServerConfig::listen`] is not used.
    ///
    /// Without an [`authenticator`](ServerConfig::authenticator) everyone who can reach the mounted
    /// routes may read and write whatever the policy lets them, as long as they call the server
    /// `localhost` or by one of the [`allow_hosts`](ServerConfig::allow_hosts).
    ///
    /// # Errors
    /// When a setting can't be meant, the store can't be written, or the system refuses a thread or
    /// random bytes.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time.
    pub async fn open(
        config: ServerConfig,
        store: Arc<dyn ServerStore>,
    ) -> Result<Self, StartError> {
        check(&config)?;
        let epoch = random_name(Epoch::new)?;
        let database = random_name(DatabaseId::new)?;
        let clock = Clock::start();
        let shared = Arc::new(Shared::new(config, Arc::clone(&store), epoch, clock));
        let backend = Backend {
            store,
            policy: Arc::clone(&shared.config.policy),
            limits: shared.limits.input.clone(),
            clock,
            feed: Arc::clone(&shared.feed),
        };
        let backend = begin(backend, shared.epoch.clone(), database, &shared.config).await?;
        let committer = Some(shared.commits.start(backend).map_err(StartError::System)?);
        let (ending, ended) = watch::channel(false);
        task::spawn(sweep(Arc::clone(&shared), ended.clone()));
        task::spawn(watch_budget(Arc::clone(&shared), ended));
        Ok(Self { shared, ending, committer })
    }

    /// The routes of the server: `/ws`, `/sync/{collection}`, `/sync/{collection}/{recordId}` and
    /// `/health`, to be nested under a path of the program's own, or merged where nothing else has
    /// these paths.
    ///
    /// A connection counts against [`ServerConfig::max_connections`] from its upgrade to a WebSocket
    /// on; above that number further upgrades are refused with 503. The connections, header
    /// timeouts and TLS of the program's server are the program's.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        routes::mounted(Arc::clone(&self.shared))
    }

    /// The epoch that began when the server was opened.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// The number of WebSockets that are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// The number of transactions that were committed, and of the commits that it took: group
    /// commit puts those that wait for the disk together.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        let Health { transactions, commits, .. } = self.shared.commits.health();
        (transactions, commits)
    }

    /// The server as the program itself uses it: it reads, queries, writes and watches, past all rules.
    #[must_use]
    pub fn local(&self) -> Local {
        Local::new(&self.shared, self.ending.subscribe())
    }

    /// Asks the [`Authenticator`](crate::Authenticator) again for the tokens of all WebSockets, such
    /// as after tokens were taken away. One whose token lets nobody or another user in is told so
    /// (`AUTH_EXPIRED`), and has to send a fresh one; until then nothing is served to it. One whose user has
    /// other claims now sees and does from then on what they allow.
    pub fn recheck_tokens(&self) {
        self.shared.recheck_tokens();
    }

    /// Ends the WebSockets of a user, with close code 1008 and behind what was handed to them already.
    /// Their devices keep what they hold and have written, come again with backoff, and are let in if their
    /// token is good: to keep a user out, take their tokens away first. Calls under way are answered.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use synclayer_server::{Embedded, MemoryServerStore, ServerConfig, StaticTokens, UserId};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (ann, bob) = (UserId::new("ann")?, UserId::new("bob")?);
    /// let tokens = StaticTokens::new([(ann.clone(), "token-of-ann"), (bob.clone(), "token-of-bob")]);
    /// let config = ServerConfig::new().authenticator(Arc::new(tokens.clone()));
    /// let server = Embedded::open(config, Arc::new(MemoryServerStore::new())).await?;
    /// // ann is not to come back
    /// tokens.replace([(bob, "token-of-bob")]);
    /// server.kick(&ann);
    /// # server.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn kick(&self, user: &UserId) {
        self.shared.kick(user);
    }

    /// Asks the policy again what the users of all WebSockets may see, such as after it was
    /// [replaced](crate::ReloadablePolicy::replace). A stream that shows other records now begins again
    /// with a snapshot, and one whose user may read nothing of the collection any more ends
    /// (`UNAUTHORIZED`). Later writes and calls are judged by the new policy in any case.
    pub fn recheck_rights(&self) {
        self.shared.recheck_rights();
    }

    /// Ends the server: WebSockets are closed with 1001, what was handed in to be written is
    /// committed, and calls that come later are answered with 503.
    pub async fn shutdown(mut self) {
        self.end();
        if !self.shared.wait_for_connections().await {
            tracing::warn!("some connections did not end in time");
        }
        self.shared.commits.close();
        if let Some(committer) = self.committer.take() {
            // the thread catches what panics in it
            let _ = task::spawn_blocking(|| committer.join()).await;
        }
        tracing::info!("ended");
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tells that the server ends; see [`wait_for_end`].
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    fn end(&self) {
        self.ending.send_replace(true);
        self.shared.end();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end();
        self.shared.commits.close();
    }
}

/// Refuses entries of the configuration that would never match anything.
fn check(config: &ServerConfig) -> Result<(), StartError> {
    let setting = |field, entry: &str, checked: Result<(), String>| {
        checked.map_err(|why| StartError::Setting { field, why: format!("{entry:?} {why}") })
    };
    for entry in &config.allow_origins {
        setting("allow_origins", entry, origin::check(entry))?;
    }
    for entry in &config.allow_hosts {
        setting("allow_hosts", entry, host::check(entry))?;
    }
    Ok(())
}

/// A random name of 64 bits: no two meet, and each goes along with every poll, some of them often.
fn random_name<T>(make: impl FnOnce(&str) -> Result<T, NameError>) -> Result<T, StartError> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let refused = |message: String| StartError::System(io::Error::other(message));
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| refused(error.to_string()))?;
    let mut left = u64::from_be_bytes(bytes);
    let mut name = String::with_capacity(13);
    for _ in 0..13 {
        name.push(char::from(DIGITS[(left % 36) as usize]));
        left /= 36;
    }
    make(&name).map_err(|error| refused(error.to_string()))
}

async fn begin(
    backend: Backend,
    epoch: Epoch,
    database: DatabaseId,
    config: &ServerConfig,
) -> Result<Backend, StartError> {
    let first = [
        Transaction::BeginEpoch { epoch, database },
        Transaction::DeclareScopes(config.scopes.clone()),
        Transaction::DeclareIndexes(config.indexes.clone()),
    ];
    let begin = move || {
        backend.begin(&first)?;
        Ok(backend)
    };
    let begun = task::spawn_blocking(begin).await;
    begun.map_err(|error| StartError::System(io::Error::other(error)))?.map_err(StartError::Store)
}

async fn watch_budget(shared: Arc<Shared>, mut ending: watch::Receiver<bool>) {
    tokio::select! {
        () = shared.budget.watch() => {}
        () = wait_for_end(&mut ending) => {}
    }
}

/// Removes what is older than the retention, now and then. The first sweep counts what a store of an
/// earlier version has not counted, and builds scopes and indexes that are new.
async fn sweep(shared: Arc<Shared>, mut ending: watch::Receiver<bool>) {
    loop {
        shared.sweep_peers();
        let mut next = Some(SweepPlace::Start);
        while let Some(from) = next.take() {
            let retention = shared.config.tombstone_retention;
            let sweep = Transaction::Sweep(Sweep { retention, from, budget: SWEPT_ROWS });
            match shared.commits.run(&Principal::Local, sweep).await {
                Ok(TransactionAnswer::Swept(swept)) => next = swept.next,
                Ok(
                    TransactionAnswer::Hello(_)
                    | TransactionAnswer::Writes(_)
                    | TransactionAnswer::Pushed(_)
                    | TransactionAnswer::Plain(_)
                    | TransactionAnswer::PlainUnit(_)
                    | TransactionAnswer::Begun,
                ) => {}
                Err(error) => tracing::warn!(%error, "nothing was swept"),
            }
        }
        tokio::select! {
            () = sleep(shared.config.sweep_interval) => {}
            () = wait_for_end(&mut ending) => return,
        }
    }
}
