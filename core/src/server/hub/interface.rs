//! The inputs and outputs of a server.

use bytes::Bytes;

use crate::protocol::message::Token;
use crate::protocol::name::ConnId;
use crate::rules::page::ReadRequest;
use crate::rules::transaction::{Sweep, Swept, Transaction};
use crate::server::committer::Job;
use crate::server::http::{ReadCall, Reply, Request, WriteCall};
use crate::server::limits::ServerLimits;
use crate::server::ring::RingLimits;
use crate::server::session::{Identity, SessionInput, Ticket};

/// The configuration of a server.
///
/// ```
/// use synclayer_core::HubConfig;
///
/// let mut config = HubConfig::default();
/// config.rings.collection_bytes = 1 << 20;
/// config.limits.subscriptions = 64;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HubConfig {
    /// The limits on the peers.
    pub limits: ServerLimits,
    /// The rings of recent changes.
    pub rings: RingLimits,
    /// The number of batches that the store takes before the first of them is durable. Default 1.
    pub depth: usize,
    /// The number of steps in which one [`HubInput::Room`] is used, so that a connection which
    /// always has more lets others have their turn. Default 16.
    pub turns: usize,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self { limits: ServerLimits::default(), rings: RingLimits::default(), depth: 1, turns: 16 }
    }
}

/// An HTTP call, by a number that its owner gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// An input of a server.
#[derive(Debug)]
pub enum HubInput<'a> {
    /// A connection was accepted.
    Accepted {
        /// Its id, never used before.
        conn: ConnId,
        /// Its user, as far as its request tells.
        identity: Identity,
    },
    /// Something for the session of a connection. What comes for one that is gone is ignored.
    Session {
        /// The connection.
        conn: ConnId,
        /// Its input.
        input: SessionInput<'a>,
    },
    /// The socket of a connection has room for about this many bytes.
    Room {
        /// The connection.
        conn: ConnId,
        /// The number of bytes.
        room: usize,
    },
    /// A request by HTTP came, and was [admitted](super::Hub::admit).
    Call {
        /// Its id, never used before.
        call: CallId,
        /// The request.
        request: Request<'a>,
    },
    /// Everything older than a retention is to be removed, step by step.
    Sweep(Sweep),
    /// The deadline has come.
    Timeout,
    /// The server ends: every connection is closed.
    Shutdown,
}

/// An action that a server asks for.
#[derive(PartialEq, Eq, Debug)]
pub enum HubAction {
    /// Send one text frame.
    Send {
        /// The connection.
        conn: ConnId,
        /// The frame.
        frame: Bytes,
    },
    /// Send what was said, then close the connection, and report its end.
    Close {
        /// The connection.
        conn: ConnId,
        /// The WebSocket status code.
        code: u16,
        /// The reason, for people.
        reason: &'static str,
    },
    /// Find out whose token this is, and tell by
    /// [`Hub::authenticated`](super::Hub::authenticated).
    Authenticate(Ticket<Token>),
    /// Answer an HTTP call.
    Reply {
        /// The call.
        call: CallId,
        /// The answer.
        reply: Reply,
    },
    /// A transaction waits: take batches.
    Commit,
    /// A read waits: take it.
    Read,
    /// A collection that a connection follows has moved, or it was stopped by its turns: give it
    /// room, where its socket has any.
    Wake(ConnId),
    /// One step of a sweep is done. The next one waits already.
    Swept(Swept),
}

/// A transaction that waits to be committed, and whoever waits for it.
#[derive(Debug)]
pub struct HubJob(pub(super) JobKind);

#[derive(Debug)]
pub(super) enum JobKind {
    Session(Ticket<Transaction>),
    Call(CallId, WriteCall),
    /// The transaction holds the same sweep.
    Sweep(Sweep, Transaction),
}

impl Clone for HubJob {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            JobKind::Session(ticket) => JobKind::Session(ticket.twin()),
            JobKind::Call(call, write) => JobKind::Call(*call, write.clone()),
            JobKind::Sweep(sweep, transaction) => {
                JobKind::Sweep(sweep.clone(), transaction.clone())
            }
        })
    }
}

impl Job for HubJob {
    fn transaction(&self) -> &Transaction {
        match &self.0 {
            JobKind::Session(ticket) => ticket.question(),
            JobKind::Call(_, write) => write.transaction(),
            JobKind::Sweep(_, transaction) => transaction,
        }
    }
}

impl HubJob {
    /// The connection that waits for it, if one does.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match &self.0 {
            JobKind::Session(ticket) => Some(ticket.conn()),
            JobKind::Call(..) | JobKind::Sweep(..) => None,
        }
    }

    /// The HTTP call that waits for it, if one does.
    #[must_use]
    pub(crate) fn call(&self) -> Option<CallId> {
        match &self.0 {
            JobKind::Call(call, _) => Some(*call),
            JobKind::Session(_) | JobKind::Sweep(..) => None,
        }
    }
}

/// A read, and whoever waits for it. It is to be [finished](super::Hub::finish_read) once.
#[derive(Debug)]
#[must_use = "somebody waits for it"]
pub struct HubRead(pub(super) ReadKind);

#[derive(Debug)]
pub(super) enum ReadKind {
    Session(Ticket<ReadRequest>),
    Call(CallId, ReadCall),
}

impl Clone for HubRead {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            ReadKind::Session(ticket) => ReadKind::Session(ticket.twin()),
            ReadKind::Call(call, read) => ReadKind::Call(*call, read.clone()),
        })
    }
}

impl HubRead {
    /// The data to read.
    #[must_use]
    pub(crate) fn request(&self) -> &ReadRequest {
        match &self.0 {
            ReadKind::Session(ticket) => ticket.question(),
            ReadKind::Call(_, read) => read.request(),
        }
    }

    /// The connection that waits for it, if one does.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match &self.0 {
            ReadKind::Session(ticket) => Some(ticket.conn()),
            ReadKind::Call(..) => None,
        }
    }
}

/// An answer that its session has not heard.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    pub(super) conn: ConnId,
    pub(super) input: SessionInput<'static>,
}

impl Clone for PendingAnswer {
    fn clone(&self) -> Self {
        Self { conn: self.conn, input: self.input.twin() }
    }
}
