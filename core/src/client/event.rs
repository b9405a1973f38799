//! The news for the app: events as they happen, and the status at any time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::config::{Guarantees, OnServerLoss};
use super::failure::{ConnectFailure, FailureCause};
use crate::protocol::hash::Checksum;
use crate::protocol::message::{Cursor, ErrorCode, Level};
use crate::protocol::name::{ClientId, Collection, DatabaseId, RecordId, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::WriteKind;
use crate::rules::query::Index;
use crate::rules::scope::NamedScope;
use crate::store::StoreError;

/// The way by which a change or an error came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Over the WebSocket.
    WebSocket,
    /// By HTTP.
    Http,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The time of it by the device's wall clock.
    pub timestamp: Timestamp,
    /// The transport it came by; `None` for what happened on this side.
    pub transport: Option<Transport>,
    /// The kind of the event, with its collection and record. It has no record's content: a reader who
    /// is late would keep all of them in memory. [`get`](super::replica::Replica::get) reads it.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A collection begins to catch up.
    SyncStarted {
        /// The collection.
        collection: Collection,
    },
    /// Something of a catch-up has come, told once for each frame or page.
    SyncProgress {
        /// The collection.
        collection: Collection,
        /// The number of records and changes that have come since it began.
        records: u64,
        /// The approximate size of them, in bytes.
        bytes: u64,
        /// The number of the records that come, if the collection comes whole, else of the changes that
        /// come at most; `None` where the server does not say.
        of: Option<u64>,
    },
    /// A collection has caught up, and what it holds was verified.
    SyncCompleted {
        /// The collection.
        collection: Collection,
    },
    /// A collection could not be subscribed.
    SyncFailed {
        /// The collection.
        collection: Collection,
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
    /// A write waits in the outbox.
    OperationQueued {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write.
        write: WriteId,
        /// The kind of the write.
        operation: WriteKind,
        /// The transaction that it is a member of.
        transaction: Option<WriteId>,
    },
    /// The server has taken a write.
    OperationSynced {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write.
        write: WriteId,
        /// The level of the server: one of level 1 acknowledges nothing, and the write only counts
        /// as taken there.
        level: Level,
        /// The transaction that it is a member of.
        transaction: Option<WriteId>,
    },
    /// The server has refused a write for good: it is in the list of rejected writes, and the
    /// record is as if it had not been made.
    OperationFailed {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write.
        write: WriteId,
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
        /// Later writes to the record that were rejected with it.
        with: Vec<WriteId>,
        /// Later writes to the record that stay in the outbox.
        kept: Vec<WriteId>,
        /// The transaction that it is a member of.
        transaction: Option<WriteId>,
    },
    /// The server has taken all that is left of a transaction.
    TransactionSynced {
        /// The transaction, by its name in the events of its members.
        transaction: WriteId,
        /// The level of the server, as of [`OperationSynced`](Self::OperationSynced).
        level: Level,
    },
    /// A transaction was rejected: its members are in the list of rejected writes, and the records are
    /// as if it had not been made. The server has refused it; or a record that it expects was no longer
    /// as it was seen (`PRECONDITION_FAILED`); or the conflict strategy has given a member up (`LOST`).
    TransactionFailed {
        /// The transaction, by its name in the events of its members.
        transaction: WriteId,
        /// The records that it writes or expects something of, each once, in order. Those are left out whose
        /// part the server had taken, or the conflict strategy had given up, before.
        records: Vec<(Collection, RecordId)>,
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
    /// A pending write and a remote change touch the same field.
    ConflictDetected {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The version of the server's state.
        remote_version: u64,
    },
    /// The strategy has decided a conflict.
    ConflictResolved {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write that carries the outcome to the server; `None` where the server's state
        /// already is the outcome.
        write: Option<WriteId>,
        /// The writes that the outcome replaces.
        merged: Vec<WriteId>,
        /// The transaction of which a member goes on in `write`, outside of it: it is taken when `write`
        /// is too. So it is at plain servers alone, which may have that member.
        transaction: Option<WriteId>,
        /// `true` if that was its last member: no other event tells of the transaction's end.
        ends: bool,
    },
    /// The app's resolver has not decided a conflict: it panicked, or said that it can't. The later
    /// write of each field wins instead. Nothing else is lost, and the resolver is asked again at
    /// the next conflict.
    ResolverFailed {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The reason, for people.
        reason: String,
    },
    /// The writes that wait for a record became one, because the whole record is offered to the
    /// server.
    OperationsMerged {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write that stands for them; `None` where nothing is left to be written, because they
        /// delete a record that the server does not have.
        write: Option<WriteId>,
        /// The writes that it replaces.
        merged: Vec<WriteId>,
    },
    /// The server came within reach, or went out of it.
    ConnectivityChanged {
        /// `true` if it is in reach.
        online: bool,
    },
    /// The WebSocket is up and the server has answered the hello.
    RealtimeConnected,
    /// The WebSocket is down.
    RealtimeDisconnected {
        /// The reason.
        reason: String,
    },
    /// Another writer's insert has arrived.
    RealtimeInsert {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
    },
    /// Another writer's update has arrived.
    RealtimeUpdate {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
    },
    /// Another writer's delete has arrived.
    RealtimeDelete {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
    },
    /// A page of a snapshot has arrived.
    RealtimeSync {
        /// The collection.
        collection: Collection,
        /// The number of records on it.
        records: usize,
    },
    /// The server, or something on the way to it, refuses access: it wants a token, or a fresh
    /// one. Give it with `set_token`. Nothing is lost meanwhile, and the replica goes on trying, at
    /// most a minute apart: this event comes with every refusal.
    TokenNeeded {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
        /// `true` if the server itself says so. Otherwise it may be a proxy or a portal on the way,
        /// which does not know the server's tokens.
        by_server: bool,
    },
    /// A write finds no end: the server keeps failing on it or keeps reporting conflicts, or every
    /// connection breaks before it is through, perhaps because it is larger than what the link carries.
    /// It is tried again ever more slowly, and what was written later waits; the app may reject it.
    /// [`Status::stalled`] shows it too.
    WriteStalled {
        /// The collection.
        collection: Collection,
        /// The record.
        record_id: RecordId,
        /// The write.
        write: WriteId,
        /// The server's last answer; `PAYLOAD_TOO_LARGE` also where connections break before it is
        /// through.
        code: ErrorCode,
        /// The size of its document, or of the fields that it sets, in bytes.
        bytes: usize,
    },
    /// A collection's records differ from the server's. The replica takes a snapshot.
    ChecksumMismatch {
        /// The collection.
        collection: Collection,
    },
    /// The server has lost changes that it had confirmed, as after the restore of a backup.
    ServerLostChanges {
        /// The collection; `None` for all of them.
        collection: Option<Collection>,
    },
    /// The server lacks records that are held here. It was restored from an older backup or emptied,
    /// or this replica was away for so long that the server has forgotten that they were deleted.
    RecordsMissing {
        /// The collection.
        collection: Collection,
        /// The number of records that it lacks.
        missing: u64,
        /// The number of records that the collection would have with them.
        of: u64,
        /// The decision about them; with [`OnServerLoss::Ask`] the app is to decide.
        decision: OnServerLoss,
    },
    /// The server has another database than the one that this replica is of: nothing is taken from
    /// it and nothing sent, until the app says [`adopt`](super::interface::Write::Adopt) or
    /// [`offer`](super::interface::Write::Offer), or the database is there again.
    DifferentDatabase {
        /// The database that this replica is of.
        known: DatabaseId,
        /// The server's.
        found: DatabaseId,
    },
    /// This replica turned out to be an old or a second copy: it goes on under an id of its own,
    /// and sends its pending writes again.
    ReplicaCopied {
        /// The new id.
        client_id: ClientId,
        /// The writes that may already have been applied under the old id.
        sent_again: Vec<WriteId>,
    },
    /// The server offers less than the app requires: no write goes out, and nothing is lost.
    GuaranteesMissing {
        /// The guarantees that it offers.
        offered: Guarantees,
        /// The guarantees that [`required`](super::interface::ClientConfig::required) names.
        required: Guarantees,
    },
    /// The device's clock is more than a minute off by the server's. Writes are stamped by the server's,
    /// so nothing goes wrong while that is known; but a write that is made before the server was ever
    /// met, or after the clock was set without it, may count as earlier or later than it was. Somebody
    /// should set the clock.
    ClockOff {
        /// The lead of the server's clock over the device's, in milliseconds.
        offset_ms: i64,
    },
    /// Something answers at the address, but it is no SyncLayer server: the address or its path may
    /// be wrong, or something on the way answers instead. Nothing is lost, and it is tried again.
    NoServer {
        /// A description of what answers there, for people.
        message: String,
    },
    /// A part of an index was built.
    IndexProgress {
        /// The collection.
        collection: Collection,
        /// The index.
        index: Index,
        /// The number of records that were read for it since the replica was opened.
        records: u64,
        /// `true` if it is whole now, and used.
        done: bool,
    },
    /// Something went wrong; the replica goes on.
    Error {
        /// The collection, where it is about one.
        collection: Option<Collection>,
        /// The record, where it is about one.
        record_id: Option<RecordId>,
        /// The error, for people.
        message: String,
        /// The reason why the server is out of reach, for programs; `None` for an error of another
        /// kind.
        cause: Option<FailureCause>,
    },
}

impl EventKind {
    /// Another writer's change of a record has arrived.
    pub(super) fn realtime(kind: WriteKind, collection: &Collection, id: &RecordId) -> Self {
        let (collection, record_id) = (collection.clone(), id.clone());
        match kind {
            WriteKind::Insert => Self::RealtimeInsert { collection, record_id },
            WriteKind::Update => Self::RealtimeUpdate { collection, record_id },
            WriteKind::Delete => Self::RealtimeDelete { collection, record_id },
        }
    }

    /// The collection that it is about.
    #[must_use]
    pub fn collection(&self) -> Option<&Collection> {
        match self {
            Self::SyncStarted { collection }
            | Self::SyncProgress { collection, .. }
            | Self::SyncCompleted { collection }
            | Self::SyncFailed { collection, .. }
            | Self::OperationQueued { collection, .. }
            | Self::OperationSynced { collection, .. }
            | Self::OperationFailed { collection, .. }
            | Self::ConflictDetected { collection, .. }
            | Self::ConflictResolved { collection, .. }
            | Self::ResolverFailed { collection, .. }
            | Self::OperationsMerged { collection, .. }
            | Self::RealtimeInsert { collection, .. }
            | Self::RealtimeUpdate { collection, .. }
            | Self::RealtimeDelete { collection, .. }
            | Self::RealtimeSync { collection, .. }
            | Self::WriteStalled { collection, .. }
            | Self::ChecksumMismatch { collection }
            | Self::IndexProgress { collection, .. }
            | Self::RecordsMissing { collection, .. } => Some(collection),
            Self::ServerLostChanges { collection } | Self::Error { collection, .. } => {
                collection.as_ref()
            }
            Self::TransactionSynced { .. }
            | Self::TransactionFailed { .. }
            | Self::ConnectivityChanged { .. }
            | Self::RealtimeConnected
            | Self::RealtimeDisconnected { .. }
            | Self::TokenNeeded { .. }
            | Self::DifferentDatabase { .. }
            | Self::ReplicaCopied { .. }
            | Self::GuaranteesMissing { .. }
            | Self::ClockOff { .. }
            | Self::NoServer { .. } => None,
        }
    }

    /// The record that it is about.
    #[must_use]
    pub fn record_id(&self) -> Option<&RecordId> {
        match self {
            Self::OperationQueued { record_id, .. }
            | Self::OperationSynced { record_id, .. }
            | Self::OperationFailed { record_id, .. }
            | Self::ConflictDetected { record_id, .. }
            | Self::ConflictResolved { record_id, .. }
            | Self::ResolverFailed { record_id, .. }
            | Self::OperationsMerged { record_id, .. }
            | Self::RealtimeInsert { record_id, .. }
            | Self::RealtimeUpdate { record_id, .. }
            | Self::RealtimeDelete { record_id, .. }
            | Self::WriteStalled { record_id, .. } => Some(record_id),
            Self::Error { record_id, .. } => record_id.as_ref(),
            Self::SyncStarted { .. }
            | Self::SyncProgress { .. }
            | Self::SyncCompleted { .. }
            | Self::SyncFailed { .. }
            | Self::TransactionSynced { .. }
            | Self::TransactionFailed { .. }
            | Self::ConnectivityChanged { .. }
            | Self::RealtimeConnected
            | Self::RealtimeDisconnected { .. }
            | Self::RealtimeSync { .. }
            | Self::TokenNeeded { .. }
            | Self::ChecksumMismatch { .. }
            | Self::ServerLostChanges { .. }
            | Self::RecordsMissing { .. }
            | Self::DifferentDatabase { .. }
            | Self::ReplicaCopied { .. }
            | Self::GuaranteesMissing { .. }
            | Self::ClockOff { .. }
            | Self::IndexProgress { .. }
            | Self::NoServer { .. } => None,
        }
    }
}

/// The state of the connection, be it the WebSocket or, where there is none, polling.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ConnectionState {
    /// There is none, and none is wanted.
    #[default]
    Disconnected,
    /// The first try is under way.
    Connecting,
    /// The server has answered.
    Connected,
    /// The connection was lost or could not be made; it is tried again.
    Reconnecting,
    /// The server has another database than the one that this replica is of. It is tried again now
    /// and then, and nothing is taken or sent before the app says [`adopt`](super::interface::Write::Adopt) or
    /// [`offer`](super::interface::Write::Offer).
    DifferentDatabase,
    /// It is not tried again before the app does something: the tries are used up, the server
    /// guarantees less than what is required, or the store has failed.
    Error,
}

/// The state of one collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectionStatus {
    /// `true` if the app uses it, so that it is kept in sync.
    pub in_use: bool,
    /// `true` if changes come as they are made.
    pub live: bool,
    /// `true` if a catch-up is under way.
    pub catching_up: bool,
    /// The number of records and changes that have come of the catch-up under way, or came of the last one.
    pub received_records: u64,
    /// The approximate size of them, in bytes.
    pub received_bytes: u64,
    /// The number of the records that come with it, if the collection comes whole, else of the changes that
    /// come at most; `None` where the server has not said.
    pub expected_records: Option<u64>,
    /// `true` if the server has not confirmed the held records in this time of contact with it.
    pub from_cache: bool,
    /// Up to where everything is known.
    pub cursor: Option<Cursor>,
    /// The number of records that the server has, as far as it told.
    pub count: u64,
    /// Their checksum.
    pub checksum: Checksum,
    /// The number of records that are held and that the server no longer has, while the app is to say
    /// [`adopt`](super::interface::Write::Adopt) or [`offer`](crate::client::interface::Write::Offer).
    pub missing: Option<u64>,
    /// A text for people that says where the catch-up does not get on: connections keep breaking before
    /// anything of the next page comes, however small a page is asked for.
    pub stalled: Option<Box<str>>,
    /// The scopes that are held or were refused, where the collection is held by scopes. `count` and
    /// `checksum` are sums over those that are held.
    pub scopes: Option<BTreeMap<NamedScope, ScopeStanding>>,
}

