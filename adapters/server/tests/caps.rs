//! The limits of what peers can make a server keep, where it knows no users.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use common::{Peer, http, serve};
use serde_json::{Value, json};
use synclayer_core::Limits;
use synclayer_server::{Server, ServerConfig};

async fn capped(cap: impl FnOnce(&mut Limits)) -> Server {
    let mut config = ServerConfig::new();
    cap(&mut config.limits.input);
    serve(config).await
}

async fn call(server: &Server, method: &str, path: &str, body: Value) -> (u16, Value) {
    let answer = http(server, method, path, &[], &body.to_string()).await;
    (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
}

/// The refusal of a further record, by REST and at level 1.
async fn refused(server: &Server, collection: &str, why: &str) {
    let record = json!({"recordId": "x", "data": {"n": 1}});
    let (status, body) = call(server, "POST", &format!("/sync/{collection}"), record).await;
    let told = (status, &body["code"], &body["error"]);
    assert_eq!(told, (413, &json!("PAYLOAD_TOO_LARGE"), &json!(why)));

    let mut peer = Peer::connect(server, "", &[]).await;
    let insert = json!({"type": "insert", "collection": collection, "recordId": "x", "data": {}});
    peer.send(insert.to_string()).await;
    let error = peer.expect("error").await;
    assert_eq!((&error["code"], &error["recordId"]), (&json!("PAYLOAD_TOO_LARGE"), &json!("x")));
    peer.expect_quiet().await;
}

async fn insert(server: &Server, collection: &str, id: &str) -> u16 {
    let record = json!({"recordId": id, "data": {"n": 1}});
    call(server, "POST", &format!("/sync/{collection}"), record).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_begins_no_more_collections_than_it_may_have() {
    let server = capped(|limits| limits.collections = 1).await;
    assert_eq!(insert(&server, "todos", "a").await, 200);
    let why = "the server has 1 collections, and may have no more: notes can't be one, use one that \
               is there";
    refused(&server, "notes", why).await;
    assert_eq!(insert(&server, "todos", "b").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_collection_takes_deletions_and_then_records_again() {
    let server = capped(|limits| limits.collection_records = 1).await;
    assert_eq!(insert(&server, "todos", "a").await, 200);
    let why = "todos has 1 records, and no collection may have more: delete some";
    refused(&server, "todos", why).await;
    assert_eq!(call(&server, "DELETE", "/sync/todos/a", Value::Null).await.0, 204);
    assert_eq!(insert(&server, "todos", "b").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_grows_to_its_size_and_no_further() {
    let server = capped(|limits| limits.collection_bytes = 500).await;
    let data = |bytes| json!({"delta": {"text": "x".repeat(bytes)}});
    assert_eq!(insert(&server, "todos", "a").await, 200);
    assert_eq!(call(&server, "PATCH", "/sync/todos/a", data(300)).await.0, 200);
    let (status, body) = call(&server, "PATCH", "/sync/todos/a", data(600)).await;
    assert_eq!((status, &body["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    assert!(body["error"].as_str().unwrap().ends_with("more don't fit: delete some"), "{body}");
    // nothing of it was taken
    let (_, read) = call(&server, "GET", "/sync/todos/a", Value::Null).await;
    assert_eq!(read["data"]["text"], json!("x".repeat(300)));
    assert_eq!(call(&server, "DELETE", "/sync/todos/a", Value::Null).await.0, 204);
    assert_eq!(insert(&server, "todos", "b").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_id_too_many_is_refused_by_both_ways() {
    let server = capped(|limits| limits.user_clients = 1).await;
    let hello = |client: &str, session: u64| json!({"clientId": client, "session": session});
    assert_eq!(call(&server, "POST", "/sync/session", hello("c1", 1)).await.0, 200);
    let (status, body) = call(&server, "POST", "/sync/session", hello("c2", 1)).await;
    assert_eq!((status, &body["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
    let why = body["error"].as_str().unwrap();
    assert!(why.starts_with("this user has 1 client ids, and may have no more: "), "{why}");

    let ping = |client: &str| {
        let metadata = json!({"protocol": 2, "clientId": client, "session": 2});
        json!({"type": "ping", "metadata": metadata}).to_string()
    };
    let mut stranger = Peer::connect(&server, "", &[]).await;
    stranger.send(ping("c2")).await;
    assert_eq!(stranger.expect("error").await["error"], body["error"]);
    assert_eq!(stranger.closed().await, 1013);
    let mut known = Peer::connect(&server, "", &[]).await;
    known.send(ping("c1")).await;
    assert_eq!(known.expect("pong").await["metadata"]["protocol"], 2);
}
