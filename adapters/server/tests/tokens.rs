//! Tokens that are taken away while their connections live.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;

use common::{Peer, http, serve};
use synclayer_core::UserId;
use synclayer_server::{Server, ServerConfig, StaticTokens};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn serve_tokens() -> (Server, StaticTokens) {
    let tokens = StaticTokens::new([(user("ann"), "a-token"), (user("bob"), "b-token")]);
    let config = ServerConfig::new().authenticator(Arc::new(tokens.clone()));
    (serve(config).await, tokens)
}

async fn insert(server: &Server, token: &str, id: &str) {
    let auth = [("authorization", &*format!("Bearer {token}"))];
    let body = format!(r#"{{"recordId":"{id}","data":{{}}}}"#);
    assert_eq!(http(server, "POST", "/sync/todos", &auth, &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_token_is_gone_has_to_send_a_fresh_one() {
    let (server, tokens) = serve_tokens().await;
    let mut by_url = Peer::connect(&server, "?token=a-token", &[]).await;
    let mut by_message = Peer::connect(&server, "", &[]).await;
    by_message.send(r#"{"type":"auth","token":"a-token"}"#).await;
    by_message.expect("authenticated").await;
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
