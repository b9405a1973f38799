//! Level 1 in raw text frames, as a foreign client speaks it.

mod common;

use common::{Peer, open};

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_reaches_the_other_subscribers() {
    let server = open().await;
    let (mut a, mut b) =
        (Peer::connect(&server, "", &[]).await, Peer::connect(&server, "", &[]).await);
    assert_eq!(a.subscribe("todos").await["metadata"]["recordCount"], 0);
    b.subscribe("todos").await;
    let data = r#"{"n":9007199254740993,"title":"milk"}"#;
    a.send(format!(r#"{{"type":"insert","collection":"todos","recordId":"1","data":{data}}}"#))
        .await;
    let text = b.text().await;
    assert!(text.contains(data), "{text}");
    let change: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(change["type"], "insert");
    assert_eq!(change["recordId"], "1");
    assert_eq!(change["metadata"]["version"], 1);
    assert!(change["timestamp"].is_string());
    a.expect_quiet().await;
    let closed = async { (a.closed().await, b.closed().await) };
    assert_eq!(tokio::join!(server.shutdown(), closed).1, (1001, 1001));
}
