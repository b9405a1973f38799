use super::*;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::json;

const SECRET: &[u8] = b"a secret of more than 32 bytes, \x00\xff";

fn claims(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn ask(tokens: &JwtTokens, token: &str) -> Result<Identified, AuthError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(tokens.authenticate(&Token::from(token)))
}

fn user(tokens: &JwtTokens, token: &str) -> Result<String, AuthError> {
    ask(tokens, token).map(|known| known.user.to_string())
}

/// A token with these claims and no others.
fn exactly(value: Value) -> String {
    encode(&Header::new(Algorithm::HS256), &value, &EncodingKey::from_secret(SECRET)).unwrap()
}

#[test]
fn a_token_is_taken_with_the_key_of_its_algorithm_only() {
    let (ec, other) = (
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
    );
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let keys = [
        (JwtSigner::secret(SECRET).unwrap(), JwtTokens::new().secret(SECRET).unwrap()),
        (
            JwtSigner::private_key(ec.serialize_pem().as_bytes()).unwrap(),
            JwtTokens::new().public_key(ec.public_key_pem().as_bytes()).unwrap(),
        ),
        (
            JwtSigner::private_key(ed.serialize_pem().as_bytes()).unwrap(),
            JwtTokens::new().public_key(ed.public_key_pem().as_bytes()).unwrap(),
        ),
        (
            JwtSigner::private_key(other.serialize_pem().as_bytes()).unwrap(),
            JwtTokens::new().public_key(other.public_key_pem().as_bytes()).unwrap(),
        ),
    ];
    for (i, (signer, _)) in keys.iter().enumerate() {
        let token = signer.mint(claims(json!({ "sub": "ann" })), hour()).unwrap();
        for (k, (_, tokens)) in keys.iter().enumerate() {
            let taken = user(tokens, &token);
            assert_eq!(taken.is_ok(), i == k, "{signer:?} with {tokens:?}: {taken:?}");
        }
        // whatever is changed in it
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (head, body) = signed.split_once('.').unwrap();
        for wrong in [
            format!("{head}.{body}."),
            format!("{head}.{body}"),
            format!("{head}.{body}A.{signature}"),
            format!("{head}A.{body}.{signature}"),
        ] {
            assert_eq!(user(&keys[i].1, &wrong), Err(AuthError::Wrong), "{wrong}");
        }
    }
    // `none`, and a public key taken for a secret
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
    let by_public = JwtSigner::secret(ec.public_key_pem().as_bytes()).unwrap();
    let by_public = by_public.mint(claims(json!({ "sub": "ann" })), hour()).unwrap();
    for wrong in [none, &by_public, "", "..", "a.b.c"] {
        assert_eq!(user(&keys[1].1, wrong), Err(AuthError::Wrong), "{wrong}");
    }
}

#[test]
fn rsa_keys_are_taken_too() {
    // signed by openssl, until the year 2100; the private key is gone
    let token = include_str!("rs256.jwt").trim();
    let tokens = JwtTokens::new().public_key(include_bytes!("rs256.pub.pem")).unwrap();
    assert_eq!(user(&tokens, token), Ok("ann".into()));
    let (signed, _) = token.rsplit_once('.').unwrap();
    assert_eq!(user(&tokens, &format!("{signed}.AAAA")), Err(AuthError::Wrong));
}

#[test]
fn the_claims_are_checked_and_kept() {
    let tokens = JwtTokens::new().secret(SECRET).unwrap();
    let strict = tokens.clone().issuer("us").audience(["notes", "chat"]).user_claim("name");
    let now = now() as u64;
    let good =
        json!({ "name": "ann", "iss": "us", "aud": ["chat", "x"], "exp": now + 60, "n": [1] });
    let known = ask(&strict, &exactly(good.clone())).unwrap();
    let left = known.valid_for.unwrap();
    assert!(left > Duration::from_secs(55) && left <= Duration::from_secs(65), "{left:?}");
    assert_eq!(known.claims.unwrap().text("n"), Some("[1]"));
    let with = |name: &str, value: Value| {
        let mut claims = claims(good.clone());
        if value.is_null() {
            claims.remove(name)
        } else {
            claims.insert(name.into(), value)
        };
        user(&strict, &exactly(claims.into()))
    };
    for (name, value) in [
        ("iss", json!("them")),
        ("iss", json!(null)),
        ("aud", json!("x")),
        ("aud", json!(null)),
        ("exp", json!(null)),
        ("exp", json!("9999999999")),
        ("nbf", json!(now + 60)),
        ("name", json!(null)),
        ("name", json!(7)),
        ("name", json!("")),
    ] {
        assert_eq!(with(name, value.clone()), Err(AuthError::Wrong), "{name}: {value}");
    }
    assert_eq!(with("exp", json!(now - 60)), Err(AuthError::Expired));
    assert_eq!(with("nbf", json!(now - 60)), Ok("ann".into()));
    assert_eq!(with("exp", json!(99_999_999_999_u64)), Ok("ann".into()), "for ever");
}

#[test]
fn who_is_revoked_has_expired() {
    let tokens = JwtTokens::new().secret(SECRET).unwrap();
    let signer = JwtSigner::secret(SECRET).unwrap();
    let token = |user: &str, id: &str| {
        signer.mint(claims(json!({ "sub": user, "jti": id })), hour()).unwrap()
    };
    let mut revoked = Revoked::default();
    revoked.users.insert("bob".into());
    revoked.tokens.insert("t1".into());
    tokens.revoke(revoked);
    assert_eq!(user(&tokens, &token("ann", "t1")), Err(AuthError::Expired));
    assert_eq!(user(&tokens, &token("bob", "t2")), Err(AuthError::Expired));
    assert_eq!(user(&tokens, &token("ann", "t2")), Ok("ann".into()));
    tokens.revoke(Revoked::default());
    assert_eq!(user(&tokens, &token("bob", "t1")), Ok("bob".into()));
}

#[test]
fn a_key_that_is_none_is_refused() {
    assert!(matches!(JwtTokens::new().secret(b"short"), Err(JwtError::ShortSecret(5))));
    for pem in [&b""[..], b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert!(matches!(JwtTokens::new().public_key(pem), Err(JwtError::NoKey)));
        assert!(matches!(JwtSigner::private_key(pem), Err(JwtError::NoKey)));
    }
    assert_eq!(format!("{:?}", JwtTokens::new().secret(SECRET).unwrap()), "JwtTokens([HS256])");
}
