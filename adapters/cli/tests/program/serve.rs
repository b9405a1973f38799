//! The server's process: who is let in, and how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{HomeDir, Process, Server, TIMEOUT, command, finish, run};

#[test]
fn without_tokens_it_listens_on_loopback_only() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let data = data.to_str().unwrap();
    let open = run(["serve", "--listen", "0.0.0.0:0", "--data", data]).ends_with(2);
    assert!(open.stderr.contains("loopback"), "{open:?}");
    Server::start_with(data.as_ref(), "0.0.0.0:0", &["--token", "ann=s3cret"]);
}

#[test]
fn limits_hold_without_tokens() {
    let home = HomeDir::new();
    let limits = ["--max-record", "1K", "--user-rate", "1000/1000", "--page-records", "2"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &limits);
    let shell = home.shell("app", &server.url);
    shell.online(&["save", "todos", "{}"]).ends_with(0);
    let large = format!("{{\"t\":\"{}\"}}", "x".repeat(2000));
    shell.online(&["save", "todos", &large]).ends_with(5);
    let data = home.dir("other");
    let told = run(["serve", "--data", data.to_str().unwrap(), "--max-record", "1KB"]).ends_with(2);
    assert!(told.stderr.contains("64K"), "{told:?}");
}

#[test]
fn half_a_token_is_refused_and_not_shown() {
    let home = HomeDir::new();
    let data = home.dir("server");
    for half in ["s3cret", "=s3cret", "s3cret="] {
        let ended = run(["serve", "--data", data.to_str().unwrap(), "--token", half]).ends_with(2);
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
}

#[test]
fn tokens_of_the_environment_may_have_spaces_around_them() {
    let home = HomeDir::new();
    let mut serve = command();
    serve.args(["serve", "--json", "--listen", "0", "--data"]).arg(home.dir("server"));
    serve.env("SYNCLAYER_TOKENS", " ann=s3cret\n  bob=h1dden\n");
    let server = Process::start(&mut serve);
    let url = server.line()["url"].as_str().unwrap().to_owned();
    for token in ["s3cret", "h1dden"] {
        home.shell(token, &url).online(&["list", "todos", "--token", token]).ends_with(0);
    }
    // a server must not be open because a variable was emptied
    let ended = finish(serve.env("SYNCLAYER_TOKENS", " ")).ends_with(2);
    assert!(ended.stderr.contains("SYNCLAYER_TOKENS is given and empty"), "{ended:?}");
}

#[test]
fn a_token_of_two_users_is_refused_and_not_shown() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let serve = |tokens: [&str; 2]| {
        let [first, second] = tokens;
        let data = data.to_str().unwrap();
        run(["serve", "--data", data, "--token", first, "--token", second]).ends_with(2).stderr
    };
    let told = serve(["ann=s3cret", "bob=s3cret"]);
    assert!(told.contains("ann and bob have the same token"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    // said twice, it is still of one user: what is wrong is the second one
    assert!(serve(["ann=s3cret", "ann=s3cret bob"]).contains("must be USER=TOKEN"));
}

#[test]
fn what_is_refused_is_logged_with_what_to_do_about_it() {
    let home = HomeDir::new();
    let options = ["--token", "ann=s3cret"];
    let mut server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &options);
    let begun = Instant::now();
    for _ in 0..50 {
        let wrong = "Authorization: Bearer wr0ng\r\n";
        assert_eq!(status(&mut websocket(&server.address, wrong)), 401);
    }
    let origin = "Origin: https://evil.example\r\n";
    assert_eq!(status(&mut websocket(&server.address, origin)), 403);
    let ann = "Authorization: Bearer s3cret\r\n";
    let post = |body: &str| {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let (address, length) = (&server.address, body.len());
        let head = format!("Host: {address}\r\n{ann}Content-Length: {length}\r\n\r\n");
        socket.write_all(format!("POST /sync/todos HTTP/1.1\r\n{head}{body}").as_bytes()).unwrap();
        status(&mut socket)
    };
    let long = format!(r#"{{"recordId":"1","data":{{"x":"{}"}}}}"#, "y".repeat(2 << 20));
    assert_eq!((post("{"), post(&long)), (400, 413));
    for _ in 0..20 {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let head = format!("GET /api/sync/todos HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        socket.write_all(head.as_bytes()).unwrap();
        assert_eq!(status(&mut socket), 404);
    }
    let seconds = begun.elapsed().as_secs() as usize;
    assert!(server.process.terminate().success());
    let log = server.process.told();
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    let logins = lines("refused a login: give the client a token that this server knows");
    assert!((1..=seconds + 2).contains(&logins), "{logins} lines: {log:?}");
    assert_eq!(lines("the token is wrong"), logins, "{log:?}");
    assert_eq!(lines("refused a web page: if the page is yours, allow it"), 1, "{log:?}");
    assert_eq!(lines("https://evil.example"), 1, "{log:?}");
    assert_eq!(lines("refused what is not valid"), 1, "{log:?}");
    assert_eq!(lines("refused what is larger than a limit: raise the limit"), 1, "{log:?}");
    let paths = lines("refused a path: there is nothing at that path");
    assert!((1..=seconds + 2).contains(&paths), "{paths} lines: {log:?}");
    assert_eq!(lines("/api/sync/todos"), paths, "{log:?}");
    assert!(log.iter().any(|line| line.contains("user=\"ann\"")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("wr0ng") || line.contains("s3cret")), "{log:?}");
}

#[test]
fn the_log_names_who_was_refused() {
    let home = HomeDir::new();
    let options = ["--token", "ann=s3cret", "--trusted-proxy", "127.0.0.1"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &options);
    let wrong = "Authorization: Bearer wr0ng\r\nX-Forwarded-For: 203.0.113.9\r\n";
    assert_eq!(status(&mut websocket(&server.address, wrong)), 401);
    let line = server.process.tells("refused a login");
    assert!(line.contains("address=203.0.113.9 "), "{line}");
}

#[test]
fn refused_hosts_and_frames_are_logged_too() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let mut socket = TcpStream::connect(&server.address).unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n").unwrap();
    assert_eq!(status(&mut socket), 403);
    server.process.tells("host=\"evil.example\"");
    let mut socket = websocket(&server.address, "");
    assert_eq!(status(&mut socket), 101);
    // a frame with a mask of zeros
    socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'{', b'}']).unwrap();
    server.process.tells("refused what is not valid: the app that sent it has to be changed");
}

