//! The host names that a server answers to.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{PATIENCE, open, serve, token_config};
use synclayer_server::{Server, ServerConfig, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The status of the answer to a request whose lines behind the first are these.
async fn status(server: &Server, line: &str, headers: &str) -> u16 {
    let exchange = async {
        let mut socket = TcpStream::connect(server.local_addr()).await.unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\n{headers}Connection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer a-token\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        String::from_utf8(head[9..].to_vec()).unwrap().parse().unwrap()
    };
    timeout(PATIENCE, exchange).await.expect("an answer in time")
}

const CALLS: [(&str, u16); 4] =
    [("GET /ws", 101), ("GET /sync/todos", 200), ("GET /health", 200), ("GET /nothing", 404)];

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_answers_to_its_own_names_only() {
    let server = open().await;
    for (call, answer) in CALLS {
        for own in ["Host: localhost\r\n", "Host: 127.0.0.1:8080\r\n", "Host: [::1]:8080\r\n", ""] {
            assert_eq!(status(&server, call, own).await, answer, "{call} {own}");
        }
        for foreign in [
            "Host: rebound.example:8080\r\n",
            "Host: localhost\r\nHost: rebound.example\r\n",
            "Host: rebound.example\r\nOrigin: http://rebound.example\r\n",
        ] {
            assert_eq!(status(&server, call, foreign).await, 403, "{call} {foreign}");
        }
    }
    let call = "GET http://rebound.example/sync/todos";
    assert_eq!(status(&server, call, "Host: localhost\r\n").await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_answers_to_the_names_that_are_allowed() {
    let server = serve(ServerConfig::new().allow_hosts(["app.example"])).await;
    for (call, answer) in CALLS {
        assert_eq!(status(&server, call, "Host: app.example:8080\r\n").await, answer, "{call}");
        assert_eq!(status(&server, call, "Host: b.app.example\r\n").await, 403, "{call}");
    }
    let page = "Host: app.example\r\nOrigin: https://app.example\r\n";
    assert_eq!(status(&server, "GET /ws", page).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_tokens_answers_to_any_name() {
    let server = serve(token_config()).await;
    for (call, answer) in CALLS {
        assert_eq!(status(&server, call, "Host: any.example\r\n").await, answer, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_origins_that_would_never_match_are_told() {
    let config = ServerConfig::new;
    for (config, field) in [
        (config().allow_hosts(["https://app.example"]), "allow_hosts"),
        (config().allow_origins(["https://app.example", "app.example"]), "allow_origins"),
    ] {
        let store = std::sync::Arc::new(synclayer_server::MemoryServerStore::new());
        match Server::bind(config, store).await.err() {
            Some(StartError::Setting { field: named, why }) => {
                assert_eq!(named, field);
                assert!(why.contains("app.example"), "{why}");
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}
