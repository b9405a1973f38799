//! The configuration of a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use synclayer_core::{
    ClientStore, ConflictStrategy, Guarantees, Limits, MemoryClientStore, OnServerLoss,
    PlainServers, Resolver, StoreError,
};

use crate::tls::TrustedRoots;

/// A callback for a store to call when more commits have become durable, or can't be made so. It may
/// be called on any thread and does not block. A store whose commits are durable as soon as they are
/// flushed need not call it.
pub type OnDurable = Box<dyn Fn() + Send + Sync>;

/// Opens a store. It is called on the client's own thread: when the client opens, and again after
/// the store has failed. Neither it nor the store may call a client
/// ([`SyncError::InsideCallback`](crate::error::SyncError::InsideCallback)).
pub type StoreFactory =
    Box<dyn FnMut(OnDurable) -> Result<Box<dyn ClientStore + Send>, StoreError> + Send>;

/// The place where a client keeps its data.
pub enum Store {
    /// Memory: the data is gone when the client is dropped, its unsent writes too.
    Memory,
    /// A store of the program's choice, such as a directory.
    Custom(StoreFactory),
}

impl Store {
    /// A store that is opened by a function.
    ///
    /// ```
    /// # use synclayer_client::config::Store;
    /// use synclayer_core::MemoryClientStore;
    ///
    /// let store = Store::opened_by(|_on_durable| Ok(Box::new(MemoryClientStore::default())));
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
            Self::Memory => Box::new(|_| Ok(Box::new(MemoryClientStore::default()))),
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

/// The ways to a server that a client may take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Transports {
    /// The WebSocket while there is one, and HTTP else.
    #[default]
    Both,
    /// The WebSocket alone.
    RealtimeOnly,
    /// HTTP alone.
    PollOnly,
}

/// The configuration of a client: [`new`](Self::new) takes what is required, and the other fields
/// have defaults, which chained setters of the same names change.
///
/// ```
/// # use synclayer_client::config::SyncConfig;
/// use std::time::Duration;
///
/// let config = SyncConfig::new("https://api.example.com")
///     .collections(["todos"])
///     .auth_token("secret")
///     .sync_interval(Duration::from_secs(60));
/// assert_eq!(config.collections, ["todos"]);
/// ```
#[non_exhaustive]
pub struct SyncConfig {
    /// The server, as `https://…` or `http://…`; HTTP calls go below it. It may be empty where
    /// there is a `websocket_url`, and then nothing goes by HTTP.
    pub base_url: String,
    /// The WebSocket endpoint, as `wss://…` or `ws://…`. By default `/ws` below `base_url`.
    pub websocket_url: Option<String>,
    /// The token by which the server knows the user. It goes only over TLS or to this machine,
    /// unless `allow_insecure` is set.
    pub auth_token: Option<String>,
    /// Sends the token of a WebSocket in its URL, as `?token=…`, and not in a header: servers made
    /// for the apps of SyncLayer 1.7 may look for it nowhere else. HTTP calls carry it in their
    /// header. URLs are written to the logs of many servers and proxies, so use it only where it is
    /// needed. Default false.
    pub token_in_query: bool,
    /// The user whose data this is. Every user of one store has rows and an outbox of their own, and
    /// those of the others wait. By default the user without a name.
    pub user: String,
    /// The collections to keep in sync from the start. Others join when they are first used.
    pub collections: Vec<String>,
    /// The indexes of this store, each as the name of its collection and its fields; see
    /// [`index`](Self::index). Default none.
    pub indexes: Vec<(String, String)>,
    /// The scopes to keep in sync from the start, each as the name of its collection and the parts of its
    /// key with their values as JSON; see [`scope`](Self::scope). Default none.
    pub scopes: Vec<(String, Vec<(String, String)>)>,
    /// The time for which a scope that nothing uses any more is kept in sync. Only time counts in which
    /// the server is in reach, the collection in step, and no write of it waits. Then its records go.
    /// Default 5 minutes.
    pub keep_scopes_for: Duration,
    /// The time for which a collection that nothing uses any more is kept in sync: none of its
    /// handles, none of its watches, no write that waits, and no name in `collections`. Only time
    /// counts in which the server is in reach and the collection in step. Then it is left: its rows
    /// stay, and its next use joins it again. Default `None`: for ever.
    pub keep_for: Option<Duration>,
    /// Connects at once. Without it the client stays disconnected until its `connect` is
    /// called. Default true.
    pub connect_at_start: bool,
    /// The ways to the server that may be taken. Default both.
    pub transports: Transports,
    /// Uses the WebSocket. Without it the server is asked by HTTP. Default true.
    pub enable_realtime_sync: bool,
    /// Asks by HTTP as time passes, and makes sure now and then that the WebSocket has missed
    /// nothing. Without it that happens only by `sync_now`. Default true.
    pub enable_auto_sync: bool,
    /// The base of the backoff between tries to connect. Default 1 s.
    pub reconnect_delay: Duration,
    /// The number of attempts in a row to open the WebSocket that may fail before the client gives
    /// it up; `None`: it never does. By HTTP it goes on, and tries the WebSocket again now and then.
    pub max_reconnect_attempts: Option<u32>,
    /// The silence of a WebSocket, in either direction, after which a ping is sent. Default 30 s.
    pub ping_interval: Duration,
    /// The time within which a ping is answered, as long as nothing of a frame comes and nothing that
    /// waits goes out; a connection that fails to is given up. Default 15 s.
    pub ping_timeout: Duration,
    /// The time for which a connection that looks alive may stay silent when `set_online(true)` or `sync_now`
    /// is called, or the device has slept, before it is given up. Default 5 s.
    pub probe_timeout: Duration,
    /// The decision where a pending write and a remote change meet. Default last-write-wins.
    pub conflict_strategy: ConflictStrategy,
    /// A resolver, which then decides instead of `conflict_strategy`. It runs on the client's own
    /// thread, so it must be quick, and what it calls of a client is refused
    /// ([`SyncError::InsideCallback`](crate::error::SyncError::InsideCallback)). Where it panics, the
    /// client goes on: an event
    /// ([`ResolverFailed`](synclayer_core::EventKind::ResolverFailed)) says so, and
    /// last-write-wins decides. In a program built with `panic = "abort"` no panic can be caught: it
    /// ends the program.
    pub custom_conflict_resolver: Option<Arc<dyn Resolver>>,
    /// The interval at which the server is asked for changes while there is no WebSocket, and at
    /// which the client makes sure, while there is one, that nothing was missed. Default 5 minutes.
    pub sync_interval: Duration,
    /// The interval at which everything is compared with a plain server, which is how deletes are
    /// found there; `None` for never. Default 1 hour.
    pub reconcile_interval: Option<Duration>,
    /// The time for which nothing of an HTTP request may go out and nothing of its answer come in. Default
    /// 30 s.
    pub request_timeout: Duration,
    /// The treatment of servers without the resumable protocol. Default: they are recognised, and
    /// used where they were always such.
    pub plain_servers: PlainServers,
    /// The guarantees that the server must give: with less, nothing is sent to it, and an event says so.
    /// Default nothing.
    pub required_guarantees: Guarantees,
    /// The decision about records that are held here and that the server does not have any more, as
    /// after the restore of an older backup. `None`, the default, asks the app where more than ten
    /// records and more than a tenth of a collection would go, and lets fewer go. Another database in
    /// the place of the server's is always asked about.
    pub on_server_loss: Option<OnServerLoss>,
    /// The certificates that vouch for servers spoken to over TLS.
    pub trusted_roots: TrustedRoots,
    /// Lets a token go over the network unencrypted. Default false.
    pub allow_insecure: bool,
    /// The limits for frames of the server and documents of the app.
    pub limits: Limits,
    /// The store of the data. Default in memory.
    pub store: Store,
}

