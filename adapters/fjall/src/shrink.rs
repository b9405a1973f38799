//! Makes a store's tables smaller when many of their rows have gone.
//!
//! The database drops a removed row only when it writes the tables anew in which the row and its removal
//! lie, and it does so as more is written. A collection that is emptied would keep its place on the disk
//! for as long as little else comes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

/// The number of removals from which the work may be worth it.
const MANY: u64 = 1_000;
/// The tables are written anew when one in so many of their entries is a removal: clearing one costs no
/// more than that many entries.
const SHARE: u64 = 4;
/// The time without a commit after which the work begins: it holds none of many up.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait for the database's threads. Where they have met a full disk, it would be for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// The removals of a store, and the thread that clears them. When it is dropped, the thread has ended.
pub(crate) struct Shrinker {
    work: Arc<Work>,
    /// Returns `true` if it has written the tables anew.
    thread: Mutex<Option<JoinHandle<bool>>>,
    /// The old tables still lie there.
    cleared: AtomicBool,
    /// The removals that lay in tables when the store was opened are still to be counted.
    counts_tables: AtomicBool,
}

struct Work {
    /// The removals since the tables were written anew.
    removals: AtomicU64,
    commits: AtomicU64,
    ended: AtomicBool,
}

impl Shrinker {
    /// Begins with the removals that a store which was closed has left in its journal.
    pub(crate) fn new(rows: &Keyspace) -> Self {
        let memory = rows.tree.active_memtable();
        let removals = memory.iter().filter(|row| row.is_tombstone()).count();
        let work = Work {
            removals: AtomicU64::new(removals as u64),
            commits: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        };
        Self {
            work: Arc::new(work),
            thread: Mutex::default(),
            cleared: AtomicBool::new(false),
            counts_tables: AtomicBool::new(true),
        }
    }

    /// Takes note of a commit with so many removals.
    ///
    /// # Errors
    /// When what is in memory can't be handed over to become a table.
    pub(crate) fn committed(&self, removals: u64, rows: &Keyspace) -> fjall::Result<()> {
        self.work.commits.fetch_add(1, Ordering::Relaxed);
        let removals = removals + self.in_tables(rows);
        let removals = self.work.removals.fetch_add(removals, Ordering::Relaxed) + removals;
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.cleared.swap(false, Ordering::Relaxed) {
            // the database takes old tables away when it hands over what it has in memory, if a commit
            // came after the new ones and nobody reads as of before: so not in the first commit behind them
            rows.rotate_memtable()?;
        }
        if let Some(ended) = thread.take_if(|thread| thread.is_finished()) {
            self.cleared.store(ended.join().unwrap_or(false), Ordering::Relaxed);
        }
        if thread.is_some() || !are_many(removals, rows) {
            return Ok(());
        }
        let (work, rows) = (Arc::clone(&self.work), rows.clone());
        let run = move || work.wait_for_pause() && work.clear(&rows);
        // without a thread the store stays as large as it is
        *thread = thread::Builder::new().name("synclayer-shrink".into()).spawn(run).ok();
        Ok(())
    }

    /// Counts the removals in tables once, as soon as the database's threads have written those that
    /// were on their way there when the store was closed.
    fn in_tables(&self, rows: &Keyspace) -> u64 {
        if !self.counts_tables.load(Ordering::Relaxed) || rows.sealed_memtable_count() > 0 {
            return 0;
        }
        self.counts_tables.store(false, Ordering::Relaxed);
        rows.tree.tombstone_count()
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        self.work.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn are_many(removals: u64, rows: &Keyspace) -> bool {
    removals >= MANY && removals * SHARE >= rows.approximate_len() as u64
}

impl Work {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits until no commit has come for a while. Returns `false` if the store ends before.
    fn wait_for_pause(&self) -> bool {
        let mut before = None;
        while !self.has_ended() {
            let commits = self.commits.load(Ordering::Relaxed);
            if before == Some(commits) {
                return true;
            }
            before = Some(commits);
            thread::park_timeout(PAUSE);
        }
        false
    }

    /// Writes the tables anew. Returns `false` if they stay as they are. Where the database's threads are too
    /// slow for it, it is tried again behind the next commit; otherwise a commit meets the cause too, and it
    /// is tried again when there are as many removals as now.
    fn clear(&self, rows: &Keyspace) -> bool {
        let removals = self.removals.swap(0, Ordering::Relaxed);
        // the last removals lie in memory
        if rows.rotate_memtable().is_err() {
            return false;
        }
        let begun = Instant::now();
        while rows.sealed_memtable_count() > 0 {
            if begun.elapsed() > PATIENCE || self.has_ended() {
                self.removals.fetch_add(removals, Ordering::Relaxed);
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        rows.major_compact().is_ok()
    }
}
