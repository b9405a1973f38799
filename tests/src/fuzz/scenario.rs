//! Runs of the simulator, drawn from bytes.

use crate::draw::{HEADER, STEP};
use crate::run::{run, transcript};
use crate::shrink::shrink;

/// How many steps a run has at most; more bytes are left alone. Seeds stand for up to twice as many:
/// a fuzzer learns more from many short runs.
const STEPS: usize = 240;
/// How many runs the shortest trace of a finding may cost.
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
