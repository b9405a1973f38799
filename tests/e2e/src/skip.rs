//! Tests that can't run on a machine.

use std::io::{Write as _, stderr};

/// Tells that a test is skipped, on a line that `.ci/run` counts.
pub fn skipped(why: &str) {
    // not `eprintln!`, whose output a test that passes does not show
    let _ = stderr().write_all(format!("SKIPPED: {why}\n").as_bytes());
}

/// The same of a test for which `.ci/run` installs packages below `target/backends`.
///
/// # Panics
/// When `SYNCLAYER_REQUIRE_BACKENDS` is set.
pub fn without_backends(why: &str) {
    assert!(std::env::var_os("SYNCLAYER_REQUIRE_BACKENDS").is_none(), "{why}");
    skipped(&format!("{why} (`.ci/run` installs the packages)"));
}
