//! What the app wants of the transports, and how those have fared.

use crate::protocol::name::Collection;
use crate::protocol::time::Mono;

/// What the app wants of the transports, and when HTTP is used next.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Fallback {
    /// Whether the app wants to be connected at all.
    pub(super) wanted: bool,
    /// Whether the app says that there is no network.
    pub(super) offline: bool,
    /// Whether the server offers less than what the app requires.
    pub(super) short: bool,
    /// Whether the WebSocket has failed or takes long, so that HTTP is turned to.
    pub(super) turned: bool,
    /// Whether an exchange is due now.
    pub(super) due: bool,
    /// Whether one was asked for while another is under way, which may have read already what the
    /// app wants to see.
    pub(super) again: bool,
    /// When the next exchange is due, or, over a WebSocket, the next backup.
    pub(super) poll_at: Option<Mono>,
    /// How many exchanges in a row have failed.
    pub(super) failures: u32,
    /// How many exchanges in a row went through, but for a collection that could not be pulled.
    pub(super) troubles: u32,
    /// Until when the server wants to be left alone, whichever the transport.
    pub(super) rest_until: Option<Mono>,
    /// Whether the last exchange reached the server.
    pub(super) reached: bool,
    /// Whether the next exchange has to begin with a hello.
    pub(super) in_doubt: bool,
    /// The most writes of a push, where the server or something before it has refused more.
    pub(super) push_limit: Option<usize>,
    /// The collection whose pull was the last to fail without an answer.
    pub(super) stuck: Option<Collection>,
    /// How many backups there were since one that covered every collection.
    pub(super) backups: u32,
}
