//! The causes of failures at the network, told apart for programs and for people.
#![allow(clippy::wildcard_enum_match_arm)] // of the many errors of libraries few matter here

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::{CertificateError, Error as TlsError};
use synclayer_core::{ConnectFailure, FailureCause};
use tungstenite::error::{Error as SocketError, ProtocolError, TlsError as SocketTlsError};

use crate::address::Endpoint;

/// The beginnings of TLS records: a handshake, or an alert.
const TLS_RECORDS: [u8; 2] = [0x16, 0x15];
/// The most bytes that are shown of a greeting.
const SHOWN_BYTES: usize = 40;
/// The words with which servers (nginx, Apache, Go) answer plain HTTP at a port that wants TLS.
const WANT_TLS: [&[u8]; 3] = [
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
];

/// The check of the first bytes that come from a server: whether it speaks what is expected there.
#[derive(Clone, Debug)]
pub struct Greeting {
    endpoint: Arc<Endpoint>,
    /// The number of bytes that were as expected.
    heard: usize,
}

impl Greeting {
    /// The check for a connection to an endpoint, below TLS where that is used.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, heard: 0 }
    }

    /// Looks at bytes that were read.
    ///
    /// # Errors
    /// When they are the first and not as expected: the error holds a [`ConnectFailure`].
    pub fn check(&mut self, read: &[u8]) -> io::Result<()> {
        let expected: &[u8] = if self.endpoint.tls { &[] } else { b"HTTP/" };
        for byte in read {
            let fits = match expected.get(self.heard) {
                Some(expected) => byte == expected,
                None if self.heard == 0 => TLS_RECORDS.contains(byte),
                None => return Ok(()),
            };
            if !fits {
                let failure = self.unexpected(*byte, read);
                return Err(io::Error::new(ErrorKind::InvalidData, failure));
            }
            self.heard += 1;
        }
        Ok(())
    }

    fn unexpected(&self, first: u8, read: &[u8]) -> ConnectFailure {
        let at = place(&self.endpoint);
        if !self.endpoint.tls && self.heard == 0 && TLS_RECORDS.contains(&first) {
            return wants_tls(&self.endpoint);
        }
        if self.endpoint.tls && first == b'H' {
            let why = format!("{at} speaks no TLS: it answers by plain HTTP");
            return ConnectFailure::new(FailureCause::PlainPort, why);
        }
        let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let said = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]);
        let why = format!("{at} does not speak HTTP: it says {said:?}");
        ConnectFailure::new(FailureCause::NotHttp, why)
    }
}

/// Returns the failure of an answer by HTTP that says that the port wants TLS.
pub(crate) fn of_answer(status: u16, body: &[u8], endpoint: &Endpoint) -> Option<ConnectFailure> {
    let says = |words: &[u8]| body.windows(words.len()).any(|part| part == words);
    let wants = status == 400 && !endpoint.tls && WANT_TLS.into_iter().any(says);
    wants.then(|| wants_tls(endpoint))
}

fn wants_tls(endpoint: &Endpoint) -> ConnectFailure {
    let why = format!("{} wants TLS, and was spoken to without", place(endpoint));
    ConnectFailure::new(FailureCause::TlsPort, why)
}

fn place(Endpoint { host, port, .. }: &Endpoint) -> String {
    at(host, *port)
}

fn at(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The failure to connect to any of the addresses of a host.
pub(crate) fn of_dialing(
    error: &io::Error,
    host: &str,
    port: u16,
    addresses: usize,
) -> ConnectFailure {
    let at = at(host, port);
    let (cause, message) = match error.kind() {
        ErrorKind::ConnectionRefused => {
            (FailureCause::Refused, format!("{at} refuses the connection: nothing listens there"))
        }
        ErrorKind::TimedOut if addresses > 1 => {
            let message = format!("{at} does not answer, at none of its {addresses} addresses");
            (FailureCause::Silent, message)
        }
        ErrorKind::TimedOut => (FailureCause::Silent, format!("{at} does not answer")),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => {
            (FailureCause::NoRoute, format!("there is no way to {at} from here: {error}"))
        }
        ErrorKind::NotFound => {
            (FailureCause::UnknownHost, format!("the name {host} stands for no address"))
        }
        _ => (FailureCause::Lost, format!("{at} can't be connected to: {error}")),
    };
    ConnectFailure::new(cause, message)
}

/// The failure that an error tells of, at a connection to an endpoint.
pub(crate) fn of(error: &(dyn StdError + 'static), endpoint: &Endpoint) -> ConnectFailure {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref::<ConnectFailure>() {
            return failure.clone();
        }
        if let Some(error) = error.downcast_ref::<TlsError>() {
            return of_tls(error, endpoint);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.get_ref() {
                Some(inner) if is_told_apart(inner) => next = Some(inner),
                Some(_) | None => return of_io(error, endpoint),
            }
            continue;
        }
        if let Some(error) = error.downcast_ref::<SocketError>() {
            match within_socket(error, endpoint) {
                Ok(inner) => next = Some(inner),
                Err(failure) => return failure,
            }
            continue;
        }
        if let Some(error) = error.downcast_ref::<ureq::Error>() {
            match within_call(error, endpoint) {
                Ok(inner) => next = Some(inner),
                Err(failure) => return failure,
            }
            continue;
        }
        next = error.source();
    }
    error.to_string().into()
}

