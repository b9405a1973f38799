//! The server's machines: a session for each connection, and the ring of recent changes that
//! sessions read from.

pub mod ring;
pub mod session;
