//! HTTP calls against a scripted server, in the clear and over TLS.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use synclayer_client::address::Address;
use synclayer_client::call::HttpClient;
use synclayer_client::tls::{Tls, TrustedRoots};
use synclayer_core::{HttpAnswer, HttpRequest, Token};

/// More than any answer in these tests may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn a_call_says_what_it_was_asked_to_say() {
    let server = Server::start(|_| answer("200 OK", "", r#"{"ok":true}"#));
    let said = server.client("/api").call(&HttpRequest {
        method: "PATCH",
        path: "/sync/todos/a%20b?since=1".into(),
        body: Some(r#"{"data":{}}"#.into()),
        token: Some(Token::from("s3cret")),
        timeout: TIMEOUT,
    });
    assert_eq!(said, answered(200, None, r#"{"ok":true}"#));
    let asked = server.asked();
    assert!(asked.starts_with("PATCH /api/sync/todos/a%20b?since=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("\r\ncontent-type: application/json\r\n"), "{asked}");
    assert!(asked.contains("Bearer s3cret"), "{asked}");
    assert!(asked.ends_with(r#"{"data":{}}"#), "{asked}");
}

#[test]
fn every_method_goes_out() {
    let server = Server::start(|_| answer("200 OK", "", "{}"));
    let client = server.client("");
    for (method, name, body) in [
        ("GET", "GET", None),
        ("POST", "POST", Some("{}".into())),
        ("PATCH", "PATCH", Some("{}".into())),
        ("DELETE", "DELETE", None),
    ] {
        assert_eq!(client.call(&HttpRequest { method, body, ..get() }), answered(200, None, "{}"));
        assert!(server.asked().starts_with(&format!("{name} /sync/todos HTTP/1.1\r\n")));
    }
}

#[test]
fn whatever_the_server_says_is_an_answer() {
    let html = "<html><body>Bad Gateway</body></html>";
    for (status, code) in
        [("404 Not Found", 404), ("401 Unauthorized", 401), ("502 Bad Gateway", 502)]
    {
        let server = Server::start(move |_| answer(status, "Content-Type: text/html\r\n", html));
        assert_eq!(server.client("").call(&get()), answered(code, None, html));
    }
}

#[test]
fn the_server_may_ask_for_patience() {
    let wait = |value: String| {
        let header = format!("Retry-After: {value}\r\n");
        let server = Server::start(move |_| answer("429 Too Many Requests", &header, "{}"));
        let said = server.client("").call(&get());
        let HttpAnswer::Answered { status: 429, retry_after, .. } = said else {
            panic!("{said:?}")
        };
        retry_after
    };
    assert_eq!(wait("120".into()), Some(Duration::from_secs(120)));
    let in_a_minute = SystemTime::now() + Duration::from_secs(60);
    let until = wait(httpdate::fmt_http_date(in_a_minute)).unwrap();
    assert!((50..=60).contains(&until.as_secs()), "{until:?}");
    assert_eq!(wait("Fri, 01 Jan 1999 00:00:00 GMT".into()), Some(Duration::ZERO));
    assert_eq!(wait("soon".into()), None);
}

#[test]
fn a_silent_server_is_given_up() {
    let silent = Server::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").unwrap();
        let _ = stream.read(&mut [0]); // until the client has gone
        Vec::new()
    });
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = client(&format!("http://{}", deaf.local_addr().unwrap()), &TrustedRoots::Public);
    for client in [silent.client(""), deaf] {
        let began = Instant::now();
        let said = client.call(&HttpRequest { timeout: Duration::from_millis(100), ..get() });
        assert!(matches!(said, HttpAnswer::Failed(_)), "{said:?}");
        assert!(began.elapsed() < TIMEOUT);
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let counted = Server::start(|_| answer("200 OK", "", &" ".repeat(LONGEST + 1)));
    let endless = Server::start(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while stream.write_all(b"5\r\nmore \r\n").is_ok() {}
        Vec::new()
    });
    for server in [counted, endless] {
        let said = server.client("").call(&get());
        assert!(
            matches!(&said, HttpAnswer::Failed(why) if why.message.contains("limit")),
            "{said:?}"
        );
    }
    let longest = Server::start(|_| answer("200 OK", "", &" ".repeat(LONGEST)));
    assert_eq!(longest.client("").call(&get()), answered(200, None, &" ".repeat(LONGEST)));
}

#[test]
fn a_token_does_not_follow_a_redirect() {
    let other = Server::start(|_| answer("200 OK", "", "{}"));
    let location = format!("Location: {}/elsewhere?a=b\r\n", other.url);
    let server = Server::start(move |_| answer("302 Found", &location, ""));
    let call = HttpRequest { token: Some(Token::from("s3cret")), ..get() };
    let HttpAnswer::Failed(why) = server.client("").call(&call) else { panic!("an answer") };
    assert!(why.message.contains(&format!("{}/elsewhere", other.url)), "{why}");
    assert!(!why.message.contains("s3cret"));
    assert!(other.asked.try_recv().is_err(), "nobody was there");
}

#[test]
fn where_nobody_listens_the_call_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let call = HttpRequest { token: Some(Token::from("s3cret")), ..get() };
    let HttpAnswer::Failed(why) = client(&url, &TrustedRoots::Public).call(&call) else {
        panic!("an answer")
    };
    assert!(!why.message.is_empty() && !why.message.contains("s3cret"));
}

#[test]
fn a_server_is_believed_whose_certificate_is_trusted() {
    let (tls, pem) = certificate("localhost");
    let server = Server::start_tls(tls, |_| answer("200 OK", "", "{}"));
    let trusted = TrustedRoots::Pem(pem.into_bytes());
    assert_eq!(client(&server.url, &trusted).call(&get()), answered(200, None, "{}"));

    let other = TrustedRoots::Pem(certificate("localhost").1.into_bytes());
    let elsewhere = server.url.replace("localhost", "127.0.0.1");
    for (url, roots) in
        [(&server.url, &TrustedRoots::Public), (&server.url, &other), (&elsewhere, &trusted)]
    {
        let call = HttpRequest { token: Some(Token::from("s3cret")), ..get() };
        let said = client(url, roots).call(&call);
        assert!(
            matches!(&said, HttpAnswer::Failed(why) if why.message.contains("certificate")),
            "{said:?}"
        );
    }
    assert!(server.asked().starts_with("GET "));
    assert!(server.asked.try_recv().is_err(), "the others said nothing");
}

/// The longest answer that is read.
const LONGEST: usize = 100_000;

fn get() -> HttpRequest {
    HttpRequest {
        method: "GET",
        path: "/sync/todos".into(),
        body: None,
        token: None,
        timeout: TIMEOUT,
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let headers = format!("{headers}Connection: close\r\nContent-Length: {length}");
    format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}").into_bytes()
}

fn answered(status: u16, retry_after: Option<Duration>, body: &str) -> HttpAnswer {
    HttpAnswer::Answered { status, retry_after, body: body.into() }
}

fn client(url: &str, roots: &TrustedRoots) -> HttpClient {
    let address = Address::new(url, None).unwrap();
    HttpClient::new(&address.http.unwrap(), &Tls::new(roots).unwrap(), LONGEST)
}

/// A certificate that vouches for itself, and what to trust to believe it.
fn certificate(name: &str) -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server that answers one request on each connection.
struct Server {
    url: String,
    asked: Receiver<String>,
}

impl Server {
    fn start(answer: impl FnMut(&mut dyn Stream) -> Vec<u8> + Send + 'static) -> Self {
        Self::listen("http://127.0.0.1", answer, |stream| Box::new(stream))
    }

    fn start_tls(
        config: Arc<ServerConfig>,
        answer: impl FnMut(&mut dyn Stream) -> Vec<u8> + Send + 'static,
    ) -> Self {
        Self::listen("https://localhost", answer, move |stream| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            Box::new(StreamOwned::new(connection, stream))
        })
    }

    fn listen(
        at: &str,
        mut answer: impl FnMut(&mut dyn Stream) -> Vec<u8> + Send + 'static,
        wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{at}:{}", listener.local_addr().unwrap().port());
        let (asks, asked) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                converse(&mut *wrap(stream.unwrap()), &asks, &mut answer);
            }
        });
        Self { url, asked }
    }

    fn client(&self, path: &str) -> HttpClient {
        client(&format!("{}{path}", self.url), &TrustedRoots::Public)
    }

    fn asked(&self) -> String {
        self.asked.recv_timeout(TIMEOUT).unwrap()
    }
}

fn converse(
    stream: &mut dyn Stream,
    asks: &Sender<String>,
    answer: &mut impl FnMut(&mut dyn Stream) -> Vec<u8>,
) {
    let Some(request) = request(stream) else { return };
    let _ = asks.send(request);
    let answer = answer(stream);
    // one that no longer listens is the test's intention
    let _ = stream.write_all(&answer).and_then(|()| stream.flush());
}

/// A request with its body; `None` where the peer went before it was whole.
fn request(stream: &mut dyn Stream) -> Option<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).ok()?;
    let length = head.to_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .map_or("0", |rest| rest.split('\r').next().unwrap_or("0"));
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).ok()?)
}
