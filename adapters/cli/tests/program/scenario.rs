//! A server and three shells: what the demo shows, as processes of their own.

use std::fs::{self, File};

use serde_json::json;

use crate::support::{HomeDir, Server, finish};

#[test]
fn a_write_reaches_whoever_watches() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    let watch = b.watch("todos");

    let saved = a.online(&["save", "todos", r#"{"text":"Buy milk","n":9007199254740993}"#]);
    let saved = saved.ends_with(0).json();
    assert_eq!(saved["state"], "synced");
    let shown = watch.line();
    assert_eq!(shown["change"], "added");
    assert_eq!(shown["id"], saved["id"]);
    assert_eq!(shown["data"], json!({ "text": "Buy milk", "n": 9_007_199_254_740_993u64 }));

    let id = saved["id"].as_str().unwrap();
    a.online(&["update", "todos", id, r#"{"done":true}"#, "--unset", "n"]).ends_with(0);
    let shown = watch.line();
    assert_eq!(shown["change"], "modified");
    assert_eq!(shown["data"], json!({ "text": "Buy milk", "done": true }));
}

#[test]
fn offline_writes_wait_for_the_next_call_that_reaches_the_server() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    let watch = b.watch("todos");

    let saved = a.offline(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(3).json();
    assert_eq!((&saved["state"], &saved["waiting"]), (&json!("waiting"), &json!(1)));
    a.offline(&["update", "todos", "x", r#"{"n":2}"#]).ends_with(3);
    a.offline(&["save", "notes", "{}", "--id", "y"]).ends_with(3);
    let mine = a.offline(&["get", "todos", "x"]).ends_with(0).json();
    assert_eq!((&mine["data"], &mine["pending"]), (&json!({"n": 2}), &json!(true)));

    a.online(&["get", "todos", "x"]).ends_with(0);
    let first = watch.line();
    assert_eq!((&first["id"], &first["change"]), (&json!("x"), &json!("added")));
    // both may have come as one
    let shown = if first["data"]["n"] == 1 { watch.line() } else { first };
    assert_eq!((&shown["id"], &shown["data"]), (&json!("x"), &json!({"n": 2})));
    assert_eq!(a.offline(&["status"]).ends_with(0).json()["waiting"], 0);
    assert_eq!(home.shell("c", &server.url).data("notes", "y"), json!({}));
}

#[test]
fn a_record_may_come_from_the_standard_input() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://localhost");
    let file = home.dir("record.json");
    fs::write(&file, r#"{"n":1}"#).unwrap();
    let mut save = a.command(&["save", "todos", "-", "--id", "x"]);
    finish(save.stdin(File::open(file).unwrap())).ends_with(3);
    assert_eq!(a.offline(&["get", "todos", "x"]).ends_with(0).json()["data"], json!({"n": 1}));
}

#[test]
fn each_user_of_a_directory_has_records_and_waiting_writes_of_their_own() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    a.offline(&["save", "todos", r#"{"n":1}"#, "--id", "x", "--user", "ann"]).ends_with(3);
    assert_eq!(a.offline(&["list", "todos", "--user", "bob"]).ends_with(0).stdout, "");
    a.online(&["get", "todos", "x", "--user", "bob"]).ends_with(4);
    a.online(&["get", "todos", "x", "--user", "ann"]).ends_with(0);
    a.online(&["get", "todos", "x", "--user", "bob"]).ends_with(0);
}

#[test]
fn edits_on_both_sides_meet_and_all_agree() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let [a, b, c] = ["a", "b", "c"].map(|name| home.shell(name, &server.url));
    a.online(&["save", "todos", r#"{"text":"Milk"}"#, "--id", "x"]).ends_with(0);
    let watch = c.watch("todos");
    assert_eq!(watch.line()["data"], json!({"text": "Milk"}));
    b.online(&["list", "todos"]).ends_with(0);

    // B is cut off, both edit the text, and each a field of its own
    b.offline(&["update", "todos", "x", r#"{"text":"Soy milk","done":true}"#]).ends_with(3);
    a.online(&["update", "todos", "x", r#"{"text":"Oat milk","due":"today"}"#]).ends_with(0);
    assert_eq!(watch.line()["data"], json!({"text": "Oat milk", "due": "today"}));
    let met = b.online(&["save", "todos", "{}", "--id", "y", "--conflicts", "client-wins"]);
    assert_eq!(met.ends_with(0).json()["conflicts"], 1);
    let both = json!({"text": "Soy milk", "due": "today", "done": true});
    assert_eq!(watch.line()["data"], both);
    assert_eq!(watch.line()["id"], "y");
    assert_eq!(a.data("todos", "x"), both);

    // a delete
    b.online(&["delete", "todos", "x"]).ends_with(0);
    let gone = watch.line();
    assert_eq!((&gone["change"], &gone["id"]), (&json!("removed"), &json!("x")));
    a.online(&["get", "todos", "x"]).ends_with(4);

    drop(watch);
    let standing = a.standing("todos");
    assert_eq!(standing.0, 1);
    assert_eq!([b.standing("todos"), c.standing("todos")], [standing.clone(), standing]);
}

#[test]
fn the_later_of_two_edits_wins_unless_told_otherwise() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    a.online(&["save", "todos", r#"{"n":0}"#, "--id", "x"]).ends_with(0);
    b.online(&["list", "todos"]).ends_with(0);
    b.offline(&["update", "todos", "x", r#"{"n":"earlier"}"#]).ends_with(3);
    a.online(&["update", "todos", "x", r#"{"n":"later"}"#]).ends_with(0);
    assert_eq!(b.data("todos", "x"), json!({"n": "later"}));
    b.offline(&["update", "todos", "x", r#"{"n":"mine"}"#]).ends_with(3);
    a.online(&["update", "todos", "x", r#"{"n":"theirs"}"#]).ends_with(0);
    let given_up =
        b.online(&["update", "todos", "x", r#"{"n":"ours"}"#, "--conflicts", "server-wins"]);
    assert_eq!(given_up.ends_with(11).json()["state"], "given-up");
    assert_eq!(a.data("todos", "x"), json!({"n": "theirs"}));
    assert_eq!(a.standing("todos"), b.standing("todos"));
}
