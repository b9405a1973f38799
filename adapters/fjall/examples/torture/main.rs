//! Tortures stores: processes die at random and at chosen system calls, disks fail and fill up, bits
//! flip. Nothing acknowledged may be lost, nothing damaged may be served in silence.
//!
//! ```text
//! cargo run --release -p synclayer-fjall --example torture -- \
//!     [--kills N] [--positions N] [--full N] [--step N] [--seed N]
//! ```
//!
//! * `--kills`: deaths of each kind of store (300 unless given);
//! * `--positions`: how many calls of each kind are chosen in each kind of store, at most (100);
//! * `--full`: disks that fill up for client and server (5 each);
//! * `--step`: every so many bytes of a store's files one bit flips (1: in every byte; 0: none).
//!
//! The last lines are totals, as `name value`. It fails when a store has failed.

#![allow(clippy::unwrap_used)]

mod files;
mod flips;
mod full;
mod kills;
mod workload;

use std::process::{Command, ExitCode};
use std::time::Instant;

use files::Side;
use kills::{CHILD, Injection};
use workload::{Kind, Task};

fn main() -> ExitCode {
    if let Ok(task) = std::env::var(CHILD) {
        Task::decode(&task).run();
        return ExitCode::SUCCESS;
    }
    let budget = Budget::read();
    let begun = Instant::now();
    let mut totals = Totals::default();
    budget.kill(&mut totals);
    budget.inject(&mut totals);
    budget.fill(&mut totals);
    let sound = budget.flip(&mut totals);
    totals.add("seconds", begun.elapsed().as_secs());
    for (name, value) in &totals.0 {
        println!("{name} {value}");
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn myself() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// The budget of each part.
struct Budget {
    kills: u64,
    positions: u64,
    full: u64,
    step: usize,
    seed: u64,
}

impl Budget {
    fn read() -> Self {
        let mut budget = Self { kills: 300, positions: 100, full: 5, step: 1, seed: 1 };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().and_then(|value| value.parse().ok());
            let value: u64 = value.unwrap_or_else(|| panic!("{name} needs a number"));
            match name.as_str() {
                "--kills" => budget.kills = value,
                "--positions" => budget.positions = value,
                "--full" => budget.full = value,
                "--step" => budget.step = value as usize,
                "--seed" => budget.seed = value,
                other => panic!("no option is called {other}"),
            }
        }
        budget
    }

    fn kill(&self, totals: &mut Totals) {
        for kind in Kind::ALL {
            let deaths = kills::kill(myself, kind, self.kills, self.seed);
            eprintln!("{} store: {deaths:?}", kind.name());
            totals.add("kills", deaths.killed + deaths.ended);
            totals.add("acknowledged", deaths.acknowledged);
        }
    }

    fn inject(&self, totals: &mut Totals) {
        if self.positions == 0 || !kills::can_inject() {
            return;
        }
        for injection in Injection::ALL {
            let name = injection.name.replace(' ', "_");
            for kind in Kind::ALL {
                let met = injection.inject(myself, kind, 1, self.positions);
                eprintln!("{} store: {name} at {met} positions", kind.name());
                totals.add(&name, met);
            }
        }
    }

    fn fill(&self, totals: &mut Totals) {
        for side in [Side::Client, Side::Server] {
            totals.add("full_disks", full::fill(side, self.full, self.seed));
        }
    }

    fn flip(&self, totals: &mut Totals) -> bool {
        let mut sound = true;
        if self.step == 0 {
            return sound;
        }
        // the store may panic on what makes no sense; that is counted, not shown
        std::panic::set_hook(Box::new(|_| ()));
        for side in [Side::Client, Side::Server] {
            let verdicts = flips::damage(side, self.step, self.seed);
            for damage in verdicts.silent.iter().chain(&verdicts.unclear) {
                eprintln!("{side:?}: {damage}");
            }
            totals.add("damages", verdicts.all());
            totals.add("noticed", verdicts.noticed);
            totals.add("harmless", verdicts.harmless);
            totals.add("silent", verdicts.silent.len() as u64);
            totals.add("unclear", verdicts.unclear.len() as u64);
            sound &= verdicts.silent.is_empty() && verdicts.unclear.is_empty();
        }
        sound
    }
}

/// Sums by name, in the order in which they were met.
#[derive(Default)]
struct Totals(Vec<(String, u64)>);

impl Totals {
    fn add(&mut self, name: &str, value: u64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => self.0.push((name.into(), value)),
        }
    }
}
