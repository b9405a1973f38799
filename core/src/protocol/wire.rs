//! The codec between the bytes of a frame and the values of [`message`](super::message).
//!
//! Reading is liberal about differences that lose nothing (unknown fields, timestamps without an
//! offset), and bounded by [`Limits`]. A frame is scanned once: its fields are found by name and
//! kept as slices, and only the fields that the message's type needs are read. Values of documents
//! stay the received text.

mod decode;
mod encode;
pub(crate) mod http;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::limits::Limits;
use super::message::{ClientMessage, ErrorCode, ErrorMessage, FailedMember, Level, ServerMessage};
use super::name::{Collection, MutationNumber, RecordId};

pub(crate) use encode::encode_change;
pub(crate) use encode::unit::{encode_unit, join};

/// The content of one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming<M> {
    /// One message.
    One(M),
    /// The messages of a `batch`, in order, each decoded on its own. A `batch` in a `batch` is an
    /// error in its position.
    Batch(Vec<Result<M, WireError>>),
}

/// An error of reading a message, with the write that it concerns.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// [`ErrorCode::PayloadTooLarge`] or [`ErrorCode::InvalidMessage`].
    pub code: ErrorCode,
    /// The problem, for people.
    pub message: String,
    /// The write's number, if the message carries a readable one; that of the first member of a
    /// unit.
    pub mutation: Option<MutationNumber>,
    /// The number of the member of a unit that is wrong, if it is readable.
    pub member: Option<MutationNumber>,
    /// The collection, if the message names one.
    pub collection: Option<Collection>,
    /// The record, if the message names one.
    pub record_id: Option<RecordId>,
}

/// The answer to the sender of the message.
impl From<WireError> for ErrorMessage {
    fn from(error: WireError) -> Self {
        let WireError { code, message, mutation, member, collection, record_id } = error;
        match (member, collection, record_id) {
            (Some(member), Some(collection), Some(record_id)) => Self {
                mutation,
                failed: [FailedMember {
                    mutation: member,
                    code: code.clone(),
                    collection,
                    record_id,
                    current: None,
                }]
                .into(),
                ..Self::new(code, message)
            },
            (Some(_), _, _) => Self { mutation, ..Self::new(code, message) },
            (None, collection, record_id) => {
                Self { mutation, collection, record_id, ..Self::new(code, message) }
            }
        }
    }
}

/// Decodes a frame from a client.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE` if the frame or a document is above its limit; `INVALID_MESSAGE` for
/// everything else, including a type that no client sends.
pub fn decode_client(frame: &[u8], limits: &Limits) -> Result<Incoming<ClientMessage>, WireError> {
    decode::frame(frame, limits, decode::client, decode::unit::atomic)
}

/// Decodes a frame from a server. A type that this version does not know is
/// [`ServerMessage::Unknown`].
///
/// # Errors
/// As [`decode_client`].
pub fn decode_server(frame: &[u8], limits: &Limits) -> Result<Incoming<ServerMessage>, WireError> {
    decode::frame(frame, limits, decode::server, |_, _| None)
}

/// The level-1 form of the level-2 frame of a change, as this server has encoded it.
pub(crate) fn to_plain(frame: &Bytes) -> Bytes {
    match decode_server(frame, &Limits::OF_ACCEPTED) {
        Ok(Incoming::One(message)) => {
            let mut out = Vec::with_capacity(frame.len());
            message.encode(Level::Plain, &mut out);
            out.into()
        }
        // never for an own frame; a level-1 reader skips what it does not know
        Ok(Incoming::Batch(_)) | Err(_) => frame.clone(),
    }
}

#[cfg(test)]
mod tests;
