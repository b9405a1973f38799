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
//! # How it works
//!
//! All decisions are the core's ([`synclayer_core`]); this crate gives it a thread of its own, which
//! owns the store, so that a slow disk never holds up an async worker, and a task per connection.
//! Both end when the last [`SyncLayer`] and [`Collection`] is dropped, or by
//! [`close`](SyncLayer::close).

mod client;
mod collection;
mod network;
mod saved;
mod socket;
mod stream;

pub use client::{RejectedWrites, SyncLayer};
pub use collection::Collection;
pub use saved::Saved;
pub use stream::{Events, Watch};
pub use synclayer_client::config::{OnDurable, Store, StoreFactory, SyncConfig, Transports};
pub use synclayer_client::error::{OpenError, SyncError};
pub use synclayer_client::tls::TrustedRoots;
pub use synclayer_core::client::event::{
    CollectionStatus, ConnectionState, Event, EventKind, Status, Transport,
};
pub use synclayer_core::client::fate::Fate;
pub use synclayer_core::client::interface::{
    Guarantees, Misuse, OnServerLoss, PlainServers, SyncFailure, SyncFailureReason,
};
pub use synclayer_core::client::sign_out::SignOut;
pub use synclayer_core::client::wipe::Unsent;
pub use synclayer_core::protocol::delta::Delta;
pub use synclayer_core::protocol::document::{Document, DocumentError};
pub use synclayer_core::protocol::limits::Limits;
pub use synclayer_core::protocol::name::{NameError, RecordId, WriteId};
pub use synclayer_core::rules::conflict::{
    Conflict, ConflictStrategy, FieldStates, Resolver, ResolverFailure,
};
pub use synclayer_core::rules::merge::FieldWise;
pub use synclayer_core::rules::row::Rejected;
pub use synclayer_core::rules::view::{Record, RecordChange, Snapshot, Update};
pub use synclayer_core::store::{StoreError, StoreErrorKind};
