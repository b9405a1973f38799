//! The examination of one bug in one process: a break is on for a whole process, and may end it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use synclayer_sim::checks::{self, Check};
use synclayer_sim::invariants::Invariant;
use synclayer_sim::sweep;

use crate::copy::ON;

/// After so long, in seconds, a run counts as one that never ends.
const ENDLESS: u64 = 30;

/// The limits of the attempts.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    /// Seeds at most.
    pub(crate) seeds: u64,
    /// After how many broken runs it is enough.
    pub(crate) failures: u64,
    /// For how many seconds the seeds may run.
    pub(crate) seconds: u64,
    /// True if seeds are tried only where nothing else has found something.
    pub(crate) quick: bool,
}

/// Looks for a bug, and says on standard output what finds it, a line each:
/// `seed AFTER INVARIANT;INVARIANT…|WHAT` for a broken run, `check NAME WHAT` for another check,
/// `ran SEEDS`.
pub(crate) fn hunt(budget: &Budget) -> ExitCode {
    std::panic::set_hook(Box::new(|_| ()));
    let at = Arc::new(AtomicU64::new(0));
    watch(at.clone());
    let caught = try_checks(&at);
    if !(budget.quick && caught) {
        try_seeds(budget, &at);
    }
    ExitCode::SUCCESS
}

fn try_checks(at: &AtomicU64) -> bool {
    let mut caught = false;
    for Check { name, run } in checks::all() {
        at.fetch_add(1, Ordering::Relaxed);
        let Err(what) = quietly(&run) else { continue };
        if !is_broken_anyway(&["check", &name]) {
            caught = true;
            say(&format!("check {name} {what}"));
        }
    }
    caught
}

fn try_seeds(budget: &Budget, at: &AtomicU64) {
    let begun = Instant::now();
    let (mut failures, mut ran) = (0, 0);
    while ran < budget.seeds && failures < budget.failures {
        if begun.elapsed() > Duration::from_secs(budget.seconds) {
            break;
        }
        let seed = ran;
        ran += 1;
        at.fetch_add(1, Ordering::Relaxed);
        let Err(what) = try_seed(seed) else { continue };
        if !is_broken_anyway(&["seed", &seed.to_string()]) {
            failures += 1;
            let found: Vec<_> = examine(seed).into_iter().map(Invariant::name).collect();
            say(&format!("seed {ran} {}|{what}", found.join(";")));
        }
    }
    say(&format!("ran {ran} {}", begun.elapsed().as_millis()));
}

fn try_seed(seed: u64) -> Result<(), String> {
    quietly(|| sweep::run(seed).map(drop).map_err(|failure| failure.broken))
}

/// Every invariant that a broken run breaks: one must not hide the others.
fn examine(seed: u64) -> BTreeSet<Invariant> {
    let examined = catch_unwind(AssertUnwindSafe(|| sweep::examine(seed)));
    examined.unwrap_or_else(|_| BTreeSet::from([Invariant::Contract]))
}

/// Returns true if a run fails without the bug too, and so says nothing about it: a process without
/// the bug tries it. Of the control all is told.
fn is_broken_anyway(run: &[&str]) -> bool {
    if std::env::var_os(ON).is_none() {
        return false;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(run).env_remove(ON).stdout(Stdio::null()).stderr(Stdio::null());
    !command.status().is_ok_and(|status| status.success())
}

/// Runs one check, by name.
pub(crate) fn check(arguments: &[String]) -> Result<ExitCode, String> {
    let [name] = arguments else { return Err("usage: synclayer-planted check NAME".into()) };
    let checks = checks::all();
    let check = checks.iter().find(|check| check.name == *name);
    let check = check.ok_or_else(|| format!("no check is called {name}"))?;
    Ok(quietly(&check.run).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// Runs one seed.
pub(crate) fn seed(arguments: &[String]) -> Result<ExitCode, String> {
    let seed = match arguments {
        [seed] => seed.parse().ok(),
        _ => None,
    };
    let seed = seed.ok_or("usage: synclayer-planted seed SEED")?;
    Ok(try_seed(seed).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// A panic is a finding as well: the machines check themselves.
fn quietly(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Ends the process when one run takes for ever.
fn watch(at: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = at.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(ENDLESS) {
                let contract = Invariant::Contract;
                say(&format!("seed {now} {contract}|a run that never ends"));
                std::process::exit(1);
            }
        }
    });
}

/// One line, however many the text has.
fn say(text: &str) {
    println!("{}", text.lines().next().unwrap_or_default().chars().take(300).collect::<String>());
}
