//! The messages of both levels, as values. `wire` turns them into bytes and back.

use core::fmt;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::document::Document;
use super::hash::{Checksum, Digest};
use super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use super::time::Timestamp;
use super::times::FieldTimes;
use super::write::Change;

/// The level that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Level 1: the JSON protocol of SyncLayer 1.7, without acknowledgements and cursors.
    Plain,
    /// Level 2: acknowledged, resumable, verified.
    Resumable,
}

/// A place in a collection's order that was reached in full: every change up to it is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The epoch in which `seq` was given.
    pub epoch: Epoch,
    /// The last change that is known, with everything before it.
    pub seq: Seq,
}

/// How far an unfinished catch-up has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resume {
    /// A delta run: every changed record up to `seq` has been received.
    Delta {
        /// The epoch in which `seq` was given.
        epoch: Epoch,
        /// The seq of the last record received.
        seq: Seq,
    },
    /// A snapshot run: every record up to the key `after` has been received.
    Snapshot {
        /// The epoch in which `snapshot_seq` was given.
        epoch: Epoch,
        /// The head of the collection when the run began.
        snapshot_seq: Seq,
        /// The last key that is covered.
        after: RecordId,
    },
}

/// The first ping of a level-2 client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hello {
    /// The replica.
    pub client_id: ClientId,
    /// The number of this connection, larger than every earlier one of the replica's.
    pub session: SessionNumber,
}

/// The answer to a [`Hello`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Welcome {
    /// The identity of the server's database; `None` where the server does not tell.
    pub database: Option<DatabaseId>,
    /// The server's current epoch.
    pub epoch: Epoch,
    /// The number of the client's last applied write.
    pub last_mutation: MutationNumber,
    /// The digest of that write; `None` where there is none.
    pub last_digest: Option<Digest>,
    /// The session of the first hello of the client that the server remembers; `None` where the
    /// server does not tell.
    pub first_session: Option<SessionNumber>,
    /// The user that the connection belongs to, where the server knows users.
    pub user_id: Option<UserId>,
    /// The longest `batch` message that the server takes, in bytes.
    pub max_batch_bytes: u64,
    /// The parts of the protocol that the server has, of those that not every server has.
    pub features: Features,
}

/// Parts of the protocol that a server may lack. A client uses none that the pong does not name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Features {
    /// `"pull"`: pages by `POST /sync/pull`, in whose body the collection's name travels.
    pub pull: bool,
}

impl Features {
    /// Everything that this version knows.
    pub const ALL: Self = Self { pull: true };

    /// Their names on the wire.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let Self { pull } = self;
        [("pull", pull)].into_iter().filter(|(_, has)| *has).map(|(name, _)| name)
    }

    /// Notes a name from the wire; those of later versions are skipped.
    pub(crate) fn note(&mut self, name: &str) {
        self.pull |= name == "pull";
    }
}

/// A write of a client's, on its way to the server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mutation {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// What is done to it.
    pub change: Change,
    /// When the app made the write; of one that was joined from several, when it made the last.
    pub timestamp: Option<Timestamp>,
    /// The fields that it made at another time, sorted by name; none at level 1.
    pub at: FieldTimes,
    /// Its number; `None` at level 1.
    pub number: Option<MutationNumber>,
    /// The seq of the server state that it stands on; `None` makes it unconditional.
    pub base: Option<Seq>,
}

impl Mutation {
    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let Self { collection, record_id, change, at, .. } = self;
        let timestamp = self.timestamp.unwrap_or_default();
        Digest::of(change.kind, collection, record_id, &change.delta, timestamp, at)
    }
}

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// A token, where it was not in the URL or a header, or a fresh one on a live connection.
    Auth {
        /// The secret.
        token: Token,
    },
    /// Asks for a collection's changes.
    Subscribe {
        /// The collection.
        collection: Collection,
        /// What the client has, at level 2; without it a level-2 client gets a snapshot.
        cursor: Option<Cursor>,
        /// How far an interrupted catch-up from `cursor` has come.
        resume: Option<Resume>,
        /// Whether the message carries a filter, which is refused for now.
        filtered: bool,
    },
    /// Ends a subscription.
    Unsubscribe {
        /// The collection.
        collection: Collection,
    },
    /// Asks for a whole collection in one `sync`.
    Sync {
        /// The collection.
        collection: Collection,
    },
    /// An `insert`, `update` or `delete`.
    Write(Mutation),
    /// A ping; with a hello, the opening of level 2.
    Ping {
        /// The opening of level 2.
        hello: Option<Hello>,
    },
}

