//! The suite that every store passes, and what it leaves to threads.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use synclayer_core::ServerStore;
use synclayer_core::testing::conformance::{self, ClientStores, ServerStores};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use tempfile::TempDir;

struct Dirs {
    dir: TempDir,
    made: u32,
}

impl Dirs {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), made: 0 }
    }

    fn next(&mut self) -> PathBuf {
        self.made += 1;
        self.current()
    }

    fn current(&self) -> PathBuf {
        self.dir.path().join(self.made.to_string())
    }
}

struct Clients {
    dirs: Dirs,
    durability: Durability,
    synced: Option<Receiver<()>>,
}

impl Clients {
    fn new(durability: Durability) -> Self {
        Self { dirs: Dirs::new(), durability, synced: None }
    }

    fn open(&mut self) -> FjallClientStore {
        let (sender, receiver) = channel();
        self.synced = Some(receiver);
        let on_durable = move || sender.send(()).unwrap_or_default();
        let options = ClientOptions::new().durability(self.durability).on_durable(on_durable);
        FjallClientStore::open(self.dirs.current(), options).unwrap()
    }
}

impl ClientStores for Clients {
    type Store = FjallClientStore;

    fn fresh(&mut self) -> FjallClientStore {
        self.dirs.next();
        self.open()
    }

    fn reopen(&mut self, store: FjallClientStore) -> Option<FjallClientStore> {
        drop(store);
        Some(self.open())
    }

    fn work(&mut self, _: &mut FjallClientStore) {
        let synced = self.synced.as_ref().unwrap();
        synced.recv_timeout(Duration::from_secs(10)).expect("no sync within ten seconds");
    }
}

struct Servers {
    dirs: Dirs,
    durability: Durability,
}

impl Servers {
    fn new(durability: Durability) -> Self {
        Self { dirs: Dirs::new(), durability }
    }

    fn open(&self) -> FjallServerStore {
        let options = ServerOptions::new().durability(self.durability);
        FjallServerStore::open(self.dirs.current(), options).unwrap()
    }
}

impl ServerStores for Servers {
    type Store = FjallServerStore;

    fn fresh(&mut self) -> FjallServerStore {
        self.dirs.next();
        self.open()
    }

    fn reopen(&mut self, store: FjallServerStore) -> Option<FjallServerStore> {
        drop(store);
        Some(self.open())
    }
}

#[test]
fn a_buffered_client_store_conforms() {
    conformance::client_store(&mut Clients::new(Durability::Buffered));
}

#[test]
fn a_synced_client_store_conforms() {
    conformance::client_store(&mut Clients::new(Durability::Synced));
}

#[test]
fn a_buffered_server_store_conforms() {
    conformance::server_store(&mut Servers::new(Durability::Buffered));
}

#[test]
fn a_synced_server_store_conforms() {
    conformance::server_store(&mut Servers::new(Durability::Synced));
}

#[test]
fn fifty_writers_share_their_syncs() {
    let mut servers = Servers::new(Durability::Synced);
    let store = servers.fresh();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| conformance::increment(&store, 20));
        }
    });
    conformance::check_count(&store, 1_000);
    let stats = store.stats();
    assert_eq!(stats.commits, 1_000);
    assert!(stats.syncs * 10 < stats.commits, "too many syncs: {stats:?}");
    let store = servers.reopen(store).unwrap();
    conformance::check_count(&store, 1_000);
}

#[test]
fn one_writer_alone_syncs_each_time() {
    let store = Servers::new(Durability::Synced).fresh();
    conformance::increment(&store, 20);
    let stats = store.stats();
    assert_eq!((stats.commits, stats.syncs), (20, 20));
    store.transact(&mut |_| Ok(synclayer_core::Batch::default())).unwrap();
    assert_eq!(store.stats(), stats, "what changes nothing needs no sync");
}

#[test]
fn threads_meet_in_a_buffered_store_as_well() {
    let store = Servers::new(Durability::Buffered).fresh();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| conformance::increment(&store, 200));
        }
    });
    conformance::check_count(&store, 1_600);
    assert_eq!(store.stats().syncs, 0);
}

/// A transaction that panics must not leave the others waiting.
#[test]
fn a_panic_in_a_decision_stops_nobody() {
    let store = Servers::new(Durability::Synced).fresh();
    std::thread::scope(|scope| {
        let panics = scope.spawn(|| store.transact(&mut |_| panic!("on purpose")));
        assert!(panics.join().is_err());
        for _ in 0..4 {
            scope.spawn(|| conformance::increment(&store, 10));
        }
    });
    conformance::check_count(&store, 40);
}
