//! Servers that lost what their replicas hold, and servers with another database in their place.

use std::fs;

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::{soon, told};
use synclayer_tokio::{
    ConnectionState, EventKind, OnServerLoss, SyncConfig, SyncError, SyncFailureReason,
};

use crate::common::{Device, converged, copy, restore};

/// More than what goes without a question.
const MANY: usize = 15;

async fn saved(device: &Device, prefix: &str, count: usize) {
    for n in 0..count {
        device.todos.save_with_id(&format!("{prefix}-{n}"), &json!({"n": n})).await.unwrap();
    }
}

async fn held(device: &Device) -> usize {
    device.todos.get_all().await.unwrap().len()
}

/// Waits until a call of `synced` fails, and says why.
async fn not_in_sync(device: &Device) -> Vec<SyncFailureReason> {
    loop {
        match soon("an answer", device.sync.synced()).await {
            Err(SyncError::NotInSync(failures)) => {
                return failures.into_iter().map(|failure| failure.reason).collect();
            }
            Err(error) => panic!("{error}"),
            // it came in time for what there was before
            Ok(()) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_loss_waits_for_the_app_and_a_small_one_does_not() {
    let mut host = Host::start().await;
    let quietly = |config: &mut SyncConfig| config.on_server_loss = Some(OnServerLoss::Adopt);
    let (mut adopts, mut offers) = (Device::new(&host).await, Device::new(&host).await);
    let mut quiet = Device::with(&host, quietly).await;
    saved(&adopts, "before", 3).await;
    converged(&[&adopts, &offers, &quiet]).await;
    host.stop().await;
    let backup = host.data().with_file_name("backup");
    copy(&host.data(), &backup);
    host.run().await;
    saved(&adopts, "after", MANY).await;
    converged(&[&adopts, &offers, &quiet]).await;
    host.stop().await;
    restore(&backup, &host.data());
    host.run().await;

    let asks = |kind: &EventKind| {
        let ask = OnServerLoss::Ask;
        matches!(kind, EventKind::RecordsMissing { missing: 15, of: 18, decision, .. } if *decision == ask)
    };
    let adopted = |kind: &EventKind| matches!(kind, EventKind::RecordsMissing { missing: 15, .. });
    told(&mut adopts.events, asks).await;
    told(&mut offers.events, asks).await;
    told(&mut quiet.events, adopted).await;
    quiet.synced().await;
    assert_eq!((held(&adopts).await, held(&offers).await, held(&quiet).await), (18, 18, 3));
    assert_eq!(
        not_in_sync(&adopts).await,
        [SyncFailureReason::RecordsMissing { missing: 15 }],
        "it is known why"
    );

    // the question outlives the process
    let mut offers = offers.reopen(|_| {}, |_| {}).await;
    assert_eq!(held(&offers).await, 18);
    assert_eq!(
        not_in_sync(&offers).await,
        [SyncFailureReason::RecordsMissing { missing: 15 }],
        "after a restart too"
    );
    adopts.sync.adopt().await.unwrap();
    converged(&[&adopts, &quiet]).await;
    assert_eq!(held(&adopts).await, 3);

    // an edit of a held record goes out with it
    offers.sync.disconnect().await.unwrap();
    offers.todos.update("after-0", &json!({"n": "edited"})).await.unwrap();
    offers.sync.offer().await.unwrap();
    offers.sync.connect().await.unwrap();
    told(&mut offers.events, |kind| matches!(kind, EventKind::OperationSynced { .. })).await;
    converged(&[&offers, &adopts, &quiet]).await;
    assert_eq!(held(&adopts).await, 18);
    assert_eq!(adopts.field("after-0", "n").await, Some(json!("edited")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_is_not_followed_until_the_app_has_decided() {
    let mut host = Host::start().await;
    let mut adopts = Device::new(&host).await;
    let mut offers = Device::new(&host).await;
    let mut returns = Device::new(&host).await;
    saved(&adopts, "first", 3).await;
    for device in [&adopts, &offers, &returns, &adopts] {
        device.synced().await;
    }
    host.stop().await;
    let first = host.data().with_file_name("first");
    fs::rename(host.data(), &first).unwrap();
    for device in [&adopts, &offers, &returns] {
        device.todos.update("first-1", &json!({"n": "waits"})).await.unwrap();
    }
    host.run().await;
    let found = |kind: &EventKind| matches!(kind, EventKind::DifferentDatabase { .. });
    for device in [&mut adopts, &mut offers, &mut returns] {
        told(&mut device.events, found).await;
        assert_eq!(held(device).await, 3, "all is kept");
        assert_eq!(device.pending().await, 1, "and nothing was sent");
        let status = device.sync.status().await.unwrap();
        assert_eq!(status.connection, ConnectionState::DifferentDatabase);
        let why = not_in_sync(device).await;
        assert!(matches!(why[..], [SyncFailureReason::DifferentDatabase { .. }]), "{why:?}");
    }
    soon("the end of one", returns.sync.close()).await;

    adopts.sync.adopt().await.unwrap();
    adopts.synced().await;
    assert_eq!(held(&adopts).await, 0, "the new one is empty");
    let rejected = adopts.sync.rejected().list().await.unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].code.as_str(), "DIFFERENT_DATABASE");

    offers.sync.offer().await.unwrap();
    for device in [&offers, &adopts] {
        device.synced().await;
    }
    told(&mut adopts.events, |kind| matches!(kind, EventKind::SyncCompleted { .. })).await;
    adopts.sync.sync_now().await.unwrap();
    adopts.synced().await;
    assert_eq!(held(&adopts).await, 3);
    assert_eq!(adopts.field("first-1", "n").await, Some(json!("waits")));

    // where the first one comes back, its replica goes on
    host.stop().await;
    fs::rename(host.data(), host.data().with_file_name("second")).unwrap();
    fs::rename(&first, host.data()).unwrap();
    host.run().await;
    let returns = returns.reopen(|_| {}, |_| {}).await;
    returns.synced().await;
    assert_eq!(returns.pending().await, 0);
    assert_eq!(returns.field("first-1", "n").await, Some(json!("waits")));
}
