//! SyncLayer's engine: everything about sync that can be wrong, as pure state machines.
//!
//! There is no I/O, clock, thread or randomness in this crate. A program with an event loop of its
//! own drives it directly; the adapter crates do the same for tokio and for axum. `PROTOCOL.md`
//! beside this crate's manifest is the normative text of what goes over the wire.
//!
//! # Where to find what
//!
//! | floor | holds |
//! | --- | --- |
//! | [`protocol`] | time, names, documents, deltas, messages and their bytes |
//! | [`rules`] | conflict strategies, views, policies, what writes do to the server's rows |
//! | [`Session`], [`Committer`] | the machines of a server: one connection, and the commits of all |
//! | [`Replica`] | the client machine joined to its store and its watchers |
//! | [`Hub`] | a whole server: sessions joined to the rings and the committer |
//!
//! All that an embedder needs is at the root. The floors hold the rest: what a peer of another make,
//! or a keeper of stores, needs.
//!
//! [`architecture`] explains the floors and the machines. [`ClientStore`] and [`ServerStore`] are the
//! contracts of stores, [`MemoryClientStore`] and [`MemoryRows`] those in memory.
//! [`testing::conformance`] is the suite that every store has to pass, [`testing::Laws`] holds what
//! every resolver of yours should keep, and [`testing::Checked`] the invariants of the machines.
//!
//! # The contract of whoever drives a machine
//!
//! 1. Hand in one input at a time, or the time-out when the deadline has come, with
//!    [`Now`] read at that moment.
//! 2. Do the actions in their order, waiting for none.
//! 3. Commits become visible in order and at once, and durable later; report the highest number
//!    that is. The first failure is reported and ends the machine, which says so: open the store
//!    anew and build a new one. ([`Replica`] does this part.)
//! 4. Answer every ticket exactly once, also by failure.
//! 5. Inputs of a connection carry its id, and its end is reported once.
//! 6. Calls of a replica that follow each other without a wait may share a commit: put them between
//!    [`Replica::begin_group`] and [`Replica::end_group`], and end the group before you sleep.
//!
//! # A loop
//!
//! A replica needs a clock, a seed and a socket. Here the socket is two queues; with a real one, a
//! whole client is `core/examples/client.rs` of this project:
//!
//! ```
//! use std::collections::VecDeque;
//! use std::time::{Instant, SystemTime, UNIX_EPOCH};
//!
//! use synclayer_core::{
//!     Action, ClientConfig, Collection, Command, Document, Input, Limits, MemoryClientStore, Mono,
//!     NetAction, Now, RecordId, Replica, Timestamp, Write,
//! };
//!
//! let start = Instant::now();
//! let now = || Now {
//!     mono: Mono(start.elapsed().as_millis() as u64),
//!     wall: Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)),
//! };
//!
//! let todos = Collection::new("todos")?;
//! let mut config = ClientConfig::default();
//! config.collections = vec![todos.clone()];
//! let seed = 0x5eed; // from the operating system, in earnest
//! let mut actions = Vec::new();
//! let mut replica = Replica::open(config, seed, now(), MemoryClientStore::default(), &mut actions)?;
//! replica.command(now(), Command::Connect, &mut actions);
//!
//! let document = Document::parse(r#"{"title": "milk"}"#, &Limits::default())?;
//! replica.write(now(), Write::Save(todos, RecordId::new("1")?, document), &mut actions)?;
//!
//! let (mut sent, mut received) = (VecDeque::new(), VecDeque::<(_, Vec<u8>)>::new());
//! loop {
//!     let mut inputs = Vec::new();
//!     for action in actions.drain(..) {
//!         match action {
//!             // open a socket and report how that went; this one comes up at once
//!             Action::Net(NetAction::Connect { conn, .. }) => inputs.push(conn),
//!             Action::Net(NetAction::Send { frame, .. }) => sent.push_back(frame),
//!             Action::Net(NetAction::Ping { .. } | NetAction::Close { .. }) => {}
//!             // only with `ClientConfig::http`: make the request, hand the ticket's answer in
//!             Action::Net(NetAction::Request(_)) => {}
//!             Action::Event(_) | Action::Synced { .. } | Action::Fate { .. } => {}
//!             // the store has failed: open it anew, and a new replica on it
//!             Action::Halted(_) => return Ok(()),
//!             Action::Durable(_) | Action::Watch(_) => {}
//!         }
//!     }
//!     for conn in inputs {
//!         replica.handle(now(), Input::Connected { conn }, &mut actions);
//!     }
//!     if let Some((conn, frame)) = received.pop_front() {
//!         replica.handle(now(), Input::Frame { conn, frame: &frame }, &mut actions);
//!     }
//!     match replica.deadline() {
//!         Some((at, _)) if at <= now().mono => {
//!             replica.handle(now(), Input::Timeout, &mut actions);
//!         }
//!         // wait for the socket, the store or the deadline, whichever comes first
//!         Some(_) | None => {}
//!     }
//!     if actions.is_empty() {
//!         break;
//!     }
//! }
//! assert!(sent.iter().any(|frame| frame.starts_with(br#"{"type":"ping""#)), "the hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A server
//!
//! A [`Hub`] is to a server what the replica is to a client. It needs a clock, a [`ServerStore`] and
//! sockets; `core/examples/server.rs` of this project is a whole one in a loop of its own. The crate
//! `synclayer-server` puts the same parts on threads.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[doc = include_str!("../ARCHITECTURE.md")]
pub mod architecture {}
mod checked;
mod client;
pub mod protocol;
pub mod rules;
mod server;
mod store;
pub mod testing;

