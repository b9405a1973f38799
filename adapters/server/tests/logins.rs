//! Authenticators that take their time, never answer, or break.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Peer, http, serve};
use synclayer_core::UserId;
use synclayer_server::{
    AuthError, Authenticating, Authenticator, Identified, Server, ServerConfig, Token,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Knows the user of each token by its name, where that says nothing else.
struct Registry {
    /// As many of those that are `slow` are answered.
    answers: Semaphore,
    asked: AtomicUsize,
    most_asked: AtomicUsize,
    /// It can say nothing any more.
    is_down: AtomicBool,
}

impl Authenticator for Registry {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        assert_ne!(token.reveal(), "panic", "a call that panics");
        Box::pin(async move {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_asked.fetch_max(asked, Ordering::SeqCst);
            let _guard = Asked(&self.asked);
            if self.is_down.load(Ordering::SeqCst) {
                return Err(AuthError::Unavailable);
            }
            match token.reveal() {
                "late panic" => panic!("a future that panics"),
                "never" => pending().await,
                "slow" => self.answers.acquire().await.unwrap().forget(),
                "wrong" => return Err(AuthError::Wrong),
                _ => {}
            }
            Ok(Identified::as_user(UserId::new("ann").unwrap()))
        })
    }
}

/// One that it is being asked about.
struct Asked<'a>(&'a AtomicUsize);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve_registry(
    config: impl FnOnce(ServerConfig) -> ServerConfig,
) -> (Server, Arc<Registry>) {
    let registry = Arc::new(Registry {
        answers: Semaphore::new(0),
        asked: AtomicUsize::new(0),
        most_asked: AtomicUsize::new(0),
        is_down: AtomicBool::new(false),
    });
    let authenticator = Arc::<Registry>::clone(&registry);
    let config = config(ServerConfig::new().authenticator(authenticator));
    (serve(config).await, registry)
}

/// The status of a call with this token.
async fn call(server: &Server, token: &str) -> u16 {
    let auth = [("authorization", &*format!("Bearer {token}"))];
    http(server, "GET", "/sync/todos", &auth, "").await.status
}

const AUTH_SLOW: &str = r#"{"type":"auth","token":"slow"}"#;

// one thread, which an authenticator must not keep
#[tokio::test]
async fn nobody_but_the_caller_waits_for_an_authenticator() {
    let (server, registry) = serve_registry(|config| config).await;
    let mut live = Peer::connect(&server, "?token=quick", &[]).await;
    live.subscribe("todos").await;
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.send(AUTH_SLOW).await;
    // what comes behind a token waits for it
    peer.send(r#"{"type":"subscribe","collection":"todos"}"#).await;
    // a fresh token that takes long holds up no change that comes meanwhile
    live.send(AUTH_SLOW).await;
    let mut handshakes = JoinSet::new();
    let address = server.local_addr();
    handshakes.spawn(async move { Peer::try_connect(address, "?token=slow", &[]).await.err() });
    while registry.asked.load(Ordering::SeqCst) < 3 {
        assert_eq!(call(&server, "quick").await, 200);
    }
    let auth = [("authorization", "Bearer quick")];
    let body = r#"{"recordId":"1","data":{}}"#;
    assert_eq!(http(&server, "POST", "/sync/todos", &auth, body).await.status, 200);
    live.expect("insert").await;

    registry.answers.add_permits(3);
    for kind in ["authenticated", "subscribed"] {
        peer.expect(kind).await;
    }
    live.expect("authenticated").await;
    assert_eq!(handshakes.join_next().await.unwrap().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_answer_is_told_to_come_again() {
    let quickly = Duration::from_millis(100);
    let (server, registry) = serve_registry(|config| config.login_timeout(quickly)).await;
    for token in ["never", "panic", "late panic", "never"] {
        assert_eq!(call(&server, token).await, 503, "{token}");
        let query = format!("?token={}", token.replace(' ', "%20"));
        assert_eq!(Peer::try_connect(server.local_addr(), &query, &[]).await.err(), Some(503));
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.send(format!(r#"{{"type":"auth","token":"{token}"}}"#)).await;
        assert_eq!(peer.closed().await, 1013, "{token}");
    }
    assert_eq!((call(&server, "wrong").await, call(&server, "quick").await), (401, 200));
    assert_eq!(registry.asked.load(Ordering::SeqCst), 0);

    // where all are to be checked again, nothing is served to whom nobody vouches for
    let mut peer = Peer::connect(&server, "?token=quick", &[]).await;
    peer.subscribe("todos").await;
    registry.is_down.store(true, Ordering::SeqCst);
    server.embedded().recheck_tokens();
    assert_eq!(peer.closed().await, 1013);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticator_is_asked_about_so_many_tokens_at_a_time() {
    let (server, registry) = serve_registry(|config| config.max_logins(2)).await;
    let mut handshakes = JoinSet::new();
    for _ in 0..6 {
        let address = server.local_addr();
        handshakes
            .spawn(async move { Peer::try_connect(address, "?token=slow", &[]).await.is_ok() });
    }
    registry.answers.add_permits(6);
    assert_eq!(handshakes.join_all().await, [true; 6]);
    assert!(registry.most_asked.load(Ordering::SeqCst) <= 2);
    // one that is gone makes room for others
    for _ in 0..2 {
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.send(AUTH_SLOW).await;
        while registry.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        drop(peer);
    }
    registry.answers.add_permits(2);
    assert_eq!(call(&server, "quick").await, 200);
}
