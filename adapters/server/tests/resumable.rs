//! Level 2 in raw text frames: a smoke test of what the core's own tests prove.

mod common;

use common::{Peer, open};
use serde_json::{Value, json};
use synclayer_server::Server;

async fn greet(server: &Server, client: &str, session: u64) -> (Peer, Value) {
    let mut peer = Peer::connect(server, "", &[]).await;
    let hello = json!({"type": "ping",
        "metadata": {"protocol": 2, "clientId": client, "session": session}});
    peer.send(hello.to_string()).await;
    let pong = peer.expect("pong").await;
    (peer, pong["metadata"].clone())
}

fn insert(number: u64, id: &str) -> String {
    json!({"type": "insert", "collection": "todos", "recordId": id, "data": {"n": number},
           "metadata": {"mutation": number, "base": 0}})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_acknowledged_once_and_in_their_place() {
    let server = open().await;
    let (mut a, welcome) = greet(&server, "a", 1).await;
    assert_eq!((&welcome["protocol"], &welcome["lastMutation"]), (&json!(2), &json!(0)));
    let (mut b, _) = greet(&server, "b", 1).await;
    for peer in [&mut a, &mut b] {
        peer.send(r#"{"type":"subscribe","collection":"todos"}"#).await;
        assert_eq!(peer.expect("subscribed").await["metadata"]["mode"], "snapshot");
        while peer.json().await["type"] != "synced" {}
    }
    // pipelined, from both sides: both see one order, each its own as acks
    for n in 1..=50 {
        a.send(insert(n, &format!("a{n}"))).await;
        b.send(insert(n, &format!("b{n}"))).await;
    }
    let mut orders = Vec::new();
    for (own, peer) in [("a", &mut a), ("b", &mut b)] {
        let mut order = Vec::new();
        for seq in 1..=100 {
            let json = peer.json().await;
            assert_eq!(json["metadata"]["seq"], seq, "{json}");
            let id = json["recordId"].as_str().unwrap().to_owned();
            assert_eq!(json["type"] == "ack", id.starts_with(own), "{json}");
            order.push(id);
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1]);

    // a copy is acknowledged again, and changes nothing
    a.send(insert(50, "a50")).await;
    let ack = a.expect("ack").await;
    assert_eq!((&ack["metadata"]["mutation"], ack["metadata"].get("seq")), (&json!(50), None));
    b.expect_quiet().await;
    let (_, welcome) = greet(&server, "a", 2).await;
    assert_eq!(welcome["lastMutation"], 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_fences_the_older_one_off() {
    let server = open().await;
    let (mut old, _) = greet(&server, "a", 1).await;
    let (mut new, _) = greet(&server, "a", 2).await;
    old.send(insert(1, "1")).await;
    assert_eq!(old.expect("error").await["code"], "SESSION_SUPERSEDED");
    old.closed().await;
    new.send(insert(1, "1")).await;
    let ack = new.expect("ack").await;
    assert_eq!(ack["metadata"]["recordSeq"], 1, "{ack}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_carries_the_record_as_it_is() {
    let server = open().await;
    let (mut a, _) = greet(&server, "a", 1).await;
    let (mut b, _) = greet(&server, "b", 1).await;
    a.send(insert(1, "1")).await;
    a.expect("ack").await;
    b.send(insert(1, "1")).await;
    let error = b.expect("error").await;
    assert_eq!(error["code"], "CONFLICT");
    assert_eq!(error["metadata"]["mutation"], 1);
    assert_eq!(error["metadata"]["record"]["data"], json!({"n": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_many_pages_is_complete() {
    let server = open().await;
    let (mut a, _) = greet(&server, "a", 1).await;
    let text = "x".repeat(1000);
    for chunk in 0..10 {
        let messages: Vec<Value> = (0..200)
            .map(|i| chunk * 200 + i + 1)
            .map(|n| {
                json!({"type": "insert", "collection": "todos", "recordId": format!("{n:05}"),
                       "data": {"text": text}, "metadata": {"mutation": n, "base": 0}})
            })
            .collect();
        a.send(json!({"type": "batch", "messages": messages}).to_string()).await;
    }
    for _ in 0..2000 {
        a.expect("ack").await;
    }
    let (mut b, _) = greet(&server, "b", 1).await;
    b.send(r#"{"type":"subscribe","collection":"todos"}"#).await;
    b.expect("subscribed").await;
    let (mut records, mut pages) = (0, 0);
    loop {
        let json = b.json().await;
        if json["type"] == "synced" {
            assert_eq!(json["metadata"]["count"], 2000);
            break;
        }
        pages += 1;
        records += json["data"]["records"].as_array().unwrap().len();
    }
    assert_eq!(records, 2000);
    assert!(pages > 4, "{pages}");
}
