//! Writing: saved here first, then handed to the server, if it can be reached.

use std::io;
use std::time::Duration;

use serde::Serialize;
use synclayer_tokio::{Delta, Document, Fate, Limits, Misuse, Saved, SyncError};
use tokio::time::timeout;

use crate::args::{DeleteArgs, SaveArgs, UpdateArgs};
use crate::failure::{Code, Failure, unusable};
use crate::output::Printer;
use crate::read::{filtered, refresh};
use crate::replica::{Meeting, OpenReplica, on_replica};

pub(crate) async fn save(args: SaveArgs, out: Printer) -> Result<(), Failure> {
    let document = read_document(&args.document)?;
    on_replica(&args.replica, async |replica| {
        let collection = replica.collection(&args.collection)?;
        let saved = match &args.id {
            Some(id) => collection.save_with_id(id, &document).await?,
            None => collection.save(&document).await?,
        };
        deliver(replica, Done { done: "saved", collection: &args.collection, saved }, out).await
    })
    .await
}

pub(crate) async fn update(args: UpdateArgs, out: Printer) -> Result<(), Failure> {
    let UpdateArgs { collection: name, id, fields, unset, replica } = args;
    let delta = Delta::new(read_document(&fields)?, unset);
    if delta.is_empty() {
        return Err(Failure::new(Code::Usage, "nothing to change: give fields, or --unset"));
    }
    on_replica(&replica, async |replica| {
        let collection = replica.collection(&name)?;
        let saved = match collection.change(&id, delta.clone()).await {
            // the server may have it
            Err(SyncError::Misuse(Misuse::NoSuchRecord { .. })) if replica.has_server() => {
                missing_unless_met(replica, &name, &id, out).await?;
                collection.change(&id, delta).await?
            }
            changed => changed?,
        };
        deliver(replica, Done { done: "updated", collection: &name, saved }, out).await
    })
    .await
}

pub(crate) async fn delete(args: DeleteArgs, out: Printer) -> Result<(), Failure> {
    let DeleteArgs { collection: name, id, filter, replica } = args;
    on_replica(&replica, async |replica| {
        let collection = replica.collection(&name)?;
        let Some(id) = &id else {
            collection.subscribe().await?;
            refresh(replica, &name, out).await?;
            let saved = filtered(&collection, &filter).delete().await?;
            return deliver_all(replica, &name, saved, out).await;
        };
        if collection.get(id).await?.is_none() {
            missing_unless_met(replica, &name, id, out).await?;
        }
        let saved = collection.delete(id).await?;
        deliver(replica, Done { done: "deleted", collection: &name, saved }, out).await
    })
    .await
}

/// The outcome of the deletion of several records, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryOfAll<'a> {
    done: &'a str,
    collection: &'a str,
    count: usize,
    /// Of these, the ones that wait for the server.
    waiting: usize,
    /// Those that the server has refused.
    refused: usize,
    /// Those that were given up because somebody else has changed the record.
    given_up: usize,
    /// The reason why they wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Tries to bring deletions to the server, and says what became of them.
async fn deliver_all(
    replica: &mut OpenReplica,
    collection: &str,
    saved: Vec<Saved>,
    out: Printer,
) -> Result<(), Failure> {
    let apart = if saved.is_empty() { None } else { replica.meet(out).await?.apart };
    let (count, mut waiting, mut refused, mut given_up) = (saved.len(), 0, 0, 0);
    for saved in saved {
        // it is known by now, or it is not known yet
        match timeout(Duration::ZERO, saved.confirmed()).await {
            Err(_) => waiting += 1,
            Ok(fate) => {
                let fate = fate?;
                refused += usize::from(matches!(fate, Fate::Rejected { .. }));
                given_up += usize::from(fate == Fate::GivenUp);
            }
        }
    }
    let why = apart.filter(|_| waiting > 0);
    let mut text = format!("deleted {count} records of {collection}");
    if waiting > 0 {
        let why = why.as_deref().unwrap_or("it has not answered yet");
        text += &format!("; {waiting} deletions wait for the server: {why}");
    }
    if refused > 0 {
        text += &format!("; the server has refused {refused}: see `synclayer rejected list`");
    }
    if given_up > 0 {
        text += &format!("; {given_up} were given up: somebody else has changed the record");
    }
    let done = "deleted";
    out.line(text, &DeliveryOfAll { done, collection, count, waiting, refused, given_up, why })?;
    let code = [(refused, Code::Refused), (given_up, Code::GivenUp), (waiting, Code::Waiting)];
    let code = code.into_iter().find(|(count, _)| *count > 0);
    code.map_or(Ok(()), |(_, code)| Err(Failure::said(code)))
}

/// Meets the server, which may have a record that isn't here.
pub(crate) async fn missing_unless_met(
    replica: &mut OpenReplica,
    name: &str,
    id: &str,
    out: Printer,
) -> Result<Meeting, Failure> {
    let collection = replica.collection(name)?;
    collection.subscribe().await?;
    let meeting = replica.meet(out).await?;
    if let Some(why) = &meeting.apart {
        out.note(format_args!("not in sync: {why}"));
    }
    match collection.get(id).await? {
        Some(_) => Ok(meeting),
        None => Err(Failure::no_record(name, id)),
    }
}

