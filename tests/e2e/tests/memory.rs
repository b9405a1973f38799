//! Bounds on a client's memory, counted by the allocator. The tests take turns, since they count
//! what the whole process holds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use peak_alloc::PeakAlloc;
use serde_json::json;
use synclayer_core::{
    Batch, ClientStore, CommitNumber, ConnId, Identity, MemoryRows, Mono, Now, RingLimits, Rows,
    ServerLimits, SessionInput, StoreError, Timestamp,
};
use synclayer_fjall::{ClientOptions, Durability, FjallClientStore};
use synclayer_fjall::{FjallServerStore, ServerOptions};
use synclayer_server::{Server, ServerConfig};
use synclayer_sim::host::Host;
use synclayer_sim::lone_replica::LoneReplica;
use synclayer_tokio::{Store, SyncConfig, SyncLayer};
use tokio::sync::Mutex;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::const_new(());

/// A store that forgets: what grows is the core.
struct Forgetful {
    rows: MemoryRows,
    last: CommitNumber,
}

impl ClientStore for Forgetful {
    fn rows(&self) -> &dyn Rows {
        &self.rows
    }

    fn commit(&mut self, number: CommitNumber, _: Batch) -> Result<(), StoreError> {
        self.last = number;
        Ok(())
    }

    fn flush(&mut self, _: CommitNumber) -> Result<(), StoreError> {
        Ok(())
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        Ok(self.last)
    }
}

/// By how many bytes 100,000 offline writes to records of their own make the heap grow.
fn growth(store: impl ClientStore, writes: usize) -> usize {
    let mut lone = LoneReplica::offline(store);
    let before = HEAP.current_usage();
    for n in 0..writes {
        lone.save(&format!("r{n}"), &format!(r#"{{"n":{n},"text":"{:0>170}"}}"#, n)).unwrap();
    }
    assert_eq!(lone.replica.status().pending_writes, writes);
    HEAP.current_usage().saturating_sub(before)
}

#[tokio::test]
async fn writes_that_wait_cost_little_memory() {
    let _turn = TURN.lock().await;
    let store = Forgetful { rows: MemoryRows::default(), last: CommitNumber(0) };
    // the numbers of each record's waiting writes are in memory, and nothing else of what waits
    let of_core = growth(store, 20_000);
    assert!(of_core < 32 * 20_000, "the core grew by {of_core} bytes");

    let dir = tempfile::tempdir().unwrap();
    let store = FjallClientStore::open(dir.path(), ClientOptions::default()).unwrap();
    let writes = 100_000;
    let of_both = growth(store, writes);
    assert!(of_both < 150 * writes, "core and store grew by {of_both} bytes");
}

fn client(dir: &Path, server: SocketAddr) -> SyncConfig {
    let dir = dir.to_owned();
    SyncConfig::new(format!("http://{server}")).collections(["todos"]).store(Store::opened_by(
        // a small cache, as at the server: what is kept of it is no growth
        move |_| {
            let options = ClientOptions::new().cache_bytes(2 << 20);
            Ok(Box::new(FjallClientStore::open(&dir, options)?))
        },
    ))
}

/// By how many bytes a connection that subscribes collections with names of `len` bytes makes the
/// heap grow.
fn of_subscriptions(count: usize, len: usize) -> usize {
    let limits = ServerLimits::default();
    assert_eq!(limits.subscriptions, 4_096, "PROTOCOL §13 says how many there may be");
    let now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
    let mut host = Host::new(limits, RingLimits::default(), now);
    let conn = ConnId(1);
    host.accept(conn, Identity::Open, now);
    let mut say = |frame: &str| {
        host.tell(conn, SessionInput::Frame(frame.as_bytes()), now);
        host.settle(now);
        let down = host.down.get_mut(&conn).unwrap();
        let last = down.back().map(|frame| String::from_utf8_lossy(frame).into_owned());
        down.clear();
        down.shrink_to_fit();
        last.unwrap_or_default()
    };
    let hello = r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#;
    assert!(say(hello).contains("pong"));
    let subscribe = |n: usize| format!(r#"{{"type":"subscribe","collection":"{n:0>len$}"}}"#);
    let before = HEAP.current_usage();
    for n in 0..count {
        let last = say(&subscribe(n));
        assert!(last.contains("synced"), "{n}: {last}");
    }
    let grown = HEAP.current_usage().saturating_sub(before);
    assert!(say(&subscribe(count)).contains("INVALID_MESSAGE"), "one more is refused");
    grown
}

#[tokio::test]
async fn a_connection_with_every_subscription_it_may_have_stays_below_its_cap() {
    let _turn = TURN.lock().await;
    let count = 4_096;
    let grown = of_subscriptions(count, 128);
    assert!(grown < count * 1024, "{grown} bytes for {count} subscriptions");
}

/// Two clients and a server, in one process, hold less than the data that went through them.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_much_takes_little_memory() {
    let _turn = TURN.lock().await;
    let (records, bytes) = (20_000, 2_000);
    let dir = tempfile::tempdir().unwrap();
    let path = |name| dir.path().join(name);
    let options = ServerOptions::new()
        .durability(Durability::Buffered)
        .cache_bytes(1 << 20)
        .memtable_bytes(1 << 20);
    let store = FjallServerStore::open(path("server"), options).unwrap();
    let server = Server::bind(ServerConfig::default(), Arc::new(store)).await.unwrap();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let a = SyncLayer::open(client(&path("a"), server.local_addr())).await.unwrap();
    let todos = a.collection("todos").unwrap();
    for first in (0..records).step_by(100) {
        let todos = &todos;
        let saves = (first..first + 100).map(|n| async move {
            let text = format!("{n:0>bytes$}");
            todos.save_with_id(&format!("r{n}"), &json!({ "text": text })).await
        });
        futures_util::future::try_join_all(saves).await.unwrap();
    }
    a.synced().await.unwrap();
    let b = SyncLayer::open(client(&path("b"), server.local_addr())).await.unwrap();
    b.synced().await.unwrap();
    let held: u64 = b.status().await.unwrap().collections.values().map(|todos| todos.count).sum();
    assert_eq!(held, records as u64);
    let above = HEAP.peak_usage().saturating_sub(before);
    assert!(above < records * bytes, "{above} bytes above start, for {} of data", records * bytes);
    a.close().await;
    b.close().await;
    server.shutdown().await;
}
