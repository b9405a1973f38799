//! A server that lost what a replica holds, or has another database: `adopt` and `offer`.

use std::fs;
use std::path::Path;

use crate::support::{HomeDir, Server, Shell};

fn save_many(shell: &Shell, from: usize, count: usize) {
    for n in from..from + count {
        let id = format!("r{n:02}");
        shell.online(&["save", "todos", r#"{"n":1}"#, "--id", &id]).ends_with(0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Reads print what is held, say what to do, and end with 8.
#[track_caller]
fn is_undecided(shell: &Shell, held: usize) {
    let list = shell.online(&["list", "todos"]).ends_with(8);
    assert_eq!(list.lines().len(), held, "{list:?}");
    assert!(list.stderr.contains("`synclayer adopt`"), "{list:?}");
    shell.online(&["get", "todos", "r00"]).ends_with(8);
    let status = shell.online(&["status"]).ends_with(8).json();
    assert!(status["apart"].as_str().unwrap().contains("`synclayer offer`"), "{status}");
    // it is known without the server too
    shell.offline(&["status"]).ends_with(8);
}

#[test]
fn another_database_is_told_with_8_until_adopted_or_offered() {
    let home = HomeDir::new();
    let mut server = Server::start(&home.dir("first"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    save_many(&a, 0, 2);
    b.online(&["list", "todos"]).ends_with(0);
    a.online(&["adopt"]).ends_with(0);
    let address = server.address.clone();
    server.process.terminate();
    let mut server = Server::start_with(&home.dir("second"), &address, &[]);
    a.online(&["save", "todos", r#"{"n":2}"#, "--id", "r00"]).ends_with(3);
    is_undecided(&a, 2);
    is_undecided(&b, 2);
    let adopted = a.online(&["adopt"]).ends_with(0).json();
    assert_eq!((&adopted["done"], &adopted["rejected"]), (&"adopted".into(), &1.into()));
    assert_eq!(a.online(&["list", "todos"]).ends_with(0).lines().len(), 0);
    let rejected = a.online(&["rejected", "list"]).ends_with(0).json();
    assert_eq!(rejected["code"], "DIFFERENT_DATABASE");
    let status = b.online(&["status", "--poll-only"]).ends_with(8).json();
    assert!(status["otherDatabase"].is_string(), "{status}");
    b.online(&["offer", "--poll-only"]).ends_with(0);
    assert_eq!(b.standing("todos"), a.standing("todos"));
    assert_eq!(a.online(&["list", "todos"]).ends_with(0).lines().len(), 2);
    assert_eq!(b.online(&["offer"]).ends_with(0).json()["done"], "nothing");
    server.process.terminate();
}

#[test]
fn a_restored_server_is_told_with_8_until_adopted_or_offered() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let mut server = Server::start(&data);
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    save_many(&a, 0, 1);
    let address = server.address.clone();
    server.process.terminate();
    copy(&data, &home.dir("backup"));
    let mut server = Server::start_with(&data, &address, &[]);
    save_many(&a, 1, 12);
    b.online(&["list", "todos"]).ends_with(0);
    server.process.terminate();
    fs::remove_dir_all(&data).unwrap();
    copy(&home.dir("backup"), &data);
    let mut server = Server::start_with(&data, &address, &[]);
    is_undecided(&a, 13);
    is_undecided(&b, 13);
    a.online(&["adopt"]).ends_with(0);
    assert_eq!(a.online(&["list", "todos"]).ends_with(0).lines().len(), 1);
    b.online(&["offer"]).ends_with(0);
    assert_eq!(a.standing("todos"), b.standing("todos"));
    assert_eq!(a.online(&["list", "todos"]).ends_with(0).lines().len(), 13);
    server.process.terminate();
}
