//! The codec between the bytes of a frame and the values of [`message`](super::message).
//!
//! Reading is liberal where nothing is lost by it (unknown fields, timestamps without an offset)
//! and bounded by [`Limits`]. A frame is scanned once: its fields are found by name and kept as
//! slices, of which only those are read that the message's type needs. Values of documents are
//! never built, they stay the text that came.

mod decode;
mod encode;
pub mod http;

use alloc::string::String;
use alloc::vec::Vec;

use super::limits::Limits;
use super::message::{ClientMessage, ErrorCode, ErrorMessage, ServerMessage};
use super::name::{Collection, MutationNumber, RecordId};

pub use encode::{encode_batch, encode_change};

/// What one frame holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming<M> {
    /// One message.
    One(M),
    /// The messages of a `batch`, in order, each read by itself. A `batch` in a `batch` is an
    /// error in its place.
    Batch(Vec<Result<M, WireError>>),
}

/// Why a message was not understood, and which write that is about.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// [`ErrorCode::PayloadTooLarge`] or [`ErrorCode::InvalidMessage`].
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: String,
    /// The write's number, where the message carries a readable one.
    pub mutation: Option<MutationNumber>,
    /// The collection, where the message names one.
    pub collection: Option<Collection>,
    /// The record, where the message names one.
    pub record_id: Option<RecordId>,
}

/// The answer to whoever sent the message.
impl From<WireError> for ErrorMessage {
    fn from(error: WireError) -> Self {
        Self {
            mutation: error.mutation,
            collection: error.collection,
            record_id: error.record_id,
            ..Self::new(error.code, error.message)
        }
    }
}

/// Reads what a client sent.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE` where the frame or a document is above its limit; `INVALID_MESSAGE` for
/// everything else, a type that no client sends included.
pub fn decode_client(frame: &[u8], limits: &Limits) -> Result<Incoming<ClientMessage>, WireError> {
    decode::frame(frame, limits, decode::client)
}

/// Reads what a server sent. A type that this version does not know is
/// [`ServerMessage::Unknown`].
///
/// # Errors
/// As [`decode_client`].
pub fn decode_server(frame: &[u8], limits: &Limits) -> Result<Incoming<ServerMessage>, WireError> {
    decode::frame(frame, limits, decode::server)
}

#[cfg(test)]
mod tests;
