//! Checks of invariants.

use alloc::string::String;

/// Fails with the invariant that is broken.
pub(super) fn ensure(holds: bool, invariant: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(invariant.into()) }
}
