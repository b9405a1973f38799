//! The users of a server, and their tokens.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::ready;
use std::hint::black_box;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use synclayer_core::{Document, Token, UserId};

/// The answer of an [`Authenticator`], perhaps later.
pub type Authenticating<'a> =
    Pin<Box<dyn Future<Output = Result<Identified, AuthError>> + Send + 'a>>;

/// Maps a token to its user.
///
/// It may take its time, as where it has to ask somebody else: nobody but the caller waits meanwhile. It
/// is asked for [`max_logins`](crate::ServerConfig::max_logins) tokens at a time, and given up after
/// [`login_timeout`](crate::ServerConfig::login_timeout) or when it panics; then the caller is told to come
/// again. Its future runs on the server's own threads, in a tokio runtime: it must not block them.
///
/// ```
/// use std::time::Duration;
///
/// use synclayer_server::{AuthError, Authenticating, Authenticator, Identified, Token, UserId};
///
/// /// A token is the name of its user, and is valid for an hour.
/// struct Names;
///
/// impl Authenticator for Names {
///     fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
///         Box::pin(async move {
///             // such as a look into a database: an error of that is `AuthError::Unavailable`
///             tokio::task::yield_now().await;
///             let user = UserId::new(token.reveal()).map_err(|_| AuthError::Wrong)?;
///             Ok(Identified::as_user(user).valid_for(Duration::from_secs(3600)))
///         })
///     }
/// }
/// ```
pub trait Authenticator: Send + Sync {
    /// The user of a token.
    ///
    /// # Errors
    /// When it is nobody's, or not any more, or when that can't be said now.
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a>;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        (**self).authenticate(token)
    }
}

/// The user of a token.
///
/// ```
/// use std::time::Duration;
///
/// use synclayer_server::{Identified, UserId};
///
/// let ann = Identified::as_user(UserId::new("ann")?).valid_for(Duration::from_secs(60));
/// assert_eq!(ann.valid_for, Some(Duration::from_secs(60)));
/// # Ok::<(), synclayer_server::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Identified {
    /// The user.
    pub user: UserId,
    /// The time for which the token is valid from now on; `None` for as long as the connection
    /// lives.
    pub valid_for: Option<Duration>,
    /// The claims of the token, for policies that ask for them; `None` if it has none.
    pub claims: Option<Document>,
}

impl Identified {
    /// This user, for as long as the connection lives.
    #[must_use]
    pub fn as_user(user: UserId) -> Self {
        Self { user, valid_for: None, claims: None }
    }

    /// Sets the claims of the token.
    #[must_use]
    pub fn claims(mut self, claims: Document) -> Self {
        self.claims = Some(claims);
        self
    }

    /// Limits the time for which the token is valid. When it is over, the connection has to send a
    /// fresh token.
    #[must_use]
    pub fn valid_for(mut self, duration: Duration) -> Self {
        self.valid_for = Some(duration);
        self
    }
}

/// The reason why a token lets nobody in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// It is nobody's.
    #[error("the token is wrong")]
    Wrong,
    /// It was somebody's.
    #[error("the token has expired")]
    Expired,
    /// That can't be said now, as where the one who knows can't be reached.
    #[error("nobody can tell now whose the token is: try again later")]
    Unavailable,
}

/// A table of tokens that never expire. Clones share it.
///
/// ```
/// use synclayer_server::{StaticTokens, UserId};
///
/// let tokens = StaticTokens::new([(UserId::new("ann")?, "s3cret")]);
/// # Ok::<(), synclayer_server::NameError>(())
/// ```
#[derive(Clone, Default)]
pub struct StaticTokens {
    table: Arc<RwLock<Table>>,
}

#[derive(Default)]
struct Table {
    tokens: Vec<(UserId, Token)>,
    /// Tokens that were somebody's, the newest last.
    gone: VecDeque<Token>,
}

/// The number of tokens that are remembered after they were taken away.
const GONE: usize = 1024;

impl StaticTokens {
    /// A table of users and their tokens. A user may have several. Of a token that is given to two
    /// users the last one counts.
    pub fn new<T: AsRef<str>>(entries: impl IntoIterator<Item = (UserId, T)>) -> Self {
        let tokens = Self::default();
        tokens.replace(entries);
        tokens
    }

    /// Puts other users and tokens in the place of all that there were. Connections that a token
    /// has let in before stay until [`Embedded::recheck_tokens`](crate::Embedded::recheck_tokens).
    /// A token that is gone has expired, and is not taken for a wrong one.
    pub fn replace<T: AsRef<str>>(&self, entries: impl IntoIterator<Item = (UserId, T)>) {
        let wrap = |(user, token): (UserId, T)| (user, Token::from(token.as_ref()));
        let fresh: Vec<_> = entries.into_iter().map(wrap).collect();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut table.tokens, fresh);
        let Table { tokens, gone } = &mut *table;
        let known: BTreeSet<&str> = tokens.iter().map(|(_, token)| token.reveal()).collect();
        gone.extend(before.into_iter().map(|(_, token)| token));
        gone.retain(|token| !known.contains(token.reveal()));
        let surplus = gone.len().saturating_sub(GONE);
        gone.drain(..surplus);
    }

    fn look_up(&self, token: &Token) -> Result<Identified, AuthError> {
        // all are compared, so that the time tells nothing of how near the token came
        let mut found = None;
        let table = self.table();
        for (user, known) in &table.tokens {
            if is_same(known.reveal().as_bytes(), token.reveal().as_bytes()) {
                found = Some(user);
            }
        }
        let is_gone = |gone: &Token| is_same(gone.reveal().as_bytes(), token.reveal().as_bytes());
        let was_good = table.gone.iter().fold(false, |found, gone| found | is_gone(gone));
        let refused = if was_good { AuthError::Expired } else { AuthError::Wrong };
        let user = found.filter(|_| !token.reveal().is_empty()).ok_or(refused)?;
        Ok(Identified::as_user(user.clone()))
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        // it is whole at any time
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authenticator for StaticTokens {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        Box::pin(ready(self.look_up(token)))
    }
}

/// Shows the number of tokens, and not the tokens.
impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticTokens({})", self.table().tokens.len())
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
        let ask = |token| tokens.look_up(&Token::from(token)).map(|known| known.user);
        assert_eq!(ask("abc"), Ok(user("ann")));
        assert_eq!(ask("abd"), Ok(user("bob")));
        for wrong in ["", "ab", "abcd", "ABC"] {
            assert_eq!(ask(wrong), Err(AuthError::Wrong), "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "StaticTokens(3)");
    }

    #[test]
    fn a_token_that_is_gone_has_expired_until_it_is_given_again() {
        let ann = || UserId::new("ann").unwrap();
        let tokens = StaticTokens::new([(ann(), "first")]);
        let ask = |token: &str| tokens.look_up(&Token::from(token)).map(|known| known.user);
        tokens.replace([(ann(), "second")]);
        assert_eq!((ask("first"), ask("never")), (Err(AuthError::Expired), Err(AuthError::Wrong)));
        tokens.replace([(ann(), "first")]);
        assert_eq!((ask("first"), ask("second")), (Ok(ann()), Err(AuthError::Expired)));
        // as many as are remembered
        for n in 0..GONE {
            tokens.replace([(ann(), n.to_string())]);
        }
        assert_eq!((ask("second"), ask("0")), (Err(AuthError::Wrong), Err(AuthError::Expired)));
        assert_eq!(tokens.table().gone.len(), GONE);
    }
}
