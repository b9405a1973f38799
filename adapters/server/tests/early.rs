//! Calls that are refused by their head alone: the refusal reaches whoever is still sending.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use synclayer_core::UserId;
use synclayer_server::{MemoryServerStore, Server, ServerConfig, StaticTokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

async fn serve() -> Server {
    let ann = UserId::new("ann").unwrap();
    let tokens = Arc::new(StaticTokens::new([(ann, "secret")]));
    let config = ServerConfig::new().authenticator(tokens);
    Server::bind(config, Arc::new(MemoryServerStore::new())).await.unwrap()
}

/// The head of an answer.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, socket.read_u8()).await.expect("an answer comes");
        head.push(byte.expect("the connection lives"));
    }
    String::from_utf8(head).unwrap()
}

async fn answer(socket: &mut TcpStream) -> (u16, String) {
    let head = head(socket).await;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    timeout(PATIENCE, socket.read_exact(&mut body)).await.unwrap().unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// An answer that is sent while the body is on its way is followed by the end of the connection,
/// and may be lost with it.
#[tokio::test]
async fn a_refusal_waits_for_the_body_and_keeps_the_connection() {
    let server = serve().await;
    let addr = server.local_addr();
    for (path, header, status) in [
        ("/api/sync/session", "", 404),
        ("/sync/session", "", 401),
        ("/sync/session", "authorization: Bearer wrong\r\n", 401),
        ("/sync/session", "origin: https://evil.example\r\n", 403),
    ] {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\n{header}content-length: 4\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let early = timeout(Duration::from_millis(200), socket.read_u8()).await;
        assert!(early.is_err(), "{path} {header}: it was answered before it was sent");
        socket.write_all(b"body").await.unwrap();
        assert_eq!(answer(&mut socket).await.0, status, "{path} {header}");
        // the connection goes on
        let next = format!("GET /health HTTP/1.1\r\nhost: {addr}\r\n\r\n");
        socket.write_all(next.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut socket).await.0, 200, "{path} {header}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_told_so_before_it_is_cut_off() {
    let server = serve().await;
    let addr = server.local_addr();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let length = 5 << 20;
    let request = format!(
        "POST /sync/push HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer secret\r\n\
         content-length: {length}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    // what is sent behind the answer may meet a closed connection
    let sending = tokio::spawn(async move { write.write_all(&vec![b' '; length]).await });
    let mut begin = vec![0; 12];
    timeout(PATIENCE, read.read_exact(&mut begin)).await.unwrap().unwrap();
    assert_eq!(begin, b"HTTP/1.1 413");
    drop(read);
    drop(sending.await);
    server.shutdown().await;
}
