//! The decision about local records that the server lost, or whose server has another database.

use serde::Serialize;

use crate::args::ReplicaArgs;
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::replica::on_replica;

/// A decision about these records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LossDecision {
    /// Lets them go.
    Adopt,
    /// Sends them to the server.
    Offer,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecidedJson {
    /// `adopted`, `offered`, or `nothing` where there was nothing to decide.
    done: &'static str,
    /// The reason why the two sides are not in sync yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    apart: Option<String>,
    /// Writes that wait for the server.
    waiting: usize,
    /// Writes that the server has refused so far.
    rejected: usize,
}

/// Meets the server, to learn what there is to decide; decides; and meets it again.
pub(crate) async fn decide(
    args: ReplicaArgs,
    decision: LossDecision,
    out: Printer,
) -> Result<(), Failure> {
    on_replica(&args, async |replica| {
        for name in replica.status().await?.collections.keys() {
            replica.collection(name)?.subscribe().await?;
        }
        let mut meeting = replica.meet(out).await?;
        let (done, text) = match (meeting.undecided, decision) {
            (false, _) => ("nothing", "there is nothing to decide"),
            (true, LossDecision::Adopt) => {
                replica.sync.adopt().await?;
                ("adopted", "adopted: what the server has counts")
            }
            (true, LossDecision::Offer) => {
                replica.sync.offer().await?;
                ("offered", "offered: what is held here goes to the server")
            }
        };
        if meeting.undecided {
            meeting = replica.meet(out).await?;
        }
        let status = replica.status().await?;
        let json = DecidedJson {
            done,
            apart: meeting.apart.clone(),
            waiting: status.pending_writes,
            rejected: status.rejected_writes,
        };
        out.line(text, &json)?;
        if status.rejected_writes > 0 {
            let count = status.rejected_writes;
            out.note(format_args!("{count} writes are refused: see `synclayer rejected list`"));
        }
        if let Some(why) = &meeting.apart {
            out.note(format_args!("not in sync yet: {why}"));
        }
        meeting.end()?;
        if meeting.apart.is_some() { Err(Failure::said(Code::Waiting)) } else { Ok(()) }
    })
    .await
}
