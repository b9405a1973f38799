//! How a client is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use synclayer_core::memory::MemoryClientStore;
use synclayer_core::rules::conflict::{ConflictStrategy, Resolver};
use synclayer_core::words::limits::Limits;
use synclayer_core::words::store::{ClientStore, StoreError};

/// What a store calls when more commits have become durable, or can't be made so. It may be called
/// on any thread, does not block, and need not be called by a store whose commits are durable as
/// soon as they are flushed.
pub type OnDurable = Box<dyn Fn() + Send + Sync>;

/// Opens a store. It is called on the client's own thread: when the client opens, and again after
/// the store has failed.
pub type StoreFactory =
    Box<dyn FnMut(OnDurable) -> Result<Box<dyn ClientStore + Send>, StoreError> + Send>;

/// Where a client keeps its data.
pub enum Store {
    /// In memory: gone when the client is dropped, its unsent writes too.
    Memory,
    /// In a store of the program's choice, such as a directory.
    Custom(StoreFactory),
}

impl Store {
    /// A store that is opened by a function.
    ///
    /// ```
    /// use synclayer_core::memory::MemoryClientStore;
    /// use synclayer_tokio::Store;
    ///
    /// let store = Store::opened_by(|_on_durable| Ok(Box::new(MemoryClientStore::new())));
    /// ```
    pub fn opened_by(
        factory: impl FnMut(OnDurable) -> Result<Box<dyn ClientStore + Send>, StoreError>
        + Send
        + 'static,
    ) -> Self {
        Self::Custom(Box::new(factory))
    }

    pub(crate) fn into_factory(self) -> StoreFactory {
        match self {
            Self::Memory => Box::new(|_| Ok(Box::new(MemoryClientStore::new()))),
            Self::Custom(factory) => factory,
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "Memory",
            Self::Custom(_) => "Custom(..)",
        })
    }
}

/// How a client is set up. Name what matters and take the rest from the default:
///
/// ```
/// use synclayer_tokio::SyncConfig;
///
/// let config = SyncConfig {
///     base_url: "https://api.example.com".into(),
///     collections: vec!["todos".into()],
///     ..SyncConfig::default()
/// };
/// ```
pub struct SyncConfig {
    /// The server, as `https://…` or `http://…`.
    pub base_url: String,
    /// The WebSocket endpoint, as `wss://…` or `ws://…`. By default `/ws` below `base_url`.
    pub websocket_url: Option<String>,
    /// The token by which the server knows the user. It goes only over TLS or to this machine,
    /// unless `allow_insecure` is set.
    pub auth_token: Option<String>,
    /// Whose data this is. Every user of one store has rows and an outbox of their own, and those
    /// of the others wait. By default the user without a name.
    pub user: String,
    /// The collections to keep in sync from the start. Others join when they are first used.
    pub collections: Vec<String>,
    /// Whether to connect to the WebSocket at once. Without it the client stays offline until
    /// [`connect`](crate::SyncLayer::connect) is called. Default true.
    pub enable_realtime_sync: bool,
    /// The base of the backoff between tries to connect. Default 1 s.
    pub reconnect_delay: Duration,
    /// How many tries in a row may fail before the client gives up; `None`: it never does.
    pub max_reconnect_attempts: Option<u32>,
    /// Who wins where a pending write and a remote change meet. Default last-write-wins.
    pub conflict_strategy: ConflictStrategy,
    /// A resolver, which then decides instead of `conflict_strategy`.
    pub custom_conflict_resolver: Option<Arc<dyn Resolver>>,
    /// How often to ask the server for changes while there is no WebSocket. Default 5 minutes.
    /// (Not used yet: without a WebSocket nothing is exchanged.)
    pub sync_interval: Duration,
    /// Whether a token may go over the network unencrypted. Default false.
    pub allow_insecure: bool,
    /// What the server may send and the app may write.
    pub limits: Limits,
    /// Where the data is kept. Default in memory.
    pub store: Store,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            websocket_url: None,
            auth_token: None,
            user: String::new(),
            collections: Vec::new(),
            enable_realtime_sync: true,
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_attempts: None,
            conflict_strategy: ConflictStrategy::default(),
            custom_conflict_resolver: None,
            sync_interval: Duration::from_secs(300),
            allow_insecure: false,
            limits: Limits::default(),
            store: Store::Memory,
        }
    }
}

/// Everything but the token, and of the URLs nothing behind a `?`.
impl fmt::Debug for SyncConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown(url: &str) -> &str {
            url.split('?').next().unwrap_or_default()
        }
        f.debug_struct("SyncConfig")
            .field("base_url", &shown(&self.base_url))
            .field("websocket_url", &self.websocket_url.as_deref().map(shown))
            .field("auth_token", &self.auth_token.as_ref().map(|_| "…"))
            .field("user", &self.user)
            .field("collections", &self.collections)
            .field("enable_realtime_sync", &self.enable_realtime_sync)
            .field("reconnect_delay", &self.reconnect_delay)
            .field("max_reconnect_attempts", &self.max_reconnect_attempts)
            .field("conflict_strategy", &self.conflict_strategy)
            .field("sync_interval", &self.sync_interval)
            .field("allow_insecure", &self.allow_insecure)
            .field("limits", &self.limits)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
