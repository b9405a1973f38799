//! Connections without a token at a server with few descriptors.

use std::net::TcpStream;

use crate::support::{HomeDir, Server};

#[test]
fn idle_connections_use_up_no_descriptors() {
    let home = HomeDir::new();
    let server = Server::with_descriptors(&home.dir("server"), 512, &["--token", "ann=s3cret"]);
    let shell = home.shell("a", &server.url);
    let save = |id: &str| shell.online(&["save", "todos", "{}", "--id", id, "--token", "s3cret"]);
    save("before").ends_with(0);
    let idle: Vec<_> = (0..800).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    for n in 0..5 {
        save(&format!("n{n}")).ends_with(0);
    }
    drop(idle);
    save("after").ends_with(0);
}
