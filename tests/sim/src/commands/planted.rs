//! The command that proves the proof: it switches on the core's deliberate breaks, one after the
//! other, and says what catches each.

use super::Outcome;

#[cfg(not(synclayer_planted))]
const HOW_TO_BUILD: &str = "this build holds no deliberate breaks; build one that does:
  RUSTFLAGS=\"--cfg synclayer_planted\" \\
    cargo run --release -p synclayer-sim --target-dir target/planted -- planted";

#[cfg(not(synclayer_planted))]
pub(crate) fn planted(_: impl Iterator<Item = String>) -> Outcome {
    Err(HOW_TO_BUILD.into())
}

#[cfg(synclayer_planted)]
pub(crate) fn planted(arguments: impl Iterator<Item = String>) -> Outcome {
    runner::planted(arguments)
}

#[cfg(synclayer_planted)]
mod child;
#[cfg(synclayer_planted)]
mod runner;
