//! Tests of parts that others bring along, and of the core on arbitrary values and bytes.
//!
//! [`conformance`] is the suite that every store has to pass, [`laws`] holds the laws of resolvers, and
//! [`Checked`] shows the invariants of the machines.

mod changes;
pub mod conformance;
pub mod laws;
mod wire;

pub use crate::checked::Checked;
pub use changes::check_changes;
pub use wire::reads_what_it_writes;
