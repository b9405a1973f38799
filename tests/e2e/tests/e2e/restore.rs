//! Databases and directories that were restored from a backup, or copied.

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::{told, told_already};
use synclayer_tokio::{EventKind, SyncConfig};

use crate::common::{Device, converged, copy, restore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_is_noticed_and_no_pending_write_is_lost() {
    let mut host = Host::start().await;
    let (mut writer, mut reader) = (Device::new(&host).await, Device::new(&host).await);
    for n in 0..5 {
        writer.todos.save_with_id(&format!("before-{n}"), &json!({"n": n})).await.unwrap();
    }
    converged(&[&writer, &reader]).await;
    host.stop().await;
    let backup = host.data().with_file_name("backup");
    copy(&host.data(), &backup);
    host.run().await;
    for n in 0..5 {
        writer.todos.save_with_id(&format!("after-{n}"), &json!({"n": n})).await.unwrap();
    }
    writer.todos.update("before-0", &json!({"n": 10})).await.unwrap();
    let mut late = Device::new(&host).await;
    converged(&[&writer, &reader, &late]).await;
    late.sync.disconnect().await.unwrap();

    host.stop().await;
    restore(&backup, &host.data());
    writer.todos.save_with_id("pending-w", &json!({})).await.unwrap();
    writer.todos.update("before-1", &json!({"n": 11})).await.unwrap();
    writer.todos.update("after-1", &json!({"n": 12})).await.unwrap();
    reader.todos.save_with_id("pending-r", &json!({})).await.unwrap();
    host.run().await;
    // the writer by what it knows to be confirmed, the reader by its cursor
    told(&mut writer.events, |kind| matches!(kind, EventKind::ServerLostChanges { .. })).await;
    told(&mut reader.events, |kind| matches!(kind, EventKind::ServerLostChanges { .. })).await;
    converged(&[&writer, &reader]).await;
    let ids: Vec<_> = reader.todos.get_all().await.unwrap().into_iter().map(|r| r.id).collect();
    for id in ["pending-w", "pending-r", "before-0", "before-1"] {
        assert!(ids.iter().any(|held| &**held == id), "{id} is not in {ids:?}");
    }
    assert_eq!(reader.field("before-0", "n").await, Some(json!(0)), "what the backup holds");
    assert_eq!(reader.field("before-1", "n").await, Some(json!(11)), "a pending write");
    assert!(!ids.iter().any(|held| &**held == "after-0"), "what was lost stays lost");

    // where the server has gone on beyond it, a cursor of what was lost is found out all the same
    for n in 0..10 {
        writer.todos.save_with_id(&format!("again-{n}"), &json!({})).await.unwrap();
    }
    writer.synced().await;
    late.todos.update("before-2", &json!({"n": 13})).await.unwrap();
    told_already(&mut late.events);
    late.sync.connect().await.unwrap();
    told(&mut late.events, |kind| {
        matches!(kind, EventKind::Error { message, .. } if message.contains("the server was restored"))
    })
    .await;
    converged(&[&writer, &reader, &late]).await;
    assert_eq!(reader.field("before-2", "n").await, Some(json!(13)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_client_is_noticed_and_no_pending_write_is_lost() {
    // how many writes the original made since the backup, and how many the restored one makes; and
    // whether the backup was made while the original was connected: then its session, too, tells
    // nothing, only its numbers and digests
    let numbers = [(3, 1), (2, 2), (1, 3), (2, 0)];
    for ((made, pending), live) in numbers.into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let host = Host::start().await;
        let (client, reader) = (Device::new(&host).await, Device::new(&host).await);
        client.todos.save_with_id("old", &json!({"n": 0})).await.unwrap();
        client.synced().await;
        let backup = host.data().with_file_name("backup");
        let client = if live {
            copy(&client.dir, &backup);
            client
        } else {
            client.reopen(|dir| copy(dir, &backup), |_| {}).await
        };
        for n in 0..made {
            client.todos.save_with_id(&format!("made-{n}"), &json!({})).await.unwrap();
        }
        client.synced().await;

        let offline = |config: &mut SyncConfig| config.connect_at_start = false;
        let mut client = client.reopen(|dir| restore(&backup, dir), offline).await;
        let id = client.sync.status().await.unwrap().client_id;
        for n in 0..pending {
            client.todos.save_with_id(&format!("pending-{n}"), &json!({})).await.unwrap();
        }
        client.sync.connect().await.unwrap();
        told(&mut client.events, |kind| matches!(kind, EventKind::ReplicaCopied { .. })).await;
        converged(&[&client, &reader]).await;
        let held = reader.todos.get_all().await.unwrap();
        assert_eq!(held.len(), 1 + made + pending, "{held:?}");
        assert!(held.iter().all(|record| record.version == 1), "{held:?}");
        assert_ne!(client.sync.status().await.unwrap().client_id, id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_the_original_is_noticed_and_both_go_on() {
    let host = Host::start().await;
    let original = Device::new(&host).await;
    original.todos.save_with_id("shared", &json!({"a": 0, "b": 0})).await.unwrap();
    original.synced().await;
    // both hold a write that waits
    original.sync.disconnect().await.unwrap();
    original.todos.save_with_id("waiting", &json!({"n": 1})).await.unwrap();
    let backup = host.data().with_file_name("backup");
    let offline = |config: &mut SyncConfig| config.connect_at_start = false;
    let mut original = original.reopen(|dir| copy(dir, &backup), offline).await;
    let mut copied = Device::on_copy(&host, &backup, offline).await;
    original.sync.connect().await.unwrap();
    copied.sync.connect().await.unwrap();
    for n in 0..5 {
        original.todos.save_with_id(&format!("original-{n}"), &json!({})).await.unwrap();
        copied.todos.save_with_id(&format!("copied-{n}"), &json!({})).await.unwrap();
    }
    original.todos.update("shared", &json!({"a": 1})).await.unwrap();
    copied.todos.update("shared", &json!({"b": 2})).await.unwrap();
    tokio::select! {
        _ = told(&mut original.events, is_copied) => {}
        _ = told(&mut copied.events, is_copied) => {}
    }
    converged(&[&original, &copied]).await;
    let held = original.todos.get_all().await.unwrap();
    assert_eq!(held.len(), 12, "{held:?}");
    assert_eq!(original.field("waiting", "n").await, Some(json!(1)));
    assert_eq!(original.field("shared", "a").await, Some(json!(1)));
    assert_eq!(original.field("shared", "b").await, Some(json!(2)));
    let id = |device: &Device| {
        let sync = device.sync.clone();
        async move { sync.status().await.unwrap().client_id }
    };
    assert_ne!(id(&original).await, id(&copied).await);
}

fn is_copied(kind: &EventKind) -> bool {
    matches!(kind, EventKind::ReplicaCopied { .. })
}
