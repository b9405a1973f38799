//! Writing: saved here first, then handed to the server, if it can be reached.

use std::io;

use synclayer_tokio::{Delta, Document, Limits};

use crate::args::{DeleteArgs, SaveArgs, UpdateArgs};
use crate::deliver::{Done, DoneAll, deliver, deliver_all};
use crate::failure::{Code, Failure, unusable};
use crate::output::Printer;
use crate::part::Part;
use crate::read::{filtered, refresh};
use crate::replica::{Meeting, OpenReplica, on_replica};

pub(crate) async fn save(args: SaveArgs, out: Printer) -> Result<(), Failure> {
    let document = read_document(&args.document)?;
    on_replica(&args.replica, async |replica| {
        let part = Part::of(replica, &args.collection, &args.scope)?;
        let saved = part.save(args.id.as_deref(), &document).await?;
        deliver(replica, Done { done: "saved", collection: &args.collection, saved }, out).await
    })
    .await
}

pub(crate) async fn update(args: UpdateArgs, out: Printer) -> Result<(), Failure> {
    let UpdateArgs { collection: name, id, fields, unset, scope, replica } = args;
    let delta = Delta::new(read_document(&fields)?, unset);
    if delta.is_empty() {
        return Err(Failure::new(Code::Usage, "nothing to change: give fields, or --unset"));
    }
    on_replica(&replica, async |replica| {
        let part = Part::of(replica, &name, &scope)?;
        if part.lacks(&id).await? {
            // the server may have it
            missing_unless_met(replica, (&name, &part), &id, out).await?;
        }
        let saved = part.change(&id, delta).await?;
        deliver(replica, Done { done: "updated", collection: &name, saved }, out).await
    })
    .await
}

pub(crate) async fn delete(args: DeleteArgs, out: Printer) -> Result<(), Failure> {
    let DeleteArgs { collection: name, id, filter, scope, replica } = args;
    on_replica(&replica, async |replica| {
        let part = Part::of(replica, &name, &scope)?;
        let Some(id) = &id else {
            part.subscribe().await?;
            refresh(replica, &name, out).await?;
            let saved = filtered(part.query(), &filter).delete().await?;
            let count = saved.len();
            let fates = saved.iter().map(|saved| (1, saved.confirmed())).collect();
            let done = DoneAll { done: "deleted", collection: &name, count, unchanged: None };
            let met = if count == 0 { Meeting::default() } else { replica.meet(out).await? };
            return deliver_all(&met, done, fates, out).await;
        };
        if part.lacks(id).await? {
            missing_unless_met(replica, (&name, &part), id, out).await?;
        }
        let saved = part.delete(id).await?;
        deliver(replica, Done { done: "deleted", collection: &name, saved }, out).await
    })
    .await
}

/// Meets the server, which may have a record that isn't here.
pub(crate) async fn missing_unless_met(
    replica: &mut OpenReplica,
    (name, part): (&str, &Part),
    id: &str,
    out: Printer,
) -> Result<Meeting, Failure> {
    part.subscribe().await?;
    let meeting = replica.meet(out).await?;
    if let Some(why) = &meeting.apart {
        out.note(format_args!("not in sync: {why}"));
    }
    if part.lacks(id).await? { Err(Failure::no_record(name, id)) } else { Ok(meeting) }
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