/// Setters, each of the field of its name.
macro_rules! setters {
    ($($field:ident: $type:ty,)+) => { $(
        #[doc = concat!("Sets the field `", stringify!($field), "`.")]
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
    )+ };
}

impl SyncConfig {
    /// The default configuration for the server at `base_url`: `https://…` or `http://…`. HTTP
    /// calls go below it. It may be empty if [`websocket_url`](Self::websocket_url) is set; then
    /// nothing goes by HTTP.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            websocket_url: None,
            auth_token: None,
            token_in_query: false,
            user: String::new(),
            collections: Vec::new(),
            indexes: Vec::new(),
            scopes: Vec::new(),
            keep_scopes_for: Duration::from_secs(300),
            keep_for: None,
            connect_at_start: true,
            transports: Transports::Both,
            enable_realtime_sync: true,
            enable_auto_sync: true,
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_attempts: None,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(5),
            conflict_strategy: ConflictStrategy::default(),
            custom_conflict_resolver: None,
            sync_interval: Duration::from_secs(300),
            reconcile_interval: Some(Duration::from_secs(60 * 60)),
            request_timeout: Duration::from_secs(30),
            plain_servers: PlainServers::default(),
            required_guarantees: Guarantees::default(),
            on_server_loss: None,
            trusted_roots: TrustedRoots::Public,
            allow_insecure: false,
            limits: Limits::default(),
            store: Store::Memory,
        }
    }

    /// Sets the field `websocket_url`.
    #[must_use]
    pub fn websocket_url(mut self, url: impl Into<String>) -> Self {
        self.websocket_url = Some(url.into());
        self
    }

    /// Sets the field `auth_token`.
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<String>) -> Self {
        self.auth_token = Some(token.into());
        self
    }

    /// Sets the field `collections`.
    #[must_use]
    pub fn collections(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.collections = names.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an index to a collection: a query that fits it reads only the records that it needs.
    ///
    /// `fields` are the fields of its records, inside objects too, with commas between them: an index
    /// serves conditions that its first fields equal values, a range of the next one, and the order of
    /// those that follow. `-` before a field puts its largest value first; that matters only where fields
    /// of different directions are sorted by, as in `category,-price`.
    ///
    /// An index is kept with the records, pending writes included. For records that are here already it is
    /// built in the background, as the event
    /// [`IndexProgress`](synclayer_core::EventKind::IndexProgress) tells, and queries go without it until
    /// it is whole. One that is declared no longer is removed. It costs a row of the store for each record,
    /// and one or two more for a change of its fields. A query's `explain` says what it used.
    #[must_use]
    pub fn index(mut self, collection: impl Into<String>, fields: impl Into<String>) -> Self {
        self.indexes.push((collection.into(), fields.into()));
        self
    }

    /// Keeps a scope of a collection in sync from the start: the records that have a value in a field
    /// (`room`), or in the array that one holds (`members[]`). A value that can't be one shows when the
    /// client is opened.
    #[must_use]
    pub fn scope<T: Serialize>(
        self,
        collection: impl Into<String>,
        field: impl Into<String>,
        value: T,
    ) -> Self {
        self.scope_of(collection, [(field, value)])
    }

    /// Keeps the scope of a key of several fields in sync from the start, which have these values
    /// together; see [`scope`](Self::scope).
    ///
    /// ```
    /// # use synclayer_client::config::SyncConfig;
    ///
    /// let config = SyncConfig::new("https://api.example.com")
    ///     .scope("lists", "members[]", "ann")
    ///     .scope_of("tasks", [("project", "p1"), ("status", "open")]);
    /// assert_eq!(config.scopes[1].1, [("project", "\"p1\""), ("status", "\"open\"")]
    ///     .map(|(part, json)| (part.to_owned(), json.to_owned())));
    /// ```
    #[must_use]
    pub fn scope_of<P: Into<String>, T: Serialize>(
        mut self,
        collection: impl Into<String>,
        parts: impl IntoIterator<Item = (P, T)>,
    ) -> Self {
        let json = |value: &T| serde_json::to_string(value).unwrap_or_default();
        let parts = parts.into_iter().map(|(part, value)| (part.into(), json(&value))).collect();
        self.scopes.push((collection.into(), parts));
        self
    }

    /// Sets the field `custom_conflict_resolver`.
    #[must_use]
    pub fn custom_conflict_resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.custom_conflict_resolver = Some(resolver);
        self
    }

    setters! {
        token_in_query: bool,
        user: String,
        keep_scopes_for: Duration,
        keep_for: Option<Duration>,
        connect_at_start: bool,
        transports: Transports,
        enable_realtime_sync: bool,
        enable_auto_sync: bool,
        reconnect_delay: Duration,
        max_reconnect_attempts: Option<u32>,
        ping_interval: Duration,
        ping_timeout: Duration,
        probe_timeout: Duration,
        conflict_strategy: ConflictStrategy,
        sync_interval: Duration,
        reconcile_interval: Option<Duration>,
        request_timeout: Duration,
        plain_servers: PlainServers,
        required_guarantees: Guarantees,
        on_server_loss: Option<OnServerLoss>,
        trusted_roots: TrustedRoots,
        allow_insecure: bool,
        limits: Limits,
        store: Store,
    }
}

