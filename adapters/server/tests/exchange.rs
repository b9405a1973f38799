//! Level 2 over HTTP: hello, push and page, in raw requests.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{Answer, Peer, http, open, serve, token_config, with_tokens};
use serde_json::{Value, json};
use synclayer_core::Rate;
use synclayer_server::{MemoryServerStore, Server, ServerConfig};

const ANN: [(&str, &str); 1] = [("authorization", "Bearer a-token")];
const BOB: [(&str, &str); 1] = [("authorization", "Bearer b-token")];

async fn post(server: &Server, auth: &[(&str, &str)], path: &str, body: Value) -> Answer {
    http(server, "POST", path, auth, &body.to_string()).await
}

async fn hello(server: &Server, auth: &[(&str, &str)], client: &str, session: u64) -> Answer {
    let body = json!({"clientId": client, "session": session});
    post(server, auth, "/sync/session", body).await
}

/// The epoch of a new session.
async fn epoch(server: &Server, auth: &[(&str, &str)], client: &str, session: u64) -> Value {
    let answer = hello(server, auth, client, session).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["metadata"]["epoch"].clone()
}

fn insert(number: u64, id: &str, data: Value) -> Value {
    json!({"type": "insert", "collection": "todos", "recordId": id, "data": data,
           "metadata": {"mutation": number, "base": 0}})
}

