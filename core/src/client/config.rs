//! The configuration of a client.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::protocol::limits::Limits;
use crate::protocol::message::Token;
use crate::protocol::name::Collection;
use crate::rules::conflict::ConflictStrategy;
use crate::rules::query::Index;
use crate::rules::scope::NamedScope;

/// The behaviour of a client. Durations are measured on the monotonic clock.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The user whose data this is. Each user of a store has an identity, an outbox and rows of
    /// their own; those of the others wait. Any text; the empty one is a user like the others.
    pub user: String,
    /// The token for the server.
    pub token: Option<Token>,
    /// The collections that are subscribed at the start.
    pub collections: Vec<Collection>,
    /// The time for which a collection is kept in sync after its last use. A collection is in use
    /// while it is named in `collections`, while it is [subscribed](super::interface::Command::Subscribe)
    /// and not [released](super::interface::Command::Release), and while it has pending writes. Time
    /// counts only while the server is in reach and the collection is in step. Then the collection is
    /// left; its rows stay. Default `None`: for ever.
    pub keep_for: Option<Duration>,
    /// The scopes that are held in sync from the start, by their collections, as if each were
    /// [used](super::interface::Command::UseScope). Nothing is asked of a collection outside of its scopes,
    /// unless the collection is used without one.
    pub scopes: BTreeMap<Collection, Vec<NamedScope>>,
    /// The time for which a scope is kept in sync after its last use. It counts only while the server is
    /// in reach and the collection is in step, and no write of the collection waits. Then the scope's
    /// records go, as far as no other scope holds them. Default 5 minutes.
    pub keep_scopes_for: Duration,
    /// The indexes of this store, by their collections: a query that fits one reads only the records that
    /// it needs. They are kept with the records, of other collections than `collections` too. One that is
    /// new is built in steps, as [`IndexProgress`](super::event::EventKind::IndexProgress) tells, and used
    /// when it is whole; one that is named no longer is removed. Each costs a row for each record, and
    /// one or two more changed rows for a change of its fields. Default none.
    pub indexes: BTreeMap<Collection, Vec<Index>>,
    /// The number of rows that one step of building or removing an index takes. Default 1,000.
    pub index_rows: usize,
    /// The strategy that decides between a pending write and a remote change of the same record.
    pub conflict_strategy: ConflictStrategy,
    /// Limits of the frames of the server and the documents of the app.
    pub limits: Limits,
    /// The base of the backoff: the first try to reconnect comes within this time, the next
    /// within twice of it, and so on. Default 1 s. By HTTP the same, but 30 times of it where there
    /// is a WebSocket too.
    pub reconnect_delay: Duration,
    /// The longest backoff, where there is one transport; with both it is twice of it for each.
    /// Default 60 s.
    pub max_reconnect_delay: Duration,
    /// The number of tries in a row that may fail before the client gives the WebSocket up; `None`:
    /// it never does. Tries that lead to smaller pages, or to naming a write that is too large for the
    /// connection, do not count. Where there is HTTP, polling goes on, and the WebSocket is tried again
    /// now and then.
    pub max_reconnect_attempts: Option<u32>,
    /// Timeout for a connection to come up. Default 15 s.
    pub connect_timeout: Duration,
    /// Timeout for the answer to the hello. Default 15 s.
    pub hello_timeout: Duration,
    /// The silence in either direction after which a ping goes out. Default 30 s.
    pub ping_interval: Duration,
    /// Timeout for the answer to a ping, as long as no bytes of a frame come and none that wait go out.
    /// Default 15 s.
    pub ping_timeout: Duration,
    /// Timeout for a sign of life when a connection that looks alive may be dead: after
    /// [`SetOnline`](super::interface::Command::SetOnline), after
    /// [`SyncNow`](super::interface::Command::SyncNow), and after the device has slept. Default 5 s.
    pub probe_timeout: Duration,
    /// Timeout for a verdict on a connection that is otherwise alive. Default 60 s.
    pub verdict_timeout: Duration,
    /// The time for which writes wait for their collection to catch up. Default 2 s.
    pub catch_up_timeout: Duration,
    /// The number of writes that may be without a verdict. Default 256.
    pub window: usize,
    /// The number of bytes of writes that may be without a verdict. One write always may. Default
    /// 1 MiB.
    pub window_bytes: usize,
    /// The number of writes that may wait in the outbox. Default 1,000,000.
    pub max_pending_writes: usize,
    /// Set where a WebSocket URL is known. Default true.
    pub websocket: bool,
    /// Set where an HTTP URL is known. Default false.
    pub http: bool,
    /// Allows the WebSocket, where its URL is known. Without it everything goes by HTTP, in polls.
    /// Default true.
    pub enable_realtime_sync: bool,
    /// Lets polls, pushes by HTTP and backups happen by themselves. Without it they happen only after
    /// [`SyncNow`](super::interface::Command::SyncNow) and
    /// [`synced`](crate::client::replica::Replica::synced). Default true.
    pub enable_auto_sync: bool,
    /// The time from one poll to the next where HTTP is the transport; over a WebSocket, from one
    /// backup to the next. Default 5 minutes.
    pub sync_interval: Duration,
    /// Timeout of an HTTP request: the time for which no byte of it goes out and none of its answer comes.
    /// Default 30 s.
    pub request_timeout: Duration,
    /// The time from one full reconcile with a plain server to the next. A reconcile finds deletes,
    /// which a plain poll can't see. `None`: only at first contact. Default 1 hour.
    pub reconcile_interval: Option<Duration>,
    /// Says if and when a server is taken for one of level 1.
    pub plain: PlainServers,
    /// The address of the server. From an address that ever offered level 2, level 1 is not
    /// accepted. Any text; the empty one is an address like the others.
    pub address: String,
    /// The decision about records that this replica holds and a server does not have any more, as
    /// after the restore of an older backup: [`OnServerLoss`]. `None`, the default, asks the app where
    /// more than ten records and more than a tenth of a collection would go, and lets fewer go.
    pub on_server_loss: Option<OnServerLoss>,
    /// The guarantees that the connection has to give. Where the server offers less, no write goes
    /// out, and [`GuaranteesMissing`](super::event::EventKind::GuaranteesMissing) says so. Default
    /// none.
    pub required: Guarantees,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user: String::new(),
            token: None,
            collections: Vec::new(),
            keep_for: None,
            scopes: BTreeMap::new(),
            keep_scopes_for: Duration::from_secs(300),
            indexes: BTreeMap::new(),
            index_rows: 1_000,
            conflict_strategy: ConflictStrategy::default(),
            limits: Limits::default(),
            reconnect_delay: Duration::from_secs(1),
            max_reconnect_delay: Duration::from_secs(60),
            max_reconnect_attempts: None,
            connect_timeout: Duration::from_secs(15),
            hello_timeout: Duration::from_secs(15),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
            probe_timeout: Duration::from_secs(5),
            verdict_timeout: Duration::from_secs(60),
            catch_up_timeout: Duration::from_secs(2),
            window: 256,
            window_bytes: 1 << 20,
            max_pending_writes: 1_000_000,
            websocket: true,
            http: false,
            enable_realtime_sync: true,
            enable_auto_sync: true,
            sync_interval: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            reconcile_interval: Some(Duration::from_secs(3600)),
            plain: PlainServers::default(),
            address: String::new(),
            on_server_loss: None,
            required: Guarantees::default(),
        }
    }
}

