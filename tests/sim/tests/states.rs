//! Every way in which a small world can go.

#![allow(clippy::unwrap_used)]

use synclayer_sim::states::{Scope, SmallMove, explore, follow};

/// More of it is visited by `synclayer-sim states`, in a release build.
#[test]
fn every_state_of_a_small_world_keeps_the_guarantees() {
    let scopes = [
        (1, 0, 0, 0, false, 1_000),
        (1, 0, 1, 0, true, 3_000),
        (1, 0, 0, 1, true, 5_000),
        (2, 0, 0, 0, true, 5_000),
        (3, 0, 1, 2, true, 3_000),
        (3, 0, 1, 2, false, 3_000),
        (1, 1, 0, 0, true, 5_000),
        (1, 1, 1, 1, true, 3_000),
        (1, 2, 1, 1, false, 3_000),
    ];
    for (operations, units, crashes, cuts, quick_server, states) in scopes {
        let scope = Scope { operations, units, crashes, cuts, quick_server, states };
        let seen = explore(scope, &|_| {}).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{scope} {seen}");
    }
}

/// A server that starts again and a cut before its first word: the replica says that the server is out
/// of reach, and nothing is wrong with that.
#[test]
fn a_connection_may_be_cut_before_the_server_has_said_anything() {
    let scope =
        Scope { operations: 1, units: 1, crashes: 1, cuts: 1, quick_server: true, states: 1 };
    let path =
        [SmallMove::CrashServer, SmallMove::HungUp(1), SmallMove::Connect(1), SmallMove::Cut(1)];
    follow(scope, &path).unwrap_or_else(|broken| panic!("{broken}"));
}
