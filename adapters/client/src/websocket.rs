//! The WebSocket to a server: the request for it, its bounds, and its messages.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::ClientConfig;
use synclayer_core::{ConnectFailure, Disconnect, Token};
use tungstenite::client::IntoClientRequest;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::address::Endpoint;
use crate::call::retry_after;
use crate::command::SocketEvent;
use crate::dial::Dialer;
use crate::fault;

/// The time limit for connecting, TLS and upgrade apart. The machine's own is no longer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of bytes of frames that are gathered for one write to the socket.
const GATHERED_BYTES: usize = 16 << 10;
/// Room for the frames of a connection that are small and many, such as subscriptions.
const SMALL_BYTES: usize = 2 << 20;

/// The end of a connection whose server has closed it.
pub const CLOSED: &str = "the server closed the connection";
/// The end of a connection whose server takes nothing in.
pub const DEAF: &str = "the server does not read what is sent to it";

/// A server's WebSocket endpoint, with the settings of every connection to it.
#[derive(Clone, Debug)]
pub struct Target {
    dialer: Dialer,
    /// The endpoint.
    pub address: Arc<Endpoint>,
    /// The configuration of TLS, for an endpoint that wants it.
    pub tls: Arc<ClientConfig>,
    /// The longest frame that is taken.
    pub frame_bytes: usize,
    /// The token goes in the URL, and not in a header.
    pub(crate) token_in_query: bool,
}

impl Target {
    pub(crate) fn new(address: Arc<Endpoint>, tls: Arc<ClientConfig>, frame_bytes: usize) -> Self {
        let dialer = Dialer::new(Arc::clone(&address));
        Self { dialer, address, tls, frame_bytes, token_in_query: false }
    }

    /// Connects. This may block for long.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub fn dial(&self) -> Result<TcpStream, ConnectFailure> {
        self.dialer.dial(DIAL_TIMEOUT)
    }

    /// The request for an upgrade, with the token in its header or in its query.
    ///
    /// # Errors
    /// When no header can carry the token.
    pub fn request(&self, token: Option<&Token>) -> Result<Request<()>, Disconnect> {
        let uri = match token.filter(|_| self.token_in_query) {
            Some(token) => with_token(&self.address.uri, token).map_err(|error| {
                lost(format!("the URL of the WebSocket can't carry the token: {error}"))
            })?,
            None => self.address.uri.clone(),
        };
        let mut request = uri.into_client_request().map_err(|error| self.failed(error))?;
        if let Some(token) = token.filter(|_| !self.token_in_query) {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|error| lost(error.to_string()))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// The buffers and bounds of a connection.
    #[must_use]
    pub fn config(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(GATHERED_BYTES)
            .max_write_buffer_size(self.outbound_bytes())
            .max_message_size(Some(self.frame_bytes))
            .max_frame_size(Some(self.frame_bytes))
    }

    /// The most bytes that wait to be written, answers to pings included. It holds what the machine
    /// has under way; a server that lets more gather does not read.
    #[must_use]
    pub fn outbound_bytes(&self) -> usize {
        self.frame_bytes.saturating_mul(2).saturating_add(SMALL_BYTES)
    }

    /// The news that a connection has read.
    #[must_use]
    pub fn event(&self, read: Result<Message, Error>) -> SocketEvent {
        match read {
            Ok(Message::Text(text)) => SocketEvent::Frame(text.into()),
            Ok(Message::Binary(bytes)) => SocketEvent::Frame(bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => SocketEvent::Heard,
            Ok(Message::Close(Some(why))) => {
                SocketEvent::Disconnected(lost(format!("{CLOSED}: {why}")))
            }
            Ok(Message::Close(None) | Message::Frame(_)) => SocketEvent::Disconnected(lost(CLOSED)),
            Err(error) => SocketEvent::Disconnected(self.failed(error)),
        }
    }

    /// The end of a connection that failed, or could not be made.
    #[must_use]
    pub fn failed(&self, error: Error) -> Disconnect {
        if let Error::Http(response) = error {
            let retry_after = retry_after(response.headers());
            let (parts, body) = response.into_parts();
            let (status, body) = (parts.status.as_u16(), body.unwrap_or_default());
            return match fault::of_answer(status, &body, &self.address) {
                Some(failure) => Disconnect::Lost(failure),
                None => Disconnect::Refused { status, retry_after, body },
            };
        }
        if let Error::WriteBufferFull(_) = error {
            return lost(DEAF);
        }
        Disconnect::Lost(fault::of(&error, &self.address))
    }
}

/// A WebSocket's URL with the token in its query, as apps of SyncLayer 1.7 send it.
fn with_token(uri: &Uri, token: &Token) -> Result<Uri, http::Error> {
    let token = utf8_percent_encode(token.reveal(), NON_ALPHANUMERIC);
    let path = match uri.query() {
        Some(query) if !query.is_empty() => format!("{}?{query}&token={token}", uri.path()),
        Some(_) | None => format!("{}?token={token}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// The message of a frame of the machine's.
#[must_use]
pub fn message(frame: Bytes) -> Message {
    // what the core encodes is text; if it ever were not, the server would say so
    match Utf8Bytes::try_from(frame) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(Bytes::new()),
    }
}

/// The words with which a connection is closed whose server breaks the protocol; `None` where the
/// failure is none of its frames.
#[must_use]
pub fn goodbye(error: &Error) -> Option<CloseFrame> {
    let code = match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => CloseCode::Protocol,
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => return None,
    };
    Some(CloseFrame { code, reason: Utf8Bytes::default() })
}

/// The end of a connection, in words.
#[must_use]
pub fn lost(reason: impl Into<ConnectFailure>) -> Disconnect {
    Disconnect::Lost(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_joins_the_query_that_a_url_has() {
        for (url, with) in [
            ("wss://a.example/ws", "wss://a.example/ws?token=a%2Fb%20%26"),
            ("wss://a.example/live?x=1", "wss://a.example/live?x=1&token=a%2Fb%20%26"),
            ("ws://[::1]:8080/?", "ws://[::1]:8080/?token=a%2Fb%20%26"),
        ] {
            let found = with_token(&url.parse().unwrap(), &Token::from("a/b &")).unwrap();
            assert_eq!(found, with, "{url}");
        }
    }
}
