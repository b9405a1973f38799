//! Damaged replicas.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{HomeDir, Server, Shell, run};

/// A replica with a synced record `x`, an unsent edit of it, an unsent record `y`, and damage. Says
/// when `y` was written.
fn damage(a: &Shell) -> Value {
    a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(0);
    a.offline(&["update", "todos", "x", r#"{"m":12345678901234567890123}"#]).ends_with(3);
    a.offline(&["save", "todos", r#"{"n":2}"#, "--id", "y"]).ends_with(3);
    let y_at = a.offline(&["get", "todos", "y"]).ends_with(0).json()["updatedAt"].clone();
    fs::remove_file(a.data.join("watermark")).unwrap();
    y_at
}

#[test]
fn a_damaged_replica_is_told_with_7_and_repaired() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    let y_at = damage(&a);
    let ended = a.offline(&["status"]).ends_with(7);
    assert!(ended.stderr.contains("synclayer repair --data"), "{ended:?}");

    let lines = a.online(&["repair"]).ends_with(0).lines();
    assert_eq!(lines[0]["unsent"], 2);
    assert!(fs::exists(home.dir("a.damaged-1")).unwrap());
    assert_eq!(lines[1]["left"], 0);
    let b = home.shell("b", &server.url);
    let x = b.online(&["get", "todos", "x"]).ends_with(0).stdout;
    assert!(x.contains(r#"{"m":12345678901234567890123,"n":1}"#), "{x}");
    assert_eq!(b.data("todos", "y"), json!({"n": 2}));
    let y = b.online(&["get", "todos", "y"]).ends_with(0).json();
    assert_eq!(y["updatedAt"], y_at, "it was made again at the time at which it was made");
    assert_eq!(a.standing("todos"), b.standing("todos"));
    assert_eq!(a.offline(&["repair"]).ends_with(0).json()["done"], "nothing");
}

#[test]
fn what_needs_the_server_is_made_when_it_is_there() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    damage(&a);
    let lines = a.offline(&["repair"]).ends_with(3).lines();
    assert_eq!((&lines[1]["left"], &lines[1]["waiting"]), (&json!(1), &json!(1)));
    let file = lines[1]["file"].as_str().unwrap();
    let lines = a.online(&["repair", "--unsent", file]).ends_with(0).lines();
    assert_eq!((&lines[0]["left"], &lines[0]["waiting"]), (&json!(0), &json!(0)));
    let x = a.online(&["get", "todos", "x"]).ends_with(0).stdout;
    assert!(x.contains(r#"{"m":12345678901234567890123,"n":1}"#), "{x}");
    assert_eq!(a.data("todos", "y"), json!({"n": 2}));
}

/// An empty database in its place would say to every replica that all is lost.
#[test]
fn a_server_of_which_nothing_is_left_is_not_replaced() {
    let home = HomeDir::new();
    let data = home.dir("server");
    assert!(Server::start(&data).process.terminate().success());
    fs::remove_dir_all(data.join("db")).unwrap();
    for more in [&[][..], &["--force"]] {
        let repair = ["repair", "--data", data.to_str().unwrap()];
        let ended = run(repair.iter().chain(more)).ends_with(7);
        assert!(ended.stderr.contains("restore a backup"), "{ended:?}");
        assert!(!ended.stderr.contains("synclayer repair"), "{ended:?}");
    }
    assert!(fs::exists(data.join("store")).unwrap());
    assert!(!fs::exists(home.dir("server.damaged-1")).unwrap());
}

#[test]
fn there_must_be_something_to_repair() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://localhost");
    a.offline(&["repair"]).ends_with(1);
    assert!(!fs::exists(&a.data).unwrap());
}

/// Flips a bit of the commit that holds a text, in the store's only journal.
fn flip_at(data: &Path, text: &str) {
    let journal = data.join("db/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    bytes[at.expect("the text is in the journal")] ^= 1;
    fs::write(journal, bytes).unwrap();
}

#[test]
fn a_repair_counts_the_writes_that_it_can_not_save() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    for id in ["n1", "n2", "n3"] {
        let text = format!(r#"{{"text":"written as {id}"}}"#);
        a.offline(&["save", "notes", &text, "--id", id]).ends_with(3);
    }
    flip_at(&a.data, "written as n2");
    a.offline(&["status"]).ends_with(7);
    let ended = a.online(&["repair"]).ends_with(0);
    let lost = &ended.lines()[0]["lost"];
    assert_eq!(ended.lines()[0]["unsent"], 2);
    assert_eq!((&lost["writes"], &lost["commits"]), (&json!(1), &json!(1)), "{lost}");
    assert!(ended.stderr.contains("1 unsent writes are lost"), "{ended:?}");
    let ids: Vec<_> = a.online(&["list", "notes"]).ends_with(0).lines();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_damaged_server_is_told_with_7_and_repaired() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let mut server = Server::start(&data);
    let a = home.shell("a", &server.url);
    for n in 0..12 {
        let text = format!(r#"{{"text":"written as n{n:02}"}}"#);
        a.online(&["save", "notes", &text, "--id", &format!("n{n:02}")]).ends_with(0);
    }
    assert!(server.process.terminate().success());
    let identity = fs::read_to_string(data.join("store")).unwrap();
    flip_at(&data, "written as n05");

    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let ended = run(serve).ends_with(7);
    assert!(ended.stderr.contains("synclayer repair --data"), "{ended:?}");
    assert!(!ended.stderr.contains("FjallServerStore"), "{ended:?}");
    let repair = ["repair", "--json", "--data", data.to_str().unwrap()];
    let ended = run(repair).ends_with(0);
    let line = ended.json();
    assert_eq!((&line["done"], &line["records"]), (&json!("repaired"), &json!(11)));
    assert_eq!(line["clients"], 1);
    assert_eq!((&line["lost"]["commits"], &line["lost"]["outdated"]), (&json!(1), &json!(0)));
    assert!(identity.contains(line["database"].as_str().unwrap()));
    assert!(ended.stderr.contains("lost, as far as can be told: 1 commits"), "{ended:?}");
    assert!(fs::exists(home.dir("server.damaged-1")).unwrap());
    assert_eq!(fs::read_to_string(data.join("store")).unwrap(), identity);
    assert_eq!(run(repair).ends_with(0).json()["done"], "nothing");

    // it serves again, and what came behind the damage is there
    let server = Server::start(&data);
    let b = home.shell("b", &server.url);
    let found = b.online(&["list", "notes"]).ends_with(0).lines();
    assert_eq!(found.len(), 11);
    assert_eq!(b.data("notes", "n11"), json!({"text": "written as n11"}));
    b.online(&["save", "notes", "{}", "--id", "after"]).ends_with(0);
}
