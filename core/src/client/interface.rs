//! The inputs of the client machine, and its actions for the network.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

pub use super::config::{ClientConfig, Guarantees, OnServerLoss, PlainServers};
use super::failure::ConnectFailure;
use super::transaction::TransactionDraft;
use super::wipe::Unsent;
use crate::protocol::delta::Delta;
use crate::protocol::document::{Document, DocumentError};
use crate::protocol::message::{ErrorCode, Token};
use crate::protocol::name::{Collection, CommitNumber, ConnId, DatabaseId, RecordId, WriteId};
use crate::rules::query::QueryError;
use crate::rules::scope::NamedScope;
use crate::store::StoreError;

/// An HTTP request, to be told from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A request by HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// The method: `GET`, `POST`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Path and query below the base URL, percent-encoded: `/sync/todos?epoch=&seq=`.
    pub path: String,
    /// The body, JSON in UTF-8, to be sent as `application/json`; `None`: there is none.
    pub body: Option<Bytes>,
    /// For `Authorization: Bearer`.
    pub token: Option<Token>,
    /// The time for which no byte may go out or come in, from the dialling to the answer's last byte.
    /// The machine gives the request up a little later, unless it hears of
    /// [progress](Input::RequestProgress).
    pub timeout: Duration,
}

/// A request that has to be answered once, also by failure. The answer goes back into the machine
/// as an input; one that comes when the machine no longer waits for it is counted and dropped.
#[must_use = "a request has to be answered, also by failure"]
#[derive(PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HttpTicket {
    /// Its id.
    pub id: RequestId,
    /// The request.
    pub request: HttpRequest,
}

impl HttpTicket {
    pub(super) fn new(id: RequestId, request: HttpRequest) -> Self {
        Self { id, request }
    }

    /// The input that tells the machine the answer.
    #[must_use]
    pub fn answer(self, answer: HttpAnswer) -> Input<'static> {
        Input::Answered { request: self.id, answer }
    }
}

/// The outcome of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAnswer {
    /// The server has answered, with whatever status. Not for redirects, which are followed by
    /// nobody and are a failure.
    Answered {
        /// The status.
        status: u16,
        /// `Retry-After`, as time from now.
        retry_after: Option<Duration>,
        /// The whole body.
        body: Vec<u8>,
    },
    /// It was not answered as HTTP has it: there was no connection, it broke, the answer took too
    /// long or was too large. The server may have done what was asked.
    Failed(ConnectFailure),
}

/// The reason why a connection ended, or did not come up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disconnect {
    /// The server answered the upgrade with this HTTP status, and perhaps said how long to wait.
    Refused {
        /// The status.
        status: u16,
        /// `Retry-After`.
        retry_after: Option<Duration>,
        /// The answer's body, as far as it had come. Empty where nothing of it is known.
        body: Vec<u8>,
    },
    /// Anything else.
    Lost(ConnectFailure),
}

/// An input from the world.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection that was asked for is up.
    Connected {
        /// Which one.
        conn: ConnId,
    },
    /// A text frame has come.
    Frame {
        /// On which connection.
        conn: ConnId,
        /// The whole frame.
        frame: &'a [u8],
    },
    /// A WebSocket pong has come.
    Heard {
        /// On which connection.
        conn: ConnId,
    },
    /// Bytes of a frame that is not whole have come, or bytes that had to wait for room have gone out:
    /// the other end is alive. To be said now and then while that is so.
    Progress {
        /// On which connection.
        conn: ConnId,
    },
    /// Bytes of a request have gone out or bytes of its answer have come, and there is more to come. To
    /// be said now and then while that is so.
    RequestProgress {
        /// Which one.
        request: RequestId,
    },
    /// A connection has ended or could not be made. Said once for each.
    Disconnected {
        /// Which one.
        conn: ConnId,
        /// The reason.
        why: Disconnect,
    },
    /// A request was answered. Made by [`HttpTicket::answer`].
    Answered {
        /// Which one.
        request: RequestId,
        /// The answer.
        answer: HttpAnswer,
    },
    /// The time of [`deadline`](crate::client::replica::Replica::deadline) has come.
    Timeout,
}

