//! The server's machines: a session for each connection, the HTTP calls, the ring of recent
//! changes that sessions read from, and the committer that turns transactions into rows, changes
//! and answers.

mod about;
mod checks;
mod committer;
mod followers;
mod http;
mod hub;
mod limits;
mod looks;
mod pump;
mod ring;
mod session;
mod sets;
mod sight;

pub use committer::{Committer, CompletedBatch, Health, Job, JobBatch, Settled};
pub use followers::{Followers, Interest, Moved};
pub use http::{Call, ReadCall, Reply, Request, WriteCall};
pub use hub::{CallId, Hub, HubAction, HubConfig, HubInput, HubJob, HubRead};
pub use limits::ServerLimits;
pub use pump::pump;
pub use ring::{RingLimits, Rings};
pub use session::{
    Environment, Identity, Session, SessionAction, SessionCounters, SessionInput, SessionStatus,
    SessionTimer, Ticket, TicketAnswer,
};
