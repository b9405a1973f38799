//! The calls of a plain (level-1) HTTP API: encoding of requests, decoding of answers.
//!
//! Writing is strict, reading is liberal: hand-written backends leave out versions and times, call
//! a record's id `id`, give lists without an object around them, and answer a failure in HTML.

use core::fmt::Write;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_64;

use super::document::{Document, DocumentError, json_string, write_json_string};
use super::json::{self, Broken};
use super::limits::Limits;
use super::message::ErrorCode;
use super::name::{Collection, RecordId};
use super::percent;
use super::time::Timestamp;
use super::write::Change;

/// The maximal length, in characters, of a server's text in a message for people.
const SHOWN_CHARS: usize = 200;

/// A record in a plain server's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlainRecord {
    pub(crate) id: RecordId,
    pub(crate) document: Document,
    pub(crate) version: Option<u64>,
    pub(crate) updated_at: Option<Timestamp>,
}

/// The answer to a query.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PlainPage {
    /// The rows in the server's order; for an unreadable one, a hash of its text.
    pub(crate) rows: Vec<Result<PlainRecord, u64>>,
    /// The error of the first unreadable row.
    pub(crate) unreadable: Option<String>,
    /// `true` if the server declares that it also speaks level 2.
    pub(crate) resumable: bool,
}

/// A plain server's answer to a successful write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Written {
    pub(crate) version: Option<u64>,
    pub(crate) updated_at: Option<Timestamp>,
}

/// A plain server's answer with a status that is no success.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// The code in the body, if there is one.
    pub(crate) code: Option<ErrorCode>,
    /// The text for people: the server's own, if it sent one.
    pub(crate) message: String,
    pub(crate) retry_after_ms: Option<u64>,
    /// `true` if the body is JSON. An answer of a proxy is not.
    pub(crate) json: bool,
}

/// An error of reading an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the answer is not UTF-8")]
    NotText,
    #[error("the answer is not JSON ({0}); it begins with {1:?}")]
    NotJson(String, String),
    #[error("the answer is JSON but holds no list of records; it begins with {0:?}")]
    NoRecords(String),
}

/// `/sync/{collection}`.
pub(crate) fn collection_path(collection: &Collection) -> String {
    let mut path = String::from("/sync/");
    percent::encode_segment(collection, &mut path);
    path
}

/// `/sync/{collection}/{recordId}`.
pub(crate) fn record_path(collection: &Collection, id: &RecordId) -> String {
    let mut path = collection_path(collection);
    path.push('/');
    percent::encode_segment(id, &mut path);
    path
}

/// `/sync/{collection}?since=…&limit=…&offset=…`; an offset of 0 is left out.
pub(crate) fn query_path(
    collection: &Collection,
    since: Option<Timestamp>,
    limit: usize,
    offset: usize,
) -> String {
    let mut path = collection_path(collection);
    path.push('?');
    if let Some(since) = since {
        path.push_str("since=");
        percent::encode(&since.to_string(), &mut path);
        path.push('&');
    }
    // writing to a text does not fail
    let _ = write!(path, "limit={limit}");
    if offset > 0 {
        let _ = write!(path, "&offset={offset}");
    }
    path
}

/// The body of a `POST`.
pub(crate) fn insert_body(id: &RecordId, document: &Document, at: Timestamp) -> Vec<u8> {
    let mut body = Vec::with_capacity(document.size() + id.len() + 80);
    body.extend_from_slice(b"{\"recordId\":");
    write_json_string(&mut body, id);
    body.extend_from_slice(b",\"data\":");
    document.write_json(&mut body);
    put_timestamp(&mut body, at);
    body
}

/// The body of a `PATCH`. A removed field becomes a null, because level 1 can't express a removal.
pub(crate) fn update_body(change: &Change, base_version: Option<u64>, at: Timestamp) -> Vec<u8> {
    let mut body = Vec::with_capacity(change.delta.set.size() + 80);
    body.extend_from_slice(b"{\"delta\":{");
    for (i, (name, text)) in change.delta.fields().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        write_json_string(&mut body, name);
        body.push(b':');
        body.extend_from_slice(text.unwrap_or("null").as_bytes());
    }
    body.push(b'}');
    if let Some(version) = base_version {
        body.extend_from_slice(format!(",\"baseVersion\":{version}").as_bytes());
    }
    put_timestamp(&mut body, at);
    body
}

