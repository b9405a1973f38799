//! The backends, as raw peers see them: so that a test of the client that fails against one says
//! something about the client.

use serde_json::{Value, json};
use synclayer_e2e::peer::Peer;

use crate::support::{Backend, Kind, http, http_as};

against_each! {
    changes_reach_the_other_subscribers;
    records_are_posted_patched_shown_and_deleted;
    queries_select_and_page;
    tokens_are_asked_for;
    flags_make_it_clumsy_by_websocket;
    flags_make_it_clumsy_by_http;
    one_way_or_the_other_can_be_missing;
    what_is_relayed_is_not_stored;
    connections_are_cut;
    it_ends_with_its_input;
}

fn subscribe() -> Value {
    json!({"type": "subscribe", "collection": "todos"})
}

fn insert(id: &str, data: Value) -> Value {
    json!({"type": "insert", "collection": "todos", "recordId": id, "data": data})
}

fn update(id: &str, data: Value) -> Value {
    json!({"type": "update", "collection": "todos", "recordId": id, "data": data})
}

async fn subscribed(backend: &Backend) -> Peer {
    let mut peer = Peer::connect(&backend.url("")).await;
    peer.send(subscribe()).await;
    peer.expect("subscribed").await;
    peer
}

async fn records(backend: &Backend, query: &str) -> Vec<Value> {
    let answer = http(backend, "GET", &format!("/sync/todos{query}"), Value::Null).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["records"].as_array().unwrap().clone()
}

async fn changes_reach_the_other_subscribers(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &[]) else { return };
    let mut ann = subscribed(&backend).await;
    let mut bob = subscribed(&backend).await;
    ann.send(insert("1", json!({"x": 1, "y": 1}))).await;
    let change = bob.expect("insert").await;
    assert_eq!((&change["recordId"], &change["data"]), (&json!("1"), &json!({"x": 1, "y": 1})));
    assert_eq!(change["metadata"]["version"], 1);
    assert!(change["timestamp"].is_string());
    ann.send(update("1", json!({"x": 2}))).await;
    let change = bob.expect("update").await;
    assert_eq!((&change["data"], &change["metadata"]["version"]), (&json!({"x": 2}), &json!(2)));
    ann.send(json!({"type": "sync", "collection": "todos"})).await;
    let sync = ann.expect("sync").await;
    assert_eq!(sync["data"]["records"][0]["id"], "1");
    assert_eq!(sync["data"]["records"][0]["data"], json!({"x": 2, "y": 1}));
    ann.send(json!({"type": "delete", "collection": "todos", "recordId": "1"})).await;
    bob.expect("delete").await;
    ann.send(update("1", json!({"x": 3}))).await;
    let error = ann.expect("error").await;
    assert_eq!((&error["code"], &error["recordId"]), (&json!("RECORD_NOT_FOUND"), &json!("1")));
    // what a level-2 client says first is a ping like any other
    let metadata = json!({"protocol": 2, "clientId": "c", "session": 1});
    ann.send(json!({"type": "ping", "metadata": metadata})).await;
    let pong = ann.expect("pong").await;
    assert!(pong["metadata"].is_null() && pong["timestamp"].is_string());
    ann.expect_quiet().await;
    bob.send(json!({"type": "unsubscribe", "collection": "todos"})).await;
    bob.expect("unsubscribed").await;
    ann.send(insert("2", json!({}))).await;
    ann.expect_quiet().await;
    bob.expect_quiet().await;
    let stats = backend.stats();
    assert_eq!((&stats["connections"], &stats["writes"]), (&json!(2), &json!(4)));
}

