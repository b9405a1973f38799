//! The decisions about the writes of a connection, of a push, and of a level-1 call.

use alloc::vec::Vec;

use super::write::{Writer, Writes};
use super::{
    Context, Decision, Outcome, PlainWrite, Push, PushOutcome, Run, TransactionAnswer, Verdict,
    Window,
};
use crate::protocol::name::Seq;
use crate::protocol::unit::Submission;
use crate::rules::record::{ClientRow, EpochRow};
use crate::store::{Batch, Rows, StoreError};

pub(super) fn decide_run(
    run: &Run,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Result<Decision, StoreError> {
    let mut writer = Writer::new(rows, context, run.user.as_ref());
    let mut client = match &run.client {
        Some((id, session)) => match ClientRow::load(rows, id)? {
            Some(client) if client.holds(*session) => Some(client),
            Some(_) | None => return Ok(superseded(run, context)),
        },
        None => None,
    };
    let writes = Writes { conn: run.conn, submitted: &run.writes, window: run.window.clone() };
    let outcomes = writer.write_all(writes, client.as_mut())?;
    if let (Some(client), Some((id, _))) = (client, &run.client) {
        writer.see(id, client);
    }
    Ok(writer.decision(TransactionAnswer::Writes(outcomes)))
}

pub(super) fn decide_push(
    push: &Push,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Result<Decision, StoreError> {
    let mut writer = Writer::new(rows, context, push.user.as_ref());
    let refused = |outcome| Decision {
        batch: Batch::default(),
        answer: TransactionAnswer::Pushed(outcome),
        published: Vec::new(),
    };
    let epoch = EpochRow::current(rows)?.map(|(_, epoch)| epoch.id);
    if epoch.as_ref() != Some(&push.epoch) {
        return Ok(refused(PushOutcome::OtherEpoch));
    }
    let (id, session) = &push.client;
    let mut client = match ClientRow::load(rows, id)? {
        Some(client)
            if client.user.as_ref() == push.user.as_ref().map(|user| &user.id)
                && client.holds(*session) =>
        {
            client
        }
        Some(_) | None => return Ok(refused(PushOutcome::Superseded)),
    };
    let writes = Writes { conn: None, submitted: &push.writes, window: Window::new() };
    let outcomes = writer.write_all(writes, Some(&mut client))?;
    let last_mutation = client.last_mutation;
    writer.see(id, client);
    Ok(writer.decision(TransactionAnswer::Pushed(PushOutcome::Judged { outcomes, last_mutation })))
}

pub(super) fn decide_plain(
    write: &PlainWrite,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Result<Decision, StoreError> {
    let mut writer = Writer::new(rows, context, write.user.as_ref());
    let outcome = writer.write_http(write)?;
    Ok(writer.decision(TransactionAnswer::Plain(outcome)))
}

fn superseded(run: &Run, context: Context<'_>) -> Decision {
    let outcomes = run.writes.iter().take(1).filter_map(|submitted| {
        let (collection, record_id, unit) = match submitted {
            Submission::One(mutation) => (&mutation.collection, &mutation.record_id, None),
            Submission::Unit(unit) => {
                let member = unit.members.first()?;
                (member.collection(), member.record_id(), unit.first())
            }
        };
        Some(Outcome {
            collection: collection.clone(),
            record_id: record_id.clone(),
            mutation: submitted.first(),
            unit,
            at: Seq(0),
            committed_at: context.now,
            verdict: Verdict::Superseded,
            looked: None,
        })
    });
    let answer = TransactionAnswer::Writes(outcomes.collect());
    Decision { batch: Batch::default(), answer, published: Vec::new() }
}
