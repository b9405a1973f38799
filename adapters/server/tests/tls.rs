//! A server that does TLS itself, met by clients of rustls alone.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{PATIENCE, http_at, serve, token_config};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use synclayer_server::{MemoryServerStore, Server, ServerConfig, Tls, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

/// A certificate that vouches for itself, and its key, as PEM.
struct Made {
    certificate: CertificateDer<'static>,
    chain: String,
    key: String,
}

fn made() -> Made {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Made { certificate: made.cert.der().clone(), chain, key }
}

impl Made {
    fn tls(&self) -> Tls {
        Tls::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    /// A connection of a client that trusts this certificate alone.
    async fn connect(
        &self,
        server: &Server,
        version: &'static SupportedProtocolVersion,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config =
            ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().unwrap();
        timeout(PATIENCE, connector.connect(name, stream)).await.expect("a handshake in time")
    }
}

async fn health(mut stream: TlsStream<TcpStream>) -> String {
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_and_calls_go_over_tls_1_2_and_1_3() {
    let made = self::made();
    let server = serve(token_config().tls(made.tls())).await;
    for (version, name) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = made.connect(&server, version).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
        assert!(health(stream).await.starts_with("HTTP/1.1 200 "), "{name:?}");
        let stream = made.connect(&server, version).await.unwrap();
        let url = "wss://localhost/ws?token=a-token";
        let (mut socket, _) = client_async(url, stream).await.unwrap();
        // more than a record of TLS holds, in both directions
        let text = "x".repeat(100_000);
        let insert = format!(
            r#"{{"type":"insert","collection":"todos","recordId":"{name:?}","data":{{"x":"{text}"}}}}"#
        );
        socket.send(Message::text(insert)).await.unwrap();
        socket.send(Message::text(r#"{"type":"sync","collection":"todos"}"#)).await.unwrap();
        loop {
            let message = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            if message.to_text().unwrap().contains(&text) {
                break;
            }
        }
        socket.close(None).await.unwrap();
        let closed = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(closed, Message::Close(_)), "{closed:?}");
    }
}

/// TLS keeps bytes that the socket had no room for, behind the back of whoever has written them.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_bytes_reach_a_slow_reader_too() {
    let made = self::made();
    let server = serve(ServerConfig::new().tls(made.tls())).await;
    let stream = made.connect(&server, &rustls::version::TLS13).await.unwrap();
    let (mut socket, _) = client_async("wss://localhost/ws", stream).await.unwrap();
    let text = "x".repeat(900_000);
    for n in 0..4 {
        let insert = format!(
            r#"{{"type":"insert","collection":"c{n}","recordId":"{n}","data":{{"x":"{text}"}}}}"#
        );
        socket.send(Message::text(insert)).await.unwrap();
    }
    // more than the sockets hold, so that what is written last has to wait
    const ROUNDS: usize = 8;
    for n in (0..4).cycle().take(4 * ROUNDS) {
        let sync = format!(r#"{{"type":"sync","collection":"c{n}"}}"#);
        socket.send(Message::text(sync)).await.unwrap();
    }
    for n in 0..4 * ROUNDS {
        let message = timeout(PATIENCE, socket.next()).await;
        let message = message.unwrap_or_else(|_| panic!("answer {n} is missing"));
        assert!(message.unwrap().unwrap().len() > text.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let (old, new) = (made(), made());
    let tls = old.tls();
    let server = serve(ServerConfig::new().tls(tls.clone())).await;
    let before = old.connect(&server, &rustls::version::TLS13).await.unwrap();
    tls.replace_pem(new.chain.as_bytes(), new.key.as_bytes()).unwrap();
    assert!(old.connect(&server, &rustls::version::TLS13).await.is_err());
    let after = new.connect(&server, &rustls::version::TLS13).await.unwrap();
    for stream in [before, after] {
        assert!(health(stream).await.starts_with("HTTP/1.1 200 "));
    }
    // one that can't be used leaves it
    assert!(tls.replace_pem(old.chain.as_bytes(), new.key.as_bytes()).is_err());
    new.connect(&server, &rustls::version::TLS13).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_shake_hands_is_unauthenticated_and_let_go_in_time() {
    let made = self::made();
    let config = ServerConfig::new().tls(made.tls()).http_timeout(Duration::from_millis(200));
    let server = serve(config).await;
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    let ended = timeout(PATIENCE, silent.read_u8()).await.expect("an end in time");
    assert!(ended.is_err(), "{ended:?}");

    // the newest unauthenticated connection takes the place of an older one
    let config = ServerConfig::new().tls(made.tls()).max_unauthenticated(1);
    let server = serve(config).await;
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    let next = made.connect(&server, &rustls::version::TLS13).await.unwrap();
    assert!(health(next).await.starts_with("HTTP/1.1 200 "));
    let ended = timeout(PATIENCE, silent.read_u8()).await.expect("an end in time");
    assert!(ended.is_err(), "{ended:?}");

    // nor does the end wait for one
    let mut silent = TcpStream::connect(server.local_addr()).await.unwrap();
    timeout(PATIENCE, server.shutdown()).await.expect("an end in time");
    assert!(silent.read_u8().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_not_answered() {
    let server = serve(ServerConfig::new().tls(made().tls())).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time").ok();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // and without TLS it is
    let server =
        Server::bind(ServerConfig::new(), Arc::new(MemoryServerStore::new())).await.unwrap();
    assert_eq!(http_at(server.local_addr(), "GET", "/health", &[], "").await.status, 200);
}

#[test]
fn certificates_and_keys_that_cant_be_used_are_told() {
    let (made, other) = (self::made(), self::made());
    let take =
        |chain: &str, key: &str| Tls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
    for (error, words) in [
        (take("", &made.key), "the certificate can't be used: there is none; it must be PEM"),
        (take(&made.key, &made.key), "the certificate can't be used: there is none"),
        (
            take(&made.chain, ""),
            "the key can't be used: there is none; it must be the certificate's",
        ),
        (take(&made.chain, &other.key), "can't be used together"),
        (take(&made.chain.replace('M', "-"), &made.key), "the certificate can't be used: "),
    ] {
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("PRIVATE"), "{error}");
    }
    assert!(matches!(take(&made.chain, ""), TlsError::Key(_)));
}
