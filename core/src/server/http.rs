//! The HTTP API as a pure function: a request becomes a reply, or a transaction or a read whose
//! outcome becomes one. Adapters only move the bytes.
//!
//! ```text
//! call(request, …) ─┬─ Call::Immediate(reply)
//!                   ├─ Call::Transact(write)   write.transaction() … write.reply(outcome)
//!                   └─ Call::Read(read)        read.request()      … read.reply(outcome)
//! ```

use core::time::Duration;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::rules::page::{FoundRecord, Query, ReadAnswer, ReadRequest, Reader};
use crate::rules::policy::{Access, Policy};
use crate::rules::transaction::{Answer, Outcome, PlainWrite, TransactError, Transaction, Verdict};
use crate::words::delta::Delta;
use crate::words::document::{Document, DocumentError, write_json_string};
use crate::words::limits::Limits;
use crate::words::message::ErrorCode;
use crate::words::name::{Collection, RecordId, UserId};
use crate::words::percent;
use crate::words::store::StoreError;
use crate::words::time::Timestamp;
use crate::words::write::{Change, WriteKind};

/// A request as it came, its token checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The path, percent-encoded, without the query.
    pub path: &'a str,
    /// What follows the `?`, percent-encoded; empty where there is none.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Whose token it carried; `None` where the server knows no users.
    pub user: Option<UserId>,
}

/// What the HTTP calls of a server have in common.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// The bounds on what is read.
    pub limits: Limits,
    /// About the most bytes of records in one answer. Default 16 MiB.
    pub answer_bytes: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { limits: Limits::default(), answer_bytes: 16 << 20 }
    }
}

/// What a request needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Nothing: this is the reply.
    Immediate(Reply),
    /// A transaction.
    Transact(WriteCall),
    /// A read.
    Read(ReadCall),
}

/// A request that writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteCall {
    transaction: Transaction,
    record_id: RecordId,
    kind: WriteKind,
}

/// A request that reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadCall {
    request: ReadRequest,
}

/// What goes back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body: JSON, or nothing.
    pub body: Vec<u8>,
}

/// What a request becomes.
#[must_use]
pub fn call(request: &Request<'_>, config: &HttpConfig, policy: &dyn Policy) -> Call {
    plan(request, config, policy).unwrap_or_else(Call::Immediate)
}

/// A refusal is the `Err`.
fn plan(request: &Request<'_>, config: &HttpConfig, policy: &dyn Policy) -> Result<Call, Reply> {
    let max = config.limits.frame_bytes;
    if request.body.len() > max {
        let message = format!("the body has {} bytes, at most {max} are read", request.body.len());
        return Err(Reply::error(ErrorCode::PayloadTooLarge, &message));
    }
    let (collection, record) = target(request.path)?;
    match (request.method, record) {
        ("GET", None) => query(request, collection, config, policy),
        ("POST", None) => insert(request, collection, config),
        ("PATCH", Some(record)) => update(request, collection, record, config),
        ("DELETE", Some(record)) => {
            Ok(write(request, collection, record, Change::delete(), None, None))
        }
        (_, None) => Err(Reply::not_allowed("GET, POST")),
        (_, Some(_)) => Err(Reply::not_allowed("PATCH, DELETE")),
    }
}

/// The names in `/sync/{collection}` and `/sync/{collection}/{recordId}`.
fn target(path: &str) -> Result<(Collection, Option<RecordId>), Reply> {
    let unknown = || {
        let message = "there is nothing here: the calls are /sync/{collection} and \
                       /sync/{collection}/{recordId}";
        Reply::error(ErrorCode::CollectionNotFound, message)
    };
    let mut parts = path.strip_prefix("/sync/").ok_or_else(unknown)?.split('/');
    let name = |part: &str, what: &str| -> Result<String, Reply> {
        percent::decode(part, false).ok_or_else(|| {
            invalid(&format!("the {what} in the path is not valid percent-encoding"))
        })
    };
    let collection = name(parts.next().unwrap_or_default(), "collection")?;
    let collection = Collection::new(&collection)
        .map_err(|error| invalid(&format!("the collection's name is not valid: {error}")))?;
    let record = parts.next().map(|part| name(part, "record id")).transpose()?;
    let record = record
        .map(|id| RecordId::new(&id))
        .transpose()
        .map_err(|error| invalid(&format!("the record id is not valid: {error}")))?;
    if parts.next().is_some() { Err(unknown()) } else { Ok((collection, record)) }
}

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
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn insert(
    request: &Request<'_>,
    collection: Collection,
    config: &HttpConfig,
) -> Result<Call, Reply> {
    let body: InsertBody<'_> = json(request.body, "{recordId, data, timestamp}")?;
    let record = RecordId::new(&body.record_id.0)
        .map_err(|error| invalid(&format!("`recordId` is not valid: {error}")))?;
    let document = document(body.data, "data", config)?;
    let timestamp = timestamp(body.timestamp)?;
    Ok(write(request, collection, record, Change::insert(document), timestamp, None))
}

