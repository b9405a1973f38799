//! The parts of a request that every route looks at: its origin, its token, and the reply.

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use synclayer_core::Reply;
use synclayer_core::{ErrorCode, Token};

use crate::auth::AuthError;
use crate::origin::Origin;
use crate::shared::{Caller, Shared};

/// Judges the origin of a request.
pub(crate) fn origin(shared: &Shared, headers: &HeaderMap) -> Origin {
    let open = shared.config.authenticator.is_none();
    Origin::of(headers, &shared.config.allow_origins, open)
}

/// The reply to a page of a foreign origin.
pub(crate) fn refuse_origin() -> Response<Body> {
    let message = "pages of this origin may not connect: the server has to be told to allow it";
    respond(Reply::error(ErrorCode::Unauthorized, message))
}

/// Identifies the caller by the token of a request.
pub(crate) fn identify(shared: &Shared, parts: &Parts) -> Result<Caller, Reply> {
    let token = bearer(&parts.headers).or_else(|| token_in(parts.uri.query()?));
    shared.identify(token.as_ref()).map_err(|error| {
        let code = match error {
            AuthError::Wrong => ErrorCode::AuthFailed,
            AuthError::Expired => ErrorCode::AuthExpired,
        };
        Reply::error(code, &error.to_string())
    })
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(token.trim()))
}

fn token_in(query: &str) -> Option<Token> {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    Some(Token::new(&percent_decoded(token)))
}

/// The text that `%XX` stand for. A `+` stays: tokens have it more often than spaces.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| byte == b'%');
        let decoded = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A reply of the core as a response.
pub(crate) fn respond(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_they_may_be() {
        let found = |query| token_in(query).map(|token| token.reveal().to_owned());
        assert_eq!(found("token=a%2Bb+c%20d"), Some("a+b+c d".into()));
        assert_eq!(found("x=1&token=100%&token=2"), Some("100%".into()));
        assert_eq!(found("tokens=1"), None);
        let headers =
            |value| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        let found = |value| bearer(&headers(value)).map(|token| token.reveal().to_owned());
        assert_eq!(found("bearer abc"), Some("abc".into()));
        assert_eq!(found("Basic abc"), None);
        assert_eq!(found("Bearer"), None);
    }
}
