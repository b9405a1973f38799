//! Reading: what is here, brought up to date where the server can be reached.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use synclayer_core::Level;
use synclayer_tokio::{
    CollectionStatus, ConnectionState, Guarantees, Metrics, Query, StalledWrite, Status, Transport,
};

use crate::args::{CountArgs, ListArgs, RecordArgs, ReplicaArgs, WhereArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::part::{HeldScope, Part, held_scopes};
use crate::reject::stalled;
use crate::replica::{Meeting, OpenReplica, clock_is_off, guarantees, on_replica};

pub(crate) async fn get(args: RecordArgs, out: Printer) -> Result<(), Failure> {
    on_replica(&args.replica, async |replica| {
        let part = Part::of(replica, &args.collection, &args.scope)?;
        part.subscribe().await?;
        let meeting = refresh(replica, &args.collection, out).await?;
        let record = part.get(&args.id).await?;
        let record = record.ok_or_else(|| Failure::no_record(&args.collection, &args.id))?;
        out.record(&record)?;
        if record.pending {
            out.note("the server doesn't have all of it yet");
        }
        meeting.end()
    })
    .await
}

pub(crate) async fn list(args: ListArgs, out: Printer) -> Result<(), Failure> {
    on_replica(&args.replica, async |replica| {
        let part = Part::of(replica, &args.collection, &args.scope)?;
        part.subscribe().await?;
        let meeting = refresh(replica, &args.collection, out).await?;
        chosen(&part, &args).get().await?.iter().try_for_each(|record| out.record(record))?;
        meeting.end()
    })
    .await
}

pub(crate) async fn count(args: CountArgs, out: Printer) -> Result<(), Failure> {
    on_replica(&args.replica, async |replica| {
        let part = Part::of(replica, &args.collection, &args.scope)?;
        part.subscribe().await?;
        let meeting = refresh(replica, &args.collection, out).await?;
        let count = filtered(part.query(), &args.filter).count().await?;
        out.line(count, &json!({ "collection": args.collection, "count": count }))?;
        meeting.end()
    })
    .await
}

/// The query of a list.
pub(crate) fn chosen(part: &Part, args: &ListArgs) -> Query {
    let mut query = filtered(part.query(), &args.filter);
    for (field, direction) in args.order_by.iter().flat_map(|order| &order.0) {
        query = query.order_by(field, *direction);
    }
    match args.limit {
        Some(limit) => query.limit(limit),
        None => query,
    }
}

/// The query of those records that meet the condition, too.
pub(crate) fn filtered(query: Query, filter: &WhereArgs) -> Query {
    match &filter.condition {
        Some(condition) => query.filter(condition.clone()),
        None => query,
    }
}

/// Brings the replica up to date, or says why it isn't, and what there is of a collection.
pub(crate) async fn refresh(
    replica: &mut OpenReplica,
    collection: &str,
    out: Printer,
) -> Result<Meeting, Failure> {
    let meeting = replica.meet(out).await?;
    if let Some(why) = &meeting.apart {
        out.note(format_args!("not in sync, this is what is stored here: {why}"));
        let status = replica.status().await?;
        if let Some(part) = status.collections.get(collection).and_then(|of| held(collection, of)) {
            out.note(part);
        }
    }
    if let Some(clock) = &meeting.clock {
        out.note(clock);
    }
    Ok(meeting)
}

/// Says what there is of a collection, unless it is all that the server has now.
fn held(name: &str, of: &CollectionStatus) -> Option<String> {
    let CollectionStatus { count, cursor, catching_up, from_cache, scopes, .. } = of;
    let name = &if scopes.is_some() { format!("the scopes of {name}") } else { name.to_owned() };
    let part = match (count, cursor) {
        _ if !from_cache => return None,
        (0, None) => format!("nothing of {name} has come from a server yet"),
        (_, None) => format!(
            "perhaps it is only a part of {name}: {count} records have come so far; run the command \
             again to go on"
        ),
        (_, Some(_)) => {
            let newer = if *catching_up { ", with a part of what was changed since" } else { "" };
            format!("it is all of {name} as it was when last in sync, {count} records{newer}")
        }
    };
    Some(part)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson<'a> {
    connected: bool,
    /// The way to the server, where it is in reach.
    transport: Option<&'static str>,
    /// The protocol's level that it speaks.
    level: Option<u8>,
    guarantees: Option<GuaranteesJson>,
    /// The reason why this replica and the server are not in sync, if so.
    apart: Option<String>,
    /// The identity of the server's database, where it is another one than this replica is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_database: Option<&'a str>,
    client_id: &'a str,
    waiting: usize,
    /// The write that does not get through, and that those behind it wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled: Option<StalledJson<'a>>,
    rejected: usize,
    clock_offset_ms: i64,
    /// True if that is more than a minute.
    clock_is_off: bool,
    collections: BTreeMap<&'a str, CollectionJson<'a>>,
    /// The figures of this call.
    metrics: MetricsJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsJson {
    sync_attempts: u64,
    sync_successes: u64,
    sync_failures: u64,
    success_rate: f64,
    average_sync_duration_ms: Option<u128>,
    last_sync_time: Option<String>,
    operations_queued: u64,
    operations_synced: u64,
    operations_failed: u64,
    conflicts_detected: u64,
    conflicts_resolved: u64,
    top_errors: Vec<(String, u64)>,
    records_received: u64,
    bytes_sent: u64,
    bytes_received: u64,
    connections: u64,
    requests: u64,
}

impl From<Metrics> for MetricsJson {
    fn from(of: Metrics) -> Self {
        Self {
            sync_attempts: of.sync_attempts,
            sync_successes: of.sync_successes,
            sync_failures: of.sync_failures,
            success_rate: of.success_rate(),
            average_sync_duration_ms: of.average_sync_duration.map(|mean| mean.as_millis()),
            last_sync_time: of.last_sync_time.map(|time| time.to_string()),
            operations_queued: of.operations_queued,
            operations_synced: of.operations_synced,
            operations_failed: of.operations_failed,
            conflicts_detected: of.conflicts_detected,
            conflicts_resolved: of.conflicts_resolved,
            top_errors: of.top_errors,
            records_received: of.records_received,
            bytes_sent: of.bytes_sent,
            bytes_received: of.bytes_received,
            connections: of.connections,
            requests: of.requests,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GuaranteesJson {
    resume: bool,
    exactly_once: bool,
    ordered: bool,
    verified: bool,
    atomic: bool,
}

impl From<Guarantees> for GuaranteesJson {
    fn from(of: Guarantees) -> Self {
        let Guarantees { resume, exactly_once, ordered, verified, atomic } = of;
        Self { resume, exactly_once, ordered, verified, atomic }
    }
}

#[derive(Serialize)]
struct StalledJson<'a> {
    write: u64,
    collection: &'a str,
    id: &'a str,
    bytes: usize,
    code: &'a str,
}

impl<'a> From<&'a StalledWrite> for StalledJson<'a> {
    fn from(of: &'a StalledWrite) -> Self {
        let StalledWrite { write, collection, record_id, bytes, code, .. } = of;
        Self { write: write.0, collection, id: record_id, bytes: *bytes, code: code.as_str() }
    }
}

#[derive(Serialize)]
struct CatchUpJson {
    records: u64,
    bytes: u64,
    of: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CollectionJson<'a> {
    /// True if changes arrive as they are made.
    live: bool,
    count: u64,
    checksum: String,
    /// The change up to which everything is here.
    seq: Option<u64>,
    epoch: Option<&'a str>,
    /// While it catches up: the records and bytes that have come, and of how many records.
    #[serde(skip_serializing_if = "Option::is_none")]
    catch_up: Option<CatchUpJson>,
    /// Local records that the server no longer has.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    /// Where nothing more of it arrives, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled: Option<&'a str>,
    /// Where it is held by scopes: each with the number of its records that are here.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<&'a [HeldScope]>,
}

impl<'a> CollectionJson<'a> {
    fn new(status: &'a CollectionStatus, scopes: Option<&'a Vec<HeldScope>>) -> Self {
        Self {
            scopes: scopes.map(Vec::as_slice),
            live: status.live,
            count: status.count,
            checksum: status.checksum.to_string(),
            seq: status.cursor.as_ref().map(|cursor| cursor.seq.0),
            epoch: status.cursor.as_ref().map(|cursor| cursor.epoch.as_str()),
            catch_up: status.catching_up.then_some(CatchUpJson {
                records: status.received_records,
                bytes: status.received_bytes,
                of: status.expected_records,
            }),
            missing: status.missing,
            stalled: status.stalled.as_deref(),
        }
    }
}

pub(crate) async fn status(args: ReplicaArgs, out: Printer) -> Result<(), Failure> {
    on_replica(&args, async |replica| {
        // what is held by scopes stays so
        let collections = replica.status().await?.collections;
        for (name, _) in collections.iter().filter(|(_, of)| of.scopes.is_none()) {
            replica.collection(name)?.subscribe().await?;
        }
        let meeting = replica.meet(out).await?;
        let apart = meeting.apart.clone();
        let status = replica.status().await?;
        let metrics = replica.sync.metrics().await?;
        let scopes = held_scopes(replica, &status).await?;
        let text = describe(&status, &scopes, &metrics, apart.as_deref());
        let connected = status.connection == ConnectionState::Connected;
        out.lines(
            text,
            &StatusJson {
                connected,
                transport: status.transport.map(transport),
                level: status.level.map(level),
                guarantees: status.guarantees.map(GuaranteesJson::from),
                apart,
                other_database: status.other_database.as_deref(),
                client_id: &status.client_id,
                waiting: status.pending_writes,
                stalled: status.stalled.as_ref().map(StalledJson::from),
                rejected: status.rejected_writes,
                clock_offset_ms: status.clock_offset_ms,
                clock_is_off: status.clock_is_off,
                collections: status
                    .collections
                    .iter()
                    .map(|(name, of)| (&**name, CollectionJson::new(of, scopes.get(&**name))))
                    .collect(),
                metrics: metrics.into(),
            },
        )?;
        meeting.end()
    })
    .await
}

#[allow(clippy::wildcard_enum_match_arm)] // there may be more of them one day
fn transport(of: Transport) -> &'static str {
    match of {
        Transport::WebSocket => "websocket",
        Transport::Http => "http",
        _ => "unknown",
    }
}

fn level(of: Level) -> u8 {
    match of {
        Level::Plain => 1,
        Level::Resumable => 2,
    }
}

fn describe(
    status: &Status,
    scopes: &BTreeMap<String, Vec<HeldScope>>,
    metrics: &Metrics,
    apart: Option<&str>,
) -> Vec<String> {
    let mut lines = vec![
        format!("replica   {}", status.client_id),
        match apart {
            Some(why) => format!("server    not in sync: {why}"),
            None => "server    in sync".to_owned(),
        },
        format!("waiting   {} writes", status.pending_writes),
    ];
    if let Some(write) = &status.stalled {
        lines.push(format!("stalled   {}", stalled(write)));
    }
    if let (Some(way), Some(speaks), Some(holds)) =
        (status.transport, status.level, status.guarantees)
    {
        let (way, speaks) = (transport(way), level(speaks));
        lines.push(format!("transport {way}, level {speaks}"));
        lines.push(format!("guarantee {}", guarantees(holds)));
    }
    if metrics.bytes_received > 0 {
        let Metrics { bytes_sent, bytes_received, records_received, operations_synced, .. } =
            metrics;
        lines.push(format!(
            "this call {operations_synced} writes sent, {records_received} records received, in \
             {bytes_sent} and {bytes_received} bytes"
        ));
    }
    if status.rejected_writes > 0 {
        let count = status.rejected_writes;
        lines.push(format!("refused   {count} writes: see `synclayer rejected list`"));
    }
    if status.clock_is_off {
        lines.push(format!("clock     {}", clock_is_off(status.clock_offset_ms)));
    }
    let stalled = status.collections.values().filter_map(|of| of.stalled.as_deref());
    lines.extend(stalled.map(|text| format!("stalled   {text}")));
    for (name, of) in &status.collections {
        let CollectionStatus { count, checksum, cursor, .. } = of;
        let held = of.missing.map(|missing| format!(", and {missing} that the server lacks"));
        // a record in two scopes counts in both
        let places = if of.scopes.is_some() { " in its scopes together" } else { "" };
        let held = format!("{places}{}", held.unwrap_or_default());
        lines.push(match cursor {
            Some(cursor) => {
                let seq = cursor.seq;
                format!("{name}: {count} records{held} at change {seq}, checksum {checksum}")
            }
            None if !of.from_cache => format!("{name}: {count} records{held}"),
            None => format!("{name}: {count} records{held} so far, not known to be all"),
        });
        if of.catching_up {
            let (records, bytes) = (of.received_records, of.received_bytes);
            let most = of.expected_records.map(|most| format!(" of {most}")).unwrap_or_default();
            lines.push(format!("{name}: catches up, {records}{most} came, about {bytes} bytes"));
        }
        for HeldScope { scope, standing, count } in scopes.get(&**name).into_iter().flatten() {
            lines.push(format!("{name}: scope {scope} is {standing}, {count} records"));
        }
    }
    lines
}
