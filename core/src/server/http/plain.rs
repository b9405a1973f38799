//! The calls of level 1: single records and queries.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Bound;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Call, ExpectedReply, ReadCall, Reply, Request, Wanted, WriteCall, invalid, reader};
use crate::protocol::delta::Delta;
use crate::protocol::document::{Document, DocumentError, json_string, write_json_string};
use crate::protocol::json::check as check_json;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::page::{FoundRecord, HttpQuery, ReadRequest};
use crate::rules::policy::Policy;
use crate::rules::query::{Predicate, Query, QueryError, parse_order};
use crate::rules::transaction::{Outcome, PlainWrite, Transaction, Verdict};
use crate::server::limits::ServerLimits;

#[derive(Deserialize)]
struct InsertBody<'a> {
    #[serde(rename = "recordId", borrow)]
    record_id: Text<'a>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct UpdateBody<'a> {
    #[serde(borrow)]
    delta: &'a RawValue,
    #[serde(rename = "baseVersion")]
    base_version: Option<u64>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
}

/// A text that borrows where it can.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

pub(super) fn insert(
    request: &Request<'_>,
    collection: Collection,
    limits: &ServerLimits,
) -> Result<Call, Reply> {
    let body: InsertBody<'_> = json(request.body, "{recordId, data, timestamp}")?;
    let record = RecordId::new(&body.record_id.0)
        .map_err(|error| invalid(&format!("`recordId` is not valid: {error}")))?;
    let document = document(body.data, "data", limits).map_err(refused)?;
    let timestamp = timestamp(body.timestamp).map_err(|message| invalid(&message))?;
    Ok(write(request, collection, record, Change::insert(document), timestamp, None))
}

pub(super) fn update(
    request: &Request<'_>,
    collection: Collection,
    record: RecordId,
    limits: &ServerLimits,
) -> Result<Call, Reply> {
    let body: UpdateBody<'_> = json(request.body, "{delta, baseVersion, timestamp}")?;
    let set = document(body.delta, "delta", limits).map_err(refused)?;
    let change = Change::update(Delta::new(set, Vec::new()));
    let timestamp = timestamp(body.timestamp).map_err(|message| invalid(&message))?;
    Ok(write(request, collection, record, change, timestamp, body.base_version))
}

fn write(
    request: &Request<'_>,
    collection: Collection,
    record_id: RecordId,
    change: Change,
    timestamp: Option<Timestamp>,
    base_version: Option<u64>,
) -> Call {
    let kind = change.kind;
    let transaction = Transaction::Plain(PlainWrite {
        user: request.user.clone(),
        collection,
        record_id: record_id.clone(),
        change,
        timestamp,
        base_version,
    });
    Call::Transact(WriteCall::new(transaction, ExpectedReply::Plain { record_id, kind }))
}

pub(super) fn delete(request: &Request<'_>, collection: Collection, record: RecordId) -> Call {
    write(request, collection, record, Change::delete(), None, None)
}

pub(super) fn query(
    request: &Request<'_>,
    collection: Collection,
    parameters: Vec<(String, String)>,
    limits: &ServerLimits,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let query = parse_query(parameters)?;
    let reader = reader(request, collection, &query.scope, policy)?;
    let request = ReadRequest::Query { reader, query, bytes: limits.answer_bytes };
    Ok(Call::Read(ReadCall::new(request, Wanted::Records)))
}

/// Of a query's parameters those count that choose fields.
pub(super) fn record(
    request: &Request<'_>,
    collection: Collection,
    id: RecordId,
    parameters: Vec<(String, String)>,
    limits: &ServerLimits,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let reader = reader(request, collection, &[], policy)?;
    let HttpQuery { fields, exclude_fields, .. } = parse_query(parameters)?;
    let query = HttpQuery { id: Some(id), fields, exclude_fields, ..HttpQuery::default() };
    let request = ReadRequest::Query { reader, query, bytes: limits.answer_bytes };
    Ok(Call::Read(ReadCall::new(request, Wanted::Record)))
}

