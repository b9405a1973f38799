//! Random walks, as many as `SYNCLAYER_SEEDS` says (300 by default), from `SYNCLAYER_FIRST_SEED`
//! on.
#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use synclayer_core::client::event::EventKind;
use synclayer_sim::chaos::{Plan, trace, walk};
use synclayer_sim::world::World;

/// What a sweep of so many walks must have come by, or it proves little.
const POINTS: [(&str, u64); 10] = [
    ("cut", 300),
    ("conflict", 300),
    ("device crash", 300),
    ("server crash", 300),
    ("device restart", 300),
    ("server restart", 300),
    ("fell behind", 300),
    ("replica copied", 1_000),
    ("server lost changes", 10_000),
    ("resumed snapshot", 10_000),
];

#[test]
fn every_walk_converges() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SYNCLAYER_FIRST_SEED").unwrap_or(0);
    let seeds = number("SYNCLAYER_SEEDS").unwrap_or(300);
    let mut counts = BTreeMap::new();
    for seed in first..first + seeds {
        let plan = Plan::of(seed);
        match walk(&plan) {
            Ok(world) => count(&world, &mut counts),
            Err(broken) => panic!("{}\n{plan:?}: {broken}", trace(&plan).join("\n")),
        }
    }
    println!("{seeds} walks: {counts:?}");
    let missed =
        POINTS.iter().find(|(point, among)| seeds >= *among && !counts.contains_key(point));
    assert_eq!(missed, None, "no walk came by this point");
}

/// Two acks of one record overtook each other: the one without a seq waited for an earlier write,
/// and the stream passed its own next write before it was let go.
#[test]
fn an_ack_without_a_seq_keeps_its_place_among_acks() {
    let plan = Plan::of(221_269);
    assert_eq!(walk(&plan).err(), None);
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let plan = Plan::of(seed);
        assert_eq!(trace(&plan), trace(&plan), "seed {seed}");
    }
}

fn count(world: &World, counts: &mut BTreeMap<&'static str, u64>) {
    for (what, times) in &world.counts {
        *counts.entry(what).or_default() += times;
    }
    for event in world.devices.iter().flat_map(|device| &device.events) {
        let point = match event.kind {
            EventKind::ConflictDetected => "conflict",
            EventKind::ServerLostChanges => "server lost changes",
            EventKind::ReplicaCopied { .. } => "replica copied",
            EventKind::ChecksumMismatch => "checksum mismatch",
            EventKind::Error { .. } => "error",
            EventKind::OperationSynced { .. } => "synced write",
            _ => continue,
        };
        *counts.entry(point).or_default() += 1;
    }
}
