//! A plain server of SyncLayer 1.7, as somebody might have written it: it fails at everything that it
//! does not know, and looks for the token of a WebSocket in its URL alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{HomeDir, finish, listen};

/// The server: its rows, and the requests that it got.
#[derive(Default)]
struct Plain {
    rows: Vec<Value>,
    /// The heads of the requests.
    heads: Vec<String>,
    /// It has a page of so many rows, and fails at the next.
    fails_behind: Option<usize>,
}

/// The body of a request is not read beyond this.
const MOST: usize = 1 << 20;

fn talk(mut stream: TcpStream, plain: &Mutex<Plain>) {
    let mut read = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut part) {
        read.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        assert!(length < MOST);
        if body.len() < length {
            continue;
        }
        let (status, body) = plain.lock().unwrap().answer(head, body);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        read.clear();
    }
}

impl Plain {
    fn answer(&mut self, head: &str, body: &str) -> (u16, String) {
        self.heads.push(head.to_owned());
        let line = head.lines().next().unwrap_or_default();
        let (path, query) = line.split_once('?').unwrap_or((line, ""));
        let path = path.split(" HTTP").next().unwrap_or_default();
        let number = |name: &str| {
            let pairs = query.split([' ', '&']).filter_map(|pair| pair.split_once('='));
            let value = pairs.filter(|(of, _)| *of == name).map(|(_, value)| value).next();
            value.map(|value| value.parse::<usize>().unwrap())
        };
        match path {
            "GET /sync/todos" => {
                let (limit, offset) = (number("limit"), number("offset").unwrap_or(0));
                if offset > 0 && self.fails_behind.is_some() {
                    return (500, r#"{"error":"Internal server error"}"#.into());
                }
                let limit = self.fails_behind.or(limit).unwrap_or(usize::MAX);
                let rows: Vec<_> = self.rows.iter().skip(offset).take(limit).collect();
                (200, json!({ "records": rows }).to_string())
            }
            "POST /sync/todos" => {
                let row: Value = serde_json::from_str(body).unwrap();
                let id = row["recordId"].clone();
                self.rows.push(json!({ "recordId": id, "data": row["data"], "version": 1 }));
                (200, json!({ "recordId": id, "version": 1 }).to_string())
            }
            _ => (500, r#"{"error":"Internal server error"}"#.into()),
        }
    }
}

/// Runs such a server. Returns its URL, and what it has.
fn serve(plain: Plain) -> (String, Arc<Mutex<Plain>>) {
    let plain = Arc::new(Mutex::new(plain));
    let of = Arc::clone(&plain);
    let address = listen(move |stream| talk(stream, &of));
    (format!("http://{address}"), plain)
}

#[test]
fn a_server_that_fails_at_what_it_does_not_know_is_used_as_a_plain_one() {
    let home = HomeDir::new();
    let (url, plain) = serve(Plain::default());
    for more in [&["--poll-only"][..], &[]] {
        let a = home.shell(if more.is_empty() { "both" } else { "poll" }, &url);
        let ids = ["a", "b"];
        let id = ids[usize::from(more.is_empty())];
        let mut save = vec!["save", "todos", r#"{"n":1}"#, "--id", id];
        save.extend(more);
        assert_eq!(a.online(&save).ends_with(0).json()["state"], "synced");
        let mut status = vec!["status"];
        status.extend(more);
        let status = a.online(&status).ends_with(0).json();
        assert_eq!((&status["level"], &status["apart"]), (&json!(1), &json!(null)));
    }
    assert_eq!(plain.lock().unwrap().rows.len(), 2);
}

#[test]
fn the_token_goes_in_the_url_of_the_websocket_where_it_is_asked_for() {
    let home = HomeDir::new();
    let secret = "s/e c+r&e=t";
    for in_query in [true, false] {
        let (url, plain) = serve(Plain::default());
        let a = home.shell(&format!("query-{in_query}"), &url);
        let mut list = a.command(&["list", "todos", "--server", &url, "-vv", "--timeout", "30"]);
        list.args(["--token", secret]);
        if in_query {
            list.arg("--token-in-query");
        }
        let ended = finish(&mut list).ends_with(0);
        assert!(!ended.stderr.contains("s/e") && !ended.stderr.contains("s%2Fe"), "{ended:?}");
        let heads = plain.lock().unwrap().heads.clone();
        let upgrades: Vec<_> = heads.iter().filter(|head| head.starts_with("GET /ws")).collect();
        assert!(!upgrades.is_empty());
        for head in upgrades {
            let line = head.lines().next().unwrap();
            let in_header = head.to_lowercase().contains("authorization: bearer s/e c+r&e=t");
            assert_eq!(in_header, !in_query, "{head}");
            let expected = "GET /ws?token=s%2Fe%20c%2Br%26e%3Dt HTTP/1.1";
            assert_eq!(line == expected, in_query, "{head}");
        }
        // by HTTP the apps of SyncLayer 1.7 send it in the header
        let mut calls = heads.iter().filter(|head| head.contains("/sync/"));
        assert!(calls.all(|head| head.to_lowercase().contains("authorization: bearer ")));
    }
}

#[test]
fn a_list_says_that_it_is_only_a_part() {
    let home = HomeDir::new();
    let row =
        |n: usize| json!({ "recordId": format!("r{n:03}"), "data": { "n": n }, "version": 1 });
    let plain =
        Plain { rows: (0..40).map(row).collect(), fails_behind: Some(25), ..Plain::default() };
    let (url, plain) = serve(plain);
    let a = home.shell("a", &url);
    let args = ["list", "todos", "--poll-only", "--server", &url, "--timeout", "2"];
    let part = finish(&mut a.command(&args)).ends_with(0);
    assert_eq!(part.lines().len(), 25);
    assert!(part.stderr.contains("only a part of todos: 25 records have come so far"), "{part:?}");
    plain.lock().unwrap().fails_behind = None;
    let whole = a.online(&["list", "todos", "--poll-only"]).ends_with(0);
    assert_eq!((whole.lines().len(), whole.stderr.as_str()), (40, ""));

    let offline = a.offline(&["list", "notes"]).ends_with(0);
    assert!(offline.stderr.contains("nothing of notes has come from a server yet"), "{offline:?}");
}

#[test]
fn a_list_says_of_when_it_is() {
    let home = HomeDir::new();
    let server = crate::support::Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    a.online(&["save", "todos", r#"{"n":1}"#]).ends_with(0);
    let whole = a.online(&["list", "todos"]).ends_with(0);
    assert_eq!(whole.stderr, "");
    let offline = a.offline(&["list", "todos"]).ends_with(0);
    assert_eq!(offline.lines().len(), 1);
    let text = "it is all of todos as it was when last in sync, 1 records";
    assert!(offline.stderr.contains(text), "{offline:?}");
}