/// An action for the network.
#[derive(PartialEq, Eq, Debug)]
pub enum NetAction {
    /// Open a connection, and report how that went.
    Connect {
        /// Its id from now on.
        conn: ConnId,
        /// The token to send along.
        token: Option<Token>,
    },
    /// Send a text frame.
    Send {
        /// On which connection.
        conn: ConnId,
        /// The frame.
        frame: Bytes,
    },
    /// Send a WebSocket ping.
    Ping {
        /// On which connection.
        conn: ConnId,
    },
    /// Close a connection. It is no longer of interest: nothing that it says is listened to.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// Make an HTTP request, and hand the ticket's answer in.
    Request(HttpTicket),
}

/// The reason for the time of [`deadline`](crate::client::replica::Replica::deadline).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// Try to connect again.
    Reconnect,
    /// The connection takes too long to come up.
    Connect,
    /// The answer to the hello takes too long.
    Hello,
    /// There was silence for so long that a ping is due.
    Ping,
    /// The answer to the ping takes too long.
    PingTimeout,
    /// A verdict takes too long.
    Verdict,
    /// Writes have waited long enough for their collection to catch up.
    CatchUp,
    /// A write that the server could not take is tried again.
    Retry,
    /// A collection that could not be verified or subscribed is tried again.
    Resubscribe,
    /// A collection that nothing uses has been kept for long enough, and is left.
    Leave,
    /// An index is being built or removed, and the next part of it is due.
    Index,
    /// The rows of a store that does not vouch for them are being counted, and the next part is due.
    Count,
    /// A poll is due, or the backup of a connection.
    Poll,
    /// The answer to an HTTP request takes too long.
    Request,
    /// At a plain server: it is time to find out what has become of what was sent.
    Confirm,
    /// The server does not answer the hello: whether its WebSocket answers is asked.
    Probe,
}

/// A call of [`synced`](crate::client::replica::Replica::synced), to be told from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SyncId(pub u64);

/// The outcome of a call of [`synced`](crate::client::replica::Replica::synced): the collections that are not in step
/// with the server, in the order of their names, where there are any.
pub type SyncOutcome = Result<(), Vec<SyncFailure>>;

/// A collection that is not in step with the server, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SyncFailure {
    /// The collection.
    pub collection: Collection,
    /// The reason why it is not in step.
    pub reason: SyncFailureReason,
}

impl SyncFailure {
    pub(super) fn new(collection: &Collection, reason: SyncFailureReason) -> Self {
        Self { collection: collection.clone(), reason }
    }
}

impl fmt::Display for SyncFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { collection, reason } = self;
        match reason {
            SyncFailureReason::Refused { code, message } => {
                write!(f, "the server refuses {collection} ({code}): {message}")
            }
            SyncFailureReason::Unavailable { code, message } => {
                write!(f, "the server can't serve {collection} now ({code}): {message}")
            }
            SyncFailureReason::Unanswered => {
                write!(f, "the server does not say what is in {collection}")
            }
            SyncFailureReason::RecordsMissing { missing } => write!(
                f,
                "the server lacks {missing} records of {collection} that are held here: adopt lets \
                 them go, offer sends them"
            ),
            SyncFailureReason::DifferentDatabase { found } => write!(
                f,
                "the server has another database than {collection} is of ({found}): adopt takes \
                 what it has, offer sends what is held here"
            ),
        }
    }
}

