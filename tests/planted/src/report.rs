//! The findings about a bug, from the process that looked for it, and the tables of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use synclayer_sim::invariants::Invariant;

use crate::NONE;
use crate::bug::Bug;
use crate::copy::ON;
use crate::hunt::Budget;

/// The findings about a bug.
pub(crate) struct Report<'a> {
    /// The bug; `None` is the control.
    pub(crate) bug: Option<&'a Bug>,
    /// After how many seeds a run first broke, and what.
    first: Option<(u64, String)>,
    /// The invariants that each of the broken runs breaks.
    broken: Vec<BTreeSet<String>>,
    /// The other checks that failed, and with what.
    checks: Vec<(String, String)>,
    seeds: u64,
    seconds: f64,
}

impl<'a> Report<'a> {
    /// Looks for a bug, in a process of its own of the program that has it.
    pub(crate) fn of(bug: Option<&'a Bug>, budget: &Budget, program: &Path) -> Self {
        let begun = Instant::now();
        let mut command = Command::new(program);
        command.arg("hunt").env_remove(ON);
        if let Some(bug) = bug {
            command.env(ON, &bug.name);
        }
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
        let output = command.stderr(Stdio::null()).output().expect("what was built can be started");
        let mut report = Self {
            bug,
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

    pub(crate) fn is_caught(&self) -> bool {
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

    pub(crate) fn name(&self) -> &'a str {
        self.bug.map_or(NONE, |bug| &bug.name)
    }

    fn effect(&self) -> String {
        self.bug.map_or_else(|| "Nothing: the control.".into(), Bug::effect)
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

    /// The findings in a line.
    pub(crate) fn line(&self) -> String {
        let first = match &self.first {
            Some((seed, what)) => format!("after {seed} seeds: {what}"),
            None => format!("not in {} seeds", self.seeds),
        };
        format!("{}: {first}; {}; {:.1} s", self.name(), self.other_checks(), self.seconds)
    }
}

/// Of each invariant the bugs that it alone has caught, in some run or in all; and those of which
/// there is none.
pub(crate) fn alone(reports: &[Report<'_>]) -> (String, Vec<&'static str>) {
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
                    always.push(report.name());
                }
                Some((_, 1..)) => sometimes.push(report.name()),
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
pub(crate) fn sentences(reports: &[Report<'_>]) -> String {
    let mut sentences = BTreeMap::<_, Vec<_>>::new();
    for report in reports {
        if let Some(sentence) = report.bug.and_then(|bug| bug.sentence.as_deref()) {
            let by = match &report.first {
                Some((seed, _)) => format!("after {seed} seeds"),
                None => report.other_checks(),
            };
            sentences.entry(sentence).or_default().push(format!("{} ({by})", report.name()));
        }
    }
    let mut text = String::from("| sentence | broken by |\n| --- | --- |\n");
    for (sentence, caught) in sentences {
        let _ = writeln!(text, "| {sentence} | {} |", caught.join(", "));
    }
    text
}

pub(crate) fn table(reports: &[Report<'_>]) -> String {
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
            report.name(),
            report.effect(),
            broken.join(", "),
            report.other_checks(),
            report.seconds
        );
    }
    text
}
