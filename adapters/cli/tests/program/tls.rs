//! The server with a certificate of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{HomeDir, Server, TIMEOUT, run};

/// Writes a certificate that vouches for itself, and its key.
fn write_certificate(home: &HomeDir) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem();
    fs::write(home.dir("cert.pem"), &pem).unwrap();
    fs::write(home.dir("key.pem"), made.signing_key.serialize_pem()).unwrap();
    pem
}

fn serve(home: &HomeDir) -> Server {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| home.dir(name));
    let options = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &options);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    server
}

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// The answer to a request on a connection that goes on.
fn health(connection: &mut Connection) -> std::io::Result<u16> {
    connection.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8(answer).unwrap()[9..12].parse().unwrap())
}

/// A connection that trusts this certificate alone, and its first answer.
fn connect(server: &Server, pem: &str) -> std::io::Result<(Connection, u16)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut connection = StreamOwned::new(tls, stream);
    let status = health(&mut connection)?;
    Ok((connection, status))
}

#[test]
fn a_client_syncs_with_it_by_both_transports() {
    let home = HomeDir::new();
    write_certificate(&home);
    let server = serve(&home);
    let cert = home.dir("cert.pem");
    let ca = ["--ca", cert.to_str().unwrap()];
    let a = home.shell("a", &server.url.replace("127.0.0.1", "localhost"));
    for way in ["--realtime-only", "--poll-only"] {
        let save = ["save", "todos", r#"{"n":1}"#, "--id", &way[2..], way];
        assert_eq!(a.online(&[&save, &ca[..]].concat()).ends_with(0).json()["state"], "synced");
    }
    let other = home.shell("b", &a.server);
    // without it the client says why, and so does the log of the server
    let apart = other.online(&["status"]).ends_with(0).json()["apart"].to_string();
    assert!(apart.contains("the certificate of localhost is not trusted"), "{apart}");
    server.process.tells("a TLS handshake failed: the client has to open https://");
}

#[test]
fn sighup_takes_over_a_renewed_certificate_and_cuts_nobody() {
    let home = HomeDir::new();
    let old = write_certificate(&home);
    let mut server = serve(&home);
    let (mut before, status) = connect(&server, &old).unwrap();
    assert_eq!(status, 200);
    let new = write_certificate(&home);
    server.process.signal("HUP");
    server.process.tells("took over the certificate");
    assert_eq!(health(&mut before).unwrap(), 200);
    assert!(connect(&server, &old).is_err());
    server.process.tells("a TLS handshake failed: the client has to open https://");
    let (mut after, _) = connect(&server, &new).unwrap();

    // what can't be used leaves it
    let key = fs::read_to_string(home.dir("key.pem")).unwrap();
    write_certificate(&home);
    fs::write(home.dir("key.pem"), &key).unwrap();
    server.process.signal("HUP");
    let line = server.process.tells("the certificate stays as it was: correct it");
    assert!(line.contains("can't be used together") && line.contains("--tls-key"), "{line}");
    fs::remove_file(home.dir("cert.pem")).unwrap();
    server.process.signal("HUP");
    let line = server.process.tells("the certificate stays as it was: correct it");
    assert!(line.contains("cert.pem can't be read: No such file"), "{line}");
    for connection in [&mut before, &mut after] {
        assert_eq!(health(connection).unwrap(), 200);
    }
    connect(&server, &new).unwrap();
    assert!(server.process.terminate().success());
    let secret = key.lines().nth(1).unwrap();
    assert!(!server.process.told().iter().any(|line| line.contains(secret)));
}

#[test]
fn a_certificate_that_cant_be_used_is_told() {
    let home = HomeDir::new();
    write_certificate(&home);
    let [cert, key, data] = ["cert.pem", "key.pem", "server"].map(|name| home.dir(name));
    let serve = |options: &[&str]| {
        let on = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        run([&on, options].concat()).ends_with(2).stderr
    };
    let [cert, key] = [&cert, &key].map(|path| path.to_str().unwrap());
    let told = serve(&["--tls-cert", key, "--tls-key", cert]);
    assert!(
        told.contains("the certificate can't be used: there is none; it must be PEM"),
        "{told}"
    );
    let told = serve(&["--tls-cert", cert, "--tls-key", cert]);
    assert!(told.contains("the key can't be used: there is none"), "{told}");
    let told = serve(&["--tls-cert", cert]);
    assert!(told.contains("--tls-key"), "{told}");
    let told = serve(&["--tls-cert", "/nowhere/cert.pem", "--tls-key", key]);
    assert!(told.contains("/nowhere/cert.pem can't be read"), "{told}");
}
