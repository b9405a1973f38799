//! The inputs and outputs of a session.

use bytes::Bytes;

use super::ticket::{Ticket, TicketAnswer};
use crate::protocol::message::{ErrorMessage, Level, Token};
use crate::protocol::name::{ClientId, Collection, SessionNumber, UserId};
use crate::rules::page::{ReadAnswer, ReadRequest};
use crate::rules::policy::{Bucket, Policy, User};
use crate::rules::transaction::{TransactError, Transaction, TransactionAnswer};
use crate::server::followers::Interest;
use crate::server::ring::Rings;
use crate::store::StoreError;

/// The user of a connection, as far as its request tells.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// The server knows no users: everyone is in.
    Open,
    /// The token in the URL or the header was good.
    Known(User),
    /// There was no token: it has to come as the first message.
    Unknown,
}

/// An input of a session.
#[derive(PartialEq, Eq, Debug)]
pub enum SessionInput<'a> {
    /// A text frame came.
    Frame(&'a [u8]),
    /// A sign of life came: a WebSocket ping or pong, or bytes of a frame that is not whole; or the
    /// client has taken bytes that had to wait for room.
    Ping,
    /// The answer to [`SessionAction::Authenticate`].
    Authenticated(TicketAnswer<Option<User>>),
    /// The token of this connection was looked at again: it is this user's, perhaps with other claims than
    /// before. Where it is another user's, it [has expired](Self::AuthExpired) for this connection.
    Identified(User),
    /// The token of this connection has expired.
    AuthExpired,
    /// The policy lets users see other records than before: every stream is checked.
    RightsChanged,
    /// The answer to [`SessionAction::Transact`].
    Transacted(TicketAnswer<Result<TransactionAnswer, TransactError>>),
    /// The answer to [`SessionAction::Read`].
    Read(TicketAnswer<Result<ReadAnswer, StoreError>>),
    /// The socket has room for about this many bytes.
    Pump {
        /// The number of bytes.
        room: usize,
    },
    /// The deadline has come.
    Timeout,
    /// The server ends.
    Shutdown,
    /// The connection is gone.
    Closed,
}

/// An action that a session asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum SessionAction {
    /// Send one text frame.
    Send(Bytes),
    /// Send what was said, then close the connection.
    Close {
        /// The WebSocket status code.
        code: u16,
        /// The reason, for people.
        reason: &'static str,
    },
    /// Find out whose token this is.
    Authenticate(Ticket<Token>),
    /// Decide and commit a transaction.
    Transact(Ticket<Transaction>),
    /// Read a page.
    Read(Ticket<ReadRequest>),
    /// Pump this session whenever something changes that it is interested in. It takes the place of its
    /// earlier interest in the collection.
    Follow(Interest),
    /// No longer.
    Unfollow(Collection),
}

/// The state of the server that a session sees during one input.
pub struct Environment<'a> {
    /// The recent changes.
    pub rings: &'a Rings,
    /// The permissions.
    pub policy: &'a dyn Policy,
    /// The rate of all connections of the session's user together; `None` for any.
    pub user_bucket: Option<&'a mut Bucket>,
    /// The most writes of the next transaction, where that is fewer than
    /// [`ServerLimits::run`](super::ServerLimits::run): while others wait to write too, a long one would
    /// hold them up. A transaction of at least one write goes on.
    pub run: Option<usize>,
    /// Hears of each error that the session sends, for a log.
    pub on_error: Option<&'a mut dyn FnMut(&ErrorMessage)>,
}

/// The reason of a session's deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SessionTimer {
    /// The connection was silent for too long.
    Silence,
    /// The connection did not say who it is.
    Auth,
}

/// The state of a session, as it shows from outside.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SessionStatus<'a> {
    /// The user, where one is known.
    pub user: Option<&'a UserId>,
    /// The level; `None` while the client has said neither.
    pub level: Option<Level>,
    /// The client and its session, at level 2.
    pub client: Option<(&'a ClientId, SessionNumber)>,
    /// The number of subscriptions.
    pub subscriptions: usize,
    /// The number of live ones among them.
    pub live: usize,
    /// The number of messages that wait to be served.
    pub queued: usize,
    /// The number of writes whose verdict waits to be sent.
    pub held: usize,
    /// `true` once the connection is closed.
    pub closed: bool,
    /// The counters.
    pub counters: SessionCounters,
}

/// The counters of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SessionCounters {
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
    /// Frames or messages that were not understood.
    pub bad_messages: u64,
    /// Answers that came late or to the wrong session.
    pub late_answers: u64,
    /// Writes that were ignored because one before them failed.
    pub ignored_writes: u64,
    /// Times that a live collection had to be served from the store.
    pub fell_behind: u64,
}
