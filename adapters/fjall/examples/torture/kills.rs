//! Processes that are killed, and system calls that fail.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tempfile::TempDir;

use crate::workload::{Acknowledged, Kind, THREADS, Task, skipped, verify};

/// Tells a child process what to do.
pub(crate) const CHILD: &str = "SYNCLAYER_FJALL_CHILD";
/// The longest silence of a child.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so many deaths a new store is begun.
const DEATHS_OF_A_STORE: u64 = 40;
/// The commits of each thread of a run in which one system call is chosen.
const COMMITS: u64 = 70;

/// The way to start this program as a child: with [`CHILD`] set it runs that task.
pub(crate) type Start = fn() -> Command;

/// The counts of processes that died, and whose stores survived.
#[derive(Default, Debug)]
pub(crate) struct Deaths {
    /// Killed at a random moment from outside.
    pub(crate) killed: u64,
    /// Ended by themselves at a random moment.
    pub(crate) ended: u64,
    /// Commits that were acknowledged in them.
    pub(crate) acknowledged: u64,
}

/// Lets writers die at random moments, and checks after each that nothing acknowledged is lost.
pub(crate) fn kill(start: Start, kind: Kind, times: u64, seed: u64) -> Deaths {
    let mut rng = fastrand::Rng::with_seed(seed ^ kind as u64);
    let mut deaths = Deaths::default();
    let mut store = Tortured::new(start, kind);
    for n in 0..times {
        if n % DEATHS_OF_A_STORE == DEATHS_OF_A_STORE - 1 {
            store = Tortured::new(start, kind);
        }
        if n % 2 == 0 {
            store.kill_after(rng.u32(1..400));
            deaths.killed += 1;
        } else {
            store.die_after(rng.u64(1..40_000));
            deaths.ended += 1;
        }
        deaths.acknowledged += store.check();
    }
    deaths
}

/// Which system calls an injection is about, and what it does to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) name: &'static str,
    calls: &'static str,
    what: &'static str,
}

impl Injection {
    pub(crate) const ALL: [Self; 5] = [
        Self::new("sync kills", "fsync,fdatasync", "signal=SIGKILL"),
        Self::new("sync EIO", "fsync,fdatasync", "error=EIO"),
        Self::new("directory kills", "rename,unlink,unlinkat,mkdir,ftruncate", "signal=SIGKILL"),
        Self::new("write EIO", "write,pwrite64,ftruncate", "error=EIO"),
        Self::new("write ENOSPC", "write,pwrite64,ftruncate", "error=ENOSPC"),
    ];

    const fn new(name: &'static str, calls: &'static str, what: &'static str) -> Self {
        Self { name, calls, what }
    }

    /// Meets the k-th such call of each thread, for every `step`-th k until there is none, at most
    /// `most`; on a new store and on one with a past. Says how many positions were met.
    pub(crate) fn inject(self, start: Start, kind: Kind, step: usize, most: u64) -> u64 {
        let past = Tortured::new(start, kind);
        past.run(&past.task(200), "");
        let mut met = 0;
        for k in (1..).step_by(step) {
            let mut fresh = Tortured::new(start, kind);
            let mut old = past.copy();
            let rule = format!("inject={}:{}:when={k}", self.calls, self.what);
            let hits = [&mut fresh, &mut old].map(|store| {
                let hit = store.run_injected(&rule);
                store.check();
                u64::from(hit)
            });
            met += hits.iter().sum::<u64>();
            if hits == [0, 0] || met >= most {
                break;
            }
        }
        met
    }
}

/// Returns true if system calls can be chosen here, and reports a skip if not.
pub(crate) fn can_inject() -> bool {
    let probe = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        skipped("choosing the system call that fails needs a working strace");
    }
    can
}

/// A store and what it has acknowledged.
struct Tortured {
    start: Start,
    kind: Kind,
    dir: TempDir,
    acknowledged: Acknowledged,
}

