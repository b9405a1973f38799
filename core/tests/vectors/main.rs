//! Exact action vectors of the server's session: one input to a session in one state, and every
//! action that comes of it. Those of the client's machine are a unit test of its module, and share
//! the form of their [`table`].
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod server;
mod table;

#[test]
fn the_server_s_session_does_exactly_this() {
    table::check("server.txt", server::step);
}
