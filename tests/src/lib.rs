//! What proves SyncLayer: harnesses that need the core alone, and the tests that cross crates.

pub mod fuzz;
