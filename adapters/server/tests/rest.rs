//! The REST calls, in requests written by hand.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;

use common::{Peer, http, open, serve, with_tokens};
use serde_json::{Value, json};
use synclayer_core::{Access, Change, Collection, Document, Policy, Rate, RecordId, UserId};
use synclayer_server::{MemoryServerStore, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn call(server: &Server, method: &str, target: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = http(server, method, target, &[], &body).await;
    let json = if answer.body.is_empty() { Value::Null } else { answer.json() };
    (answer.status, json)
}

async fn post(server: &Server, id: &str, data: Value) -> Value {
    let (status, body) =
        call(server, "POST", "/sync/todos", &json!({"recordId": id, "data": data})).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn get(server: &Server, query: &str) -> Vec<Value> {
    let (status, body) = call(server, "GET", &format!("/sync/todos{query}"), &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body["records"].as_array().unwrap().clone()
}

fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["recordId"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_its_insert_to_its_delete() {
    let server = open().await;
    let made = post(&server, "1", json!({"a": 1, "b": 1})).await;
    assert_eq!((&made["recordId"], &made["version"]), (&json!("1"), &json!(1)));
    assert!(made["updatedAt"].is_string());

    let patch = json!({"delta": {"a": 2}, "baseVersion": 1});
    let (status, body) = call(&server, "PATCH", "/sync/todos/1", &patch).await;
    assert_eq!((status, &body["version"]), (200, &json!(2)));

    // what changes nothing is none, a field that changed since is a conflict, another one isn't
    assert_eq!(call(&server, "PATCH", "/sync/todos/1", &patch).await.0, 200);
    let read = call(&server, "GET", "/sync/todos/1", &json!({})).await;
    assert_eq!(
        (read.0, &read.1["data"], &read.1["version"]),
        (200, &json!({"a": 2, "b": 1}), &json!(2))
    );
    let outdated = json!({"delta": {"a": 3}, "baseVersion": 1});
    let (status, body) = call(&server, "PATCH", "/sync/todos/1", &outdated).await;
    assert_eq!((status, &body["code"]), (409, &json!("CONFLICT")));
    assert_eq!(body["record"]["data"], json!({"a": 2, "b": 1}));
    assert_eq!(body["record"]["version"], 2);
    let other = json!({"delta": {"b": 3}, "baseVersion": 1});
    assert_eq!(call(&server, "PATCH", "/sync/todos/1", &other).await.0, 200);
    let unconditional = json!({"delta": {"a": 4}});
    assert_eq!(call(&server, "PATCH", "/sync/todos/1", &unconditional).await.0, 200);
    assert_eq!(get(&server, "").await[0]["data"], json!({"a": 4, "b": 3}));

    let (status, body) = call(&server, "PATCH", "/sync/todos/none", &unconditional).await;
    assert_eq!((status, &body["code"]), (404, &json!("RECORD_NOT_FOUND")));
    for _ in 0..2 {
        let (status, body) = call(&server, "DELETE", "/sync/todos/1", &Value::Null).await;
        assert_eq!((status, body), (204, Value::Null), "also when there is none");
    }
    assert!(get(&server, "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_choose_records_and_fields() {
    let server = open().await;
    post(&server, "a", json!({"done": true, "n": 1, "title": "milk"})).await;
    post(&server, "b", json!({"done": false, "n": 2, "title": "bread & butter"})).await;
    let made = post(&server, "c", json!({"done": true, "n": 3, "title": "tea"})).await;
    assert_eq!(ids(&get(&server, "").await), ["a", "b", "c"]);
    assert_eq!(ids(&get(&server, "?where[done]=true").await), ["a", "c"]);
    assert_eq!(ids(&get(&server, "?where%5Bdone%5D=true&where[n]=3").await), ["c"]);
    assert_eq!(ids(&get(&server, "?where[title]=bread+%26%20butter").await), ["b"]);
    assert_eq!(ids(&get(&server, "?limit=1&offset=1").await), ["b"]);
    assert_eq!(
        get(&server, "?fields=n,title&limit=1").await[0]["data"],
        json!({"n": 1, "title": "milk"})
    );
    assert_eq!(
        get(&server, "?excludeFields=title&limit=1").await[0]["data"],
        json!({"done": true, "n": 1})
    );
    let since = made["updatedAt"].as_str().unwrap();
    assert!(ids(&get(&server, &format!("?since={since}")).await).contains(&"c"));
    assert!(get(&server, "?since=2999-01-01T00:00:00Z").await.is_empty());
    for bad in ["?since=yesterday", "?limit=many"] {
        let (status, body) = call(&server, "GET", &format!("/sync/todos{bad}"), &Value::Null).await;
        assert_eq!((status, &body["code"]), (400, &json!("INVALID_MESSAGE")), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_have_conditions_an_order_and_pages() {
    let server = open().await;
    for (id, n) in [("a", 1), ("b", 3), ("c", 2), ("d", 3)] {
        post(&server, id, json!({"n": n})).await;
    }
    let above = "where=%7B%22field%22:%22n%22,%22isGreaterThan%22:1%7D";
    let query = format!("/sync/todos?{above}&orderBy=-n&limit=2");
    let (status, first) = call(&server, "GET", &query, &Value::Null).await;
    assert_eq!((status, ids(first["records"].as_array().unwrap())), (200, vec!["b", "d"]));
    let rest = format!("{query}&after={}", first["next"].as_str().unwrap());
    let (_, rest) = call(&server, "GET", &rest, &Value::Null).await;
    assert_eq!(
        (ids(rest["records"].as_array().unwrap()), &rest["next"]),
        (vec!["c"], &Value::Null)
    );
    let (status, body) = call(&server, "GET", &format!("{query}&page=2"), &Value::Null).await;
    assert!(status == 400 && body["error"].as_str().unwrap().contains("`page`"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_every_subscriber() {
    let server = with_tokens().await;
    let mut ann = Peer::connect(&server, "?token=a-token", &[]).await;
    let mut bob = Peer::connect(&server, "?token=b-token", &[]).await;
    ann.subscribe("todos").await;
    bob.subscribe("todos").await;
    let auth = [("authorization", "Bearer a-token")];
    let body = r#"{"recordId":"1","data":{"x":1},"timestamp":"2026-01-02T03:04:05Z"}"#;
    assert_eq!(http(&server, "POST", "/sync/todos", &auth, body).await.status, 200);
    let patch = r#"{"delta":{"x":null}}"#;
    assert_eq!(http(&server, "PATCH", "/sync/todos/1", &auth, patch).await.status, 200);
    assert_eq!(http(&server, "DELETE", "/sync/todos/1", &auth, "").await.status, 204);
    for peer in [&mut ann, &mut bob] {
        let change = peer.expect("insert").await;
        assert_eq!(change["timestamp"], "2026-01-02T03:04:05.000Z");
        assert_eq!(change["metadata"]["userId"], "ann");
        let change = peer.expect("update").await;
        assert_eq!(change["data"], json!({"x": null}));
        peer.expect("delete").await;
        peer.expect_quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_leaves_a_tombstone_for_those_who_catch_up() {
    let server = open().await;
    post(&server, "1", json!({"x": 1})).await;
    post(&server, "2", json!({"x": 2})).await;
    assert_eq!(call(&server, "DELETE", "/sync/todos/1", &Value::Null).await.0, 204);
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":1}}"#).await;
    let epoch = peer.expect("pong").await["metadata"]["epoch"].clone();
    peer.send(
        json!({"type": "subscribe", "collection": "todos",
               "metadata": {"cursor": {"epoch": epoch, "seq": 1}}})
        .to_string(),
    )
    .await;
    assert_eq!(peer.expect("subscribed").await["metadata"]["mode"], "delta");
    assert_eq!(peer.expect("insert").await["recordId"], "2");
    let delete = peer.expect("delete").await;
    assert_eq!((&delete["recordId"], &delete["metadata"]["seq"]), (&json!("1"), &json!(3)));
    assert_eq!(peer.expect("synced").await["metadata"]["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for() {
    let server = with_tokens().await;
    for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
        let answer = http(&server, "GET", "/sync/todos", headers, "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("AUTH_FAILED")));
        assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
    }
    let auth = [("authorization", "Bearer a-token")];
    assert_eq!(http(&server, "GET", "/sync/todos", &auth, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let mut config = ServerConfig::default();
    config.limits.input.frame_bytes = 1000;
    let server = serve(config).await;
    for (method, target, body, status) in [
        ("POST", "/sync/todos", "{", 400),
        ("POST", "/sync/todos", r#"{"recordId":"1"}"#, 400),
        ("POST", "/sync/todos", r#"{"recordId":"1","data":[]}"#, 400),
        ("PUT", "/sync/todos", "", 405),
        ("POST", "/sync/todos/1", "", 405),
        ("GET", "/sync/todos/1/2", "", 404),
        ("POST", "/sync/todos", &" ".repeat(1001), 413),
    ] {
        let answer = http(&server, method, target, &[], body).await;
        assert_eq!(answer.status, status, "{method} {target} {answer:?}");
        assert!(answer.json()["error"].is_string());
    }
}

/// The status and body of the answer to bytes behind which nothing more comes.
async fn cut_off(server: &Server, request: String) -> (u16, Value) {
    let exchange = async {
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(common::PATIENCE, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_not_too_large() {
    let mut config = ServerConfig::default();
    config.limits.input.frame_bytes = 1000;
    let server = serve(config).await;
    let head = "POST /sync/todos HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let part = r#"{"recordId":"1","data":{"#;
    for (framing, status, code) in [
        (format!("Content-Length: 100\r\n\r\n{part}"), 400, "INVALID_MESSAGE"),
        (format!("Transfer-Encoding: chunked\r\n\r\n50\r\n{part}"), 400, "INVALID_MESSAGE"),
        // only a length that was declared or read is too large
        (format!("Content-Length: 1001\r\n\r\n{part}"), 413, "PAYLOAD_TOO_LARGE"),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)),
            413,
            "PAYLOAD_TOO_LARGE",
        ),
    ] {
        let (answered, body) = cut_off(&server, format!("{head}{framing}")).await;
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{framing}");
    }
    assert!(get(&server, "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_only_so_much() {
    let mut config = common::token_config();
    config.limits.user_rate = Some(Rate { per_second: 0, burst: 2 });
    let server = serve(config).await;
    let auth = [("authorization", "Bearer a-token")];
    assert_eq!(http(&server, "GET", "/sync/todos", &auth, "").await.status, 200);
    // the WebSocket and the calls of a user share one rate
    let mut peer = Peer::connect(&server, "?token=a-token", &[]).await;
    peer.subscribe("todos").await;
    peer.send(r#"{"type":"subscribe","collection":"more"}"#).await;
    assert_eq!(peer.expect("error").await["code"], "RATE_LIMIT_EXCEEDED");
    let answer = http(&server, "GET", "/sync/todos", &auth, "").await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
    let auth = [("authorization", "Bearer b-token")];
    assert_eq!(http(&server, "GET", "/sync/todos", &auth, "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_users_a_rate_holds_for_addresses_and_local_connections() {
    let mut config = ServerConfig::new();
    config.limits.user_rate = Some(Rate { per_second: 0, burst: 2 });
    let server = serve(config).await;
    for status in [200, 200, 429] {
        assert_eq!(http(&server, "GET", "/sync/todos", &[], "").await.status, status);
    }
    for _ in 0..2 {
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.subscribe("todos").await;
        peer.subscribe("more").await;
        peer.send(r#"{"type":"subscribe","collection":"most"}"#).await;
        assert_eq!(peer.expect("error").await["code"], "RATE_LIMIT_EXCEEDED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_may_ask_first() {
    let config = ServerConfig::new().allow_origins(["https://app.example"]);
    let server = serve(config).await;
    let origin = [("origin", "https://app.example")];
    let answer = http(&server, "OPTIONS", "/sync/todos", &origin, "").await;
    assert_eq!(answer.status, 204);
    assert!(answer.head.contains("access-control-allow-methods: get, post, patch, delete"));
}

/// Everyone reads what is public, and nobody writes it.
struct Public;

impl Policy for Public {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if collection.as_str() == "public" { Access::All } else { Access::None }
    }

    fn write(
        &self,
        _: Option<&UserId>,
        collection: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        if collection.as_str() == "public" { Err("it is for reading".into()) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides() {
    let config = ServerConfig::new().policy(Arc::new(Public));
    let server = serve(config).await;
    let body = json!({"recordId": "1", "data": {}});
    let (status, refusal) = call(&server, "POST", "/sync/public", &body).await;
    assert_eq!((status, &refusal["code"]), (403, &json!("UNAUTHORIZED")));
    assert!(refusal["error"].as_str().unwrap().contains("it is for reading"), "{refusal}");
    assert_eq!(call(&server, "POST", "/sync/secret", &body).await.0, 200);
    assert_eq!(call(&server, "GET", "/sync/secret", &Value::Null).await.0, 403);
    assert_eq!(call(&server, "GET", "/sync/public", &Value::Null).await.0, 200);
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(r#"{"type":"subscribe","collection":"secret"}"#).await;
    assert_eq!(peer.expect("error").await["code"], "UNAUTHORIZED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_all_of_its_writes_or_none() {
    let server = open().await;
    post(&server, "1", json!({"a": 1})).await;
    let insert =
        json!({"type": "insert", "collection": "notes", "recordId": "n", "data": {"b": 1}});
    let update = json!({
        "type": "update", "collection": "todos", "recordId": "1", "data": {"a": 2}, "baseVersion": 1,
    });
    let body = json!({"writes": [insert, update]});
    let (status, answer) = call(&server, "POST", "/sync/transaction", &body).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    let versions: Vec<_> = results.iter().map(|result| result["version"].as_u64()).collect();
    assert_eq!(versions, [Some(1), Some(2)]);

    // the second is outdated now: the first, which could be taken, is not
    let delete = json!({"type": "delete", "collection": "notes", "recordId": "n"});
    let outdated = json!({
        "type": "update", "collection": "todos", "recordId": "1", "data": {"a": 3}, "baseVersion": 1,
    });
    let body = json!({"writes": [delete, outdated]});
    let (status, answer) = call(&server, "POST", "/sync/transaction", &body).await;
    assert_eq!((status, &answer["code"]), (409, &json!("CONFLICT")), "{answer}");
    assert_eq!(answer["failed"], json!([{"index": 1, "code": "CONFLICT"}]));
    let (status, note) = call(&server, "GET", "/sync/notes/n", &Value::Null).await;
    assert_eq!((status, &note["data"]), (200, &json!({"b": 1})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_read_that_the_configuration_declares() {
    let store = Arc::new(MemoryServerStore::new());
    let first = Server::bind(ServerConfig::new(), Arc::clone(&store) as _).await.unwrap();
    for (id, room) in [("1", "a"), ("2", "b"), ("3", "a")] {
        post(&first, id, json!({"room": room})).await;
    }
    let (status, body) = call(&first, "GET", "/sync/todos?scope[room]=a", &Value::Null).await;
    assert_eq!((status, &body["code"]), (400, &json!("INVALID_MESSAGE")), "{body}");
    first.shutdown().await;

    let keys = ["room".parse().unwrap()];
    let config = ServerConfig::new().scopes(Collection::new("todos").unwrap(), keys);
    let server = Server::bind(config, store).await.unwrap();
    let built = async {
        loop {
            let (status, body) =
                call(&server, "GET", "/sync/todos?scope[room]=a", &Value::Null).await;
            if status == 200 {
                return;
            }
            // what was there before is built beside everything else
            assert_eq!((status, &body["retryAfterMs"]), (503, &json!(1000)), "{body}");
        }
    };
    timeout(common::PATIENCE, built).await.unwrap();
    assert_eq!(ids(&get(&server, "?scope[room]=a").await), ["1", "3"]);
    let patch = json!({"delta": {"room": "b"}});
    assert_eq!(call(&server, "PATCH", "/sync/todos/1", &patch).await.0, 200);
    assert_eq!(ids(&get(&server, "?scope[room]=a").await), ["3"]);
    assert_eq!(ids(&get(&server, "?scope[room]=b").await), ["1", "2"]);
    server.shutdown().await;
}
