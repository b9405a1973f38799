//! How a WebSocket is asked for, how it is bounded, and how it fails.

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use synclayer_core::client::interface::Disconnect;
use synclayer_core::protocol::message::Token;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message, Utf8Bytes};

use crate::address::Endpoint;
use crate::call::retry_after;

/// How many bytes of frames are gathered for one write to the socket.
const GATHERED_BYTES: usize = 16 << 10;

/// The request for an upgrade, with the token in its header.
///
/// # Errors
/// When no header can carry the token.
pub fn request(address: &Endpoint, token: Option<&Token>) -> Result<Request<()>, Disconnect> {
    let mut request = address.uri.clone().into_client_request().map_err(failed)?;
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|error| lost(error.to_string()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// Buffers and bounds of a connection on which frames up to this length are taken.
#[must_use]
pub fn config(frame_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(GATHERED_BYTES)
        // the machine's window bounds what waits; this only keeps a frame from being refused
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(frame_bytes))
        .max_frame_size(Some(frame_bytes))
}

/// A frame of the machine's as a message.
#[must_use]
pub fn message(frame: Bytes) -> Message {
    // what the core encodes is text; if it ever were not, the server would say so
    match Utf8Bytes::try_from(frame) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(Bytes::new()),
    }
}

/// The end of a connection that failed.
#[must_use]
pub fn failed(error: Error) -> Disconnect {
    if let Error::Http(response) = error {
        let retry_after = retry_after(response.headers());
        let (parts, body) = response.into_parts();
        let (status, body) = (parts.status.as_u16(), body.unwrap_or_default());
        return Disconnect::Refused { status, retry_after, body };
    }
    lost(error.to_string())
}

/// The end of a connection, in words.
#[must_use]
pub fn lost(reason: impl Into<String>) -> Disconnect {
    Disconnect::Lost(reason.into())
}
