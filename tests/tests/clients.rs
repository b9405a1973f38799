//! Both clients against a real server, over WebSockets and by HTTP alone: whichever it is and
//! however it asks, it sees what the others write.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use synclayer_core::memory::MemoryServerStore;
use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{Guarantees, SyncConfig, Transport, Transports};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn all_see_what_the_others_write() {
    let runtime = Runtime::new().unwrap();
    let store = Arc::new(MemoryServerStore::new());
    let server = runtime.block_on(Server::bind(ServerConfig::default(), store)).unwrap();
    let url = format!("http://{}", server.local_addr());
    let clients: Vec<Box<dyn Client>> = vec![
        Box::new(blocking(&url, Transports::Both)),
        Box::new(blocking(&url, Transports::PollOnly)),
        Box::new(Tokio::open(&runtime, &url, Transports::Both)),
        Box::new(Tokio::open(&runtime, &url, Transports::PollOnly)),
    ];
    for client in &clients {
        client.synced();
        let (transport, guarantees) = client.transport();
        let expected = if client.polls() { Transport::Http } else { Transport::WebSocket };
        assert_eq!((transport, guarantees), (Some(expected), Some(Guarantees::ALL)));
    }
    for (n, writer) in clients.iter().enumerate() {
        writer.save(&format!("of-{n}"));
        writer.save("shared");
        writer.synced();
        for reader in &clients {
            reader.synced();
            assert_eq!(reader.count(), n + 2, "{n}");
        }
    }
    clients.iter().for_each(|client| client.close());
    runtime.block_on(server.shutdown());
}

#[test]
fn a_client_that_asks_by_http_does_so_when_told() {
    let runtime = Runtime::new().unwrap();
    let store = Arc::new(MemoryServerStore::new());
    let server = runtime.block_on(Server::bind(ServerConfig::default(), store)).unwrap();
    let url = format!("http://{}", server.local_addr());
    let reader = blocking(&url, Transports::Both);
    reader.synced();
    let mut watch = reader.1.watch();
    let quiet = SyncConfig { enable_auto_sync: false, ..config(&url, Transports::PollOnly) };
    let writer = synclayer_blocking::SyncLayer::open(quiet).unwrap();
    let todos = writer.collection("todos").unwrap();
    todos.save_with_id("a", &json!({})).unwrap();
    assert_eq!(writer.status().unwrap().pending_writes, 1);
    writer.set_online(false).unwrap();
    writer.sync_now().unwrap();
    assert_eq!(writer.status().unwrap().transport, None);
    writer.set_online(true).unwrap();
    writer.sync_now().unwrap();
    while watch.next_timeout(PATIENCE).unwrap().unwrap().snapshot.is_empty() {}
    writer.close();
    reader.close();
    runtime.block_on(server.shutdown());
}

fn config(url: &str, transports: Transports) -> SyncConfig {
    SyncConfig {
        base_url: url.into(),
        collections: vec!["todos".into()],
        transports,
        ..SyncConfig::default()
    }
}

/// What both clients can do.
trait Client {
    fn polls(&self) -> bool;
    fn save(&self, id: &str);
    fn count(&self) -> usize;
    fn synced(&self);
    fn transport(&self) -> (Option<Transport>, Option<Guarantees>);
    fn close(&self);
}

struct Blocking(synclayer_blocking::SyncLayer, synclayer_blocking::Collection, Transports);

fn blocking(url: &str, transports: Transports) -> Blocking {
    let sync = synclayer_blocking::SyncLayer::open(config(url, transports)).unwrap();
    let todos = sync.collection("todos").unwrap();
    Blocking(sync, todos, transports)
}

impl Client for Blocking {
    fn polls(&self) -> bool {
        self.2 == Transports::PollOnly
    }
    fn save(&self, id: &str) {
        self.1.save_with_id(id, &json!({"text": id})).unwrap();
    }
    fn count(&self) -> usize {
        self.1.get_all().unwrap().len()
    }
    fn synced(&self) {
        self.0.synced_timeout(PATIENCE).unwrap().unwrap();
    }
    fn transport(&self) -> (Option<Transport>, Option<Guarantees>) {
        let status = self.0.status().unwrap();
        (status.transport, status.guarantees)
    }
    fn close(&self) {
        self.0.close();
    }
}

struct Tokio<'a> {
    runtime: &'a Runtime,
    sync: synclayer_tokio::SyncLayer,
    todos: synclayer_tokio::Collection,
    transports: Transports,
}

impl<'a> Tokio<'a> {
    fn open(runtime: &'a Runtime, url: &str, transports: Transports) -> Self {
        let config = config(url, transports);
        let sync = runtime.block_on(synclayer_tokio::SyncLayer::open(config)).unwrap();
        let todos = sync.collection("todos").unwrap();
        Self { runtime, sync, todos, transports }
    }
}

impl Client for Tokio<'_> {
    fn polls(&self) -> bool {
        self.transports == Transports::PollOnly
    }
    fn save(&self, id: &str) {
        self.runtime.block_on(self.todos.save_with_id(id, &json!({"text": id}))).unwrap();
    }
    fn count(&self) -> usize {
        self.runtime.block_on(self.todos.get_all()).unwrap().len()
    }
    fn synced(&self) {
        let synced = async { timeout(PATIENCE, self.sync.synced()).await };
        self.runtime.block_on(synced).unwrap().unwrap();
    }
    fn transport(&self) -> (Option<Transport>, Option<Guarantees>) {
        let status = self.runtime.block_on(self.sync.status()).unwrap();
        (status.transport, status.guarantees)
    }
    fn close(&self) {
        self.runtime.block_on(self.sync.close());
    }
}
