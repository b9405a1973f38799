//! The messages of both levels, as values. `wire` encodes and decodes them.

use core::fmt;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::document::Document;
use super::hash::{Checksum, Digest, RightsTag};
use super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use super::scopes::{AskedScope, ScopeName, ScopePage};
use super::time::Timestamp;
use super::times::FieldTimes;
use super::unit::Unit;
use super::write::Change;

/// The level that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Level 1: the JSON protocol of SyncLayer 1.7, without acknowledgements and cursors.
    Plain,
    /// Level 2: acknowledged, resumable, verified.
    Resumable,
}

/// A position in a collection's order of changes: every change up to it is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The epoch in which `seq` was given.
    pub epoch: Epoch,
    /// The last known change; everything before it is known too.
    pub seq: Seq,
}

/// The position in an interrupted catch-up.
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
    /// The digest of that write; `None` if there is none.
    pub last_digest: Option<Digest>,
    /// The session of the first hello of the client that the server remembers; `None` if the server
    /// does not tell.
    pub first_session: Option<SessionNumber>,
    /// The user of the connection, if the server knows users.
    pub user_id: Option<UserId>,
    /// The maximal length of a `batch` message for this server, in bytes.
    pub max_batch_bytes: u64,
    /// The optional parts of the protocol that the server has.
    pub features: Features,
}

/// Optional parts of the protocol. A client uses only those that the pong names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Features {
    /// `"pull"`: pages by `POST /sync/pull`, whose body carries the collection's name.
    pub pull: bool,
    /// `"atomic"`: units, by WebSocket and by push.
    pub atomic: bool,
    /// `"scopes"`: subscriptions of a set of scopes, by WebSocket and by pull.
    pub scopes: bool,
}

impl Features {
    /// The parts that this version's server has.
    pub(crate) const OFFERED: Self = Self { pull: true, atomic: true, scopes: true };

    /// Their names on the wire.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let Self { pull, atomic, scopes } = self;
        let parts = [("pull", pull), ("atomic", atomic), ("scopes", scopes)];
        parts.into_iter().filter(|(_, has)| *has).map(|(name, _)| name)
    }

    /// Adds a part by its name on the wire; unknown names are skipped.
    pub(crate) fn note(&mut self, name: &str) {
        self.pull |= name == "pull";
        self.atomic |= name == "atomic";
        self.scopes |= name == "scopes";
    }
}

/// A client's write, as sent to the server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mutation {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The change of the record.
    pub change: Change,
    /// The time at which the app made the write; for a merged write, the time of its last part.
    pub timestamp: Option<Timestamp>,
    /// The times of the fields that were written at another time, sorted by name; empty at level 1.
    pub at: FieldTimes,
    /// Its number; `None` at level 1.
    pub number: Option<MutationNumber>,
    /// The seq of the server state on which the write stands; `None` makes it unconditional.
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

/// A message from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// A token, if it was not in the URL or a header; or a fresh token on a live connection.
    Auth {
        /// The secret.
        token: Token,
    },
    /// Subscribes to a collection.
    Subscribe {
        /// The collection.
        collection: Collection,
        /// The cursor, at level 2. Without it a level-2 client gets a snapshot.
        cursor: Option<Cursor>,
        /// The position in an interrupted catch-up from `cursor`.
        resume: Option<Resume>,
        /// The rights by which the client has reached that.
        rights: Option<RightsTag>,
        /// The most bytes of a page that the client wants, where it wants less than the server would
        /// send.
        page_bytes: Option<usize>,
        /// The parts of a scope key, each with the JSON text of its value: only the records of that
        /// scope, at level 1. Empty for all records.
        filter: Vec<(String, String)>,
        /// The number of the set, larger than every earlier one of the connection, at level 2.
        set: Option<u64>,
        /// The scopes of the set; empty for the whole collection.
        scopes: Vec<AskedScope>,
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
        /// The filter, as in a `subscribe`.
        filter: Vec<(String, String)>,
    },
    /// An `insert`, `update` or `delete`.
    Write(Mutation),
    /// Writes and expectations that take effect together, at level 2.
    Unit(Unit),
    /// A ping; with a hello, the opening of level 2.
    Ping {
        /// The opening of level 2.
        hello: Option<Hello>,
    },
}

/// A change of one record, from the server: its new state, or the changed fields.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerChange {
    /// `insert`: the whole record. `update`: the changed fields. `delete`: it is gone.
    pub change: Change,
    /// The seq of the record's last change; `None` at level 1.
    pub seq: Option<Seq>,
    /// The record's version: the number of its changes so far.
    pub version: Option<u64>,
    /// The writer's time of the last change.
    pub timestamp: Option<Timestamp>,
    /// The times of the fields that were last written at another time, sorted by name. For a whole
    /// record they include removed fields.
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
    /// The record's version: the number of its changes so far.
    pub version: Option<u64>,
    /// The writer's time of the last change.
    pub updated_at: Option<Timestamp>,
    /// The seq of its last change; `None` at level 1.
    pub seq: Option<Seq>,
    /// The times of the fields that were last written at another time, removed ones included,
    /// sorted by name.
    pub at: FieldTimes,
}

