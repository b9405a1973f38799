//! Watching a collection, as lines of JSON.

use serde::Serialize;
use synclayer_tokio::{ConnectFailure, EventKind, OnServerLoss, RecordChange, Update};

use crate::args::CollectionArgs;
use crate::failure::Failure;
use crate::output::{Printer, RecordJson};
use crate::replica::{OpenReplica, clock_is_off};
use crate::signal::Signals;

/// A line of the watch: what happened to a record, and what it is now, or only its id.
#[derive(Serialize)]
struct Line<'a> {
    change: &'static str,
    collection: &'a str,
    #[serde(flatten)]
    record: Option<RecordJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

pub(crate) async fn watch(args: CollectionArgs, out: Printer) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut replica = OpenReplica::open_to_stay(&args.replica).await?;
    let ended = run(&mut replica, &args.collection, &mut signals, out).await;
    replica.close().await;
    ended
}

async fn run(
    replica: &mut OpenReplica,
    name: &str,
    signals: &mut Signals,
    out: Printer,
) -> Result<(), Failure> {
    let mut updates = replica.collection(name)?.watch();
    if replica.has_server() {
        replica.sync.connect().await?;
    }
    loop {
        tokio::select! {
            update = updates.next() => match update {
                Some(update) => print(name, &update)?,
                None => return Ok(()),
            },
            Some(event) = replica.next_event() => remark(replica, &event.kind, out)?,
            () = signals.end() => return Ok(()),
        }
    }
}

fn print(collection: &str, update: &Update) -> Result<(), Failure> {
    update.changes.iter().try_for_each(|change| {
        let (kind, gone) = match change {
            RecordChange::Added(_) => ("added", None),
            RecordChange::Modified(_) => ("modified", None),
            RecordChange::Removed(id) => ("removed", Some(id.as_str())),
        };
        let record = change.record().map(RecordJson::from);
        Printer::json(&Line { change: kind, collection, record, id: gone })
    })
}

/// Tells what the lines don't. Without a token that the server takes there is nothing more to come.
#[allow(clippy::wildcard_enum_match_arm)] // there may be more kinds of events one day
fn remark(replica: &OpenReplica, event: &EventKind, out: Printer) -> Result<(), Failure> {
    match event {
        EventKind::RealtimeConnected => out.note("connected"),
        EventKind::SyncCompleted { .. } => out.note("in sync"),
        EventKind::RealtimeDisconnected { reason } => {
            out.note(format_args!("disconnected, and connecting again: {reason}"));
        }
        EventKind::TokenNeeded { code, message, by_server: true } => {
            return Err(Failure::plain(replica.reach.not_let_in(Some(code), message)));
        }
        EventKind::TokenNeeded { code, message, by_server: false } => {
            let why = replica.reach.not_let_in(Some(code), message);
            out.note(format_args!("{why}; it is tried again"));
        }
        EventKind::DifferentDatabase { .. } => out.note(
            "the server has another database than this replica is of; see `synclayer adopt --help`",
        ),
        EventKind::RecordsMissing { missing, decision: OnServerLoss::Ask, .. } => {
            out.note(format_args!(
                "the server lacks {missing} records that are held here; see `synclayer adopt --help`"
            ));
        }
        EventKind::ClockOff { offset_ms } => out.note(clock_is_off(*offset_ms)),
        EventKind::NoServer { message } => out.note(message),
        EventKind::SyncFailed { code, message, .. } => {
            out.note(format_args!("the server refuses the collection ({code}): {message}"));
        }
        EventKind::OperationFailed { code, message, .. } => {
            out.note(format_args!("the server has refused a waiting write ({code}): {message}"));
        }
        EventKind::Error { message, cause: Some(cause), .. } => {
            let failure = ConnectFailure::new(*cause, message);
            out.note(format_args!("{}; it is tried again", replica.explain(&failure)));
        }
        EventKind::Error { message, cause: None, .. } => out.note(message),
        // the lines tell the rest
        _ => {}
    }
    Ok(())
}
