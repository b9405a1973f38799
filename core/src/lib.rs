//! SyncLayer's engine.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client;
pub mod conformance;
pub mod memory;
pub mod replica;
pub mod rules;
pub mod server;
pub mod words;
