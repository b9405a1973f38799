//! The server's machines: a session for each connection, the HTTP calls, and the ring of recent
//! changes that sessions read from.

mod about;
pub mod http;
pub mod ring;
pub mod session;