fn put_timestamp(body: &mut Vec<u8>, at: Timestamp) {
    body.extend_from_slice(format!(",\"timestamp\":\"{at}\"}}").as_bytes());
}

/// The fields that are read from any answer.
#[derive(Default)]
struct AnswerFields<'a> {
    records: Option<&'a str>,
    id: Option<&'a str>,
    record_id: Option<&'a str>,
    data: Option<&'a str>,
    version: Option<&'a str>,
    updated_at: Option<&'a str>,
    record: Option<&'a str>,
    current: Option<&'a str>,
    error: Option<&'a str>,
    message: Option<&'a str>,
    code: Option<&'a str>,
    retry_after_ms: Option<&'a str>,
    protocol: Option<&'a str>,
    /// `true` if a field such as `success` is `true`, which only a success has (PROTOCOL 16.14).
    done: bool,
    deleted: bool,
}

impl<'a> AnswerFields<'a> {
    fn read(text: &'a str) -> Result<Self, Broken> {
        let mut answer = Self::default();
        json::members(text, |name, value| {
            let slot = match &*name {
                "records" => &mut answer.records,
                "id" => &mut answer.id,
                "recordId" | "record_id" => &mut answer.record_id,
                "data" => &mut answer.data,
                "version" => &mut answer.version,
                "updatedAt" | "updated_at" => &mut answer.updated_at,
                "record" => &mut answer.record,
                "current" => &mut answer.current,
                "error" => &mut answer.error,
                "message" => &mut answer.message,
                "code" => &mut answer.code,
                "retryAfterMs" => &mut answer.retry_after_ms,
                "protocol" => &mut answer.protocol,
                "success" | "ok" => {
                    answer.done |= value.text == "true";
                    return Ok(());
                }
                "deleted" => {
                    answer.deleted = value.text == "true";
                    return Ok(());
                }
                _ => return Ok(()),
            };
            if value.text != "null" {
                *slot = Some(value.text);
            }
            Ok::<(), Broken>(())
        })?;
        Ok(answer)
    }

    fn version(&self) -> Option<u64> {
        self.version?.parse().ok().filter(|version| *version < 1 << 53)
    }

    fn updated_at(&self) -> Option<Timestamp> {
        Timestamp::parse(&json::unescape(self.updated_at?)?)
    }

    fn written(&self) -> Written {
        Written { version: self.version(), updated_at: self.updated_at() }
    }

    fn record(&self, limits: &Limits) -> Result<PlainRecord, String> {
        let id = self.record_id.or(self.id).ok_or("a record has no id")?;
        // some backends count their records
        let id = match json::unescape(id) {
            Some(id) => id,
            None if id.bytes().all(|byte| byte.is_ascii_digit()) => Cow::Borrowed(id),
            None => return Err("a record's id is no text".into()),
        };
        let id = RecordId::new(&id).map_err(|error| format!("a record's id: {error}"))?;
        let data = self.data.ok_or_else(|| format!("the record {id} has no `data`"))?;
        let document = Document::parse(data, limits)
            .map_err(|error: DocumentError| format!("the record {id}: {error}"))?;
        let Written { version, updated_at } = self.written();
        Ok(PlainRecord { id, document, version, updated_at })
    }
}

/// Reads the answer to a query: `{records: […]}`, or the list alone.
pub(crate) fn decode_page(body: &[u8], limits: &Limits) -> Result<PlainPage, Unreadable> {
    let text = core::str::from_utf8(body).map_err(|_| Unreadable::NotText)?.trim();
    let broken = |broken: Broken| Unreadable::NotJson(broken.to_string(), beginning(text));
    json::check(text).map_err(broken)?;
    let mut resumable = false;
    let list = if text.starts_with('[') {
        Some(text)
    } else if text.starts_with('{') {
        let answer = AnswerFields::read(text).map_err(broken)?;
        resumable =
            answer.protocol.and_then(|level| level.parse().ok()).is_some_and(|n: u64| n > 1);
        // the shape of a `sync` message, and lists under another name that says the same
        let inner = answer.data.filter(|data| data.starts_with('{'));
        let inner =
            inner.and_then(|data| AnswerFields::read(data).ok()).and_then(|data| data.records);
        answer.records.or(inner).or(answer.data)
    } else {
        None
    };
    let list = list.filter(|list| list.starts_with('['));
    let list = list.ok_or_else(|| Unreadable::NoRecords(beginning(text)))?;
    let mut page = PlainPage { resumable, ..PlainPage::default() };
    json::elements(list, |row| {
        let read = match row.text.starts_with('{') {
            true => AnswerFields::read(row.text)?.record(limits),
            false => Err("a record is no object".into()),
        };
        match read {
            Ok(record) => page.rows.push(Ok(record)),
            Err(why) => {
                page.rows.push(Err(xxh3_64(row.text.as_bytes())));
                page.unreadable = page.unreadable.take().or(Some(why));
            }
        }
        Ok::<(), Broken>(())
    })
    .map_err(broken)?;
    Ok(page)
}

