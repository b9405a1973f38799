//! Where the server is, and whether a token may go there.

use std::net::IpAddr;

use tokio_tungstenite::tungstenite::http::Uri;

use crate::error::OpenError;

/// The server's WebSocket endpoint.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) uri: Uri,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Address {
    /// The endpoint that `websocket_url` names, or else `/ws` below `base_url`.
    pub(crate) fn new(base_url: &str, websocket_url: Option<&str>) -> Result<Self, OpenError> {
        match websocket_url {
            Some(url) => Self::parse(url),
            None => Self::parse(&format!("{}/ws", base_url.trim_end_matches('/'))),
        }
    }

    /// Whether nobody else can read what goes there: it is encrypted, or does not leave the machine.
    pub(crate) fn is_private(&self) -> bool {
        self.tls || is_loopback(&self.host)
    }

    fn parse(url: &str) -> Result<Self, OpenError> {
        let refuse = |reason: &str| OpenError::Address { reason: reason.into() };
        let uri: Uri = url.parse().map_err(|_| refuse("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            Some(_) | None => {
                return Err(refuse("it must begin with https://, http://, wss:// or ws://"));
            }
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it holds a user name; use `auth_token`"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let uri = with_scheme(&uri, if tls { "wss" } else { "ws" })
            .ok_or_else(|| refuse("it is no URL"))?;
        Ok(Self { uri, host, port, tls })
    }
}

fn with_scheme(uri: &Uri, scheme: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(base_url: &str, websocket_url: Option<&str>) -> Address {
        Address::new(base_url, websocket_url).unwrap()
    }

    #[test]
    fn the_endpoint_lies_below_the_base_unless_named() {
        for (base, websocket, uri, host, port) in [
            ("https://a.example", None, "wss://a.example/ws", "a.example", 443),
            ("http://[::1]:8080/api/", None, "ws://[::1]:8080/api/ws", "::1", 8080),
            ("", Some("ws://b.example/live?x=1"), "ws://b.example/live?x=1", "b.example", 80),
        ] {
            let address = address(base, websocket);
            assert_eq!((address.uri.to_string().as_str(), address.port), (uri, port));
            assert_eq!(address.host, host);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "example.com",
            "ftp://example.com",
            "http://",
            "http://u:p@example.com",
            "http://a b",
        ] {
            assert!(Address::new(url, None).is_err(), "{url}");
        }
    }

    #[test]
    fn private_is_what_is_encrypted_or_stays_here() {
        for url in ["wss://a.example", "http://localhost:1", "ws://127.0.0.9", "ws://[::1]:1"] {
            assert!(address(url, None).is_private(), "{url}");
        }
        for url in ["http://a.example", "ws://10.0.0.1", "ws://localhost.example", "ws://[::2]"] {
            assert!(!address(url, None).is_private(), "{url}");
        }
    }
}
