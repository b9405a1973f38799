//! The server's commits: each is kept in mind, and what it did is counted.

use std::collections::BTreeMap;

use synclayer_core::protocol::ServerChange;
use synclayer_core::rules::{HelloAnswer, Outcome, PushOutcome, Verdict, database as database_of};
use synclayer_core::testing::InspectBatch;
use synclayer_core::{
    ClientId, ConnId, ErrorCode, HubJob, JobBatch, SessionNumber, Transaction, TransactionAnswer,
    WriteKind,
};

use super::World;
use super::link::Owner;
use crate::invariants::Invariant;

impl World {
    /// Keeps in mind what a commit did, in the order of its transactions, of which those by HTTP
    /// have a caller.
    pub(super) fn remember(&mut self, batch: &JobBatch<HubJob>) {
        let mut pushed = BTreeMap::new();
        for ((transaction, call), answer) in batch.transactions().zip(batch.answers()) {
            match (transaction, answer) {
                (
                    Transaction::Hello { client, session, .. },
                    Ok(TransactionAnswer::Hello(answer)),
                ) => {
                    self.remember_hello(client, *session, answer);
                }
                (Transaction::Writes(run), Ok(TransactionAnswer::Writes(outcomes))) => {
                    self.remember_outcomes(run.client.as_ref(), outcomes);
                }
                (
                    Transaction::Push(push),
                    Ok(TransactionAnswer::Pushed(PushOutcome::Judged { outcomes, .. })),
                ) => {
                    self.remember_outcomes(Some(&push.client), outcomes);
                    let caller = call.and_then(|call| self.caller(call));
                    for outcome in outcomes {
                        if let (Verdict::Applied { seq, .. }, Some(number)) =
                            (&outcome.verdict, outcome.mutation)
                        {
                            let key = (outcome.collection.clone(), *seq);
                            pushed.insert(key, ((push.client.0.clone(), number), caller));
                        }
                    }
                }
                (_, Err(error)) => {
                    self.fail(Invariant::Contract, format!("the rows can't be read: {error}"));
                }
                (_, Ok(_)) => {}
            }
        }
        let begin = self.committed.len();
        for change in batch.published() {
            let by_push = pushed.remove(&(change.collection.clone(), change.seq));
            let (by_push, caller) = by_push.map_or((None, None), |(who, by)| (Some(who), by));
            let numbered = by_push.or_else(|| {
                let origin = change.origin?;
                Some((client_of(batch, origin.conn)?, origin.mutation?))
            });
            let conn = change.origin.map(|origin| origin.conn);
            // two copies of a replica may still share an id
            let by_client = || self.clients.get(&numbered.as_ref()?.0).copied();
            let by_call = || caller.or_else(by_client).map(Owner::Device);
            let owner = conn.and_then(|conn| self.owner(conn)).or_else(by_call);
            if let (Some(Owner::Device(device)), true) = (owner, numbered.is_some()) {
                self.remember_database(device);
            }
            let committed = self.store.histories.present_mut().push(change, numbered, owner);
            self.committed.push(committed);
        }
        let committed = self.committed[begin..].to_vec();
        self.judge(batch, &committed);
    }

    /// A write of a device was taken: by the database that it knows, or one that it has decided on.
    fn remember_database(&mut self, device: usize) {
        let present = database_of(&self.store.rows).expect("the rows can be read");
        let known = std::mem::replace(&mut self.devices[device].database, present.clone());
        if known.is_some() && known != present && !self.devices[device].restored {
            let what = format!("device {device} has sent to {present:?} what was for {known:?}");
            self.fail(Invariant::LossDecided, what);
        }
    }

    fn remember_hello(&mut self, client: &ClientId, session: SessionNumber, answer: &HelloAnswer) {
        match answer {
            HelloAnswer::Open { last_mutation, first_session, .. } => {
                self.server.newest.insert(client.clone(), session);
                if session > SessionNumber(1) && *first_session == Some(session) {
                    self.count("client known anew");
                }
                if self.counts.contains_key("sweep") {
                    let history = self.store.histories.present_mut();
                    if history.forget_number(client, *last_mutation) {
                        self.count("client forgotten");
                    }
                }
            }
            HelloAnswer::Superseded => self.count("superseded hello"),
            HelloAnswer::OtherUser => {}
            HelloAnswer::TooMany(_) => self.count("client id too many"),
        }
    }

    fn remember_outcomes(
        &mut self,
        client: Option<&(ClientId, SessionNumber)>,
        outcomes: &[Outcome],
    ) {
        for outcome in outcomes {
            if let (Verdict::Refused { .. }, Some((client, _))) = (&outcome.verdict, client) {
                let place = (outcome.collection.clone(), outcome.record_id.clone());
                self.note_rejection(client, place);
            }
            let point = match &outcome.verdict {
                Verdict::Superseded => "fenced write",
                Verdict::Conflict { current } if is_without_trace(current) => {
                    "conflict without a trace"
                }
                Verdict::Conflict { .. } => "server conflict",
                Verdict::Unchanged { .. } => "write without effect",
                Verdict::Refused { code: ErrorCode::PayloadTooLarge, .. } => "write beyond a cap",
                Verdict::Refused { .. } => "refused write",
                Verdict::OutOfOrder { .. } => "out of order",
                Verdict::Applied { .. } => {
                    let newer = |(id, own): &(ClientId, SessionNumber)| {
                        self.server.newest.get(id).is_some_and(|newest| newest > own)
                    };
                    if client.is_some_and(newer) {
                        let what = format!("{client:?} wrote although it was fenced off");
                        self.fail(Invariant::Fencing, what);
                    }
                    continue;
                }
            };
            self.count(point);
        }
    }
}

/// The client that numbers the writes of a connection.
fn client_of(batch: &JobBatch<HubJob>, conn: ConnId) -> Option<ClientId> {
    batch.transactions().find_map(|(transaction, _)| match transaction {
        Transaction::Writes(run) if run.conn == Some(conn) => Some(run.client.clone()?.0),
        Transaction::Writes(_)
        | Transaction::Push(_)
        | Transaction::Hello { .. }
        | Transaction::Plain(_)
        | Transaction::PlainUnit(_)
        | Transaction::Sweep(_)
        | Transaction::BeginEpoch { .. }
        | Transaction::DeclareScopes(_)
        | Transaction::DeclareIndexes(_) => None,
    })
}

/// Returns `true` if a conflict shows no trace of its record.
fn is_without_trace(current: &ServerChange) -> bool {
    current.change.kind == WriteKind::Delete && current.version.is_none()
}
