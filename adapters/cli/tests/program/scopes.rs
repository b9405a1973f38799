//! Parts of a collection in the shell.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Ended, HomeDir, Process, Server, Shell, command, finish};

const KEYS: [&str; 2] = ["--scope", "messages=room,members[],project+status"];

fn ids(ended: Ended) -> Vec<String> {
    let lines = ended.ends_with(0).lines();
    lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// The scopes by which the messages are held, each with what is held of it and the number of its records.
#[track_caller]
fn held(ended: &Value) -> BTreeMap<String, (Value, Value)> {
    let scopes = ended["collections"]["messages"]["scopes"].as_array().expect("it has scopes");
    let of = |of: &Value| {
        let name = of["scope"].as_str().unwrap().to_owned();
        (name, (of["standing"].clone(), of["count"].clone()))
    };
    scopes.iter().map(of).collect()
}

/// Saves messages at the server, by a replica that holds them all.
fn fill(all: &Shell) {
    for (id, message) in [
        ("a", r#"{"room": "42", "members": ["ann", "bob"]}"#),
        ("b", r#"{"room": 42}"#),
        ("c", r#"{"room": "7", "members": ["ann"]}"#),
        ("d", r#"{"room": "8", "project": "p1", "status": 1}"#),
    ] {
        all.online(&["save", "messages", message, "--id", id]).ends_with(0);
    }
}

#[test]
fn a_scope_is_all_that_a_command_reads_and_keeps() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &KEYS);
    let (all, part) = (home.shell("all", &server.url), home.shell("part", &server.url));
    fill(&all);
    let text = ["--scope", "room=42"];
    assert_eq!(ids(part.online(&[&["list", "messages"][..], &text].concat())), ["a"]);
    let both = [&text[..], &["--scope", "room:=42"]].concat();
    assert_eq!(ids(part.online(&[&["list", "messages"][..], &both].concat())), ["a", "b"]);
    for (scope, found) in
        [("members[]=ann", vec!["a", "c"]), ("project=p1+status:=1", vec!["d"]), ("room=9", vec![])]
    {
        assert_eq!(ids(part.online(&["list", "messages", "--scope", scope])), found, "{scope}");
    }
    let counted =
        part.online(&[&["count", "messages", "--where", "members exists"][..], &text].concat());
    assert_eq!(counted.ends_with(0).json()["count"], 1);
    part.online(&[&["get", "messages", "a"][..], &text].concat()).ends_with(0);
    part.online(&[&["get", "messages", "c"][..], &text].concat()).ends_with(4);

    let status = part.online(&["status"]).ends_with(0).json();
    let loaded = |count: u64| (json!("loaded"), json!(count));
    let wanted = [
        ("members[]=\"ann\"", loaded(2)),
        ("project=\"p1\"+status=1", loaded(1)),
        ("room=\"42\"", loaded(1)),
        ("room=\"9\"", loaded(0)),
        ("room=42", loaded(1)),
    ];
    assert_eq!(held(&status), wanted.map(|(name, of)| (name.to_owned(), of)).into());
    assert_eq!(status["collections"]["messages"]["count"], 5, "a record counts in each scope");
}

#[test]
fn a_write_in_a_scope_reads_no_more() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &KEYS);
    let (all, part) = (home.shell("all", &server.url), home.shell("part", &server.url));
    fill(&all);
    let save = ["save", "messages", r#"{"room": "7"}"#, "--id", "e", "--scope", "room=7"];
    part.offline(&save).ends_with(3);
    assert_eq!(ids(part.online(&["list", "messages", "--scope", "room=7"])), ["c", "e"]);
    assert_eq!(all.data("messages", "e"), json!({ "room": "7" }));
    let status = part.online(&["status"]).ends_with(0).json();
    assert_eq!(held(&status), [("room=\"7\"".to_owned(), (json!("loaded"), json!(2)))].into());
}

#[test]
fn every_command_that_writes_can_keep_to_a_scope() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &KEYS);
    let (all, part) = (home.shell("all", &server.url), home.shell("part", &server.url));
    fill(&all);
    let scope = ["--scope", "room=42"];
    let in_scope = |args: &[&str]| part.online(&[args, &scope].concat());
    in_scope(&["update", "messages", "a", r#"{"text": "hi"}"#, "--unset", "members"]).ends_with(0);
    // what is elsewhere is not here
    in_scope(&["update", "messages", "c", r#"{"text": "hi"}"#]).ends_with(4);
    in_scope(&["delete", "messages", "c"]).ends_with(4);
    let mut modify = part.command(&[&["modify", "messages", "a"][..], &scope].concat());
    finish(modify.args(["--server", &part.server, "--", "sed", "s/hi/ho/"])).ends_with(0);
    let exported = in_scope(&["export", "messages"]).ends_with(0);
    assert_eq!(ids(exported), ["a"]);
    assert_eq!(all.data("messages", "a"), json!({ "room": "42", "text": "ho" }));

    let file = home.dir("lines");
    fs::write(
        &file,
        "{\"id\":\"x\",\"data\":{\"room\":\"42\"}}\n{\"id\":\"y\",\"data\":{\"room\":\"42\"}}\n",
    )
    .unwrap();
    in_scope(&["import", "messages", file.to_str().unwrap()]).ends_with(0);
    fs::write(
        &file,
        r#"{"type":"delete","collection":"messages","recordId":"x"}"#.to_owned()
            + "\n"
            + r#"{"type":"update","collection":"messages","recordId":"y","data":{"n":1}}"#,
    )
    .unwrap();
    let transaction = ["transaction", file.to_str().unwrap(), "--scope"];
    part.online(&[&transaction[..], &["messages=room=42"]].concat()).ends_with(0);
    part.online(&[&transaction[..], &["others=room=42"]].concat()).ends_with(2);
    assert_eq!(all.data("messages", "y"), json!({ "n": 1, "room": "42" }));
    in_scope(&["delete", "messages", "--where", "room exists"]).ends_with(0);
    assert_eq!(ids(all.online(&["list", "messages"])), ["b", "c", "d"]);
    let status = part.online(&["status"]).ends_with(0).json();
    assert_eq!(held(&status), [("room=\"42\"".to_owned(), (json!("loaded"), json!(0)))].into());
}

#[test]
fn a_watch_shows_what_enters_and_leaves_a_scope() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &KEYS);
    let (all, part) = (home.shell("all", &server.url), home.shell("part", &server.url));
    fill(&all);
    let mut watch = command();
    watch.args(["watch", "messages", "--scope", "room=42", "--server", &part.server]);
    let watch = Process::start(watch.arg("--data").arg(&part.data));
    watch.tells("in sync");
    let change = |line: Value| (line["change"].clone(), line["at"].clone(), line["id"].clone());
    assert_eq!(change(watch.line()), (json!("entered"), json!(0), json!("a")));
    all.online(&["update", "messages", "c", r#"{"room": "42"}"#]).ends_with(0);
    assert_eq!(change(watch.line()), (json!("entered"), json!(1), json!("c")));
    all.online(&["update", "messages", "a", r#"{"room": "7"}"#]).ends_with(0);
    assert_eq!(change(watch.line()), (json!("left"), json!(0), json!("a")));
}

#[test]
fn a_scope_that_is_refused_takes_none_of_the_others_along() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &KEYS);
    let (all, part) = (home.shell("all", &server.url), home.shell("part", &server.url));
    fill(&all);
    let list = ["list", "messages", "--scope", "room=42", "--scope", "owner=ann"];
    let listed = part.online(&list);
    assert!(listed.stderr.contains("the scopes owner="), "{listed:?}");
    assert_eq!(listed.ends_with(9).lines().len(), 1);
    let held = |shell: &Shell| held(&shell.offline(&["status"]).ends_with(0).json());
    assert_eq!(held(&part)["room=\"42\""], (json!("loaded"), json!(1)));
}

#[test]
fn a_server_without_the_key_says_so() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let part = home.shell("part", &server.url);
    let listed = part.online(&["list", "messages", "--scope", "room=42"]);
    assert!(listed.stderr.contains("messages has no scope key room"), "{listed:?}");
    assert!(listed.ends_with(9).lines().is_empty());
}

#[test]
fn a_wrong_scope_is_refused_with_2() {
    let home = HomeDir::new();
    let part = home.shell("part", "http://192.0.2.1:1");
    for (scope, told) in [
        ("room", "KEY=TEXT"),
        ("room:=x", "is no JSON"),
        ("room:=[1]", "no record can be in such a scope"),
    ] {
        let ended = part.offline(&["list", "messages", "--scope", scope]).ends_with(2);
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}
