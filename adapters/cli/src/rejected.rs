//! The writes that the server has refused.

use serde::Serialize;
use synclayer_tokio::{Document, Rejected, WriteId};

use crate::args::RejectedAction;
use crate::deliver::{Done, deliver};
use crate::failure::Failure;
use crate::output::Printer;
use crate::replica::on_replica;

pub(crate) async fn rejected(action: RejectedAction, out: Printer) -> Result<(), Failure> {
    match action {
        RejectedAction::List(args) => {
            on_replica(&args, async |replica| {
                let writes = replica.sync.rejected().list().await?;
                writes.iter().try_for_each(|write| out.line(describe(write), &json(write)))
            })
            .await
        }
        RejectedAction::Retry(args) => {
            on_replica(&args.replica, async |replica| {
                let rejected = replica.sync.rejected();
                let id = WriteId(args.write);
                let write = rejected.list().await?.into_iter().find(|write| write.write == id);
                let saved = rejected.retry(id).await?;
                let write = write.ok_or_else(|| Failure::plain("it is gone"))?;
                let done = Done { done: "retried", collection: &write.collection, saved };
                deliver(replica, done, out).await
            })
            .await
        }
        RejectedAction::Discard(args) => {
            on_replica(&args.replica, async |replica| {
                replica.sync.rejected().discard(WriteId(args.write)).await?;
                let json = serde_json::json!({ "done": "discarded", "write": args.write });
                out.line(format_args!("discarded write {}", args.write), &json)
            })
            .await
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RejectedJson<'a> {
    write: u64,
    operation: String,
    collection: &'a str,
    id: &'a str,
    data: &'a Document,
    unset: &'a [Box<str>],
    written_at: String,
    code: &'a str,
    message: &'a str,
}

fn json(write: &Rejected) -> RejectedJson<'_> {
    RejectedJson {
        write: write.write.0,
        operation: write.change.kind.to_string(),
        collection: &write.collection,
        id: &write.record_id,
        data: &write.change.delta.set,
        unset: &write.change.delta.unset,
        written_at: write.written_at.to_string(),
        code: write.code.as_str(),
        message: &write.message,
    }
}

fn describe(write: &Rejected) -> String {
    let Rejected { write, collection, record_id, change, code, message, .. } = write;
    format!("{write}  {} {collection}/{record_id}: {message} ({code})", change.kind)
}
