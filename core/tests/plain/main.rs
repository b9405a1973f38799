//! The client's exchanges with plain (level-1) servers, as transcripts.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "../lone_replica/mod.rs"]
mod lone_replica;

mod both;
mod emptied;
mod finding;
mod http;
mod recognition;
mod support;
mod websocket;
