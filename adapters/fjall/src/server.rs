//! The server's store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fjall::Snapshot;
use synclayer_core::rules::database;
use synclayer_core::{Batch, Rows, ServerStore, StoreError};

use crate::chain::{Chain, ChainLink};
use crate::clock;
use crate::disk::{self, Disk, Promises, Sizes};
use crate::failure;
use crate::kinds::{Durability, StoreKind};
use crate::mark::Mark;
use crate::rows::View;

/// The interval at which a store that has failed tries to open again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The longest wait for those who read, before the files are closed to be opened again.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Options for opening a server's store.
///
/// ```
/// use synclayer_fjall::{Durability, ServerOptions};
///
/// let options = ServerOptions::new().durability(Durability::Buffered).cache_bytes(256 << 20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The failures that an acknowledged transaction survives. [`Durability::Synced`] unless set.
    pub durability: Durability,
    /// The most memory that hot blocks of rows take, in bytes. 64 MiB unless set.
    pub cache_bytes: u64,
    /// Bytes of changes that gather in memory before they become a file; four times as many
    /// may be in memory at a time. 16 MiB unless set. A new store keeps the size that it was made
    /// with.
    pub memtable_bytes: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { durability: Durability::Synced, cache_bytes: 64 << 20, memtable_bytes: 16 << 20 }
    }
}

impl ServerOptions {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the field `durability`.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the field `cache_bytes`.
    #[must_use]
    pub fn cache_bytes(mut self, cache_bytes: u64) -> Self {
        self.cache_bytes = cache_bytes;
        self
    }

    /// Sets the field `memtable_bytes`.
    #[must_use]
    pub fn memtable_bytes(mut self, memtable_bytes: u64) -> Self {
        self.memtable_bytes = memtable_bytes;
        self
    }
}

/// Counters of a server's store since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions that changed something.
    pub commits: u64,
    /// Syncs to the disk; 0 for ever with [`Durability::Buffered`].
    pub syncs: u64,
}

/// A server's durable store.
///
/// With [`Durability::Synced`] transactions that wait for the disk at the same time share one sync:
/// the first that waits syncs for all that have been committed, after those that are already on
/// their way. One alone waits for nobody. What isn't synced can be seen by later transactions,
/// which are synced later, and by no [`read`](ServerStore::read).
///
/// When a commit or a sync fails, the store stops: every transaction after it gets an error, and
/// those that were waiting get one too, though theirs may turn out to be there when the store is
/// opened again. Reads go on.
///
/// After a full disk, or where the process had no descriptor left, the store opens itself again: a
/// transaction that comes a second or more after the failure or the last try looks if there is room,
/// and if so reads wait until the store is open.
pub struct FjallServerStore {
    path: PathBuf,
    sizes: Sizes,
    durability: Durability,
    /// Held by a transaction from its first read until it is committed.
    writer: Mutex<Chain>,
    open: Mutex<Open>,
    /// The store was opened again, or could not be.
    reopened: Condvar,
    promises: Mutex<Promises>,
    gate: Mutex<Gate>,
    /// Those whom the one that syncs waits for have decided.
    gathered: Condvar,
    /// A sync has ended.
    ended: Condvar,
    commits: AtomicU64,
    syncs: AtomicU64,
    /// The mark, where the database's identity is still to be written into it.
    unnamed: Mutex<Option<Mark>>,
}

/// The open files.
struct Open {
    /// `None` while they are closed.
    disk: Option<Arc<Disk>>,
    /// The rows as of the last commit that may be shown.
    shown: Snapshot,
    /// No further read begins: the files are to be closed.
    closing: bool,
}

/// A commit that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Committed {
    number: u64,
    /// The number of openings before it. Another opening may give its number to another commit.
    opening: u64,
}

/// The reason why the store takes no transactions.
struct Failed {
    error: StoreError,
    /// When it may be opened again; `None` where that would help nothing, or might hide a loss.
    retry_at: Option<Instant>,
}

/// The transactions that wait for a sync of the disk.
#[derive(Default)]
struct Gate {
    /// Transactions that have begun.
    arrived: u64,
    /// Those of them that are committed, or came to nothing.
    decided: u64,
    /// The last commit that is synced.
    synced: u64,
    /// Set while a waiting transaction syncs for all: the count that must have decided before it.
    syncing: Option<u64>,
    /// The number of times that the store was opened again.
    opening: u64,
    failed: Option<Failed>,
}

