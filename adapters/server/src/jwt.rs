//! JSON web tokens: users and claims that somebody else vouches for.

mod crypto;
mod jwks;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde_json::{Map, Value};
use synclayer_core::{Document, Limits, Token, UserId};

use self::jwks::Jwks;
use crate::auth::{AuthError, Authenticating, Authenticator, Identified};

/// The difference between clocks that is overlooked, in seconds.
const LEEWAY: u64 = 5;
/// The fewest bytes of a secret: as many as the algorithm has.
const SECRET_BYTES: usize = 32;
/// The shortest time between two readings of keys at a URL.
const JWKS_INTERVAL: Duration = Duration::from_secs(10);

/// The users of JSON web tokens: signed by HS256, RS256, ES256 or EdDSA with one of these keys. `exp`
/// has to be there, and is checked like `nbf`, `iss` and `aud`; clocks may differ by 5 seconds. All
/// claims are those of the user, for [`Rules`](synclayer_core::Rules) and other policies. Clones share
/// what is revoked.
///
/// ```
/// use std::time::Duration;
///
/// use synclayer_server::{Authenticator, JwtSigner, JwtTokens, Token};
///
/// let secret = b"at least 32 bytes that nobody else knows";
/// let tokens = JwtTokens::new().secret(secret)?.audience(["notes"]);
/// let claims = serde_json::json!({ "sub": "ann", "aud": "notes", "rooms": ["42"] });
/// let claims = claims.as_object().expect("an object").clone();
/// let token = JwtSigner::secret(secret)?.mint(claims, Duration::from_secs(3600))?;
///
/// # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
/// let ann = tokens.authenticate(&Token::from(&*token)).await.expect("it is good");
/// assert_eq!(&*ann.user, "ann");
/// assert_eq!(ann.claims.expect("claims").text("rooms"), Some(r#"["42"]"#));
/// # });
/// # Ok::<(), synclayer_server::JwtError>(())
/// ```
#[derive(Clone)]
pub struct JwtTokens {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    issuer: Option<String>,
    audience: Vec<String>,
    user_claim: String,
    revoked: Arc<RwLock<Revoked>>,
}

/// A key that tokens are signed with, or the public half of it.
#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    /// The name by which tokens call it; `None` for any.
    id: Option<String>,
    key: DecodingKey,
}

/// Users and tokens that are let in no more.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoked {
    /// The users, whatever their token.
    pub users: BTreeSet<String>,
    /// The tokens, by their claim `jti`.
    pub tokens: BTreeSet<String>,
}

/// The error of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// The secret is easy to guess.
    #[error("the secret has {0} bytes: it needs {SECRET_BYTES} or more, which nobody can guess")]
    ShortSecret(usize),
    /// The text is no key that can be used.
    #[error(
        "this is no PEM of a key for RS256 (RSA, 2048 bits or more), ES256 (P-256) or EdDSA (Ed25519)"
    )]
    NoKey,
    /// The text has no certificate that can be read.
    #[error("this is no PEM of the certificate of an authority")]
    NoCertificate,
    /// The URL of keys is none that can be trusted.
    #[error("keys are read from an https:// address, or from http:// on this machine")]
    Url,
    /// A token could not be signed.
    #[error("the token can't be signed: the key does not fit")]
    Unsigned,
}

impl Default for JwtTokens {
    fn default() -> Self {
        Self::new()
    }
}

impl JwtTokens {
    /// No tokens, as long as there is no key.
    #[must_use]
    pub fn new() -> Self {
        crypto::install();
        Self {
            keys: Vec::new(),
            jwks: None,
            issuer: None,
            audience: Vec::new(),
            user_claim: "sub".into(),
            revoked: Arc::default(),
        }
    }

    /// Takes tokens that are signed with this secret, its bytes as they stand, by HS256.
    ///
    /// # Errors
    /// When it has fewer than 32 bytes.
    pub fn secret(mut self, secret: &[u8]) -> Result<Self, JwtError> {
        let key = DecodingKey::from_secret(checked(secret)?);
        self.keys.push(Key { algorithm: Algorithm::HS256, id: None, key });
        Ok(self)
    }

