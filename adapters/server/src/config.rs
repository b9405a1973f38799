//! What a server is told when it is opened.

use std::fmt;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use synclayer_core::server::RingLimits;
use synclayer_core::server::http::HttpConfig;
use synclayer_core::server::session::SessionConfig;
use synclayer_core::{AllowAll, Policy, Rate, Token, UserId};

/// How a [`Server`](crate::Server) behaves. The default is open to everyone on this machine, on a
/// port that the system chooses.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where to listen. Port 0 lets the system choose. Default `127.0.0.1:0`.
    ///
    /// Without an authenticator only a loopback address is taken.
    pub listen: SocketAddr,
    /// Who finds out whose a token is. `None`, the default, lets everyone in, without users.
    pub authenticator: Option<Arc<dyn Authenticator>>,
    /// Who may read and write what. Default: everyone everything.
    pub policy: Arc<dyn Policy>,
    /// The origins whose web pages may connect, like `https://app.example`, besides those of the
    /// server's own host; `*` for all. Default: none.
    pub allow_origins: Vec<String>,
    /// Limits and patience of each WebSocket connection.
    pub session: SessionConfig,
    /// Limits of the HTTP calls.
    pub http: HttpConfig,
    /// How much of the recent changes is kept in memory.
    pub rings: RingLimits,
    /// How many messages all connections of one user may send together. Default: any number.
    pub user_rate: Option<Rate>,
    /// How long deleted records, silent clients and past epochs are remembered: a client that was
    /// away for longer takes a snapshot. Default 30 days.
    pub tombstone_retention: Duration,
    /// How often to look for what is older than that. Default 1 minute.
    pub sweep_interval: Duration,
    /// The most connections at a time, WebSockets and others; further ones wait to be accepted.
    /// Default 16,384.
    pub max_connections: usize,
    /// The most reads of the store at a time. Default 8.
    pub max_reads: usize,
    /// How long an HTTP request may take to arrive, and again to be answered. Default 30 s.
    pub http_timeout: Duration,
    /// Further numbers for `/health`, such as those of the store, each under its name. It must be
    /// quick. Default: none.
    pub figures: Option<Arc<Figures>>,
    /// How long a closing WebSocket waits for its peer to agree. Default 3 s.
    pub close_patience: Duration,
}

/// What tells the further numbers for `/health`.
pub type Figures = dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync;

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            authenticator: None,
            policy: Arc::new(AllowAll),
            allow_origins: Vec::new(),
            session: SessionConfig::default(),
            http: HttpConfig::default(),
            rings: RingLimits::default(),
            user_rate: None,
            tombstone_retention: Duration::from_secs(30 * 24 * 60 * 60),
            sweep_interval: Duration::from_secs(60),
            max_connections: 16_384,
            max_reads: 8,
            http_timeout: Duration::from_secs(30),
            figures: None,
            close_patience: Duration::from_secs(3),
        }
    }
}

/// Everything but the policy and the authenticator, which may hold secrets.
impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("listen", &self.listen)
            .field("authenticated", &self.authenticator.is_some())
            .field("allow_origins", &self.allow_origins)
            .field("session", &self.session)
            .field("http", &self.http)
            .field("rings", &self.rings)
            .field("user_rate", &self.user_rate)
            .field("tombstone_retention", &self.tombstone_retention)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// Finds out whose a token is.
///
/// It is asked on the server's own threads: it must be quick and not block.
pub trait Authenticator: Send + Sync {
    /// Whose token this is.
    ///
    /// # Errors
    /// When it is nobody's, or not any more.
    fn authenticate(&self, token: &Token) -> Result<Identified, AuthError>;
}

/// Whose a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identified {
    /// The user.
    pub user: UserId,
    /// For how long from now on; `None` for as long as the connection lives.
    pub valid_for: Option<Duration>,
}

impl Identified {
    /// This user, for as long as the connection lives.
    #[must_use]
    pub fn as_user(user: UserId) -> Self {
        Self { user, valid_for: None }
    }
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// It is nobody's.
    #[error("the token is wrong")]
    Wrong,
    /// It was somebody's.
    #[error("the token has expired")]
    Expired,
}

/// A table of tokens that never expire.
///
/// ```
/// use synclayer_core::UserId;
/// use synclayer_server::StaticTokens;
///
/// let tokens = StaticTokens::new([(UserId::new("ann")?, "s3cret")]);
/// # Ok::<(), synclayer_core::NameError>(())
/// ```
#[derive(Clone)]
pub struct StaticTokens {
    tokens: Vec<(UserId, Token)>,
}

impl StaticTokens {
    /// A table of users and their tokens. A user may have several.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = (UserId, T)>) -> Self {
        let wrap = |(user, token): (UserId, T)| (user, Token::new(token.as_ref()));
        Self { tokens: tokens.into_iter().map(wrap).collect() }
    }
}

impl Authenticator for StaticTokens {
    fn authenticate(&self, token: &Token) -> Result<Identified, AuthError> {
        // all are compared, so that the time tells nothing of how near the token came
        let mut found = None;
        for (user, known) in &self.tokens {
            if is_same(known.reveal().as_bytes(), token.reveal().as_bytes()) {
                found = Some(user);
            }
        }
        let user = found.filter(|_| !token.reveal().is_empty()).ok_or(AuthError::Wrong)?;
        Ok(Identified::as_user(user.clone()))
    }
}

/// How many tokens there are; not what they are.
impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.tokens.len())
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_only_whole() {
        let user = |name| UserId::new(name).unwrap();
        let tokens =
            StaticTokens::new([(user("ann"), "abc"), (user("bob"), "abd"), (user("x"), "")]);
        let ask = |token| tokens.authenticate(&Token::new(token)).map(|known| known.user);
        assert_eq!(ask("abc"), Ok(user("ann")));
        assert_eq!(ask("abd"), Ok(user("bob")));
        for wrong in ["", "ab", "abcd", "ABC"] {
            assert_eq!(ask(wrong), Err(AuthError::Wrong), "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "StaticTokens(3)");
    }
}
