//! Acknowledgements that come late or never, and what a write costs.

use std::time::Duration;

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::{Fate, Frame};
use synclayer_e2e::wait::{shown, told, told_already};
use synclayer_tokio::{EventKind, Events};

use crate::common::{Device, converged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_ack_was_lost_may_be_followed_offline_by_another_of_the_field() {
    let host = Host::start().await;
    let reader = Device::new(&host).await;
    // connected again before the app disconnects, it would learn the verdict
    let hour = Duration::from_secs(3_600);
    let mut writer = Device::with(&host, |config| config.reconnect_delay = hour).await;
    writer.todos.save_with_id("a", &json!({"n": 0, "other": true})).await.unwrap();
    writer.synced().await;

    writer.proxy.rule(|frame| if acks(frame) > 0 { Fate::Cut } else { Fate::Pass });
    let mut watch = reader.todos.watch();
    writer.todos.update("a", &json!({"n": 1})).await.unwrap();
    shown(&mut watch, |update| n(update.snapshot.get("a")) == Some("1")).await;
    told(&mut writer.events, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })).await;
    writer.sync.disconnect().await.unwrap();
    writer.todos.update("a", &json!({"n": 2})).await.unwrap();
    assert_eq!(writer.pending().await, 2, "the first may have been sent, so they stay apart");

    writer.proxy.free();
    writer.sync.connect().await.unwrap();
    converged(&[&writer, &reader]).await;
    assert_eq!(reader.field("a", "n").await, Some(json!(2)));
    assert_eq!(reader.todos.get("a").await.unwrap().unwrap().version, 3);
    unconflicted(&mut writer.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_field_on_their_way_together_do_not_conflict() {
    for (subscribed, cut) in [(true, false), (true, true), (false, false), (false, true)] {
        let host = Host::start().await;
        let mut writer = Device::with(&host, |config| config.connect_at_start = false).await;
        // who is not heard when it subscribes writes after some patience all the same
        let passes = move |frame: &Frame| subscribed || frame.of_type("subscribe").is_empty();
        let unheard = move |frame: &Frame| if passes(frame) { Fate::Pass } else { Fate::Drop };
        writer.proxy.rule(unheard);
        writer.sync.connect().await.unwrap();
        writer.todos.save_with_id("a", &json!({"n": 0})).await.unwrap();
        let settled = |kind: &EventKind| matches!(kind, EventKind::OperationSynced { .. });
        told(&mut writer.events, settled).await;
        let status = writer.sync.status().await.unwrap();
        assert!(status.collections.values().all(|stream| stream.live == subscribed));

        writer.proxy.take();
        writer.proxy.rule(move |frame| if acks(frame) > 0 { Fate::Hold } else { unheard(frame) });
        for n in 1..=3 {
            writer.todos.update("a", &json!({"n": n})).await.unwrap();
            let sent = |frames: &[Frame]| frames.iter().map(Frame::writes).sum::<usize>() == n;
            writer.proxy.until("the write's way to the server", sent).await;
        }
        if cut {
            writer.proxy.cut();
        }
        writer.proxy.rule(unheard);
        for _ in 1..=3 {
            told(&mut writer.events, settled).await;
        }
        let errors = |frame: &Frame| frame.of_type("error");
        let errors: Vec<_> = writer.proxy.passed().iter().flat_map(errors).collect();
        // a new connection does not know the old one's writes: that may cost a round trip
        assert!(errors.is_empty() || cut && !subscribed, "{errors:?}");
        unconflicted(&mut writer.events);
        writer.proxy.free();
        writer.proxy.cut();
        writer.synced().await;
        assert_eq!(writer.field("a", "n").await, Some(json!(3)));
        assert_eq!(writer.todos.get("a").await.unwrap().unwrap().version, 4);
        unconflicted(&mut writer.events);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toggled_boolean_in_a_large_record_costs_a_small_frame() {
    let host = Host::start().await;
    let (mut writer, reader) = (Device::new(&host).await, Device::new(&host).await);
    let id = "3f2b8c1e-5d4a-4b7f-9e6d-0c1a2b3d4e5f";
    let large = json!({"done": false, "text": "x".repeat(10 << 10)});
    writer.todos.save_with_id(id, &large).await.unwrap();
    converged(&[&writer, &reader]).await;

    writer.proxy.take();
    reader.proxy.take();
    for n in 1..=1000 {
        writer.todos.update(id, &json!({"done": n % 2 == 1})).await.unwrap();
        told(&mut writer.events, |kind| matches!(kind, EventKind::OperationSynced { .. })).await;
    }
    let has_all = |frames: &[Frame]| {
        frames.iter().map(|frame| frame.of_type("update").len()).sum::<usize>() == 1000
    };
    reader.proxy.until("the last update", has_all).await;
    let (sent, got) = (writer.proxy.take(), reader.proxy.take());
    assert_eq!(sent.iter().map(Frame::writes).sum::<usize>(), 1000);
    for frame in sent.iter().chain(&got) {
        assert!(frame.bytes < 240 * frame.messages().len(), "{frame:?}");
    }
    let longest = |frames: &[Frame]| frames.iter().map(|frame| frame.bytes).max();
    println!("the longest frames: {:?} (writer), {:?} (reader)", longest(&sent), longest(&got));
    converged(&[&writer, &reader]).await;
}

fn acks(frame: &Frame) -> usize {
    if frame.up { 0 } else { frame.of_type("ack").len() }
}

fn n(record: Option<&synclayer_tokio::Record>) -> Option<&str> {
    record?.document.text("n")
}

fn unconflicted(events: &mut Events) {
    let kinds = told_already(events);
    assert!(
        !kinds.iter().any(|kind| matches!(kind, EventKind::ConflictDetected { .. })),
        "{kinds:?}"
    );
}
