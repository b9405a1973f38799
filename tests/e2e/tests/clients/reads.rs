//! Reads of records beside the engine: they see what was written before, wait for nobody, and let the
//! store go when the client ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;

use bytes::Bytes;
use serde_json::json;
use synclayer_core::{Batch, ClientStore, CommitNumber, Rows, StoreError, Visit};
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_tokio::{Store, SyncConfig, SyncError, SyncLayer};
use tokio::time::timeout;

use crate::support::{TIMEOUT, TODOS, on_disk, runtime};

fn offline(store: Store) -> SyncConfig {
    SyncConfig::new("http://127.0.0.1:1").connect_at_start(false).store(store)
}

#[test]
fn a_get_sees_each_write_that_was_made_before_it() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let sync = SyncLayer::open(offline(on_disk(dir.path()))).await.unwrap();
        let todos = sync.collection(TODOS).unwrap();
        for n in 0..500 {
            let id = format!("r{n}");
            let seen = |record: Option<synclayer_tokio::Record>| {
                record.unwrap().document.text("n").unwrap().to_owned()
            };
            todos.save_with_id(&id, &json!({ "n": n })).await.unwrap();
            assert_eq!(seen(todos.get(&id).await.unwrap()), n.to_string(), "an awaited save");
            // made before the get, and not yet carried out
            let (update, later) = (json!({ "n": n + 1 }), todos.clone());
            let mut saving = Box::pin(later.update(&id, &update));
            let made = saving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(seen(todos.get(&id).await.unwrap()), (n + 1).to_string(), "one under way");
            if made.is_pending() {
                saving.await.unwrap();
            }
            todos.delete(&id).await.unwrap();
            assert_eq!(todos.get(&id).await.unwrap(), None, "an awaited delete");
        }
        sync.close().await;
    });
}

#[test]
fn a_get_joins_a_collection_that_was_left() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let sync = SyncLayer::open(offline(on_disk(dir.path()))).await.unwrap();
        let todos = sync.collection(TODOS).unwrap();
        for _ in 0..20 {
            assert_eq!(todos.get("nobody").await.unwrap(), None);
            let collections = sync.status().await.unwrap().collections;
            assert!(collections.iter().any(|(name, status)| &**name == TODOS && status.in_use));
            todos.unsubscribe().await.unwrap();
            let collections = sync.status().await.unwrap().collections;
            assert!(collections.values().all(|status| !status.in_use), "it was left");
        }
        sync.close().await;
    });
}

#[test]
fn a_get_does_not_wait_while_the_engine_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (release, released) = channel();
    let (busy, path) = (Arc::new(AtomicBool::new(false)), dir.path().to_owned());
    let (scans, gate) = (busy.clone(), Arc::new(Mutex::new(Some(released))));
    let store = Store::opened_by(move |_| {
        let gate = gate.lock().unwrap().take();
        Ok(Box::new(Gated { store: open(&path)?, scans: scans.clone(), gate: Mutex::new(gate) }))
    });
    runtime().block_on(async {
        let sync = SyncLayer::open(offline(store)).await.unwrap();
        let todos = sync.collection(TODOS).unwrap();
        todos.save_with_id("milk", &json!({ "n": 1 })).await.unwrap();
        busy.store(true, Ordering::SeqCst);
        let all = tokio::spawn({
            let todos = todos.clone();
            async move { todos.get_all().await }
        });
        while busy.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let milk = timeout(TIMEOUT, todos.get("milk")).await.expect("it waits for the engine");
        assert!(milk.unwrap().is_some());
        assert!(!all.is_finished(), "the engine was busy");
        Sender::send(&release, ()).unwrap();
        assert_eq!(all.await.unwrap().unwrap().len(), 1);
        sync.close().await;
    });
}

/// However often a thread reads, the store is closed when the client is.
#[test]
fn a_client_that_closes_lets_its_store_go_under_readers() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let sync = synclayer_blocking::SyncLayer::open(offline(on_disk(dir.path()))).unwrap();
        let todos = sync.collection(TODOS).unwrap();
        todos.save_with_id("milk", &json!({ "n": 1 })).unwrap();
        let reader = thread::spawn(move || {
            loop {
                match todos.get("milk") {
                    Ok(milk) => assert!(milk.is_some()),
                    Err(error) => return error,
                }
            }
        });
        sync.close();
        drop(open(dir.path()).expect("the store is closed"));
        assert_eq!(reader.join().unwrap(), SyncError::Closed);
    }
}

fn open(dir: &Path) -> Result<FjallClientStore, StoreError> {
    FjallClientStore::open(dir, ClientOptions::default())
}

/// A store whose next scan waits at a gate when it is told to.
struct Gated {
    store: FjallClientStore,
    scans: Arc<AtomicBool>,
    gate: Mutex<Option<Receiver<()>>>,
}

impl Rows for Gated {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.rows().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if self.scans.swap(false, Ordering::SeqCst)
            && let Some(gate) = self.gate.lock().unwrap().take()
        {
            gate.recv().unwrap();
        }
        self.store.rows().scan(from, to, visit)
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.store.rows().last(from, to)
    }
}

impl ClientStore for Gated {
    fn rows(&self) -> &dyn Rows {
        self
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(number, batch)
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.store.flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.store.durable()
    }

    fn reader(&self) -> Option<Arc<dyn Rows + Send + Sync>> {
        self.store.reader()
    }
}