    /// Takes tokens that are signed with the other half of this public key (PEM), by RS256, ES256 or
    /// EdDSA.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn public_key(mut self, pem: &[u8]) -> Result<Self, JwtError> {
        let keys = [
            (Algorithm::RS256, DecodingKey::from_rsa_pem(pem)),
            (Algorithm::ES256, DecodingKey::from_ec_pem(pem)),
            (Algorithm::EdDSA, DecodingKey::from_ed_pem(pem)),
        ];
        let (algorithm, key) = first_key(keys)?;
        self.keys.push(Key { algorithm, id: None, key });
        Ok(self)
    }

    /// Takes tokens that are signed with the other halves of the public keys at this URL (a JSON Web Key Set),
    /// by RS256, ES256 or EdDSA. They are read when a token comes that is signed with none of those that
    /// are known, but not more often than every 10 s ([`jwks_interval`](Self::jwks_interval)), and when they
    /// are 10 minutes old; those of up to 100 in up to 256 KiB are taken. While the URL can't be read, the
    /// keys stay that there were, and whose token has another one is told to come again later.
    ///
    /// # Errors
    /// When it is not `https`, or `http` on this machine.
    pub fn jwks_url(mut self, url: &str) -> Result<Self, JwtError> {
        let interval = self.jwks.as_ref().map_or(JWKS_INTERVAL, |jwks| jwks.interval);
        self.jwks = Some(Jwks::new(url, interval)?);
        Ok(self)
    }

    /// Lets these authorities (certificates, PEM) vouch for the server of the URL, which is to be named first,
    /// and no others. Default: the public ones of Mozilla's list.
    ///
    /// # Errors
    /// When there is no certificate in it, or it is damaged.
    pub fn jwks_ca(mut self, pem: &[u8]) -> Result<Self, JwtError> {
        self.jwks = self.jwks.map(|jwks| jwks.trust(pem)).transpose()?;
        Ok(self)
    }

    /// Sets the shortest time between two readings of the keys at the URL, which is to be named first.
    /// Tokens with the names of keys that nobody has cause no more of them. Default 10 s.
    #[must_use]
    pub fn jwks_interval(mut self, interval: Duration) -> Self {
        if let Some(jwks) = &mut self.jwks {
            jwks.interval = interval;
        }
        self
    }

    /// Takes only tokens whose `iss` is this.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Takes only tokens whose `aud` is or holds one of these.
    #[must_use]
    pub fn audience(mut self, audience: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.audience = audience.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the claim that names the user. Default `sub`.
    #[must_use]
    pub fn user_claim(mut self, claim: impl Into<String>) -> Self {
        self.user_claim = claim.into();
        self
    }

    /// Puts other users and tokens in the place of those that were revoked. Connections stay until
    /// [`Embedded::recheck_tokens`](crate::Embedded::recheck_tokens).
    pub fn revoke(&self, revoked: Revoked) {
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked;
    }

    /// The claims of a token that is signed with one of the keys.
    async fn claims(&self, token: &str) -> Result<Map<String, Value>, AuthError> {
        let header = decode_header(token).map_err(|_| AuthError::Wrong)?;
        let claims = self.claims_by(&self.keys, token, &header);
        let Some(jwks) = self.jwks.as_ref().filter(|_| claims == Err(AuthError::Wrong)) else {
            return claims;
        };
        let keys = jwks.keys();
        let claims = self.claims_by(&keys.keys, token, &header);
        let is_known = header.kid.is_some() && keys.keys.iter().any(|key| key.is_named_by(&header));
        if claims != Err(AuthError::Wrong) || is_known || !is_public(header.alg) {
            return claims;
        }
        let newer = jwks.newer(&keys).await?;
        self.claims_by(&newer.keys, token, &header)
    }

    fn claims_by(
        &self,
        keys: &[Key],
        token: &str,
        header: &Header,
    ) -> Result<Map<String, Value>, AuthError> {
        let mut refused = AuthError::Wrong;
        for Key { algorithm, key, .. } in keys.iter().filter(|key| key.may_fit(header)) {
            match decode::<Map<String, Value>>(token, key, &self.validation(*algorithm)) {
                Ok(data) => return Ok(data.claims),
                Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                    refused = AuthError::Expired;
                }
                Err(_) => {}
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp"];
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.validate_aud = !self.audience.is_empty();
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// The user whom the claims of a good token name.
    fn identify(&self, claims: Map<String, Value>) -> Result<Identified, AuthError> {
        let user = claims.get(&self.user_claim).and_then(Value::as_str);
        let user = user.and_then(|user| UserId::new(user).ok()).ok_or(AuthError::Wrong)?;
        if self.is_revoked(&user) || self.is_token_revoked(&claims) {
            return Err(AuthError::Expired);
        }
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or(AuthError::Wrong)?;
        // one that never ends is as good as one that ends in a century
        let seconds = (expires + LEEWAY as f64 - now()).min(3e9);
        // to the instant, as on a connection that it has let in
        if seconds <= 0.0 {
            return Err(AuthError::Expired);
        }
        let claims = Document::of(&claims, &Limits::default()).map_err(|_| AuthError::Wrong)?;
        let known = Identified::as_user(user).claims(claims);
        Ok(known.valid_for(Duration::from_secs_f64(seconds)))
    }

    /// Returns `true` if this user is [revoked](Self::revoke), whatever the token.
    #[must_use]
    pub fn is_revoked(&self, user: &UserId) -> bool {
        self.revoked().users.contains(user.as_str())
    }

    fn is_token_revoked(&self, claims: &Map<String, Value>) -> bool {
        let token = claims.get("jti").and_then(Value::as_str);
        token.is_some_and(|token| self.revoked().tokens.contains(token))
    }

    fn revoked(&self) -> RwLockReadGuard<'_, Revoked> {
        // it is whole at any time
        self.revoked.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn may_fit(&self, header: &Header) -> bool {
        let is_named = self.id.is_none() || header.kid.is_none() || self.is_named_by(header);
        self.algorithm == header.alg && is_named
    }

    fn is_named_by(&self, header: &Header) -> bool {
        self.id.is_some() && self.id == header.kid
    }
}

impl Authenticator for JwtTokens {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        Box::pin(async move { self.identify(self.claims(token.reveal()).await?) })
    }
}

/// Shows the algorithms, and not the keys.
impl fmt::Debug for JwtTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.keys.iter().map(|key| key.algorithm).collect();
        match &self.jwks {
            Some(jwks) => write!(f, "JwtTokens({algorithms:?}, {jwks:?})"),
            None => write!(f, "JwtTokens({algorithms:?})"),
        }
    }
}

