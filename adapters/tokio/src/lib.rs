//! SyncLayer's client for tokio programs: a durable, local-first replica of some collections, which
//! keeps itself in sync with a server.
//!
//! Writes are saved here first, whether or not there is a connection; reads never wait for the
//! network; [`watch`](Collection::watch) shows every change, local or remote, as it is made.
//!
//! ```no_run
//! use serde_json::json;
//! use synclayer_tokio::{SyncConfig, SyncLayer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let sync =
//!     SyncLayer::open(SyncConfig::new("http://localhost:8080").collections(["todos"])).await?;
//!
//! let todos = sync.collection("todos")?;
//! let milk = todos.save(&json!({ "text": "Buy milk", "done": false })).await?;
//! todos.update(&milk.id, &json!({ "done": true })).await?;
//!
//! let mut updates = todos.watch();
//! while let Some(update) = updates.next().await {
//!     println!("{} todos, {} changed", update.snapshot.len(), update.changes.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Threads and tasks
//!
//! All decisions are the core's ([`synclayer_core`]); this crate gives it a thread of its own, which
//! owns the store, so that a slow disk never holds up an async worker, and a task per connection. Only
//! [`Collection::get`] reads where it is called, if the store has a
//! [view](synclayer_core::ClientStore::reader) for that: a record that is not in memory costs the worker
//! one read of the disk, which is less than waking the thread and being woken.
//! Both end when the last [`SyncLayer`] and [`Collection`] is dropped, or by
//! [`close`](SyncLayer::close).

mod collection;
pub mod guide;
mod network;
pub mod query;
mod scope;
mod socket;
mod stream;
mod sync_layer;
mod typed;

pub use collection::Collection;
pub use query::Query;
pub use scope::Scope;
pub use stream::{Events, QueryWatch, StatusWatch, Watch};
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
