//! `kill -9`.

use std::sync::mpsc::channel;
use std::thread;

use crate::support::{HomeDir, Server};

/// Records that are saved, and the number after which the server is killed.
const SAVES: usize = 16;
const KILL_AFTER: usize = 4;

#[test]
fn a_killed_server_loses_nothing_and_its_clients_come_back() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let mut server = Server::start(&data);
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    let watch = b.watch("todos");

    let (told, saved) = channel();
    let writer = thread::spawn(move || {
        for count in 0..SAVES {
            let document = format!(r#"{{"n":{count}}}"#);
            let ended = a.online(&["save", "todos", &document]);
            let line = ended.json();
            assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
            told.send((line["id"].as_str().unwrap().to_owned(), ended.code == Some(0))).unwrap();
        }
        a
    });
    let mut ids = Vec::new();
    let mut acknowledged = Vec::new();
    for _ in 0..KILL_AFTER {
        let (id, synced) = saved.recv().unwrap();
        assert!(synced);
        acknowledged.push(id.clone());
        ids.push(id);
    }
    // while the writer goes on
    server.process.kill();
    loop {
        let (id, synced) = saved.recv().unwrap();
        ids.push(id.clone());
        if !synced {
            break;
        }
        // it was on its way back when the server died
        acknowledged.push(id);
    }
    watch.tells("disconnected");

    // the same address and data again
    let _server = Server::start_with(&data, &server.address, &[]);
    let fresh = home.shell("c", &server.url);
    let there = fresh.online(&["list", "todos"]).ends_with(0).lines();
    for id in &acknowledged {
        assert!(there.iter().any(|record| record["id"] == **id), "{id} was acknowledged");
    }
    ids.extend(saved.iter().map(|(id, _)| id));
    let a = writer.join().unwrap();
    let (count, checksum) = a.standing("todos");
    assert_eq!(count, SAVES);

    // the watch has come back by itself, and shows each record once
    let mut shown: Vec<String> = Vec::new();
    while shown.len() < SAVES {
        let line = watch.line();
        if line["change"] == "added" {
            shown.push(line["id"].as_str().unwrap().to_owned());
        }
    }
    shown.sort();
    ids.sort();
    assert_eq!(shown, ids);
    drop(watch);
    assert_eq!(b.standing("todos"), (count, checksum));
}

#[test]
fn a_killed_client_keeps_what_it_saved() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    a.offline(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(3);
    let mut watch = a.watch("todos");
    watch.kill();
    let b = home.shell("b", &server.url);
    b.online(&["save", "todos", "{}", "--id", "y"]).ends_with(0);
    assert_eq!(a.standing("todos"), b.standing("todos"));
    assert_eq!(b.data("todos", "x"), serde_json::json!({"n": 1}));
}
