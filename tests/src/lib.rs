//! What proves SyncLayer: harnesses that need the core alone, and the tests that cross crates.

pub mod chaos;
pub mod fuzz;
pub mod world;