fn update(
    request: &Request<'_>,
    collection: Collection,
    record: RecordId,
    config: &HttpConfig,
) -> Result<Call, Reply> {
    let body: UpdateBody<'_> = json(request.body, "{delta, baseVersion, timestamp}")?;
    let set = document(body.delta, "delta", config)?;
    let change = Change::update(Delta::new(set, Vec::new()));
    let timestamp = timestamp(body.timestamp)?;
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
    Call::Transact(WriteCall { transaction, record_id, kind })
}

fn query(
    request: &Request<'_>,
    collection: Collection,
    config: &HttpConfig,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let access = policy.read(request.user.as_ref(), &collection);
    if access == Access::None {
        return Err(Reply::error(ErrorCode::Unauthorized, "this user may not read the collection"));
    }
    let query = parse_query(request.query)?;
    let reader = Reader { collection, user: request.user.clone(), partial: access == Access::Some };
    let request = ReadRequest::Query { reader, query, bytes: config.answer_bytes };
    Ok(Call::Read(ReadCall { request }))
}

/// Parameters that this version does not know are ignored, except those of level 2.
fn parse_query(text: &str) -> Result<Query, Reply> {
    let mut query = Query::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |part| {
            percent::decode(part, true)
                .ok_or_else(|| invalid("the query is not valid percent-encoding"))
        };
        let (name, value) = (decoded(name)?, decoded(value)?);
        match name.as_str() {
            "since" => query.since = Some(since(&value)?),
            "limit" => query.limit = Some(number(&name, &value)?),
            "offset" => query.offset = number(&name, &value)?,
            "fields" => query.fields.extend(names(&value)),
            "excludeFields" => query.exclude_fields.extend(names(&value)),
            "epoch" | "seq" | "resume" => {
                return Err(invalid("catching up by HTTP is not supported yet: use the WebSocket"));
            }
            _ => {
                let field = name.strip_prefix("where[").and_then(|rest| rest.strip_suffix(']'));
                query.conditions.extend(field.map(|field| (field.to_string(), value)));
            }
        }
    }
    Ok(query)
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

fn json<'a, T: Deserialize<'a>>(body: &'a [u8], shape: &str) -> Result<T, Reply> {
    serde_json::from_slice(body)
        .map_err(|error| invalid(&format!("the body has to be JSON like {shape}: {error}")))
}

fn document(raw: &RawValue, name: &str, config: &HttpConfig) -> Result<Document, Reply> {
    Document::parse(raw.get(), &config.limits).map_err(|error| {
        let too_large = matches!(error, DocumentError::TooLarge { .. });
        let code = if too_large { ErrorCode::PayloadTooLarge } else { ErrorCode::InvalidMessage };
        Reply::error(code, &format!("`{name}`: {error}"))
    })
}

fn timestamp(text: Option<Text<'_>>) -> Result<Option<Timestamp>, Reply> {
    let parse = |text: Text<'_>| {
        Timestamp::parse(&text.0).ok_or_else(|| invalid("`timestamp` is not an ISO 8601 timestamp"))
    };
    text.map(parse).transpose()
}

fn invalid(message: &str) -> Reply {
    Reply::error(ErrorCode::InvalidMessage, message)
}

impl WriteCall {
    /// What to decide and commit.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// The reply, once the outcome is durable or known to be missing.
    #[must_use]
    pub fn reply(self, outcome: Result<Answer, TransactError>) -> Reply {
        match outcome {
            Ok(Answer::Plain(outcome)) => self.tell(outcome),
            Ok(Answer::Hello(_) | Answer::Writes(_) | Answer::Swept(_) | Answer::Begun) => {
                Reply::error(ErrorCode::ServerError, "the server mixed up its answers")
            }
            Err(TransactError::Failed(_)) => Reply {
                status: 503,
                ..Reply::error(
                    ErrorCode::ServerError,
                    "the server's database failed: nothing was changed, try again",
                )
            },
            Err(TransactError::Unknown(_)) => Reply::error(
                ErrorCode::ServerError,
                "the server's database failed: the write may have happened, read before you try again",
            ),
        }
    }