#[test]
fn a_port_is_enough_to_listen_at() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "localhost:0", &[]);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    let taken = server.address.rsplit(':').next().unwrap();
    let data = home.dir("other");
    let other = ["serve", "--data", data.to_str().unwrap(), "--listen"];
    let ended = run(other.iter().chain([&taken])).ends_with(1);
    assert!(ended.stderr.contains("another program listens there"), "{ended:?}");
    let ended = run(other.iter().chain([&"app.example:80"])).ends_with(2);
    assert!(ended.stderr.contains("127.0.0.1:8080 to be reached from this machine"), "{ended:?}");
}

#[test]
fn a_token_lets_its_user_in_and_nobody_else() {
    let home = HomeDir::new();
    let tokens = ["--token", "ann=s3cret", "--token", "bob=h1dden"];
    let mut server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &tokens);
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));

    a.online(&["save", "todos", "{}", "--id", "x", "--token", "s3cret"]).ends_with(0);
    let env = |token: &str, args: &[&str]| {
        finish(b.command(args).args(["--server", &b.server]).env("SYNCLAYER_TOKEN", token))
    };
    env("h1dden", &["get", "todos", "x"]).ends_with(0);
    for saved in [
        env("wr0ng", &["save", "todos", "{}", "--id", "y"]),
        b.online(&["save", "todos", "{}", "--id", "y"]),
    ] {
        let saved = saved.ends_with(3).json();
        assert!(saved["why"].as_str().unwrap().contains("does not let this user in"), "{saved}");
        assert!(!saved.to_string().contains("wr0ng"));
    }
    // the right one brings to the server what has waited
    env("h1dden", &["status"]).ends_with(0);
    a.online(&["get", "todos", "y", "--token", "s3cret"]).ends_with(0);

    // a watch has nothing to wait for
    let mut watch = b.command(&["watch", "todos", "--server", &b.server, "--token", "wr0ng"]);
    assert!(finish(&mut watch).ends_with(1).stderr.contains("does not let this user in"));

    assert!(server.process.terminate().success());
    for line in server.process.told() {
        assert!(!["s3cret", "h1dden", "wr0ng"].iter().any(|token| line.contains(token)), "{line}");
    }
}

#[test]
fn sigterm_ends_it_cleanly() {
    ends_cleanly_by("TERM");
}

#[test]
fn sigint_ends_it_cleanly() {
    ends_cleanly_by("INT");
}

