//! The bodies of the fuzz targets. `cargo test` runs them on the committed corpora as well.
//!
//! Every body takes any bytes, does a bounded amount of work, and panics where something is wrong;
//! that is what the fuzzer looks for.

mod client;
mod laws;
mod rows;
mod script;
mod session;
mod wire;

pub use client::client;
pub use laws::laws;
pub use rows::rows;
pub use session::session;
pub use wire::wire;

/// What a target does with the bytes that it gets.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Body); 5] =
    [("client", client), ("laws", laws), ("rows", rows), ("session", session), ("wire", wire)];
