//! JSON web tokens: minted, let in, and revoked.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::{HomeDir, Server, Shell, run};

const RULES: &str = r#"
[collections.messages]
read = 'data.room in claims.rooms'
create = 'new.author == user && new.room in claims.rooms'
"#;

/// A token that is signed with a secret.
fn mint(secret: &str, user: &str, claims: &str) -> String {
    let args = ["token", "mint", user, "--secret", secret, "--claims", claims, "--json"];
    run(args).ends_with(0).json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn the_claims_of_a_token_say_what_its_user_may_do() {
    let home = HomeDir::new();
    let file = |name: &str, text: &str| {
        let path = home.dir(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = file("rules.toml", RULES);
    let secret = file("secret", "the bytes of this file, as they stand\n");
    let revoked = file("revoked", "# nobody yet\n");
    let more = [
        "--rules",
        &rules,
        "--jwt-secret",
        &secret,
        "--jwt-revoked",
        &revoked,
        "--jwt-issuer",
        "us",
    ];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let (ann, bob) = (home.shell("ann", &server.url), home.shell("bob", &server.url));
    let anns = mint(&secret, "ann", r#"{"iss":"us","rooms":["1","2"],"jti":"t1"}"#);
    let bobs = mint(&secret, "bob", r#"{"iss":"us","rooms":["2"]}"#);
    for (room, code) in [("1", 0), ("2", 0), ("3", 5)] {
        let message = format!(r#"{{"author":"ann","room":"{room}"}}"#);
        ann.online(&["save", "messages", &message, "--token", &anns]).ends_with(code);
    }
    let listed = |shell: &Shell, token: &str| {
        shell.online(&["list", "messages", "--token", token]).ends_with(0).lines().len()
    };
    assert_eq!((listed(&ann, &anns), listed(&bob, &bobs)), (2, 1));
    let keeps_out = |shell: &Shell, token: &str| {
        let told = shell.online(&["list", "messages", "--token", token]).stderr;
        assert!(told.contains("does not let this user in"), "{told}");
    };
    // of another issuer, and of another secret
    let theirs = mint(&secret, "bob", r#"{"iss":"them","rooms":["1"]}"#);
    let other = file("other", "the bytes of another file of some size");
    for wrong in [theirs, mint(&other, "bob", r#"{"iss":"us"}"#)] {
        keeps_out(&bob, &wrong);
    }

    fs::write(&revoked, "jti t1\n").unwrap();
    server.process.signal("HUP");
    server.process.tells("took over what is revoked");
    keeps_out(&ann, &anns);
    assert_eq!(listed(&bob, &bobs), 1);
    let fresh = mint(&secret, "ann", r#"{"iss":"us","rooms":["1"],"jti":"t2"}"#);
    ann.online(&["status", "--token", &fresh]).ends_with(0);
}

#[test]
fn keys_may_lie_at_a_url_and_a_revoked_user_is_let_in_by_no_token() {
    let home = HomeDir::new();
    let revoked = home.dir("revoked");
    fs::write(&revoked, "").unwrap();
    let keys = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", keys.local_addr().unwrap());
    let more = [
        "--jwt-jwks-url",
        &url,
        "--jwt-revoked",
        revoked.to_str().unwrap(),
        "--token",
        "ann=st4tic",
    ];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let serving = thread::spawn(move || {
        let (mut stream, _) = keys.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let body = format!(r#"{{"keys":[{}]}}"#, include_str!("../../../server/src/jwt/rs256.jwk"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", body.len());
        write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}").unwrap();
    });
    let ann = home.shell("ann", &server.url);
    let by_url = include_str!("../../../server/src/jwt/rs256.jwt").trim();
    for token in [by_url, "st4tic"] {
        ann.online(&["list", "messages", "--token", token]).ends_with(0);
    }
    serving.join().unwrap();

    fs::write(&revoked, "user ann\n").unwrap();
    server.process.signal("HUP");
    server.process.tells("took over what is revoked");
    for token in [by_url, "st4tic"] {
        let told = ann.online(&["list", "messages", "--token", token]).stderr;
        assert!(told.contains("does not let this user in"), "{told}");
    }
    let far = ["serve", "--data", "d", "--jwt-jwks-url", "http://idp.example/keys"];
    let told = run(far).ends_with(2).stderr;
    assert!(told.contains("keys are read from an https:// address"), "{told}");
}

#[test]
fn a_key_that_can_t_be_used_is_told() {
    let home = HomeDir::new();
    let data = home.dir("server");
    let short = home.dir("short");
    fs::write(&short, "short").unwrap();
    let (data, short) = (data.to_str().unwrap(), short.to_str().unwrap());
    let serve = |more: [&str; 2]| {
        let args = ["serve", "--data", data].into_iter().chain(more);
        run(args).ends_with(2).stderr
    };
    let told = serve(["--jwt-secret", short]);
    assert!(told.contains("it needs 32 or more"), "{told}");
    let told = serve(["--jwt-public-key", short]);
    assert!(told.contains("no PEM of a key"), "{told}");
    let told = serve(["--jwt-issuer", "us"]);
    assert!(told.contains("give --jwt-secret"), "{told}");
    let minted = run(["token", "mint", "ann", "--secret", short]).ends_with(2);
    assert!(minted.stderr.contains("it needs 32 or more"), "{minted:?}");
}