/// Shows everything but the token, and of the URLs nothing behind a `?`.
impl fmt::Debug for SyncConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown(url: &str) -> &str {
            url.split('?').next().unwrap_or_default()
        }
        f.debug_struct("SyncConfig")
            .field("base_url", &shown(&self.base_url))
            .field("websocket_url", &self.websocket_url.as_deref().map(shown))
            .field("auth_token", &self.auth_token.as_ref().map(|_| "…"))
            .field("token_in_query", &self.token_in_query)
            .field("user", &self.user)
            .field("collections", &self.collections)
            .field("indexes", &self.indexes)
            .field("scopes", &self.scopes)
            .field("keep_scopes_for", &self.keep_scopes_for)
            .field("keep_for", &self.keep_for)
            .field("connect_at_start", &self.connect_at_start)
            .field("transports", &self.transports)
            .field("enable_realtime_sync", &self.enable_realtime_sync)
            .field("enable_auto_sync", &self.enable_auto_sync)
            .field("reconnect_delay", &self.reconnect_delay)
            .field("max_reconnect_attempts", &self.max_reconnect_attempts)
            .field("ping_interval", &self.ping_interval)
            .field("ping_timeout", &self.ping_timeout)
            .field("probe_timeout", &self.probe_timeout)
            .field("conflict_strategy", &self.conflict_strategy)
            .field("sync_interval", &self.sync_interval)
            .field("reconcile_interval", &self.reconcile_interval)
            .field("request_timeout", &self.request_timeout)
            .field("plain_servers", &self.plain_servers)
            .field("required_guarantees", &self.required_guarantees)
            .field("on_server_loss", &self.on_server_loss)
            .field("allow_insecure", &self.allow_insecure)
            .field("limits", &self.limits)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