    fn tell(self, outcome: Outcome) -> Reply {
        let Outcome { committed_at, verdict, .. } = outcome;
        let version = match verdict {
            Verdict::Applied { version, .. } => Some(version),
            Verdict::Unchanged { version } => version,
            Verdict::Refused { code, message } => return Reply::error(code, &message),
            Verdict::Conflict { current } => {
                let document = current.change.apply(None);
                let version = current.version;
                let message = "a field of the delta was changed after `baseVersion`";
                let mut body = error_body(&ErrorCode::Conflict, message);
                body.pop();
                body.extend_from_slice(b",\"record\":");
                match document {
                    Some(document) => {
                        let found = FoundRecord {
                            id: self.record_id,
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
        if self.kind == WriteKind::Delete {
            return Reply { status: 204, headers: Vec::new(), body: Vec::new() };
        }
        let mut body = Vec::from(b"{\"recordId\":".as_slice());
        write_json_string(&mut body, &self.record_id);
        if let Some(version) = version {
            body.extend_from_slice(format!(",\"version\":{version}").as_bytes());
        }
        body.extend_from_slice(format!(",\"updatedAt\":\"{committed_at}\"}}").as_bytes());
        Reply::json(200, body)
    }
}

impl ReadCall {
    /// What to read.
    #[must_use]
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// The reply.
    #[must_use]
    pub fn reply(self, outcome: Result<ReadAnswer, StoreError>) -> Reply {
        match outcome {
            Ok(ReadAnswer::Found(Some(records))) => {
                let mut body = Vec::from(b"{\"records\":[".as_slice());
                for (i, record) in records.iter().enumerate() {
                    if i > 0 {
                        body.push(b',');
                    }
                    put_record(&mut body, record);
                }
                body.extend_from_slice(b"]}");
                Reply::json(200, body)
            }
            Ok(ReadAnswer::Found(None)) => Reply::error(
                ErrorCode::PayloadTooLarge,
                "the answer would be too large: ask with `limit` and `offset`, or for fewer `fields`",
            ),
            Ok(ReadAnswer::Page(_) | ReadAnswer::Whole(_)) => {
                Reply::error(ErrorCode::ServerError, "the server mixed up its answers")
            }
            Err(_) => Reply {
                status: 503,
                ..Reply::error(
                    ErrorCode::ServerError,
                    "the server could not read its database: try again",
                )
            },
        }
    }
}

impl Reply {
    /// A refusal: `{"error": …, "code": …}` with the code's status.
    #[must_use]
    pub fn error(code: ErrorCode, message: &str) -> Self {
        let status = code.http_status();
        let mut reply = Self::json(status, error_body(&code, message));
        if status == 401 {
            reply.headers.push(("www-authenticate", "Bearer".into()));
        }
        reply
    }

    /// The refusal of one who has used up a [`Bucket`](crate::rules::policy::Bucket).
    #[must_use]
    pub fn slow_down(wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min((1 << 53) - 1);
        let mut body = error_body(&ErrorCode::RateLimitExceeded, "too many requests: slow down");
        body.pop();
        body.extend_from_slice(format!(",\"retryAfterMs\":{millis}}}").as_bytes());
        let mut reply = Self::json(ErrorCode::RateLimitExceeded.http_status(), body);
        reply.headers.push(("retry-after", millis.div_ceil(1000).to_string().into()));
        reply
    }

    fn not_allowed(methods: &'static str) -> Self {
        let message = format!("the methods here are {methods}");
        let mut reply = Self { status: 405, ..invalid(&message) };
        reply.headers.push(("allow", methods.into()));
        reply
    }

    fn json(status: u16, body: Vec<u8>) -> Self {
        let headers = Vec::from([
            ("content-type", "application/json".into()),
            ("cache-control", "no-store".into()),
        ]);
        Self { status, headers, body }
    }
}

fn error_body(code: &ErrorCode, message: &str) -> Vec<u8> {
    let mut body = Vec::from(b"{\"error\":".as_slice());
    write_json_string(&mut body, message);
    body.extend_from_slice(b",\"code\":");
    write_json_string(&mut body, code.as_str());
    body.push(b'}');
    body
}

fn put_record(out: &mut Vec<u8>, record: &FoundRecord) {
    out.extend_from_slice(b"{\"recordId\":");
    write_json_string(out, &record.id);
    out.extend_from_slice(b",\"data\":");
    record.document.write_json(out);
    let (at, version) = (record.updated_at, record.version);
    out.extend_from_slice(format!(",\"updatedAt\":\"{at}\",\"version\":{version}}}").as_bytes());
}

#[cfg(test)]
mod tests;