async fn records_are_posted_patched_shown_and_deleted(kind: Kind) {
    let Some(backend) = Backend::start(kind, &[]) else { return };
    let mut peer = subscribed(&backend).await;
    let body = json!({"recordId": "a b", "data": {"x": 1, "y": 1}});
    let answer = http(&backend, "POST", "/sync/todos", body).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    assert_eq!((&answer.json()["recordId"], &answer.json()["version"]), (&json!("a b"), &json!(1)));
    peer.expect("insert").await;
    let path = "/sync/todos/a%20b";
    let patch = |x, base| json!({"delta": {"x": x}, "baseVersion": base});
    assert_eq!(http(&backend, "PATCH", path, patch(2, 1)).await.status, 200);
    assert_eq!(peer.expect("update").await["data"], json!({"x": 2}));
    let answer = http(&backend, "PATCH", path, patch(3, 1)).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["record"]["data"], json!({"x": 2, "y": 1}));
    let found = records(&backend, "").await;
    assert_eq!((&found[0]["recordId"], &found[0]["version"]), (&json!("a b"), &json!(2)));
    assert_eq!(http(&backend, "DELETE", path, Value::Null).await.status, 204);
    peer.expect("delete").await;
    assert_eq!(http(&backend, "DELETE", path, Value::Null).await.status, 204);
    assert_eq!(http(&backend, "PATCH", path, patch(4, 2)).await.status, 404);
    assert_eq!(http(&backend, "POST", "/sync/todos", json!({"x": 1})).await.status, 400);
    // it is of level 1
    let hello = json!({"clientId": "c", "session": 1});
    let answer = http(&backend, "POST", "/sync/session", hello).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(records(&backend, "").await.is_empty());
}

async fn post(backend: &Backend, id: &str) -> Value {
    let body = json!({"recordId": id, "data": {}});
    let answer = http(backend, "POST", "/sync/todos", body).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    answer.json()
}

fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["recordId"].as_str().unwrap()).collect()
}

async fn queries_select_and_page(kind: Kind) {
    let Some(backend) = Backend::start(kind, &[]) else { return };
    for id in ["1", "2", "3"] {
        post(&backend, id).await;
    }
    assert_eq!(ids(&records(&backend, "").await), ["1", "2", "3"]);
    assert_eq!(ids(&records(&backend, "?limit=2").await), ["1", "2"]);
    assert_eq!(ids(&records(&backend, "?limit=2&offset=2").await), ["3"]);
    assert_eq!(ids(&records(&backend, "?limit=2&offset=4").await), Vec::<&str>::new());
    assert_eq!(records(&backend, "?since=2000-01-01T00:00:00Z").await.len(), 3);
    assert_eq!(records(&backend, "?since=2000-01-01T00%3A00%3A00.000%2B00%3A00").await.len(), 3);
    assert_eq!(records(&backend, "?since=2000-01-01T00:00:00").await.len(), 3);
    assert_eq!(records(&backend, "?since=2999-01-01T00:00:00Z").await.len(), 0);
}

async fn tokens_are_asked_for(kind: Kind) {
    let Some(backend) = Backend::start(kind, &["--token", "s3cret"]) else { return };
    for (token, wanted) in [(None, 401), (Some("wrong"), 401), (Some("s3cret"), 200)] {
        let answer = http_as(&backend, token, "GET", "/sync/todos", Value::Null).await;
        assert_eq!(answer.status, wanted, "{token:?}");
    }
    assert_eq!(Peer::try_connect(&backend.url("?token=wrong")).await.err(), Some(401));
    let mut peer = Peer::connect(&backend.url("?token=s3cret")).await;
    peer.send(subscribe()).await;
    peer.expect("subscribed").await;
    let mut peer = Peer::connect(&backend.url("")).await;
    peer.send(subscribe()).await;
    assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED");
    peer.send(json!({"type": "auth", "data": {"token": "wrong"}})).await;
    assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED");
    peer.send(json!({"type": "auth", "data": {"token": "s3cret"}})).await;
    peer.expect("authenticated").await;
    peer.send(subscribe()).await;
    peer.expect("subscribed").await;
}