/// Returns `true` if an error within one of a stream says more than that one's kind.
fn is_told_apart(error: &(dyn StdError + Send + Sync + 'static)) -> bool {
    error.is::<ConnectFailure>()
        || error.is::<TlsError>()
        || error.is::<io::Error>()
        || error.is::<ureq::Error>()
}

fn of_io(error: &io::Error, endpoint: &Endpoint) -> ConnectFailure {
    let at = place(endpoint);
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => format!("{at} closed the connection").into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            ConnectFailure::new(FailureCause::Silent, format!("{at} did not answer in time"))
        }
        _ => format!("the connection to {at} broke: {error}").into(),
    }
}

fn of_tls(error: &TlsError, endpoint: &Endpoint) -> ConnectFailure {
    if let TlsError::InvalidCertificate(CertificateError::Other(other)) = error
        && let Some(failure) = other.0.downcast_ref::<ConnectFailure>()
    {
        return failure.clone();
    }
    let cause = match error {
        TlsError::InvalidCertificate(_) => FailureCause::Certificate,
        _ => FailureCause::Tls,
    };
    let message = match error {
        TlsError::AlertReceived(alert) => {
            format!("{} ended the TLS handshake ({alert:?})", place(endpoint))
        }
        error => format!("TLS with {} failed: {error}", place(endpoint)),
    };
    ConnectFailure::new(cause, message)
}

/// The error within one of a WebSocket, or what it tells itself.
fn within_socket<'a>(
    error: &'a SocketError,
    endpoint: &Endpoint,
) -> Result<&'a (dyn StdError + 'static), ConnectFailure> {
    match error {
        SocketError::Io(error) => Ok(error),
        SocketError::Tls(SocketTlsError::Rustls(error)) => Ok(error),
        SocketError::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        )
        | SocketError::ConnectionClosed
        | SocketError::AlreadyClosed => {
            Err(format!("{} closed the connection", place(endpoint)).into())
        }
        SocketError::Protocol(
            ProtocolError::HttparseError(_) | ProtocolError::WrongHttpVersion,
        )
        | SocketError::HttpFormat(_)
        | SocketError::AttackAttempt => Err(not_http(error, endpoint)),
        SocketError::Protocol(_) | SocketError::Utf8(_) | SocketError::Capacity(_) => {
            Err(ConnectFailure::new(FailureCause::Protocol, error.to_string()))
        }
        SocketError::Tls(_)
        | SocketError::WriteBufferFull(_)
        | SocketError::Url(_)
        | SocketError::Http(_) => Err(error.to_string().into()),
    }
}

fn not_http(error: &dyn StdError, endpoint: &Endpoint) -> ConnectFailure {
    let why = format!("{} does not speak HTTP: {error}", place(endpoint));
    ConnectFailure::new(FailureCause::NotHttp, why)
}

/// The error within one of a call by HTTP, or what it tells itself.
fn within_call<'a>(
    error: &'a ureq::Error,
    endpoint: &Endpoint,
) -> Result<&'a (dyn StdError + 'static), ConnectFailure> {
    match error {
        ureq::Error::Io(error) => Ok(error),
        ureq::Error::Rustls(error) => Ok(error),
        ureq::Error::Other(error) => Ok(&**error),
        ureq::Error::Timeout(_) => {
            let why = format!("{} did not answer in time", place(endpoint));
            Err(ConnectFailure::new(FailureCause::Silent, why))
        }
        ureq::Error::Protocol(_) => Err(not_http(error, endpoint)),
        error => Err(error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn greeted(url: &str, parts: &[&[u8]]) -> Option<(FailureCause, String)> {
        let endpoint = Arc::new(Address::new(url, None).unwrap().websocket);
        let mut greeting = Greeting::new(Arc::clone(&endpoint));
        let error = parts.iter().find_map(|part| greeting.check(part).err())?;
        let failure = of(&SocketError::Io(error), &endpoint);
        Some((failure.cause, failure.message))
    }

    #[test]
    fn a_greeting_tells_what_is_spoken() {
        assert_eq!(greeted("http://a:1", &[b"HT", b"TP/1.1 200 OK", b"x", b"\x16\x03"]), None);
        assert_eq!(greeted("https://a:1", &[b"\x16\x03\x03", b"HTTP"]), None);
        let said = |cause, message: &str| Some((cause, message.to_owned()));
        assert_eq!(
            greeted("http://a:1", &[b"SSH-2.0-OpenSSH_9.2p1\r\n"]),
            said(
                FailureCause::NotHttp,
                r#"a:1 does not speak HTTP: it says "SSH-2.0-OpenSSH_9.2p1""#
            ),
        );
        assert_eq!(
            greeted("http://a:1", &[b"\x15\x03\x03\x00\x02\x02\x46"]),
            said(FailureCause::TlsPort, "a:1 wants TLS, and was spoken to without"),
        );
        assert_eq!(
            greeted("https://[::1]:1", &[b"HTTP/1.1 400 Bad Request"]),
            said(FailureCause::PlainPort, "[::1]:1 speaks no TLS: it answers by plain HTTP"),
        );
        let (cause, _) = greeted("https://a:1", &[b"220 mail ready"]).unwrap();
        assert_eq!(cause, FailureCause::NotHttp);
        let (cause, _) = greeted("http://a:1", &[b"H", b"i"]).unwrap();
        assert_eq!(cause, FailureCause::NotHttp);
    }
}
