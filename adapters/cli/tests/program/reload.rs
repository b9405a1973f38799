//! The files that a running server reads again.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::serve::{status, websocket};
use crate::support::{HomeDir, Server, finish, run};

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A WebSocket that this token has let in.
fn connect(server: &Server, token: &str) -> TcpStream {
    let mut socket = websocket(&server.address, &bearer(token));
    assert_eq!(status(&mut socket), 101, "{token}");
    socket
}

/// The next text of a socket.
fn text(socket: &mut TcpStream) -> String {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81, "{head:?}");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            socket.read_exact(&mut length).unwrap();
            u16::from_be_bytes(length).into()
        }
        length => usize::from(length),
    };
    let mut text = vec![0; length];
    socket.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Makes sure that nothing more was on its way: the pong is next.
#[track_caller]
fn is_quiet(socket: &mut TcpStream) {
    let ping = br#"{"type":"ping"}"#;
    socket.write_all(&[0x81, 0x80 | ping.len() as u8, 0, 0, 0, 0]).unwrap();
    socket.write_all(ping).unwrap();
    let text = text(socket);
    assert!(text.starts_with(r#"{"type":"pong""#), "{text}");
}

#[test]
fn sighup_takes_over_the_tokens_of_the_file() {
    let home = HomeDir::new();
    let file = home.dir("tokens");
    fs::write(&file, "# the users\n\n ann=f1rst \r\nbob=other\n").unwrap();
    let more = ["--token-file", file.to_str().unwrap(), "--token", "carl=g1ven"];
    let mut server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let [mut ann, mut bob, mut carl] = ["f1rst", "other", "g1ven"].map(|t| connect(&server, t));

    fs::write(&file, "ann=s3cond\nbob=other\n").unwrap();
    server.process.signal("HUP");
    server.process.tells("took over the tokens");
    assert!(text(&mut ann).contains("AUTH_EXPIRED"));
    is_quiet(&mut bob);
    is_quiet(&mut carl);
    connect(&server, "s3cond");
    // nor is its address locked out because a device still has it
    for _ in 0..20 {
        assert_eq!(status(&mut websocket(&server.address, &bearer("f1rst"))), 401);
    }

    // nobody is let in by a file without tokens
    fs::write(&file, "").unwrap();
    server.process.signal("HUP");
    server.process.tells("took over the tokens");
    assert!(text(&mut bob).contains("AUTH_EXPIRED"));
    is_quiet(&mut carl);
    assert!(server.process.terminate().success());
    let told = server.process.told().join("\n");
    assert!(!["f1rst", "s3cond", "other", "g1ven"].iter().any(|t| told.contains(t)), "{told}");
}

#[test]
fn a_token_file_that_cant_be_used_leaves_what_was_in_force() {
    let home = HomeDir::new();
    let file = home.dir("tokens");
    fs::write(&file, "ann=f1rst").unwrap();
    let more = ["--token-file", file.to_str().unwrap(), "--token", "bob=other"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let mut ann = connect(&server, "f1rst");
    for (text, why) in [
        ("ann=s3cond\ns3cret\n", "line 2: it must be USER=TOKEN"),
        ("ann=other\n", "bob and ann have the same token"),
        ("=s3cret\n", "line 1: its user: it is empty"),
    ] {
        fs::write(&file, text).unwrap();
        server.process.signal("HUP");
        let line =
            server.process.tells("the tokens stay as they were: correct it, and send SIGHUP");
        assert!(line.contains(why) && !line.contains("s3c") && !line.contains("other"), "{line}");
        is_quiet(&mut ann);
        connect(&server, "f1rst");
    }
    fs::remove_file(&file).unwrap();
    server.process.signal("HUP");
    let line = server.process.tells("the tokens stay as they were");
    assert!(line.contains("can't be read: No such file"), "{line}");
    connect(&server, "f1rst");
    // a server that starts has nothing in force
    let data = home.dir("other");
    let args = ["serve", "--data", data.to_str().unwrap(), more[0], more[1]];
    let told = run(args).ends_with(2).stderr;
    assert!(told.contains("the token file"), "{told}");
}

#[test]
fn sighup_ends_no_server() {
    let home = HomeDir::new();
    let mut server = Server::start(&home.dir("server"));
    server.process.signal("HUP");
    server.process.tells("there is no --token-file and no --tls-cert to read again");
    is_quiet(&mut connect(&server, "any"));
    assert!(server.process.terminate().success());
}

/// A server with a token file is not open, whatever is in it.
#[test]
fn a_token_file_without_tokens_lets_nobody_in() {
    let home = HomeDir::new();
    let file = home.dir("tokens");
    fs::write(&file, "\n").unwrap();
    let more = ["--token-file", file.to_str().unwrap()];
    let server = Server::start_with(&home.dir("server"), "0.0.0.0:0", &more);
    let address = server.address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(status(&mut websocket(&address, &bearer("any"))), 401);
}

/// A pipe of the shell is read when the server starts, and never again.
#[test]
fn what_cant_be_read_again_leaves_what_was_in_force() {
    let home = HomeDir::new();
    let fifo = home.dir("fifo");
    assert!(finish(Command::new("mkfifo").arg(&fifo)).code == Some(0));
    let (to, text) = (fifo.clone(), "\u{feff}ann=f1rst\n");
    let writer = std::thread::spawn(move || fs::write(to, text).unwrap());
    let more = ["--token-file", fifo.to_str().unwrap()];
    let mut server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    writer.join().unwrap();
    let mut ann = connect(&server, "f1rst");
    server.process.signal("HUP");
    let line = server.process.tells("the tokens stay as they were");
    assert!(line.contains("is no regular file, so it can't be read again"), "{line}");
    is_quiet(&mut ann);
    drop(ann);
    assert!(server.process.terminate().success());
}