/// The conditions under which a server is taken for one of level 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum PlainServers {
    /// When it shows that it is one, and this address never offered level 2.
    #[default]
    Detect,
    /// As `Detect`, and also when it does not answer the hello at all.
    Silent,
    /// As `Detect`, and also where the address offered level 2 before. An attacker who can cut a
    /// frame on its way can then take the guarantees away.
    AllowDowngrade,
    /// Never.
    Never,
}

/// The decision about records that this replica holds and a server does not have any more, because
/// the server was restored from an older backup, was emptied, or forgot that they were deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum OnServerLoss {
    /// Deletes the records here too.
    Adopt,
    /// Sends the records to the server as inserts.
    Offer,
    /// Keeps the records until the app writes [`Adopt`](super::interface::Write::Adopt) or
    /// [`Offer`](super::interface::Write::Offer). Until then their collection is not in step.
    Ask,
}

/// The guarantees of a connection: all of them at level 2, but for `atomic` at servers of earlier
/// versions; none at level 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Guarantees {
    /// Changes that were missed while away are caught up with, deletes included.
    pub resume: bool,
    /// A write takes effect once, or is reported as rejected.
    pub exactly_once: bool,
    /// Writes are applied in their order, and all see the changes of a collection in one order.
    pub ordered: bool,
    /// A checksum proves that the replica holds the same as the server. Not so where a policy
    /// withholds records from this user.
    pub verified: bool,
    /// A transaction is applied whole or not at all, and so it is shown. Without it its writes go to
    /// the server one by one, and its expectations are looked at here only.
    pub atomic: bool,
}

impl Guarantees {
    /// All guarantees, as level 2 gives them.
    pub(crate) const ALL: Self =
        Self { resume: true, exactly_once: true, ordered: true, verified: true, atomic: true };

    /// Tells whether these are at least the required ones.
    #[must_use]
    pub(crate) fn cover(self, required: Self) -> bool {
        (self.resume || !required.resume)
            && (self.exactly_once || !required.exactly_once)
            && (self.ordered || !required.ordered)
            && (self.verified || !required.verified)
            && (self.atomic || !required.atomic)
    }
}
