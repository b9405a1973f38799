//! The outcome of writes: they are handed to the server, if it can be reached, and what became of them is
//! said.

use std::time::Duration;

use serde::Serialize;
use synclayer_tokio::{Confirmed, Fate, Saved};
use tokio::time::timeout;

use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::replica::{Meeting, OpenReplica};

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
    let fate = fate_by_now(saved.confirmed()).await?;
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

/// Several records that were written alike.
pub(crate) struct DoneAll<'a> {
    pub(crate) done: &'static str,
    pub(crate) collection: &'a str,
    pub(crate) count: usize,
    /// Those that were like that already, where that is counted.
    pub(crate) unchanged: Option<usize>,
}

/// The outcome of the writes of several records, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryOfAll<'a> {
    done: &'a str,
    collection: &'a str,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    unchanged: Option<usize>,
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

/// Says what became of the writes of several records after a meeting with the server. Each of `fates` is
/// that of so many of them.
pub(crate) async fn deliver_all(
    meeting: &Meeting,
    DoneAll { done, collection, count, unchanged }: DoneAll<'_>,
    fates: Vec<(usize, Confirmed)>,
    out: Printer,
) -> Result<(), Failure> {
    let (mut waiting, mut refused, mut given_up) = (0, 0, 0);
    for (records, confirmed) in fates {
        match fate_by_now(confirmed).await? {
            None => waiting += records,
            Some(Fate::Rejected { .. }) => refused += records,
            Some(Fate::GivenUp) => given_up += records,
            Some(_) => {}
        }
    }
    let why = meeting.apart.clone().filter(|_| waiting > 0);
    let mut text = format!("{done} {count} records of {collection}");
    if let Some(unchanged) = unchanged.filter(|unchanged| *unchanged > 0) {
        text += &format!("; {unchanged} of them were like that already");
    }
    if waiting > 0 {
        let why = why.as_deref().unwrap_or("it has not answered yet");
        text += &format!("; {waiting} of them wait for the server: {why}");
    }
    if refused > 0 {
        text += &format!("; the server has refused {refused}: see `synclayer rejected list`");
    }
    if given_up > 0 {
        text += &format!("; {given_up} were given up: somebody else has changed the record");
    }
    let told =
        DeliveryOfAll { done, collection, count, unchanged, waiting, refused, given_up, why };
    out.line(text, &told)?;
    let code = [(refused, Code::Refused), (given_up, Code::GivenUp), (waiting, Code::Waiting)];
    let code = code.into_iter().find(|(count, _)| *count > 0);
    code.map_or(Ok(()), |(_, code)| Err(Failure::said(code)))
}

/// The fate of a write; `None` where it is not known yet.
pub(crate) async fn fate_by_now(confirmed: Confirmed) -> Result<Option<Fate>, Failure> {
    match timeout(Duration::ZERO, confirmed).await {
        Ok(fate) => Ok(Some(fate?)),
        Err(_) => Ok(None),
    }
}