impl FjallServerStore {
    /// Opens the store in a directory, or makes one there, for its owner alone. The directory may be a
    /// symbolic link.
    ///
    /// # Errors
    /// * [`InUse`]: another store has it open, in whichever process.
    /// * [`Damaged`]: something that was acknowledged isn't there. The way out is a
    ///   [repair](Self::repair), or a backup.
    /// * [`Full`]: there is no space to open it.
    /// * [`Foreign`]: the directory holds something else, or a symbolic link.
    /// * [`Other`]: an I/O error, missing rights, or rights of others to write there.
    ///
    /// [`InUse`]: synclayer_core::StoreErrorKind::InUse
    /// [`Damaged`]: synclayer_core::StoreErrorKind::Damaged
    /// [`Full`]: synclayer_core::StoreErrorKind::Full
    /// [`Foreign`]: synclayer_core::StoreErrorKind::Foreign
    /// [`Other`]: synclayer_core::StoreErrorKind::Other
    pub fn open(path: impl AsRef<Path>, options: ServerOptions) -> Result<Self, StoreError> {
        let ServerOptions { durability, cache_bytes, memtable_bytes } = options;
        let sizes = Sizes { cache_bytes, memtable_bytes, workers: 2 };
        let opened = disk::open(path.as_ref(), StoreKind::Server, sizes)?;
        let synced = opened.chain.last.number;
        let store = Self {
            path: path.as_ref().to_owned(),
            sizes,
            open: Mutex::new(Open::new(opened.disk)),
            reopened: Condvar::new(),
            durability,
            writer: Mutex::new(opened.chain),
            promises: Mutex::new(opened.promises),
            gate: Mutex::new(Gate { synced, ..Gate::default() }),
            gathered: Condvar::new(),
            ended: Condvar::new(),
            commits: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            unnamed: Mutex::new(opened.mark),
        };
        store.name_mark();
        Ok(store)
    }

    /// Closes the files and opens them again. `chain` is the writer's.
    fn reopen(&self, chain: &mut Chain) -> Result<(), StoreError> {
        failure::probe(&self.path, self.sizes.memtable_bytes)?;
        self.close()?;
        let opened = disk::open(&self.path, StoreKind::Server, self.sizes);
        let mut open = lock(&self.open);
        open.closing = false;
        self.reopened.notify_all();
        let opened = opened?;
        *open = Open::new(opened.disk);
        *chain = opened.chain;
        *lock(&self.promises) = opened.promises;
        *lock(&self.unnamed) = opened.mark;
        let mut gate = lock(&self.gate);
        gate.synced = chain.last.number;
        gate.opening += 1;
        gate.failed = None;
        self.ended.notify_all();
        Ok(())
    }

    /// Closes the files as soon as nobody reads any more.
    fn close(&self) -> Result<(), StoreError> {
        let begun = Instant::now();
        let mut open = lock(&self.open);
        open.closing = true;
        while open.disk.as_ref().is_some_and(|disk| Arc::strong_count(disk) > 1) {
            if begun.elapsed() > CLOSE_TIMEOUT {
                open.closing = false;
                self.reopened.notify_all();
                return Err(failure::in_use(&self.path, Some(std::process::id())));
            }
            drop(open);
            thread::sleep(Duration::from_millis(5));
            open = lock(&self.open);
        }
        open.disk = None;
        Ok(())
    }

    /// The files as they are open.
    fn disk(&self) -> Result<Arc<Disk>, StoreError> {
        lock(&self.open).disk.clone().ok_or_else(|| self.closed())
    }

    fn closed(&self) -> StoreError {
        self.check().err().unwrap_or_else(|| failure::stopped(&self.path))
    }

    /// Shows readers the rows as of now, or as of an earlier moment.
    fn show(&self, shown: Snapshot) {
        lock(&self.open).shown = shown;
    }

    /// Writes the database's identity into the mark, once there is one. A mark that can't be
    /// written now is written at the next opening.
    fn name_mark(&self) {
        let mut unnamed = lock(&self.unnamed);
        let Some(mark) = &mut *unnamed else { return };
        let Ok(disk) = self.disk() else { return };
        let Ok(Some(database)) = database(&disk.view()) else { return };
        let is_named = mark.database.as_ref() == Some(&database);
        mark.database = Some(database);
        if is_named || mark.write(&self.path).is_ok() {
            *unnamed = None;
        }
    }

