//! The client machine: what a replica does with its server, without any I/O.

mod catchup;
mod edit;
pub mod event;
mod hello;
pub mod interface;
mod link;
mod machine;
mod outbox;
mod records;
mod sending;
mod stream;
mod verdicts;
mod writes;

pub use machine::Client;
