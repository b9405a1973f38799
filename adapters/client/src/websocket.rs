//! The WebSocket to a server: the request for it, its bounds, and its messages.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
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
}

impl Target {
    pub(crate) fn new(address: Arc<Endpoint>, tls: Arc<ClientConfig>, frame_bytes: usize) -> Self {
        Self { dialer: Dialer::new(Arc::clone(&address)), address, tls, frame_bytes }
    }

    /// Connects. This may block for long.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub fn dial(&self) -> Result<TcpStream, ConnectFailure> {
        self.dialer.dial(DIAL_TIMEOUT)
    }

    /// The request for an upgrade, with the token in its header.
    ///
    /// # Errors
    /// When no header can carry the token.
    pub fn request(&self, token: Option<&Token>) -> Result<Request<()>, Disconnect> {
        let request = self.address.uri.clone().into_client_request();
        let mut request = request.map_err(|error| self.failed(error))?;
        if let Some(token) = token {
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
