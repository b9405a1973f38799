//! JSON web tokens: their keys for `serve`, and `synclayer token mint`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};
use synclayer_core::UserId;
use synclayer_server::{
    AuthError, Authenticating, Authenticator, JwtSigner, JwtTokens, Revoked, StaticTokens, Token,
};

use crate::failure::{Code, Failure, unreadable};
use crate::limits::time;
use crate::output::Printer;
use crate::tokens::check_again;

/// The JSON web tokens that a server takes.
#[derive(Args, Clone, Debug, Default)]
#[command(
    next_help_heading = "JSON web tokens (exp has to be there; the claims are for the rules)"
)]
pub(crate) struct JwtArgs {
    /// Let users in whose tokens are signed by HS256 with the bytes of this file, as they stand
    #[arg(long, value_name = "FILE")]
    jwt_secret: Option<PathBuf>,
    /// Let users in whose tokens are signed by RS256, ES256 or EdDSA with the other half of this public
    /// key (PEM); several may be given
    #[arg(long, value_name = "FILE")]
    jwt_public_key: Vec<PathBuf>,
    /// Let users in whose tokens are signed by RS256, ES256 or EdDSA with the other half of a public key at this
    /// address (JWKS): https, or http on this machine. It is read again when a token has another key
    #[arg(long, value_name = "URL")]
    jwt_jwks_url: Option<String>,
    /// Trust these authorities alone for that address (certificates, PEM)
    #[arg(long, value_name = "FILE")]
    jwt_jwks_ca: Option<PathBuf>,
    /// Take only tokens of this issuer (iss)
    #[arg(long, value_name = "NAME")]
    jwt_issuer: Option<String>,
    /// Take only tokens for this audience (aud); several may be given
    #[arg(long, value_name = "NAME")]
    jwt_audience: Vec<String>,
    /// The claim that names the user
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    jwt_user_claim: String,
    /// Let these in no more: lines `user NAME` or `jti ID`; SIGHUP reads the file again
    #[arg(long, value_name = "FILE")]
    jwt_revoked: Option<PathBuf>,
}

impl JwtArgs {
    /// Reads the keys; `None` if there are none.
    pub(crate) fn read(&self) -> Result<Option<JwtTokens>, String> {
        let mut tokens = JwtTokens::new();
        if let Some(file) = &self.jwt_secret {
            tokens = tokens.secret(&read(file)?).map_err(|error| of(file, &error))?;
        }
        for file in &self.jwt_public_key {
            tokens = tokens.public_key(&read(file)?).map_err(|error| of(file, &error))?;
        }
        if let Some(url) = &self.jwt_jwks_url {
            let refused = |error| format!("--jwt-jwks-url {url} can't be used: {error}");
            tokens = tokens.jwks_url(url).map_err(refused)?;
        }
        if let Some(file) = &self.jwt_jwks_ca {
            if self.jwt_jwks_url.is_none() {
                return Err("--jwt-jwks-ca is for the address that --jwt-jwks-url names".into());
            }
            tokens = tokens.jwks_ca(&read(file)?).map_err(|error| of(file, &error))?;
        }
        if let Some(issuer) = &self.jwt_issuer {
            tokens = tokens.issuer(issuer);
        }
        tokens = tokens.audience(&self.jwt_audience).user_claim(&self.jwt_user_claim);
        tokens.revoke(self.read_revoked()?);
        let has_keys = self.jwt_secret.is_some()
            || self.jwt_jwks_url.is_some()
            || !self.jwt_public_key.is_empty();
        let is_asked = self.jwt_issuer.is_some()
            || !self.jwt_audience.is_empty()
            || self.jwt_revoked.is_some();
        if is_asked && !has_keys {
            return Err("there is no key for JSON web tokens: give --jwt-secret, \
                        --jwt-public-key or --jwt-jwks-url, or leave the other options out"
                .into());
        }
        Ok(has_keys.then_some(tokens))
    }

    pub(crate) fn revoked_file(&self) -> Option<&Path> {
        self.jwt_revoked.as_deref()
    }

    /// Reads the list of what is revoked anew.
    pub(crate) fn read_revoked_again(&self) -> Result<Revoked, String> {
        self.jwt_revoked.as_deref().map_or(Ok(()), check_again)?;
        self.read_revoked()
    }

