//! Actions of a replica, as JSON.

use serde_json::{Map, Value, json};
use synclayer_core::{
    Event, EventKind, Fate, FateId, Guarantees, HttpRequest, Misuse, NamedScope, Record,
    RecordChange, Rejected, ScopeStanding, Snapshot, Status, SyncFailureReason, SyncId,
    SyncOutcome, Timer, Transport, Update, WriteId, Written,
};

/// A frame as a JSON value; what is none, as a text.
pub(super) fn frame(frame: &[u8]) -> Value {
    serde_json::from_slice(frame)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(frame).into_owned()))
}

/// An event: its name, where it belongs, how it came, and what its kind says.
pub(super) fn event(event: &Event) -> Value {
    let (name, more) = kind(&event.kind);
    let mut fields = Map::new();
    fields.insert("event".into(), name.into());
    match (event.kind.collection(), event.kind.record_id()) {
        (Some(collection), Some(id)) => {
            fields.insert("at".into(), format!("{collection}/{id}").into());
        }
        (Some(collection), None) => {
            fields.insert("at".into(), collection.to_string().into());
        }
        (None, _) => {}
    }
    if let Some(transport) = event.transport {
        fields.insert("via".into(), via(transport).into());
    }
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    Value::Object(fields)
}

/// The name of a kind of event.
pub(crate) fn event_name(of: &EventKind) -> String {
    kind(of).0
}

fn via(transport: Transport) -> String {
    let name = format!("{transport:?}");
    first_small(&name)
}

