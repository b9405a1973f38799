//! A server on a free port, which may go away and come back with what it holds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use synclayer_fjall::{Durability, FjallServerStore, ServerOptions};
use synclayer_server::{MemoryServerStore, Server, ServerConfig};
use synclayer_tokio::{StoreError, StoreErrorKind};
use tempfile::TempDir;

use crate::proxy::{Proxy, Target};
use crate::wait::{TIMEOUT, soon};

/// A server and its store.
pub struct Host {
    pub config: ServerConfig,
    pub target: Target,
    storage: Storage,
    server: Option<Server>,
}

enum Storage {
    Memory(Arc<MemoryServerStore>),
    /// The store, while the server runs.
    Disk(TempDir, Weak<FjallServerStore>),
}

impl Host {
    /// One with a store on disk.
    pub async fn start() -> Self {
        Self::with(ServerConfig::default()).await
    }

    /// One with a store on disk, and this configuration.
    pub async fn with(config: ServerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::of(config, Storage::Disk(dir, Weak::new())).await
    }

    /// One with a store in memory, which outlives the server.
    pub async fn in_memory(config: ServerConfig) -> Self {
        Self::of(config, Storage::Memory(Arc::new(MemoryServerStore::new()))).await
    }

    async fn of(config: ServerConfig, storage: Storage) -> Self {
        let mut host = Self { config, target: Target::default(), storage, server: None };
        host.run().await;
        host
    }

    /// Opens the store and serves it, on a port of its own.
    pub async fn run(&mut self) {
        let config = self.config.clone();
        let server = match &mut self.storage {
            Storage::Memory(store) => Server::bind(config, Arc::clone(store) as _).await,
            Storage::Disk(dir, running) => {
                let options = ServerOptions::new().durability(Durability::Buffered);
                let open = || FjallServerStore::open(dir.path().join("server"), options.clone());
                let store = Arc::new(when_free(open).unwrap());
                *running = Arc::downgrade(&store);
                Server::bind(config, store).await
            }
        };
        let server = server.unwrap();
        self.target.set(Some(server.local_addr()));
        self.server = Some(server);
    }

    /// Shuts the server down, and closes a store on disk.
    pub async fn stop(&mut self) {
        self.target.set(None);
        soon("the server's end", self.server.take().unwrap().shutdown()).await;
        if let Storage::Disk(_, store) = &self.storage {
            soon("the end of the store", async {
                while store.strong_count() > 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }

    /// The address of the server while it runs.
    pub fn address(&self) -> SocketAddr {
        self.target.get().expect("the server runs")
    }

    /// The directory of the store.
    pub fn data(&self) -> PathBuf {
        match &self.storage {
            Storage::Disk(dir, _) => dir.path().join("server"),
            Storage::Memory(_) => panic!("a store in memory has no directory"),
        }
    }

    /// A way to the server that a test can watch and break.
    pub async fn proxy(&self) -> Proxy {
        Proxy::start(self.target.clone()).await
    }
}

/// Opens a store as soon as nobody else has it. A process that is being started by another test
/// holds copies of all our locks for a moment.
pub fn when_free<T>(mut open: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begin = Instant::now();
    loop {
        match open() {
            Err(error) if error.kind == StoreErrorKind::InUse && begin.elapsed() < TIMEOUT => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}
