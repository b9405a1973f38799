//! Tests for what others bring along: a suite that every store has to pass, and the laws of resolvers.

pub mod conformance;
pub mod laws;
