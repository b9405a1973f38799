//! The simulator: many seeds (`SYNCLAYER_SEEDS`, from `SYNCLAYER_FIRST_SEED` on), the same run from
//! the same bytes, and byte strings that proptest makes up.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use synclayer_sim::draw::{HEADER, STEP, bytes_of};
use synclayer_sim::run::{run, transcript};
use synclayer_sim::{points, sweep};

/// Seeds that run with the other tests.
const FEW: u64 = 450;

#[test]
fn every_run_keeps_every_guarantee() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SYNCLAYER_FIRST_SEED").unwrap_or(0);
    let seeds = number("SYNCLAYER_SEEDS").unwrap_or(FEW);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    match sweep::sweep(first, seeds, jobs, &|_| {}) {
        Ok(tally) => {
            let missed = points::missed(&tally.counts, seeds);
            assert_eq!(missed, Vec::<&str>::new(), "no run came by these points");
        }
        Err(failure) => panic!("{failure}"),
    }
}

/// A device that slept in mid exchange pushed a write whose time was corrected only later, and took
/// itself for a copy.
#[test]
fn a_sleep_in_mid_exchange_alters_no_write_that_was_sent() {
    sweep::sweep(2978, 1, 1, &|_| {}).map(drop).unwrap();
}

/// The machines' output in a hundred runs is unchanged. Where that is meant to change,
/// `synclayer-sim golden --write`, in a commit of its own that says why.
#[test]
fn what_goes_out_is_what_it_was() {
    let known = include_str!("../../data/golden.txt");
    let differs = |(was, is): &(&str, &str)| was != is;
    let is = sweep::golden();
    assert_eq!(known.lines().zip(is.lines()).find(differs), None, "another digest of a seed");
    assert_eq!(known.lines().count(), is.lines().count());
}

#[test]
fn the_same_bytes_are_the_same_run() {
    for seed in 1_000_000..1_000_015 {
        let bytes = bytes_of(seed);
        assert_eq!(run(&bytes), run(&bytes), "seed {seed}");
    }
    let bytes = bytes_of(1_000_000);
    assert_eq!(transcript(&bytes), transcript(&bytes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every byte string is a run, and every run keeps every guarantee.
    #[test]
    fn every_byte_string_is_a_run(bytes in prop::collection::vec(any::<u8>(), 0..HEADER + 120 * STEP)) {
        let outcome = run(&bytes);
        prop_assert!(outcome.is_ok(), "{}\n{outcome:?}", transcript(&bytes).join("\n"));
    }
}
