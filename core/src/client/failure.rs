//! The reasons why a server is out of reach.

use alloc::format;
use alloc::string::String;
use core::fmt;

/// The kind of reason why a server is out of reach, for programs. Whoever drives the machine tells
/// those that show at the network, by [`Disconnect`](crate::client::interface::Disconnect) and
/// [`HttpAnswer`](crate::client::interface::HttpAnswer).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[non_exhaustive]
pub enum FailureCause {
    /// The host's name can't be looked up.
    UnknownHost,
    /// Nothing listens at the port.
    Refused,
    /// There is no way to the host from here.
    NoRoute,
    /// Nothing came back in time.
    Silent,
    /// The server's certificate is not trusted.
    Certificate,
    /// TLS failed for another reason.
    Tls,
    /// TLS was spoken to a port that speaks none.
    PlainPort,
    /// A port that wants TLS was spoken to without.
    TlsPort,
    /// Something answers that does not speak HTTP.
    NotHttp,
    /// The proxy on the way can't be used, or does not let the connection through.
    Proxy,
    /// The server answers from another address.
    Redirected,
    /// Something answers by HTTP, but it is no SyncLayer server, or the path is another server's.
    NoServer,
    /// The server, or something on the way to it, refuses access.
    Access,
    /// The server, or something on the way to it, answers that it can't serve now.
    Declined,
    /// Something that the server sent breaks the protocol.
    Protocol,
    /// The connection broke, or anything else.
    #[default]
    Lost,
}

/// The reason why a server is out of reach.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct ConnectFailure {
    /// The reason, for programs.
    pub cause: FailureCause,
    /// The reason, for people.
    pub message: String,
}

impl ConnectFailure {
    /// A failure.
    #[must_use]
    pub fn new(cause: FailureCause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into() }
    }

    /// The same failure, told as that of something that was tried.
    pub(super) fn of(&self, what: impl fmt::Display) -> Self {
        Self::new(self.cause, format!("{what} failed: {}", self.message))
    }
}

/// A failure of no particular cause.
impl From<&str> for ConnectFailure {
    fn from(message: &str) -> Self {
        Self::new(FailureCause::default(), message)
    }
}

/// A failure of no particular cause.
impl From<String> for ConnectFailure {
    fn from(message: String) -> Self {
        Self::new(FailureCause::default(), message)
    }
}
