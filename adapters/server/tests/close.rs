//! The closing handshake, seen by a peer that reads raw frames.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{PATIENCE, open};
use synclayer_server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection behind its handshake.
async fn websocket(server: &Server) -> TcpStream {
    let addr = server.local_addr();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    socket
}

/// A short frame of a client, whose mask is zero.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// Everything that the server sends up to the end of the stream.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered_with_its_code() {
    let server = open().await;
    let mut socket = websocket(&server).await;
    socket.write_all(&masked(8, &1000u16.to_be_bytes())).await.unwrap();
    assert_eq!(rest(&mut socket).await, [0x88, 2, 0x03, 0xe8]);

    let mut socket = websocket(&server).await;
    socket.write_all(&masked(8, b"")).await.unwrap();
    assert_eq!(rest(&mut socket).await, [0x88, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_answered_behind_what_came_before_it() {
    let server = open().await;
    let mut socket = websocket(&server).await;
    let frames = [masked(1, br#"{"type":"ping"}"#), masked(9, b"x"), masked(8, b"")].concat();
    socket.write_all(&frames).await.unwrap();
    let rest = rest(&mut socket).await;
    assert!(rest.ends_with(&[0x8a, 1, b'x', 0x88, 0]), "{rest:?}");
    assert!(rest.starts_with(&[0x81]), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cant_be_read_is_answered_with_the_reason() {
    let server = open().await;
    let unmasked = [0x81, 1, b'x'];
    // what is sent behind it must not cost the answer
    let too_large = [&[0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &[b' '; 4096]].concat();
    for (frame, code) in [
        (&unmasked[..], 1002u16),
        (&masked(3, b"x"), 1002),
        (&masked(1, b"\xff"), 1007),
        (&too_large, 1009),
    ] {
        let mut socket = websocket(&server).await;
        socket.write_all(frame).await.unwrap();
        let rest = rest(&mut socket).await;
        assert_eq!((rest[0], &rest[2..4]), (0x88, &code.to_be_bytes()[..]), "{code}");
    }
}