/// Parameters that this version does not know are ignored, as apps of SyncLayer 1.7 expect it, unless
/// the query has conditions, an order or a cursor of this version.
fn parse_query(parameters: Vec<(String, String)>) -> Result<HttpQuery, Reply> {
    let mut query = HttpQuery::default();
    let (mut condition, mut order, mut after, mut unknown) = (None, None, None, None);
    for (name, value) in parameters {
        match name.as_str() {
            "since" => query.since = Some(since(&value)?),
            "limit" => query.limit = Some(number(&name, &value)?),
            "offset" => query.offset = number(&name, &value)?,
            "fields" => query.fields.extend(names(&value)),
            "excludeFields" => query.exclude_fields.extend(names(&value)),
            "where" => condition = Some(value),
            "orderBy" => order = Some(value),
            "after" => after = Some(value),
            _ => match (within(&name, "where[", "]"), scope_part(&name, &value)?) {
                (Some(field), _) => query.conditions.push((field.to_string(), value)),
                (None, Some(part)) => query.scope.push(part),
                (None, None) => unknown = unknown.or(Some(name)),
            },
        }
    }
    if condition.is_none() && order.is_none() && after.is_none() {
        return Ok(query);
    }
    if let Some(name) = unknown {
        return Err(invalid(&format!(
            "there is no parameter `{name}`; beside `where`, `orderBy` and `after` there are `limit`, \
             `offset`, `since`, `fields`, `excludeFields`, `where[field]` and `scope[field]`"
        )));
    }
    let wrong = |name: &str, error: QueryError| invalid(&format!("`{name}`: {error}"));
    let mut chosen = Query { offset: query.offset, ..Query::default() };
    // one more tells whether there are more
    chosen.limit = query.limit.map(|limit| limit.saturating_add(1));
    if let Some(condition) = condition {
        chosen.predicate = Predicate::parse(&condition).map_err(|error| wrong("where", error))?;
    }
    if let Some(order) = order {
        chosen.order = parse_order(&order).map_err(|error| wrong("orderBy", error))?;
    }
    if let Some(after) = after {
        let cursor = chosen.parse_cursor(&after).map_err(|error| wrong("after", error))?;
        chosen.start = Bound::Excluded(cursor);
    }
    chosen.check().map_err(|error| wrong("orderBy", error))?;
    query.query = Some(Box::new(chosen));
    Ok(query)
}

fn within<'n>(name: &'n str, begin: &str, end: &str) -> Option<&'n str> {
    name.strip_prefix(begin)?.strip_suffix(end)
}

/// A part of a scope key with the JSON text of its value: `scope[field]=text` or `scope[field]:=JSON`.
fn scope_part(name: &str, value: &str) -> Result<Option<(String, String)>, Reply> {
    if let Some(part) = within(name, "scope[", "]:") {
        check_json(value).map_err(|_| {
            invalid(&format!("`{name}` is not JSON: `scope[{part}]` without `:` takes a text"))
        })?;
        return Ok(Some((part.to_string(), value.trim().to_string())));
    }
    let Some(part) = within(name, "scope[", "]") else { return Ok(None) };
    Ok(Some((part.to_string(), json_string(value))))
}

/// A `+` that was not encoded has become a space.
fn since(value: &str) -> Result<Timestamp, Reply> {
    Timestamp::parse(value)
        .or_else(|| Timestamp::parse(&value.replace(' ', "+")))
        .ok_or_else(|| invalid("`since` is not an ISO 8601 timestamp"))
}

fn number(name: &str, value: &str) -> Result<usize, Reply> {
    value.parse().map_err(|_| invalid(&format!("`{name}` is not a number")))
}

fn names(value: &str) -> impl Iterator<Item = String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from)
}

pub(super) fn json<'a, T: Deserialize<'a>>(body: &'a [u8], shape: &str) -> Result<T, Reply> {
    serde_json::from_slice(body)
        .map_err(|error| invalid(&format!("the body has to be JSON like {shape}: {error}")))
}

pub(super) fn document(
    raw: &RawValue,
    name: &str,
    limits: &ServerLimits,
) -> Result<Document, (ErrorCode, String)> {
    Document::parse(raw.get(), &limits.input).map_err(|error| {
        let too_large = matches!(error, DocumentError::TooLarge { .. });
        let code = if too_large { ErrorCode::PayloadTooLarge } else { ErrorCode::InvalidMessage };
        (code, format!("`{name}`: {error}"))
    })
}

fn refused((code, message): (ErrorCode, String)) -> Reply {
    Reply::error(code, &message)
}

