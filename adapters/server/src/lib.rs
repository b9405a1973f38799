//! SyncLayer's server: a WebSocket for both levels of the protocol, and the REST calls, on any
//! [`ServerStore`].
//!
//! | path | use |
//! | --- | --- |
//! | `/ws` | the WebSocket; a token comes as `?token=`, as `Authorization: Bearer` or as the first message |
//! | `/sync/{collection}`, `/sync/{collection}/{recordId}` | the REST calls |
//! | `/health` | whether the server can do its work: `200`, or `503` when its store has failed |
//!
//! Everything about the protocol is decided in the core. This crate moves bytes between sockets,
//! sessions and the store: a task for each connection, one thread that commits, a few that read.
//! It logs through `tracing` and never prints.
//!
//! ```
//! use std::sync::Arc;
//! use synclayer_server::{MemoryServerStore, Server, ServerConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), synclayer_server::StartError> {
//! let store = Arc::new(MemoryServerStore::new());
//! let server = Server::bind(ServerConfig::default(), store).await?;
//! println!("ws://{}/ws", server.local_addr());
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Embedded`] is the same without a listener, to be mounted in an axum program. [`ServerConfig`]
//! says who may do what, and how much of it: an [`Authenticator`] maps tokens to users, a
//! [`Policy`] gives them their rights, and [`ServerLimits`] bound what they take.
//!
//! The program that runs the server reads, queries, writes and watches by [`Embedded::local`], without a
//! connection: past all rules, or as a user, under them ([`Local::as_user`]). Its [`Policy`] is asked before
//! each write of a user is committed, with the record before and the change; a watch tells after it. And it
//! ends the connections of a user ([`Embedded::kick`]).
//!
//! # Rights
//!
//! By [`Rules`], which are expressions (see the
//! [guide](https://docs.rs/synclayer-tokio/latest/synclayer_tokio/guide/rules/)), or by a [`Policy`] in Rust:
//!
//! ```
//! use std::sync::Arc;
//!
//! use synclayer_server::{
//!     Access, Change, Collection, Document, Policy, RecordId, ServerConfig, UserId,
//! };
//!
//! /// Everyone reads everything, and writes only what bears their name.
//! struct Signed;
//!
//! impl Policy for Signed {
//!     fn read(&self, user: Option<&UserId>, _: &Collection) -> Access {
//!         if user.is_some() { Access::All } else { Access::None }
//!     }
//!
//!     fn write(
//!         &self,
//!         user: Option<&UserId>,
//!         _: &Collection,
//!         _: &RecordId,
//!         before: Option<&Document>,
//!         change: &Change,
//!     ) -> Result<(), String> {
//!         let after = change.apply(before);
//!         let name = user.map(|user| format!("\"{user}\""));
//!         let signed = |document: &Document| document.text("author") == name.as_deref();
//!         if before.into_iter().chain(&after).all(signed) {
//!             Ok(())
//!         } else {
//!             Err("only the author may write this".into())
//!         }
//!     }
//! }
//!
//! let config = ServerConfig::new().policy(Arc::new(Signed));
//! # let policy = &config.policy;
//! # let (ann, notes) = (UserId::new("ann")?, Collection::new("notes")?);
//! # let note = Document::parse(r#"{"author": "ann"}"#, &Default::default())?;
//! # let change = Change::insert(note);
//! # let id = RecordId::new("1")?;
//! # assert!(policy.write(Some(&ann), &notes, &id, None, &change).is_ok());
//! # assert!(policy.write(None, &notes, &id, None, &change).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod admission;
mod auth;
mod budget;
mod clock;
mod commit;
mod config;
mod connection;
mod embedded;
mod ending;
mod fairness;
mod feed;
mod host;
mod jwt;
mod local;
mod lockout;
mod mailbox;
mod memory;
mod origin;
mod policy;
mod reads;
mod refusals;
mod request;
mod routes;
mod server;
mod shared;
mod socket;
mod timed;
mod tls;
mod turns;
mod upgrade;

pub use auth::{AuthError, Authenticating, Authenticator, Identified, StaticTokens};
pub use config::{Metrics, ServerConfig};
// all that the traits of this crate need
pub use bytes::Bytes;
pub use ipnet::IpNet;
pub use synclayer_core::{
    Access, AllowAll, Asker, Batch, Change, Collection, Cursor, Delta, Direction, Document,
    DocumentError, Epoch, ErrorCode, FieldPath, Index, Judgement, Limits, NameError, Op, Policy,
    Predicate, ProposedWrite, Query, QueryError, Rate, RecordId, Records, Right, RingLimits, Rows,
    RuleCase, RuleError, Rules, Scan, ScopeKey, ServerLimits, ServerStore, StoreError,
    StoreErrorKind, Timestamp, Token, User, UserId, Visit, WriteKind,
};

pub use embedded::{Embedded, StartError};
pub use jwt::{JwtError, JwtSigner, JwtTokens, Revoked};
pub use local::{
    FailedWrite, Local, LocalChange, LocalChanges, LocalError, LocalRecord, LocalWatch, LocalWrite,
    LocalWritten,
};
pub use memory::MemoryServerStore;
pub use policy::ReloadablePolicy;
pub use server::Server;
pub use tls::{Tls, TlsError};
