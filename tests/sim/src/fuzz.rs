//! The bodies of the fuzz targets. `cargo test` runs them on the committed corpora as well.
//!
//! Every body takes any bytes, does a bounded amount of work, and panics where something is wrong;
//! that is what the fuzzer looks for.
//!
//! | target | the bytes are |
//! | --- | --- |
//! | [`client`] | what a replica lives through: its app, a server that lies, networks and disks that fail |
//! | [`laws`] | documents and changes, of which the laws must hold |
//! | [`rows`] | how stores are damaged before they are opened |
//! | [`rules`] | a rule about rights, and the record that it is asked about |
//! | [`scenario`] | a run of the simulator: its plan and its steps |
//! | [`scopes`] | the same about sets of scopes and filters, mostly, at a server whose collections are divided |
//! | [`session`] | what clients and callers by HTTP say to a server, and how its store answers |
//! | [`wire`] | a frame, a body or a query |

mod client;
mod laws;
mod policy;
mod rows;
mod rules;
mod scenario;
mod script;
mod session;

pub use client::client;
pub(crate) use client::each_state;
pub use laws::laws;
pub use rows::rows;
pub use rules::rules;
pub use scenario::scenario;
pub use session::{scopes, session};
pub use synclayer_core::testing::reads_what_it_writes as wire;

/// The function of a target: it gets the bytes.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Body); 8] = [
    ("client", client),
    ("laws", laws),
    ("rows", rows),
    ("rules", rules),
    ("scenario", scenario),
    ("scopes", scopes),
    ("session", session),
    ("wire", wire),
];