    /// Returns the store's counters since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
        }
    }

    /// Runs one decision and commits it. Says which commit must be synced before its caller may
    /// know of what was decided: the last one that it could see.
    fn commit(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<Committed, StoreError> {
        let mut chain = lock(&self.writer);
        self.mend(&mut chain)?;
        // a clock that is set right again does: nothing has happened, and the store goes on
        clock::check(&self.path)?;
        let disk = self.disk()?;
        let batch = decide(&disk.view())?;
        batch.check_keys()?;
        if !batch.is_empty() {
            let committed = disk.commit(&mut chain, batch);
            committed
                .and_then(|()| self.committed(&disk, chain.last))
                .map_err(|error| self.fail(error))?;
            self.name_mark();
        }
        Ok(Committed { number: chain.last.number, opening: lock(&self.gate).opening })
    }

    /// Opens the store again where it has failed and that may help by now.
    fn mend(&self, chain: &mut Chain) -> Result<(), StoreError> {
        let mut gate = lock(&self.gate);
        let Some(failed) = &mut gate.failed else { return Ok(()) };
        let is_due = failed.retry_at.is_some_and(|at| at <= Instant::now());
        if !is_due {
            return Err(failed.error.clone());
        }
        drop(gate);
        self.reopen(chain).inspect_err(|error| {
            let retry_at = Some(Instant::now() + RETRY_INTERVAL);
            lock(&self.gate).failed = Some(Failed { error: error.clone(), retry_at });
        })
    }

    fn committed(&self, disk: &Disk, last: ChainLink) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        match self.durability {
            Durability::Buffered => {
                let handed = lock(&self.promises).handed(last);
                handed.map_err(|error| failure::io(&self.path, &error))?;
                self.show(disk.snapshot());
                Ok(())
            }
            Durability::Synced => Ok(()),
        }
    }

    /// Waits until a commit is synced, or syncs it.
    fn wait_synced(&self, commit: Committed) -> Result<(), StoreError> {
        let mut gate = lock(&self.gate);
        loop {
            if gate.opening != commit.opening {
                return Err(failure::stopped(&self.path));
            }
            if gate.synced >= commit.number {
                return Ok(());
            }
            if let Some(failed) = &gate.failed {
                return Err(failed.error.clone());
            }
            gate = match gate.syncing {
                Some(_) => wait(&self.ended, gate),
                None => self.lead(gate),
            };
        }
    }

    /// Syncs for all who are here.
    fn lead<'a>(&'a self, mut gate: MutexGuard<'a, Gate>) -> MutexGuard<'a, Gate> {
        // those who have come are about to commit; without them each sync would serve one or two,
        // since a sync keeps the others from committing
        let company = gate.arrived;
        gate.syncing = Some(company);
        while gate.decided < company {
            gate = wait(&self.gathered, gate);
        }
        drop(gate);
        let synced = self.sync();
        let mut gate = lock(&self.gate);
        gate.syncing = None;
        match synced {
            Ok(commit) if commit.opening == gate.opening => gate.synced = commit.number,
            Ok(_) => {}
            Err(error) => gate.failed = gate.failed.take().or_else(|| Some(Failed::new(error))),
        }
        self.ended.notify_all();
        gate
    }

    fn sync(&self) -> Result<Committed, StoreError> {
        let (last, opening, disk, snapshot) = {
            let chain = lock(&self.writer);
            let disk = self.disk()?;
            let snapshot = disk.snapshot();
            (chain.last, lock(&self.gate).opening, disk, snapshot)
        };
        disk.sync()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let promised = lock(&self.promises).synced(last);
        promised.map_err(|error| failure::io(&self.path, &error))?;
        self.show(snapshot);
        Ok(Committed { number: last.number, opening })
    }

    fn check(&self) -> Result<(), StoreError> {
        let gate = lock(&self.gate);
        gate.failed.as_ref().map_or(Ok(()), |failed| Err(failed.error.clone()))
    }

    fn fail(&self, error: StoreError) -> StoreError {
        lock(&self.gate).failed = Some(Failed::new(error.clone()));
        self.ended.notify_all();
        error
    }
}

