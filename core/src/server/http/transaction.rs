//! `POST /sync/transaction`: level-1 writes of any collections that take effect together.

use alloc::format;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::plain::{Text, document, json, timestamp};
use super::{Call, ExpectedReply, Reply, Request, WriteCall, invalid};
use crate::protocol::delta::Delta;
use crate::protocol::document::write_json_string;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::unit::Unit;
use crate::protocol::write::Change;
use crate::rules::transaction::{Outcome, PlainUnit, PlainWrite, Transaction, Verdict};
use crate::server::limits::ServerLimits;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    writes: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WriteBody<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    collection: Text<'a>,
    #[serde(rename = "recordId", borrow)]
    record_id: Text<'a>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "baseVersion")]
    base_version: Option<u64>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
}

pub(super) fn call(request: &Request<'_>, limits: &ServerLimits) -> Result<Call, Reply> {
    let Body { writes } = json(request.body, "{writes: [{type, collection, recordId, data}, …]}")?;
    let (count, most) = (writes.len(), Unit::MAX_MEMBERS);
    if count > most {
        let message = format!("a transaction has {count} writes, at most {most} are taken");
        return Err(Reply::error(ErrorCode::PayloadTooLarge, &message));
    }
    if count == 0 {
        return Err(invalid("`writes` is empty: a transaction has at least one write"));
    }
    let of_one = |(index, write): (usize, &&RawValue)| {
        read(write, request, limits).map_err(|(code, message)| failed(&message, &[(index, code)]))
    };
    let writes = writes.iter().enumerate().map(of_one).collect::<Result<_, _>>()?;
    let transaction = Transaction::PlainUnit(PlainUnit {
        user: request.user.clone(),
        writes,
        past_policy: false,
    });
    Ok(Call::Transact(WriteCall::new(transaction, ExpectedReply::PlainUnit)))
}

fn read(
    write: &RawValue,
    request: &Request<'_>,
    limits: &ServerLimits,
) -> Result<PlainWrite, (ErrorCode, alloc::string::String)> {
    let wrong = |message| (ErrorCode::InvalidMessage, message);
    let body: WriteBody<'_> = serde_json::from_str(write.get()).map_err(|error| {
        wrong(format!("a write is {{type, collection, recordId, data}}: {error}"))
    })?;
    let document = || match body.data {
        Some(data) => document(data, "data", limits),
        None => Err((ErrorCode::InvalidMessage, "`data` is missing".into())),
    };
    let change = match &*body.kind.0 {
        "insert" => Change::insert(document()?),
        "update" => Change::update(Delta::new(document()?, Vec::new())),
        "delete" => Change::delete(),
        other => {
            return Err(wrong(format!("{other:?} is no write: insert, update and delete are")));
        }
    };
    Ok(PlainWrite {
        user: request.user.clone(),
        collection: Collection::new(&body.collection.0)
            .map_err(|error| wrong(format!("`collection` is not valid: {error}")))?,
        record_id: RecordId::new(&body.record_id.0)
            .map_err(|error| wrong(format!("`recordId` is not valid: {error}")))?,
        change,
        timestamp: timestamp(body.timestamp).map_err(wrong)?,
        base_version: body.base_version,
    })
}

/// The reply to a transaction with one outcome for each write, in order.
pub(super) fn reply(outcomes: &[Outcome]) -> Reply {
    let fails = |(index, outcome): (usize, &Outcome)| match &outcome.verdict {
        Verdict::Conflict { .. } => Some((
            index,
            ErrorCode::Conflict,
            "a field of the write was changed after `baseVersion`".into(),
        )),
        Verdict::Refused { code, message } => Some((index, code.clone(), message.clone())),
        Verdict::Superseded | Verdict::OutOfOrder { .. } => {
            Some((index, ErrorCode::ServerError, "the server mixed up its answers".into()))
        }
        Verdict::Applied { .. } | Verdict::Unchanged { .. } => None,
    };
    let failing: Vec<_> = outcomes.iter().enumerate().filter_map(fails).collect();
    if let Some((index, _, message)) = failing.first() {
        let message = format!("nothing was changed, write {index} failed: {message}");
        let failing: Vec<_> =
            failing.iter().map(|(index, code, _)| (*index, code.clone())).collect();
        return failed(&message, &failing);
    }
    let mut body = Vec::from(b"{\"results\":[".as_slice());
    for (i, outcome) in outcomes.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(b"{\"collection\":");
        write_json_string(&mut body, &outcome.collection);
        body.extend_from_slice(b",\"recordId\":");
        write_json_string(&mut body, &outcome.record_id);
        let version = match outcome.verdict {
            Verdict::Applied { version, .. } => Some(version),
            Verdict::Unchanged { version } => version,
            Verdict::Conflict { .. }
            | Verdict::Refused { .. }
            | Verdict::Superseded
            | Verdict::OutOfOrder { .. } => None,
        };
        if let Some(version) = version {
            body.extend_from_slice(format!(",\"version\":{version}").as_bytes());
        }
        let at = outcome.committed_at;
        body.extend_from_slice(format!(",\"updatedAt\":\"{at}\"}}").as_bytes());
    }
    body.extend_from_slice(b"]}");
    Reply::json(200, body)
}

/// The refusal of a transaction, with the status of the first of the writes that failed.
fn failed(message: &str, failing: &[(usize, ErrorCode)]) -> Reply {
    let code = failing.first().map_or(ErrorCode::ServerError, |(_, code)| code.clone());
    let mut body = super::error_body(&code, message);
    body.pop();
    body.extend_from_slice(b",\"failed\":[");
    for (i, (index, code)) in failing.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(format!("{{\"index\":{index},\"code\":").as_bytes());
        write_json_string(&mut body, code.as_str());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    Reply { body, ..Reply::error(code, message) }
}
