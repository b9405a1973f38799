//! Starts a process for each bug, and makes a table of what they find.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use synclayer_core::planted::{Bug, SENTENCES};
use synclayer_sim::invariants::Invariant;

use super::super::Outcome;
use super::child::{self, Budget};

const USAGE: &str = "usage: synclayer-sim planted
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

/// The command.
pub(super) fn planted(arguments: impl Iterator<Item = String>) -> Outcome {
    let options = Options::read(arguments)?;
    if let Some(name) = &options.child {
        return Ok(child::hunt(bug(name)?, &options.budget));
    }
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = options.bugs.get(index) else { return };
            let report = Report::of(name, &options.budget);
            eprintln!("{}", report.line());
            reports.lock().expect("no job panics").insert(index, report);
        }
    };
    std::thread::scope(|scope| (0..options.jobs).for_each(|_| drop(scope.spawn(work))));
    let reports: Vec<_> = reports.into_inner().expect("no job panics").into_values().collect();
    let whole = !options.budget.quick && Bug::ALL.iter().all(|bug| options.tries(*bug));
    let mut text = table(&reports);
    let lonely = whole.then(|| {
        let (table, lonely) = alone(&reports);
        text.push('\n');
        text.push_str(&table);
        text.push('\n');
        text.push_str(&sentences(&reports));
        lonely
    });
    println!("{text}");
    if let Some(file) = &options.write {
        std::fs::write(file, &text).map_err(|error| format!("{file}: {error}"))?;
    }
    let wrong = reports.iter().filter(|report| report.is_caught() == (report.bug == NONE));
    let wrong: Vec<_> = wrong.map(|report| &*report.bug).collect();
    if !wrong.is_empty() {
        eprintln!("not as it should be: {}", wrong.join(", "));
    }
    let lonely = lonely.unwrap_or_default();
    if !lonely.is_empty() {
        eprintln!("no bug was caught by these alone: {}", lonely.join(", "));
    }
    Ok(if wrong.is_empty() && lonely.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn bug(name: &str) -> Result<Option<Bug>, String> {
    if name == NONE {
        return Ok(None);
    }
    let found = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    found.copied().map(Some).ok_or_else(|| format!("no bug is called {name}"))
}

struct Options {
    bugs: Vec<String>,
    budget: Budget,
    jobs: usize,
    write: Option<String>,
    /// The bug that this process is about.
    child: Option<String>,
}

impl Options {
    fn tries(&self, bug: Bug) -> bool {
        self.bugs.iter().any(|name| *name == format!("{bug:?}"))
    }

    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            bugs: std::iter::once(NONE.into())
                .chain(Bug::ALL.iter().map(|bug| format!("{bug:?}")))
                .collect(),
            budget: Budget { seeds: 20_000, failures: 1, seconds: 300, quick: false },
            jobs: 2,
            write: None,
            child: None,
        };
        while let Some(name) = arguments.next() {
            if name == "--quick" {
                options.budget.quick = true;
                continue;
            }
            let value = arguments.next().ok_or(USAGE)?;
            let number = || value.parse::<u64>().map_err(|_| USAGE.to_string());
            match name.as_str() {
                "--only" => options.bugs = value.split(',').map(Into::into).collect(),
                "--seeds" => options.budget.seeds = number()?,
                "--failures" => options.budget.failures = number()?,
                "--seconds" => options.budget.seconds = number()?,
                "--jobs" => options.jobs = usize::try_from(number()?.max(1)).unwrap_or(1),
                "--write" => options.write = Some(value),
                "--child" => options.child = Some(value),
                _ => return Err(USAGE.into()),
            }
        }
        options.bugs.iter().try_for_each(|name| bug(name).map(drop))?;
        Ok(options)
    }
}

/// The findings about a bug.
struct Report {
    bug: String,
    /// After how many seeds a run first broke, and what.
    first: Option<(u64, String)>,
    /// The invariants that each of the broken runs breaks.
    broken: Vec<BTreeSet<String>>,
    /// The other checks that failed, and with what.
    checks: Vec<(String, String)>,
    seeds: u64,
    seconds: f64,
}