    /// Reads the list of what is revoked.
    pub(crate) fn read_revoked(&self) -> Result<Revoked, String> {
        let Some(file) = &self.jwt_revoked else { return Ok(Revoked::default()) };
        let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
        revoked(&text).map_err(|why| of(file, &why))
    }
}

fn revoked(text: &str) -> Result<Revoked, String> {
    let (mut users, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for (line, number) in text.lines().map(str::trim).zip(1_u32..) {
        match line.split_once(' ') {
            Some(("user", name)) => users.insert(name.trim().to_owned()),
            Some(("jti", id)) => tokens.insert(id.trim().to_owned()),
            _ if line.is_empty() || line.starts_with('#') => continue,
            Some(_) | None => {
                return Err(format!("line {number}: it must be `user NAME` or `jti ID`"));
            }
        };
    }
    let mut revoked = Revoked::default();
    (revoked.users, revoked.tokens) = (users, tokens);
    Ok(revoked)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| unreadable(file, &error))
}

fn of(file: &Path, error: &dyn Display) -> String {
    format!("{} can't be used: {error}", file.display())
}

/// The users of a table of tokens, and those of JSON web tokens.
pub(crate) struct Users {
    pub(crate) table: StaticTokens,
    pub(crate) jwt: Option<JwtTokens>,
}

impl Authenticator for Users {
    fn authenticate<'a>(&'a self, token: &'a Token) -> Authenticating<'a> {
        let Some(jwt) = &self.jwt else { return self.table.authenticate(token) };
        Box::pin(async move {
            match self.table.authenticate(token).await {
                Err(AuthError::Wrong) => jwt.authenticate(token).await,
                Ok(known) if jwt.is_revoked(&known.user) => Err(AuthError::Expired),
                answer => answer,
            }
        })
    }
}

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    action: TokenAction,
}

#[derive(Subcommand, Debug)]
enum TokenAction {
    /// Sign a JSON web token, for development and tests
    Mint(MintArgs),
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("signer").required(true))]
struct MintArgs {
    /// The user (sub)
    #[arg(value_name = "USER", value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// Sign by HS256 with the bytes of this file, as they stand: 32 or more
    #[arg(long, value_name = "FILE", group = "signer")]
    secret: Option<PathBuf>,
    /// Sign by RS256, ES256 or EdDSA with this private key (PEM)
    #[arg(long, value_name = "FILE", group = "signer")]
    private_key: Option<PathBuf>,
    /// More claims, a JSON object
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    claims: Claims,
    /// The time for which it is valid from now on
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    valid_for: Duration,
}

#[derive(Clone, Debug)]
struct Claims(Map<String, Value>);

fn object(text: &str) -> Result<Claims, String> {
    serde_json::from_str(text).map(Claims).map_err(|error| format!("it is no JSON object: {error}"))
}

pub(crate) fn token(args: TokenArgs, out: Printer) -> Result<(), Failure> {
    let TokenAction::Mint(MintArgs { user, secret, private_key, claims, valid_for }) = args.action;
    let usage = |why| Failure::new(Code::Usage, why);
    let signer = match (secret, private_key) {
        (Some(file), _) => read(&file)
            .and_then(|secret| JwtSigner::secret(&secret).map_err(|error| of(&file, &error))),
        (None, Some(file)) => read(&file)
            .and_then(|pem| JwtSigner::private_key(&pem).map_err(|error| of(&file, &error))),
        (None, None) => Err("give --secret or --private-key".into()),
    };
    let mut claims = claims.0;
    claims.insert("sub".into(), user.as_str().into());
    let token = signer.map_err(usage)?.mint(claims, valid_for).map_err(Failure::plain)?;
    out.line(&token, &json!({ "token": token }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_names_a_user_or_a_token() {
        let found = revoked("# gone\nuser ann b\n\n jti t-1\n").unwrap();
        assert!(found.users.contains("ann b") && found.tokens.contains("t-1"), "{found:?}");
        for wrong in ["ann", "users ann", "user"] {
            assert_eq!(
                revoked(&format!("\n{wrong}")).unwrap_err(),
                "line 2: it must be `user NAME` or `jti ID`"
            );
        }
    }
}