fn first_small(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The name of a kind of event and what it holds. A kind that the format does not know yet is
/// given as the core shows it.
#[allow(clippy::wildcard_enum_match_arm)]
fn kind(kind: &EventKind) -> (String, Value) {
    let (name, more) = match kind {
        EventKind::SyncStarted { .. } => ("syncStarted", json!({})),
        EventKind::SyncProgress { .. } => ("syncProgress", json!({})),
        EventKind::SyncCompleted { .. } => ("syncCompleted", json!({})),
        EventKind::SyncFailed { code, message, .. } => {
            ("syncFailed", json!({"code": code.as_str(), "message": message}))
        }
        EventKind::OperationQueued { write, transaction, .. } => {
            ("operationQueued", of_transaction(json!({"write": write.0}), *transaction))
        }
        EventKind::OperationSynced { write, transaction, .. } => {
            ("operationSynced", of_transaction(json!({"write": write.0}), *transaction))
        }
        EventKind::OperationFailed { write, code, message, with, kept, transaction, .. } => {
            let more = json!({"write": write.0, "code": code.as_str(), "message": message,
                "with": positions(with), "kept": positions(kept)});
            ("operationFailed", of_transaction(more, *transaction))
        }
        EventKind::TransactionSynced { transaction, .. } => {
            ("transactionSynced", of_transaction(json!({}), Some(*transaction)))
        }
        EventKind::TransactionFailed { transaction, code, .. } => {
            let more = json!({"code": code.as_str()});
            ("transactionFailed", of_transaction(more, Some(*transaction)))
        }
        EventKind::ConflictDetected { .. } => ("conflictDetected", json!({})),
        EventKind::ConflictResolved { write, merged, transaction, ends, .. } => {
            let write = write.map(|write| write.0);
            let mut more = json!({"write": write, "merged": positions(merged)});
            if *ends {
                more["ends"] = true.into();
            }
            ("conflictResolved", of_transaction(more, *transaction))
        }
        EventKind::ResolverFailed { reason, .. } => ("resolverFailed", json!({"reason": reason})),
        EventKind::OperationsMerged { write, merged, .. } => (
            "operationsMerged",
            json!({"write": write.map(|write| write.0), "merged": positions(merged)}),
        ),
        EventKind::ConnectivityChanged { online } => {
            ("connectivityChanged", json!({"online": online}))
        }
        EventKind::RealtimeConnected => ("realtimeConnected", json!({})),
        EventKind::RealtimeDisconnected { reason } => {
            ("realtimeDisconnected", json!({"reason": reason}))
        }
        EventKind::RealtimeInsert { .. } => ("realtimeInsert", json!({})),
        EventKind::RealtimeUpdate { .. } => ("realtimeUpdate", json!({})),
        EventKind::RealtimeDelete { .. } => ("realtimeDelete", json!({})),
        EventKind::RealtimeSync { .. } => ("realtimeSync", json!({})),
        EventKind::TokenNeeded { code, message, by_server } => {
            let mut told = json!({"code": code.as_str(), "message": message});
            if !by_server {
                told["byServer"] = json!(false);
            }
            ("tokenNeeded", told)
        }
        EventKind::WriteStalled { write, code, bytes, .. } => {
            ("writeStalled", json!({"write": write.0, "code": code.as_str(), "bytes": bytes}))
        }
        EventKind::ChecksumMismatch { .. } => ("checksumMismatch", json!({})),
        EventKind::ServerLostChanges { .. } => ("serverLostChanges", json!({})),
        EventKind::RecordsMissing { missing, of, decision, .. } => (
            "recordsMissing",
            json!({"missing": missing, "of": of,
                "decision": first_small(&format!("{decision:?}"))}),
        ),
        EventKind::DifferentDatabase { known, found } => {
            ("differentDatabase", json!({"known": known.to_string(), "found": found.to_string()}))
        }
        EventKind::ReplicaCopied { client_id, sent_again } => (
            "replicaCopied",
            json!({"clientId": client_id.to_string(), "sentAgain": positions(sent_again)}),
        ),
        EventKind::GuaranteesMissing { offered, required } => (
            "guaranteesMissing",
            json!({"offered": guarantees(*offered), "required": guarantees(*required)}),
        ),
        EventKind::ClockOff { offset_ms } => ("clockOff", json!({"offsetMs": offset_ms})),
        EventKind::NoServer { message } => ("noServer", json!({"message": message})),
        EventKind::Error { message, .. } => ("error", json!({"message": message})),
        other => return (format!("{other:?}"), json!({})),
    };
    (name.into(), more)
}

/// Adds the transaction that an event is about, if it is about one.
fn of_transaction(mut more: Value, transaction: Option<WriteId>) -> Value {
    if let Some(transaction) = transaction {
        more["transaction"] = transaction.0.into();
    }
    more
}

fn positions(writes: &[WriteId]) -> Vec<u64> {
    writes.iter().map(|write| write.0).collect()
}

fn guarantees(guarantees: Guarantees) -> Vec<&'static str> {
    let Guarantees { resume, exactly_once, ordered, verified, atomic } = guarantees;
    let all = [
        (resume, "resume"),
        (exactly_once, "exactlyOnce"),
        (ordered, "ordered"),
        (verified, "verified"),
        (atomic, "atomic"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}

/// A request by HTTP.
pub(super) fn request(id: u64, request: &HttpRequest) -> Value {
    let mut shown = json!({"request": id, "method": request.method, "path": request.path});
    if let Some(body) = &request.body {
        shown["body"] = frame(body);
    }
    if let Some(token) = &request.token {
        shown["token"] = token.reveal().into();
    }
    shown
}

/// Renders the result of a call that writes.
pub(super) fn written(written: Result<Written, Misuse>) -> Value {
    match written {
        Ok(written) => json!({"write": written.write.map(|write| write.0)}),
        Err(misuse) => json!({"error": misuse.to_string()}),
    }
}

/// A record with its metadata.
pub(super) fn record(record: &Record) -> Value {
    json!({
        "data": frame(record.document.to_string().as_bytes()),
        "version": record.version,
        "updatedAt": record.updated_at.to_string(),
        "pending": record.pending,
    })
}

/// Records by their ids.
pub(super) fn records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Value {
    records.into_iter().map(|one| (one.id.to_string(), record(one))).collect()
}

/// Renders an update that a watcher took.
pub(super) fn update(watch: u64, update: &Update) -> Value {
    let Update { snapshot, changes } = update;
    json!({
        "watch": watch,
        "records": records(snapshot.iter()),
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "is": standing(snapshot),
    })
}

fn standing(snapshot: &Snapshot) -> Vec<&'static str> {
    let all = [
        (snapshot.from_cache(), "from cache"),
        (snapshot.catching_up(), "catching up"),
        (snapshot.pending(), "pending"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}

fn change(change: &RecordChange) -> String {
    let what = match change {
        RecordChange::Added(_) => "added",
        RecordChange::Modified(_) => "modified",
        RecordChange::Removed(_) => "removed",
    };
    format!("{what} {}", change.id())
}

/// The writes that were refused.
pub(super) fn rejected(rejected: &[Rejected]) -> Value {
    let one = |rejected: &Rejected| {
        json!({
            "write": rejected.write.0,
            "at": format!("{}/{}", rejected.collection, rejected.record_id),
            "kind": rejected.change.kind.to_string(),
            "data": frame(rejected.change.delta.set.to_string().as_bytes()),
            "unset": rejected.change.delta.unset.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "writtenAt": rejected.written_at.to_string(),
            "code": rejected.code.as_str(),
            "message": rejected.message,
        })
    };
    rejected.iter().map(one).collect()
}

/// The state of the whole.
pub(super) fn status(status: &Status) -> Value {
    let collections: Map<_, _> = status
        .collections
        .iter()
        .map(|(name, one)| {
            let cursor =
                one.cursor.as_ref().map(|c| json!({"epoch": c.epoch.to_string(), "seq": c.seq.0}));
            let state = match (one.live, one.catching_up) {
                (true, _) => "live",
                (false, true) => "catching up",
                (false, false) => "off",
            };
            let mut shown = json!({"state": state, "cursor": cursor, "count": one.count});
            if let Some(missing) = one.missing {
                shown["missing"] = missing.into();
            }
            if let Some(scopes) = &one.scopes {
                shown["scopes"] = scopes.iter().map(scope_standing).collect();
            }
            if let (true, Some(of)) = (one.catching_up, one.expected_records) {
                shown["received"] = json!({"records": one.received_records, "of": of});
            }
            (name.to_string(), shown)
        })
        .collect();
    let mut shown = json!({
        "connection": format!("{:?}", status.connection).to_lowercase(),
        "pending": status.pending_writes,
        "rejected": status.rejected_writes,
        "collections": collections,
        "ignoredFrames": status.ignored_frames,
        "halted": status.halted.as_ref().map(|error| &error.message),
    });
    if let Some(stalled) = &status.stalled {
        let at = format!("{}/{}", stalled.collection, stalled.record_id);
        shown["stalled"] = json!({"write": stalled.write.0, "at": at, "bytes": stalled.bytes});
    }
    if status.clock_is_off {
        shown["clockOffsetMs"] = status.clock_offset_ms.into();
    }
    if let Some(failure) = &status.failure {
        shown["failure"] = format!("{:?}: {failure}", failure.cause).into();
    }
    if let Some(other) = &status.other_database {
        shown["otherDatabase"] = other.to_string().into();
    }
    shown
}

fn scope_standing((scope, standing): (&NamedScope, &ScopeStanding)) -> (String, Value) {
    (scope.to_string(), first_small(&format!("{standing:?}")).into())
}

/// Renders the fate of a write that is followed.
#[allow(clippy::wildcard_enum_match_arm)]
pub(super) fn fate(id: FateId, fate: &Fate) -> Value {
    let (is, why) = match fate {
        Fate::Acknowledged => ("acknowledged", Value::Null),
        Fate::Settled => ("settled", Value::Null),
        Fate::Rejected { code, message } => ("rejected", json!(format!("{message} ({code})"))),
        Fate::GivenUp => ("givenUp", Value::Null),
        Fate::Unchanged => ("unchanged", Value::Null),
        other => return json!({"fate": id.0, "is": format!("{other:?}")}),
    };
    let mut fate = json!({"fate": id.0, "is": is});
    if !why.is_null() {
        fate["why"] = why;
    }
    fate
}

/// The answer to a call of `synced`: with the collections that are not in step, if there are any.
#[allow(clippy::wildcard_enum_match_arm)]
pub(super) fn synced(id: SyncId, outcome: &SyncOutcome) -> Value {
    let Err(failures) = outcome else { return json!({"synced": id.0}) };
    let failed: Map<_, _> = failures
        .iter()
        .map(|failure| {
            let why = match &failure.reason {
                SyncFailureReason::Refused { code, .. } => json!({"refused": code.as_str()}),
                SyncFailureReason::Unavailable { code, .. } => {
                    json!({"unavailable": code.as_str()})
                }
                SyncFailureReason::Unanswered => "unanswered".into(),
                SyncFailureReason::RecordsMissing { missing } => json!({"missing": missing}),
                SyncFailureReason::DifferentDatabase { found } => {
                    json!({"differentDatabase": found.to_string()})
                }
                other => format!("{other:?}").into(),
            };
            (failure.collection.to_string(), why)
        })
        .collect();
    json!({"synced": id.0, "failed": failed})
}

pub(super) fn timer(timer: Timer) -> String {
    first_small(&format!("{timer:?}"))
}
