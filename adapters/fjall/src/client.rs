//! The client's store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use synclayer_core::{Batch, ClientStore, CommitNumber, Rows, StoreError, StoreErrorKind, Visit};

use crate::chain::{Chain, ChainLink};
use crate::disk::{self, Disk, Promises, Sizes};
use crate::failure;
use crate::kinds::{Durability, StoreKind};
use crate::rows::Latest;
use crate::salvage;

/// Options for opening a client's store.
///
/// ```
/// use synclayer_fjall::{ClientOptions, Durability};
///
/// let options = ClientOptions::new().durability(Durability::Synced).cache_bytes(8 << 20);
/// ```
#[non_exhaustive]
pub struct ClientOptions {
    /// The failures that an acknowledged commit survives. [`Durability::Buffered`] unless set.
    pub durability: Durability,
    /// The most memory that hot blocks of rows take, in bytes. 8 MiB unless set: the system keeps
    /// more of the files at hand.
    pub cache_bytes: u64,
    /// Bytes of changes that gather in memory before they become a file; four times as many
    /// may be in memory at a time. 1 MiB unless set. A new store keeps the size that it was made
    /// with.
    pub memtable_bytes: u64,
    /// Called, with [`Durability::Synced`], by a thread of the store's whenever
    /// [`durable`](ClientStore::durable) has something new to say: a larger number, or an error.
    /// It must return soon, and must not drop the store.
    pub on_durable: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Buffered,
            cache_bytes: 8 << 20,
            memtable_bytes: 1 << 20,
            on_durable: None,
        }
    }
}

impl ClientOptions {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the field `on_durable`.
    #[must_use]
    pub fn on_durable(mut self, on_durable: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_durable = Some(Box::new(on_durable));
        self
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

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("durability", &self.durability)
            .field("cache_bytes", &self.cache_bytes)
            .field("memtable_bytes", &self.memtable_bytes)
            .finish_non_exhaustive()
    }
}

/// A client's durable store.
///
/// With [`Durability::Buffered`] every commit is durable when it returns, and a flush has nothing
/// to do. With [`Durability::Synced`] one thread syncs what is flushed: all flushes that wait when
/// it turns to them share one sync.
pub struct FjallClientStore {
    rows: Latest,
    chain: Chain,
    last: CommitNumber,
    failed: Option<StoreError>,
    mode: Mode,
    /// Nobody but replicas had changed the rows when the store was opened.
    untouched: bool,
    /// A replica answers for the rows.
    proved: bool,
    disk: Arc<Disk>,
}

enum Mode {
    Buffered(Promises),
    Synced(Flusher),
}

impl FjallClientStore {
    /// Opens the store in a directory, or makes one there, for its owner alone. The directory may be a
    /// symbolic link.
    ///
    /// # Errors
    /// * [`InUse`](StoreErrorKind::InUse): another store has it open, in whichever process.
    /// * [`Damaged`](StoreErrorKind::Damaged): something that was acknowledged isn't there. The
    ///   way out is [`salvage`](Self::salvage), [`move_aside`](Self::move_aside), and opening an
    ///   empty store, which syncs from the server.
    /// * [`Full`](StoreErrorKind::Full): there is no space to open it.
    /// * [`Foreign`](StoreErrorKind::Foreign): the directory holds something else, or a symbolic link.
    /// * [`Other`](StoreErrorKind::Other): an I/O error, missing rights, or rights of others to write
    ///   there.
    pub fn open(path: impl AsRef<Path>, options: ClientOptions) -> Result<Self, StoreError> {
        let ClientOptions { durability, cache_bytes, memtable_bytes, on_durable } = options;
        let sizes = Sizes { cache_bytes, memtable_bytes, workers: 1 };
        let opened = disk::open(path.as_ref(), StoreKind::Client, sizes)?;
        let disk = Arc::new(opened.disk);
        let mode = match durability {
            Durability::Buffered => Mode::Buffered(opened.promises),
            Durability::Synced => {
                let on_durable = on_durable.unwrap_or_else(|| Box::new(|| ()));
                let flusher = Flusher::start(disk.clone(), opened.promises, on_durable);
                Mode::Synced(flusher.map_err(|error| failure::io(path.as_ref(), &error))?)
            }
        };
        Ok(Self {
            rows: Latest(disk.table.clone()),
            chain: opened.chain,
            last: CommitNumber(0),
            failed: None,
            mode,
            untouched: opened.untouched,
            proved: false,
            disk,
        })
    }

    /// Reads what can still be read of a damaged store: the rows whose keys start with a prefix,
    /// in the order of their keys. Rows may be missing, and old ones may have come back.
    ///
    /// # Errors
    /// When nothing can be read at all, and when the store is in use.
    pub fn salvage(
        path: impl AsRef<Path>,
        prefix: &[u8],
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        salvage::salvage(path.as_ref(), prefix)
    }

    /// Counts the acknowledged commits of a damaged store that can't be read, as far as their
    /// numbers tell. Rows that only they held are lost, unsent writes too.
    ///
    /// # Errors
    /// As [`salvage`](Self::salvage).
    pub fn lost_commits(path: impl AsRef<Path>) -> Result<u64, StoreError> {
        salvage::lost_commits(path.as_ref())
    }

