//! Slow links, and links that break again and again.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Ended, HomeDir, Server, Shell, finish, listen};

/// The bytes that a link carries.
#[derive(Clone, Copy)]
struct Carries {
    /// The bytes of each direction in a second.
    per_second: usize,
    /// The bytes of each direction of a connection, behind which it breaks.
    per_connection: usize,
}

/// Starts a link to a server. Returns its URL.
fn link(server: &Server, carries: Carries) -> String {
    let to: SocketAddr = server.address.parse().unwrap();
    let address = listen(move |client| {
        let server = TcpStream::connect(to).unwrap();
        let ends = [&client, &server].map(|end| end.try_clone().unwrap());
        let [from, back] = ends;
        thread::spawn(move || one_way(from, server, carries));
        one_way(back, client, carries);
    });
    format!("http://{address}")
}

/// Carries one direction of a connection to its end; then both break.
fn one_way(mut from: TcpStream, mut to: TcpStream, carries: Carries) {
    let mut left = carries.per_connection;
    let mut bytes = [0; 1 << 10];
    while left > 0 {
        let most = bytes.len().min(left);
        let Ok(read @ 1..) = from.read(&mut bytes[..most]) else { break };
        left -= read;
        // no sleep for an event: this is what a slow link is
        thread::sleep(Duration::from_secs_f64(read as f64 / carries.per_second as f64));
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        // it may be gone
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Saves a record of so many bytes.
fn save_large(home: &HomeDir, shell: &Shell, id: &str, bytes: usize, more: &[&str]) -> Ended {
    let file = home.dir(&format!("{id}.json"));
    fs::write(&file, format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes))).unwrap();
    let mut command = shell.command(&["save", "todos", "-", "--id", id, "--timeout", "20"]);
    finish(
        command
            .args(more)
            .args(["--server", &shell.server])
            .stdin(Stdio::from(File::open(file).unwrap())),
    )
}

#[test]
fn a_write_that_no_connection_carries_is_named_and_rejected_by_hand() {
    for way in ["--realtime-only", "--poll-only"] {
        let home = HomeDir::new();
        let server = Server::start(&home.dir("server"));
        let thin = link(&server, Carries { per_second: 10_000_000, per_connection: 100_000 });
        let shell = home.shell(way, &thin);
        let id = way.trim_start_matches('-');
        let told = save_large(&home, &shell, id, 300_000, &[way]).ends_with(3).json();
        let why = told["why"].as_str().unwrap();
        assert!(why.contains("300011 bytes") && why.contains("synclayer reject"), "{why}");
        let behind = format!("behind-{id}");
        shell.online(&["save", "todos", "{}", "--id", &behind, way]).ends_with(3);

        let status = shell.offline(&["status"]).ends_with(0).json();
        let stalled = &status["stalled"];
        assert_eq!((&stalled["id"], &stalled["bytes"]), (&Value::from(id), &Value::from(300_011)));
        let write = stalled["write"].to_string();
        shell.offline(&["reject", "999"]).ends_with(4);
        let told = shell.offline(&["reject", &write]).ends_with(3).json();
        assert_eq!(told["state"], "waiting", "the server may have it: {told}");
        shell.online(&["status", way]).ends_with(0);
        let status = shell.offline(&["status"]).ends_with(0).json();
        assert_eq!((&status["stalled"], &status["waiting"]), (&Value::Null, &Value::from(0)));
        assert_eq!(status["rejected"], 1);
        shell.offline(&["get", "todos", id]).ends_with(4);
        let good = Shell { data: shell.data, server: server.url.clone() };
        good.online(&["get", "todos", &behind]).ends_with(0);
        good.online(&["rejected", "retry", &write]).ends_with(0);
    }
}

#[test]
fn a_first_sync_over_a_slow_link_ends_and_shows_that_it_moves() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let writer = home.shell("writer", &server.url);
    for number in 0..8 {
        save_large(&home, &writer, &format!("r{number}"), 50_000, &[]).ends_with(0);
    }
    // a page takes longer than the time-out; and a connection carries a quarter of all
    for (name, per_second, per_connection) in
        [("slow", 40_000, usize::MAX), ("flaky", 200_000, 100_000)]
    {
        for way in ["--realtime-only", "--poll-only"] {
            let url = link(&server, Carries { per_second, per_connection });
            let shell = home.shell(&format!("{name}{way}"), &url);
            let mut count = shell.command(&["count", "todos", way, "--timeout", "3"]);
            let counted = finish(count.args(["--server", &url])).ends_with(0);
            assert_eq!(counted.json()["count"], 8, "{counted:?}");
            let shows = counted.stderr.contains("records of todos so far");
            assert!(shows || name == "flaky", "{counted:?}");
        }
    }
}

#[test]
fn a_record_that_no_connection_brings_is_told_by_its_place() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let writer = home.shell("writer", &server.url);
    save_large(&home, &writer, "a", 5_000, &[]).ends_with(0);
    save_large(&home, &writer, "b", 300_000, &[]).ends_with(0);
    let thin = link(&server, Carries { per_second: 10_000_000, per_connection: 100_000 });
    let shell = home.shell("reader", &thin);
    let listed = shell.online(&["list", "todos", "--realtime-only"]).ends_with(0);
    assert!(
        listed.stderr.contains("page of todos, behind record a, does not arrive"),
        "{listed:?}"
    );
    assert_eq!(listed.lines().len(), 1, "what has come is there");
}
