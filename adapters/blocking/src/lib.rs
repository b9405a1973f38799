//! SyncLayer's client for programs with threads: a durable, local-first replica of some
//! collections, which keeps itself in sync with a server.
//!
//! Writes are saved here first, whether or not there is a connection; reads never wait for the
//! network; [`watch`](Collection::watch) shows every change, local or remote, as it is made. The
//! calls have the names and the meaning that they have in `synclayer-tokio`; they block for as long
//! as the store needs, and no longer.
//!
//! ```no_run
//! use serde_json::json;
//! use synclayer_blocking::{SyncConfig, SyncLayer};
//!
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let sync = SyncLayer::open(SyncConfig::new("http://localhost:8080").collections(["todos"]))?;
//!
//! let todos = sync.collection("todos")?;
//! let milk = todos.save(&json!({ "text": "Buy milk", "done": false }))?;
//! todos.update(&milk.id, &json!({ "done": true }))?;
//!
//! for update in todos.watch() {
//!     println!("{} todos, {} changed", update.snapshot.len(), update.changes.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! All decisions are the core's ([`synclayer_core`]). One thread owns the replica, its store and the
//! socket, and sleeps until the socket, the program or the clock has something for it: a write is
//! on its way to the server within the call that makes it. What can block for long, the look-up of
//! names and HTTP calls, happens on threads that come and go. [`Collection::get`] reads on the thread that
//! calls it, if the store has a [view](synclayer_core::ClientStore::reader) for that. All of it ends when the last
//! [`SyncLayer`] and [`Collection`] is dropped, or by [`close`](SyncLayer::close).

mod byte_stream;
mod closing;
mod collection;
pub mod guide;
mod jobs;
mod listen;
mod network;
pub mod query;
mod scope;
mod sync_layer;
mod typed;

pub use collection::Collection;
pub use listen::{Events, QueryWatch, StatusWatch, Watch};
pub use query::Query;
pub use scope::Scope;
pub use sync_layer::{RejectedWrites, SyncLayer};
pub use synclayer_client::config::{OnDurable, Store, StoreFactory, SyncConfig, Transports};
pub use synclayer_client::error::{OpenError, SyncError};
pub use synclayer_client::metrics::Metrics;
pub use synclayer_client::saved::{Confirmed, Saved, SavedAll, SavedTransaction};
pub use synclayer_client::tls::TrustedRoots;
pub use synclayer_client::transaction::Transaction;
pub use synclayer_client::typed::{Typed, TypedUpdate};
pub use synclayer_client::wait::TimedOut;
pub use synclayer_core::{
    CollectionStatus, Conflict, ConflictStrategy, ConnectFailure, ConnectionState, Delta, Document,
    DocumentError, Event, EventKind, Explanation, FailureCause, Fate, FieldStates, FieldWise,
    Guarantees, Index, Limits, Misuse, NameError, NamedScope, OnServerLoss, PendingWrite,
    PlainServers, QueryChange, QueryError, QuerySnapshot, QueryUpdate, Record, RecordChange,
    RecordId, Rejected, Resolver, ResolverFailure, ScopeStanding, SignOut, Snapshot, StalledWrite,
    Status, StoreError, StoreErrorKind, SyncFailure, SyncFailureReason, Transport, Unsent, Update,
    WriteId,
};
pub use typed::{CollectionOf, ScopeOf, WatchOf};
