//! The texts for a server that is out of reach: each reason, what follows, and what to do now.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::support::{Ended, HomeDir, Process, Server, command, finish, listen};

/// Answers every request like this.
fn answer(answer: &'static str) -> SocketAddr {
    listen(move |mut stream| {
        // whoever is gone needs no answer
        while let Ok(1..) = stream.read(&mut [0; 4096]) {
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

/// The bytes that are read at a time.
const PART: usize = 4096;

/// Room for more at the end of what was read.
fn request_end(read: &mut Vec<u8>) -> &mut [u8] {
    let before = read.len();
    read.resize(before + PART, 0);
    &mut read[before..]
}

/// Returns `true` if a request or an answer is there with its body.
fn is_whole(read: &[u8]) -> bool {
    let Some(head) = read.windows(4).position(|part| part == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    read.len() >= head + 4 + length.map_or(0, |length| length.trim().parse().unwrap())
}

/// A server with TLS in front of another one, and its certificate.
fn tls_before(server: Option<String>) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let address = listen(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut request = Vec::new();
        // one request and one answer at a time is all that polling needs
        while let Ok(length @ 1..) = stream.read(request_end(&mut request)) {
            request.truncate(request.len() - PART + length);
            let Some(server) = &server else { return };
            if !is_whole(&request) {
                continue;
            }
            let mut to = TcpStream::connect(server).unwrap();
            to.write_all(&request).unwrap();
            request.clear();
            let mut answer = Vec::new();
            while !is_whole(&answer) {
                let Ok(length @ 1..) = to.read(request_end(&mut answer)) else { return };
                answer.truncate(answer.len() - PART + length);
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    });
    (address, made.cert.pem())
}

/// The output of a command with the server at this URL says.
fn say(url: &str, args: &[&str]) -> Ended {
    let home = HomeDir::new();
    let data = home.dir("replica");
    finish(command().args(args).args(["--server", url, "--timeout", "4", "--data"]).arg(data))
}

#[track_caller]
fn says(ended: &Ended, words: &[&str]) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for words in words {
        assert!(said.contains(words), "no {words:?} in {ended:?}");
    }
    for jargon in ["os error", "auth_token", "INVALID_MESSAGE", "`auth`"] {
        assert!(!said.contains(jargon), "{jargon:?} in {ended:?}");
    }
}

/// Every command says the same of it, by either way.
#[track_caller]
fn all_say(url: &str, words: &[&str]) {
    for way in [&[][..], &["--poll-only"], &["--realtime-only"]] {
        let save = [&["save", "notes", r#"{"n":1}"#], way].concat();
        let saved = say(url, &save).ends_with(3);
        says(&saved, &[&["saved notes/", "here; it waits for the server: "], words].concat());
        let status = say(url, &[&["status"], way].concat());
        says(&status, &[&["not in sync: "], words].concat());
    }
    let list = say(url, &["list", "notes"]);
    says(&list, &[&["not in sync, this is what is stored here: "], words].concat());
    let home = HomeDir::new();
    let mut watch = command();
    watch.args(["watch", "notes", "--server", url, "--data"]).arg(home.dir("watching"));
    let mut watch = Process::start(&mut watch);
    watch.tells(words[0]);
    watch.terminate();
}

#[test]
fn nothing_listens() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = "refuses the connection: nothing listens there";
    all_say(&format!("http://{free}"), &[refused, "check the port in --server"]);
}

#[test]
fn the_host_is_unknown() {
    all_say("http://nowhere.invalid", &["can't be looked up", "check the name in --server"]);
}

#[test]
fn the_certificate_is_not_trusted() {
    let (address, _) = tls_before(None);
    let url = format!("https://localhost:{}", address.port());
    let words = [
        "the certificate of localhost is not trusted: no authority that is trusted here has signed it",
        "SHA-256 ",
        "--ca FILE",
    ];
    all_say(&url, &words);
}

#[test]
fn tls_is_spoken_to_a_plain_port_and_the_other_way_round() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let plain = server.url.replace("http://", "https://");
    all_say(&plain, &["speaks no TLS", "write http:// in --server"]);
    let (address, _) = tls_before(None);
    let untold = format!("http://localhost:{}", address.port());
    all_say(&untold, &["wants TLS", "write https:// in --server"]);
}

#[test]
fn another_program_listens() {
    let ssh = listen(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let words = [r#"does not speak HTTP: it says "SSH-2.0-OpenSSH_9.2p1""#, "check the port"];
    all_say(&format!("http://{ssh}"), &words);
}

#[test]
fn a_web_site_answers() {
    let site = answer(
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nnot found",
    );
    let url = format!("http://{site}");
    for (args, code) in [
        (&["save", "notes", "{}"][..], 3),
        (&["status"], 9),
        (&["list", "notes"], 9),
        (&["save", "notes", "{}", "--realtime-only"], 3),
    ] {
        let said = say(&url, args).ends_with(code);
        says(&said, &["no SyncLayer server", "404"]);
    }
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let wrong = format!("{}/wrong/path", server.url);
    let saved = say(&wrong, &["save", "notes", "{}"]).ends_with(3);
    says(&saved, &["no SyncLayer server", "check", "path"]);
    let status = say(&wrong, &["status"]).ends_with(9);
    says(&status, &["no SyncLayer server", "check", "path"]);
}

#[test]
fn a_silent_server_is_told_from_a_dead_one() {
    let silent = listen(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let url = format!("http://{silent}");
    let saved = say(&url, &["save", "notes", "{}"]).ends_with(3);
    says(&saved, &["can't be reached", "a longer --timeout waits longer"]);
}

#[test]
fn a_token_is_missing_wrong_or_would_be_seen() {
    let home = HomeDir::new();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &["--token", "ann=s3cret"]);
    for way in ["--poll-only", "--realtime-only"] {
        let missing = say(&server.url, &["save", "notes", "{}", way]).ends_with(3);
        says(&missing, &["it wants a token, and none was given", "--token", "SYNCLAYER_TOKEN"]);
        let wrong = say(&server.url, &["status", way, "--token", "other"]);
        says(&wrong, &["does not let this user in", "check --token"]);
    }
    let with_name = server.url.replace("http://", "http://ann:s3cret@");
    let said = say(&with_name, &["status"]).ends_with(2);
    says(&said, &["--token"]);
    let said = say(&server.address, &["status"]).ends_with(2);
    says(&said, &["http://"]);
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (address, pem) = tls_before(Some(server.address.clone()));
    let url = format!("https://localhost:{}", address.port());
    let ca = home.dir("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let ca = ca.to_str().unwrap();
    let saved = say(&url, &["save", "notes", "{}", "--poll-only", "--ca", ca]).ends_with(0);
    says(&saved, &["the server has it"]);
    let missing = say(&url, &["status", "--ca", "/nowhere.pem"]).ends_with(2);
    assert!(missing.stderr.contains("--ca /nowhere.pem can't be read"), "{missing:?}");
}

#[test]
fn what_happens_on_the_way_is_shown_if_asked() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let quiet = say(&server.url, &["status"]).ends_with(0);
    assert_eq!(quiet.stderr, "");
    let loud = say(&server.url, &["status", "-v", "--token", "s3cret"]).ends_with(0);
    assert!(loud.stderr.contains("connecting") && loud.stderr.contains("DEBUG"), "{loud:?}");
    assert!(!loud.stderr.contains("s3cret"), "{loud:?}");
}

/// A proxy that lets everything through to one server, whatever the name that is asked for.
fn proxy(server: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let tunnels = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tunnels);
    let address = listen(move |mut stream| {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        let asked = String::from_utf8(asked).unwrap();
        if !asked.contains("\r\nProxy-Authorization: Basic YW5uOnMzY3JldA==\r\n") {
            let _ = stream.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n");
            return;
        }
        assert!(asked.starts_with("CONNECT server.example:8080 HTTP/1.1\r\n"), "{asked}");
        counted.fetch_add(1, Ordering::Relaxed);
        stream.write_all(b"HTTP/1.1 200 Go on\r\n\r\n").unwrap();
        let (mut from, mut to) =
            (stream.try_clone().unwrap(), TcpStream::connect(&server).unwrap());
        let mut back = to.try_clone().unwrap();
        thread::spawn(move || std::io::copy(&mut from, &mut to));
        let _ = std::io::copy(&mut back, &mut stream);
    });
    (address, tunnels)
}

#[test]
fn both_ways_go_through_the_proxy_that_the_environment_names() {
    let home = HomeDir::new();
    let host = ["--allow-host", "server.example"];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &host);
    let (address, tunnels) = proxy(server.address.clone());
    let through = |name: &str, value: &str, way: &str| {
        let mut command = command();
        command.args(["save", "notes", "{}", way, "--server", "http://server.example:8080"]);
        command.args(["--timeout", "10", "--data"]).arg(home.dir("replica")).env(name, value);
        finish(&mut command)
    };
    let url = format!("http://ann:s3cret@{address}");
    for way in ["--realtime-only", "--poll-only"] {
        let before = tunnels.load(Ordering::Relaxed);
        through("HTTP_PROXY", &url, way).ends_with(0);
        assert!(tunnels.load(Ordering::Relaxed) > before, "{way}");
        let refused = through("http_proxy", &format!("http://{address}"), way).ends_with(3);
        let wants = format!("the proxy {address} (http_proxy) can't be used");
        says(&refused, &[&wants, "it wants a name and a password", "NO_PROXY"]);
    }
    let lines = json!(tunnels.load(Ordering::Relaxed));
    let mut direct = command();
    direct.args(["save", "notes", "{}", "--server", "http://server.example:8080", "--data"]);
    direct.arg(home.dir("replica")).env("HTTP_PROXY", &url).env("NO_PROXY", ".example");
    says(&finish(&mut direct).ends_with(3), &["server.example can't be looked up"]);
    assert_eq!(json!(tunnels.load(Ordering::Relaxed)), lines);
}
