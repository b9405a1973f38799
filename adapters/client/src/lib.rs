//! What SyncLayer's clients have in common, whichever way they wait: it is for those who write a
//! client, not for programs, which use `synclayer-tokio` or `synclayer-blocking`.
//!
//! * [`config`] and [`error`]: what a client is told, and what it says when that can't be done;
//!   [`setup`] checks the former.
//! * [`address`], [`tls`] and [`call`]: where the server is, how it is trusted, and calls by HTTP.
//! * [`websocket`]: how a WebSocket is asked for and how it fails.
//! * [`engine`]: the replica with its clock, its connections and its users. What moves the bytes of
//!   a WebSocket is the [`Network`](engine::Network) that the client brings along.
//! * [`callback`]: how a call from inside a callback of the app is known.
//! * [`fate`](mod@fate): how the app learns what became of a write.
//! * [`modify`](mod@modify): how a closure of the app's changes a record.
//! * [`mailbox`] and [`listen`]: how the app gets to see what changes and what happens.

pub mod address;
pub mod call;
pub mod callback;
mod calls;
pub mod config;
pub mod engine;
pub mod error;
pub mod fate;
pub mod listen;
pub mod mailbox;
pub mod modify;
pub mod setup;
pub mod tls;
pub mod websocket;
