//! The server's machines: a session for each connection, the HTTP calls, the ring of recent
//! changes that sessions read from, and the committer that turns transactions into rows, changes
//! and answers.

mod about;
mod checks;
mod committer;
mod followers;
pub mod http;
pub mod hub;
mod limits;
mod pump;
mod ring;
pub mod session;

pub use committer::{Batch, Committer, CompletedBatch, Health, Job, Settled};
pub use followers::Followers;
pub use limits::ServerLimits;
pub use pump::pump;
pub use ring::{RingLimits, Rings};
