//! Writing: saved here first, then handed to the server, if it can be reached.

use std::io;

use serde::Serialize;
use synclayer_tokio::{Delta, Document, EventKind, Limits, Misuse, SyncError};

use crate::args::{RecordArgs, SaveArgs, UpdateArgs};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::replica::{Meeting, Replica, on_replica};

pub(crate) async fn save(args: SaveArgs, out: Output) -> Result<(), Failure> {
    let document = read_document(&args.document)?;
    on_replica(&args.replica, async |replica| {
        let collection = replica.collection(&args.collection)?;
        let id = match args.id {
            Some(id) => {
                collection.save_with_id(&id, &document).await?;
                id
            }
            None => collection.save(&document).await?.to_string(),
        };
        deliver(replica, "saved", &args.collection, &id, out).await
    })
    .await
}

pub(crate) async fn update(args: UpdateArgs, out: Output) -> Result<(), Failure> {
    let UpdateArgs { collection: name, id, fields, unset, replica } = args;
    let delta = Delta::new(read_document(&fields)?, unset);
    if delta.is_empty() {
        return Err(Failure::new(Code::Usage, "nothing to change: give fields, or --unset"));
    }
    on_replica(&replica, async |replica| {
        let collection = replica.collection(&name)?;
        match collection.change(&id, delta.clone()).await {
            // the server may have it
            Err(SyncError::Misuse(Misuse::NoSuchRecord { .. })) if replica.has_server() => {
                missing_unless_met(replica, &name, &id, out).await?;
                collection.change(&id, delta).await?;
            }
            changed => changed?,
        }
        deliver(replica, "updated", &name, &id, out).await
    })
    .await
}

pub(crate) async fn delete(args: RecordArgs, out: Output) -> Result<(), Failure> {
    let RecordArgs { collection: name, id, replica } = args;
    on_replica(&replica, async |replica| {
        let collection = replica.collection(&name)?;
        if collection.get(&id).await?.is_none() {
            missing_unless_met(replica, &name, &id, out).await?;
        }
        collection.delete(&id).await?;
        deliver(replica, "deleted", &name, &id, out).await
    })
    .await
}

/// Meets the server, which may have a record that isn't here.
pub(crate) async fn missing_unless_met(
    replica: &mut Replica,
    name: &str,
    id: &str,
    out: Output,
) -> Result<Meeting, Failure> {
    let collection = replica.collection(name)?;
    collection.subscribe().await?;
    let meeting = replica.meet().await?;
    if let Some(why) = &meeting.apart {
        out.note(format_args!("not in sync: {why}"));
    }
    match collection.get(id).await? {
        Some(_) => Ok(meeting),
        None => Err(Failure::no_record(name, id)),
    }
}

/// What became of a write.
#[derive(Serialize)]
struct Delivery<'a> {
    /// What was done.
    done: &'a str,
    collection: &'a str,
    id: &'a str,
    /// `synced`, `waiting` or `refused`.
    state: &'static str,
    /// How many writes wait for the server.
    waiting: usize,
    /// How many conflicts with changes of others were decided on the way.
    conflicts: usize,
    /// Why it waits or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Tries to bring a write to the server, and says what became of it.
pub(crate) async fn deliver(
    replica: &mut Replica,
    done: &str,
    collection: &str,
    id: &str,
    out: Output,
) -> Result<(), Failure> {
    deliver_after(Meeting::default(), replica, done, collection, id, out).await
}

/// As [`deliver`], by a command that has met the server before.
pub(crate) async fn deliver_after(
    before: Meeting,
    replica: &mut Replica,
    done: &str,
    collection: &str,
    id: &str,
    out: Output,
) -> Result<(), Failure> {
    let mut meeting = replica.meet().await?;
    let earlier = before.refusals.len();
    meeting.conflicts += before.conflicts;
    let waiting = replica.status().await?.pending_writes;
    let refusal = refusal(&meeting, collection, id);
    let conflicts = meeting.conflicts;
    let others = earlier + meeting.refusals.len() - usize::from(refusal.is_some());
    if others > 0 {
        out.note(format_args!(
            "{others} earlier writes were refused: see `synclayer rejected list`"
        ));
    }
    if let Some(why) = meeting.apart.as_ref().filter(|_| meeting.refused) {
        out.note(format_args!("not in sync: {why}"));
    }
    let name = format!("{done} {collection}/{id}");
    let (state, why, text, ended) = match (refusal, meeting.apart) {
        (Some(why), _) => {
            let text = format!("{name} here, but the server has refused it: {why}");
            ("refused", Some(why), text, Err(Failure::said(Code::Refused)))
        }
        (None, Some(why)) if waiting > 0 => {
            let text = format!("{name} here; it waits for the server: {why}");
            ("waiting", Some(why), text, Err(Failure::said(Code::Waiting)))
        }
        (None, _) => ("synced", None, format!("{name}; the server has it"), Ok(())),
    };
    let json = Delivery { done, collection, id, state, waiting, conflicts, why };
    out.line(text, &json)?;
    if conflicts > 0 {
        out.note(format_args!("{conflicts} conflicts with changes of others were decided"));
    }
    ended
}

/// Why the server has refused a record's write, if it has.
fn refusal(meeting: &Meeting, collection: &str, id: &str) -> Option<String> {
    let event = meeting.refusals.iter().rfind(|event| {
        event.collection.as_deref() == Some(collection) && event.record_id.as_deref() == Some(id)
    })?;
    let EventKind::OperationFailed { code, message, .. } = &event.kind else { return None };
    Some(format!("{message} ({code})"))
}

/// Reads a JSON object: the argument, or what `-` stands for.
fn read_document(text: &str) -> Result<Document, Failure> {
    let parse = |text: &str| {
        Document::parse(text, &Limits::default())
            .map_err(|error| Failure::new(Code::Usage, format!("the JSON can't be used: {error}")))
    };
    if text == "-" { parse(&io::read_to_string(io::stdin())?) } else { parse(text) }
}
