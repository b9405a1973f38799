//! The keys at a URL (JWKS), as they were when they were last read.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::http::Uri;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{self, JoinHandle};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::{JwtError, Key};
use crate::auth::AuthError;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES: u64 = 256 << 10;
/// The most keys of an answer that are looked at.
const KEYS: usize = 100;
/// The time after which keys are read again beside everything else, so that none outlives its end for long.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);
/// The time within which an answer has to be there.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The keys at a URL. Clones share them.
#[derive(Clone)]
pub(super) struct Jwks {
    shared: Arc<Shared>,
    /// The shortest time between two readings.
    pub(super) interval: Duration,
}

struct Shared {
    url: String,
    agent: Agent,
    keys: RwLock<Arc<Keys>>,
    /// Held while the URL is read.
    reading: Arc<Mutex<Reading>>,
}

/// The keys of one answer.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) keys: Vec<Key>,
    /// The number of the answer; 0 before the first.
    number: u64,
    read: Option<Instant>,
}

#[derive(Default)]
struct Reading {
    last: Option<Instant>,
    /// The last one failed, or is under way.
    failed: bool,
}

impl Jwks {
    /// # Errors
    /// When the address is not `https`, or `http` on this machine.
    pub(super) fn new(url: &str, interval: Duration) -> Result<Self, JwtError> {
        Ok(Self::with_roots(url, interval, is_checked(url)?, RootCerts::WebPki))
    }

    /// The same URL, which these authorities (PEM) vouch for, and no others. The keys are read anew.
    ///
    /// # Errors
    /// When there is no certificate.
    pub(super) fn trust(&self, pem: &[u8]) -> Result<Self, JwtError> {
        let url = &self.shared.url;
        Ok(Self::with_roots(url, self.interval, is_checked(url)?, certificates(pem)?.into()))
    }

    fn with_roots(url: &str, interval: Duration, is_local: bool, roots: RootCerts) -> Self {
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .https_only(!is_local)
            .max_redirects(if is_local { 0 } else { 3 })
            .max_redirects_will_error(true)
            .timeout_global(Some(TIMEOUT))
            .accept("application/json")
            .user_agent("synclayer")
            .build();
        let shared = Shared {
            url: url.into(),
            agent: config.into(),
            keys: RwLock::default(),
            reading: Arc::default(),
        };
        Self { shared: Arc::new(shared), interval }
    }

    /// The keys that there are. Old ones are read again meanwhile.
    pub(super) fn keys(&self) -> Arc<Keys> {
        let keys = self.shared.keys();
        if keys.read.is_some_and(|at| at.elapsed() > MAX_AGE)
            && let Ok(reading) = Arc::clone(&self.shared.reading).try_lock_owned()
            && self.may_read(&reading)
        {
            self.read(reading);
        }
        keys
    }

    /// Newer keys than those that lack one, where there are any. Many tokens without a key lead to one
    /// reading, and to no more than one in the interval.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] when the URL could not be read.
    pub(super) async fn newer(&self, than: &Keys) -> Result<Arc<Keys>, AuthError> {
        let reading = Arc::clone(&self.shared.reading).lock_owned().await;
        let keys = self.shared.keys();
        if keys.number != than.number {
            return Ok(keys);
        }
        if self.may_read(&reading) {
            // whoever waits may go, and the answer is there for the next
            return self.read(reading).await.unwrap_or(Err(AuthError::Unavailable));
        }
        if reading.failed { Err(AuthError::Unavailable) } else { Ok(keys) }
    }

    fn may_read(&self, reading: &Reading) -> bool {
        reading.last.is_none_or(|last| last.elapsed() >= self.interval)
    }

    fn read(
        &self,
        mut reading: OwnedMutexGuard<Reading>,
    ) -> JoinHandle<Result<Arc<Keys>, AuthError>> {
        let shared = Arc::clone(&self.shared);
        task::spawn_blocking(move || {
            *reading = Reading { last: Some(Instant::now()), failed: true };
            let read = shared.read();
            reading.failed = read.is_err();
            match read {
                Ok(keys) => Ok(shared.replace(keys)),
                Err(why) => {
                    tracing::error!(url = shared.url, why, "the keys of tokens could not be read");
                    Err(AuthError::Unavailable)
                }
            }
        })
    }
}

