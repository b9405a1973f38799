//! The names by which an open server may be called.
//!
//! Any page can give its own name this machine's address, and then call a server here as its own.
//! Such a page has no token, but an open server asks for none: it looks at the name.

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri};

/// Returns `true` if a request calls the server by names that are loopback's or allowed. A program
/// that names none is no page.
pub(crate) fn is_known(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> bool {
    let is_known = |authority: &Authority| {
        !authority.as_str().contains('@') && is_known_host(authority.host(), allowed)
    };
    let parse = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
    let all = headers.get_all(HOST);
    uri.authority().is_none_or(is_known)
        && all.into_iter().all(|value| parse(value).as_ref().is_some_and(is_known))
}

fn is_known_host(host: &str, allowed: &[String]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_it = |allowed: &String| {
        allowed == "*" || allowed.trim_end_matches('.').eq_ignore_ascii_case(host)
    };
    is_loopback(host) || allowed.iter().any(is_it)
}

/// Returns `true` for `localhost`, the names below it, and the addresses of loopback.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let top = host.rsplit('.').next().unwrap_or(host);
    top.eq_ignore_ascii_case("localhost")
        || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.to_canonical().is_loopback())
}

/// Says why an entry of the allowed hosts would match no request.
pub(crate) fn check(entry: &str) -> Result<(), String> {
    if entry == "*" {
        return Ok(());
    }
    let behind = entry.split_once("://").map_or(entry, |(_, behind)| behind);
    let authority = behind.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.parse::<Authority>() {
        Ok(host) if host.as_str() == entry && host.host() == entry && !entry.contains('*') => {
            Ok(())
        }
        Ok(host) if !host.host().is_empty() && !host.host().contains('*') => Err(format!(
            "is compared with the name alone, and never matches: write {}",
            host.host()
        )),
        Ok(_) | Err(_) => Err("is no name of a host: write one like app.example".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(hosts: &[&str], allowed: &[&str]) -> bool {
        let headers: HeaderMap = hosts
            .iter()
            .map(|host| (HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap()))
            .collect();
        let allowed: Vec<String> = allowed.iter().copied().map(String::from).collect();
        is_known(&Uri::from_static("/ws"), &headers, &allowed)
    }

    #[test]
    fn only_loopback_and_allowed_names_are_known() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(answers(&[host], &[]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "xlocalhost",
            "10.0.0.1",
            "[::2]",
            "0.0.0.0",
            "evil.example@localhost:x",
            "localhost/",
            "\u{fc}.example",
        ] {
            assert!(!answers(&[host], &["app.example"]), "{host}");
        }
        assert!(answers(&["App.example:81"], &["app.example"]));
        assert!(answers(&["app.example."], &["app.example"]));
        assert!(answers(&["evil.example"], &["*"]));
        assert!(!answers(&["localhost", "evil.example"], &[]), "each of them has to be known");
        assert!(answers(&[], &[]), "a page always names one");
        let uri = Uri::from_static("http://evil.example/ws");
        assert!(!is_known(&uri, &HeaderMap::new(), &[]));
    }

    #[test]
    fn an_entry_that_would_never_match_is_told() {
        for entry in ["*", "app.example", "10.0.0.1", "[::2]"] {
            assert_eq!(check(entry), Ok(()), "{entry}");
        }
        for entry in ["https://app.example/x", "app.example:8080", "app.example/", "a@app.example"]
        {
            assert!(check(entry).unwrap_err().ends_with("write app.example"), "{entry}");
        }
        for entry in ["", "*.example", "a b", "\u{fc}.example"] {
            assert!(check(entry).is_err(), "{entry}");
        }
    }
}
