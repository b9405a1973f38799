//! Bounds on the cost of a change and an acknowledgement: reads and writes of the stores, and syncs
//! of the disk, counted. And bounds on what deleted records leave on the disk.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use synclayer_core::testing::InspectReplica;
use synclayer_core::{Batch, MemoryClientStore, RecordChange, Rows, ServerStore, StoreError};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use synclayer_server::{Server, ServerConfig};
use synclayer_sim::counted::{Counted, Counts};
use synclayer_sim::lone_replica::LoneReplica;
use synclayer_tokio::{Store, SyncConfig, SyncLayer};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

type Watched = LoneReplica<Counted<MemoryClientStore>>;

/// Returns the store calls of one change while this many records are watched.
fn cost(records: usize, change: impl Fn(&mut Watched)) -> Counts {
    let mut lone = LoneReplica::online(Counted::new(MemoryClientStore::default()));
    let watch = lone.watch();
    for n in 0..records {
        lone.remote("insert", &format!("r{n}"), r#"{"n":1,"text":"Buy milk"}"#);
    }
    assert_eq!(lone.take(watch).unwrap().snapshot.len(), records);
    lone.replica.store().take();
    change(&mut lone);
    let counts = lone.replica.store().take();
    let update = lone.take(watch).unwrap();
    assert!(matches!(&update.changes[..], [RecordChange::Modified(record)] if &*record.id == "r7"));
    assert_eq!(update.snapshot.len(), records);
    assert_eq!(lone.replica.store().take(), Counts::default(), "what is shown was not read");
    counts
}

#[test]
fn a_change_reads_only_its_record_however_many_are_watched() {
    let remote = |lone: &mut Watched| lone.remote("update", "r7", r#"{"n":2}"#);
    let local = |lone: &mut Watched| lone.update("r7", r#"{"n":2}"#).unwrap();
    let of_remote = cost(10, remote);
    assert!(of_remote.gets <= 2 && of_remote.scans == 0, "{of_remote:?}");
    assert_eq!((of_remote.commits, of_remote.ops), (1, 2), "the row and the cursor: {of_remote:?}");
    assert_eq!(cost(20_000, remote), of_remote);
    let of_local = cost(10, local);
    assert_eq!(of_local.commits, 1, "{of_local:?}");
    assert!(of_local.gets + of_local.scanned <= 5, "{of_local:?}");
    assert_eq!(cost(20_000, local), of_local);
}

#[test]
fn a_write_that_waits_costs_no_look_at_the_others() {
    let mut lone = LoneReplica::offline(Counted::new(MemoryClientStore::default()));
    for n in 0..1_000 {
        lone.save(&format!("r{n}"), r#"{"n":1}"#).unwrap();
    }
    lone.replica.store().take();
    lone.save("another", r#"{"n":1}"#).unwrap();
    let counts = lone.replica.store().take();
    assert_eq!((counts.gets, counts.scanned, counts.commits), (1, 0, 1), "{counts:?}");
}

#[test]
fn a_verdict_reads_its_record_alone_however_many_wait() {
    let cost = |writes: u64| {
        let mut lone = LoneReplica::online(Counted::new(MemoryClientStore::default()));
        for n in 1..=writes {
            lone.save(&format!("r{n}"), r#"{"n":1}"#).unwrap();
        }
        lone.replica.store().take();
        lone.acked(1, "r1");
        lone.replica.store().take()
    };
    let counts = cost(3);
    // it is read as the record's row, and nothing goes out after it
    assert_eq!((counts.gets, counts.scans, counts.commits), (1, 0, 1), "{counts:?}");
    let counts = cost(600);
    // once more for the write that goes out in its place
    assert_eq!((counts.gets, counts.scans, counts.commits), (2, 0, 1), "{counts:?}");
}

/// A store on a disk that takes its time, however quick this machine's is.
struct Slow(FjallServerStore);

impl ServerStore for Slow {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        thread::sleep(Duration::from_millis(5));
        self.0.transact(decide)
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.0.read(read)
    }
}

/// Makes writes, each after the one before is acknowledged.
async fn write(url: String, writer: usize, writes: usize) {
    let (mut socket, _) = connect_async(url).await.unwrap();
    let hello = json!({"protocol": 2, "clientId": format!("c{writer}"), "session": 1});
    let mut frame = json!({"type": "ping", "metadata": hello});
    for number in 1..=writes + 1 {
        socket.send(Message::text(frame.to_string())).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let kind = if number == 1 { "pong" } else { "ack" };
        assert!(answer.contains(&format!(r#""type":"{kind}""#)), "{answer}");
        frame = json!({"type": "insert", "collection": "todos", "data": {"n": 1},
            "recordId": format!("{writer}-{number}"),
            "metadata": {"mutation": number, "base": 0}});
    }
}

/// Counts the syncs of the disk for the acknowledgement of so many writes of so many writers.
async fn syncs(writers: usize, writes: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let store = FjallServerStore::open(dir.path(), ServerOptions::default()).unwrap();
    let store = Arc::new(Slow(store));
    let server = Server::bind(ServerConfig::default(), store.clone()).await.unwrap();
    let url = format!("ws://{}/ws", server.local_addr());
    let all = (0..writers).map(|writer| tokio::spawn(write(url.clone(), writer, writes)));
    let all = try_join_all(all);
    timeout(Duration::from_secs(60), all).await.expect("acks in time").unwrap();
    let syncs = store.0.stats().syncs;
    server.shutdown().await;
    syncs
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_the_syncs_of_the_disk() {
    let (writers, writes) = (50, 20);
    let syncs = syncs(writers, writes).await;
    assert!(syncs * 10 < (writers * writes) as u64, "{syncs} syncs");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_writer_waits_for_nobody() {
    let writes = 20;
    let syncs = syncs(1, writes).await;
    // one for the epoch, one for the hello, and one for each write
    assert_eq!(syncs, writes as u64 + 2);
}

/// Bytes of a store's files, but for its journals, which have a size of their own.
fn bytes_of_tables(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_of_tables(&entry.path()),
        Ok(metadata) if entry.path().extension().is_none_or(|end| end != "jnl") => metadata.len(),
        Ok(_) | Err(_) => 0,
    };
    entries.map(bytes).sum()
}

/// A client whose store is in a directory, with small tables.
async fn client(server: &Server, dir: &Path) -> SyncLayer {
    let dir = dir.to_owned();
    let store = Store::opened_by(move |_| {
        let options = ClientOptions::default().memtable_bytes(256 << 10);
        Ok(Box::new(FjallClientStore::open(&dir, options)?))
    });
    let config = SyncConfig::new(format!("http://{}", server.local_addr()));
    SyncLayer::open(config.collections(["todos"]).store(store)).await.unwrap()
}

/// The retention is short: a server keeps what it has to say of deletes until it is over.
#[tokio::test(flavor = "multi_thread")]
async fn the_stores_of_both_ends_shrink_when_records_are_deleted() {
    let records = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let ends = ["server", "client"].map(|end| dir.path().join(end));
    let options = ServerOptions::new().durability(Durability::Buffered).memtable_bytes(256 << 10);
    let store = FjallServerStore::open(&ends[0], options).unwrap();
    let config = ServerConfig::new()
        .tombstone_retention(Duration::ZERO)
        .sweep_interval(Duration::from_millis(20));
    let server = Server::bind(config, Arc::new(store)).await.unwrap();
    let client = client(&server, &ends[1]).await;
    let todos = &client.collection("todos").unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    let texts = (0..records)
        .map(|_| std::iter::repeat_with(|| rng.alphanumeric()).take(1_000).collect::<String>());
    let texts: Vec<_> = texts.collect();
    let saves = texts.iter().enumerate().map(|(n, text)| async move {
        todos.save_with_id(&n.to_string(), &json!({ "text": text })).await
    });
    try_join_all(saves).await.unwrap();
    client.synced().await.unwrap();
    let full = ends.each_ref().map(|end| bytes_of_tables(end));
    assert!(full.iter().all(|bytes| *bytes > 1_000_000), "{full:?}");

    let deletes = (0..records).map(|n| async move { todos.delete(&n.to_string()).await });
    try_join_all(deletes).await.unwrap();
    // their last tables go as a little more is written
    let shrunk = async {
        for n in 0.. {
            if ends.iter().zip(full).all(|(end, full)| bytes_of_tables(end) < full / 5) {
                break;
            }
            todos.save_with_id("another", &json!({ "n": n })).await.unwrap();
            client.synced().await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    if timeout(Duration::from_secs(60), shrunk).await.is_err() {
        let left = ends.each_ref().map(|end| bytes_of_tables(end));
        panic!("of {full:?} bytes {left:?} are left");
    }
    client.close().await;
    server.shutdown().await;
}
