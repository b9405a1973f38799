//! Clients with stores on disk, and how to compare them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use synclayer_e2e::host::{Host, when_free};
use synclayer_e2e::proxy::Proxy;
use synclayer_e2e::wait::soon;
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_tokio::{Events, Store, SyncConfig, SyncLayer, Transports};
use tempfile::TempDir;

/// The collection that most tests use.
pub const TODOS: &str = "todos";

/// A client with a store on disk and a proxy of its own.
pub struct Device {
    pub sync: SyncLayer,
    pub todos: synclayer_tokio::Collection,
    pub events: Events,
    pub proxy: Proxy,
    pub dir: PathBuf,
    _home: TempDir,
}

impl Device {
    /// One that begins empty.
    pub async fn new(host: &Host) -> Self {
        Self::with(host, |_| {}).await
    }

    /// One that begins empty, configured further.
    pub async fn with(host: &Host, configure: impl FnOnce(&mut SyncConfig)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("client");
        Self::open(home, dir, host.proxy().await, configure).await
    }

    /// One on a copy of a closed client's directory.
    pub async fn on_copy(host: &Host, of: &Path, configure: impl FnOnce(&mut SyncConfig)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("client");
        copy(of, &dir);
        Self::open(home, dir, host.proxy().await, configure).await
    }

    /// Closes it, changes its directory or nothing, and opens it again.
    pub async fn reopen(
        self,
        between: impl FnOnce(&Path),
        configure: impl FnOnce(&mut SyncConfig),
    ) -> Self {
        soon("the client's end", self.sync.close()).await;
        let Self { sync, todos, events, proxy, dir, _home: home } = self;
        drop((sync, todos, events));
        between(&dir);
        Self::open(home, dir, proxy, configure).await
    }

    async fn open(
        home: TempDir,
        dir: PathBuf,
        proxy: Proxy,
        configure: impl FnOnce(&mut SyncConfig),
    ) -> Self {
        let mut config = config(&proxy, &dir);
        configure(&mut config);
        let sync = SyncLayer::open(config).await.unwrap();
        let events = sync.events();
        let todos = sync.collection(TODOS).unwrap();
        Self { sync, todos, events, proxy, dir, _home: home }
    }

    /// Waits until everything is exchanged.
    pub async fn synced(&self) {
        soon("being synced", self.sync.synced()).await.unwrap();
    }

    /// A field of a record as JSON; `None` where there is no record or no such field.
    pub async fn field(&self, id: &str, name: &str) -> Option<Value> {
        let record = self.todos.get(id).await.unwrap()?;
        record.document.text(name).map(|text| serde_json::from_str(text).unwrap())
    }

    pub async fn pending(&self) -> usize {
        self.sync.status().await.unwrap().pending_writes
    }
}

/// A client's configuration: on disk, quick to connect again.
pub fn config(proxy: &Proxy, dir: &Path) -> SyncConfig {
    let dir = dir.to_owned();
    SyncConfig::new(proxy.url())
        .collections([TODOS])
        .reconnect_delay(Duration::from_millis(10))
        .transports(Transports::RealtimeOnly)
        // what is only buffered is durable at once, and nothing needs telling
        .store(Store::opened_by(move |_on_durable| {
            let open = || FjallClientStore::open(&dir, ClientOptions::default());
            Ok(Box::new(when_free(open)?))
        }))
}

/// Waits until nothing is left to exchange, and compares what the devices hold.
pub async fn converged(devices: &[&Device]) {
    // twice, for what one's conflicts made the others still learn
    for _ in 0..2 {
        for device in devices {
            device.synced().await;
        }
    }
    let mut first = None;
    for device in devices {
        let records: Vec<_> = (device.todos.get_all().await.unwrap().into_iter())
            .map(|record| (record.id, record.document, record.version))
            .collect();
        let status = device.sync.status().await.unwrap();
        assert_eq!(status.pending_writes, 0);
        let name = status.collections.keys().find(|name| &***name == TODOS).unwrap().clone();
        let stream = &status.collections[&name];
        assert!(stream.live, "{stream:?}");
        let state = (records, stream.cursor.clone(), stream.count, stream.checksum);
        match &first {
            Some(first) => assert_eq!(first, &state),
            None => first = Some(state),
        }
    }
}

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Puts a copy of a directory in the place of another.
pub fn restore(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap();
    copy(from, to);
}
