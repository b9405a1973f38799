//! Proxies that the environment names: `HTTPS_PROXY` and `HTTP_PROXY` by the server's scheme, or else
//! `ALL_PROXY`, in capitals or not, and `NO_PROXY` with the hosts that are reached directly. A
//! connection goes through one by `CONNECT`, whatever is spoken on it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use synclayer_core::{ConnectFailure, FailureCause};
use tracing::warn;
use ureq::ProxyProtocol;

use crate::address::Endpoint;
use crate::dial;

/// The longest answer of a proxy to `CONNECT`.
const ANSWER_BYTES: usize = 16 << 10;

/// A proxy for HTTP.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// The variable that names it.
    variable: String,
    host: String,
    port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<Secret>,
}

struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, host, port, .. } = self;
        write!(f, "the proxy {host}:{port} ({variable})")
    }
}

impl Proxy {
    /// The proxy that the environment names for an endpoint. One on this machine is reached directly.
    pub(crate) fn from_env(endpoint: &Endpoint) -> Option<Self> {
        Self::choose(endpoint, |name| std::env::var(name).ok())
    }

    fn choose(endpoint: &Endpoint, env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let env = |name: &str| {
            let names = [name.to_owned(), name.to_lowercase()];
            let set = |name: String| Some((env(&name).filter(|value| !value.is_empty())?, name));
            names.into_iter().find_map(set)
        };
        let by_scheme = if endpoint.tls { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let (url, variable) = env(by_scheme).or_else(|| env("ALL_PROXY"))?;
        let direct = env("NO_PROXY").is_some_and(|(list, _)| is_listed(&list, endpoint));
        if direct || endpoint.is_loopback() {
            return None;
        }
        let parsed = ureq::Proxy::new(&url).ok();
        let Some(parsed) = parsed.filter(|proxy| proxy.protocol() == ProxyProtocol::Http) else {
            warn!(
                "{variable} is ignored: it is not the URL of an HTTP proxy, like http://host:port"
            );
            return None;
        };
        let name = parsed.username().map(|user| {
            let password = parsed.password().unwrap_or_default();
            Secret(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        });
        let host = parsed.host().trim_matches(['[', ']']).to_owned();
        Some(Self { variable, host, port: parsed.port(), authorization: name })
    }

    /// Connects to a host through the proxy.
    #[allow(clippy::wildcard_enum_match_arm)] // of the many kinds few are told apart
    pub(crate) fn connect(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<TcpStream, ConnectFailure> {
        let failure = |why: String| {
            ConnectFailure::new(FailureCause::Proxy, format!("{self} can't be used: {why}"))
        };
        let mut stream = dial::connect(&self.host, self.port, deadline)
            .map_err(|error| failure(error.message))?;
        let answer = self.ask(&mut stream, host, port, deadline);
        let answer = answer.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => failure("it is silent".into()),
            _ => failure(error.to_string()),
        })?;
        let line = answer.lines().next().unwrap_or_default();
        match line.split(' ').nth(1).filter(|_| line.starts_with("HTTP/")) {
            Some(status) if status.len() == 3 && status.starts_with('2') => Ok(stream),
            Some("407") => Err(failure(format!(
                "it wants a name and a password: set {} to http://NAME:PASSWORD@{}:{}",
                self.variable, self.host, self.port
            ))),
            Some(status) => Err(failure(format!("it answers {status} for {host}:{port}"))),
            None => Err(failure("it does not answer as an HTTP proxy does".into())),
        }
    }

    /// Asks for a tunnel. Returns the head of the answer, of which nothing further is read.
    fn ask(
        &self,
        stream: &mut TcpStream,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> io::Result<String> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(Secret(value)) = &self.authorization {
            request += &format!("Proxy-Authorization: {value}\r\n");
        }
        request += "\r\n";
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == ANSWER_BYTES {
                return Err(io::Error::other("its answer is too long"));
            }
            stream.set_read_timeout(Some(left(deadline)?))?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// The time until a deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Returns `true` if `NO_PROXY` lists the host: by its name, a domain above it, or `*`, and perhaps
/// with the port.
fn is_listed(list: &str, Endpoint { host, port, .. }: &Endpoint) -> bool {
    let host = host.to_lowercase();
    list.split([',', ' ']).map(|entry| entry.trim().to_lowercase()).any(|entry| {
        let (name, of_port) = match entry.rsplit_once(':') {
            Some((name, number)) if !name.contains(':') || name.ends_with(']') => {
                (name, number.parse() == Ok(*port))
            }
            Some(_) | None => (&*entry, true),
        };
        let name = name.trim_matches(['[', ']']);
        let domain = name.trim_start_matches('*').trim_start_matches('.');
        let below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let below = below && !domain.is_empty() && host.parse::<IpAddr>().is_err();
        of_port && (name == "*" || domain == host || below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn chosen(url: &str, env: &[(&str, &str)]) -> Option<String> {
        let endpoint = Address::new(url, None).unwrap().websocket;
        let value = |name: &str| {
            env.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned())
        };
        Proxy::choose(&endpoint, value).map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_environment_names_the_proxy_by_the_scheme() {
        let env = [("HTTPS_PROXY", "http://one:3128"), ("http_proxy", "two:80")];
        let one = Some("the proxy one:3128 (HTTPS_PROXY)".to_owned());
        assert_eq!(chosen("https://a.example", &env), one);
        let two = Some("the proxy two:80 (http_proxy)".to_owned());
        assert_eq!(chosen("http://a.example", &env), two);
        let all = [("ALL_PROXY", "http://three:1"), ("HTTP_PROXY", "")];
        let three = Some("the proxy three:1 (ALL_PROXY)".to_owned());
        assert_eq!(chosen("http://a.example", &all), three);
        for url in ["https://localhost:1", "https://127.0.0.1", "https://[::1]:2"] {
            assert_eq!(chosen(url, &env), None, "{url}");
        }
        assert_eq!(chosen("https://a.example", &[("ALL_PROXY", "socks5://s:1")]), None);
        assert_eq!(chosen("https://a.example", &[]), None);
    }

    #[test]
    fn some_hosts_are_reached_directly() {
        for (list, url, direct) in [
            ("a.example", "https://a.example", true),
            ("A.example", "https://b.a.Example", true),
            (".example, other", "https://a.example", true),
            ("*.example", "https://a.example", true),
            ("*", "https://a.example", true),
            ("a.example:443", "https://a.example", true),
            ("a.example:80", "https://a.example", false),
            ("ample", "https://a.example", false),
            ("10.0.0.1", "https://10.0.0.1", true),
            ("0.0.1", "https://10.0.0.1", false),
            ("2001:db8::1", "https://[2001:db8::1]", true),
            ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
            (",, ", "https://a.example", false),
        ] {
            let env = [("HTTPS_PROXY", "http://one:3128"), ("NO_PROXY", list)];
            assert_eq!(chosen(url, &env).is_none(), direct, "{list} {url}");
        }
    }
}
