//! CPU time and memory of processes, and bytes of directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::report::shown;
use crate::world::Result;

/// The CPU time that this process has used, all of its threads together.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// The CPU time of the threads of this process that still run, by their names.
#[derive(Clone, Default)]
pub(crate) struct Threads(BTreeMap<String, u64>);

impl Threads {
    pub(crate) fn now() -> Result<Self> {
        let mut all = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task")? {
            let path = task?.path();
            // one that ends meanwhile is not counted
            let (Ok(name), Ok(spent)) =
                (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
            else {
                continue;
            };
            let spent: u64 = spent.split_whitespace().next().ok_or("no time")?.parse()?;
            *all.entry(name.trim().to_owned()).or_default() += spent;
        }
        Ok(Self(all))
    }

    /// The threads that have used most since an earlier look, in microseconds for each of `pieces`.
    pub(crate) fn since(&self, earlier: &Self, pieces: usize) -> String {
        let used = |(name, now): (&String, &u64)| {
            let before = earlier.0.get(name).copied().unwrap_or(0);
            (name.clone(), now.saturating_sub(before) as f64 / 1e3 / pieces as f64)
        };
        let mut used: Vec<_> = self.0.iter().map(used).collect();
        used.sort_by(|a, b| b.1.total_cmp(&a.1));
        let used: Vec<_> =
            used.iter().take(3).map(|(name, each)| format!("{name} {} µs", shown(*each))).collect();
        used.join(", ")
    }
}

/// Bytes of memory that a process has.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most bytes of memory that a process ever had.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    let kib: u64 = line.split_whitespace().next().ok_or("no number")?.parse()?;
    Ok(kib * 1024)
}

/// Bytes that the files in a directory and below it take on the disk, but for journals: each is written
/// to its end, 64 MiB, whatever the store holds.
pub(crate) fn bytes_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // files come and go
        let Ok(metadata) = entry.metadata() else { continue };
        if entry.path().extension().is_some_and(|end| end == "jnl") {
            continue;
        }
        bytes += if metadata.is_dir() { bytes_of(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