/// What the server says of one record: its new state, or the fields of it that changed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerChange {
    /// `insert`: the whole record. `update`: the changed fields. `delete`: it is gone.
    pub change: Change,
    /// The seq of the record's last change; `None` at level 1.
    pub seq: Option<Seq>,
    /// The record's version: how many changes it has seen.
    pub version: Option<u64>,
    /// The writer's time of the last change.
    pub timestamp: Option<Timestamp>,
    /// The fields whose last change was made at another time, sorted by name. Of a whole record
    /// that includes fields that were removed.
    pub at: FieldTimes,
    /// The writer of the last change.
    pub user_id: Option<UserId>,
}

/// A record of a `sync` message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncRecord {
    /// The record's id.
    pub id: RecordId,
    /// The whole record.
    pub document: Document,
    /// How many changes it has seen.
    pub version: Option<u64>,
    /// The writer's time of the last change.
    pub updated_at: Option<Timestamp>,
    /// The seq of its last change; `None` at level 1.
    pub seq: Option<Seq>,
    /// The fields whose last change was made at another time, removed ones too, sorted by name.
    pub at: FieldTimes,
}

/// The key range that a page of a snapshot covers: `after < key <= up_to`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageRange {
    /// Where the range begins; `None` is before the first key.
    pub after: Option<RecordId>,
    /// Where it ends; `None` is behind the last key, which makes the page the last one.
    pub up_to: Option<RecordId>,
    /// The head of the collection when the snapshot began.
    pub snapshot_seq: Seq,
}

/// How a catch-up goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Changes since the cursor.
    Delta,
    /// The whole collection in pages, then the changes since it began.
    Snapshot,
}

/// The verdict "applied".
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ack {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The number of the write.
    pub mutation: MutationNumber,
    /// Where the ack stands in a live stream: the seq that the write got. `None` in an ack out of
    /// place, and for a write that changed nothing or was applied before.
    pub seq: Option<Seq>,
    /// The record's version after the write.
    pub version: Option<u64>,
    /// Out of place: every field that changed above the write's base, whoever changed it.
    pub echo: Option<ServerChange>,
    /// The server's time.
    pub timestamp: Option<Timestamp>,
}

/// What an `error` message says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ErrorMessage {
    /// The kind of error.
    pub code: ErrorCode,
    /// What went wrong and what to do, for people.
    pub message: String,
    /// How long to wait before the next try, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The write that was not applied, nor anything behind it.
    pub mutation: Option<MutationNumber>,
    /// The collection that the error is about.
    pub collection: Option<Collection>,
    /// The record that the error is about.
    pub record_id: Option<RecordId>,
    /// With `CONFLICT`: the record's state at the server, an `insert` or a `delete`, whose seq is
    /// 0 where the server never knew the record.
    pub current: Option<ServerChange>,
}

/// The most bytes that a client keeps of an error's text or code: a peer chooses them, and each
/// rejected write, refused collection and waiting event holds one.
const KEPT_TEXT: usize = 1024;

/// The beginning of an error's text, as far as it is kept.
pub(crate) fn kept_text(text: &str) -> &str {
    if text.len() <= KEPT_TEXT || planted!(RefusalKeptWhole) {
        return text;
    }
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(|end| *end <= KEPT_TEXT).last().unwrap_or(0)]
}

