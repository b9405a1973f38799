//! Replicas that poll, and what a server says to them.

use synclayer_core::{ClientConfig, Command};

use crate::lone_replica::{LoneReplica, synced};
pub(crate) use crate::lone_replica::{both, http_only};

pub(crate) fn pong(last: u64, digest: &str) -> String {
    let digest =
        if digest.is_empty() { String::new() } else { format!(",\"lastDigest\":\"{digest}\"") };
    format!(
        r#"{{"type":"pong","metadata":{{"protocol":2,"epoch":"e1","lastMutation":{last}{digest}}}}}"#
    )
}

/// A page that was asked with `from`, for a client whose last mutation is `last`.
pub(crate) fn page(from: &str, last: u64, messages: &[&str]) -> String {
    let messages = messages.join(",");
    format!(
        r#"{{"type":"batch","metadata":{{"epoch":"e1","from":{{{from}}},"lastMutation":{last}}},"messages":[{messages}]}}"#
    )
}

pub(crate) fn subscribed(mode: &str, head: u64) -> String {
    format!(
        r#"{{"type":"subscribed","collection":"todos","metadata":{{"head":{head},"mode":"{mode}"}}}}"#
    )
}

pub(crate) const SYNC_A: &str = r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1,"t":"x"},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#;

/// The whole collection, with one record, `a` at seq 5.
pub(crate) fn first_page() -> String {
    let synced = synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]);
    page("", 0, &[&subscribed("snapshot", 5), SYNC_A, &synced])
}

/// A page that says that nothing is new above seq 5.
pub(crate) fn quiet_page(last: u64) -> String {
    let synced = synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]);
    page(r#""epoch":"e1","seq":5"#, last, &[&subscribed("delta", 5), &synced])
}

pub(crate) fn verdicts(last: u64, messages: &[&str]) -> String {
    let messages = messages.join(",");
    format!(r#"{{"type":"batch","metadata":{{"lastMutation":{last}}},"messages":[{messages}]}}"#)
}

/// An ack out of place: the record as the write has left it.
pub(crate) fn echo(number: u64, record: &str, data: &str, seq: u64) -> String {
    format!(
        r#"{{"type":"ack","collection":"todos","recordId":"{record}","data":{data},"metadata":{{"mutation":{number},"kind":"update","recordSeq":{seq},"version":4,"updatedAt":"2026-01-01T00:00:00Z"}}}}"#
    )
}

/// A client in step by HTTP, with nothing to do.
pub(crate) fn idle_with(config: ClientConfig) -> LoneReplica {
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.answer(200, &pong(0, ""));
    lone.sent();
    lone.answer(200, &first_page());
    assert!(lone.sent().is_empty());
    lone
}

pub(crate) fn idle() -> LoneReplica {
    idle_with(http_only())
}
