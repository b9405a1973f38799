//! Level 1 in raw text frames, as a foreign client speaks it.

mod common;

use common::{Peer, http, open, serve, token_config, with_tokens};
use synclayer_server::{Server, ServerConfig, StartError};
use tokio_tungstenite::tungstenite::Message;

const PING: &str = r#"{"type":"ping"}"#;

fn insert(id: &str, data: &str) -> String {
    format!(r#"{{"type":"insert","collection":"todos","recordId":"{id}","data":{data}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_the_other_subscribers_and_not_their_sender() {
    let server = with_tokens().await;
    let mut ann = Peer::connect(&server, "?token=a-token", &[]).await;
    let mut bob = Peer::connect(&server, "?token=b-token", &[]).await;
    assert_eq!(ann.subscribe("todos").await["metadata"]["recordCount"], 0);
    bob.subscribe("todos").await;

    let data = r#"{"done":false,"n":9007199254740993,"title":"milk"}"#;
    ann.send(insert("1", data)).await;
    let text = bob.text().await;
    assert!(text.contains(data), "numbers come as they were written: {text}");
    let change: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&change["type"], &change["collection"], &change["recordId"]),
        (&"insert".into(), &"todos".into(), &"1".into())
    );
    assert_eq!(change["metadata"]["version"], 1);
    assert_eq!(change["metadata"]["userId"], "ann");
    assert!(change["timestamp"].as_str().unwrap().ends_with('Z'));

    ann.send(
        r#"{"type":"update","collection":"todos","recordId":"1","data":{"done":true},"timestamp":"2026-01-02T03:04:05"}"#,
    )
    .await;
    let change = bob.expect("update").await;
    assert_eq!(change["data"], serde_json::json!({"done": true}), "only what changed");
    assert_eq!(change["metadata"]["version"], 2);
    assert_eq!(change["timestamp"], "2026-01-02T03:04:05.000Z", "without an offset it is UTC");

    bob.send(r#"{"type":"delete","collection":"todos","recordId":"1"}"#).await;
    let change = ann.expect("delete").await;
    assert_eq!((&change["recordId"], &change["metadata"]["userId"]), (&"1".into(), &"bob".into()));
    // and nothing came back to those who sent
    ann.expect_quiet().await;
    bob.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_records_are_pushed_to_those_who_replace_by_updates() {
    let server = serve(ServerConfig::new().plain_whole(true)).await;
    let mut a = Peer::connect(&server, "", &[]).await;
    let mut b = Peer::connect(&server, "", &[]).await;
    b.subscribe("todos").await;
    a.send(insert("1", r#"{"x":1,"y":1}"#)).await;
    b.expect("insert").await;
    a.send(r#"{"type":"update","collection":"todos","recordId":"1","data":{"y":2}}"#).await;
    let change = b.expect("update").await;
    assert_eq!(change["data"], serde_json::json!({"x": 1, "y": 2}));
    assert_eq!(change["metadata"]["seq"], serde_json::Value::Null, "level 1 has no seqs");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_no_collections() {
    let server = open().await;
    for path in ["/", "/sync", "/sync/", "/sync/a/b/c", "/nothing"] {
        let reply = http(&server, "GET", path, &[], "").await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.body.contains("COLLECTION_NOT_FOUND"), "{path}: {}", reply.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_of_an_existing_record_replaces_it() {
    let server = open().await;
    let mut a = Peer::connect(&server, "", &[]).await;
    let mut b = Peer::connect(&server, "", &[]).await;
    b.subscribe("todos").await;
    a.send(insert("1", r#"{"x":1,"y":1}"#)).await;
    b.expect("insert").await;
    a.send(insert("1", r#"{"x":2}"#)).await;
    let change = b.expect("insert").await;
    assert_eq!(change["data"], serde_json::json!({"x": 2}));
    assert_eq!(change["metadata"]["version"], 2);
    a.send(r#"{"type":"sync","collection":"todos"}"#).await;
    let sync = a.expect("sync").await;
    let record = &sync["data"]["records"][0];
    assert_eq!((&record["id"], &record["data"]), (&"1".into(), &serde_json::json!({"x": 2})));
    assert_eq!(record["version"], 2);
    assert!(record["updatedAt"].is_string());
    assert_eq!(b.subscribe("todos").await["metadata"]["recordCount"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_not_found() {
    let server = open().await;
    let mut a = Peer::connect(&server, "", &[]).await;
    for kind in ["update", "delete"] {
        a.send(format!(r#"{{"type":"{kind}","collection":"c","recordId":"no","data":{{}}}}"#))
            .await;
        assert_eq!(a.expect("error").await["code"], "RECORD_NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_unsubscribed_hears_nothing_more() {
    let server = open().await;
    let mut a = Peer::connect(&server, "", &[]).await;
    let mut b = Peer::connect(&server, "", &[]).await;
    b.subscribe("todos").await;
    b.send(r#"{"type":"unsubscribe","collection":"todos"}"#).await;
    assert_eq!(b.expect("unsubscribed").await["collection"], "todos");
    a.send(insert("1", "{}")).await;
    a.expect_quiet().await;
    b.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_in_the_query_the_header_or_the_first_message() {
    let server = with_tokens().await;
    let mut query = Peer::connect(&server, "?x=1&token=a%2Dtoken", &[]).await;
    query.expect_quiet().await;
    let mut header = Peer::connect(&server, "", &[("authorization", "Bearer b-token")]).await;
    header.expect_quiet().await;
    let mut first = Peer::connect(&server, "", &[]).await;
    first.send(r#"{"type":"auth","token":"a-token"}"#).await;
    first.expect("authenticated").await;
    first.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_at_the_door() {
    let server = with_tokens().await;
    let addr = server.local_addr();
    let refused = Peer::try_connect(addr, "?token=a-toke", &[]).await;
    assert_eq!(refused.err(), Some(401));
    let refused = Peer::try_connect(addr, "", &[("authorization", "Bearer wrong")]).await;
    assert_eq!(refused.err(), Some(401));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_works_before_a_token() {
    let server = with_tokens().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    for frame in [
        PING,
        r#"{"type":"subscribe","collection":"todos"}"#,
        r#"{"type":"sync","collection":"todos"}"#,
        &insert("1", "{}"),
        r#"{"type":"auth","token":"wrong"}"#,
    ] {
        peer.send(frame).await;
        assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED", "{frame}");
    }
    // the connection lives, and nothing was written
    peer.send(r#"{"type":"auth","token":"a-token"}"#).await;
    peer.expect("authenticated").await;
    assert_eq!(peer.subscribe("todos").await["metadata"]["recordCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_shown_out() {
    let mut config = token_config();
    config.limits.auth_timeout = std::time::Duration::from_millis(50);
    let server = serve(config).await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    assert_eq!(peer.closed().await, 1008);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_shown_out() {
    let mut config = ServerConfig::default();
    config.limits.idle_timeout = std::time::Duration::from_millis(50);
    let server = serve(config).await;
    let mut silent = Peer::connect(&server, "", &[]).await;
    assert_eq!(silent.closed().await, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_are_refused_and_the_connection_lives() {
    let server = open().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    for frame in [
        "",
        "hello",
        "[]",
        "{}",
        r#"{"type":"dance"}"#,
        r#"{"type":"insert","collection":"todos"}"#,
        r#"{"type":"insert","collection":"","recordId":"1","data":{}}"#,
        r#"{"type":"insert","collection":"c","recordId":"1","data":{"a":1,"a":2}}"#,
        r#"{"type":"subscribe"}"#,
    ] {
        peer.send(frame).await;
        assert_eq!(peer.expect("error").await["code"], "INVALID_MESSAGE", "{frame}");
    }
    peer.send_message(Message::binary(vec![0xff, 0xfe])).await;
    assert_eq!(peer.expect("error").await["code"], "INVALID_MESSAGE");
    peer.expect_quiet().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bad_frames_end_the_connection() {
    let server = open().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    for _ in 0..20 {
        peer.send("nonsense").await;
    }
    assert_eq!(peer.closed().await, 1008);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_large_ends_the_connection() {
    let mut config = ServerConfig::default();
    config.limits.input.frame_bytes = 1000;
    let server = serve(config).await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(insert("1", &format!(r#"{{"x":"{}"}}"#, "y".repeat(1000)))).await;
    assert_eq!(peer.expect("error").await["code"], "PAYLOAD_TOO_LARGE");
    assert_eq!(peer.closed().await, 1009);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_ping_has_a_plain_pong() {
    let server = open().await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(PING).await;
    let pong = peer.expect("pong").await;
    assert_eq!(pong.get("metadata"), None, "{pong}");
    peer.send_message(Message::Ping("hey".into())).await;
    assert_eq!(peer.message().await, Some(Message::Pong("hey".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_foreign_origin_are_refused() {
    let config = ServerConfig::new().allow_origins(["https://app.example"]);
    let server = serve(config).await;
    let addr = server.local_addr();
    let connect = |origin: String| async move {
        Peer::try_connect(addr, "", &[("origin", &origin)]).await.map(drop)
    };
    assert_eq!(connect("https://evil.example".into()).await, Err(403));
    assert_eq!(connect("null".into()).await, Err(403));
    assert_eq!(connect(format!("http://{addr}")).await, Ok(()));
    assert_eq!(connect("https://app.example".into()).await, Ok(()));
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(http(&server, "GET", "/sync/todos", &foreign, "").await.status, 403);
    let allowed = [("origin", "https://app.example")];
    let answer = http(&server, "GET", "/sync/todos", &allowed, "").await;
    assert_eq!(answer.status, 200);
    let shared = "access-control-allow-origin: https://app.example";
    assert!(answer.head.contains(shared), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_websocket_wants_a_websocket() {
    let server = open().await;
    assert_eq!(http(&server, "GET", "/ws", &[], "").await.status, 426);
    assert_eq!(http(&server, "GET", "/nowhere", &[], "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_stays_on_loopback() {
    let listen = ([0, 0, 0, 0], 0).into();
    let store = || std::sync::Arc::new(synclayer_server::MemoryServerStore::new());
    let refused = Server::bind(ServerConfig::new().listen(listen), store()).await;
    assert!(matches!(refused.err(), Some(StartError::Exposed(addr)) if addr == listen));
    let bound = Server::bind(token_config().listen(listen), store()).await;
    bound.unwrap().shutdown().await;
}
