//! Damaged replicas.

use std::fs;

use serde_json::json;

use crate::support::{Place, Server, Shell};

/// A replica with a synced record `x`, an unsent edit of it, an unsent record `y`, and damage.
fn damaged(place: &Place, server: &Server) -> Shell {
    let a = place.shell("a", &server.url);
    a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(0);
    a.offline(&["update", "todos", "x", r#"{"m":12345678901234567890123}"#]).ends_with(3);
    a.offline(&["save", "todos", r#"{"n":2}"#, "--id", "y"]).ends_with(3);
    fs::remove_file(a.data.join("watermark")).unwrap();
    a
}

#[test]
fn a_damaged_replica_is_told_with_7_and_repaired() {
    let place = Place::new();
    let server = Server::start(&place.dir("server"));
    let a = damaged(&place, &server);
    let ended = a.offline(&["status"]).ends_with(7);
    assert!(ended.stderr.contains("synclayer repair --data"), "{ended:?}");

    let lines = a.online(&["repair"]).ends_with(0).lines();
    assert_eq!(lines[0]["unsent"], 2);
    assert!(fs::exists(place.dir("a.damaged-1")).unwrap());
    assert_eq!(lines[1]["left"], 0);
    let b = place.shell("b", &server.url);
    let x = b.online(&["get", "todos", "x"]).ends_with(0).stdout;
    assert!(x.contains(r#"{"m":12345678901234567890123,"n":1}"#), "{x}");
    assert_eq!(b.data("todos", "y"), json!({"n": 2}));
    assert_eq!(a.standing("todos"), b.standing("todos"));
    assert_eq!(a.offline(&["repair"]).ends_with(0).json()["done"], "nothing");
}

#[test]
fn what_needs_the_server_is_made_when_it_is_there() {
    let place = Place::new();
    let server = Server::start(&place.dir("server"));
    let a = damaged(&place, &server);
    let lines = a.offline(&["repair"]).ends_with(3).lines();
    assert_eq!((&lines[1]["left"], &lines[1]["waiting"]), (&json!(1), &json!(1)));
    let file = lines[1]["file"].as_str().unwrap();
    let lines = a.online(&["repair", "--unsent", file]).ends_with(0).lines();
    assert_eq!((&lines[0]["left"], &lines[0]["waiting"]), (&json!(0), &json!(0)));
    let x = a.online(&["get", "todos", "x"]).ends_with(0).stdout;
    assert!(x.contains(r#"{"m":12345678901234567890123,"n":1}"#), "{x}");
    assert_eq!(a.data("todos", "y"), json!({"n": 2}));
}

#[test]
fn there_must_be_something_to_repair() {
    let place = Place::new();
    let a = place.shell("a", "http://localhost");
    a.offline(&["repair"]).ends_with(1);
    assert!(!fs::exists(&a.data).unwrap());
}
