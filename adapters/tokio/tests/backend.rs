//! The backend that the guide shows keeps to the scenarios of level 1, and clients sync by it.
#![allow(missing_docs, clippy::unwrap_used)]

#[allow(unreachable_pub)] // as an example it has nobody to be reached by
#[path = "../examples/backend.rs"]
mod backend;
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::Path;
use std::slice;

use backend::Backend;
use serde_json::{Value, json};
use support::until;
use synclayer_tokio::{SyncConfig, SyncLayer};
use tokio::net::TcpListener;

const NOW: &str = "2026-01-01T00:00:00.000Z";

#[test]
fn it_keeps_to_the_scenarios_of_level_1() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/scenarios/server");
    let mut ran = 0;
    for file in fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file.file_name().unwrap().to_str().unwrap().starts_with("level-1-") {
            let scenario = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            run(&scenario).unwrap_or_else(|what| panic!("{}: {what}", file.display()));
            ran += 1;
        }
    }
    assert!(ran >= 4, "only {ran} scenarios were found");
}

fn run(scenario: &Value) -> Result<(), String> {
    let mut backend = Backend::default();
    for step in scenario["steps"].as_array().unwrap() {
        let conn = step["conn"].as_u64().unwrap_or(1);
        let heard = step["in"].get("hear").into_iter();
        let frames =
            heard.flat_map(|heard| heard.as_array().map_or(slice::from_ref(heard), |all| all));
        if step["in"] == "gone" {
            backend.gone(conn);
        }
        let came = frames.flat_map(|frame| backend.hear(conn, frame, NOW));
        let came: Vec<_> = came.map(|(to, frame)| (to, without_text(frame))).collect();
        let expected = step["out"].as_array().unwrap().iter();
        let expected: Vec<_> = expected
            .map(|out| (out["conn"].as_u64().unwrap_or(conn), without_text(out["send"].clone())))
            .collect();
        if came != expected {
            return Err(format!("{}\n  expected {expected:?}\n  came     {came:?}", step["in"]));
        }
    }
    Ok(())
}

/// A frame without its text for people, which a backend words as it likes.
fn without_text(mut frame: Value) -> Value {
    frame.as_object_mut().unwrap().remove("error");
    frame
}

#[tokio::test]
async fn two_clients_sync_by_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    tokio::spawn(backend::serve(listener));
    let open = || SyncLayer::open(SyncConfig::new("").websocket_url(&url).collections(["todos"]));
    let (ann, bob) = (open().await.unwrap(), open().await.unwrap());

    let todos = ann.collection("todos").unwrap();
    todos.save_with_id("milk", &json!({"text": "Buy milk", "done": false})).await.unwrap();
    let mut at_bob = bob.collection("todos").unwrap().watch();
    until(&mut at_bob, |update| update.snapshot.len() == 1).await;
    bob.collection("todos").unwrap().update("milk", &json!({"done": true})).await.unwrap();
    let mut at_ann = todos.watch();
    let done = |document: &synclayer_tokio::Document| document.text("done") == Some("true");
    until(&mut at_ann, |update| update.snapshot.iter().any(|record| done(&record.document))).await;
    todos.delete("milk").await.unwrap();
    until(&mut at_bob, |update| update.snapshot.is_empty()).await;
}

/// The code in the guide is that of the example.
#[test]
fn the_guide_shows_the_example() {
    let guide = include_str!("../guide/backend.md");
    let example = include_str!("../examples/backend.rs");
    let shown = guide.split("/// The records,").nth(1).and_then(|rest| rest.split("```").next());
    assert!(example.contains(shown.unwrap()), "copy the backend of the example to the guide");
}
