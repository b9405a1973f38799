//! The choice of transports, and the guarantees that are shown.

use serde_json::json;

use crate::support::{HomeDir, Server};

const ALL: &str = "resume,exactly-once,ordered,verified";

#[test]
fn by_http_alone_everything_arrives_as_by_the_websocket() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));

    let saved = a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x", "--poll-only"]);
    assert_eq!(saved.ends_with(0).json()["state"], "synced");
    let read = b.online(&["get", "todos", "x", "--realtime-only"]).ends_with(0).json();
    assert_eq!(read["data"], json!({"n": 1}));
    b.online(&["delete", "todos", "x", "--realtime-only"]).ends_with(0);
    a.online(&["get", "todos", "x", "--poll-only"]).ends_with(4);

    for (way, transport) in [("--poll-only", "http"), ("--realtime-only", "websocket")] {
        let status = a.online(&["status", way, "--require", ALL]).ends_with(0).json();
        assert_eq!(
            (&status["transport"], &status["level"], &status["connected"]),
            (&json!(transport), &json!(2), &json!(true)),
        );
        let all = json!({
            "resume": true, "exactlyOnce": true, "ordered": true, "verified": true, "atomic": true,
        });
        assert_eq!((&status["guarantees"], &status["apart"]), (&all, &json!(null)));
    }
}

#[test]
fn only_one_of_the_ways_can_be_the_only_one() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://localhost");
    let ended = a.online(&["status", "--poll-only", "--realtime-only"]).ends_with(2);
    assert!(ended.stderr.contains("--realtime-only"), "{ended:?}");
}
