//! The write that a verdict is about, and the messages that tell the verdict.

use alloc::string::String;

use crate::protocol::message::{Ack, ErrorCode, ErrorMessage, ServerChange};
use crate::protocol::name::{Collection, MutationNumber, RecordId};
use crate::protocol::time::Timestamp;
use crate::rules::transaction::{Outcome, Verdict};

/// The refusal of a client id of a user who has as many as one may have.
pub(super) fn too_many_clients(most: u64) -> String {
    alloc::format!(
        "this user has {most} client ids, and may have no more: go on with a store that is there, or \
         wait until ids that are no longer used are removed"
    )
}

/// A write, as its verdict names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct About {
    pub(super) collection: Collection,
    pub(super) record_id: RecordId,
    pub(super) mutation: Option<MutationNumber>,
    committed_at: Timestamp,
}

impl About {
    pub(super) fn of(outcome: Outcome) -> (Self, Verdict) {
        let Outcome { collection, record_id, mutation, at: _, committed_at, verdict } = outcome;
        (Self { collection, record_id, mutation, committed_at }, verdict)
    }

    /// An ack that stands in no stream.
    pub(super) fn ack(
        &self,
        mutation: MutationNumber,
        version: Option<u64>,
        echo: Option<ServerChange>,
    ) -> Ack {
        Ack {
            collection: self.collection.clone(),
            record_id: self.record_id.clone(),
            mutation,
            seq: None,
            version,
            echo,
            timestamp: Some(self.committed_at),
        }
    }

    pub(super) fn error(&self, code: ErrorCode, message: impl Into<String>) -> ErrorMessage {
        ErrorMessage {
            collection: Some(self.collection.clone()),
            record_id: Some(self.record_id.clone()),
            mutation: self.mutation,
            ..ErrorMessage::new(code, message)
        }
    }

    pub(super) fn conflict(&self, current: ServerChange) -> ErrorMessage {
        let message = "something that the write touches was changed by someone else";
        ErrorMessage { current: Some(current), ..self.error(ErrorCode::Conflict, message) }
    }
}
