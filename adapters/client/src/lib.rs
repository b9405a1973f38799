//! The parts that all SyncLayer clients share. This crate is for those who write a client for
//! another runtime; programs use `synclayer-tokio` or `synclayer-blocking`.
//!
//! | floor | modules |
//! | --- | --- |
//! | faces | `synclayer-tokio` and `synclayer-blocking`: an `.await` and a `.wait()` over the calls below |
//! | calls | [`handle`], [`collection`], [`query`]: a client, a collection and a query, whose calls return a [`Pending`](pending::Pending) |
//! | engine | `engine`: the replica on a thread of its own, which carries out [`command`]s |
//! | network | [`network`]: the trait of what moves a face's bytes; [`websocket`], [`call`], [`progress`], [`dial`], [`tls`], [`address`], [`fault`] |
//! | ground | [`config`], [`setup`], [`error`], [`metrics`], [`mailbox`], [`listen`], [`pending`], [`saved`], [`wait`] |
//!
//! A call puts a command into the engine's inbox, and the engine answers it. A face writes a
//! [`Network`](network::Network), opens a [`Handle`](handle::Handle) with it, and wraps the calls;
//! their documentation is in [`doc!`].

pub mod address;
pub mod call;
pub mod callback;
pub mod collection;
pub mod command;
pub mod config;
pub mod dial;
mod docs;
mod engine;
pub mod error;
pub mod fault;
pub mod handle;
pub mod listen;
pub mod mailbox;
pub mod metrics;
pub mod modify;
pub mod network;
pub mod pending;
pub mod progress;
mod proxy;
pub mod query;
mod reads;
pub mod saved;
pub mod scope;
mod scope_hold;
mod set_once;
pub mod setup;
pub mod tls;
pub mod transaction;
mod transport;
pub mod typed;
pub mod wait;
pub mod websocket;
