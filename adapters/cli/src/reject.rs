//! A write that does not get through is rejected by hand.

use serde::Serialize;
use synclayer_core::ErrorCode;
use synclayer_tokio::{StalledWrite, WriteId};

use crate::args::OneWriteArgs;
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::replica::on_replica;
use crate::shown::Shown;

pub(crate) async fn reject(args: OneWriteArgs, out: Printer) -> Result<(), Failure> {
    let id = WriteId(args.write);
    on_replica(&args.replica, async |replica| {
        let before = replica.status().await?;
        replica.sync.rejected().reject_stalled(id).await?;
        let Some(StalledWrite { collection, record_id, .. }) = before.stalled else {
            return Err(Failure::plain("it is gone"));
        };
        // only the server can tell that it does not have it
        let meeting = replica.meet(out).await?;
        let is_rejected = replica.sync.rejected().list().await?.iter().any(|it| it.write == id);
        let status = replica.status().await?;
        let waits = status.stalled.is_some_and(|stalled| stalled.write == id);
        let name = format!("write {id} of {}", Shown(format_args!("{collection}/{record_id}")));
        let (state, text, code) = match (is_rejected, waits) {
            (true, _) => {
                let text = format!(
                    "rejected {name}; it is kept in `synclayer rejected list`, and what was written \
                     later goes on"
                );
                ("rejected", text, None)
            }
            (false, true) => {
                let why = meeting.apart.as_deref().unwrap_or("it has not answered yet");
                let text = format!(
                    "{name} is rejected as soon as the server has said that it does not have it, by \
                     the next call that reaches it: {why}"
                );
                ("waiting", text, Some(Code::Waiting))
            }
            (false, false) => {
                ("synced", format!("{name} was through after all; the server has it"), None)
            }
        };
        let json = RejectJson {
            done: "rejected",
            write: id.0,
            collection: &collection,
            id: &record_id,
            state,
            waiting: status.pending_writes,
        };
        out.line(text, &json)?;
        code.map_or(Ok(()), |code| Err(Failure::said(code)))
    })
    .await
}

/// The outcome, as JSON.
#[derive(Serialize)]
struct RejectJson<'a> {
    done: &'a str,
    write: u64,
    collection: &'a str,
    id: &'a str,
    /// `rejected`, `waiting`: the server could not be asked, or `synced`: the server has it.
    state: &'a str,
    /// Writes that wait for the server.
    waiting: usize,
}

/// Says that a write does not get through, what follows, and what to do now.
#[allow(clippy::wildcard_enum_match_arm)] // most codes end a write
pub(crate) fn stalled(write: &StalledWrite) -> String {
    let StalledWrite { write, collection, record_id, bytes, code, .. } = write;
    let name = Shown(format_args!("{collection}/{record_id}"));
    let why = match code {
        ErrorCode::PayloadTooLarge => {
            "it is larger than what the connection carries before it breaks, or than what something on \
             the way takes"
        }
        ErrorCode::Conflict => "its record keeps changing",
        _ => "the server keeps failing at it",
    };
    format!(
        "write {write} of {name} with {bytes} bytes does not get through ({why}), and what was written \
         later waits for it: try again over a better connection, or reject it with `synclayer reject \
         {write}`"
    )
}
