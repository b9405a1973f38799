//! The errors of opening a client, and of its calls.

use synclayer_core::{
    DocumentError, Misuse, NameError, QueryError, RecordId, StoreError, SyncFailure,
};

/// The reason why a client could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The server's address is not one.
    #[error("the server's address can't be used: {reason}")]
    Address {
        /// The fault in it.
        reason: String,
    },
    /// The token would go over the network in the clear.
    #[error(
        "the token would be sent unencrypted to {host}; use https:// or wss://, or set \
         `allow_insecure` if the network is trusted"
    )]
    Insecure {
        /// The server.
        host: String,
    },
    /// The trusted certificates can't be used.
    #[error("the trusted certificates can't be used: {reason}")]
    Certificate {
        /// The fault in them.
        reason: String,
    },
    /// The token can't be sent in a header.
    #[error("the token holds characters that no HTTP header can carry")]
    Token,
    /// A collection can't be called like this.
    #[error("{name:?} can't be a collection's name: {reason}")]
    Collection {
        /// The name.
        name: String,
        /// The fault in it.
        reason: NameError,
    },
    /// An index can't be of these fields.
    #[error("the index of {collection:?} can't be kept: {reason}")]
    Index {
        /// The collection.
        collection: String,
        /// The fault in the fields.
        reason: QueryError,
    },
    /// A scope can't be kept in sync.
    #[error("a scope of {collection:?} can't be kept in sync: {reason}")]
    Scope {
        /// The collection.
        collection: String,
        /// The fault in its key or value.
        reason: QueryError,
    },
    /// The store could not be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS or the client's thread could not be set up.
    #[error("the client could not be started: {0}")]
    Start(String),
}

/// The reason why a call on an open client failed.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
    /// The call was made from inside a callback that a client waits for, and waits itself.
    #[error(
        "the call was made from inside a callback of the app (a conflict resolver, a closure of \
         `modify`, a store): the client waits for the callback to return, so the call could never \
         be answered; read before what the callback needs, and write after it has returned"
    )]
    InsideCallback,
    /// The user has signed out, and the client is closed.
    #[error("the user has signed out: open a new client for whoever signs in")]
    SignedOut,
    /// A name or an id can't be one.
    #[error("{name:?} can't be a name: {reason}")]
    Name {
        /// The text.
        name: String,
        /// The fault in it.
        reason: NameError,
    },
    /// The document can't be stored.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A document does not have the shape of the app's type. The collection without a type shows it.
    #[error("{collection}/{id} can't be read as the type{}: {message}", .field.as_deref().map(|field| format!(", for its field {field:?}")).unwrap_or_default())]
    Shape {
        /// The collection.
        collection: String,
        /// The record.
        id: RecordId,
        /// The top-level field; `None` if the fault is not inside one, as where one is missing.
        field: Option<String>,
        /// The fault.
        message: String,
    },
    /// The call can't be carried out.
    #[error(transparent)]
    Misuse(Misuse),
    /// The store has failed. It is opened again by and by; what was saved before is safe.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Collections are not in sync with the server: these. Everything else is.
    #[error("{}", not_in_sync(.0))]
    NotInSync(Vec<SyncFailure>),
    /// The token can't be sent in a header.
    #[error("the token holds characters that no HTTP header can carry")]
    Token,
    /// The token would go over the network in the clear: see [`OpenError::Insecure`].
    #[error("the token would be sent unencrypted; use https:// or wss://, or set `allow_insecure`")]
    Insecure,
}

/// The most collections that a text names; the error itself names all.
const NAMED: usize = 5;

fn not_in_sync(failures: &[SyncFailure]) -> String {
    let mut text: Vec<_> = failures.iter().take(NAMED).map(SyncFailure::to_string).collect();
    if let Some(others) = failures.len().checked_sub(NAMED).filter(|others| *others > 0) {
        text.push(format!("and so on for {others} other collections"));
    }
    format!("not in sync: {}", text.join("; "))
}

/// Refused documents and failed stores are told from misuse proper.
impl From<Misuse> for SyncError {
    fn from(misuse: Misuse) -> Self {
        if let Misuse::Store(error) = misuse {
            return Self::Store(error);
        }
        if let Misuse::Document(error) = misuse {
            return Self::Document(error);
        }
        Self::Misuse(misuse)
    }
}
