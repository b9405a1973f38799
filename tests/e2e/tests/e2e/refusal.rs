//! Writes that the server refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use synclayer_core::{Change, Collection, Policy, RecordId, UserId};
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::told;
use synclayer_server::ServerConfig;
use synclayer_tokio::{Document, EventKind};

use crate::common::{Device, converged};

/// Refuses what sets a field `bad`, while it is strict.
#[derive(Default)]
struct Strict(AtomicBool);

impl Policy for Strict {
    fn write(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        change: &Change,
    ) -> Result<(), String> {
        let sets = change.delta.set.text("bad").is_some();
        if sets && self.0.load(Ordering::SeqCst) { Err("that is bad".into()) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_is_rolled_back_and_kept_and_the_queue_goes_on() {
    let policy = Arc::new(Strict(true.into()));
    let config = ServerConfig::new().policy(policy.clone());
    let host = Host::with(config).await;
    let (mut writer, reader) = (Device::new(&host).await, Device::new(&host).await);
    writer.todos.save_with_id("a", &json!({"n": 0})).await.unwrap();
    converged(&[&writer, &reader]).await;

    writer.sync.disconnect().await.unwrap();
    writer.todos.update("a", &json!({"bad": 1})).await.unwrap();
    writer.todos.save_with_id("b", &json!({"n": 1})).await.unwrap();
    writer.todos.save_with_id("c", &json!({"bad": 2})).await.unwrap();
    writer.todos.update("a", &json!({"n": 3})).await.unwrap();
    assert_eq!(writer.pending().await, 4);
    assert_eq!(writer.field("a", "bad").await, Some(json!(1)), "shown until it is refused");
    writer.sync.connect().await.unwrap();
    let failed = |kind: &EventKind| matches!(kind, EventKind::OperationFailed { .. });
    told(&mut writer.events, failed).await;
    told(&mut writer.events, failed).await;
    converged(&[&writer, &reader]).await;
    assert_eq!(writer.field("a", "bad").await, None, "rolled back");
    assert_eq!(writer.todos.get("c").await.unwrap(), None);
    assert_eq!(writer.field("a", "n").await, Some(json!(3)), "those behind it went on");
    assert_eq!(reader.field("b", "n").await, Some(json!(1)));

    // the list is durable
    let writer = writer.reopen(|_| {}, |_| {}).await;
    let rejected = writer.sync.rejected().list().await.unwrap();
    let shown: Vec<_> = (rejected.iter())
        .map(|write| (&*write.record_id, write.code.as_str(), write.message.as_str()))
        .collect();
    let why = |id| (id, "UNAUTHORIZED", "that is bad");
    assert_eq!(shown, [why("a"), why("c")]);
    assert_eq!(writer.sync.status().await.unwrap().rejected_writes, 2);

    policy.0.store(false, Ordering::SeqCst);
    writer.sync.rejected().retry(rejected[0].write).await.unwrap();
    writer.sync.rejected().discard(rejected[1].write).await.unwrap();
    assert!(writer.sync.rejected().list().await.unwrap().is_empty());
    converged(&[&writer, &reader]).await;
    assert_eq!(reader.field("a", "bad").await, Some(json!(1)));
    assert_eq!(reader.todos.get_all().await.unwrap().len(), 2, "the other is gone for good");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_collection_refuses_one_write_and_loses_nothing_else() {
    let mut config = ServerConfig::new();
    config.limits.input.collection_records = 2;
    let host = Host::with(config).await;
    let (mut writer, reader) = (Device::new(&host).await, Device::new(&host).await);
    writer.sync.disconnect().await.unwrap();
    for id in ["a", "b", "c"] {
        writer.todos.save_with_id(id, &json!({"n": 0})).await.unwrap();
    }
    writer.todos.update("a", &json!({"n": 1})).await.unwrap();
    writer.sync.connect().await.unwrap();
    told(&mut writer.events, |kind| matches!(kind, EventKind::OperationFailed { .. })).await;
    converged(&[&writer, &reader]).await;
    assert_eq!(reader.field("a", "n").await, Some(json!(1)), "what came behind it went on");
    assert_eq!(reader.todos.get("c").await.unwrap(), None);

    let rejected = writer.sync.rejected().list().await.unwrap();
    let [refused] = &rejected[..] else { panic!("{rejected:?}") };
    let why = "todos has 2 records, and no collection may have more: delete some";
    assert_eq!((&*refused.record_id, &*refused.message), ("c", why));
    writer.todos.delete("b").await.unwrap();
    writer.sync.rejected().retry(refused.write).await.unwrap();
    converged(&[&writer, &reader]).await;
    assert_eq!(reader.field("c", "n").await, Some(json!(0)));
}
