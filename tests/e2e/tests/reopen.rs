//! A client whose disk was full, or whose process had no descriptor left, goes on by itself. The tests
//! take turns, since the limit of descriptors is the whole process's.
#![cfg(unix)]
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[path = "../../../adapters/fjall/examples/torture/files.rs"]
#[allow(dead_code, reason = "the torture uses the rest")]
mod files;
#[path = "../../../adapters/fjall/examples/torture/full.rs"]
#[allow(dead_code, reason = "the torture uses the rest")]
mod full;
#[path = "../../../adapters/fjall/examples/torture/workload.rs"]
#[allow(dead_code, reason = "the torture uses the rest")]
mod workload;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use synclayer_core::StoreErrorKind;
use synclayer_fjall::{ClientOptions, Durability, FjallClientStore};
use synclayer_tokio::{Store, SyncConfig, SyncError};
use tokio::runtime::Runtime;

static TURN: Mutex<()> = Mutex::new(());

/// The time within which a client that can go on does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client, as far as these tests need one.
trait Client {
    fn open(config: SyncConfig) -> Self;
    fn save(&self, id: &str, document: &Value) -> Result<(), SyncError>;
    fn has(&self, id: &str) -> bool;
    fn close(self);
}

struct Tokio(Runtime, synclayer_tokio::SyncLayer);

impl Client for Tokio {
    fn open(config: SyncConfig) -> Self {
        let runtime = Runtime::new().unwrap();
        let sync = runtime.block_on(synclayer_tokio::SyncLayer::open(config)).unwrap();
        Self(runtime, sync)
    }

    fn save(&self, id: &str, document: &Value) -> Result<(), SyncError> {
        let todos = self.1.collection("todos").unwrap();
        self.0.block_on(todos.save_with_id(id, document)).map(drop)
    }

    fn has(&self, id: &str) -> bool {
        let todos = self.1.collection("todos").unwrap();
        self.0.block_on(todos.get(id)).unwrap().is_some()
    }

    fn close(self) {
        self.0.block_on(self.1.close());
    }
}

struct Blocking(synclayer_blocking::SyncLayer);

impl Client for Blocking {
    fn open(config: SyncConfig) -> Self {
        Self(synclayer_blocking::SyncLayer::open(config).unwrap())
    }

    fn save(&self, id: &str, document: &Value) -> Result<(), SyncError> {
        self.0.collection("todos").unwrap().save_with_id(id, document).map(drop)
    }

    fn has(&self, id: &str) -> bool {
        self.0.collection("todos").unwrap().get(id).unwrap().is_some()
    }

    fn close(self) {
        self.0.close();
    }
}

fn config(path: &Path, durability: Durability) -> SyncConfig {
    let path = PathBuf::from(path);
    let store = Store::opened_by(move |on_durable| {
        let options = ClientOptions::new().durability(durability).on_durable(on_durable);
        Ok(Box::new(FjallClientStore::open(&path, options)?))
    });
    SyncConfig::new("http://localhost:1").connect_at_start(false).store(store)
}

/// Saves until that fails, gives back what had run out, and saves until that succeeds again.
fn goes_on<C: Client>(config: SyncConfig, begin: impl FnOnce(), end: impl FnOnce()) -> SyncError {
    let document = json!({"text": "x".repeat(100_000)});
    let client = C::open(config);
    client.save("before", &document).unwrap();
    begin();
    let failed = (0..5_000).find_map(|n| Some((n, client.save(&n.to_string(), &document).err()?)));
    let (failed, error) = failed.expect("it never fails");
    assert!(client.save("not now", &document).is_err());
    end();
    let begun = Instant::now();
    while let Err(error) = client.save("again", &document) {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        thread::park_timeout(Duration::from_millis(50));
    }
    eprintln!("after {:?}", begun.elapsed());
    client.save("again", &json!({})).unwrap();
    for n in 0..failed {
        assert!(client.has(&n.to_string()), "{n} is missing");
    }
    assert!(client.has("before"));
    client.close();
    error
}

fn is_of_kind(error: &SyncError, kind: StoreErrorKind) -> bool {
    matches!(error, SyncError::Store(error) if error.kind == kind)
}

fn after_a_full_disk<C: Client>() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for durability in [Durability::Synced, Durability::Buffered] {
        let Some(disk) = full::SmallDisk::mount(48) else { return };
        let ballast = disk.path().with_file_name("ballast");
        std::fs::write(&ballast, vec![1; 24 << 20]).unwrap();
        let make_room = || std::fs::remove_file(ballast).unwrap();
        let error = goes_on::<C>(config(&disk.path(), durability), || (), make_room);
        assert!(is_of_kind(&error, StoreErrorKind::Full), "{error}");
    }
}

fn without_descriptors<C: Client>() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
    for durability in [Durability::Synced, Durability::Buffered] {
        let dir = tempfile::tempdir().unwrap();
        // what is open stays so, and nothing more is opened
        let set = |soft| rlimit::Resource::NOFILE.set(soft, hard).unwrap();
        let error = goes_on::<C>(config(dir.path(), durability), || set(3), || set(soft));
        assert!(is_of_kind(&error, StoreErrorKind::Other), "{error}");
    }
}

#[test]
fn the_tokio_client_goes_on_when_its_full_disk_has_room_again() {
    after_a_full_disk::<Tokio>();
}

#[test]
fn the_blocking_client_goes_on_when_its_full_disk_has_room_again() {
    after_a_full_disk::<Blocking>();
}

#[test]
fn the_tokio_client_goes_on_when_the_process_has_descriptors_again() {
    without_descriptors::<Tokio>();
}

#[test]
fn the_blocking_client_goes_on_when_the_process_has_descriptors_again() {
    without_descriptors::<Blocking>();
}