pub(super) fn timestamp(text: Option<Text<'_>>) -> Result<Option<Timestamp>, String> {
    let wrong = || String::from("`timestamp` is not an ISO 8601 timestamp");
    text.map(|text| Timestamp::parse(&text.0).ok_or_else(wrong)).transpose()
}

/// The reply to a single write.
pub(super) fn written(record_id: RecordId, kind: WriteKind, outcome: Outcome) -> Reply {
    let Outcome { committed_at, verdict, .. } = outcome;
    let version = match verdict {
        Verdict::Applied { version, .. } => Some(version),
        Verdict::Unchanged { version } => version,
        Verdict::Refused { code, message } => return Reply::error(code, &message),
        Verdict::Conflict { current } => {
            let document = current.change.apply(None);
            let version = current.version;
            let message = "a field of the delta was changed after `baseVersion`";
            let mut body = super::error_body(&ErrorCode::Conflict, message);
            body.pop();
            body.extend_from_slice(b",\"record\":");
            match document {
                Some(document) => {
                    let found = FoundRecord {
                        id: record_id,
                        document,
                        updated_at: committed_at,
                        version: version.unwrap_or(0),
                    };
                    put_record(&mut body, &found);
                }
                None => body.extend_from_slice(b"null"),
            }
            body.push(b'}');
            return Reply::json(ErrorCode::Conflict.http_status(), body);
        }
        Verdict::Superseded | Verdict::OutOfOrder { .. } => {
            return Reply::error(ErrorCode::ServerError, "the server mixed up its answers");
        }
    };
    if kind == WriteKind::Delete {
        return Reply { status: 204, headers: Vec::new(), body: Vec::new() };
    }
    let mut body = Vec::from(b"{\"recordId\":".as_slice());
    write_json_string(&mut body, &record_id);
    if let Some(version) = version {
        body.extend_from_slice(format!(",\"version\":{version}").as_bytes());
    }
    body.extend_from_slice(format!(",\"updatedAt\":\"{committed_at}\"}}").as_bytes());
    Reply::json(200, body)
}

/// The reply to a query; `None` stands for records that would be too large.
pub(super) fn found(request: &ReadRequest, records: Option<Vec<FoundRecord>>) -> Reply {
    let Some(mut records) = records else {
        let message =
            "the answer would be too large: ask with `limit` and `offset`, or for fewer `fields`";
        return Reply::error(ErrorCode::PayloadTooLarge, message);
    };
    let mut next = None;
    if let ReadRequest::Query { query: http, .. } = request
        && let Some(query) = &http.query
    {
        let limit = http.limit.unwrap_or(usize::MAX);
        if records.len() > limit {
            records.truncate(limit);
            next = records.last().map(|last| query.cursor(&last.id, &last.document));
        }
        for record in &mut records {
            record.document = http.project(&record.document);
        }
    }
    let mut body = Vec::from(b"{\"records\":[".as_slice());
    for (i, record) in records.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        put_record(&mut body, record);
    }
    if let Some(next) = next {
        body.extend_from_slice(format!("],\"next\":\"{next}\"").as_bytes());
    } else {
        body.push(b']');
    }
    // by which a client knows that something else on the way did not know its hello
    body.extend_from_slice(b",\"protocol\":2}");
    Reply::json(200, body)
}

/// The reply to a request for one record; `None` stands for one that would be too large.
pub(super) fn found_one(records: Option<Vec<FoundRecord>>) -> Reply {
    let Some(records) = records else {
        let message = "the answer would be too large: ask for fewer `fields`";
        return Reply::error(ErrorCode::PayloadTooLarge, message);
    };
    let Some(record) = records.first() else {
        return Reply::error(ErrorCode::RecordNotFound, "there is no such record to read");
    };
    let mut body = Vec::new();
    put_record(&mut body, record);
    Reply::json(200, body)
}

fn put_record(out: &mut Vec<u8>, record: &FoundRecord) {
    out.extend_from_slice(b"{\"recordId\":");
    write_json_string(out, &record.id);
    out.extend_from_slice(b",\"data\":");
    record.document.write_json(out);
    let (at, version) = (record.updated_at, record.version);
    out.extend_from_slice(format!(",\"updatedAt\":\"{at}\",\"version\":{version}}}").as_bytes());
}
