//! Which web pages may talk to the server.

use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;

/// The origin of a request, judged by its header `Origin`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It comes from a program, or from a page of this server's own host.
    Own,
    /// It comes from a page of this origin, which is allowed.
    Allowed(String),
    /// It comes from a page that isn't.
    Foreign,
}

impl Origin {
    /// Judges a request. `open` servers, which ask for no token, trust no host name but
    /// `localhost`: any page can give its own name this machine's address.
    pub(crate) fn of(headers: &HeaderMap, allowed: &[String], open: bool) -> Self {
        let Some(origin) = headers.get(ORIGIN) else { return Self::Own };
        let Ok(origin) = origin.to_str() else { return Self::Foreign };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| is_own(origin, host, open)) {
            return Self::Own;
        }
        let is_it = |allowed: &String| {
            allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(origin)
        };
        if allowed.iter().any(is_it) { Self::Allowed(origin.to_owned()) } else { Self::Foreign }
    }
}

fn is_own(origin: &str, host: &str, open: bool) -> bool {
    let (default_port, origin) = match origin.split_once("://") {
        Some(("http", origin)) => (80, origin),
        Some(("https", origin)) => (443, origin),
        Some(_) | None => return false,
    };
    let (Ok(origin), Ok(host)) = (origin.parse::<Authority>(), host.parse::<Authority>()) else {
        return false;
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    origin.host().eq_ignore_ascii_case(host.host())
        && port(&origin) == port(&host)
        && (!open || is_unforgeable(host.host()))
}

/// Returns `true` unless a host is a name that a stranger could have given this machine.
fn is_unforgeable(host: &str) -> bool {
    let is_name = |byte: u8| !(byte.is_ascii_digit() || byte == b'.');
    host.eq_ignore_ascii_case("localhost") || host.starts_with('[') || !host.bytes().any(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn judge(origin: &str, host: &str, allowed: &[&str], open: bool) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        let allowed: Vec<String> = allowed.iter().copied().map(String::from).collect();
        Origin::of(&headers, &allowed, open)
    }

    #[test]
    fn only_own_and_allowed_pages_may_connect() {
        assert_eq!(Origin::of(&HeaderMap::new(), &[], true), Origin::Own);
        for (origin, host) in [
            ("https://a.example", "a.example"),
            ("https://a.example", "A.example:443"),
            ("http://a.example:8080", "a.example:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(judge(origin, host, &[], false), Origin::Own, "{origin} at {host}");
        }
        for (origin, host) in [
            ("https://b.example", "a.example"),
            ("http://a.example:3000", "a.example:8080"),
            ("http://a.example", "a.example:443"),
            ("https://a.example.evil.example", "a.example"),
            ("https://evil.example/a.example", "a.example"),
            ("null", "a.example"),
            ("file://", "a.example"),
            ("", "a.example"),
        ] {
            assert_eq!(judge(origin, host, &[], false), Origin::Foreign, "{origin} at {host}");
        }
        let allowed = ["https://b.example/"];
        let origin = Origin::Allowed("https://b.example".into());
        assert_eq!(judge("https://b.example", "a.example", &allowed, false), origin);
        assert_eq!(judge("http://b.example", "a.example", &allowed, false), Origin::Foreign);
        assert_ne!(judge("null", "a.example", &["*"], false), Origin::Foreign);
    }

    #[test]
    fn an_open_server_trusts_no_foreign_name_for_itself() {
        let judge = |host| judge(&format!("http://{host}"), host, &[], true);
        for host in ["localhost:80", "127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(judge(host), Origin::Own, "{host}");
        }
        assert_eq!(judge("rebound.example:8080"), Origin::Foreign);
    }
}
