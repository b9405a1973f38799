//! Exit codes, and what the program says with them.

use std::net::TcpListener;
use std::sync::Arc;

use serde_json::Value;
use synclayer_core::{Access, Change, Collection, Document, Policy, RecordId, UserId};
use synclayer_server::{MemoryServerStore, Server as Embedded, ServerConfig};
use tokio::runtime::Runtime;

use crate::support::{Ended, HomeDir, Server, finish, run};

fn error(ended: &Ended) -> Value {
    serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap()
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn what_can_not_be_used_is_refused_with_2() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    for args in [
        &["save", "todos", "{"][..],
        &["save", "todos", "[1]"],
        &["save", "to\ndos", "{}"],
        &["save", "todos", r#"{"a":1,"a":2}"#],
        &["update", "todos", "x"],
        &["save", "todos", "{}", "--server", "ftp://example.com"],
        &["save", "todos", "{}", "--token", "s3cret", "--server", "http://192.0.2.1:1"],
        &["rejected", "retry", "one"],
        &["frobnicate"],
    ] {
        let ended = a.offline(args).ends_with(2);
        assert!(!ended.stderr.is_empty());
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(70), "]".repeat(70));
    for (json, advice) in [
        ("{a:1}", "correct the JSON there"),
        ("5", "wrap the value in one"),
        (deep.as_str(), "write the inner part as a text"),
        (r#"{"a":1,"a":2}"#, "leave one of the two out"),
    ] {
        let told = a.offline(&["save", "todos", json]).ends_with(2).stderr;
        assert!(told.contains("nothing was saved") && told.contains(advice), "{told}");
    }
    let told = a.offline(&["save", "to\ndos", "{}"]).ends_with(2).stderr;
    assert!(told.contains("nothing was done: choose another one"), "{told}");
    run(["--help"]).ends_with(0);
    assert!(run(["--help"]).stdout.contains("Exit codes"));
}

#[test]
fn without_a_server_a_write_waits_with_3_and_reads_go_on() {
    let home = HomeDir::new();
    let a = home.shell("a", &nowhere());
    let saved = a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(3).json();
    assert!(saved["why"].as_str().unwrap().contains("can't be reached"), "{saved}");
    let list = a.online(&["list", "todos"]).ends_with(0);
    assert_eq!(list.json()["data"]["n"], 1);
    let status = a.online(&["status"]).ends_with(0).json();
    assert!(status["apart"].is_string(), "{status}");
    a.online(&["save", "todos", "{}", "--offline"]).ends_with(3);
}

#[test]
fn a_wrong_path_is_told_with_9_and_loses_nothing() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &format!("{}/api", server.url));
    let mut ids = Vec::new();
    for way in [&["--poll-only"][..], &[], &["--poll-only"]] {
        let saved = a.online(&[&["save", "todos", r#"{"n":1}"#], way].concat()).ends_with(3).json();
        assert_eq!(saved["state"], "waiting");
        let why = saved["why"].as_str().unwrap();
        assert!(why.starts_with("no SyncLayer server at ") && why.contains("/api: "), "{why}");
        ids.push(saved["id"].as_str().unwrap().to_owned());
    }
    let status = a.online(&["status"]).ends_with(9).json();
    assert_eq!((&status["waiting"], &status["rejected"]), (&3.into(), &0.into()), "{status}");
    assert!(status["apart"].as_str().unwrap().starts_with("no SyncLayer server at "), "{status}");
    let list = a.online(&["list", "todos"]).ends_with(9);
    assert_eq!(list.lines().len(), 3);
    // a replica with nothing in it is not in sync either
    home.shell("b", &a.server).online(&["status"]).ends_with(9);
    // as soon as the address is right
    let right = home.shell("a", &server.url);
    let status = right.online(&["status"]).ends_with(0).json();
    assert_eq!((&status["waiting"], &status["apart"]), (&0.into(), &Value::Null), "{status}");
    let c = home.shell("c", &server.url);
    ids.iter().for_each(|id| drop(c.online(&["get", "todos", id]).ends_with(0)));
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_told() {
    let home = HomeDir::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = home.shell("a", &format!("http://{}", mute.local_addr().unwrap()));
    let mut save = a.command(&["save", "todos", "{}", "--server", &a.server, "--timeout", "0.2"]);
    let saved = finish(&mut save).ends_with(3).json();
    assert!(saved["why"].as_str().unwrap().contains("0.2 s"), "{saved}");
}

#[test]
fn what_is_not_there_is_told_with_4() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    for args in [
        &["get", "todos", "x"][..],
        &["update", "todos", "x", r#"{"a":1}"#],
        &["delete", "todos", "x"],
        &["rejected", "retry", "7"],
        &["rejected", "discard", "7"],
    ] {
        let ended = a.online(args).ends_with(4);
        assert_eq!(error(&ended)["code"], "missing");
    }
}

#[test]
fn a_record_that_only_the_server_has_is_fetched_to_be_changed() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let [a, b, c] = ["a", "b", "c"].map(|name| home.shell(name, &server.url));
    a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(0);
    b.online(&["update", "todos", "x", r#"{"m":2}"#]).ends_with(0);
    assert_eq!(a.data("todos", "x"), serde_json::json!({"n": 1, "m": 2}));
    c.online(&["delete", "todos", "x"]).ends_with(0);
    a.online(&["get", "todos", "x"]).ends_with(4);
}

/// Nobody writes to `locked`.
struct Locked;

impl Policy for Locked {
    fn write(
        &self,
        _: Option<&UserId>,
        collection: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        if collection.as_str() == "locked" { Err("it is locked".into()) } else { Ok(()) }
    }
}

#[test]
fn a_refused_write_is_told_with_5_and_kept_in_the_list() {
    let home = HomeDir::new();
    let runtime = Runtime::new().unwrap();
    let config = ServerConfig::new().policy(Arc::new(Locked));
    let bind = Embedded::bind(config, Arc::new(MemoryServerStore::new()));
    let server = runtime.block_on(bind).unwrap();
    let a = home.shell("a", &format!("http://{}", server.local_addr()));

    let saved = a.online(&["save", "locked", r#"{"n":1}"#, "--id", "x"]).ends_with(5).json();
    assert_eq!(saved["state"], "refused");
    assert!(saved["why"].as_str().unwrap().contains("UNAUTHORIZED"), "{saved}");
    a.online(&["get", "locked", "x"]).ends_with(4);
    a.online(&["save", "open", "{}"]).ends_with(0);

    let rejected = a.offline(&["rejected", "list"]).ends_with(0).json();
    assert_eq!(rejected["code"], "UNAUTHORIZED");
    assert_eq!(rejected["data"], serde_json::json!({"n": 1}));
    let write = rejected["write"].to_string();
    a.online(&["rejected", "retry", &write]).ends_with(5);
    let again = a.offline(&["rejected", "list"]).ends_with(0).json()["write"].to_string();
    assert_ne!(again, write, "it is a new write");
    a.offline(&["rejected", "discard", &again]).ends_with(0);
    assert_eq!(a.offline(&["rejected", "list"]).ends_with(0).stdout, "");
    runtime.block_on(server.shutdown());
}

/// Nobody reads `closed`.
struct Closed;

impl Policy for Closed {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if collection.as_str() == "closed" { Access::None } else { Access::All }
    }
}

#[test]
fn a_refused_collection_is_told_with_9_and_what_is_stored_is_printed() {
    let home = HomeDir::new();
    let runtime = Runtime::new().unwrap();
    let config = ServerConfig::new().policy(Arc::new(Closed));
    let bind = Embedded::bind(config, Arc::new(MemoryServerStore::new()));
    let server = runtime.block_on(bind).unwrap();
    let a = home.shell("a", &format!("http://{}", server.local_addr()));
    a.online(&["save", "open", "{}", "--id", "x"]).ends_with(0);
    a.online(&["list", "open"]).ends_with(0);
    let list = a.online(&["list", "closed"]).ends_with(9);
    assert!(list.stderr.contains("closed") && list.stderr.contains("UNAUTHORIZED"), "{list:?}");
    let status = a.online(&["status"]).ends_with(9).json();
    assert!(status["apart"].as_str().unwrap().contains("closed"), "{status}");
    runtime.block_on(server.shutdown());
}

#[test]
fn a_directory_in_use_is_told_with_6() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    let mut watch = a.watch("todos");
    let ended = a.online(&["save", "todos", "{}"]).ends_with(6);
    let who = format!("in use by process {};", watch.id());
    assert!(error(&ended)["error"].as_str().unwrap().contains(&who), "{ended:?}");
    assert!(watch.terminate().success());
    a.online(&["save", "todos", "{}"]).ends_with(0);

    let data = home.dir("server");
    let second = run([
        "serve".as_ref(),
        "--listen".as_ref(),
        "127.0.0.1:0".as_ref(),
        "--data".as_ref(),
        data.as_os_str(),
    ]);
    assert!(second.ends_with(6).stderr.contains("in use"));
}
