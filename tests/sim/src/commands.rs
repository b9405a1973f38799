//! The commands that run the simulator.

mod scenario;
mod states;
mod transcript;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use synclayer_sim::draw::bytes_of;
use synclayer_sim::sweep::{self, Tally};
use synclayer_sim::{data, points, run};

pub(crate) use scenario::scenario;
pub(crate) use states::states;
pub(crate) use transcript::transcript;

/// The end of a command; an error is a wrong usage.
type Outcome = Result<ExitCode, String>;

/// Runs many seeds.
pub(crate) fn sweep(arguments: impl Iterator<Item = String>) -> Outcome {
    let options = numbers(arguments, &["--seeds", "--first", "--jobs"])?;
    let number = |name, default| options.get(name).copied().unwrap_or(default);
    let (first, seeds) = (number("--first", 0), number("--seeds", 10_000));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = usize::try_from(number("--jobs", cores as u64)).unwrap_or(cores);
    let begun = Instant::now();
    let bar = |done| show_progress(done, seeds, begun);
    match sweep::sweep(first, seeds, jobs, &bar) {
        Ok(tally) => {
            println!("\r{}", report(&tally, begun));
            let missed = points::missed(&tally.counts, seeds);
            if missed.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            println!("no run came by: {}", missed.join(", "));
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => {
            println!("\r{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Shows everything that happens in a run: of a seed, or of the bytes in a file.
pub(crate) fn replay(mut arguments: impl Iterator<Item = String>) -> Outcome {
    let which = arguments.next().ok_or("usage: synclayer-sim replay SEED|FILE")?;
    let bytes = match which.parse() {
        Ok(seed) => bytes_of(seed),
        Err(_) => std::fs::read(&which).map_err(|error| format!("{which}: {error}"))?,
    };
    println!("{}", run::transcript(&bytes).join("\n"));
    Ok(run::run(&bytes).map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS))
}

/// Compares the digests of some runs with those that are committed, or writes them.
pub(crate) fn golden(mut arguments: impl Iterator<Item = String>) -> Outcome {
    let path = data::path("golden.txt");
    let failed = |error| format!("{}: {error}", path.display());
    let lines = sweep::golden();
    match arguments.next().as_deref() {
        Some("--write") => {
            std::fs::write(&path, lines).map_err(failed)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(_) => Err("usage: synclayer-sim golden [--write]".into()),
        None => {
            let known = std::fs::read_to_string(&path).map_err(failed)?;
            if known == lines {
                return Ok(ExitCode::SUCCESS);
            }
            let path = path.display();
            println!("other digests than in {path}: if that is meant, golden --write, and say why");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Options with a number each.
fn numbers(
    mut arguments: impl Iterator<Item = String>,
    known: &[&'static str],
) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut options = BTreeMap::new();
    while let Some(name) = arguments.next() {
        let usage = || format!("{name}: the options are {}, each with a number", known.join(", "));
        let option = known.iter().find(|option| **option == name).ok_or_else(usage)?;
        let value = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
        options.insert(*option, value);
    }
    Ok(options)
}

fn show_progress(done: u64, of: u64, begun: Instant) {
    let mut stderr = std::io::stderr();
    let step = (of / 200).max(1);
    if !stderr.is_terminal() || !done.is_multiple_of(step) {
        return;
    }
    let filled = usize::try_from(done * 40 / of.max(1)).unwrap_or(40);
    let rate = done as f64 / begun.elapsed().as_secs_f64().max(0.001);
    let _ = write!(stderr, "\r[{:40}] {done}/{of}, {rate:.0}/s ", "#".repeat(filled));
}

fn report(tally: &Tally, begun: Instant) -> String {
    let hours = tally.simulated_ms as f64 / 3_600_000.0;
    let mut lines = vec![format!(
        "{} runs, {} writes, {hours:.1} simulated hours, in {:.1} s",
        tally.runs,
        tally.writes,
        begun.elapsed().as_secs_f64()
    )];
    lines.extend(tally.counts.iter().map(|(what, times)| format!("{times:>12}  {what}")));
    lines.join("\n")
}
