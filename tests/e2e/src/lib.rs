//! Support for the tests that need adapters, real sockets, processes or other people's servers: one
//! server to start and stop, one way to it that goes wrong, and how to wait for what happens.
#![allow(missing_docs, clippy::unwrap_used, clippy::missing_panics_doc, reason = "it is for tests")]

pub mod attack;
pub mod host;
pub mod peer;
pub mod proxy;
#[cfg(doctest)]
mod readme;
pub mod skip;
pub mod slow;
pub mod wait;
