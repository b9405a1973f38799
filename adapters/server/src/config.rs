//! The configuration of a server.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use synclayer_core::{AllowAll, Collection, Index, Policy, RingLimits, ScopeKey, ServerLimits};

use crate::auth::Authenticator;
use crate::tls::Tls;

/// The configuration of a [`Server`](crate::Server) or an [`Embedded`](crate::Embedded) one. The
/// default is open to everyone on this machine, on a port that the system chooses.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_server::{ServerConfig, StaticTokens, UserId};
///
/// let tokens = StaticTokens::new([(UserId::new("ann")?, "s3cret")]);
/// let mut config = ServerConfig::new()
///     .listen(([0, 0, 0, 0], 8080))
///     .authenticator(Arc::new(tokens))
///     .allow_origins(["https://app.example"]);
/// config.limits.input.document_bytes = 64 << 10;
/// # Ok::<(), synclayer_server::NameError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The address to listen at. Port 0 lets the system choose. Default `127.0.0.1:0`.
    ///
    /// Without an authenticator only a loopback address is taken.
    pub listen: SocketAddr,
    /// TLS for the connections that are accepted at that address. Default: none, so that a proxy has
    /// to do it where others than programs of this machine connect.
    pub tls: Option<Tls>,
    /// The users and their tokens. `None`, the default, lets everyone in, without users.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// The permissions of the users. Default: everyone may do everything.
    pub policy: Arc<dyn Policy>,
    /// The origins whose web pages may connect, like `https://app.example`, besides those of the
    /// server's own host; `*` for all. Default: none.
    pub allow_origins: Vec<String>,
    /// The names by which requests may call a server without an authenticator, besides `localhost`
    /// and the addresses of loopback: names or addresses without a port; `*` for any. Requests that
    /// call it otherwise are refused with 403, since any web page can give a name of its own the
    /// address of this machine. Default: none.
    pub allow_hosts: Vec<String>,
    /// The scope keys of collections, at most 8 of each. Default: none. A write costs up to three more
    /// rows, about 150 bytes, for each scope that its record is in. In a store with records, scopes are
    /// served once they were built, which a start does beside everything else.
    pub scopes: BTreeMap<Collection, Vec<ScopeKey>>,
    /// The indexes of collections, at most 16 of each, by which REST queries with `where`, `orderBy` and
    /// `limit` are carried out. Default: none, and such a query reads every record. A write costs up to two
    /// more rows for each index whose fields it changes. In a store with records, an index serves once it
    /// was built, which a start does beside everything else; one that is no longer here loses its rows.
    pub indexes: BTreeMap<Collection, Vec<Index>>,
    /// The limits on the peers, for WebSockets and HTTP alike.
    pub limits: ServerLimits,
    /// The limits of the recent changes that are kept in memory.
    pub rings: RingLimits,
    /// The time for which deleted records, silent clients and past epochs are remembered: a client
    /// that was away for longer takes a snapshot. Default 30 days.
    pub tombstone_retention: Duration,
    /// The interval of removing everything that is older than that. Default 1 minute.
    pub sweep_interval: Duration,
    /// The maximal number of connections at a time, WebSockets and others; further ones wait to be
    /// served. Default 16,384, but never so many that fewer than 256 descriptors of the process's
    /// limit, or half of it, are left for the store.
    pub max_connections: usize,
    /// The maximal number of WebSockets and requests at a time from one address: the peer's, or the
    /// one that a [trusted proxy](Self::trusted_proxies) names. The addresses of an IPv6 network of
    /// 64 bits count as one. Programs of this machine have no such limit. Default 1,024, but never
    /// more than half of all connections.
    pub max_connections_per_address: usize,
    /// The maximal number of connections of which no request was admitted yet, or is being answered.
    /// A further one ends the oldest of them that is older than half a second. Default 1,024, but
    /// never more than half of all connections.
    pub max_unauthenticated: usize,
    /// The proxies whose `X-Forwarded-For` is believed: it names the address by which the sender of a
    /// request is counted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The number of wrong tokens from one address, counted as for connections, that locks it out.
    /// Default 20; 0 for no lockout.
    pub login_failures: u32,
    /// The time within which that many wrong tokens lock out, and for which they do. Default 1
    /// minute.
    pub login_lockout: Duration,
    /// The maximal number of tokens that the authenticator is asked about at a time; others wait. Default 64.
    pub max_logins: usize,
    /// The time within which it has to answer, waiting included. Who waited for longer is told to try again
    /// later, and a WebSocket whose token was to be checked again is closed with 1013. Default 5 s.
    pub login_timeout: Duration,
    /// The memory that frames being read and answers being written share, in bytes. A user, or an
    /// address of peers without one, has twice as much as is free at most, so that others find the
    /// rest. Where there is no more for them, their connections that hold more than 16 KiB are read no
    /// further, large answers are refused, and after 10 s the connection that holds the most is ended.
    /// Default 256 MiB.
    pub memory_budget: usize,
    /// The maximal number of pages that are read from the store at a time. Default 8. Queries and
    /// whole collections take turns of 0.5 ms on half of the processors.
    pub max_reads: usize,
    /// The longest time that a query may run, not counting the time for which it waits for its turn;
    /// a longer one is refused. Default 10 s.
    pub read_time: Duration,
    /// The time within which a TLS handshake is done and the head of an HTTP request has to arrive, for
    /// which nothing of its body may come, and within which it is answered. Default 30 s.
    pub http_timeout: Duration,
    /// The time after which a connection ends whose peer takes nothing of what is sent to it. Default
    /// 30 s.
    pub write_timeout: Duration,
    /// The time for which a closing WebSocket waits for its peer to agree. Default 3 s.
    pub close_timeout: Duration,
    /// Further numbers for `/health`, such as those of the store, each under its name. It must be
    /// quick. Default: none.
    pub metrics: Option<Arc<Metrics>>,
}

