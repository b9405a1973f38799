//! Watching a collection or a query.

use serde::Serialize;
use synclayer_core::Collection;
use synclayer_tokio::{
    ConnectFailure, EventKind, OnServerLoss, QueryChange, QueryUpdate, QueryWatch, Record,
    RecordChange, RecordId, Update, Watch,
};

use crate::args::ListArgs;
use crate::failure::Failure;
use crate::output::{Printer, RecordJson};
use crate::part::Part;
use crate::read::chosen;
use crate::replica::{OpenReplica, clock_is_off};
use crate::signal::Signals;

/// A line of the watch: what happened to a record, and what it is now, or only its id.
#[derive(Serialize, Default)]
struct Line<'a> {
    change: &'static str,
    collection: &'a str,
    /// The places in a result that has an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<usize>,
    #[serde(flatten)]
    record: Option<RecordJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

pub(crate) async fn watch(args: ListArgs, out: Printer) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut replica = OpenReplica::open_to_stay(&args.replica).await?;
    let ended = run(&mut replica, &args, &mut signals, out).await;
    replica.close().await;
    ended
}

/// The updates of a collection, or of a query.
enum Updates {
    All(Watch),
    Chosen(QueryWatch),
}

/// An update of either.
enum News {
    All(Update),
    Chosen(QueryUpdate),
}

impl Updates {
    async fn next(&mut self) -> Option<News> {
        match self {
            Self::All(watch) => watch.next().await.map(News::All),
            Self::Chosen(watch) => watch.next().await.map(News::Chosen),
        }
    }
}

async fn run(
    replica: &mut OpenReplica,
    args: &ListArgs,
    signals: &mut Signals,
    out: Printer,
) -> Result<(), Failure> {
    let part = Part::of(replica, &args.collection, &args.scope)?;
    let is_all = args.filter.condition.is_none() && args.order_by.is_none() && args.limit.is_none();
    let mut updates = match &part {
        Part::Whole(collection) if is_all => Updates::All(collection.watch()),
        Part::Whole(_) | Part::Scopes { .. } => Updates::Chosen(chosen(&part, args).watch()?),
    };
    if replica.has_server() {
        replica.sync.connect().await?;
    }
    loop {
        tokio::select! {
            update = updates.next() => match update {
                Some(News::All(update)) => print_all(&args.collection, &update, out)?,
                Some(News::Chosen(update)) => print_chosen(&args.collection, &update, out)?,
                None => return Ok(()),
            },
            Some(event) = replica.next_event() => remark(replica, &event.kind, out)?,
            () = signals.end() => return Ok(()),
        }
    }
}

fn print_all(collection: &str, update: &Update, out: Printer) -> Result<(), Failure> {
    update.changes.iter().try_for_each(|change| {
        let (kind, gone) = match change {
            RecordChange::Added(_) => ("added", None),
            RecordChange::Modified(_) => ("modified", None),
            RecordChange::Removed(id) => ("removed", Some(id.as_str())),
        };
        let line = Line { change: kind, collection, id: gone, ..Line::default() };
        print(line, change.record(), kind, out)
    })
}

fn print_chosen(collection: &str, update: &QueryUpdate, out: Printer) -> Result<(), Failure> {
    update.changes.iter().try_for_each(|change| {
        let line = Line { collection, ..Line::default() };
        match change {
            QueryChange::Left { at, id } => {
                let line = Line { change: "left", at: Some(*at), id: Some(id), ..line };
                print(line, None, &format!("left {at}"), out)
            }
            QueryChange::Entered { at, record } => {
                let line = Line { change: "entered", at: Some(*at), ..line };
                print(line, Some(record), &format!("entered {at}"), out)
            }
            QueryChange::Modified { from, to, record } => {
                let line = Line { change: "modified", from: Some(*from), to: Some(*to), ..line };
                print(line, Some(record), &format!("modified {from} to {to}"), out)
            }
        }
    })
}

/// Prints a change: for people on a terminal, else as a line of JSON.
fn print<'a>(
    line: Line<'a>,
    record: Option<&'a Record>,
    word: &str,
    out: Printer,
) -> Result<(), Failure> {
    if out.is_for_programs() {
        return Printer::json(&Line { record: record.map(RecordJson::from), ..line });
    }
    match record {
        Some(record) => Printer::laid_out(&format!("{word}: "), record),
        None => Printer::text(format_args!("{word}: {}", line.id.unwrap_or_default())),
    }
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
        // of a transaction as a whole
        EventKind::OperationFailed { transaction: Some(_), .. } => {}
        EventKind::OperationFailed { collection, record_id, code, message, .. } => out.note(format_args!(
            "the server has refused a waiting write to {collection}/{record_id} ({code}): {message}"
        )),
        EventKind::TransactionFailed { records, code, message, .. } => {
            let of = named(records);
            out.note(format_args!("the waiting transaction of {of} was rejected ({code}): {message}"));
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

/// The first of some records, and how many more there are.
fn named(records: &[(Collection, RecordId)]) -> String {
    let first = records.iter().take(3).map(|(collection, id)| format!("{collection}/{id}"));
    let first = first.collect::<Vec<_>>().join(", ");
    match records.len().saturating_sub(3) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