/// Returns `true` if the answer to a successful write has the form of a server that took it, as
/// opposed to the answer of an intermediary (PROTOCOL 16.14).
pub(crate) fn speaks_of(body: &[u8], id: &RecordId, deletes: bool) -> bool {
    let text = core::str::from_utf8(body).unwrap_or_default().trim();
    if text.is_empty() {
        return deletes;
    }
    let Ok(answer) = AnswerFields::read(text) else { return false };
    let inner = answer.record.or(answer.data).filter(|inner| inner.starts_with('{'));
    let inner = inner.and_then(|inner| AnswerFields::read(inner).ok()).unwrap_or_default();
    let named = [answer.record_id, answer.id, inner.record_id, inner.id];
    let own = |named: &str| match json::unescape(named) {
        Some(named) => *named == **id,
        None => *named == **id,
    };
    match named.into_iter().flatten().next() {
        Some(named) => own(named),
        None => {
            answer.done
                || answer.deleted
                || answer.written() != Written::default()
                || inner.written() != Written::default()
        }
    }
}

/// Reads the answer to a successful write. Missing fields stay `None`.
pub(crate) fn decode_written(body: &[u8]) -> Written {
    let text = core::str::from_utf8(body).unwrap_or_default().trim();
    let Ok(answer) = AnswerFields::read(text) else { return Written::default() };
    let inner = answer.record.or(answer.data).filter(|inner| inner.starts_with('{'));
    let inner = inner.and_then(|inner| AnswerFields::read(inner).ok()).map(|inner| inner.written());
    let own = answer.written();
    match inner {
        Some(inner) if own == Written::default() => inner,
        Some(_) | None => own,
    }
}

/// The record that a `409` carries: `{record: {…}}`, `{current: {…}}`, or the record itself.
/// `Some(None)` says that there is none any more; `None` that the answer doesn't tell.
pub(crate) fn decode_current(
    body: &[u8],
    id: &RecordId,
    limits: &Limits,
) -> Option<Option<PlainRecord>> {
    let text = core::str::from_utf8(body).ok()?.trim();
    let answer = AnswerFields::read(text).ok()?;
    if answer.record.is_none() && answer.current.is_none() && says_null(text) {
        return Some(None);
    }
    let mut found = match answer.record.or(answer.current) {
        Some(inner) => AnswerFields::read(inner).ok()?,
        None => answer,
    };
    if found.deleted {
        return Some(None);
    }
    // it can only be the record of the write
    if found.record_id.is_none() && found.id.is_none() {
        let quoted = json_string(id);
        found.record_id = Some(&quoted);
        return found.record(limits).ok().map(Some);
    }
    found.record(limits).ok().filter(|record| record.id == *id).map(Some)
}

/// Returns `true` if an answer says that there is no current record.
fn says_null(text: &str) -> bool {
    let mut null = false;
    let read = json::members(text, |name, value| {
        null |= matches!(&*name, "record" | "current") && value.text == "null";
        Ok::<(), Broken>(())
    });
    read.is_ok() && null
}

