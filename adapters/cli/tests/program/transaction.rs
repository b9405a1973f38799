//! Several writes with one fate, from a file or a pipe.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::support::{HomeDir, Server};

const SEAT_AND_TICKET: &str = r#"{"type":"update","collection":"seats","recordId":"7a","data":{"by":"ann"}}

{"type":"insert","collection":"tickets","recordId":"ann","data":{"seat":"7a"}}
"#;

#[test]
fn the_lines_of_a_file_or_a_pipe_are_written_together() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    a.online(&["save", "seats", r#"{"row": 7}"#, "--id", "7a"]).ends_with(0);
    let file = home.dir("writes");
    fs::write(&file, SEAT_AND_TICKET).unwrap();
    // b has nothing yet, and asks the server for the record that it updates
    let made = b.online(&["transaction", file.to_str().unwrap()]).ends_with(0).json();
    assert_eq!(
        (&made["done"], &made["count"], &made["state"]),
        (&json!("transaction"), &json!(2), &json!("synced"))
    );
    assert_eq!(a.data("seats", "7a"), json!({"by": "ann", "row": 7}));
    assert_eq!(a.data("tickets", "ann"), json!({"seat": "7a"}));

    let mut piped = a.command(&["transaction", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line = r#"{"type":"delete","collection":"tickets","recordId":"ann"}"#;
    piped.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    // without a server it waits
    assert_eq!(piped.wait().unwrap().code(), Some(3));
    a.online(&["get", "tickets", "ann"]).ends_with(4);
}

#[test]
fn a_line_that_is_wrong_is_named_and_nothing_is_written() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    let file = home.dir("writes");
    for (lines, told) in [
        ("{\"type\":\"insert\",\"collection\":\"t\",\"recordId\":\"1\",\"data\":{}}\nno", "line 2"),
        ("{\"type\":\"insert\",\"collection\":\"t\",\"recordId\":\"1\",\"data\":[]}", "line 1"),
        ("{\"type\":\"upsert\",\"collection\":\"t\",\"recordId\":\"1\"}", "upsert"),
        ("", "no line"),
    ] {
        fs::write(&file, lines).unwrap();
        let ended = a.offline(&["transaction", file.to_str().unwrap()]).ends_with(2);
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    assert!(a.offline(&["list", "t"]).ends_with(0).lines().is_empty());
}