    /// Renames a store's directory, so that a new store can be made in its place, and says what it
    /// is called now: the same name with `.damaged-1` behind it, or the next number that is free.
    ///
    /// # Errors
    /// When the store is in use, or the directory can't be renamed.
    pub fn move_aside(path: impl AsRef<Path>) -> Result<PathBuf, StoreError> {
        salvage::move_aside(path.as_ref())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn store(&mut self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.disk.commit(&mut self.chain, batch)?;
        match &mut self.mode {
            Mode::Buffered(promises) => {
                let handed = promises.handed(self.chain.last);
                handed.map_err(|error| failure::io(&self.disk.table.path, &error))
            }
            Mode::Synced(_) => Ok(()),
        }
    }
}

impl ClientStore for FjallClientStore {
    fn rows(&self) -> &dyn Rows {
        &self.rows
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        batch.check_keys()?;
        if number <= self.last {
            let message = format!("commit {number} came after commit {}", self.last);
            return Err(StoreError::new(StoreErrorKind::Other, message));
        }
        if let Mode::Synced(flusher) = &self.mode {
            flusher.durable()?;
        }
        let stored = self.store(batch);
        self.failed = stored.clone().err();
        stored?;
        self.last = number;
        if let Mode::Synced(flusher) = &self.mode {
            flusher.committed(number, self.chain.last);
        }
        Ok(())
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.check()?;
        match &self.mode {
            Mode::Buffered(_) => Ok(()),
            Mode::Synced(flusher) => flusher.flush(up_to),
        }
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.check()?;
        match &self.mode {
            Mode::Buffered(_) => Ok(self.last),
            Mode::Synced(flusher) => flusher.durable(),
        }
    }

    fn proves_rows(&mut self) -> bool {
        self.proved = self.untouched;
        self.untouched
    }

    fn rows_are_proved(&mut self) {
        self.proved = true;
    }

    fn reader(&self) -> Option<Arc<dyn Rows + Send + Sync>> {
        Some(Arc::new(Reader { rows: Latest(self.disk.table.clone()), _disk: self.disk.clone() }))
    }
}

/// A view of the rows for other threads. While it is there, the directory stays locked.
struct Reader {
    rows: Latest,
    _disk: Arc<Disk>,
}

impl Rows for Reader {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rows.scan(from, to, visit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.rows.last(from, to)
    }
}

/// A store that ends well says what the disk has: from then on that is no longer the operating
/// system's to lose.
impl Drop for FjallClientStore {
    fn drop(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let failed = match &mut self.mode {
            Mode::Buffered(promises) => {
                promises.end(&self.disk, self.chain.last);
                false
            }
            Mode::Synced(flusher) => flusher.durable().is_err(),
        };
        if self.proved && !failed {
            self.disk.seal.want();
        }
    }
}

impl fmt::Debug for FjallClientStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallClientStore")
            .field("path", &self.disk.table.path)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// The thread that syncs, and what it is told.
struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    committed: (CommitNumber, ChainLink),
    asked: CommitNumber,
    durable: CommitNumber,
    failed: Option<StoreError>,
    ended: bool,
}

impl Flusher {
    fn start(
        disk: Arc<Disk>,
        promises: Promises,
        on_durable: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let run = move || theirs.run(&disk, promises, &on_durable);
        let thread = thread::Builder::new().name("synclayer-flush".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn committed(&self, number: CommitNumber, last: ChainLink) {
        self.shared.work().committed = (number, last);
    }

    fn flush(&self, up_to: CommitNumber) -> Result<(), StoreError> {
        let mut work = self.shared.work();
        if let Some(error) = &work.failed {
            return Err(error.clone());
        }
        work.asked = work.asked.max(up_to.min(work.committed.0));
        drop(work);
        self.shared.changed.notify_one();
        Ok(())
    }

    fn durable(&self) -> Result<CommitNumber, StoreError> {
        let work = self.shared.work();
        work.failed.clone().map_or(Ok(work.durable), Err)
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.work().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // a panic in `on_durable` has been reported where it happened
            drop(thread.join());
        }
    }
}

impl Shared {
    /// Nothing that runs under this lock can leave the work half changed.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, disk: &Disk, mut promises: Promises, on_durable: &dyn Fn()) {
        while let Some((number, link)) = self.next() {
            let synced = disk.sync().and_then(|()| {
                let promised = promises.synced(link);
                promised.map_err(|error| failure::io(&disk.table.path, &error))
            });
            let failed = synced.is_err();
            let mut work = self.work();
            match synced {
                Ok(()) => work.durable = number,
                Err(error) => work.failed = Some(error),
            }
            drop(work);
            on_durable();
            if failed {
                return;
            }
        }
    }

    /// Waits for something to sync, and says what a sync that starts now will cover.
    fn next(&self) -> Option<(CommitNumber, ChainLink)> {
        let idle = |work: &mut Work| !work.ended && work.asked <= work.durable;
        let work = self.changed.wait_while(self.work(), idle);
        let work = work.unwrap_or_else(PoisonError::into_inner);
        (!work.ended).then_some(work.committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::Watermark;

    #[test]
    fn a_store_that_ends_well_outlives_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let required = || {
            let (_, promise) = Watermark::open(&dir.path().join("watermark")).unwrap();
            promise.unwrap().synced
        };
        let mut store = FjallClientStore::open(dir.path(), ClientOptions::default()).unwrap();
        let mut batch = Batch::default();
        batch.put(&b"key"[..], &b"value"[..]);
        store.commit(CommitNumber(7), batch).unwrap();
        assert_eq!(required(), 0);
        drop(store);
        assert_eq!(required(), 1);
    }
}
