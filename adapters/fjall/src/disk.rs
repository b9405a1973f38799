//! The parts of both stores: a directory with a database, a lock, a chain of commits and the
//! promise of what must be there.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::{
    AbstractTree, CompressionType, Database, KeyspaceCreateOptions, PersistMode, Snapshot,
};
use synclayer_core::{Batch, Op, StoreError};

use crate::chain::{Chain, ChainLink};
use crate::clock;
use crate::failure;
use crate::journal;
use crate::kinds::StoreKind;
use crate::manifest;
use crate::mark::{self, Mark};
use crate::place::{self, Weakness, database};
use crate::rows::{Table, View, row_key};
use crate::seal::{self, Seal};
use crate::shrink::Shrinker;
use crate::watermark::{Promise, Required, Watermark, boot};

/// The longest wait of a commit for the database's threads; after it the database itself waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of the database's files that stay open, of the few hundred that a process may have.
const CACHED_FILES: usize = 100;

/// Length of the file that the database writes last when it is created.
const VERSION_BYTES: u64 = 4;

/// Memory limits of a database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) cache_bytes: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) workers: usize,
}

/// An open database, with its directory locked.
pub(crate) struct Disk {
    pub(crate) table: Table,
    // its thread has ended before the database is closed
    shrinker: Shrinker,
    db: Database,
    memtable_bytes: u64,
    // dropped behind the database: its files are as they stay
    pub(crate) seal: Seal,
    // the last field is dropped last: the lock outlives the database
    _lock: DirectoryLock,
}

/// The parts of an opened store that its writer keeps.
pub(crate) struct Opened {
    pub(crate) disk: Disk,
    pub(crate) chain: Chain,
    pub(crate) promises: Promises,
    /// `None` for a store that is of no kind.
    pub(crate) mark: Option<Mark>,
    /// Nobody but replicas has changed a client's rows.
    pub(crate) untouched: bool,
}

/// Opens the store in a directory, or makes one, and checks that everything is there.
pub(crate) fn open(path: &Path, kind: StoreKind, sizes: Sizes) -> Result<Opened, StoreError> {
    let io = |error| failure::io(path, &error);
    clock::check(path)?;
    if kind == StoreKind::Server {
        place::finish_interrupted(path).map_err(io)?;
    }
    mark::check_place(path)?;
    let lock = lock(path)?;
    let mut mark = Mark::open(path, kind)?;
    // what is refused is left as it is
    let sealed = seal::take(path);
    clear_unborn(path).map_err(io)?;
    let (file, promise) = Watermark::open(&path.join("watermark")).map_err(io)?;
    let boot = boot();
    prepare(path, kind, promise.as_ref().map(|promise| promise.required(boot)))?;
    let disk = Disk::open(path, kind, sizes, lock)?;
    let mut chain = match disk.read_chain(promise.as_ref()) {
        Ok(chain) => chain,
        Err(error) => {
            drop(disk);
            journal::put_back(&database(path)).map_err(io)?;
            return Err(error);
        }
    };
    let mut promises = Promises { file, promise: Promise::default(), boot };
    // the database has synced its journal when it read it, so all that is there is synced
    promises.synced(chain.last).map_err(io)?;
    match promise {
        None => promises.found(path).map_err(io)?,
        // its numbers will be given anew, and the old promise must not come back
        Some(promise) if promise.handed.number > chain.last.number => {
            promises.file.sync().map_err(io)?;
        }
        Some(_) => {}
    }
    journal::settle(&database(path)).map_err(io)?;
    disk.note_journals(&mut chain);
    if mark.is_none() {
        mark = Mark::of_rows(path, kind, &disk.view())?;
    }
    let untouched = sealed || chain.last.number == 0;
    Ok(Opened { disk, chain, promises, mark, untouched })
}

