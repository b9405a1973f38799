//! What proves SyncLayer: harnesses that need the core alone, and the tests that cross crates.

pub mod chaos;
pub mod checks;
pub mod counted;
pub mod desk;
pub mod directed;
pub mod fuzz;
pub mod hub;
pub mod plain_server;
pub mod plain_world;
pub mod scenario;
pub mod states;
pub mod sweep;
pub mod transcript;
pub mod world;