/// A function that returns further numbers for `/health`.
///
/// ```
/// use synclayer_server::ServerConfig;
///
/// let config = ServerConfig::new().metrics(|| vec![("syncs", 7)]);
/// assert_eq!(config.metrics.map(|metrics| metrics()), Some(vec![("syncs", 7)]));
/// ```
pub type Metrics = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            authenticator: None,
            policy: Arc::new(AllowAll),
            allow_origins: Vec::new(),
            allow_hosts: Vec::new(),
            scopes: BTreeMap::new(),
            indexes: BTreeMap::new(),
            limits: ServerLimits::default(),
            rings: RingLimits::default(),
            tombstone_retention: Duration::from_secs(30 * 24 * 60 * 60),
            sweep_interval: Duration::from_secs(60),
            max_connections: 16_384,
            max_connections_per_address: 1024,
            max_unauthenticated: 1024,
            trusted_proxies: Vec::new(),
            login_failures: 20,
            login_lockout: Duration::from_secs(60),
            max_logins: 64,
            login_timeout: Duration::from_secs(5),
            memory_budget: 256 << 20,
            max_reads: 8,
            read_time: Duration::from_secs(10),
            http_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(3),
            metrics: None,
        }
    }
}

/// Setters, each of the field of its name.
macro_rules! setters {
    ($($field:ident: $type:ty,)+) => { $(
        #[doc = concat!("Sets the field `", stringify!($field), "`.")]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+ };
}

impl ServerConfig {
    /// The default configuration.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the field `listen`.
    #[must_use]
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = address.into();
        self
    }

    /// Sets the field `tls`.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the field `authenticator`.
    #[must_use]
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Sets the field `policy`.
    #[must_use]
    pub fn policy(mut self, policy: Arc<dyn Policy>) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the field `allow_origins`.
    #[must_use]
    pub fn allow_origins(mut self, origins: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allow_origins = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the field `trusted_proxies`, to addresses or networks.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = impl Into<IpNet>>) -> Self {
        self.trusted_proxies = proxies.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the field `allow_hosts`.
    #[must_use]
    pub fn allow_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allow_hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the keys of a collection in the field `scopes`.
    ///
    /// ```
    /// use synclayer_server::{Collection, ServerConfig};
    ///
    /// let messages = Collection::new("messages")?;
    /// let config = ServerConfig::new().scopes(messages.clone(), ["room".parse()?]);
    /// assert_eq!(config.scopes[&messages].len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn scopes(
        mut self,
        collection: Collection,
        keys: impl IntoIterator<Item = ScopeKey>,
    ) -> Self {
        self.scopes.insert(collection, keys.into_iter().collect());
        self
    }

    /// Sets the indexes of a collection in the field `indexes`.
    ///
    /// ```
    /// use synclayer_server::{Collection, ServerConfig};
    ///
    /// let todos = Collection::new("todos")?;
    /// let config = ServerConfig::new().indexes(todos.clone(), ["done,-priority".parse()?]);
    /// assert_eq!(config.indexes[&todos].len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn indexes(
        mut self,
        collection: Collection,
        indexes: impl IntoIterator<Item = Index>,
    ) -> Self {
        self.indexes.insert(collection, indexes.into_iter().collect());
        self
    }

    /// Sets the field `metrics`.
    #[must_use]
    pub fn metrics(
        mut self,
        metrics: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) -> Self {
        self.metrics = Some(Arc::new(metrics));
        self
    }

    /// Sets the field `plain_whole` of `rings`: `true` to push whole records to level-1 readers, for
    /// apps of SyncLayer 1.7, which put what an `update` pushes in the place of the record.
    #[must_use]
    pub fn plain_whole(mut self, plain_whole: bool) -> Self {
        self.rings.plain_whole = plain_whole;
        self
    }

    setters! {
        limits: ServerLimits,
        rings: RingLimits,
        tombstone_retention: Duration,
        sweep_interval: Duration,
        max_connections: usize,
        max_connections_per_address: usize,
        max_unauthenticated: usize,
        login_failures: u32,
        login_lockout: Duration,
        max_logins: usize,
        login_timeout: Duration,
        memory_budget: usize,
        max_reads: usize,
        read_time: Duration,
        http_timeout: Duration,
        write_timeout: Duration,
        close_timeout: Duration,
    }
}

/// Shows everything but the policy and the authenticator, which may hold secrets.
impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("listen", &self.listen)
            .field("tls", &self.tls)
            .field("authenticated", &self.authenticator.is_some())
            .field("allow_origins", &self.allow_origins)
            .field("allow_hosts", &self.allow_hosts)
            .field("scopes", &self.scopes)
            .field("indexes", &self.indexes)
            .field("limits", &self.limits)
            .field("rings", &self.rings)
            .field("tombstone_retention", &self.tombstone_retention)
            .field("max_connections", &self.max_connections)
            .field("trusted_proxies", &self.trusted_proxies)
            .field("memory_budget", &self.memory_budget)
            .finish_non_exhaustive()
    }
}
