//! The proof of the proofs: puts the bugs of `tests/data/planted` into a copy of the core, switches
//! them on one after the other, and says what catches each.

mod bug;
mod copy;
mod hunt;
mod report;
mod source;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bug::Bug;
use hunt::Budget;
use report::Report;

const USAGE: &str = "usage: synclayer-planted
  [--only BUG,BUG…]   these bugs; `none` is the control: no bug at all
  [--seeds N]         how many seeds to try for each bug (20000)
  [--failures N]      how many broken runs are enough (1)
  [--seconds N]       how long the seeds of a bug may run (300)
  [--quick]           tries seeds only on bugs that nothing else catches
  [--jobs N]          how many bugs at a time (2)
  [--write FILE]      writes the table there too
It fails when a bug is caught by nothing, the control by something, or when all bugs were tried and
of some invariant none was caught by it alone.";

/// Name of the control, in the place of a bug.
const NONE: &str = "none";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // these run in the build with the bugs
    let outcome = match arguments.first().map(String::as_str) {
        Some("hunt") => Options::read(&arguments[1..]).map(|options| hunt::hunt(&options.budget)),
        Some("check") => hunt::check(&arguments[1..]),
        Some("seed") => hunt::seed(&arguments[1..]),
        Some(_) | None => Options::read(&arguments).and_then(|options| planted(&options)),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// Tries the bugs, prints a table of what caught each, and judges it.
fn planted(options: &Options) -> Result<ExitCode, String> {
    let bugs = bug::all()?;
    let known = |name: &String| name == NONE || bugs.iter().any(|bug| bug.name == *name);
    if let Some(unknown) = options.only.iter().flatten().find(|name| !known(name)) {
        return Err(format!("no bug is called {unknown}"));
    }
    let chosen =
        |name: &str| options.only.as_ref().is_none_or(|only| only.iter().any(|n| n == name));
    let control = chosen(NONE).then_some(None);
    let tried: Vec<Option<&Bug>> =
        control.into_iter().chain(bugs.iter().filter(|bug| chosen(&bug.name)).map(Some)).collect();
    let reports = try_all(&tried, options, &copy::build(&bugs)?);
    let whole = !options.budget.quick && tried.len() == bugs.len() + 1;
    let mut text = report::table(&reports);
    let mut lonely = Vec::new();
    if whole {
        let (table, missing) = report::alone(&reports);
        lonely = missing;
        text = [text, table, report::sentences(&reports)].join("\n");
    }
    println!("{text}");
    if let Some(file) = &options.write {
        std::fs::write(file, &text).map_err(|error| format!("{file}: {error}"))?;
    }
    let wrong = reports.iter().filter(|report| report.is_caught() == report.bug.is_none());
    let wrong: Vec<_> = wrong.map(Report::name).collect();
    if !wrong.is_empty() {
        eprintln!("not as it should be: {}", wrong.join(", "));
    }
    if !lonely.is_empty() {
        eprintln!("no bug was caught by these alone: {}", lonely.join(", "));
    }
    Ok(if wrong.is_empty() && lonely.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn try_all<'a>(
    tried: &[Option<&'a Bug>],
    options: &Options,
    program: &std::path::Path,
) -> Vec<Report<'a>> {
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(bug) = tried.get(index) else { return };
            let report = Report::of(*bug, &options.budget, program);
            eprintln!("{}", report.line());
            reports.lock().expect("no job panics").insert(index, report);
        }
    };
    std::thread::scope(|scope| (0..options.jobs).for_each(|_| drop(scope.spawn(work))));
    reports.into_inner().expect("no job panics").into_values().collect()
}

struct Options {
    only: Option<Vec<String>>,
    budget: Budget,
    jobs: usize,
    write: Option<String>,
}

impl Options {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let budget = Budget { seeds: 20_000, failures: 1, seconds: 300, quick: false };
        let mut options = Self { only: None, budget, jobs: 2, write: None };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--quick" {
                options.budget.quick = true;
                continue;
            }
            let value = arguments.next().ok_or(USAGE)?;
            let number = || value.parse::<u64>().map_err(|_| USAGE.to_string());
            match name.as_str() {
                "--only" => options.only = Some(value.split(',').map(Into::into).collect()),
                "--seeds" => options.budget.seeds = number()?,
                "--failures" => options.budget.failures = number()?,
                "--seconds" => options.budget.seconds = number()?,
                "--jobs" => options.jobs = usize::try_from(number()?.max(1)).unwrap_or(1),
                "--write" => options.write = Some(value.clone()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}
