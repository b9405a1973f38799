//! The client's exchanges by HTTP, as transcripts.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "../lone_replica/mod.rs"]
mod lone_replica;

mod exchange;
mod pace;
mod refusals;
mod support;
