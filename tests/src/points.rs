//! Points that runs must come by: a sweep that misses one proves less than it seems to.

use std::collections::BTreeMap;

/// The names of the points, each with how many runs are enough to come by it.
pub const POINTS: &[(&str, u64)] = &[
    ("cut", 100),
    ("tail lost", 100),
    ("silent connection", 150),
    ("partition", 150),
    ("late frame", 150),
    ("cut in mid catch-up", 150),
    ("cut in mid snapshot", 150),
    ("resumed delta", 400),
    ("resumed snapshot", 400),
    ("fell behind", 100),
    ("conflict", 100),
    ("conflict on a frozen record", 150),
    ("lost ack told by the next hello", 150),
    ("fenced write", 1_000),
    ("write without effect", 100),
    ("rejected write", 100),
    ("superseded hello", 2_000),
    ("device crash", 100),
    ("crash between an ack and its commit", 400),
    ("disk failure", 150),
    ("server crash", 100),
    ("server shutdown", 150),
    ("server disk failure", 150),
    ("failed read", 400),
    ("swept", 150),
    ("client forgotten", 400),
    ("server restored", 400),
    ("server lost changes", 400),
    ("replica cloned", 400),
    ("replica restored", 400),
    ("replica copied", 400),
    ("expired token", 150),
    ("token needed", 150),
    ("clock trouble", 150),
    ("plain write", 150),
    ("HTTP success", 150),
    ("schedule", 100),
];

/// The points that so many runs should have come by, and did not.
#[must_use]
pub fn missed(counts: &BTreeMap<&'static str, u64>, runs: u64) -> Vec<&'static str> {
    let due = POINTS.iter().filter(|(_, enough)| runs >= *enough);
    due.map(|(point, _)| *point).filter(|point| !counts.contains_key(point)).collect()
}
