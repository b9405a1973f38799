//! Tokens, users, and connections that are not wanted.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use synclayer_core::{ErrorCode, Token, UserId};
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::Frame;
use synclayer_e2e::wait::{told, told_already};
use synclayer_server::{
    AuthError, Authenticating, Authenticator, Identified, ServerConfig, StaticTokens,
};
use synclayer_tokio::{ConnectionState, EventKind};

use crate::common::{Device, converged};

/// Tokens of the user ann: `fr3sh` ones are good, `short` ones for a moment, `old` ones no longer.
struct Clerk {
    /// True if the short ones have run out.
    late: AtomicBool,
}

impl Authenticator for Clerk {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        let ann = Identified::as_user(UserId::new("ann").unwrap());
        Box::pin(ready(match token.reveal() {
            "fr3sh" => Ok(ann),
            "short" if self.late.swap(true, Ordering::SeqCst) => Err(AuthError::Expired),
            "short" => Ok(ann.valid_for(Duration::from_millis(300))),
            "old" => Err(AuthError::Expired),
            _ => Err(AuthError::Wrong),
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_waits_for_a_fresh_one_and_loses_nothing() {
    let clerk = Arc::new(Clerk { late: false.into() });
    let config = ServerConfig::new().authenticator(clerk);
    let host = Host::with(config).await;
    for first in ["old", "wrong", "short"] {
        let mut device = Device::with(&host, |config| {
            config.auth_token = Some(first.into());
            config.user = "ann".into();
            config.connect_at_start = false;
        })
        .await;
        device.sync.connect().await.unwrap();
        if first == "short" {
            device.todos.save_with_id("early", &json!({})).await.unwrap();
            device.synced().await;
        }
        let seen =
            told(&mut device.events, |kind| matches!(kind, EventKind::TokenNeeded { .. })).await;
        let EventKind::TokenNeeded { code, .. } = &seen.last().unwrap().kind else { panic!() };
        let expected =
            if first == "wrong" { ErrorCode::AuthFailed } else { ErrorCode::AuthExpired };
        assert_eq!(*code, expected, "{first}");
        device.todos.save_with_id(first, &json!({"n": 1})).await.unwrap();
        assert_eq!(device.pending().await, 1);

        device.sync.set_token("fr3sh").await.unwrap();
        converged(&[&device]).await;
        assert_eq!(device.sync.status().await.unwrap().connection, ConnectionState::Connected);
        assert_eq!(device.todos.get(first).await.unwrap().unwrap().version, 1);
        let said = format!(
            "{seen:?}{:?}{:?}",
            told_already(&mut device.events),
            device.sync.status().await
        );
        assert!(!said.contains("fr3sh"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_disconnected_stays_so_until_it_connects() {
    let mut host = Host::start().await;
    let mut device = Device::new(&host).await;
    device.synced().await;
    device.sync.disconnect().await.unwrap();
    told(&mut device.events, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })).await;
    device.proxy.take();
    // nothing that happens brings it back: a write, a new collection, a restart of the server
    device.todos.save_with_id("a", &json!({})).await.unwrap();
    device.sync.collection("others").unwrap().save(&json!({})).await.unwrap();
    host.stop().await;
    host.run().await;
    let other = Device::new(&host).await;
    other.synced().await;
    assert_eq!(device.sync.status().await.unwrap().connection, ConnectionState::Disconnected);
    assert!(device.proxy.passed().iter().all(|frame| frame.conn == 0));
    assert_eq!(device.pending().await, 2);

    device.sync.connect().await.unwrap();
    converged(&[&device, &other]).await;
    assert_eq!(other.todos.get_all().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_of_one_directory_have_their_own_outboxes() {
    let user = |name| UserId::new(name).unwrap();
    let tokens = StaticTokens::new([(user("ann"), "a-token"), (user("bob"), "b-token")]);
    let config = ServerConfig::new().authenticator(Arc::new(tokens));
    let host = Host::with(config).await;
    let of = |name: &'static str, token: &'static str, online: bool| {
        move |config: &mut synclayer_tokio::SyncConfig| {
            config.user = name.into();
            config.auth_token = Some(token.into());
            config.connect_at_start = online;
        }
    };
    let device = Device::with(&host, of("ann", "a-token", false)).await;
    device.todos.save_with_id("of-ann", &json!({})).await.unwrap();
    let ann = device.sync.status().await.unwrap().client_id;

    let device = device.reopen(|_| {}, of("bob", "b-token", false)).await;
    assert_eq!(device.pending().await, 0, "the other's writes wait");
    assert!(device.todos.get_all().await.unwrap().is_empty());
    device.todos.save_with_id("of-bob", &json!({})).await.unwrap();
    assert_ne!(device.sync.status().await.unwrap().client_id, ann);
    device.sync.connect().await.unwrap();
    device.synced().await;
    let ids = |frames: Vec<Frame>| {
        let writes = frames.into_iter().filter(|frame| frame.writes() > 0);
        writes
            .flat_map(|frame| frame.messages())
            .map(|write| write["recordId"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(device.proxy.take()), ["of-bob"]);

    let device = device.reopen(|_| {}, of("ann", "a-token", true)).await;
    device.synced().await;
    assert_eq!(ids(device.proxy.take()), ["of-ann"]);
    assert_eq!(device.sync.status().await.unwrap().client_id, ann);
    assert_eq!(device.todos.get_all().await.unwrap().len(), 2, "the server lets both read");
}
