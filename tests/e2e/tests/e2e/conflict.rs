//! Several replicas that write the same records.

use std::time::Duration;

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::Fate;
use synclayer_e2e::wait::told;
use synclayer_tokio::{Conflict, ConflictStrategy, Document, EventKind, Limits, SyncConfig};

use crate::common::{Device, converged};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_record_does_not_come_back() {
    let host = Host::start().await;
    let yielding =
        |config: &mut SyncConfig| config.conflict_strategy = ConflictStrategy::ServerWins;
    let (writer, away) = (Device::new(&host).await, Device::with(&host, yielding).await);
    for id in ["a", "b", "c"] {
        writer.todos.save_with_id(id, &json!({"n": 0})).await.unwrap();
    }
    converged(&[&writer, &away]).await;
    away.sync.disconnect().await.unwrap();
    // one has an edit that loses against the delete
    away.todos.update("b", &json!({"n": 1})).await.unwrap();
    writer.todos.delete("a").await.unwrap();
    writer.todos.delete("b").await.unwrap();
    writer.synced().await;

    // also across a restart of the program
    let away = away.reopen(|_| {}, yielding).await;
    converged(&[&writer, &away]).await;
    let left = away.todos.get_all().await.unwrap();
    assert_eq!(left.iter().map(|record| &*record.id).collect::<Vec<_>>(), ["c"]);
    let third = Device::new(&host).await;
    converged(&[&writer, &third]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_different_fields_both_survive() {
    let host = Host::start().await;
    let (one, two) = (Device::new(&host).await, Device::new(&host).await);
    one.todos.save_with_id("a", &json!({"x": 0, "y": 0, "z": 0})).await.unwrap();
    converged(&[&one, &two]).await;
    for device in [&one, &two] {
        device.sync.disconnect().await.unwrap();
    }
    one.todos.update("a", &json!({"x": 1})).await.unwrap();
    two.todos.update("a", &json!({"y": 2})).await.unwrap();
    for device in [&one, &two] {
        device.sync.connect().await.unwrap();
    }
    converged(&[&one, &two]).await;
    assert_eq!(
        one.todos.get("a").await.unwrap().unwrap().document,
        document(r#"{"x":1,"y":2,"z":0}"#)
    );

    // and where both are online, neither sees the other's before it writes
    one.proxy.rule(|frame| if frame.up { Fate::Hold } else { Fate::Pass });
    two.proxy.rule(|frame| if frame.up { Fate::Hold } else { Fate::Pass });
    one.todos.update("a", &json!({"x": 3})).await.unwrap();
    two.todos.update("a", &json!({"y": 4})).await.unwrap();
    one.proxy.free();
    two.proxy.free();
    converged(&[&one, &two]).await;
    assert_eq!(
        two.todos.get("a").await.unwrap().unwrap().document,
        document(r#"{"x":3,"y":4,"z":0}"#)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_strategy_decides_a_field_that_three_have_edited() {
    let sum = ConflictStrategy::custom(|conflict: &Conflict<'_>| {
        let n = |state: Option<&Document>| {
            state.and_then(|document| document.text("n")).map_or(0, |n| n.parse::<i64>().unwrap())
        };
        let base = n(conflict.base);
        Some(document(&format!(r#"{{"n":{}}}"#, n(conflict.local) + n(conflict.remote) - base)))
    });
    // the edits are made in the order 10, 20, 30 and arrive in the order 20, 30, 10
    for (strategy, winner) in [
        (ConflictStrategy::LastWriteWins, 30),
        (ConflictStrategy::ServerWins, 20),
        (ConflictStrategy::ClientWins, 10),
        (sum, 58),
    ] {
        let host = Host::start().await;
        let mut devices = Vec::new();
        for _ in 0..3 {
            let strategy = strategy.clone();
            devices.push(Device::with(&host, |config| config.conflict_strategy = strategy).await);
        }
        let all: Vec<_> = devices.iter().collect();
        all[0].todos.save_with_id("a", &json!({"n": 1})).await.unwrap();
        converged(&all).await;
        for device in &all {
            device.sync.disconnect().await.unwrap();
        }
        for (device, n) in all.iter().zip([10, 20, 30]) {
            tokio::time::sleep(APART).await;
            device.todos.update("a", &json!({"n": n})).await.unwrap();
        }
        for device in [all[1], all[2], all[0]] {
            device.sync.connect().await.unwrap();
            device.synced().await;
        }
        converged(&all).await;
        for device in &all {
            assert_eq!(device.field("a", "n").await, Some(json!(winner)), "{strategy:?}");
        }
        for n in [2, 0] {
            let resolved = |kind: &EventKind| matches!(kind, EventKind::ConflictResolved { .. });
            told(&mut devices[n].events, resolved).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_edit_does_not_win_because_of_a_later_one_beside_it() {
    let host = Host::start().await;
    let (away, here) = (Device::new(&host).await, Device::new(&host).await);
    away.todos.save_with_id("a", &json!({"x": 0, "y": 0})).await.unwrap();
    converged(&[&away, &here]).await;
    away.sync.disconnect().await.unwrap();
    away.todos.update("a", &json!({"x": "old"})).await.unwrap();
    tokio::time::sleep(APART).await;
    here.todos.update("a", &json!({"x": "new", "y": "new"})).await.unwrap();
    here.synced().await;
    tokio::time::sleep(APART).await;
    // it joins the edit of x, which waits
    away.todos.update("a", &json!({"y": "newer"})).await.unwrap();

    // also across a restart of the program
    let away = away.reopen(|_| {}, |_| {}).await;
    converged(&[&away, &here]).await;
    let expected = document(r#"{"x":"new","y":"newer"}"#);
    for device in [&away, &here] {
        assert_eq!(device.todos.get("a").await.unwrap().unwrap().document, expected);
    }
}

/// Time between two edits whose order matters. Each device reckons the server's clock from one
/// answer, which may have been a while on its way.
const APART: Duration = Duration::from_millis(300);

fn document(text: &str) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}
