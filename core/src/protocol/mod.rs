//! The vocabulary: values and codecs on which everything else is built. It depends on nothing else
//! in the crate.

pub(crate) mod codec;
pub(crate) mod delta;
pub(crate) mod document;
pub(crate) mod hash;
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod message;
pub(crate) mod name;
pub(crate) mod percent;
pub(crate) mod random;
pub(crate) mod rest;
pub(crate) mod scopes;
pub(crate) mod time;
pub(crate) mod times;
pub(crate) mod unit;
pub(crate) mod wire;
pub(crate) mod write;

pub use self::delta::Delta;
pub use self::document::{Document, DocumentError};
pub use self::hash::Checksum;
pub use self::limits::Limits;
pub use self::message::{
    ClientMessage, Cursor, DeleteReason, ErrorCode, ErrorMessage, FailedMember, Level, Mode,
    Mutation, Resume, ServerChange, ServerMessage, SyncRecord, Token,
};
pub use self::name::{
    ClientId, Collection, CommitNumber, ConnId, DatabaseId, Epoch, MutationNumber, NameError,
    RecordId, Seq, SessionNumber, UserId, WriteId,
};
pub use self::scopes::{AskedScope, LeftRecord, LoadPlace, ScopeName, ScopePage, ScopePlace};
pub use self::time::{Mono, Now, Timestamp};
pub use self::unit::{Expectation, Member, Submission, Unit};
pub use self::wire::{Incoming, decode_client, decode_server};
pub use self::write::{Change, WriteKind};
