//! The server's machines: a session for each connection, the HTTP calls, the ring of recent
//! changes that sessions read from, and the committer that turns transactions into rows, changes
//! and answers.

mod about;
pub mod committer;
pub mod followers;
pub mod http;
pub mod hub;
mod pump;
pub mod ring;
pub mod session;

pub use pump::pump;
