//! Tests of parts that others bring along, and of the core on arbitrary values and bytes; and what
//! tests of the machines need.
//!
//! [`conformance`] is the suite that every store has to pass, and [`Laws`] checks a resolver. A
//! [`SimulatedDisk`] crashes and fails as a test decides. [`Checked`] shows the invariants of the
//! machines, [`InspectReplica`], [`InspectHub`] and [`InspectBatch`] their inside.

mod changes;
pub mod conformance;
mod disk;
mod inspect;
mod laws;
mod wire;

pub use crate::checked::Checked;
pub use changes::check_changes;
pub use disk::SimulatedDisk;
pub use inspect::{InspectBatch, InspectHub, InspectReplica};
pub use laws::{Broken, Case, Law, Laws};
pub use wire::reads_what_it_writes;