async fn flags_make_it_clumsy_by_websocket(kind: Kind) {
    let flags = ["--no-pong", "--no-subscribed", "--no-version", "--naive-timestamps", "--echo"];
    let Some(backend) = Backend::start(kind, &flags) else { return };
    let mut peer = Peer::connect(&backend.url("")).await;
    peer.send(json!({"type": "ping"})).await;
    peer.send(subscribe()).await;
    peer.expect_quiet().await;
    peer.ping().await;
    peer.send(insert("1", json!({"x": 1}))).await;
    let echo = peer.expect("insert").await;
    assert!(echo["metadata"]["version"].is_null());
    let time = echo["timestamp"].as_str().unwrap();
    assert!(!time.ends_with('Z') && !time.contains('+'), "{time}");
}

async fn flags_make_it_clumsy_by_http(kind: Kind) {
    let flags = ["--no-version", "--no-updated-at", "--id-field", "id", "--no-409", "--bare-array"];
    let Some(backend) = Backend::start(kind, &flags) else { return };
    assert_eq!(post(&backend, "1").await, json!({"id": "1"}));
    let stale = json!({"delta": {"x": 1}, "baseVersion": 0});
    assert_eq!(http(&backend, "PATCH", "/sync/todos/1", stale).await.status, 200);
    let found = http(&backend, "GET", "/sync/todos", Value::Null).await.json();
    assert_eq!(found, json!([{"id": "1", "data": {"x": 1}}]));

    let Some(backend) = Backend::start(kind, &["--naive-timestamps", "--newest-first"]) else {
        return;
    };
    for id in ["1", "2"] {
        let made = post(&backend, id).await;
        let time = made["updatedAt"].as_str().unwrap();
        assert!(!time.ends_with('Z') && !time.contains('+'), "{time}");
    }
    // until the clock has moved on
    while ids(&records(&backend, "").await) != ["1", "2"] {
        http(&backend, "PATCH", "/sync/todos/1", json!({"delta": {}})).await;
    }
}

async fn one_way_or_the_other_can_be_missing(kind: Kind) {
    let Some(backend) = Backend::start(kind, &["--ws-only"]) else { return };
    assert_eq!(http(&backend, "GET", "/sync/todos", Value::Null).await.status, 404);
    subscribed(&backend).await;
    let Some(backend) = Backend::start(kind, &["--http-only"]) else { return };
    assert_eq!(Peer::try_connect(&backend.url("")).await.err(), Some(404));
    assert!(records(&backend, "").await.is_empty());
}

async fn what_is_relayed_is_not_stored(kind: Kind) {
    let Some(backend) = Backend::start(kind, &["--ws-relay-only"]) else { return };
    let mut ann = subscribed(&backend).await;
    let mut bob = subscribed(&backend).await;
    ann.send(insert("1", json!({"x": 1}))).await;
    assert_eq!(bob.expect("insert").await["data"], json!({"x": 1}));
    ann.send(update("1", json!({"x": 2}))).await;
    bob.expect("update").await;
    assert!(records(&backend, "").await.is_empty());
    post(&backend, "1").await;
    bob.expect("insert").await;
    assert_eq!(records(&backend, "").await.len(), 1);
}

async fn connections_are_cut(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &["--cut-every", "2"]) else { return };
    // the second message is cut before it is looked at, the fourth after that
    for stored in [false, true] {
        let mut peer = subscribed(&backend).await;
        peer.send(insert("1", json!({}))).await;
        assert_eq!(peer.next().await, None);
        assert_eq!(!records(&backend, "").await.is_empty(), stored);
    }
    let mut peer = Peer::connect(&backend.url("")).await;
    backend.cut();
    assert_eq!(peer.next().await, None);
    assert_eq!(backend.stats()["cuts"], 3);
}

async fn it_ends_with_its_input(kind: Kind) {
    let Some(backend) = Backend::start(kind, &[]) else { return };
    let mut peer = subscribed(&backend).await;
    backend.end();
    assert_eq!(peer.next().await, None);
}