fn pushed(client: &str, session: u64, epoch: &Value, mutations: Vec<Value>) -> Value {
    json!({"clientId": client, "session": session, "epoch": epoch, "mutations": mutations})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_socket_writes_and_reads() {
    let server = with_tokens().await;
    let mut follower = Peer::connect(&server, "?token=b-token", &[]).await;
    follower.subscribe("todos").await;

    let pong = hello(&server, &ANN, "c1", 1).await.json();
    assert_eq!((&pong["type"], &pong["metadata"]["protocol"]), (&json!("pong"), &json!(2)));
    assert_eq!(pong["metadata"]["userId"], "ann");
    assert_eq!(pong["metadata"]["lastMutation"], 0);
    let epoch = &pong["metadata"]["epoch"];

    let writes = vec![insert(1, "1", json!({"x": 1})), insert(2, "2", json!({"x": 2}))];
    let answer = post(&server, &ANN, "/sync/push", pushed("c1", 1, epoch, writes)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["metadata"]["lastMutation"], 2);
    let acks = answer["messages"].as_array().unwrap();
    assert_eq!((&acks[0]["type"], &acks[1]["type"]), (&json!("ack"), &json!("ack")));
    assert_eq!(acks[1]["metadata"]["recordSeq"], 2);

    // who follows by WebSocket sees them
    for id in ["1", "2"] {
        let change = follower.expect("insert").await;
        assert_eq!(
            (&change["recordId"], &change["metadata"]["userId"]),
            (&json!(id), &json!("ann"))
        );
    }
    follower.expect_quiet().await;

    let query = "/sync/todos?epoch=&seq=&limit=1&clientId=c1";
    let page = http(&server, "GET", query, &ANN, "").await.json();
    let head = &page["metadata"];
    assert_eq!((head["epoch"].clone(), head["from"].clone()), (epoch.clone(), json!({})));
    assert_eq!((head["lastMutation"].clone(), head["database"].is_string()), (json!(2), true));
    assert_eq!(page["messages"][0]["metadata"]["mode"], "snapshot");
    assert_eq!(page["messages"][1]["data"]["records"][0]["id"], "1");
    assert_eq!(page["messages"].as_array().unwrap().len(), 2);
    let epoch_text = epoch.as_str().unwrap();
    let query = format!("/sync/todos?epoch=&seq=&resume=snapshot%3A{epoch_text}%3A2%3A1");
    let page = http(&server, "GET", &query, &ANN, "").await.json();
    assert_eq!(
        page["metadata"]["from"],
        json!({"resume": {"epoch": epoch, "snapshotSeq": 2, "after": "1"}})
    );
    assert_eq!(page["messages"][1]["data"]["records"][0]["id"], "2");
    assert_eq!(page["messages"][2]["type"], "synced");
    assert_eq!(page["messages"][2]["metadata"]["count"], 2);
    let query = format!("/sync/todos?epoch={epoch_text}&seq=1");
    let page = http(&server, "GET", &query, &BOB, "").await.json();
    assert_eq!(page["messages"][0]["metadata"]["mode"], "delta");
    assert_eq!(page["messages"][1]["recordId"], "2");
    assert_eq!(page["messages"][2]["metadata"]["seq"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_asked_for_in_a_body_whatever_the_name() {
    let server = open().await;
    let pong = hello(&server, &[], "c1", 1).await.json();
    assert_eq!(pong["metadata"]["features"], json!(["pull", "atomic", "scopes"]));
    for name in ["a/b", "..", ".", "a//b", "pull", "ä?#"] {
        let mut peer = Peer::connect(&server, "", &[]).await;
        let write =
            json!({"type": "insert", "collection": name, "recordId": "r", "data": {"n": 1}});
        peer.send(write.to_string()).await;
        peer.send(json!({"type": "ping"}).to_string()).await;
        peer.expect("pong").await;
        let ask = json!({"collection": name, "clientId": "c1"});
        let answer = post(&server, &[], "/sync/pull", ask).await;
        assert_eq!(answer.status, 200, "{name} {answer:?}");
        assert_eq!(answer.json()["messages"][1]["data"]["records"][0]["id"], "r", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transport_fences_the_other_off() {
    let server = open().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":1}}"#).await;
    peer.expect("pong").await;
    peer.send(insert(1, "1", json!({})).to_string()).await;
    peer.expect("ack").await;

    let pong = hello(&server, &[], "c1", 2).await.json();
    assert_eq!(pong["metadata"]["lastMutation"], 1);
    assert!(pong["metadata"]["lastDigest"].is_string());
    let epoch = pong["metadata"]["epoch"].clone();
    peer.send(insert(2, "2", json!({})).to_string()).await;
    assert_eq!(peer.expect("error").await["code"], "SESSION_SUPERSEDED");
    assert_eq!(peer.closed().await, 1008);
    let answer =
        post(&server, &[], "/sync/push", pushed("c1", 2, &epoch, vec![insert(2, "2", json!({}))]));
    assert_eq!(answer.await.json()["metadata"]["lastMutation"], 2);

    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":3}}"#).await;
    assert_eq!(peer.expect("pong").await["metadata"]["lastMutation"], 2);
    let late = pushed("c1", 2, &epoch, vec![insert(3, "3", json!({}))]);
    let answer = post(&server, &[], "/sync/push", late).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("SESSION_SUPERSEDED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_come_in_their_order_and_stop_at_an_error() {
    let server = open().await;
    let epoch = epoch(&server, &[], "c1", 1).await;
    let writes = vec![
        insert(1, "1", json!({"x": 1})),
        json!({"type": "update", "collection": "todos", "recordId": "none", "data": {"x": 1},
               "metadata": {"mutation": 2, "base": 0}}),
        insert(3, "3", json!({})),
    ];
    let answer = post(&server, &[], "/sync/push", pushed("c1", 1, &epoch, writes)).await.json();
    assert_eq!(answer["metadata"]["lastMutation"], 1);
    let verdicts = answer["messages"].as_array().unwrap();
    assert_eq!(verdicts.len(), 2);
    assert_eq!(
        (&verdicts[1]["code"], &verdicts[1]["metadata"]["seq"]),
        (&json!("CONFLICT"), &json!(0))
    );
    let records = http(&server, "GET", "/sync/todos", &[], "").await.json();
    assert_eq!(records["records"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_push_at_once() {
    let server = Arc::new(open().await);
    let pushes = (0..16).map(|n| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let client = format!("c{n}");
            let epoch = epoch(&server, &[], &client, 1).await;
            let writes = (1..=5).map(|i| insert(i, &format!("{n}-{i}"), json!({"n": n}))).collect();
            let answer = post(&server, &[], "/sync/push", pushed(&client, 1, &epoch, writes)).await;
            assert_eq!(answer.json()["metadata"]["lastMutation"], 5);
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    let page = http(&server, "GET", "/sync/todos?epoch=", &[], "").await.json();
    let synced = page["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&synced["metadata"]["count"], &synced["metadata"]["seq"]),
        (&json!(80), &json!(80))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_user_or_epoch_does_not_hold() {
    let store = Arc::new(MemoryServerStore::new());
    let server = Server::bind(token_config(), Arc::clone(&store) as _).await.unwrap();
    for path in ["/sync/session", "/sync/push", "/sync/todos?epoch="] {
        let method = if path.contains('?') { "GET" } else { "POST" };
        let answer = http(&server, method, path, &[], "{}").await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("AUTH_FAILED")), "{path}");
    }
    let first = epoch(&server, &ANN, "c1", 1).await;
    let answer = hello(&server, &BOB, "c1", 2).await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("UNAUTHORIZED")));
    let one = pushed("c1", 1, &first, vec![insert(1, "1", json!({}))]);
    assert_eq!(post(&server, &BOB, "/sync/push", one.clone()).await.status, 409);
    let page = http(&server, "GET", "/sync/todos?epoch=&clientId=c1", &BOB, "").await.json();
    assert!(page["metadata"]["lastMutation"].is_null());
    server.shutdown().await;

    let server = Server::bind(token_config(), store).await.unwrap();
    let answer = post(&server, &ANN, "/sync/push", one).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("SERVER_ERROR")));
    let second = epoch(&server, &ANN, "c1", 2).await;
    assert_ne!(first, second);
    let one = pushed("c1", 2, &second, vec![insert(1, "1", json!({}))]);
    assert_eq!(post(&server, &ANN, "/sync/push", one).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_too_much_is_told_when_to_come_back() {
    let mut config = token_config();
    config.limits.user_rate = Some(Rate { per_second: 0, burst: 4 });
    let server = serve(config).await;
    let epoch = epoch(&server, &ANN, "c1", 1).await;
    // the hello took one, the push takes one for each write
    let writes = (1..=5).map(|n| insert(n, &n.to_string(), json!({}))).collect();
    let answer = post(&server, &ANN, "/sync/push", pushed("c1", 1, &epoch, writes)).await.json();
    assert_eq!(answer["metadata"]["lastMutation"], 3);
    let refused = &answer["messages"][3];
    assert_eq!(refused["code"], "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused["metadata"]["mutation"], 4);
    assert!(refused["metadata"]["retryAfterMs"].is_u64());
    for path in ["/sync/todos?epoch=", "/sync/session"] {
        let answer =
            http(&server, if path.contains('?') { "GET" } else { "POST" }, path, &ANN, "{}").await;
        assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("RATE_LIMIT_EXCEEDED")));
        assert!(answer.head.contains("\r\nretry-after: "), "{answer:?}");
    }
    assert_eq!(hello(&server, &BOB, "c2", 1).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let mut config = ServerConfig::default();
    config.limits.input.frame_bytes = 500;
    let server = serve(config).await;
    let epoch = epoch(&server, &[], "c1", 1).await;
    let writes = vec![insert(1, "1", json!({"x": "x".repeat(500)}))];
    let answer = post(&server, &[], "/sync/push", pushed("c1", 1, &epoch, writes)).await;
    assert_eq!((answer.status, &answer.json()["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
}
