//! Tests of what others bring along, and of what arbitrary bytes do.
//!
//! [`conformance`] is the suite that every store has to pass, [`laws`] holds the laws of resolvers.

pub mod conformance;
pub mod laws;
mod wire;

pub use wire::reads_what_it_writes;