impl Tortured {
    fn new(start: Start, kind: Kind) -> Self {
        Self { start, kind, dir: tempfile::tempdir().unwrap(), acknowledged: [0; THREADS] }
    }

    fn copy(&self) -> Self {
        let copy = Self { acknowledged: self.acknowledged, ..Self::new(self.start, self.kind) };
        crate::files::copy(self.dir.path(), copy.dir.path()).unwrap();
        copy
    }

    fn task(&self, commits: u64) -> Task {
        Task { kind: self.kind, commits, dies_after: 0, path: self.dir.path().to_owned() }
    }

    fn kill_after(&mut self, acks: u32) {
        let (mut child, lines) = spawn((self.start)(), &self.task(u64::MAX));
        let mut left = acks;
        while left > 0 {
            let line = lines.recv_timeout(PATIENCE).expect("the child is silent");
            left -= u32::from(self.note(&line));
        }
        child.kill().unwrap();
        self.bury(child, &lines);
    }

    fn die_after(&mut self, micros: u64) {
        let task = Task { dies_after: micros, ..self.task(u64::MAX) };
        let (child, lines) = spawn((self.start)(), &task);
        self.bury(child, &lines);
    }

    /// Runs a task to its end.
    fn run(&self, task: &Task, label: &str) {
        let (mut child, lines) = spawn((self.start)(), task);
        while let Ok(line) = lines.recv() {
            assert!(!line.starts_with("stopped"), "{label}{line}");
        }
        child.wait().unwrap();
    }

    /// Runs some commits under a rule of injection, and says whether it met a call.
    fn run_injected(&mut self, rule: &str) -> bool {
        let log = tempfile::NamedTempFile::new().unwrap();
        let program = (self.start)();
        let mut command = Command::new("strace");
        command.args(["-f", "-e", rule, "-o"]).arg(log.path()).stderr(Stdio::null());
        command.arg(program.get_program()).args(program.get_args());
        let (child, lines) = spawn(command, &self.task(COMMITS));
        self.bury(child, &lines);
        let log = std::fs::read_to_string(log.path()).unwrap();
        log.contains("(INJECTED)") || log.contains("killed by SIGKILL")
    }

    /// Waits for the end of a child, and takes note of what it said before.
    fn bury(&mut self, mut child: Child, lines: &Receiver<String>) {
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => drop(self.note(&line)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill().unwrap();
                    panic!("the child neither ends nor says anything");
                }
            }
        }
        child.wait().unwrap();
    }

    fn note(&mut self, line: &str) -> bool {
        // the first one may follow what a test harness says, on the same line
        let Some((_, ack)) = line.split_once("ack ") else { return false };
        let (thread, n) = ack.split_once(' ').unwrap();
        self.acknowledged[thread.parse::<usize>().unwrap()] = n.parse().unwrap();
        true
    }

    /// Checks that nothing is lost. What is shown now must stay too. Says how many commits came.
    fn check(&mut self) -> u64 {
        let before: u64 = self.acknowledged.iter().sum();
        let (kind, path) = (self.kind, self.dir.path().to_owned());
        let acknowledged = self.acknowledged;
        match std::panic::catch_unwind(|| verify(kind, &path, &acknowledged)) {
            Ok(found) => self.acknowledged = found,
            Err(panic) => {
                let kept = keep(&path);
                eprintln!("the {} store of {acknowledged:?} is kept at {kept}", kind.name());
                std::panic::resume_unwind(panic);
            }
        }
        before
    }
}

/// Puts a store that lost something where nothing deletes it.
fn keep(path: &Path) -> String {
    let kept = tempfile::tempdir().unwrap().keep();
    drop(crate::files::copy(path, &kept));
    kept.display().to_string()
}

fn spawn(mut command: Command, task: &Task) -> (Child, Receiver<String>) {
    let mut child = command.env(CHILD, task.encode()).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        // a line that a death cut short says nothing
        let whole = |line: &std::io::Result<Vec<u8>>| line.is_ok();
        for line in out.split(b'\n').take_while(whole).flatten() {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    (child, lines)
}
