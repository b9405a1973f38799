//! The catch-up of a replica that was away.

use std::slice;

use serde_json::{Value, json};
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::{Fate, Frame};
use synclayer_e2e::wait::{told, told_already};
use synclayer_server::ServerConfig;
use synclayer_tokio::EventKind;

use crate::common::{Device, converged};

/// A server that sends few records at a time.
fn small_pages() -> ServerConfig {
    let mut config = ServerConfig::new();
    config.limits.page.records = 10;
    config
}

/// Two devices in step on 200 records of 1 KB.
async fn two_in_step(host: &Host) -> (Device, Device) {
    let (writer, reader) = (Device::new(host).await, Device::new(host).await);
    for n in 0..200 {
        let text = "x".repeat(1000);
        writer.todos.save_with_id(&id(n), &json!({"a": 0, "b": 0, "text": text})).await.unwrap();
    }
    converged(&[&writer, &reader]).await;
    (writer, reader)
}

fn id(n: usize) -> String {
    format!("record-{n:03}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_gets_the_changed_fields_of_the_changed_records() {
    let host = Host::start().await;
    let (writer, reader) = two_in_step(&host).await;
    reader.sync.disconnect().await.unwrap();
    for n in (0..200).step_by(20) {
        // however often it changes, it comes once
        for a in 1..=3 {
            writer.todos.update(&id(n), &json!({"a": a})).await.unwrap();
            writer.synced().await;
        }
    }
    writer.todos.delete(&id(1)).await.unwrap();
    writer.synced().await;

    reader.proxy.take();
    reader.sync.connect().await.unwrap();
    converged(&[&writer, &reader]).await;
    let frames = reader.proxy.take();
    let got = changes(&frames);
    assert_eq!(got.len(), 11);
    for change in &got[..10] {
        assert_eq!((&change["type"], &change["data"]), (&json!("update"), &json!({"a": 3})));
    }
    assert_eq!((&got[10]["type"], &got[10]["recordId"]), (&json!("delete"), &json!("record-001")));
    let bytes =
        |up| frames.iter().filter(|frame| frame.up == up).map(|frame| frame.bytes).sum::<usize>();
    println!("a catch-up of 11 changes in 200 KB: {} bytes up, {} down", bytes(true), bytes(false));
    assert!(bytes(true) < 800 && bytes(false) < 11 * 240 + 1000, "{frames:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catch_up_that_breaks_goes_on_where_it_was() {
    let host = Host::with(small_pages()).await;
    let (writer, mut reader) = two_in_step(&host).await;
    reader.sync.disconnect().await.unwrap();
    for n in 0..50 {
        writer.todos.update(&id(n), &json!({"a": 1})).await.unwrap();
    }
    writer.synced().await;

    // the link breaks behind the first changes, and the next one waits
    reader.proxy.take();
    let mut broken = false;
    reader.proxy.rule(move |frame| {
        if broken {
            return Fate::Hold;
        }
        broken = !changes(slice::from_ref(frame)).is_empty();
        if broken { Fate::PassAndCut } else { Fate::Pass }
    });
    told_already(&mut reader.events);
    reader.sync.connect().await.unwrap();
    reader.proxy.until("the first changes", |frames| !changes(frames).is_empty()).await;
    told(&mut reader.events, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })).await;
    let first = changes(&reader.proxy.take());
    assert!((1..50).contains(&first.len()), "{} of 50", first.len());
    assert_eq!(reader.field(&id(0), "a").await, Some(json!(1)), "what came is kept");

    // one that has come changes elsewhere meanwhile
    writer.todos.update(&id(0), &json!({"b": 2})).await.unwrap();
    writer.synced().await;
    reader.proxy.free();
    converged(&[&writer, &reader]).await;
    let frames = reader.proxy.take();
    let resumed = frames.iter().flat_map(|frame| frame.of_type("subscribe")).next_back().unwrap();
    assert!(!resumed["metadata"]["cursor"]["resume"].is_null(), "{resumed}");
    let rest = changes(&frames);
    let of_first = |change: &&Value| change["recordId"] == json!(id(0));
    // records by the place in the run, fields by the cursor
    assert_eq!(rest.iter().filter(of_first).count(), 1);
    assert_eq!(rest.iter().find(of_first).unwrap()["data"], json!({"a": 1, "b": 2}));
    assert_eq!(first.len() + rest.len(), 51, "nothing else comes twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_breaks_goes_on_where_it_stopped() {
    let host = Host::with(small_pages()).await;
    let (writer, _) = two_in_step(&host).await;
    let mut third = Device::with(&host, |config| config.connect_at_start = false).await;
    let mut seen = 0;
    third.proxy.rule(move |frame| {
        seen += pages(slice::from_ref(frame)).len();
        if seen >= 5 { Fate::PassAndCut } else { Fate::Pass }
    });
    third.sync.connect().await.unwrap();
    told(&mut third.events, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })).await;
    // it lives across a restart of the program too
    let third = third.reopen(|_| {}, |config| config.connect_at_start = false).await;
    let held = third.todos.get_all().await.unwrap().len();
    assert!((10..200).contains(&held), "{held} of 200");
    // while it is away, a record that it holds changes, and one that it lacks
    for n in [0, 199] {
        writer.todos.update(&id(n), &json!({"a": 7})).await.unwrap();
    }
    writer.synced().await;

    let first = pages(&third.proxy.take());
    third.proxy.free();
    third.sync.connect().await.unwrap();
    converged(&[&writer, &third]).await;
    let rest = pages(&third.proxy.take());
    assert_eq!(rest[0]["metadata"]["after"], first.last().unwrap()["metadata"]["upTo"]);
    assert_eq!(first[0]["metadata"]["snapshotSeq"], rest[0]["metadata"]["snapshotSeq"]);
    let records = |pages: &[Value]| {
        pages.iter().map(|page| page["data"]["records"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(records(&first), held);
    assert_eq!(records(&first) + records(&rest), 200, "nothing comes twice");
    assert_eq!(third.field(&id(0), "a").await, Some(json!(7)));
}

/// The changes that came down.
fn changes(frames: &[Frame]) -> Vec<Value> {
    let is_change = |message: &Value| {
        ["insert", "update", "delete"].iter().any(|kind| message["type"] == *kind)
    };
    let came = frames.iter().filter(|frame| !frame.up).flat_map(Frame::messages);
    came.filter(is_change).collect()
}

/// The pages of snapshots.
fn pages(frames: &[Frame]) -> Vec<Value> {
    frames.iter().flat_map(|frame| frame.of_type("sync")).collect()
}
