//! Several writes with one fate, one JSON line each.

use std::collections::BTreeSet;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use synclayer_tokio::{Delta, Document, Limits, Misuse, SavedTransaction, SyncError, Transaction};

use crate::args::TransactionArgs;
use crate::deliver::{WriteFate, fate_by_now};
use crate::failure::{Code, Failure, unreadable, unusable};
use crate::output::Printer;
use crate::part::Part;
use crate::replica::{OpenReplica, on_replica};

/// A write, as level 1 has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    collection: String,
    record_id: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Insert,
    Update,
    Delete,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Metadata {
    /// The names of the fields that an update removes.
    #[serde(default)]
    unset: Vec<Box<str>>,
}

#[derive(Clone)]
struct Write {
    kind: Kind,
    collection: String,
    id: String,
    delta: Delta,
}

pub(crate) async fn transaction(args: TransactionArgs, out: Printer) -> Result<(), Failure> {
    let writes = read(&args.file)?;
    on_replica(&args.replica, async |replica| {
        let collections: BTreeSet<_> = writes.iter().map(|write| &write.collection).collect();
        if let Some((other, _)) =
            args.scope.scopes.iter().find(|(of, _)| !collections.contains(&of.to_string()))
        {
            let why = format!("--scope names {other}, to which nothing is written");
            return Err(Failure::new(Code::Usage, why));
        }
        let mut parts = Vec::new();
        for name in collections {
            let part = Part::of(replica, name, &args.scope.of(name))?;
            part.subscribe().await?;
            parts.push(part);
        }
        let saved = match make(replica, &writes, args.keep_what_won).await {
            // the server may have the record
            Err(SyncError::Misuse(Misuse::NoSuchRecord { .. })) if replica.has_server() => {
                if let Some(why) = replica.meet(out).await?.apart {
                    out.note(format_args!("not in sync: {why}"));
                }
                make(replica, &writes, args.keep_what_won).await?
            }
            made => made?,
        };
        let delivered = deliver(replica, writes.len(), &saved, out).await;
        // until then they are used
        drop(parts);
        delivered
    })
    .await
}

async fn make(
    replica: &OpenReplica,
    writes: &[Write],
    keep_what_won: bool,
) -> Result<SavedTransaction, SyncError> {
    let writes = writes.to_vec();
    let body = move |t: &mut Transaction<'_, '_>| {
        if keep_what_won {
            t.keep_what_won();
        }
        writes.iter().try_for_each(|Write { kind, collection, id, delta }| match kind {
            Kind::Insert => t.save_with_id(collection, id, &delta.set),
            Kind::Update => t.change(collection, id, delta),
            Kind::Delete => t.delete(collection, id),
        })
    };
    replica.sync.transaction(body).await
}

/// The outcome of a transaction, as JSON.
#[derive(Serialize)]
struct Delivery {
    done: &'static str,
    /// The number of its writes.
    count: usize,
    /// As of a single write.
    state: &'static str,
    /// Writes that wait for the server.
    waiting: usize,
    /// The reason why it waits or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Tries to bring a transaction to the server, and says what became of it.
async fn deliver(
    replica: &mut OpenReplica,
    count: usize,
    saved: &SavedTransaction,
    out: Printer,
) -> Result<(), Failure> {
    let meeting = replica.meet(out).await?;
    let waiting = replica.status().await?.pending_writes;
    let fate = fate_by_now(saved.confirmed()).await?;
    let atomic = replica.status().await?.guarantees.is_none_or(|it| it.atomic);
    if fate.is_some() && !atomic {
        out.note("the server takes no transactions: the writes went to it one by one");
    }
    let name = format!("made {count} writes");
    let WriteFate { state, why, text, code } = WriteFate::of(&name, fate, meeting.apart);
    out.line(text, &Delivery { done: "transaction", count, state, waiting, why })?;
    code.map_or(Ok(()), |code| Err(Failure::said(code)))
}

/// Reads the lines of a file, or of the standard input.
fn read(file: &str) -> Result<Vec<Write>, Failure> {
    let text = match file {
        "-" => io::read_to_string(io::stdin())?,
        file => fs::read_to_string(file)
            .map_err(|error| Failure::new(Code::Usage, unreadable(file.as_ref(), &error)))?,
    };
    let mut writes = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        writes.push(write(line).map_err(|why| {
            let text = format!("line {} can't be used, and nothing was written: {why}", index + 1);
            Failure::new(Code::Usage, text)
        })?);
    }
    if writes.is_empty() {
        return Err(Failure::new(Code::Usage, "nothing to write: there is no line"));
    }
    Ok(writes)
}

fn write(line: &str) -> Result<Write, String> {
    let line: Line<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Line { kind, collection, record_id: id, data, metadata } = line;
    let data = data.map_or("{}", RawValue::get);
    let set = Document::parse(data, &Limits::default())
        .map_err(|error| unusable(&error).message.unwrap_or_default())?;
    let delta = Delta::new(set, metadata.unset);
    Ok(Write { kind, collection, id, delta })
}
