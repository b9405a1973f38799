//! The checks of a configuration, and the parts of a client that are made from it.

use std::sync::Arc;

use synclayer_core::{ClientConfig, Collection, ConflictStrategy, NamedScope, RecordId, Token};
use uuid::Uuid;

use crate::address::{Address, Endpoint};
use crate::call::HttpClient;
use crate::callback::CatchPanics;
use crate::config::{StoreFactory, SyncConfig, Transports};
use crate::error::{OpenError, SyncError};
use crate::tls::Tls;
use crate::websocket::Target;

/// A checked configuration, as the parts of a client want it.
pub struct Setup {
    /// The server's WebSocket endpoint.
    pub target: Target,
    /// The client for HTTP requests, if any are made.
    pub(crate) http: Option<HttpClient>,
    /// The configuration of the machine.
    pub(crate) client: ClientConfig,
    /// The factory of the store.
    pub(crate) factory: StoreFactory,
    /// The client connects at once.
    pub(crate) connected: bool,
    /// A token may be sent.
    pub(crate) takes_token: bool,
}

impl Setup {
    /// Checks a configuration.
    ///
    /// # Errors
    /// When it can't be used.
    pub fn new(config: SyncConfig) -> Result<Self, OpenError> {
        let address = Address::new(&config.base_url, config.websocket_url.as_deref())?;
        let takes_token = config.auth_token.as_deref().map_or(Ok(()), check_token);
        takes_token.map_err(|_| OpenError::Token)?;
        let open = exposed(&config, &address);
        if let Some(Endpoint { host, .. }) = open.filter(|_| config.auth_token.is_some()) {
            return Err(OpenError::Insecure { host: host.clone() });
        }
        let tls = Tls::new(&config.trusted_roots)?;
        let http = polled(&config, &address)?
            .map(|endpoint| HttpClient::new(endpoint, &tls, config.limits.frame_bytes));
        let client = client_config(&config, &address, http.is_some())?;
        let takes_token = open.is_none();
        let connected = config.connect_at_start;
        let frame_bytes = config.limits.frame_bytes;
        let factory = config.store.into_factory();
        let mut target = Target::new(Arc::new(address.websocket), tls.config, frame_bytes);
        target.token_in_query = config.token_in_query;
        Ok(Self { target, http, client, factory, connected, takes_token })
    }
}

/// The address, of those that are used, where a token would be read by others.
fn exposed<'a>(config: &SyncConfig, address: &'a Address) -> Option<&'a Endpoint> {
    let websocket = match config.transports {
        Transports::Both | Transports::RealtimeOnly => Some(&address.websocket),
        Transports::PollOnly => None,
    };
    let http = match config.transports {
        Transports::Both | Transports::PollOnly => address.http.as_ref(),
        Transports::RealtimeOnly => None,
    };
    let used = websocket.into_iter().chain(http);
    used.filter(|endpoint| !config.allow_insecure && !endpoint.is_private()).last()
}

/// The address that is asked by HTTP, if any.
fn polled<'a>(
    config: &SyncConfig,
    address: &'a Address,
) -> Result<Option<&'a Endpoint>, OpenError> {
    match (config.transports, &address.http) {
        (Transports::RealtimeOnly, _) | (Transports::Both, None) => Ok(None),
        (Transports::Both | Transports::PollOnly, Some(endpoint)) => Ok(Some(endpoint)),
        (Transports::PollOnly, None) => {
            Err(OpenError::Address { reason: "without a `base_url` there is no HTTP".into() })
        }
    }
}

fn client_config(
    config: &SyncConfig,
    address: &Address,
    http: bool,
) -> Result<ClientConfig, OpenError> {
    let name = |name: &String| {
        Collection::new(name).map_err(|reason| OpenError::Collection { name: name.clone(), reason })
    };
    let strategy = match &config.custom_conflict_resolver {
        Some(resolver) => ConflictStrategy::Custom(resolver.clone()),
        None => config.conflict_strategy.clone(),
    };
    let strategy = match strategy {
        ConflictStrategy::Custom(resolver) => ConflictStrategy::custom(CatchPanics(resolver)),
        built_in @ (ConflictStrategy::LastWriteWins
        | ConflictStrategy::ServerWins
        | ConflictStrategy::ClientWins) => built_in,
    };
    let mut client = ClientConfig::default();
    client.user = config.user.clone();
    client.token = config.auth_token.as_deref().map(Token::from);
    client.collections = config.collections.iter().map(name).collect::<Result<_, _>>()?;
    for (of, fields) in &config.indexes {
        let index = fields.parse().map_err(|reason| {
            let collection = of.clone();
            OpenError::Index { collection, reason }
        })?;
        client.indexes.entry(name(of)?).or_default().push(index);
    }
    for (of, parts) in &config.scopes {
        let parts = parts.iter().map(|(part, json)| (part.as_str(), json.as_str()));
        let scope = NamedScope::new(parts).map_err(|reason| {
            let collection = of.clone();
            OpenError::Scope { collection, reason }
        })?;
        client.scopes.entry(name(of)?).or_default().push(scope);
    }
    client.keep_scopes_for = config.keep_scopes_for;
    client.keep_for = config.keep_for;
    client.conflict_strategy = strategy;
    client.limits = config.limits.clone();
    client.reconnect_delay = config.reconnect_delay;
    client.max_reconnect_attempts = config.max_reconnect_attempts;
    client.ping_interval = config.ping_interval;
    client.ping_timeout = config.ping_timeout;
    client.probe_timeout = config.probe_timeout;
    client.websocket = config.transports != Transports::PollOnly;
    client.http = http;
    client.enable_realtime_sync = config.enable_realtime_sync;
    client.enable_auto_sync = config.enable_auto_sync;
    client.sync_interval = config.sync_interval;
    client.request_timeout = config.request_timeout;
    client.reconcile_interval = config.reconcile_interval;
    client.plain = config.plain_servers;
    client.address = address.identity();
    client.required = config.required_guarantees;
    client.on_server_loss = config.on_server_loss;
    Ok(client)
}

/// Checks that a token can be sent.
///
/// # Errors
/// When no header can carry it.
pub(crate) fn check_token(token: &str) -> Result<(), SyncError> {
    let sendable = token.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if sendable { Ok(()) } else { Err(SyncError::Token) }
}

/// An id for a record, as the app gives it.
///
/// # Errors
/// When it can't be one.
pub(crate) fn record_id(id: &str) -> Result<RecordId, SyncError> {
    RecordId::new(id).map_err(|reason| SyncError::Name { name: id.to_owned(), reason })
}

/// An id for a new record: a UUID that rises with the time.
///
/// # Errors
/// Never: UUIDs are ids.
pub(crate) fn fresh_record_id() -> Result<RecordId, SyncError> {
    record_id(&Uuid::now_v7().to_string())
}

/// A collection's name, as the app gives it.
///
/// # Errors
/// When it can't be one.
pub(crate) fn collection(name: &str) -> Result<Collection, SyncError> {
    Collection::new(name).map_err(|reason| SyncError::Name { name: name.to_owned(), reason })
}