/// The part of a scope that is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScopeStanding {
    /// Nothing of it was loaded.
    Waiting,
    /// Its records come.
    Loading,
    /// All of it, as of the collection's cursor.
    Loaded,
    /// The server has refused it; it is asked for again as a refused collection is.
    Refused,
}

/// A write that finds no end, as [`EventKind::WriteStalled`] tells of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct StalledWrite {
    /// The write.
    pub write: WriteId,
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The size of its document, or of the fields that it sets, in bytes.
    pub bytes: usize,
    /// The reason, as in the event.
    pub code: ErrorCode,
}

/// A write that waits for the server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct PendingWrite {
    /// The write.
    pub write: WriteId,
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The kind of the write.
    pub operation: WriteKind,
    /// The time at which the app made it; for a merged write, the time of its last part.
    pub written_at: Timestamp,
    /// The transaction that it is a member of.
    pub transaction: Option<WriteId>,
}

/// The state of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The state of the connection.
    pub connection: ConnectionState,
    /// The transport that is in use: the WebSocket as soon as the server has answered on it, else
    /// HTTP once it has answered there. `None` where the server is out of reach.
    pub transport: Option<Transport>,
    /// The reason why the server is out of reach, where it was tried in vain since it was in reach last.
    pub failure: Option<ConnectFailure>,
    /// The level that it speaks; `None` without one.
    pub level: Option<Level>,
    /// The guarantees of the server; `None` without one.
    pub guarantees: Option<Guarantees>,
    /// The replica's id.
    pub client_id: ClientId,
    /// The identity of the server's database, where it is another one than this replica is of and the
    /// app is to say [`adopt`](super::interface::Write::Adopt) or [`offer`](crate::client::interface::Write::Offer).
    pub other_database: Option<DatabaseId>,
    /// The number of writes that wait for the server, as [`pending`](super::replica::Replica::pending)
    /// lists them.
    pub pending_writes: usize,
    /// The write that finds no end and that the others wait for, if there is one.
    pub stalled: Option<StalledWrite>,
    /// The number of writes in the list of rejected ones.
    pub rejected_writes: usize,
    /// The collections that are in use or were.
    pub collections: BTreeMap<Collection, CollectionStatus>,
    /// The lead of the server's clock over this one, in milliseconds, as far as it is known: it is
    /// told at each hello, and kept over restarts.
    pub clock_offset_ms: i64,
    /// `true` if the device's clock is more than a minute off by that.
    pub clock_is_off: bool,
    /// `true` if the server has told its time since the replica was opened, so that writes are
    /// stamped by it.
    pub knows_server_time: bool,
    /// A number that rises while something gets through: as bytes of a frame, a request or an answer
    /// move that is not whole, and with each page, change or verdict that has moved a place. Where it
    /// stands still, waiting is in vain so far.
    pub progress: u64,
    /// Frames that were ignored because their type is unknown or their time was over.
    pub ignored_frames: u64,
    /// The reason why the machine has stopped, if its store has failed.
    pub halted: Option<StoreError>,
}
