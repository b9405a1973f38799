//! Checks of data that is not trusted: cursors, the ring, and rows on the disk.

use std::path::Path;

use serde_json::json;
use synclayer_core::{Batch, ClientStore, CommitNumber, Scan};
use synclayer_e2e::host::Host;
use synclayer_e2e::peer::Peer;
use synclayer_e2e::proxy::Frame;
use synclayer_e2e::wait::{shown, told, told_already};
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_server::ServerConfig;
use synclayer_tokio::{EventKind, RecordChange};

use crate::common::{Device, TODOS, converged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_cursor_resets_its_sender_alone() {
    let host = Host::start().await;
    let mut honest = Device::new(&host).await;
    honest.todos.save_with_id("a", &json!({"n": 0})).await.unwrap();
    converged(&[&honest]).await;
    let status = honest.sync.status().await.unwrap();
    let epoch =
        status.collections.values().next().unwrap().cursor.as_ref().unwrap().epoch.to_string();
    honest.proxy.take();
    told_already(&mut honest.events);

    for (n, cursor) in [
        json!({"epoch": "no-such-epoch", "seq": 1}),
        json!({"epoch": epoch, "seq": 1_000_000_000}),
        json!({"epoch": epoch, "seq": 9_007_199_254_740_991u64}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut forger = Peer::resumable(&host, &format!("forger-{n}")).await;
        let subscribe =
            json!({"type": "subscribe", "collection": TODOS, "metadata": {"cursor": cursor}});
        forger.send(&subscribe).await;
        assert_eq!(forger.expect("subscribed").await["metadata"]["mode"], "snapshot", "{cursor}");
        assert_eq!(forger.expect("sync").await["data"]["records"][0]["id"], "a");
        assert_eq!(forger.expect("synced").await["metadata"]["seq"], n + 1);

        honest.todos.update("a", &json!({"n": n + 1})).await.unwrap();
        converged(&[&honest]).await;
        assert_eq!(forger.expect("update").await["metadata"]["seq"], n + 2);
    }
    let frames = honest.proxy.take();
    for kind in ["subscribed", "sync", "synced", "error"] {
        assert!(frames.iter().all(|frame| frame.of_type(kind).is_empty()), "{frames:?}");
    }
    let kinds = told_already(&mut honest.events);
    let resets =
        |kind: &EventKind| matches!(kind, EventKind::SyncStarted { .. } | EventKind::Error { .. });
    assert!(!kinds.iter().any(resets), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_behind_its_ring_serves_from_the_store_and_says_so() {
    // no change has room in the ring
    let mut config = ServerConfig::new();
    (config.rings.collection_bytes, config.rings.total_bytes) = (1, 1);
    let host = Host::with(config).await;
    let (writer, reader) = (Device::new(&host).await, Device::new(&host).await);
    converged(&[&writer, &reader]).await;
    writer.proxy.take();
    reader.proxy.take();
    let mut watch = reader.todos.watch();
    for n in 0..20 {
        let id = format!("record-{}", n % 4);
        writer.todos.save_with_id(&id, &json!({"n": n})).await.unwrap();
        shown(&mut watch, |update| {
            let record = update.snapshot.get(&id);
            record.and_then(|record| record.document.text("n")) == Some(&*n.to_string())
        })
        .await;
    }
    writer.todos.delete("record-0").await.unwrap();
    shown(&mut watch, |update| {
        update.changes.iter().any(|change| matches!(change, RecordChange::Removed { .. }))
    })
    .await;
    converged(&[&writer, &reader]).await;
    let frames = reader.proxy.take();
    let count = |kind: &str| frames.iter().map(|frame| frame.of_type(kind).len()).sum::<usize>();
    assert!(count("subscribed") > 0, "{frames:?}");
    assert_eq!(count("subscribed"), count("synced"), "each is a catch-up with its end");
    let asked = |frame: &Frame| frame.up && !frame.of_type("subscribe").is_empty();
    assert!(!frames.iter().any(asked), "nobody asked for it");
    // the first change comes behind its announcement
    let kinds: Vec<_> = (frames.iter().filter(|frame| !frame.up).flat_map(Frame::messages))
        .map(|message| message["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds[0], "subscribed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_altered_by_hand_is_found_and_healed() {
    let host = Host::start().await;
    let (writer, reader) = (Device::new(&host).await, Device::new(&host).await);
    for (id, text) in [("a", "Buy milk"), ("b", "Buy bread")] {
        writer.todos.save_with_id(id, &json!({"text": text})).await.unwrap();
    }
    converged(&[&writer, &reader]).await;
    let offline = |config: &mut synclayer_tokio::SyncConfig| config.connect_at_start = false;
    let reader = reader.reopen(|dir| alter(dir, b"Buy milk", b"Buy silk"), offline).await;
    reader.todos.save_with_id("pending", &json!({})).await.unwrap();
    assert_eq!(reader.field("a", "text").await, Some(json!("Buy silk")));
    // a replica that has not counted the rows does not vouch for them
    let mut reader = reader.reopen(|_| {}, offline).await;

    reader.sync.connect().await.unwrap();
    let seen =
        told(&mut reader.events, |kind| matches!(kind, EventKind::ChecksumMismatch { .. })).await;
    assert_eq!(seen.last().unwrap().kind.collection().map(|of| &**of), Some(TODOS));
    converged(&[&writer, &reader]).await;
    assert_eq!(reader.field("a", "text").await, Some(json!("Buy milk")));
    assert!(writer.todos.get("pending").await.unwrap().is_some());
    // once is enough
    let reader = reader.reopen(|_| {}, |_| {}).await;
    converged(&[&writer, &reader]).await;
}

/// Changes the one row of a client's store that holds some bytes.
fn alter(dir: &Path, what: &[u8], to: &[u8]) {
    let mut store = FjallClientStore::open(dir, ClientOptions::default()).unwrap();
    let mut batch = Batch::default();
    let visit = &mut |key: &[u8], value: bytes::Bytes| {
        if let Some(at) = value.windows(what.len()).position(|bytes| bytes == what) {
            let mut altered = value.to_vec();
            altered[at..at + to.len()].copy_from_slice(to);
            batch.put(key.to_vec(), altered);
        }
        Ok(Scan::Next)
    };
    store.rows().scan(&[], &[0xff], visit).unwrap();
    assert_eq!(batch.ops().len(), 1);
    store.commit(CommitNumber(u64::MAX), batch).unwrap();
}
