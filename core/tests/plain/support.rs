//! Replicas at plain servers, and what such servers say.

use synclayer_core::testing::Checked;
use synclayer_core::{ClientConfig, Command, EventKind, Input};

use crate::lone_replica::{LoneReplica, config};
pub(crate) use crate::lone_replica::{both, http_only};

pub(crate) const PONG: &str = r#"{"type":"pong","timestamp":"2026-09-21T14:13:20.000Z"}"#;
pub(crate) const SYNC: &str = r#"{"type":"sync","collection":"todos"}"#;

pub(crate) fn socket_only() -> ClientConfig {
    config()
}

/// A connection on which the hello was answered as any ping.
pub(crate) fn connect(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.dial();
    let sent = lone.sent();
    assert!(sent[0].starts_with(r#"{"type":"ping","metadata":{"protocol":2"#), "{sent:?}");
    assert_eq!(sent[1], r#"{"type":"subscribe","collection":"todos"}"#);
    lone.hear(PONG);
    lone
}

/// A whole collection by WebSocket: each record with its data.
pub(crate) fn whole(records: &[(&str, &str)]) -> String {
    let record = |(id, data): &(&str, &str)| format!(r#"{{"id":"{id}","data":{data}}}"#);
    let records: Vec<_> = records.iter().map(record).collect();
    let records = records.join(",");
    format!(r#"{{"type":"sync","collection":"todos","data":{{"records":[{records}]}}}}"#)
}

pub(crate) fn frame(kind: &str, record: &str, data: &str) -> String {
    format!(r#"{{"type":"{kind}","collection":"todos","recordId":"{record}","data":{data}}}"#)
}

/// A socket in step, which holds `a`.
pub(crate) fn live() -> LoneReplica {
    let mut lone = connect(socket_only());
    assert_eq!(lone.sent(), [SYNC]);
    lone.hear(&whole(&[("a", r#"{"n":1,"t":"x"}"#)]));
    assert!(lone.sent().is_empty());
    lone
}

pub(crate) fn pong_frame(lone: &mut LoneReplica) {
    let conn = lone.conn;
    lone.replica.handle(lone.now, Input::Heard { conn }, &mut lone.actions);
    lone.replica.check().unwrap();
}

/// The answer to a query: each record with its data, stamp (seconds of a minute) and version.
pub(crate) fn rows(records: &[(&str, &str, u32, u64)]) -> String {
    let record = |(id, data, second, version): &(&str, &str, u32, u64)| {
        format!(
            r#"{{"recordId":"{id}","data":{data},"updatedAt":"2026-09-21T14:00:{second:02}.000Z","version":{version}}}"#
        )
    };
    let records: Vec<_> = records.iter().map(record).collect();
    format!(r#"{{"records":[{}]}}"#, records.join(","))
}

pub(crate) const QUERY: &str = "GET /sync/todos?limit=500";
/// The answer of a server that has taken a write.
pub(crate) const TAKEN: &str = r#"{"success":true}"#;
/// Behind a row that was stamped at 14:00:30.
pub(crate) const QUERY_SINCE: &str = "GET /sync/todos?since=2026-09-21T14%3A00%3A20.000Z&limit=500";

pub(crate) fn first_rows() -> String {
    rows(&[("a", r#"{"n":1,"t":"x"}"#, 30, 4)])
}

/// A client that polls a plain server and holds `a`.
pub(crate) fn polling() -> LoneReplica {
    polling_with(http_only())
}

pub(crate) fn polling_with(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    assert!(lone.sent()[0].starts_with("POST /sync/session"));
    lone.answer(404, r#"{"error":"no such collection"}"#);
    assert_eq!(lone.sent(), [QUERY]);
    lone.answer(200, &first_rows());
    assert!(lone.sent().is_empty());
    lone
}

/// A socket and HTTP in step, with `a`.
pub(crate) fn live_both() -> LoneReplica {
    live_both_with(both())
}

pub(crate) fn live_both_with(config: ClientConfig) -> LoneReplica {
    let mut lone = connect(config);
    assert_eq!(lone.sent(), [QUERY]);
    lone.answer(200, &first_rows());
    assert!(lone.sent().is_empty());
    lone
}

pub(crate) fn pending(lone: &LoneReplica) -> usize {
    lone.replica.status().pending_writes
}

pub(crate) fn kinds(lone: &mut LoneReplica) -> Vec<EventKind> {
    lone.sent();
    lone.events.drain(..).map(|event| event.kind).collect()
}

// --- how a plain server is recognised ---
