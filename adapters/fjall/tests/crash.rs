//! Real processes are killed, system calls fail, and disks fill up: a small helping of what the
//! example `torture` does at length.

#![allow(clippy::unwrap_used)]

#[path = "../examples/torture/files.rs"]
#[allow(dead_code, reason = "the tests of damage use the rest")]
mod files;
#[path = "../examples/torture/full.rs"]
mod full;
#[path = "../examples/torture/kills.rs"]
mod kills;
#[path = "../examples/torture/workload.rs"]
mod workload;

use std::process::Command;

use files::Side;
use kills::{CHILD, Injection};
use workload::{Kind, Task};

/// Not a test of its own: what the child processes run.
#[test]
fn child() {
    if let Ok(task) = std::env::var(CHILD) {
        Task::decode(&task).run();
    }
}

fn myself() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]);
    command
}

#[test]
fn a_killed_process_has_lost_nothing_acknowledged() {
    for kind in Kind::ALL {
        let deaths = kills::kill(myself, kind, 6, 1);
        eprintln!("{} store: {deaths:?}", kind.name());
        assert_eq!(deaths.killed + deaths.ended, 6);
        assert!(deaths.acknowledged > 0);
    }
}

/// A few positions of each kind: the example meets them all.
#[test]
fn a_process_that_dies_or_fails_in_a_system_call_has_lost_nothing_acknowledged() {
    if !kills::can_inject() {
        return;
    }
    for (n, injection) in Injection::ALL.into_iter().enumerate() {
        let kind = Kind::ALL[n % Kind::ALL.len()];
        let met = injection.inject(myself, kind, 3, 4);
        assert!(met > 0, "{} met no call", injection.name);
    }
}

#[test]
fn a_full_disk_stops_a_store_and_loses_nothing() {
    full::fill(Side::Client, 1, 1);
    full::fill(Side::Server, 1, 1);
}
