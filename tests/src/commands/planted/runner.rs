//! Starts a process for each bug, and makes a table of what they find.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use synclayer_core::planted::Bug;

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
It fails when a bug is caught by nothing, or the control by something.";

/// What the control is called in the place of a bug.
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
    let table = table(&reports);
    println!("{table}");
    if let Some(file) = &options.write {
        std::fs::write(file, &table).map_err(|error| format!("{file}: {error}"))?;
    }
    let as_it_should = reports.iter().all(|report| report.is_caught() == (report.bug != NONE));
    Ok(if as_it_should { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// What was found of a bug.
struct Report {
    bug: String,
    /// After how many seeds a run first broke, and what.
    first: Option<(u64, String)>,
    /// What broke in how many runs, by its name.
    broken: BTreeMap<String, u64>,
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
            broken: BTreeMap::new(),
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
                *self.broken.entry(invariant(&what)).or_default() += 1;
                self.first.get_or_insert((seed, what));
            }
            "check" => self.checks.push((name, what)),
            "ran" => self.seeds = name.parse().unwrap_or_default(),
            _ => {}
        }
    }

    fn is_caught(&self) -> bool {
        self.first.is_some() || !self.checks.is_empty()
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

/// What is broken, without what is particular to a run: the event that nobody should have been
/// told of, or the words before the first figure or colon.
fn invariant(what: &str) -> String {
    if what.starts_with("panic") {
        return "a machine's own check".into();
    }
    if let Some((_, event)) = what.split_once("Event { kind: ") {
        let end = event.find(|c: char| !c.is_alphanumeric()).unwrap_or(event.len());
        return format!("nothing is mended: {}", &event[..end]);
    }
    let mut words: Vec<&str> = what.split_whitespace().collect();
    if matches!(words.first(), Some(&("device" | "plain"))) {
        words.drain(..words.len().min(2));
    }
    let is_plain = |word: &&&str| !word.contains(|c: char| c.is_ascii_digit() || "[{(".contains(c));
    let words: Vec<&str> = words.iter().take_while(is_plain).take(8).copied().collect();
    let text = words.join(" ");
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() => name.into(),
        Some(_) | None if text.is_empty() => "another invariant".into(),
        Some(_) | None => text,
    }
}

fn table(reports: &[Report]) -> String {
    let mut text = String::from(
        "| bug | what it does | broken in the sweep | after seeds | other checks | s |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for report in reports {
        let broken: Vec<_> =
            report.broken.iter().map(|(name, times)| format!("{name} ×{times}")).collect();
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