fn ends_cleanly_by(signal: &str) {
    let home = HomeDir::new();
    let mut server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    for id in ["x", "y", "z"] {
        a.online(&["save", "todos", "{}", "--id", id]).ends_with(0);
    }
    let mut socket = websocket(&server.address, "");
    assert_eq!(status(&mut socket), 101);
    let watch = home.shell("b", &server.url).watch("todos");

    server.process.signal(signal);
    // a close frame with 1001
    let mut frame = [0; 4];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(frame[0], 0x88, "{frame:?}");
    assert_eq!(frame[2..], 1001u16.to_be_bytes());
    // it waits for the peers to agree, as the watch does
    drop(socket);
    assert!(server.process.wait().success());
    watch.tells("disconnected");

    let server = Server::start(&home.dir("server"));
    let fresh = home.shell("c", &server.url);
    assert_eq!(fresh.online(&["list", "todos"]).ends_with(0).lines().len(), 3);
}

#[test]
fn web_pages_connect_from_the_origins_that_are_allowed() {
    let home = HomeDir::new();
    let more = ["--allow-origin", "https://app.example"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    for (origin, answer) in [("https://app.example", 101), ("https://evil.example", 403)] {
        let header = format!("Origin: {origin}\r\n");
        assert_eq!(status(&mut websocket(&server.address, &header)), answer, "{origin}");
    }
}

#[test]
fn it_answers_to_the_hosts_that_are_allowed() {
    let home = HomeDir::new();
    let more = ["--allow-host", "app.example"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    for (host, answer) in [("app.example", 200), ("evil.example", 403)] {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        assert_eq!(status(&mut socket), answer, "{host}");
    }
}

#[test]
fn it_reads_the_scopes_that_are_declared() {
    let home = HomeDir::new();
    let more = ["--scope", "messages=room,members[]"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    for (query, answer) in [("room", 200), ("members%5B%5D", 200), ("text", 400)] {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        let path = format!("/sync/messages?scope[{query}]=42");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        assert_eq!(status(&mut socket), answer, "{query}");
    }
}

#[test]
fn a_scope_that_can_not_be_declared_is_refused() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let data = data.to_str().unwrap();
    for (scope, message) in [
        ("messages", "COLLECTION=KEY"),
        ("messages=", "a field has no name"),
        ("messages=a+b[]", "can't be one of several parts"),
    ] {
        let told = run(["serve", "--data", data, "--scope", scope]).ends_with(2).stderr;
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn it_keeps_the_indexes_that_are_declared() {
    let home = HomeDir::new();
    let more = ["--index", "todos=done,-priority", "--index", "todos=owner.name"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let a = home.shell("a", &server.url);
    for n in 0..6 {
        a.online(&["save", "todos", &format!("{{\"done\":{},\"priority\":{n}}}", n % 2 == 0)])
            .ends_with(0);
    }
    let mut socket = TcpStream::connect(&server.address).unwrap();
    let path = "/sync/todos?where=%7B%22field%22:%22done%22,%22isEqualTo%22:true%7D";
    let path = format!("{path}&orderBy=-priority&limit=2");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let body: Value = serde_json::from_str(body).unwrap();
    let records = body["records"].as_array().unwrap().iter();
    let priorities: Vec<_> = records.map(|record| record["data"]["priority"].clone()).collect();
    assert_eq!(priorities, [json!(4), json!(2)], "{answer}");
}

#[test]
fn an_index_that_can_not_be_is_refused() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let data = data.to_str().unwrap();
    for (index, message) in [
        ("todos", "COLLECTION=FIELD"),
        ("todos=a,a", "one is there twice"),
        ("todos=a,,b", "is no path of a field"),
    ] {
        let told = run(["serve", "--data", data, "--index", index]).ends_with(2).stderr;
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn a_host_or_origin_that_would_never_match_is_refused() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let serve = |option, value| {
        let data = data.to_str().unwrap();
        run(["serve", "--listen", "127.0.0.1:0", "--data", data, option, value]).ends_with(2).stderr
    };
    let told = serve("--allow-origin", "app.example");
    assert!(told.contains("--allow-origin \"app.example\" has no scheme"), "{told}");
    assert!(told.contains("write https://app.example\n"), "{told}");
    assert!(serve("--allow-origin", "https://app.example/x").contains("has a path"));
    assert!(serve("--allow-host", "app.example:80").contains("write app.example\n"));
}

#[test]
fn health_is_told() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let mut socket = TcpStream::connect(&server.address).unwrap();
    let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    socket.write_all(request.as_bytes()).unwrap();
    assert_eq!(status(&mut socket), 200);
}

/// Asks for a WebSocket, of nobody's make.
pub(crate) fn websocket(address: &str, header: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         {header}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

/// The status of an answer, whose head is read.
pub(crate) fn status(socket: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}
