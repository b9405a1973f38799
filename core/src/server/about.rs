//! The write that a verdict is about, and the messages that tell the verdict.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::hash::RightsTag;
use crate::protocol::message::{
    Ack, ErrorCode, ErrorMessage, FailedMember, Mode, ServerChange, ServerMessage,
};
use crate::protocol::name::{Collection, MutationNumber, RecordId, Seq};
use crate::protocol::time::Timestamp;
use crate::rules::transaction::{Outcome, PushOutcome, TransactionAnswer, Verdict};

/// The refusal of a client id of a user who has as many as one may have.
pub(super) fn too_many_clients(most: u64) -> String {
    alloc::format!(
        "this user has {most} client ids, and may have no more: go on with a store that is there, or \
         wait until ids that are no longer used are removed"
    )
}

/// Says that a cursor is valid which was reached by these rights, before a snapshot by others is announced
/// (PROTOCOL 8.35).
pub(super) fn known_by_others(
    collection: &Collection,
    head: Seq,
    rights: Option<RightsTag>,
    set: Option<u64>,
) -> ServerMessage {
    ServerMessage::Subscribed {
        collection: collection.clone(),
        record_count: None,
        head: Some(head),
        mode: Some(Mode::Delta),
        partial: rights.is_some(),
        rights,
        set,
        refused: Vec::new(),
    }
}

/// The rights have changed since this was decided: it shows no record any more. What can't be told without one
/// is to be tried again, by the rights of now.
pub(super) fn hide_records(answer: &mut TransactionAnswer) {
    let outcomes = match answer {
        TransactionAnswer::Writes(outcomes)
        | TransactionAnswer::Pushed(PushOutcome::Judged { outcomes, .. }) => {
            outcomes.as_mut_slice()
        }
        TransactionAnswer::Plain(outcome) => core::slice::from_mut(outcome),
        TransactionAnswer::Hello(_)
        | TransactionAnswer::PlainUnit(_)
        | TransactionAnswer::Pushed(PushOutcome::Superseded | PushOutcome::OtherEpoch)
        | TransactionAnswer::Swept(_)
        | TransactionAnswer::Begun => &mut [],
    };
    for outcome in outcomes {
        match &mut outcome.verdict {
            Verdict::Applied { echo, .. } => *echo = None,
            Verdict::Conflict { .. } => {
                let message = "the rights of this user have changed meanwhile: try again".into();
                outcome.verdict = Verdict::Refused { code: ErrorCode::ServerError, message };
            }
            Verdict::Unchanged { .. }
            | Verdict::Refused { .. }
            | Verdict::Superseded
            | Verdict::OutOfOrder { .. } => {}
        }
    }
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
        let Outcome { collection, record_id, mutation, committed_at, verdict, .. } = outcome;
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

    fn failed(
        self,
        mutation: MutationNumber,
        code: ErrorCode,
        current: Option<ServerChange>,
    ) -> FailedMember {
        let Self { collection, record_id, .. } = self;
        FailedMember { mutation, code, collection, record_id, current }
    }

    pub(super) fn conflict(&self, current: ServerChange) -> ErrorMessage {
        let message = "something that the write touches was changed by someone else";
        ErrorMessage { current: Some(current), ..self.error(ErrorCode::Conflict, message) }
    }
}

/// An ack of a member of a unit, and its place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct MemberAck {
    /// As it is out of place.
    pub(super) ack: Ack,
    /// The seq of the record or its tombstone.
    pub(super) at: Seq,
    /// `true` if `at` is the seq of the write.
    pub(super) applied: bool,
}

/// The verdict on a unit.
pub(super) enum UnitVerdict {
    /// All of it was applied, now or before.
    Applied(Vec<MemberAck>),
    /// Nothing of it was applied. The verdict waits for these records.
    Failed(Box<ErrorMessage>, Vec<(Collection, Seq)>),
    /// The session is no longer the client's newest.
    Superseded,
    /// Its first number is not the next one.
    OutOfOrder {
        /// The next number.
        next: MutationNumber,
    },
}

impl UnitVerdict {
    /// The verdict on the unit with this first number. About `most` bytes of records are told: of a
    /// unit that failed at least one, of one that was applied those that fit.
    pub(super) fn of(first: MutationNumber, outcomes: Vec<Outcome>, most: usize) -> Self {
        let fails = |outcome: &Outcome| match &outcome.verdict {
            Verdict::Refused { code, message } => Some((code.clone(), message.clone())),
            Verdict::Conflict { .. }
            | Verdict::Applied { .. }
            | Verdict::Unchanged { .. }
            | Verdict::Superseded
            | Verdict::OutOfOrder { .. } => None,
        };
        // a reason for good comes before a conflict
        let refused = outcomes.iter().find_map(fails);
        let (mut acks, mut failed, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = most;
        for outcome in outcomes {
            let at = outcome.at;
            let (about, verdict) = About::of(outcome);
            let number = about.mutation.unwrap_or(first);
            match verdict {
                Verdict::Superseded => return Self::Superseded,
                Verdict::OutOfOrder { next } => return Self::OutOfOrder { next },
                Verdict::Applied { seq: _, version, echo } => {
                    let echo = echo.filter(|echo| fits(echo, &mut left));
                    let ack = about.ack(number, Some(version), echo);
                    acks.push(MemberAck { ack, at, applied: true });
                }
                Verdict::Unchanged { version } => {
                    acks.push(MemberAck {
                        ack: about.ack(number, version, None),
                        at,
                        applied: false,
                    });
                }
                Verdict::Conflict { current } => {
                    if failed.is_empty() || fits(&current, &mut left) {
                        places.push((about.collection.clone(), at));
                        failed.push(about.failed(number, ErrorCode::Conflict, Some(current)));
                    }
                }
                Verdict::Refused { code, .. } => failed.push(about.failed(number, code, None)),
            }
        }
        if failed.is_empty() {
            return Self::Applied(acks);
        }
        let (code, message) = refused.unwrap_or_else(|| {
            let message = "something that the transaction touches was changed by someone else";
            (ErrorCode::Conflict, message.into())
        });
        let error =
            ErrorMessage { mutation: Some(first), failed, ..ErrorMessage::new(code, message) };
        Self::Failed(Box::new(error), places)
    }
}

/// Takes the size of a record from the room that is left, if it fits.
fn fits(change: &ServerChange, left: &mut usize) -> bool {
    /// About the bytes of a message besides the content of a record.
    const FRAME: usize = 300;
    let Some(rest) = left.checked_sub(FRAME + change.change.delta.set.size()) else { return false };
    *left = rest;
    true
}
