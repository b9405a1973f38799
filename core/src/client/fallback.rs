//! The wishes of the app for the transports, and the recent failures of these.

use crate::protocol::name::Collection;
use crate::protocol::time::Mono;

/// The wishes of the app for the transports, and the time of the next use of HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Fallback {
    /// `true` if the app wants to be connected at all.
    pub(super) wanted: bool,
    /// `true` if the app says that there is no network.
    pub(super) offline: bool,
    /// `true` if the server offers less than the app requires.
    pub(super) short: bool,
    /// `true` if the WebSocket has failed or takes long, so that HTTP is turned to.
    pub(super) turned: bool,
    /// `true` if an exchange is due now.
    pub(super) due: bool,
    /// `true` if one was asked for while another is under way, which may already have read the
    /// collections that the app wants to see.
    pub(super) again: bool,
    /// When the next exchange is due, or, over a WebSocket, the next backup.
    pub(super) poll_at: Option<Mono>,
    /// The number of exchanges in a row that have failed.
    pub(super) failures: u32,
    /// The number of exchanges in a row that went through, but for a collection that could not be pulled.
    pub(super) troubles: u32,
    /// Until when the server wants to be left alone, whichever the transport.
    pub(super) rest_until: Option<Mono>,
    /// `true` if the last exchange reached the server.
    pub(super) reached: bool,
    /// `true` if the next exchange has to begin with a hello.
    pub(super) in_doubt: bool,
    /// The most writes of a push, where the server or something before it has refused more.
    pub(super) push_limit: Option<usize>,
    /// The collection whose pull was the last to fail without an answer.
    pub(super) stuck: Option<Collection>,
    /// The number of backups since one that covered every collection.
    pub(super) backups: u32,
}