/// A key that signs tokens: for tests and development, where there is no one else to do it.
pub struct JwtSigner {
    algorithm: Algorithm,
    key: EncodingKey,
    key_id: Option<String>,
}

impl JwtSigner {
    /// Signs by HS256 with this secret, its bytes as they stand.
    ///
    /// # Errors
    /// When it has fewer than 32 bytes.
    pub fn secret(secret: &[u8]) -> Result<Self, JwtError> {
        crypto::install();
        let key = EncodingKey::from_secret(checked(secret)?);
        Ok(Self { algorithm: Algorithm::HS256, key, key_id: None })
    }

    /// Signs with this private key (PEM) by RS256, ES256 or EdDSA.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn private_key(pem: &[u8]) -> Result<Self, JwtError> {
        crypto::install();
        let keys = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem(pem)),
            (Algorithm::ES256, EncodingKey::from_ec_pem(pem)),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem)),
        ];
        let (algorithm, key) = first_key(keys)?;
        Ok(Self { algorithm, key, key_id: None })
    }

    /// Names the key in the tokens (`kid`), as where several are at a URL.
    #[must_use]
    pub fn key_id(mut self, id: impl Into<String>) -> Self {
        self.key_id = Some(id.into());
        self
    }

    /// Signs a token with these claims, which is valid from now on for so long.
    ///
    /// # Errors
    /// When the key does not fit.
    pub fn mint(
        &self,
        mut claims: Map<String, Value>,
        valid_for: Duration,
    ) -> Result<String, JwtError> {
        let now = now() as u64;
        claims.entry("iat").or_insert_with(|| now.into());
        claims.insert("exp".into(), now.saturating_add(valid_for.as_secs()).into());
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.key_id);
        encode(&header, &claims, &self.key).map_err(|_| JwtError::Unsigned)
    }
}

impl fmt::Debug for JwtSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtSigner({:?})", self.algorithm)
    }
}

/// Returns `true` for the algorithms of keys that may lie at a URL.
fn is_public(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA)
}

/// The key as which a PEM could be read, with its algorithm.
fn first_key<K, E>(keys: [(Algorithm, Result<K, E>); 3]) -> Result<(Algorithm, K), JwtError> {
    let mut keys = keys.into_iter().filter_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
    keys.next().ok_or(JwtError::NoKey)
}

fn checked(secret: &[u8]) -> Result<&[u8], JwtError> {
    if secret.len() < SECRET_BYTES { Err(JwtError::ShortSecret(secret.len())) } else { Ok(secret) }
}

/// The seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
