//! Rights that look at other records, in raw text frames.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;

use common::{Peer, http, serve};
use serde_json::{Value, json};
use synclayer_core::{Collection, Right, Rules, UserId};
use synclayer_server::{ReloadablePolicy, Server, ServerConfig, StaticTokens};

/// A server on which members of a doc may read it.
async fn serve_docs() -> Server {
    let mut rules = Rules::new(true);
    let docs = Collection::new("docs").unwrap();
    rules.set(docs, Right::Read, r#"exists("members", id + ":" + user)"#).unwrap();
    let tokens = StaticTokens::new([(UserId::new("ann").unwrap(), "a-token")]);
    let policy = Arc::new(ReloadablePolicy::new(Arc::new(rules)));
    serve(ServerConfig::new().authenticator(Arc::new(tokens)).policy(policy)).await
}

async fn call(server: &Server, method: &str, path: &str, body: &Value) {
    let auth = [("authorization", "Bearer a-token")];
    let reply = http(server, method, path, &auth, &body.to_string()).await;
    assert!(matches!(reply.status, 200 | 204), "{method} {path}: {}", reply.status);
}

/// A connection of Ann's device, whose session this is, that goes on from a place. Returns it, the mode of its
/// run, and the place at its end.
async fn come(server: &Server, session: u64, place: &Value) -> (Peer, Value, Value) {
    let mut peer = Peer::connect(server, "?token=a-token", &[]).await;
    let metadata = json!({"protocol": 2, "clientId": "phone", "session": session});
    peer.send(json!({"type": "ping", "metadata": metadata}).to_string()).await;
    peer.expect("pong").await;
    let subscribe = json!({"type": "subscribe", "collection": "docs", "metadata": place});
    peer.send(subscribe.to_string()).await;
    let (mut said, mut synced) = (Value::Null, Value::Null);
    while synced.is_null() {
        let message = peer.json().await;
        match message["type"].as_str() {
            Some("subscribed") => said = message["metadata"].clone(),
            Some("synced") => synced = message["metadata"].clone(),
            _ => {}
        }
    }
    let place = json!({"cursor": synced, "rights": said["rights"]});
    (peer, said["mode"].clone(), place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_goes_on_from_where_they_were_while_no_membership_changes() {
    let server = serve_docs().await;
    call(&server, "POST", "/sync/docs", &json!({"recordId": "plan", "data": {}})).await;
    call(&server, "POST", "/sync/members", &json!({"recordId": "plan:ann", "data": {}})).await;
    let (peer, mode, place) = come(&server, 1, &json!({})).await;
    assert_eq!(mode, "snapshot");

    drop(peer);
    let (mut peer, mode, _) = come(&server, 2, &place).await;
    assert_eq!(mode, "delta");
    // it was looked at on the connection before
    call(&server, "DELETE", "/sync/members/plan:ann", &json!({})).await;
    assert_eq!(peer.expect("subscribed").await["metadata"]["mode"], "snapshot");
    assert_eq!(peer.expect("sync").await["data"]["records"], json!([]));

    drop(peer);
    let (_, mode, _) = come(&server, 3, &place).await;
    assert_eq!(mode, "snapshot", "what the membership permitted is not held any more");
}