/// The reason why a collection is not in step with the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SyncFailureReason {
    /// The server refuses it to this user, or has reached a limit. It is asked for again when the
    /// app leaves the collection and uses it again, by `sync_now`, by `set_token`, on the next
    /// connection, and by every poll.
    Refused {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people: the beginning of the server's message.
        message: String,
    },
    /// The server can't serve it now. It is asked for again by and by.
    Unavailable {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people: the beginning of the server's message.
        message: String,
    },
    /// A plain server does not answer a `sync`, which alone would tell what the collection holds.
    Unanswered,
    /// Records are held that the server does not have any more, and the app has not said
    /// [`adopt`](Write::Adopt) or [`offer`](crate::client::interface::Write::Offer).
    RecordsMissing {
        /// The number of the records.
        missing: u64,
    },
    /// The server has another database than the one that this replica is of, and the app has not
    /// said [`adopt`](Write::Adopt) or [`offer`](crate::client::interface::Write::Offer).
    DifferentDatabase {
        /// The identity of the server's database.
        found: DatabaseId,
    },
}

/// A command of the app's, for [`Replica::command`](crate::client::replica::Replica::command).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Connects, also after [`Disconnect`](Self::Disconnect) or when the tries were used up. Nothing
    /// happens where a connection is up or on its way.
    Connect,
    /// Disconnects, and stays so until [`Connect`](Self::Connect).
    Disconnect,
    /// Gives a fresh token: to the live connection, and to every one to come.
    SetToken(Token),
    /// Says whether the device has a network, as far as the app can tell. With `false` nothing is
    /// tried any more, until `true` has everything tried at once. Before the first such command the
    /// network counts as there.
    SetOnline(bool),
    /// Synchronises now: over a live connection by asking for a fresh proof that everything is in
    /// step, else by an HTTP exchange where there is an HTTP URL, and by trying the WebSocket
    /// again. [`synced`](crate::client::replica::Replica::synced) tells when it is done.
    SyncNow,
    /// Subscribes a collection from now on.
    Subscribe(Collection),
    /// Ends a subscription. The collection's rows stay.
    Unsubscribe(Collection),
    /// Holds a scope of a collection in sync from now on: the scope joins those that are held of it.
    UseScope(Collection, NamedScope),
    /// Lets a scope go that was used, when [`keep_scopes_for`](ClientConfig::keep_scopes_for) is over.
    ReleaseScope(Collection, NamedScope),
    /// Holds a scope in sync, durably, until the same is said with `false`.
    KeepScope(Collection, NamedScope, bool),
    /// Leaves a collection that was subscribed when [`keep_for`](ClientConfig::keep_for) is over,
    /// unless it is subscribed again. To be given when the app has neither a handle nor a watch of
    /// it left.
    Release(Collection),
}

/// A write of the app's, for [`Replica::write`](crate::client::replica::Replica::write).
pub enum Write {
    /// Makes a record be this document, whether it exists or not. Of an existing record only the
    /// fields that differ are written, so that others' edits of its other fields survive.
    Save(Collection, RecordId, Document),
    /// Sets and removes some fields of an existing record, whatever they are now. Where the new
    /// values depend on the old ones, see [`Modify`](Self::Modify). Fails where there is no such
    /// record.
    Update(Collection, RecordId, Delta),
    /// Makes of a record what the function makes of what the app sees of it, in one step: nothing
    /// comes in between. Only the fields that differ are written. Fails as the function does.
    Modify(Collection, RecordId, Modify),
    /// Removes a record. Nothing happens where there is none.
    Delete(Collection, RecordId),
    /// Makes several writes with one fate: here in one commit, at the server all or none, where its
    /// [guarantees](Guarantees) have `atomic`. Fails as the function does; where a record would break a
    /// limit or the transaction has too many members, and then nothing of it is made.
    Transaction(TransactionBody),
    /// Makes a rejected write again, on the record as it is now, and takes it off the list. Its
    /// fields keep the times at which they were written, or those of what the record shows by now
    /// where these are later. A transaction is made again whole, as of now, by the name of any member.
    /// Fails where there is no such write, and as the call that made it.
    RetryRejected(WriteId),
    /// Takes a rejected write off the list for good, and its transaction with it. Fails where there is
    /// no such write.
    DiscardRejected(WriteId),
    /// Rejects by hand a write that [stalls](super::event::EventKind::WriteStalled). Fails where it
    /// does not stall. Where connections break before it is through, it may be on its way: then it is
    /// rejected as soon as the server has said that it does not have it, in the same life of the replica.
    RejectStalled(WriteId),
    /// Takes what the server has, where it lacks records that are held here or has another database:
    /// those records go, at another database when everything that it has was shown. Writes that wait
    /// for another database go to the list of rejected ones, from where
    /// [`RetryRejected`](Self::RetryRejected) sends them. Nothing happens where there is nothing to
    /// decide.
    Adopt,
    /// Sends what is held here, where the server lacks it or has another database: the records go out
    /// as inserts, and meet what the server has by the conflict strategy. Nothing happens where there
    /// is nothing to decide.
    Offer,
}

