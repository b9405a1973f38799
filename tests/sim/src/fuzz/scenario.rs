//! Runs of the simulator, drawn from bytes.

use crate::draw::{HEADER, STEP};
use crate::run::{run, transcript};
use crate::shrink::shrink;

/// The maximal number of steps of a run; further bytes are ignored. Seeds have up to twice as many
/// steps. A fuzzer learns more from many short runs.
const STEPS: usize = 240;
/// The maximal number of runs to find the shortest trace of a finding.
const SHRINKING: usize = 1_000;

/// Plays the run that the bytes stand for.
///
/// # Panics
/// When it breaks a guarantee: with the transcript of the shortest run that was found to break the
/// same one, and its bytes.
pub fn scenario(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(HEADER + STEPS * STEP)];
    let Err(broken) = run(bytes) else { return };
    let shortest = shrink(bytes, SHRINKING);
    let shown = transcript(&shortest).join("\n");
    panic!("{shown}\nthe bytes of this run: {shortest:?}\nbefore it was shortened: {broken}");
}
