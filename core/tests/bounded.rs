//! A server can't make a client keep more than its app has asked for.
#![allow(missing_docs, clippy::unwrap_used)]

mod lone_replica;

use bytes::Bytes;
use lone_replica::LoneReplica;
use synclayer_core::testing::{Checked, InspectReplica};
use synclayer_core::{Action, ClientStore, EventKind, Scan};

/// Returns the number of rows in the store, and of bytes in them.
fn stored(lone: &LoneReplica) -> (usize, usize) {
    let (mut rows, mut bytes) = (0, 0);
    let store = lone.replica.store().rows();
    let mut count = |key: &[u8], value: Bytes| {
        rows += 1;
        bytes += key.len() + value.len();
        Ok(Scan::Next)
    };
    store.scan(&[], &[255; 8], &mut count).unwrap();
    (rows, bytes)
}

#[test]
fn collections_that_nobody_asked_for_leave_no_trace() {
    let mut lone = LoneReplica::live();
    let before = (lone.replica.status().collections.len(), stored(&lone));
    for n in 0..1_000 {
        for frame in [
            r#"{"type":"insert","collection":"X","recordId":"a","data":{"n":1},"timestamp":"2026-01-01T00:00:00Z","metadata":{"seq":1,"version":1}}"#,
            r#"{"type":"delete","collection":"X","recordId":"a","timestamp":"2026-01-01T00:00:00Z","metadata":{"seq":1,"version":1}}"#,
            r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"collection":"X"}}"#,
            r#"{"type":"error","code":"SERVER_ERROR","error":"no","metadata":{"collection":"X","retryAfterMs":9}}"#,
            r#"{"type":"subscribed","collection":"X","metadata":{"head":1,"mode":"snapshot"}}"#,
            r#"{"type":"sync","collection":"X","data":{"records":[{"id":"a","data":{"n":1},"seq":1}]},"metadata":{"snapshotSeq":1}}"#,
            r#"{"type":"synced","collection":"X","metadata":{"epoch":"e1","seq":1,"count":1}}"#,
            r#"{"type":"unsubscribed","collection":"X"}"#,
        ] {
            lone.hear(&frame.replace("\"X\"", &format!("\"x{n}\"")));
        }
    }
    let status = lone.replica.status();
    assert_eq!((status.collections.len(), stored(&lone)), before);
    assert_eq!(status.ignored_frames, 8_000, "they are counted");
    assert!(lone.replica.check().is_ok());
    lone.update("a", r#"{"n":2}"#);
    assert_eq!(lone.sent().len(), 1, "and the connection lives");
}

#[test]
fn a_plain_server_that_speaks_of_foreign_collections_leaves_no_trace() {
    let mut lone = LoneReplica::new(lone_replica::config());
    lone.dial();
    lone.hear(r#"{"type":"pong","timestamp":"2026-01-01T00:00:00Z"}"#);
    let before = (lone.replica.status().collections.len(), stored(&lone));
    for n in 0..1_000 {
        for frame in [
            r#"{"type":"insert","collection":"X","recordId":"a","data":{"n":1},"timestamp":"2026-01-01T00:00:00Z"}"#,
            r#"{"type":"sync","collection":"X","data":{"records":[{"id":"a","data":{"n":1}}]}}"#,
            r#"{"type":"error","code":"UNAUTHORIZED","error":"no","collection":"X"}"#,
        ] {
            lone.hear(&frame.replace("\"X\"", &format!("\"x{n}\"")));
        }
    }
    let status = lone.replica.status();
    assert_eq!((status.collections.len(), stored(&lone)), before);
    assert_eq!(status.ignored_frames, 2_000, "an error is told at least");
}

#[test]
fn what_a_server_says_of_a_refused_write_is_cut() {
    let mut lone = LoneReplica::live();
    let text = "n".repeat(1 << 20);
    for n in 1..=3 {
        lone.update("a", &format!(r#"{{"n{n}":1}}"#));
        lone.hear(&format!(
            r#"{{"type":"error","code":"{text}","error":"{text}","metadata":{{"mutation":1}}}}"#
        ));
    }
    let (_, bytes) = stored(&lone);
    assert_eq!(lone.replica.rejected().unwrap().len(), 3);
    assert!(bytes < 20_000, "{bytes} bytes are stored");
    let told = lone.actions.iter().filter_map(|action| match action {
        Action::Event(event) => Some(&event.kind),
        Action::Net(_)
        | Action::Synced { .. }
        | Action::Halted(_)
        | Action::Fate { .. }
        | Action::Durable(_)
        | Action::Watch(_) => None,
    });
    for kind in told {
        if let EventKind::OperationFailed { message, .. } = kind {
            assert!(message.len() <= 1024, "an event holds {} bytes of it", message.len());
        }
    }
}

#[test]
fn fields_that_come_and_go_beneath_a_frozen_write_leave_no_trace() {
    let mut lone = LoneReplica::live();
    lone.update("a", r#"{"n":2}"#);
    let mut seq = 5;
    let mut sizes = Vec::new();
    for round in 0..200 {
        for (set, unset) in [(true, false), (false, true)] {
            seq += 1;
            let (data, gone) = match (set, unset) {
                (true, _) => (format!(r#"{{"f{round}":1}}"#), String::new()),
                (false, _) => ("{}".into(), format!(r#","unset":["f{round}"]"#)),
            };
            lone.hear(&format!(
                r#"{{"type":"update","collection":"todos","recordId":"a","data":{data},"timestamp":"2026-01-01T00:00:00Z","metadata":{{"seq":{seq},"version":{seq}{gone}}}}}"#
            ));
        }
        sizes.push(stored(&lone).1);
    }
    assert!(sizes[199] < sizes[0] + 200, "it grows: {} to {}", sizes[0], sizes[199]);
}