/// The key range that a page of a snapshot covers: `after < key <= up_to`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageRange {
    /// The exclusive start of the range; `None` is before the first key.
    pub after: Option<RecordId>,
    /// The inclusive end of the range; `None` is behind the last key and marks the last page.
    pub up_to: Option<RecordId>,
    /// The head of the collection when the snapshot began.
    pub snapshot_seq: Seq,
}

/// The mode of a catch-up.
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
    /// The position of the ack in a live stream: the seq of the write. `None` in an ack out of
    /// place, and for a write that changed nothing or was applied before.
    pub seq: Option<Seq>,
    /// The record's version after the write.
    pub version: Option<u64>,
    /// In an ack out of place: every field that changed above the write's base, by whomever.
    pub echo: Option<ServerChange>,
    /// The server's time.
    pub timestamp: Option<Timestamp>,
}

/// The content of an `error` message.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ErrorMessage {
    /// The kind of error.
    pub code: ErrorCode,
    /// A text for people: the problem and its remedy.
    pub message: String,
    /// The time to wait before the next attempt, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The number of the write that was not applied; nothing behind it was applied either. For a
    /// unit it is that of the first member.
    pub mutation: Option<MutationNumber>,
    /// The collection that the error is about.
    pub collection: Option<Collection>,
    /// The record that the error is about.
    pub record_id: Option<RecordId>,
    /// With `CONFLICT`: the record's state at the server, an `insert` or a `delete`, whose seq is
    /// 0 where the server never knew the record.
    pub current: Option<ServerChange>,
    /// For a unit: the members that failed, as many as fit.
    pub failed: Vec<FailedMember>,
}

/// A member of a unit that was not applied because of this member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FailedMember {
    /// Its number.
    pub mutation: MutationNumber,
    /// The kind of error.
    pub code: ErrorCode,
    /// Its collection.
    pub collection: Collection,
    /// Its record.
    pub record_id: RecordId,
    /// With `CONFLICT`: the record's state at the server, as in [`ErrorMessage::current`].
    pub current: Option<ServerChange>,
}

/// The maximal number of bytes that a client keeps of an error's text or code. The server chooses
/// them, and each rejected write, refused collection and queued event holds one.
const KEPT_TEXT: usize = 1024;

/// The beginning of an error's text, up to the limit.
pub(crate) fn kept_text(text: &str) -> &str {
    if text.len() <= KEPT_TEXT {
        return text;
    }
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(|end| *end <= KEPT_TEXT).last().unwrap_or(0)]
}

impl ErrorMessage {
    /// An error without a subject.
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
            failed: Vec::new(),
        }
    }
}

/// The reason for which a `delete` takes out a record that may still exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DeleteReason {
    /// `"filter"`: the user may not read it.
    Filter,
    /// `"scope"`: it has left the scopes of the subscription.
    Scope,
}

impl DeleteReason {
    /// The reason on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Scope => "scope",
        }
    }

    /// The reason of a text, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Filter, Self::Scope].into_iter().find(|reason| reason.as_str() == text)
    }
}

/// A message from a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerMessage {
    /// The answer to `auth`.
    Authenticated {
        /// The user of the token.
        user_id: Option<UserId>,
    },
    /// A catch-up begins.
    Subscribed {
        /// The collection.
        collection: Collection,
        /// The number of live records in it.
        record_count: Option<u64>,
        /// Its head; `None` at level 1.
        head: Option<Seq>,
        /// The mode of the catch-up; `None` at level 1.
        mode: Option<Mode>,
        /// `true` if some records are withheld from this user. Then the stream has gaps and no
        /// checksum.
        partial: bool,
        /// The rights by which the user is shown the collection; `None` where they can't change unseen.
        rights: Option<RightsTag>,
        /// The number of the set that the `subscribe` carried.
        set: Option<u64>,
        /// The scopes of the set that this user may not read.
        refused: Vec<ScopeName>,
    },
    /// The end of a subscription, or of scopes of it.
    Unsubscribed {
        /// The collection.
        collection: Collection,
        /// The scopes that ended; empty for the whole subscription.
        scopes: Vec<ScopeName>,
    },
    /// An `insert`, `update` or `delete`.
    Change {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The change.
        change: ServerChange,
        /// The reason for which a `delete` takes out a record that may still exist; `None` if the
        /// record is deleted.
        reason: Option<DeleteReason>,
        /// In a live `update` of a record with scopes: its seq before the change.
        prev: Option<Seq>,
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
    /// A page of the load of a scope; a `sync` with `scope` on the wire.
    Load(ScopePage),
    /// A catch-up is complete.
    Synced {
        /// The collection.
        collection: Collection,
        /// The position up to which it is complete.
        cursor: Cursor,
        /// The number of live records; 0 if some are withheld.
        count: u64,
        /// Their checksum; `None` if some are withheld.
        checksum: Option<Checksum>,
        /// The number of the set: then count and checksum are the sums over its scopes.
        set: Option<u64>,
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
    /// Something that the write touches was changed by someone else.
    Conflict,
    /// Too many requests; `retry_after_ms` is the time to wait.
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

    /// The code of a text.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
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
    pub(crate) fn http_status(&self) -> u16 {
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
    /// The secret itself, for the wire and for authentication.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    fn from(secret: &str) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
