//! The keys of tokens at a URL, which change, and which can't be read now and then.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{http, serve};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use synclayer_server::{JwtError, JwtSigner, JwtTokens, Server, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server of keys.
#[derive(Clone)]
struct Issuer {
    address: SocketAddr,
    /// The answer, with its head.
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start() -> Self {
        Self::start_by(None).await
    }

    /// Answers over TLS, where there is something for it.
    async fn start_by(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self { address, answer: Arc::default(), asked: Arc::default() };
        let serving = issuer.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                match &tls {
                    None => serving.serve_call(stream).await,
                    Some(tls) => {
                        // whoever does not trust the certificate goes
                        let Ok(stream) = tls.accept(stream).await else { continue };
                        serving.serve_call(stream).await;
                    }
                }
            }
        });
        issuer.fails();
        issuer
    }

    async fn serve_call(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        // who has read enough goes
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
    }

    fn answers(&self, status: &str, body: &str) {
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}", body.len());
        *self.answer.lock().unwrap() = format!("{head}\r\n\r\n{body}");
    }

    fn fails(&self) {
        self.answers("500 Internal Server Error", "");
    }

    fn has(&self, keys: &[Value]) {
        self.answers("200 OK", &json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A server that takes tokens with its keys.
    async fn serve(&self, interval: Duration) -> Server {
        let url = format!("http://{}/keys", self.address);
        let tokens = JwtTokens::new().jwks_url(&url).unwrap().jwks_interval(interval);
        serve(ServerConfig::new().authenticator(Arc::new(tokens))).await
    }
}

/// The unpadded URL-safe base64 of bytes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// The public half of a key, and a token that is signed with it.
fn key(pair: &KeyPair, id: Option<&str>) -> (Value, String) {
    let raw = pair.der_bytes();
    let mut public = if pair.algorithm() == &PKCS_ED25519 {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(raw) })
    } else {
        json!({ "kty": "EC", "crv": "P-256", "x": base64(&raw[1..33]), "y": base64(&raw[33..]) })
    };
    let mut signer = JwtSigner::private_key(pair.serialize_pem().as_bytes()).unwrap();
    if let Some(id) = id {
        public["kid"] = id.into();
        signer = signer.key_id(id);
    }
    let claims = json!({ "sub": "ann" }).as_object().unwrap().clone();
    (public, signer.mint(claims, Duration::from_secs(3600)).unwrap())
}

async fn status(server: &Server, token: &str) -> u16 {
    let auth = [("authorization", &*format!("Bearer {token}"))];
    http(server, "GET", "/sync/todos", &auth, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_stay_while_their_url_is_down() {
    let issuer = Issuer::start().await;
    let server = issuer.serve(Duration::ZERO).await;
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ((first, by_first), (second, by_second)) = (key(&ec, Some("1")), key(&ed, Some("2")));
    // nobody is told that a token is wrong where nobody can tell
    assert_eq!(status(&server, &by_first).await, 503);
    issuer.has(std::slice::from_ref(&first));
    assert_eq!((status(&server, &by_first).await, issuer.asked()), (200, 2));
    assert_eq!((status(&server, &by_first).await, issuer.asked()), (200, 2), "it is kept");
    assert_eq!((status(&server, &by_second).await, issuer.asked()), (401, 3));
    issuer.has(&[first, second.clone()]);
    assert_eq!((status(&server, &by_second).await, issuer.asked()), (200, 4));

    for broken in ["", "{}", "{\"keys\":[]}", &" ".repeat(300 << 10)] {
        issuer.answers("200 OK", broken);
        let (_, unknown) = key(&ed, Some("3"));
        assert_eq!(status(&server, &unknown).await, 503);
        assert_eq!(status(&server, &by_first).await, 200);
    }
    // a key that is gone is taken no more, once that is known
    issuer.has(&[second]);
    assert_eq!(status(&server, &key(&ec, Some("4")).1).await, 401);
    assert_eq!((status(&server, &by_first).await, status(&server, &by_second).await), (401, 200));

    // of a key without a name, the signature tells
    let (nameless, token) = key(&ec, None);
    assert_eq!(status(&server, &token).await, 401);
    issuer.has(&[nameless]);
    assert_eq!(status(&server, &token).await, 200);
    let (rsa, signed) =
        (include_str!("../src/jwt/rs256.jwk"), include_str!("../src/jwt/rs256.jwt"));
    issuer.has(&[serde_json::from_str(rsa).unwrap()]);
    assert_eq!(status(&server, signed.trim()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_let_nobody_ask_for_them_again_and_again() {
    let issuer = Issuer::start().await;
    let server = issuer.serve(Duration::from_secs(3600)).await;
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let (public, good) = key(&ed, Some("good"));
    issuer.has(&[public]);
    let tokens: Vec<_> = (0..8).map(|n| key(&ed, Some(&n.to_string())).1).collect();
    let calls = tokens.iter().map(|token| status(&server, token));
    assert_eq!(futures_util::future::join_all(calls).await, [401; 8]);
    assert_eq!(status(&server, &good).await, 200);
    // nor do tokens with the secret of nobody
    let secret = JwtSigner::secret(b"a secret that is long enough for HS256").unwrap();
    let claims = json!({ "sub": "ann" }).as_object().unwrap().clone();
    let token = secret.mint(claims, Duration::from_secs(60)).unwrap();
    assert_eq!((status(&server, &token).await, issuer.asked()), (401, 1));
}

/// A server's side of TLS with a certificate for `localhost`, and that of the authority that has signed it.
fn private_tls() -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_may_vouch_for_the_url() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let (public, token) = key(&ed, Some("1"));
    let (tls, authority) = private_tls();
    let issuer = Issuer::start_by(Some(tls)).await;
    issuer.has(&[public]);
    let url = format!("https://localhost:{}/keys", issuer.address.port());
    let of_url = JwtTokens::new().jwks_url(&url).unwrap();
    let serve_with =
        async |tokens: JwtTokens| serve(ServerConfig::new().authenticator(Arc::new(tokens))).await;
    let trusting = serve_with(of_url.clone().jwks_ca(authority.as_bytes()).unwrap()).await;
    assert_eq!((status(&trusting, &token).await, issuer.asked()), (200, 1));

    let (_, other) = private_tls();
    for tokens in [of_url.clone(), of_url.clone().jwks_ca(other.as_bytes()).unwrap()] {
        let server = serve_with(tokens).await;
        assert_eq!((status(&server, &token).await, issuer.asked()), (503, 1));
    }
    for wrong in ["", "no certificate", &authority[..authority.len() / 2]] {
        let refused = of_url.clone().jwks_ca(wrong.as_bytes());
        assert!(matches!(refused, Err(JwtError::NoCertificate)), "{wrong}");
    }
}