/// A change of a record by what it is. It gets what the app sees of the record, `None` where there
/// is no record, and returns what takes its place: `None` removes the record, and what it was given
/// leaves all as it is.
pub type Modify = Box<dyn FnOnce(Option<&Document>) -> Result<Option<Document>, Misuse> + Send>;

/// The making of a transaction: it says what is written, and fails where it can't be.
pub type TransactionBody = Box<dyn FnOnce(&mut TransactionDraft<'_>) -> Result<(), Misuse> + Send>;

/// The outcome of a write of the app's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Written {
    /// The commit that holds the write: when it is durable, the write is saved.
    pub commit: CommitNumber,
    /// The write's id in events; `None` where nothing changed. A write that joins one that waits
    /// for the same record has the other's id.
    pub write: Option<WriteId>,
    /// The write whose fate this one shares: itself, or, where nothing changed, the last one that
    /// waits for the same record; `None` where there is none.
    pub shares: Option<WriteId>,
    /// The name of the transaction, where it was one that changes or expects something.
    pub transaction: Option<WriteId>,
}

/// A call that can't be carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// An update of a record that does not exist here.
    #[error("there is no record {record_id} in {collection}; save it first")]
    NoSuchRecord {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
    },
    /// The record would break one of the limits.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The function that was given to `modify` has failed.
    #[error("the record was not changed: {message}")]
    ModifyFailed {
        /// Its error, for people.
        message: String,
    },
    /// The function that was given for a transaction has failed.
    #[error("the transaction was not made: {message}")]
    TransactionFailed {
        /// Its error, for people.
        message: String,
    },
    /// A transaction expects a state of a record that is another by now.
    #[error(
        "the transaction was not made: {record_id} in {collection} is no longer as it was seen; read it \
         again and decide anew"
    )]
    PreconditionFailed {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
    },
    /// A transaction has too many members, or their documents are too large together.
    #[error(
        "the transaction was not made: it has {members} members with {bytes} bytes, and at most \
         {max_members} with {max_bytes} bytes fit; make several smaller ones"
    )]
    TransactionTooLarge {
        /// The number of its writes and expectations.
        members: usize,
        /// The size of what it writes.
        bytes: usize,
        /// The most members.
        max_members: usize,
        /// The most bytes.
        max_bytes: usize,
    },
    /// A wipe would lose writes that the server does not have.
    #[error(
        "the user's data can't be wiped: there are {0}. Let them reach the server or see to them, or \
         wipe them too"
    )]
    Unsent(Unsent),
    /// The outbox is full.
    #[error(
        "{max} writes already wait for the server, and no more fit: nothing was saved; connect, so that \
         they go out"
    )]
    OutboxFull {
        /// The limit.
        max: usize,
    },
    /// The query can't be carried out.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no rejected write with this id.
    #[error("there is no rejected write {0}")]
    NoSuchRejected(WriteId),
    /// There is no write with this id at the head of the outbox.
    #[error("write {0} is not stalled, so it can't be rejected by hand")]
    NotStalled(WriteId),
    /// The store has failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
