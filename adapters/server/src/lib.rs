//! SyncLayer's server: a WebSocket for both levels of the protocol, and the REST calls, on any
//! [`ServerStore`](synclayer_core::ServerStore).
//!
//! | path | what |
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

mod clock;
mod commit;
mod config;
mod connection;
mod embedded;
mod feed;
mod mailbox;
mod memory;
mod origin;
mod request;
mod routes;
mod server;
mod shared;
mod socket;
mod upgrade;

pub use config::{AuthError, Authenticator, Figures, Identified, ServerConfig, StaticTokens};
pub use embedded::{Embedded, StartError};
pub use memory::MemoryServerStore;
pub use server::Server;