/// A store that ends well says what the disk has: from then on that is no longer the operating
/// system's to lose.
impl Drop for FjallServerStore {
    fn drop(&mut self) {
        let last = lock(&self.writer).last;
        if self.durability == Durability::Buffered
            && self.check().is_ok()
            && let Ok(disk) = self.disk()
        {
            lock(&self.promises).end(&disk, last);
        }
    }
}

impl ServerStore for FjallServerStore {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        lock(&self.gate).arrived += 1;
        let committed = {
            let _decided = Decided(self);
            self.commit(decide)
        };
        match self.durability {
            Durability::Buffered => committed.map(|_| ()),
            Durability::Synced => self.wait_synced(committed?),
        }
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut open = lock(&self.open);
        while open.closing {
            open = wait(&self.reopened, open);
        }
        let at = open.shown.clone();
        let disk = open.disk.clone();
        drop(open);
        let disk = disk.ok_or_else(|| self.closed())?;
        read(&View { table: disk.table.clone(), at })
    }
}

impl Open {
    fn new(disk: Disk) -> Self {
        Self { shown: disk.snapshot(), disk: Some(Arc::new(disk)), closing: false }
    }
}

impl Failed {
    fn new(error: StoreError) -> Self {
        let passes = failure::passes(&error);
        Self { error, retry_at: passes.then(|| Instant::now() + RETRY_INTERVAL) }
    }
}

/// Counts a transaction as decided however it ends, by a panic too, so that nobody waits for it.
struct Decided<'a>(&'a FjallServerStore);

impl Drop for Decided<'_> {
    fn drop(&mut self) {
        let mut gate = lock(&self.0.gate);
        gate.decided += 1;
        let was_last = gate.syncing == Some(gate.decided);
        drop(gate);
        if was_last {
            self.0.gathered.notify_one();
        }
    }
}

impl fmt::Debug for FjallServerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallServerStore")
            .field("path", &self.path)
            .field("durability", &self.durability)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn wait<'a, T>(on: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    on.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Nothing that runs under one of these locks leaves its data half changed, so a panic in another
/// thread is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use synclayer_core::StoreErrorKind;

    fn put(key: &'static [u8]) -> Batch {
        let mut batch = Batch::default();
        batch.put(key, key);
        batch
    }

    fn shows(store: &FjallServerStore, key: &[u8]) -> bool {
        let mut found = false;
        let read = &mut |rows: &dyn Rows| {
            found = rows.get(key)?.is_some();
            Ok(())
        };
        store.read(read).unwrap();
        found
    }

    #[test]
    fn what_is_not_synced_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
        let number = store.commit(&mut |_| Ok(put(b"a"))).unwrap();
        assert!(!shows(&store, b"a"));
        let decide = &mut |rows: &dyn Rows| {
            assert!(rows.get(b"a")?.is_some(), "a decision stands on what was decided before");
            Ok(Batch::default())
        };
        // whoever has seen it waits for its sync, even without a change of its own
        assert_eq!(store.commit(decide), Ok(number));
        store.wait_synced(number).unwrap();
        assert!(shows(&store, b"a"));
        assert_eq!(store.stats(), Stats { commits: 1, syncs: 1 });
    }

    #[test]
    fn a_sync_waits_for_those_on_their_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
        let number = store.commit(&mut |_| Ok(put(b"a"))).unwrap();
        lock(&store.gate).arrived = 2;
        lock(&store.gate).decided = 1;
        std::thread::scope(|scope| {
            let first = scope.spawn(|| store.wait_synced(number));
            while lock(&store.gate).syncing.is_none() {
                std::thread::yield_now();
            }
            let second = store.commit(&mut |_| Ok(put(b"b"))).unwrap();
            assert!(!shows(&store, b"a"), "it didn't wait for the second one");
            drop(Decided(&store));
            store.wait_synced(second).unwrap();
            first.join().unwrap().unwrap();
        });
        assert!(shows(&store, b"b"));
        assert_eq!(store.stats(), Stats { commits: 2, syncs: 1 });
    }

    #[test]
    fn after_a_failure_nothing_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
        store.transact(&mut |_| Ok(put(b"a"))).unwrap();
        let broken = store.fail(StoreError::new(StoreErrorKind::Other, "the disk is gone"));
        let refused = store.transact(&mut |_| panic!("it was asked for a decision"));
        assert_eq!(refused, Err(broken));
        assert!(shows(&store, b"a"));
    }
}
