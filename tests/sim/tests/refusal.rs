//! A refused frame leaves a replica as it was, but for the end of its connection. `SYNCLAYER_SEEDS`
//! says how many seeds of the simulator are looked at.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use synclayer_sim::draw::bytes_of;
use synclayer_sim::refusal::{check_run, check_script};

/// Seeds that are looked at with the other tests.
const FEW: u64 = 20;

#[test]
fn a_refused_frame_changes_nothing_in_the_states_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/client");
    let mut refused = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let checked = check_script(&fs::read(&path).unwrap(), 24);
        refused += checked.unwrap_or_else(|broken| panic!("{}: {broken}", path.display()));
    }
    assert!(refused > 1_000, "only {refused} frames were refused");
}

#[test]
fn a_refused_frame_changes_nothing_in_the_states_of_the_simulator() {
    let seeds = std::env::var("SYNCLAYER_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut refused = 0;
    for seed in 0..seeds.unwrap_or(FEW) {
        let checked = check_run(&bytes_of(seed), 4);
        refused += checked.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    assert!(refused > 100, "only {refused} frames were refused");
}
