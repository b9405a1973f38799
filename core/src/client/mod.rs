//! The client machine: what a replica does with its server, without any I/O.

mod edit;
pub mod event;
pub mod interface;
mod link;
mod machine;
mod outbox;
mod records;
mod stream;
mod verdicts;

pub use machine::Client;
