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
    /// Judges a request.
    pub(crate) fn of(headers: &HeaderMap, allowed: &[String]) -> Self {
        let Some(origin) = headers.get(ORIGIN) else { return Self::Own };
        let Ok(origin) = origin.to_str() else { return Self::Foreign };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| is_own(origin, host)) {
            return Self::Own;
        }
        let is_it = |allowed: &String| {
            allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(origin)
        };
        if allowed.iter().any(is_it) { Self::Allowed(origin.to_owned()) } else { Self::Foreign }
    }
}

fn is_own(origin: &str, host: &str) -> bool {
    let (default_port, origin) = match origin.split_once("://") {
        Some(("http", origin)) => (80, origin),
        Some(("https", origin)) => (443, origin),
        Some(_) | None => return false,
    };
    let (Ok(origin), Ok(host)) = (origin.parse::<Authority>(), host.parse::<Authority>()) else {
        return false;
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    origin.host().eq_ignore_ascii_case(host.host()) && port(&origin) == port(&host)
}

/// Says why an entry of the allowed origins would match no page's.
pub(crate) fn check(entry: &str) -> Result<(), String> {
    if matches!(entry, "*" | "null") {
        return Ok(());
    }
    let (scheme, behind) = match entry.split_once("://") {
        Some((scheme, behind)) if !scheme.is_empty() => (scheme, behind),
        Some(_) | None => ("https", entry),
    };
    let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
    let (authority, path) = behind.split_at(end);
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    if authority.parse::<Authority>().is_err() || authority.contains('*') {
        return Err("is no origin of a page: write one like https://app.example".to_owned());
    }
    let origin = format!("{scheme}://{authority}");
    if entry.strip_suffix('/').unwrap_or(entry) == origin {
        return Ok(());
    }
    let why = if !entry.contains("://") {
        "has no scheme"
    } else if path.len() > 1 {
        "has a path"
    } else {
        "is not as browsers write it"
    };
    Err(format!("{why}, so no page's origin would match it: write {origin}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn judge(origin: &str, host: &str, allowed: &[&str]) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        let allowed: Vec<String> = allowed.iter().copied().map(String::from).collect();
        Origin::of(&headers, &allowed)
    }

    #[test]
    fn only_own_and_allowed_pages_may_connect() {
        assert_eq!(Origin::of(&HeaderMap::new(), &[]), Origin::Own);
        for (origin, host) in [
            ("https://a.example", "a.example"),
            ("https://a.example", "A.example:443"),
            ("http://a.example:8080", "a.example:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            assert_eq!(judge(origin, host, &[]), Origin::Own, "{origin} at {host}");
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
            assert_eq!(judge(origin, host, &[]), Origin::Foreign, "{origin} at {host}");
        }
        let allowed = ["https://b.example/"];
        let origin = Origin::Allowed("https://b.example".into());
        assert_eq!(judge("https://b.example", "a.example", &allowed), origin);
        assert_eq!(judge("http://b.example", "a.example", &allowed), Origin::Foreign);
        assert_ne!(judge("null", "a.example", &["*"]), Origin::Foreign);
    }

    #[test]
    fn an_entry_that_would_never_match_is_told() {
        for entry in
            ["*", "null", "https://app.example", "https://app.example/", "tauri://localhost"]
        {
            assert_eq!(check(entry), Ok(()), "{entry}");
        }
        for entry in ["app.example", "https://app.example/x", "https://app.example:443"] {
            let why = check(entry).unwrap_err();
            assert!(why.ends_with("write https://app.example"), "{entry}: {why}");
        }
        for entry in ["", "https://", "https://*.example", "a b", "https://\u{fc}.example"] {
            assert!(check(entry).unwrap_err().contains("like https://"), "{entry}");
        }
    }
}
