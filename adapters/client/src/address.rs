//! The addresses of a server, and the check that a token may go there.

use std::net::IpAddr;

use http::Uri;
use rustls::pki_types::ServerName;
use synclayer_core::{ConnectFailure, FailureCause};

use crate::error::OpenError;

/// The addresses of a server: its WebSocket, and the base of HTTP requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The WebSocket endpoint, with the scheme `ws` or `wss`.
    pub websocket: Endpoint,
    /// The base of the paths of HTTP requests, with the scheme `http` or `https`; `None` if only a
    /// WebSocket endpoint was given.
    pub http: Option<Endpoint>,
}

/// The parts of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The whole of it.
    pub uri: Uri,
    /// The host's name or IP address, without brackets.
    pub host: String,
    /// The port, even if it is the scheme's own.
    pub port: u16,
    /// TLS is used.
    pub tls: bool,
}

impl Address {
    /// Takes the WebSocket endpoint from `websocket_url`, or else `/ws` below `base_url`, and the
    /// HTTP calls' from `base_url`, unless that is empty. Each URL may begin with `https`, `http`,
    /// `wss` or `ws`, in place of the scheme that belongs there.
    ///
    /// # Errors
    /// When one of them is no such URL, or holds a user name.
    pub fn new(base_url: &str, websocket_url: Option<&str>) -> Result<Self, OpenError> {
        let base = base_url.split('?').next().unwrap_or_default().trim_end_matches('/');
        let websocket = match websocket_url {
            Some(url) => Endpoint::parse(url, ["ws", "wss"])?,
            None => Endpoint::parse(&format!("{base}/ws"), ["ws", "wss"])?,
        };
        let http = match base {
            "" => None,
            base => Some(Endpoint::parse(base, ["http", "https"])?),
        };
        Ok(Self { websocket, http })
    }

    /// The identity of the server: the URL without its query.
    #[must_use]
    pub fn identity(&self) -> String {
        let Endpoint { uri, host, port, tls } = self.http.as_ref().unwrap_or(&self.websocket);
        let scheme = if *tls { "https" } else { "http" };
        format!("{scheme}://{}:{port}{}", host.to_lowercase(), uri.path().trim_end_matches('/'))
    }
}

impl Endpoint {
    /// Returns `true` if nobody else can read what goes there: it is encrypted, or does not leave the
    /// machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.tls || self.is_loopback()
    }

    /// Returns `true` if it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// The name that the server's certificate has to be for.
    ///
    /// # Errors
    /// When no certificate can be for it.
    pub fn tls_name(&self) -> Result<ServerName<'static>, ConnectFailure> {
        ServerName::try_from(self.host.clone()).map_err(|error| {
            let why = format!("no certificate can be for {}: {error}", self.host);
            ConnectFailure::new(FailureCause::Certificate, why)
        })
    }

    fn parse(url: &str, schemes: [&str; 2]) -> Result<Self, OpenError> {
        let refuse = |reason: &str| OpenError::Address { reason: reason.into() };
        let uri: Uri = url
            .parse()
            .map_err(|_| refuse("it is no URL; write it as https://host or http://host:8080"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            Some(_) | None => {
                return Err(refuse(
                    "it must begin with https:// or http://, as in http://localhost:8080",
                ));
            }
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse(
                "it holds a user name, which no server reads: give the token in its own setting, in \
                 the program with --token",
            ));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let uri =
            with_scheme(&uri, schemes[usize::from(tls)]).ok_or_else(|| refuse("it is no URL"))?;
        Ok(Self { uri, host, port, tls })
    }
}

fn with_scheme(uri: &Uri, scheme: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(scheme.parse().ok()?);
    Uri::from_parts(parts).ok()
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
            let Endpoint { uri: found, host: at, port: on, .. } =
                address(base, websocket).websocket;
            assert_eq!((found.to_string().as_str(), at.as_str(), on), (uri, host, port));
        }
    }

    #[test]
    fn http_calls_go_below_the_base_if_there_is_one() {
        for (base, websocket, uri) in [
            ("https://a.example", None, Some("https://a.example/")),
            ("ws://[::1]:8080/api/", None, Some("http://[::1]:8080/api")),
            ("http://a.example/", Some("wss://b.example/live"), Some("http://a.example/")),
            ("", Some("ws://b.example/live"), None),
        ] {
            let http = address(base, websocket).http.map(|endpoint| endpoint.uri.to_string());
            assert_eq!(http.as_deref(), uri, "{base}");
        }
    }

    #[test]
    fn a_server_is_known_by_its_url_however_it_is_written() {
        let identity = address("https://A.example/api", None).identity();
        assert_eq!(identity, "https://a.example:443/api");
        for same in ["https://a.example:443/api/", "wss://a.example/api"] {
            assert_eq!(address(same, None).identity(), identity);
        }
        assert_ne!(address("http://a.example/api", None).identity(), identity);
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
        assert!(Address::new("ftp://example.com", Some("ws://example.com")).is_err());
    }

    #[test]
    fn private_is_what_is_encrypted_or_stays_here() {
        for url in ["wss://a.example", "http://localhost:1", "ws://127.0.0.9", "ws://[::1]:1"] {
            assert!(address(url, None).websocket.is_private(), "{url}");
        }
        for url in ["http://a.example", "ws://10.0.0.1", "ws://localhost.example", "ws://[::2]"] {
            assert!(!address(url, None).websocket.is_private(), "{url}");
        }
    }
}