/// The outcome of a write, as JSON.
#[derive(Serialize)]
struct Delivery<'a> {
    /// The operation.
    done: &'a str,
    collection: &'a str,
    id: &'a str,
    /// `synced`, `waiting`, `refused`, `given-up`, or `unchanged`: it was like that here already, and
    /// the server was not asked.
    state: &'static str,
    /// Writes that wait for the server.
    waiting: usize,
    /// Records with changes of others that were in conflict, and decided meanwhile.
    conflicts: usize,
    /// The reason why it waits or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// An operation on a record.
pub(crate) struct Done<'a> {
    pub(crate) done: &'a str,
    pub(crate) collection: &'a str,
    pub(crate) saved: Saved,
}

/// Tries to bring a write to the server, and says what became of it.
pub(crate) async fn deliver(
    replica: &mut OpenReplica,
    done: Done<'_>,
    out: Printer,
) -> Result<(), Failure> {
    deliver_after(Meeting::default(), replica, done, out).await
}

/// Delivers as [`deliver`], for a command that has met the server before.
pub(crate) async fn deliver_after(
    before: Meeting,
    replica: &mut OpenReplica,
    Done { done, collection, saved }: Done<'_>,
    out: Printer,
) -> Result<(), Failure> {
    let meeting = replica.meet(out).await?;
    let waiting = replica.status().await?.pending_writes;
    // it is known by now, or it is not known yet
    let fate = match timeout(Duration::ZERO, saved.confirmed()).await {
        Ok(fate) => Some(fate?),
        Err(_) => None,
    };
    let refused = matches!(fate, Some(Fate::Rejected { .. }));
    let refusals = before.refusals.len() + meeting.refusals.len();
    if refusals > usize::from(refused) {
        out.note(format_args!(
            "{} earlier writes were refused: see `synclayer rejected list`",
            refusals - usize::from(refused)
        ));
    }
    // a write that waits says itself for what
    if let Some(why) = meeting.apart.as_ref().filter(|_| meeting.refused && fate.is_some()) {
        out.note(format_args!("not in sync: {why}"));
    }
    let name = format!("{done} {collection}/{saved}");
    let WriteFate { state, why, text, code } = WriteFate::of(&name, fate, meeting.apart);
    let mut met = before.conflicts;
    met.extend(meeting.conflicts);
    let (id, conflicts) = (&*saved.id, met.len());
    out.line(text, &Delivery { done, collection, id, state, waiting, conflicts, why })?;
    for record in met {
        out.note(format_args!(
            "{record}: somebody else has changed the same fields, and --conflicts has decided whose \
             values count; `synclayer get` shows them"
        ));
    }
    if let Some(clock) = meeting.clock.or(before.clock) {
        out.note(clock);
    }
    code.map_or(Ok(()), |code| Err(Failure::said(code)))
}

/// The outcome of a write, as text.
pub(crate) struct WriteFate {
    pub(crate) state: &'static str,
    pub(crate) why: Option<String>,
    pub(crate) text: String,
    pub(crate) code: Option<Code>,
}

impl WriteFate {
    #[allow(clippy::wildcard_enum_match_arm)] // there may be more of them one day
    pub(crate) fn of(name: &str, fate: Option<Fate>, apart: Option<String>) -> Self {
        let outcome = |state, why, text, code| Self { state, why, text, code };
        match fate {
            None => {
                let why = apart.unwrap_or_else(|| "it has not answered yet".to_owned());
                let text = format!("{name} here; it waits for the server: {why}");
                outcome("waiting", Some(why), text, Some(Code::Waiting))
            }
            Some(Fate::Rejected { code, message }) => {
                let why = format!("{message} ({code})");
                let text = format!("{name} here, but the server has refused it: {why}");
                outcome("refused", Some(why), text, Some(Code::Refused))
            }
            Some(Fate::GivenUp) => {
                let why = "somebody else has changed the record, and --conflicts lets that win";
                let text = format!("{name} here, but it was given up: {why}");
                outcome("given-up", Some(why.to_owned()), text, Some(Code::GivenUp))
            }
            Some(Fate::Unchanged) if apart.is_some() => {
                let text = format!("{name}; it was like that here already");
                outcome("unchanged", apart, text, None)
            }
            Some(Fate::Settled) => {
                let text = format!("{name}; the server has it, as far as a plain server tells");
                outcome("synced", None, text, None)
            }
            Some(_) => outcome("synced", None, format!("{name}; the server has it"), None),
        }
    }
}

/// Reads a JSON object: the argument, or what `-` stands for.
fn read_document(text: &str) -> Result<Document, Failure> {
    let parse =
        |text: &str| Document::parse(text, &Limits::default()).map_err(|error| unusable(&error));
    if text != "-" {
        return parse(text);
    }
    let text = io::read_to_string(io::stdin())?;
    parse(&text).map_err(|failure| match text.trim().split_once('\n') {
        Some((first, _)) if parse(first).is_ok() => Failure::new(
            Code::Usage,
            "the standard input holds several JSON objects, and nothing was saved: give them one at a \
             time, as by: while read -r line; do synclayer save COLLECTION \"$line\"; done",
        ),
        _ => failure,
    })
}
