//! The cost of a change to one of many watched records.

use std::process::Command;

use synclayer_core::MemoryClientStore;
use synclayer_core::testing::InspectReplica;
use synclayer_sim::counted::{Counted, Counts};
use synclayer_sim::lone_replica::LoneReplica;

use crate::processes::ROLE;
use crate::world::{Result, document, id};

const CHANGES: usize = 1_000;

/// Reads of the store and instructions for one change, from the app or the server, to one of a
/// thousand and of a hundred thousand watched records: in the core, on a store in memory.
pub(crate) async fn change() -> Result<()> {
    println!("{:>8} {:>9} {:>13} {:>30}", "from", "records", "instructions", "asked of the store");
    for from in ["app", "server"] {
        for records in [1_000, 100_000] {
            let with = instructions(from, records, CHANGES)?;
            let each = (with - instructions(from, records, 0)?) / CHANGES as u64;
            let asked = changed(from, records, 1)?;
            println!("{from:>8} {records:>9} {each:>13} {asked:?}");
        }
    }
    Ok(())
}

/// The process whose instructions are counted.
pub(crate) fn make(from: &str, records: usize, changes: usize) -> Result<()> {
    changed(from, records, changes).map(drop)
}

/// Changes watched records, and says what the changes asked of the store.
fn changed(from: &str, records: usize, changes: usize) -> Result<Counts> {
    let mut lone = LoneReplica::online(Counted::new(MemoryClientStore::default()));
    let watch = lone.watch();
    for n in 0..records {
        lone.remote("insert", &id(n), &document(n).to_string());
    }
    lone.take(watch);
    lone.replica.store().take();
    for n in 0..changes {
        let (id, data) = (id(n * 7_919 % records), format!(r#"{{"n":{n}}}"#));
        match from {
            "app" => lone.update(&id, &data)?,
            _ => lone.remote("update", &id, &data),
        }
        lone.take(watch).ok_or("the watcher was not told")?;
    }
    Ok(lone.replica.store().take())
}

/// The instructions of a whole process.
fn instructions(from: &str, records: usize, changes: usize) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([ROLE, "changer", from, &records.to_string(), &changes.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let line = told.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = line.ok_or_else(|| format!("valgrind did not count: {told}"))?;
    Ok(count.trim().parse()?)
}
