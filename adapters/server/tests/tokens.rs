//! Tokens that are taken away while their connections live.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Peer, http, serve};
use serde_json::json;
use synclayer_core::{Collection, Document, Limits, Right, Rules, UserId};
use synclayer_server::{
    Authenticating, Authenticator, Identified, JwtSigner, JwtTokens, Server, ServerConfig,
    StaticTokens, Token,
};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn serve_tokens() -> (Server, StaticTokens) {
    let tokens = StaticTokens::new([(user("ann"), "a-token"), (user("bob"), "b-token")]);
    let config = ServerConfig::new().authenticator(Arc::new(tokens.clone()));
    (serve(config).await, tokens)
}

/// Connections of ann, with her token in the URL and in a message.
async fn connect_both_ways(server: &Server) -> [Peer; 2] {
    let by_url = Peer::connect(server, "?token=a-token", &[]).await;
    let mut by_message = Peer::connect(server, "", &[]).await;
    by_message.send(r#"{"type":"auth","token":"a-token"}"#).await;
    by_message.expect("authenticated").await;
    [by_url, by_message]
}

async fn insert(server: &Server, token: &str, id: &str) {
    let auth = [("authorization", &*format!("Bearer {token}"))];
    let body = format!(r#"{{"recordId":"{id}","data":{{}}}}"#);
    assert_eq!(http(server, "POST", "/sync/todos", &auth, &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_token_is_gone_has_to_send_a_fresh_one() {
    let (server, tokens) = serve_tokens().await;
    let [mut by_url, mut by_message] = connect_both_ways(&server).await;
    let mut bob = Peer::connect(&server, "?token=b-token", &[]).await;
    let mut moved = Peer::connect(&server, "?token=b-token", &[]).await;
    for peer in [&mut by_url, &mut by_message, &mut bob, &mut moved] {
        peer.subscribe("todos").await;
    }
    // a check that finds everything as it was tells nobody
    server.embedded().recheck_tokens();
    for peer in [&mut by_url, &mut by_message, &mut bob, &mut moved] {
        peer.expect_quiet().await;
    }

    tokens.replace([(user("ann"), "fresh"), (user("bob"), "b-token")]);
    assert_eq!(
        Peer::try_connect(server.local_addr(), "?token=a-token", &[]).await.err(),
        Some(401)
    );
    server.embedded().recheck_tokens();
    for peer in [&mut by_url, &mut by_message] {
        assert_eq!(peer.expect("error").await["code"], "AUTH_EXPIRED");
    }
    // nothing is shown to whom no token lets in
    insert(&server, "b-token", "1").await;
    bob.expect("insert").await;
    for peer in [&mut by_url, &mut by_message] {
        peer.send(r#"{"type":"auth","token":"fresh"}"#).await;
        peer.expect("authenticated").await;
        peer.expect("insert").await;
    }

    // a token that is another's now
    moved.expect("insert").await;
    tokens.replace([(user("ann"), "fresh"), (user("carl"), "b-token")]);
    server.embedded().recheck_tokens();
    for peer in [&mut bob, &mut moved] {
        assert_eq!(peer.expect("error").await["code"], "AUTH_EXPIRED");
    }
    insert(&server, "fresh", "2").await;
    by_url.expect("insert").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_kicked_may_come_again_with_a_token_that_is_good() {
    let (server, tokens) = serve_tokens().await;
    let [mut by_url, mut by_message] = connect_both_ways(&server).await;
    let mut bob = Peer::connect(&server, "?token=b-token", &[]).await;
    let mut nobody = Peer::connect(&server, "", &[]).await;
    for peer in [&mut by_url, &mut by_message, &mut bob] {
        peer.subscribe("todos").await;
    }
    server.embedded().kick(&user("ann"));
    for peer in [&mut by_url, &mut by_message] {
        assert_eq!(peer.closed().await, 1008);
    }
    nobody.send(r#"{"type":"auth","token":"b-token"}"#).await;
    nobody.expect("authenticated").await;
    let mut again = Peer::connect(&server, "?token=a-token", &[]).await;
    again.subscribe("todos").await;
    insert(&server, "a-token", "1").await;
    for peer in [&mut again, &mut bob] {
        peer.expect("insert").await;
    }

    // who is to stay outside has no token that is good
    tokens.replace([(user("bob"), "b-token")]);
    server.embedded().kick(&user("ann"));
    assert_eq!(again.closed().await, 1008);
    let refused = Peer::try_connect(server.local_addr(), "?token=a-token", &[]).await;
    assert_eq!(refused.err(), Some(401));
    bob.expect_quiet().await;
}

const SECRET: &[u8] = b"a secret that is long enough for HS256";

/// A token of ann for these rooms.
fn mint(rooms: &[&str], valid_for: Duration) -> String {
    let claims = json!({ "sub": "ann", "rooms": rooms });
    let claims = claims.as_object().unwrap().clone();
    JwtSigner::secret(SECRET).unwrap().mint(claims, valid_for).unwrap()
}

async fn serve_rooms() -> Server {
    serve_rooms_to(Arc::new(JwtTokens::new().secret(SECRET).unwrap())).await
}

async fn serve_rooms_to(users: Arc<dyn Authenticator>) -> Server {
    let messages = Collection::new("messages").unwrap();
    let mut rules = Rules::new(false);
    for right in [Right::Read, Right::Write] {
        rules.set(messages.clone(), right, "data.room in claims.rooms").unwrap();
    }
    let mut config = ServerConfig::new().authenticator(users).policy(Arc::new(rules));
    config.rings.documents = true;
    serve(config).await
}

async fn save_message(server: &Server, token: &str, id: &str, room: &str) -> u16 {
    let auth = [("authorization", &*format!("Bearer {token}"))];
    let body = format!(r#"{{"recordId":"{id}","data":{{"room":"{room}"}}}}"#);
    http(server, "POST", "/sync/messages", &auth, &body).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_time_of_its_token() {
    let server = serve_rooms().await;
    // clocks may differ by 5 seconds, for which it is still good
    let token = mint(&["1"], Duration::ZERO);
    let mut peer = Peer::connect(&server, &format!("?token={token}"), &[]).await;
    peer.subscribe("messages").await;
    assert_eq!(peer.expect("error").await["code"], "AUTH_EXPIRED");
    assert_eq!(save_message(&server, &token, "m", "1").await, 401);
    let fresh = mint(&["1"], Duration::from_secs(3600));
    assert_eq!(save_message(&server, &fresh, "m", "1").await, 200);
    peer.send(&format!(r#"{{"type":"auth","token":"{fresh}"}}"#)).await;
    peer.expect("authenticated").await;
    assert_eq!(peer.expect("insert").await["recordId"], "m");
}

/// Each way to the server, without a token, with a wrong one and with one whose time is over.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_is_open_to_whom_no_token_lets_in() {
    let server = serve_rooms().await;
    // signed by the secret, in 2001
    let expired = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJyb29tcyI6WyIxIl0sImV4cCI6MTAwMDAwMDAwMH0.17hNPEiQvUQYpIOPip5JlLlvBo7XvNgZohFhcbzXBME";
    let good = mint(&["1"], Duration::from_secs(3600));
    assert_eq!(save_message(&server, &good, "m", "1").await, 200);
    let calls = [
        ("GET", "/sync/messages", ""),
        ("GET", "/sync/messages/m", ""),
        ("GET", "/sync/messages?epoch=", ""),
        ("GET", "/sync/messages?scope[room]=1", ""),
        ("POST", "/sync/messages", r#"{"recordId":"n","data":{"room":"1"}}"#),
        ("PATCH", "/sync/messages/m", r#"{"delta":{"text":"x"}}"#),
        ("DELETE", "/sync/messages/m", ""),
        ("POST", "/sync/pull", r#"{"collection":"messages"}"#),
        ("POST", "/sync/session", r#"{"clientId":"c","session":1}"#),
        ("POST", "/sync/push", r#"{"clientId":"c","session":1,"epoch":"e","mutations":[]}"#),
        ("POST", "/sync/transaction", r#"{"writes":[]}"#),
    ];
    for token in [None, Some("wrong"), Some(expired)] {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let auth: Vec<_> = bearer.iter().map(|bearer| ("authorization", &**bearer)).collect();
        for (method, target, body) in calls {
            let answer = http(&server, method, target, &auth, body).await;
            assert_eq!(answer.status, 401, "{method} {target}: {answer:?}");
        }
        let Some(token) = token else { continue };
        let refused = Peer::try_connect(server.local_addr(), &format!("?token={token}"), &[]).await;
        assert_eq!(refused.err(), Some(401));
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.send(format!(r#"{{"type":"auth","token":"{token}"}}"#)).await;
        assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED");
        peer.send(r#"{"type":"sync","collection":"messages"}"#).await;
        assert_eq!(peer.expect("error").await["code"], "AUTH_FAILED");
    }
}

/// The records of a catch-up.
async fn shown(peer: &mut Peer) -> Vec<String> {
    assert_eq!(peer.expect("subscribed").await["metadata"]["partial"], true);
    let page = peer.expect("sync").await;
    peer.expect("synced").await;
    let records = page["data"]["records"].as_array().unwrap().iter();
    records.map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_with_other_claims_shows_other_records() {
    let server = serve_rooms().await;
    let hour = Duration::from_secs(3600);
    let (both, second) = (mint(&["1", "2"], hour), mint(&["2"], hour));
    for (id, room) in [("a", "1"), ("b", "2")] {
        assert_eq!(save_message(&server, &both, id, room).await, 200);
    }
    assert_eq!(save_message(&server, &second, "c", "1").await, 403);
    let mut peer = Peer::connect(&server, &format!("?token={second}"), &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#).await;
    peer.expect("pong").await;
    peer.send(r#"{"type":"subscribe","collection":"messages"}"#).await;
    assert_eq!(shown(&mut peer).await, ["b"]);
    for (token, ids) in [(both, &["a", "b"][..]), (second, &["b"])] {
        peer.send(&format!(r#"{{"type":"auth","token":"{token}"}}"#)).await;
        peer.expect("authenticated").await;
        assert_eq!(shown(&mut peer).await, ids);
    }
}

/// Lets ann in by any token, with the claims that she has now.
#[derive(Clone, Default)]
struct Claims(Arc<Mutex<Option<Document>>>);

impl Claims {
    fn set(&self, claims: &str) {
        *self.0.lock().unwrap() = Some(Document::parse(claims, &Limits::default()).unwrap());
    }
}

impl Authenticator for Claims {
    fn authenticate<'a>(&'a self, _: &'a Token) -> Authenticating<'a> {
        let claims = self.0.lock().unwrap().clone();
        let mut ann = Identified::as_user(user("ann"));
        ann.claims = claims;
        Box::pin(async { Ok(ann) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_claims_of_the_same_token_show_other_records() {
    let claims = Claims::default();
    claims.set(r#"{"rooms":["1","2"]}"#);
    let server = serve_rooms_to(Arc::new(claims.clone())).await;
    for (id, room) in [("a", "1"), ("b", "2")] {
        assert_eq!(save_message(&server, "any", id, room).await, 200);
    }
    let mut peer = Peer::connect(&server, "?token=any", &[]).await;
    peer.send(r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#).await;
    peer.expect("pong").await;
    peer.send(r#"{"type":"subscribe","collection":"messages"}"#).await;
    assert_eq!(shown(&mut peer).await, ["a", "b"]);
    server.embedded().recheck_tokens();
    peer.expect_quiet().await;
    for (rooms, ids) in
        [(r#"{"rooms":["2"]}"#, &["b"][..]), (r#"{"rooms":["1","2"]}"#, &["a", "b"])]
    {
        claims.set(rooms);
        server.embedded().recheck_tokens();
        assert_eq!(shown(&mut peer).await, ids);
    }
}
