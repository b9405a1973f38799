//! Refusals leave a replica as it was, but for the end of its connection or exchange.
//! `SYNCLAYER_SEEDS` says how many seeds of the simulator are looked at.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use synclayer_sim::draw::bytes_of;
use synclayer_sim::refusal::{Refusals, check_plain, check_run, check_script};

/// Seeds that are looked at with the other tests.
const FEW: u64 = 20;

fn seeds() -> u64 {
    let seeds = std::env::var("SYNCLAYER_SEEDS").ok().and_then(|text| text.parse().ok());
    seeds.unwrap_or(FEW)
}

/// Checks that a good number of refusals of each kind were looked at.
fn assert_met(refusals: &Refusals, kinds: &[&str]) {
    for kind in kinds {
        assert!(refusals.of(kind) > 50, "{kind}: {refusals:?}");
    }
}

#[test]
fn what_is_refused_changes_nothing_in_the_states_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/client");
    let mut refusals = Refusals::default();
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let checked = check_script(&fs::read(&path).unwrap(), 10);
        refusals.add(&checked.unwrap_or_else(|broken| panic!("{}: {broken}", path.display())));
    }
    let kinds = ["frames", "batches", "answers to a pull", "messages of an answer"];
    assert_met(&refusals, &kinds);
}

#[test]
fn what_is_refused_changes_nothing_in_the_states_of_the_simulator() {
    let mut refusals = Refusals::default();
    for seed in 0..seeds() {
        let checked = check_run(&bytes_of(seed), 4);
        refusals.add(&checked.unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
    }
    let answers = ["answers to a hello", "answers to a pull", "answers to a push"];
    assert_met(&refusals, &["frames", "batches", "messages of an answer"]);
    assert_met(&refusals, &answers);
}

#[test]
fn what_is_refused_changes_nothing_at_a_plain_server() {
    let mut refusals = Refusals::default();
    for seed in 0..seeds() {
        let checked = check_plain(seed, 2);
        refusals.add(&checked.unwrap_or_else(|broken| panic!("seed {seed}: {broken}")));
    }
    assert_met(&refusals, &["plain answers to a pull", "plain answers to a push"]);
}