impl Disk {
    fn open(
        path: &Path,
        kind: StoreKind,
        sizes: Sizes,
        lock: DirectoryLock,
    ) -> Result<Self, StoreError> {
        // what can't be made sense of makes the database panic in places; it is damage as well
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(&database(path), sizes)));
        let (db, rows) = match opened {
            Ok(opened) => opened.map_err(|error| failure::fjall(kind, path, error))?,
            Err(_) => return Err(failure::damaged(kind, path, "its files make no sense")),
        };
        let table = Table { rows, path: Arc::new(path.to_owned()), kind };
        let (shrinker, memtable_bytes) = (Shrinker::new(&table.rows), sizes.memtable_bytes);
        Ok(Self { table, shrinker, db, memtable_bytes, seal: Seal::new(path), _lock: lock })
    }

    /// Puts a batch and its link of the chain into the database, for every later read to see.
    pub(crate) fn commit(&self, chain: &mut Chain, batch: Batch) -> Result<(), StoreError> {
        clock::check(&self.table.path)?;
        self.rotate()?;
        self.wait_for_tables()?;
        let ops = last_of_each_key(batch);
        let rows = &self.table.rows;
        let mut all = self.db.batch();
        let step = chain.write(&ops, &mut all, rows);
        let mut removals = 0;
        for op in ops {
            match op {
                Op::Put(key, value) => all.insert(rows, row_key(&key), value),
                Op::Delete(key) => {
                    removals += 1;
                    all.remove(rows, row_key(&key));
                }
            }
        }
        all.commit().map_err(|error| self.table.failure(error))?;
        chain.advance(step);
        self.shrinker.committed(removals, rows).map_err(|error| self.table.failure(error))?;
        if chain.wants_journals() {
            self.note_journals(chain);
        }
        Ok(())
    }

    /// Hands the gathered changes over to become a file. The database's threads would do so by
    /// themselves, but not while they are busy, and meanwhile memory would grow without bounds.
    fn rotate(&self) -> Result<(), StoreError> {
        let rows = &self.table.rows;
        if rows.tree.active_memtable().size() > self.memtable_bytes {
            rows.rotate_memtable().map_err(|error| self.table.failure(error))?;
        }
        Ok(())
    }

    /// Lets the database's threads catch up. It would do so by itself, but it gathers more memory
    /// before, sleeps for long, and sleeps for ever when those threads have met a full disk.
    fn wait_for_tables(&self) -> Result<(), StoreError> {
        let rows = &self.table.rows;
        let behind = || rows.sealed_memtable_count() >= 2 || rows.tree.l0_run_count() >= 19;
        if !behind() {
            return Ok(());
        }
        let begun = Instant::now();
        while behind() && begun.elapsed() < PATIENCE {
            self.db.persist(PersistMode::Buffer).map_err(|error| self.table.failure(error))?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until the disk has every commit made so far.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.db.persist(PersistMode::SyncData).map_err(|error| self.table.failure(error))
    }

    /// The rows as they are now, and stay.
    pub(crate) fn view(&self) -> View {
        View { table: self.table.clone(), at: self.snapshot() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    fn read_chain(&self, promise: Option<&Promise>) -> Result<Chain, StoreError> {
        let mut broken = false;
        let mut check = |link: ChainLink| {
            let handed = promise.map(|promise| promise.handed);
            broken |= handed.is_some_and(|handed| handed.number == link.number && handed != link);
        };
        let chain = Chain::read(&self.table.rows, &mut check);
        let damaged = |what: String| failure::damaged(self.table.kind, &self.table.path, what);
        let chain = chain.map_err(|error| self.table.failure(error))?.map_err(damaged)?;
        let last = chain.last.number;
        let required = match promise {
            // what the operating system may have lost is told by the journals, before they are read
            Some(promise) => promise.synced,
            None if last == 0 => 0,
            None => return Err(damaged("its file \"watermark\" is missing or unreadable".into())),
        };
        if last < required {
            return Err(damaged(journal::ends_early(last, required)));
        }
        if broken {
            return Err(damaged("its files are of different times".into()));
        }
        Ok(chain)
    }

    /// Which journals there are is only needed to forget what isn't needed: errors do no harm.
    fn note_journals(&self, chain: &mut Chain) {
        let Ok(journals) = journal::list(&database(&self.table.path)) else { return };
        if let (Some((oldest, _)), Some((newest, _))) = (journals.first(), journals.last()) {
            chain.journals(*oldest, *newest);
        }
    }
}

/// The file of what must be there, and who writes it.
pub(crate) struct Promises {
    file: Watermark,
    promise: Promise,
    boot: u64,
}

impl Promises {
    /// The operating system has a commit and all before it.
    pub(crate) fn handed(&mut self, last: ChainLink) -> io::Result<()> {
        self.promise = Promise { handed: last, boot: self.boot, ..self.promise };
        self.file.write(&self.promise)
    }

    /// The disk has a commit and all before it.
    pub(crate) fn synced(&mut self, last: ChainLink) -> io::Result<()> {
        self.promise = Promise { handed: last, synced: last.number, boot: self.boot };
        self.file.write(&self.promise)
    }

    /// Syncs what was only handed over. Nobody is left to hear of a failure, and nothing was
    /// promised that it would break.
    pub(crate) fn end(&mut self, disk: &Disk, last: ChainLink) {
        if disk.sync().is_ok() {
            drop(self.synced(last));
        }
    }

    /// Makes sure that a new store's file is there after a loss of power.
    fn found(&self, path: &Path) -> io::Result<()> {
        self.file.sync()?;
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

/// The lock of a store's directory, held until it is dropped.
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    /// A process that another thread is starting just then shares the open file until it runs. Closing
    /// the file would leave it the lock for that long.
    fn drop(&mut self) {
        drop(self.0.unlock());
    }
}

pub(crate) fn lock(path: &Path) -> Result<DirectoryLock, StoreError> {
    let io = |error| failure::io(path, &error);
    place::make(path).map_err(io)?;
    // before anything in it is written: a link may lead anywhere
    match place::weakness(path).map_err(io)? {
        None => {}
        Some(Weakness::Link(entry)) => return Err(failure::link(&entry)),
        Some(Weakness::Writable(entry)) => return Err(failure::writable(path, &entry)),
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options.open(path.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {
            // only people read it, so it does no harm if it can't be written
            drop(say_who(&lock));
            Ok(DirectoryLock(lock))
        }
        Err(TryLockError::WouldBlock) => Err(failure::in_use(path, who_has(&lock))),
        Err(TryLockError::Error(error)) => Err(failure::io(path, &error)),
    }
}

/// Writes into a lock that this process has it.
fn say_who(mut lock: &File) -> io::Result<()> {
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())
}

/// The process that has a lock, as far as the lock tells.
fn who_has(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Takes away what a process left that ended while it made a database, which the database doesn't
/// open. Nothing was in it yet: no promise was ever made of it.
fn clear_unborn(path: &Path) -> io::Result<()> {
    let db = database(path);
    let has_promise = len(&path.join("watermark"))? > 0;
    if has_promise || !db.try_exists()? || len(&db.join("version"))? >= VERSION_BYTES {
        return Ok(());
    }
    fs::remove_dir_all(db)
}

/// Returns the length of a file, 0 if there is none.
fn len(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Looks at a database's files before the database does.
fn prepare(path: &Path, kind: StoreKind, required: Option<Required>) -> Result<(), StoreError> {
    let db = database(path);
    if !db.exists() {
        return Ok(());
    }
    let sound = match manifest::check(&db) {
        Ok(Ok(())) => journal::prepare(&db, required),
        flawed => flawed,
    };
    let sound = sound.map_err(|error| failure::io(path, &error))?;
    sound.map_err(|flaw| failure::damaged(kind, path, flaw))
}

/// Opens a database, or makes one.
pub(crate) fn open_database(
    path: &Path,
    sizes: Sizes,
) -> fjall::Result<(Database, fjall::Keyspace)> {
    let db = Database::builder(path)
        .cache_size(sizes.cache_bytes)
        .journal_compression(CompressionType::None)
        .worker_threads(sizes.workers.max(1))
        .max_cached_files(Some(CACHED_FILES))
        .open()?;
    // tables of about what one compaction takes in: larger ones would be written anew again and again
    let strategy = Leveled::default().with_table_target_size(sizes.memtable_bytes * 4);
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(sizes.memtable_bytes)
            .compaction_strategy(Arc::new(strategy.clone()))
    };
    let rows = db.keyspace("rows", options)?;
    Ok((db, rows))
}

/// The database gives all changes of a batch one sequence number, so a key may occur only once.
fn last_of_each_key(batch: Batch) -> Vec<Op> {
    let mut ops: Vec<Op> = batch.into_iter().collect();
    if ops.is_sorted_by(|one, next| one.key() < next.key()) {
        return ops;
    }
    let mut seen: HashSet<Bytes> = HashSet::with_capacity(ops.len());
    ops.reverse();
    ops.retain(|op| seen.insert(op.key().clone()));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, workers: 1 };

    fn rows_of_chain(disk: &Disk) -> u64 {
        disk.table.rows.prefix(b"c").count() as u64
    }

    /// Writes as much as a journal holds, and more, until the rows of the chain that its end makes
    /// needless go; the rest is still a chain.
    #[test]
    fn the_chain_is_no_longer_than_the_journals() {
        // in memory where there is such a place: a hundred megabytes would wait for a disk
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
            .unwrap();
        let mut opened = open(dir.path(), StoreKind::Client, SIZES).unwrap();
        let mut commits: u64 = 0;
        while opened.chain.first < 100 {
            assert!(commits < 60_000, "no row of the chain goes");
            let mut batch = Batch::default();
            batch.put(commits.to_be_bytes()[7..].to_vec(), vec![commits as u8; 40 << 10]);
            opened.disk.commit(&mut opened.chain, batch).unwrap();
            commits += 1;
        }
        let last = opened.chain.last;
        let left = last.number + 1 - opened.chain.first;
        assert_eq!((last.number, rows_of_chain(&opened.disk)), (commits, left));
        opened.promises.synced(last).unwrap();
        drop(opened);
        let mut opened = open(dir.path(), StoreKind::Client, SIZES).unwrap();
        assert_eq!((opened.chain.last, rows_of_chain(&opened.disk)), (last, left));
        opened.disk.commit(&mut opened.chain, Batch::default()).unwrap();
        drop(opened);
        assert_eq!(
            open(dir.path(), StoreKind::Client, SIZES).unwrap().chain.last.number,
            commits + 1
        );
    }
}
