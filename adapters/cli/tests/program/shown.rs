//! Nothing that is stored or that a server says leads a terminal.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::json;

use crate::support::{Ended, HomeDir, Server, run};

/// Codes that clear a terminal, in two forms, take characters away, and turn the direction.
const CODES: &str = "\u{1b}[2J\u{9b}2J\u{8}\u{7f}\u{202e}";

/// Fails where something but lines reaches the terminal.
#[track_caller]
fn is_harmless(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let led = text.chars().any(|of| of != '\n' && of.is_control() || of == '\u{202e}');
        assert!(!led, "{ended:?}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{ended:?}");
    }
}

#[test]
fn what_is_stored_does_not_lead_a_terminal() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    // what a name may hold
    let id = "x\u{9b}2J\u{202e}";
    let document = json!({ "text": CODES, "raw": "-" });
    // JSON takes these characters as they are too
    let text = document.to_string().replace('-', "\u{9b}2J\u{7f}\u{202e}");
    let data = a.data.to_str().unwrap();
    let on = ["--data", data, "--server", &server.url];
    is_harmless(&run([&["save", "todos", &text, "--id", id][..], &on].concat()).ends_with(0));
    for json in [&[][..], &["--json"]] {
        for command in [&["get", "todos", id][..], &["list", "todos"], &["status"]] {
            let ended = run([json, command, &on].concat()).ends_with(0);
            is_harmless(&ended);
            assert!(command[0] == "status" || ended.stdout.contains("\\u009b2J"), "{ended:?}");
        }
    }
    let read = a.online(&["get", "todos", id]).ends_with(0).json();
    assert_eq!((&read["id"], &read["data"]["text"]), (&json!(id), &json!(CODES)));
    is_harmless(&run([&["get", "todos", &format!("none{id}")][..], &on].concat()).ends_with(4));
    is_harmless(&run(["get", "todos", id, &format!("--{CODES}")]).ends_with(2));
}

#[test]
fn what_a_server_says_does_not_lead_a_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request);
            let error = format!("{CODES}\nforged");
            let body = json!({ "error": error, "code": "AUTH_FAILED" }).to_string();
            let head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n";
            let lines = format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // in one piece: of a refused WebSocket, only what comes with the head is read
            let _ = socket.write_all(format!("{head}{lines}{body}").as_bytes());
        }
    });
    let home = HomeDir::new();
    let data = home.dir("a");
    let data = data.to_str().unwrap();
    let on = ["--data", data, "--server", &url, "--timeout", "2", "--token", "t"];
    for command in [&["save", "todos", "{}"][..], &["list", "todos"], &["status"]] {
        for json in [&[][..], &["--json"]] {
            let ended = run([json, command, &on].concat());
            is_harmless(&ended);
            assert!(format!("{ended:?}").contains("forged"), "{ended:?}");
        }
    }
}

#[test]
fn what_a_client_says_does_not_lead_a_servers_terminal() {
    let home = HomeDir::new();
    let mut server = Server::start(&home.dir("server"));
    let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
    let host = server.address.clone();
    let body = format!("{{\"recordId\":\"1\",\"data\":{{}},\"{CODES}\":1}}");
    let (head, length) = ("POST /sync/todos HTTP/1.1\r\n", body.len());
    let lines =
        format!("Host: {host}\r\nOrigin: http://\u{9b}2J\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(format!("{head}{lines}{body}").as_bytes()).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
    assert!(server.process.terminate().success());
    let stderr = server.process.told().join("\n");
    assert!(stderr.contains("refused a web page"), "{stderr}");
    is_harmless(&Ended { code: None, stdout: String::new(), stderr });
}
