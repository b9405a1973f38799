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
    ("crash in mid catch-up", 400),
    ("horizon passed in mid catch-up", 1_000),
    ("resumed delta", 400),
    ("resumed snapshot", 400),
    ("resume of an earlier epoch", 1_000),
    ("conflict without a trace", 1_000),
    ("fell behind", 100),
    ("fell behind with verdicts due", 150),
    ("conflict", 100),
    ("parked change", 150),
    ("conflict on a frozen record", 150),
    ("joined write", 100),
    ("lost ack told by the next hello", 150),
    ("fenced write", 1_000),
    ("write without effect", 100),
    ("rejected write", 100),
    ("error in mid pipeline", 150),
    ("superseded hello", 2_000),
    ("device crash", 100),
    ("crash between an ack and its commit", 400),
    ("disk failure", 150),
    ("server crash", 100),
    ("server shutdown", 150),
    ("server disk failure", 150),
    ("unknown outcome", 400),
    ("new epoch with pending writes", 150),
    ("failed read", 400),
    ("swept", 150),
    ("client forgotten", 400),
    ("server restored", 400),
    ("server lost changes", 400),
    ("replica joined", 400),
    ("replica cloned", 400),
    ("replica restored", 400),
    ("replica copied", 400),
    ("expired token", 150),
    ("token needed", 150),
    ("token needed with pending writes", 400),
    ("connection refused", 400),
    ("rights", 150),
    ("clock trouble", 150),
    ("plain write", 150),
    ("HTTP success", 150),
    ("schedule", 100),
    ("HTTP call", 100),
    ("WebSocket refused", 150),
    ("failed call", 150),
    ("late answer", 150),
    ("lost answer of a push", 400),
    ("pull cut in mid catch-up", 400),
    ("from WebSocket to HTTP with writes in flight", 400),
    ("from HTTP to WebSocket with writes in flight", 1_000),
    ("Retry-After obeyed", 400),
];

/// The points that so many runs should have come by, and did not.
#[must_use]
pub fn missed(counts: &BTreeMap<&'static str, u64>, runs: u64) -> Vec<&'static str> {
    let due = POINTS.iter().filter(|(_, enough)| runs >= *enough);
    due.map(|(point, _)| *point).filter(|point| !counts.contains_key(point)).collect()
}
