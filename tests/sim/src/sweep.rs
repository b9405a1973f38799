//! Many runs, each from its seed, on several threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::draw::bytes_of;
use crate::invariants::Invariant;

/// Limit of runs in search of the shortest trace of a failure.
const SHRINKING: usize = 3_000;

/// Of so many seeds one is run twice.
const TWICE: u64 = 8;

/// The sum of the outcomes of runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Number of runs.
    pub runs: u64,
    /// Virtual time that passed in them, in milliseconds.
    pub simulated_ms: u64,
    /// Writes of apps and level-1 programs.
    pub writes: u64,
    /// Counts of events, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Adds another's figures.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.simulated_ms += other.simulated_ms;
        self.writes += other.writes;
        for (what, times) in &other.counts {
            *self.counts.entry(what).or_default() += times;
        }
    }
}

impl std::fmt::Display for FailedSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = bytes_of(self.seed);
        let shortest = crate::shrink::shrink(&bytes, SHRINKING);
        writeln!(f, "{}", crate::run::transcript(&shortest).join("\n"))?;
        write!(f, "seed {}: {}", self.seed, self.broken)
    }
}

/// A run that broke a guarantee.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedSeed {
    /// Its seed.
    pub seed: u64,
    /// Which guarantee, and how.
    pub broken: String,
}

/// One run. Some seeds run twice, to see that a run is nothing but its seed.
///
/// # Errors
/// When it breaks a guarantee.
pub fn run(seed: u64) -> Result<Tally, FailedSeed> {
    let failure = |broken| FailedSeed { seed, broken };
    let outcome = crate::run::run(&bytes_of(seed)).map_err(failure)?;
    if seed.is_multiple_of(TWICE) && digest(seed) != outcome.digest {
        let broken = format!("{}: the same seed is another run", Invariant::Deterministic);
        return Err(failure(broken));
    }
    let crate::run::Outcome { simulated_ms, counts, writes, .. } = outcome;
    Ok(Tally { runs: 1, simulated_ms, writes, counts })
}

/// Returns the invariants that the run of a seed breaks; the run goes on whatever it finds.
#[must_use]
pub fn examine(seed: u64) -> BTreeSet<Invariant> {
    let mut found: BTreeSet<_> = crate::run::examine(&bytes_of(seed)).into_keys().collect();
    if digest(seed) != digest(seed) {
        found.insert(Invariant::Deterministic);
    }
    found
}

/// The digest of a run; 0 where it breaks a guarantee.
#[must_use]
pub fn digest(seed: u64) -> u64 {
    crate::run::run(&bytes_of(seed)).map_or(0, |outcome| outcome.digest)
}

/// Returns digests of the bytes sent in the runs of the first hundred seeds, a line for each.
#[must_use]
pub fn golden() -> String {
    let said = |seed| crate::run::run(&bytes_of(seed)).map_or(0, |outcome| outcome.said);
    (0..100).map(|seed| format!("{seed} {:016x}\n", said(seed))).collect()
}

/// Runs of so many seeds, from `first` on, on `jobs` threads. `progress` is told after each run
/// how many there were.
///
/// # Errors
/// The failure with the smallest seed among those that were found; nothing more is begun after
/// one.
///
/// # Panics
/// When a run does.
pub fn sweep(
    first: u64,
    seeds: u64,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Tally, FailedSeed> {
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    let work = || {
        let mut tally = Tally::default();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= seeds {
                break;
            }
            match run(first + index) {
                Ok(more) => tally.add(&more),
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    failures.lock().expect("no job panics").push(failure);
                }
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        total.lock().expect("no job panics").add(&tally);
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().expect("no job panics");
    match failures.into_iter().min_by_key(|failure: &FailedSeed| failure.seed) {
        Some(failure) => Err(failure),
        None => Ok(total.into_inner().expect("no job panics")),
    }
}