// the client
pub use client::{
    Action, ClientConfig, CollectionStatus, Command, ConnectFailure, ConnectionState, Disconnect,
    Event, EventKind, FailureCause, Fate, FateId, Guarantees, HttpAnswer, HttpRequest, HttpTicket,
    Input, Misuse, Modify, NetAction, OnServerLoss, PendingWrite, PlainServers, Replica, RequestId,
    ScopeStanding, SignOut, SignedOut, StalledWrite, Status, SyncFailure, SyncFailureReason,
    SyncId, SyncOutcome, Timer, TransactionBody, TransactionDraft, Transport, Unsent, WatchId,
    Write, Written,
};
pub use rules::{
    Conflict, ConflictStrategy, Direction, Explanation, FieldPath, FieldStates, FieldWise, Index,
    NamedScope, Predicate, Query, QueryChange, QueryCursor, QueryError, QuerySnapshot, QueryUpdate,
    Record, RecordChange, Rejected, Resolver, ResolverFailure, Slot, Snapshot, Update,
};

// both ends
pub use protocol::{
    Change, Checksum, ClientId, Collection, CommitNumber, ConnId, Cursor, DatabaseId, Delta,
    Document, DocumentError, Epoch, ErrorCode, Level, Limits, Mono, MutationNumber, NameError, Now,
    RecordId, Seq, SessionNumber, Timestamp, Token, UserId, WriteId, WriteKind,
};
pub use store::{
    Batch, ClientStore, MemoryClientStore, MemoryRows, Op, Rows, Scan, ServerStore, StoreError,
    StoreErrorKind, Visit,
};

// the server
pub use rules::{
    Access, AllowAll, Asker, Bucket, Context, Judgement, Policy, ProposedWrite, Rate, ReadAnswer,
    ReadRequest, Records, Right, RuleCase, RuleError, Rules, ScopeKey, Sweep, SweepPlace, Swept,
    TransactError, Transaction, TransactionAnswer, User,
};
pub use server::{
    Call, CallId, Committer, CompletedBatch, Environment, Followers, Health, Hub, HubAction,
    HubConfig, HubInput, HubJob, HubRead, Identity, Interest, Job, JobBatch, Moved, ReadCall,
    Reply, Request, RingLimits, Rings, ServerLimits, Session, SessionAction, SessionCounters,
    SessionInput, SessionStatus, SessionTimer, Settled, Ticket, TicketAnswer, WriteCall, pump,
};
