//! The protocol's guarantees at a single server, over real sockets, real stores and real processes.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod catchup;
mod common;
mod conflict;
mod crash;
mod haproxy;
mod loss;
mod middlebox;
mod nginx;
mod refusal;
mod restore;
mod scope;
mod trust;
mod user;
mod verdict;
mod way;
