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
//! # How it works
//!
//! All decisions are the core's ([`synclayer_core`]). One thread owns the replica, its store and the
//! socket, and sleeps until the socket, the program or the clock has something for it: a write is
//! on its way to the server within the call that makes it. What can block for long, the look-up of
//! names and HTTP calls, happens on threads that come and go. All of it ends when the last
//! [`SyncLayer`] and [`Collection`] is dropped, or by [`close`](SyncLayer::close).

mod client;
mod collection;
mod elsewhere;
mod listen;
mod saved;
mod stream;
mod thread;
mod wire;

pub use client::{RejectedWrites, SyncLayer};
pub use collection::Collection;
pub use listen::{Events, TimedOut, Watch};
pub use saved::Saved;
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
