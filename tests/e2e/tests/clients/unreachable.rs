//! The reasons why a server is out of reach are told apart, whichever way it was tried.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use synclayer_core::{EventKind, FailureCause, Transport};
use synclayer_tokio::{SyncConfig, Transports, TrustedRoots};

use crate::client::Client;
use crate::support::{Host, TODOS, until};

/// Lets every connection be talked to on a thread of its own, for as long as the test runs.
fn serve(talk: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream.unwrap()));
        }
    });
    address
}

/// Answers every request like this.
fn answer(answer: &'static str) -> impl Fn(TcpStream) + Clone + Send + 'static {
    move |mut stream| {
        // whoever is gone needs no answer
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.read(&mut [0; 4096]);
    }
}

/// A server with a certificate, and that certificate.
fn over_tls(names: &[&str], until: (i32, u8, u8)) -> (SocketAddr, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until.0, until.1, until.2);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let _ = stream.read(&mut [0; 4096]);
    });
    (address, made.pem())
}

/// Tries a server by one way, and checks what is told of it.
fn told<C: Client>(config: SyncConfig, cause: FailureCause, words: &[&str]) {
    let url = config.base_url.clone();
    let mut client = C::open(config);
    client.told(&format!("{cause:?} of {url}"), |event| match &event.kind {
        EventKind::Error { cause: told, message, .. } if *told == Some(cause) => {
            words.iter().all(|words| message.contains(words))
        }
        EventKind::NoServer { .. } => cause == FailureCause::NoServer,
        _ => false,
    });
    until("the status tells it too", || {
        client.status().failure.is_some_and(|failure| {
            failure.cause == cause && words.iter().all(|words| failure.message.contains(words))
        })
    });
    client.close();
}

fn config(url: &str, way: Transports) -> SyncConfig {
    SyncConfig::new(url)
        .collections([TODOS])
        .transports(way)
        .reconnect_delay(Duration::from_millis(20))
        .request_timeout(Duration::from_millis(500))
}

fn each_way<C: Client>(url: &str, roots: &TrustedRoots, cause: FailureCause, words: &[&str]) {
    for way in [Transports::RealtimeOnly, Transports::PollOnly, Transports::Both] {
        told::<C>(config(url, way).trusted_roots(roots.clone()), cause, words);
    }
}

pub fn what_does_not_let_itself_be_reached_is_told_apart<C: Client>() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ssh = serve(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let nginx = serve(answer(
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 73\r\nConnection: close\r\n\r\n\
         <html><center>The plain HTTP request was sent to HTTPS port</center></html>",
    ));
    let roots = TrustedRoots::Public;
    for (url, cause, words) in [
        (format!("http://{free}"), FailureCause::Refused, "refuses the connection"),
        ("http://nowhere.invalid".into(), FailureCause::UnknownHost, "nowhere.invalid"),
        (format!("http://{ssh}"), FailureCause::NotHttp, "SSH-2.0-OpenSSH_9.2p1 Debian"),
        (format!("https://{ssh}"), FailureCause::NotHttp, "SSH-2.0-OpenSSH_9.2p1 Debian"),
        (format!("http://{nginx}"), FailureCause::TlsPort, "wants TLS"),
    ] {
        each_way::<C>(&url, &roots, cause, &[words]);
    }
}

pub fn failures_of_tls_say_which_certificate_and_why<C: Client>() {
    let (good, pem) = over_tls(&["localhost"], (2099, 1, 1));
    let (expired, old) = over_tls(&["localhost"], (2021, 2, 3));
    let (other, others) = over_tls(&["a.example", "b.example"], (2099, 1, 1));
    let plain = serve(answer("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    let url = |address: SocketAddr| format!("https://localhost:{}", address.port());
    let pem_roots = |pem: String| TrustedRoots::Pem(pem.into_bytes());
    let certificate = FailureCause::Certificate;
    let unknown = ["no authority that is trusted here has signed it", "for localhost", "SHA-256 "];
    each_way::<C>(&url(good), &TrustedRoots::Public, certificate, &unknown);
    let date = ["it has expired, on Wed, 03 Feb 2021", "localhost"];
    each_way::<C>(&url(expired), &pem_roots(old), certificate, &date);
    let names = ["it is for other names", "for a.example, b.example"];
    each_way::<C>(&url(other), &pem_roots(others), certificate, &names);

    let (public, roots) = (TrustedRoots::Public, pem_roots(pem));
    each_way::<C>(&url(plain), &public, FailureCause::PlainPort, &["speaks no TLS"]);
    let untold = format!("http://localhost:{}", good.port());
    each_way::<C>(&untold, &roots, FailureCause::TlsPort, &["wants TLS"]);
}

pub fn what_answers_and_is_no_server_is_told<C: Client>() {
    let site = serve(answer(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 22\r\n\r\n<html>Welcome</html>\r\n",
    ));
    let missing = serve(answer(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nnot found",
    ));
    let host = Host::start();
    let proxy = host.proxy();
    let silent = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for way in [Transports::RealtimeOnly, Transports::PollOnly, Transports::Both] {
        told::<C>(config(&format!("http://{missing}"), way), FailureCause::NoServer, &["404"]);
        let wrong = format!("{}/wrong/path", proxy.url());
        told::<C>(config(&wrong, way), FailureCause::NoServer, &["404"]);
    }
    let site = format!("http://{site}");
    told::<C>(config(&site, Transports::RealtimeOnly), FailureCause::NoServer, &["200"]);
    for way in [Transports::PollOnly, Transports::Both] {
        told::<C>(config(&format!("http://{silent}"), way), FailureCause::Silent, &[]);
    }
}

pub fn a_failure_is_over_when_the_server_is_in_reach<C: Client>() {
    let mut host = Host::start();
    let proxy = host.proxy();
    host.stop();
    let client = C::open(config(&proxy.url(), Transports::Both));
    until("it is told", || client.status().failure.is_some());
    host.run();
    until("it is over", || {
        client.sync_now();
        client.status().transport == Some(Transport::WebSocket)
    });
    assert_eq!(client.status().failure, None);
    client.close();
}
