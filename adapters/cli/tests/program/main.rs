//! The program as its users run it: as processes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod clock;
mod codes;
mod config;
mod crash;
mod dead_address;
mod demo;
mod jwt;
mod lines;
mod loss;
mod modify;
mod place;
mod plain_server;
mod query;
mod reach;
mod reload;
mod repair;
mod rules;
mod scenario;
mod scopes;
mod serve;
mod shown;
mod sign_out;
mod slow_link;
mod support;
mod tls;
mod transaction;
mod transport;
mod unauthenticated;
