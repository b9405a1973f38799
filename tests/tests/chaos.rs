//! Random walks, as many as `SYNCLAYER_SEEDS` says.

use synclayer_sim::chaos::{Plan, trace, walk};

#[test]
fn every_walk_converges() {
    let seeds = std::env::var("SYNCLAYER_SEEDS").ok().and_then(|text| text.parse().ok());
    let first: u64 =
        std::env::var("SYNCLAYER_FIRST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds.unwrap_or(300) {
        let plan = Plan::of(seed);
        if let Err(broken) = walk(&plan) {
            panic!("{}\n{plan:?}: {broken}", trace(&plan).join("\n"));
        }
    }
}