impl Shared {
    fn keys(&self) -> Arc<Keys> {
        // they are whole at any time
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keys: Vec<Key>) -> Arc<Keys> {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let (number, read) = (current.number + 1, Some(Instant::now()));
        *current = Arc::new(Keys { keys, number, read });
        tracing::info!(url = self.url, keys = current.keys.len(), "took over the keys of tokens");
        Arc::clone(&current)
    }

    fn read(&self) -> Result<Vec<Key>, String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec();
        keys_of(&body.map_err(|error| error.to_string())?)
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} keys)", self.shared.url, self.shared.keys().keys.len())
    }
}

/// The certificates of a PEM, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, JwtError> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| JwtError::NoCertificate)? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(JwtError::NoCertificate) } else { Ok(found) }
}

/// Returns `true` for an address on this machine. Keys that come over a network must come by `https`, or
/// whoever is on the way could let anyone in.
fn is_checked(url: &str) -> Result<bool, JwtError> {
    let uri: Uri = url.parse().map_err(|_| JwtError::Url)?;
    let host = uri.host().ok_or(JwtError::Url)?;
    match uri.scheme_str() {
        Some("https") => Ok(false),
        Some("http") if is_loopback(host) => Ok(true),
        Some(_) | None => Err(JwtError::Url),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The keys of an answer that can be used.
///
/// # Errors
/// When it is no key set, or none of its keys can be used: then those before stay.
fn keys_of(body: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set =
        serde_json::from_slice(body).map_err(|error| format!("it is no set of keys: {error}"))?;
    let keys = set.keys.into_iter().take(KEYS);
    let keys: Vec<_> = keys.filter_map(|key| key_of(&serde_json::from_value(key).ok()?)).collect();
    if keys.is_empty() {
        return Err("it has no key for RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// A public key; `None` for one of another algorithm or another use.
fn key_of(jwk: &Jwk) -> Option<Key> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "secrets and other curves are no such keys")]
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let is_for_this =
        common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    if !is_for_signatures || !is_for_this {
        return None;
    }
    Some(Key { algorithm, id: common.key_id.clone(), key: DecodingKey::from_jwk(jwk).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_this_machine_or_by_https() {
        for (url, expected) in [
            ("https://idp.example/keys", Some(false)),
            ("http://127.0.0.1:8080/keys", Some(true)),
            ("http://[::1]/keys", Some(true)),
            ("http://localhost/keys", Some(true)),
            ("http://idp.example/keys", None),
            ("http://localhost.example/keys", None),
            ("ftp://localhost/keys", None),
            ("keys", None),
        ] {
            assert_eq!(is_checked(url).ok(), expected, "{url}");
        }
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let ed = |more: &str| {
            format!(
                r#"{{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"{more}}}"#
            )
        };
        let set = |keys: &[String]| {
            let keys = keys_of(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes());
            keys.map(|keys| keys.into_iter().map(|key| (key.algorithm, key.id)).collect::<Vec<_>>())
        };
        let secret = r#"{"kty":"oct","k":"AAAA","kid":"s"}"#.to_owned();
        let mixed = [
            secret.clone(),
            ed(r#","use":"enc","kid":"e""#),
            ed(r#","alg":"HS256","kid":"h""#),
            "7".into(),
            ed(r#","use":"sig","alg":"EdDSA","kid":"good""#),
            ed(""),
        ];
        let expected = vec![(Algorithm::EdDSA, Some("good".into())), (Algorithm::EdDSA, None)];
        assert_eq!(set(&mixed), Ok(expected));
        assert!(set(&[secret]).is_err() && set(&[]).is_err() && keys_of(b"[]").is_err());
        let many: Vec<_> = (0..2 * KEYS).map(|n| ed(&format!(r#","kid":"{n}""#))).collect();
        assert_eq!(set(&many).unwrap().len(), KEYS);
    }
}