impl ErrorMessage {
    /// An error that is about nothing in particular.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            mutation: None,
            collection: None,
            record_id: None,
            current: None,
        }
    }
}

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerMessage {
    /// The answer to `auth`.
    Authenticated {
        /// Whom the token belongs to.
        user_id: Option<UserId>,
    },
    /// A catch-up begins.
    Subscribed {
        /// The collection.
        collection: Collection,
        /// How many live records it holds.
        record_count: Option<u64>,
        /// Its head; `None` at level 1.
        head: Option<Seq>,
        /// How the catch-up goes; `None` at level 1.
        mode: Option<Mode>,
        /// Whether some records are withheld from this user, so that the stream has gaps and no
        /// checksum.
        partial: bool,
    },
    /// The end of a subscription.
    Unsubscribed {
        /// The collection.
        collection: Collection,
    },
    /// An `insert`, `update` or `delete`.
    Change {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// What changed.
        change: ServerChange,
        /// Whether a `delete` only takes the record out of this user's sight.
        filtered: bool,
    },
    /// A page of a snapshot, or the whole collection at level 1.
    Sync {
        /// The collection.
        collection: Collection,
        /// The records, in order of their ids at level 2.
        records: Vec<SyncRecord>,
        /// The key range that the page covers; `None` at level 1: all keys.
        range: Option<PageRange>,
    },
    /// A catch-up is complete.
    Synced {
        /// The collection.
        collection: Collection,
        /// Up to where it is complete.
        cursor: Cursor,
        /// How many live records there are.
        count: u64,
        /// Their checksum; `None` where some are withheld.
        checksum: Option<Checksum>,
    },
    /// A write was applied.
    Ack(Ack),
    /// Something was refused.
    Error(ErrorMessage),
    /// The answer to a ping.
    Pong {
        /// The server's time.
        timestamp: Option<Timestamp>,
        /// The answer to a hello.
        welcome: Option<Welcome>,
    },
    /// A type that this version does not know: counted and ignored.
    Unknown {
        /// The type.
        kind: String,
    },
}

/// The codes of errors.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The token is missing or wrong.
    AuthFailed,
    /// The token has expired.
    AuthExpired,
    /// This user may not do this.
    Unauthorized,
    /// The message is not what the protocol allows.
    InvalidMessage,
    /// There is no such collection.
    CollectionNotFound,
    /// There is no such record (level 1 only).
    RecordNotFound,
    /// Something is larger than a limit.
    PayloadTooLarge,
    /// What the write touches was changed by someone else.
    Conflict,
    /// Too many requests; `retry_after_ms` says when to go on.
    RateLimitExceeded,
    /// The server has failed; try again.
    ServerError,
    /// A write's number is above the next one, with no error before it.
    OutOfOrder,
    /// A newer connection of the same client exists.
    SessionSuperseded,
    /// A code that this version does not know.
    Other(Box<str>),
}

impl ErrorCode {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::AuthFailed => "AUTH_FAILED",
            Self::AuthExpired => "AUTH_EXPIRED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::InvalidMessage => "INVALID_MESSAGE",
            Self::CollectionNotFound => "COLLECTION_NOT_FOUND",
            Self::RecordNotFound => "RECORD_NOT_FOUND",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::Conflict => "CONFLICT",
            Self::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Self::ServerError => "SERVER_ERROR",
            Self::OutOfOrder => "OUT_OF_ORDER",
            Self::SessionSuperseded => "SESSION_SUPERSEDED",
            Self::Other(code) => code,
        }
    }

    /// The code that a text stands for.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        const KNOWN: [ErrorCode; 12] = [
            ErrorCode::AuthFailed,
            ErrorCode::AuthExpired,
            ErrorCode::Unauthorized,
            ErrorCode::InvalidMessage,
            ErrorCode::CollectionNotFound,
            ErrorCode::RecordNotFound,
            ErrorCode::PayloadTooLarge,
            ErrorCode::Conflict,
            ErrorCode::RateLimitExceeded,
            ErrorCode::ServerError,
            ErrorCode::OutOfOrder,
            ErrorCode::SessionSuperseded,
        ];
        KNOWN
            .into_iter()
            .find(|code| code.as_str() == text)
            .unwrap_or_else(|| Self::Other(text.into()))
    }

    /// The status of an HTTP answer with this code.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        match self {
            Self::AuthFailed | Self::AuthExpired => 401,
            Self::Unauthorized => 403,
            Self::InvalidMessage => 400,
            Self::CollectionNotFound | Self::RecordNotFound => 404,
            Self::Conflict | Self::OutOfOrder | Self::SessionSuperseded => 409,
            Self::PayloadTooLarge => 413,
            Self::RateLimitExceeded => 429,
            Self::ServerError | Self::Other(_) => 500,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A secret that never shows in `Debug` output, logs or events.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }

    /// The secret itself: for the wire, and for whoever checks it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