/// Reads an answer with a status that is no success.
pub(crate) fn decode_refusal(status: u16, body: &[u8]) -> Refusal {
    let text = core::str::from_utf8(body).unwrap_or_default().trim();
    let Ok(answer) = AnswerFields::read(text) else {
        let shown = if text.is_empty() { "nothing".into() } else { beginning(text) };
        let message = format!("the server answered {status}, with {shown:?} instead of JSON");
        return Refusal { code: None, message, retry_after_ms: None, json: false };
    };
    // `{error: {code, message}}` is as common as `{error, code}`
    let nested = answer.error.filter(|error| error.starts_with('{'));
    let nested = nested.and_then(|error| AnswerFields::read(error).ok()).unwrap_or_default();
    let words = |field: Option<&str>| field.and_then(json::unescape).map(|text| beginning(&text));
    let message = words(answer.error)
        .or_else(|| words(answer.message))
        .or_else(|| words(nested.message))
        .unwrap_or_else(|| format!("the server answered {status}"));
    let code = words(answer.code).or_else(|| words(nested.code));
    let retry_after_ms = answer.retry_after_ms.and_then(|millis| millis.parse().ok());
    Refusal { code: code.map(|code| ErrorCode::parse(&code)), message, retry_after_ms, json: true }
}

fn beginning(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::delta::Delta;
    use alloc::boxed::Box;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits::default()
    }

    fn doc(json: &str) -> Document {
        Document::parse(json, &limits()).unwrap()
    }

    fn id(text: &str) -> RecordId {
        RecordId::new(text).unwrap()
    }

    fn page(body: &str) -> PlainPage {
        decode_page(body.as_bytes(), &limits()).unwrap()
    }

    #[test]
    fn paths_are_encoded() {
        let collection = Collection::new("my todos").unwrap();
        assert_eq!(collection_path(&collection), "/sync/my%20todos");
        assert_eq!(
            record_path(&collection, &id("a/b?c=ä.")),
            "/sync/my%20todos/a%2Fb%3Fc%3D%C3%A4."
        );
        let since = Some(Timestamp(1_790_000_000_000));
        assert_eq!(
            query_path(&collection, since, 500, 499),
            "/sync/my%20todos?since=2026-09-21T14%3A13%3A20.000Z&limit=500&offset=499"
        );
        assert_eq!(query_path(&collection, None, 500, 0), "/sync/my%20todos?limit=500");
    }

    #[test]
    fn dots_alone_are_no_steps() {
        for (name, path) in [(".", "/sync/%2E"), ("..", "/sync/%2E%2E"), ("...", "/sync/...")] {
            let collection = Collection::new(name).unwrap();
            assert_eq!(collection_path(&collection), path);
            let todos = Collection::new("t").unwrap();
            let record = path.replace("/sync/", "/sync/t/");
            assert_eq!(record_path(&todos, &id(name)), record);
            assert_eq!(percent::decode(&path[6..], false).as_deref(), Some(name));
        }
    }

    #[test]
    fn bodies_are_as_the_protocol_says() {
        let at = Timestamp(0);
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        assert_eq!(
            text(insert_body(&id("a\"b"), &doc(r#"{"x":1.0}"#), at)),
            r#"{"recordId":"a\"b","data":{"x":1.0},"timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
        let change = Change::update(Delta::new(doc(r#"{"x":1}"#), alloc::vec![Box::from("gone")]));
        assert_eq!(
            text(update_body(&change, Some(3), at)),
            r#"{"delta":{"x":1,"gone":null},"baseVersion":3,"timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
        assert_eq!(
            text(update_body(&Change::update(Delta::empty()), None, at)),
            r#"{"delta":{},"timestamp":"1970-01-01T00:00:00.000Z"}"#
        );
    }

    #[test]
    fn pages_are_read_in_every_shape() {
        let record = PlainRecord {
            id: id("7"),
            document: doc(r#"{"x":1}"#),
            version: None,
            updated_at: None,
        };
        let at = Some(Timestamp(1_790_000_000_000));
        for (body, version, updated_at) in [
            (r#"{"records":[{"recordId":"7","data":{"x":1}}]}"#, None, None),
            (r#"[{"id":"7","data":{"x":1}}]"#, None, None),
            (r#" {"data":{"records":[{"id":7,"data":{"x":1},"version":"?"}]}} "#, None, None),
            (r#"{"data":[{"id":"7","data":{"x":1},"version":2}],"total":1}"#, Some(2), None),
            (r#"[{"id":"7","data":{"x":1},"updated_at":"2026-09-21T14:13:20"}]"#, None, at),
            (r#"[{"id":"7","data":{"x":1},"updatedAt":"2026-09-21T16:13:20+02:00"}]"#, None, at),
            (r#"[{"id":"7","data":{"x":1},"updatedAt":"soon","version":-1}]"#, None, None),
        ] {
            let record = PlainRecord { version, updated_at, ..record.clone() };
            let expected = PlainPage { rows: alloc::vec![Ok(record)], ..PlainPage::default() };
            assert_eq!(page(body), expected, "{body}");
        }
        assert_eq!(page("[]"), PlainPage::default());
    }

    #[test]
    fn an_unreadable_row_costs_only_itself() {
        let read = page(r#"[{"id":"a"}, 3, {"id":"b","data":{}}, {"data":{}}]"#);
        assert_eq!(
            read.rows.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [false, false, true, false]
        );
        assert_eq!(read.unreadable.unwrap(), "the record a has no `data`");
    }

    #[test]
    fn what_is_no_page_says_so() {
        let error = |body: &[u8]| decode_page(body, &limits()).unwrap_err().to_string();
        assert!(error(b"<html>oops").contains("<html>oops"));
        assert!(error(b"{\"records\":{}}").contains("no list of records"));
        assert!(error(b"\"text\"").contains("no list of records"));
        assert!(error(b"\xff").contains("UTF-8"));
        assert!(error(b"").contains("not JSON"));
    }

    #[test]
    fn answers_to_writes_may_lack_anything() {
        let written = |body: &str| decode_written(body.as_bytes());
        let both = Written { version: Some(2), updated_at: Some(Timestamp(0)) };
        assert_eq!(written(r#"{"version":2,"updatedAt":"1970-01-01T00:00:00Z"}"#), both);
        assert_eq!(written(r#"{"record":{"version":2,"updatedAt":"1970-01-01T00:00:00"}}"#), both);
        for body in ["", "OK", "[]", "{}", r#"{"version":null}"#] {
            assert_eq!(written(body), Written::default(), "{body}");
        }
    }

    #[test]
    fn the_current_record_is_found_in_every_shape() {
        let current = |body: &str| decode_current(body.as_bytes(), &id("a"), &limits());
        let record = Some(Some(PlainRecord {
            id: id("a"),
            document: doc("{\"x\":1}"),
            version: Some(4),
            updated_at: None,
        }));
        for body in [
            r#"{"error":"no","code":"CONFLICT","record":{"recordId":"a","data":{"x":1},"version":4}}"#,
            r#"{"current":{"id":"a","data":{"x":1},"version":4}}"#,
            r#"{"id":"a","data":{"x":1},"version":4}"#,
            r#"{"data":{"x":1},"version":4}"#,
        ] {
            assert_eq!(current(body), record, "{body}");
        }
        assert_eq!(current(r#"{"error":"no","record":null}"#), Some(None));
        assert_eq!(current(r#"{"record":{"id":"a","deleted":true}}"#), Some(None));
        for body in ["", "<html>", "{}", r#"{"error":"no"}"#, r#"{"id":"b","data":{"x":1}}"#] {
            assert_eq!(current(body), None, "{body}");
        }
    }

    #[test]
    fn refusals_speak_for_themselves() {
        let refusal = |body: &str| decode_refusal(500, body.as_bytes());
        let told = refusal(r#"{"error":"full","code":"RATE_LIMIT_EXCEEDED","retryAfterMs":5}"#);
        assert_eq!(told.code, Some(ErrorCode::RateLimitExceeded));
        assert_eq!(
            (told.message.as_str(), told.retry_after_ms, told.json),
            ("full", Some(5), true)
        );
        assert_eq!(refusal(r#"{"error":{"message":"full","code":"X"}}"#).message, "full");
        let html = refusal("<h1>Bad Gateway</h1>");
        assert!(!html.json && html.message.contains("<h1>Bad Gateway</h1>"));
        assert!(refusal("").message.contains("nothing"));
        assert!(refusal(&"x".repeat(9999)).message.len() < 400);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            let _ = decode_page(&body, &limits());
            let _ = decode_current(&body, &id("a"), &limits());
            let _ = (decode_written(&body), decode_refusal(500, &body));
        }

        #[test]
        fn arbitrary_json_never_panics(
            body in r#"[\[\{]("(id|data|records|record|current)":?|[\[\]{},:1]|null|"a"){0,12}"#
        ) {
            let body = body.as_bytes();
            let _ = decode_page(body, &limits());
            let _ = decode_current(body, &id("a"), &limits());
            let _ = (decode_written(body), decode_refusal(500, body));
        }
    }
}