impl Report {
    fn of(bug: &str, budget: &Budget) -> Self {
        let begun = Instant::now();
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["planted", "--child", bug]);
        for (name, value) in [
            ("--seeds", budget.seeds),
            ("--failures", budget.failures),
            ("--seconds", budget.seconds),
        ] {
            command.arg(name).arg(value.to_string());
        }
        if budget.quick {
            command.arg("--quick");
        }
        let output = command.stderr(Stdio::null()).output().expect("this program can be started");
        let mut report = Self {
            bug: bug.into(),
            first: None,
            broken: Vec::new(),
            checks: Vec::new(),
            seeds: 0,
            seconds: 0.0,
        };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            report.take(line);
        }
        if output.status.code().is_none() {
            report.checks.push(("process".into(), format!("{}", output.status)));
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    fn take(&mut self, line: &str) {
        let mut parts = line.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_default().to_string();
        let (kind, name, what) = (part(), part(), part());
        match kind.as_str() {
            "seed" => {
                let seed = name.parse().unwrap_or_default();
                let (invariants, what) = what.split_once('|').unwrap_or_default();
                self.broken.push(invariants.split(';').map(Into::into).collect());
                self.first.get_or_insert((seed, what.into()));
            }
            "check" => self.checks.push((name, what)),
            "ran" => self.seeds = name.parse().unwrap_or_default(),
            _ => {}
        }
    }

    fn is_caught(&self) -> bool {
        self.first.is_some() || !self.checks.is_empty()
    }

    /// Which invariants the broken runs broke, in how many of them, and in how many nothing else.
    fn invariants(&self) -> BTreeMap<&str, (u64, u64)> {
        let mut all = BTreeMap::new();
        for run in &self.broken {
            for name in run {
                let (times, alone): &mut (u64, u64) = all.entry(&**name).or_default();
                *times += 1;
                *alone += u64::from(run.len() == 1);
            }
        }
        all
    }

    fn breaks(&self) -> &'static str {
        bug(&self.bug).ok().flatten().map_or("Nothing: the control.", Bug::breaks)
    }

    /// The other checks by name, each once.
    fn other_checks(&self) -> String {
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, _) in &self.checks {
            let kind = name.split('/').next().unwrap_or_default();
            *kinds.entry(kind).or_default() += 1;
        }
        let parts: Vec<_> = kinds.iter().map(|(kind, times)| format!("{kind} ×{times}")).collect();
        parts.join(", ")
    }

    fn line(&self) -> String {
        let Self { bug, seconds, .. } = self;
        let first = match &self.first {
            Some((seed, what)) => format!("after {seed} seeds: {what}"),
            None => format!("not in {} seeds", self.seeds),
        };
        format!("{bug}: {first}; {}; {seconds:.1} s", self.other_checks())
    }
}

/// Of each invariant the bugs that it alone has caught, in some run or in all; and those of which
/// there is none.
fn alone(reports: &[Report]) -> (String, Vec<&'static str>) {
    let mut text = String::from(
        "| invariant | only it catches, in every broken run | and in some |\n\
         | --- | --- | --- |\n",
    );
    let mut lonely = Vec::new();
    for invariant in Invariant::ALL {
        let (mut always, mut sometimes) = (Vec::new(), Vec::new());
        for report in reports {
            match report.invariants().get(invariant.name()) {
                Some((_, alone)) if *alone == report.broken.len() as u64 => {
                    always.push(&*report.bug);
                }
                Some((_, 1..)) => sometimes.push(&*report.bug),
                Some(_) | None => {}
            }
        }
        if always.is_empty() && sometimes.is_empty() {
            lonely.push(invariant.name());
        }
        let _ =
            writeln!(text, "| {invariant} | {} | {} |", always.join(", "), sometimes.join(", "));
    }
    (text, lonely)
}

/// Tabulates the checks that caught the breaks of each sentence that a model of the protocol has
/// shown to be needed.
fn sentences(reports: &[Report]) -> String {
    let mut text = String::from("| sentence | broken by |\n| --- | --- |\n");
    for (sentence, bugs) in SENTENCES {
        let caught = |bug: &Bug| {
            let name = format!("{bug:?}");
            let report = reports.iter().find(|report| report.bug == name);
            let by = match report {
                Some(Report { first: Some((seed, _)), .. }) => format!("after {seed} seeds"),
                Some(report) => report.other_checks(),
                None => String::new(),
            };
            format!("{name} ({by})")
        };
        let caught: Vec<_> = bugs.iter().map(caught).collect();
        let _ = writeln!(text, "| {sentence} | {} |", caught.join(", "));
    }
    text
}

fn table(reports: &[Report]) -> String {
    let mut text = String::from(
        "| bug | what it does | broken in the sweep | after seeds | other checks | s |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for report in reports {
        let of_runs = |(name, (times, alone)): (&str, (u64, u64))| match alone {
            0 => format!("{name} ×{times}"),
            _ if alone == times => format!("{name} ×{times} alone"),
            _ => format!("{name} ×{times} ({alone} alone)"),
        };
        let broken: Vec<_> = report.invariants().into_iter().map(of_runs).collect();
        let after = match &report.first {
            Some((seed, _)) => seed.to_string(),
            None => format!("not in {}", report.seeds),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {after} | {} | {:.1} |",
            report.bug,
            report.breaks(),
            broken.join(", "),
            report.other_checks(),
            report.seconds
        );
    }
    text
}
