//! Decoding of errors.

use alloc::vec::Vec;

use super::super::super::limits::Limits;
use super::super::super::message::{
    ErrorCode, ErrorMessage, FailedMember, ServerChange, kept_text,
};
use super::super::super::name::{Collection, MutationNumber, RecordId, Seq, UserId};
use super::super::super::unit::Unit;
use super::super::super::write::Change;
use super::field::{Fault, Field, Fields, fields, required};
use super::{Envelope, Record, at};

fields! {
    /// The fields of a member of a unit that failed.
    struct Failed {
        mutation: "mutation",
        code: "code",
        collection: "collection",
        record_id: "recordId",
        seq: "seq",
        record: "record",
        version: "version",
        updated_at: "updatedAt",
        user_id: "userId",
    }
}

impl Envelope<'_> {
    pub(super) fn error_message(&self, limits: &Limits) -> Result<ErrorMessage, Fault> {
        // an error is mainly for people: unreadable parts of it are left out
        let code = self.fields.code.text("code").unwrap_or(None).unwrap_or_default();
        let message = self.fields.error.text("error").unwrap_or(None);
        let m = &self.metadata;
        Ok(ErrorMessage {
            message: kept_text(message.as_deref().unwrap_or(&code)).into(),
            code: ErrorCode::parse(kept_text(&code)),
            retry_after_ms: m.retry_after_ms.number("retryAfterMs").unwrap_or(None),
            mutation: self.number()?,
            collection: self.any_collection().unwrap_or(None),
            record_id: self.any_record_id().unwrap_or(None),
            current: current(m.seq, m.record, [m.version, m.updated_at, m.user_id], limits)?,
            failed: failed(m.failed, limits)?,
        })
    }
}

fn failed(list: Field<'_>, limits: &Limits) -> Result<Vec<FailedMember>, Fault> {
    const FAILED: &str = "metadata.failed";
    let one = |field: Field<'_>| {
        let member: Failed<'_> = required(field.object(FAILED)?, FAILED)?;
        let m = &member;
        let number = required(m.mutation.number("metadata.failed[].mutation")?, FAILED)?;
        let code = required(m.code.text("metadata.failed[].code")?, FAILED)?;
        let collection = m.collection.name("metadata.failed[].collection", Collection::new)?;
        let record_id = m.record_id.name("metadata.failed[].recordId", RecordId::new)?;
        Ok(FailedMember {
            mutation: MutationNumber(number),
            code: ErrorCode::parse(kept_text(&code)),
            collection: required(collection, "metadata.failed[].collection")?,
            record_id: required(record_id, "metadata.failed[].recordId")?,
            current: current(m.seq, m.record, [m.version, m.updated_at, m.user_id], limits)?,
        })
    };
    list.list(FAILED, Unit::MAX_MEMBERS)?.unwrap_or_default().into_iter().map(one).collect()
}

/// The record's state in a `CONFLICT`. Version, time and author of a deletion are beside `record`.
fn current(
    seq: Field<'_>,
    record: Field<'_>,
    [version, updated_at, user_id]: [Field<'_>; 3],
    limits: &Limits,
) -> Result<Option<ServerChange>, Fault> {
    let Some(seq) = seq.number("metadata.seq")?.map(Seq) else { return Ok(None) };
    let Some(record) = record.object::<Record<'_>>("metadata.record")? else {
        return Ok(Some(ServerChange {
            change: Change::delete(),
            seq: Some(seq),
            version: version.number("metadata.version")?,
            timestamp: updated_at.timestamp("metadata.updatedAt")?,
            at: Vec::new(),
            user_id: user_id.name("metadata.userId", UserId::new)?,
        }));
    };
    let data = record.data.document("metadata.record.data", limits)?;
    Ok(Some(ServerChange {
        change: Change::insert(required(data, "metadata.record.data")?),
        seq: Some(seq),
        version: record.version.number("metadata.record.version")?,
        timestamp: record.updated_at.timestamp("metadata.record.updatedAt")?,
        at: at(record.at, true, limits)?,
        user_id: record.user_id.name("metadata.record.userId", UserId::new)?,
    }))
}
