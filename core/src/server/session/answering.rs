//! The answers to transactions, which become verdicts.

use alloc::vec::Vec;

use super::verdicts::DueVerdict;
use super::{Handshake, InputContext, PendingTransaction, Session, TicketAnswer};
use crate::protocol::message::{ErrorCode, ErrorMessage, Features, ServerMessage, Welcome};
use crate::protocol::name::{MutationNumber, Seq};
use crate::rules::transaction::{HelloAnswer, Outcome, TransactError, TransactionAnswer, Verdict};
use crate::server::about::{About, UnitVerdict, hide_records, too_many_clients};
use crate::server::looks::Looks;

impl Session {
    pub(super) fn transacted(
        &mut self,
        report: TicketAnswer<Result<TransactionAnswer, TransactError>>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let expected = report.conn == self.conn
            && self.pending_transaction.as_ref().is_some_and(|t| t.generation == report.generation);
        let Some(pending) = self.pending_transaction.take_if(|_| expected) else {
            self.counters.late_answers += 1;
            return;
        };
        let mut answer = report.answer;
        if let Ok(answer) = &mut answer {
            self.hide_outdated(answer, &pending, cx);
        }
        match answer {
            Ok(TransactionAnswer::Hello(answer)) => self.hello_answered(answer, cx),
            Ok(TransactionAnswer::Writes(outcomes)) => {
                let mut outcomes = outcomes.into_iter().peekable();
                while let Some(outcome) = outcomes.next() {
                    let Some(first) = outcome.unit else {
                        self.outcome(outcome, cx);
                        continue;
                    };
                    let mut of_unit = Vec::from([outcome]);
                    while let Some(more) = outcomes.next_if(|next| next.unit == Some(first)) {
                        of_unit.push(more);
                    }
                    self.unit_outcome(first, of_unit, cx);
                }
            }
            Ok(
                TransactionAnswer::Pushed(_)
                | TransactionAnswer::Plain(_)
                | TransactionAnswer::PlainUnit(_)
                | TransactionAnswer::Swept(_)
                | TransactionAnswer::Begun,
            ) => {
                self.close(1011, "the server mixed up its answers", cx);
            }
            Err(TransactError::Failed(_)) => self.failed(&pending, cx),
            // whether the writes were applied is not known: the next hello tells
            Err(TransactError::Unknown(_)) => {
                self.close(1011, "the server's database failed", cx);
            }
        }
        self.release(cx);
        self.reads_first = true;
        self.lift_barriers(cx);
        self.advance(cx);
    }

    /// Lets an answer show no record if the rights have changed since it was found. What its verdicts have
    /// looked at is kept in mind while one of them waits.
    fn hide_outdated(
        &mut self,
        answer: &mut TransactionAnswer,
        pending: &PendingTransaction,
        cx: &InputContext<'_, '_>,
    ) {
        let mut looks = Looks::default();
        if let TransactionAnswer::Writes(outcomes) = answer {
            let looked = outcomes.iter_mut().filter_map(|outcome| outcome.looked.take());
            looked.for_each(|looked| looks.add(*looked, pending.published));
        }
        if pending.outdated || looks.have_moved(cx.env.rings) {
            hide_records(answer);
        } else {
            self.verdicts.look_at(looks);
        }
    }

    fn hello_answered(&mut self, answer: HelloAnswer, cx: &mut InputContext<'_, '_>) {
        let Handshake::Opening { client, session } = self.handshake.clone() else { return };
        match answer {
            HelloAnswer::Open { database, epoch, last_mutation, last_digest, first_session } => {
                self.handshake = Handshake::Resumable { client, session };
                self.verdicts.expect_after(last_mutation);
                let welcome = Welcome {
                    database,
                    epoch,
                    last_mutation,
                    last_digest,
                    first_session,
                    user_id: self.auth.user().cloned(),
                    max_batch_bytes: self.limits.max_batch_bytes,
                    features: Features::OFFERED,
                };
                let timestamp = Some(cx.now.wall);
                self.send_message(&ServerMessage::Pong { timestamp, welcome: Some(welcome) }, cx);
            }
            HelloAnswer::Superseded => self.superseded(cx),
            HelloAnswer::OtherUser => {
                let message = "the client id belongs to another user: take a new one";
                self.error(ErrorCode::Unauthorized, message, cx);
                self.close(1008, "the client belongs to another user", cx);
            }
            HelloAnswer::TooMany(most) => {
                self.error(ErrorCode::RateLimitExceeded, too_many_clients(most), cx);
                self.close(1013, "the user has too many clients", cx);
            }
        }
    }

    fn superseded(&mut self, cx: &mut InputContext<'_, '_>) {
        let message = "a newer session of this client exists";
        self.error(ErrorCode::SessionSuperseded, message, cx);
        self.close(1008, "a newer session of this client exists", cx);
    }

    fn outcome(&mut self, outcome: Outcome, cx: &mut InputContext<'_, '_>) {
        if self.closed {
            return;
        }
        let at = outcome.at;
        let (about, verdict) = About::of(outcome);
        match (verdict, about.mutation) {
            (Verdict::Superseded, _) => self.superseded(cx),
            (Verdict::OutOfOrder { .. }, number) => self.out_of_order(number, cx),
            (Verdict::Applied { seq, version, echo }, Some(number)) => {
                let ack = about.ack(number, Some(version), echo);
                self.verdicts.applied(number, seq, ack, self.limits.window);
            }
            (Verdict::Unchanged { version }, Some(number)) => {
                self.verdicts.unchanged(number, at, about.ack(number, version, None));
            }
            (Verdict::Conflict { current }, Some(number)) => {
                self.verdicts.fail(number, at, about.conflict(current));
            }
            (Verdict::Refused { code, message }, Some(number)) => {
                self.verdicts.fail(number, at, about.error(code, message));
            }
            // level 1 hears of its failures only
            (Verdict::Applied { .. } | Verdict::Unchanged { .. }, None) => {}
            (Verdict::Conflict { .. }, None) => {
                let error =
                    about.error(ErrorCode::Conflict, "the record was changed by someone else");
                self.send_message(&ServerMessage::Error(error), cx);
            }
            (Verdict::Refused { code, message }, None) => {
                let error = about.error(code, message);
                self.send_message(&ServerMessage::Error(error), cx);
            }
        }
    }

    fn unit_outcome(
        &mut self,
        first: MutationNumber,
        outcomes: Vec<Outcome>,
        cx: &mut InputContext<'_, '_>,
    ) {
        if self.closed {
            return;
        }
        match UnitVerdict::of(first, outcomes, self.limits.input.frame_bytes / 2) {
            UnitVerdict::Applied(acks) => self.verdicts.unit(first, acks, self.limits.window),
            UnitVerdict::Failed(error, places) => self.verdicts.fail_unit(first, error, places),
            UnitVerdict::Superseded => self.superseded(cx),
            UnitVerdict::OutOfOrder { .. } => self.out_of_order(Some(first), cx),
        }
    }

    /// Nothing of the transaction has happened.
    fn failed(&mut self, pending: &PendingTransaction, cx: &mut InputContext<'_, '_>) {
        const MESSAGE: &str = "the server's database failed: nothing was changed, try again";
        if pending.writes.is_empty() {
            self.error(ErrorCode::ServerError, MESSAGE, cx);
            self.close(1011, "the server's database failed", cx);
            return;
        }
        let mut failed = false;
        for (collection, record_id, mutation) in &pending.writes {
            let error = ErrorMessage {
                collection: Some(collection.clone()),
                record_id: Some(record_id.clone()),
                mutation: *mutation,
                ..ErrorMessage::new(ErrorCode::ServerError, MESSAGE)
            };
            match mutation {
                None => self.send_message(&ServerMessage::Error(error), cx),
                // a write that had been applied before: nobody may say that it was not
                Some(number) if *number < pending.first => {
                    self.close(1011, "the server's database failed", cx);
                    return;
                }
                Some(number) if !failed => {
                    failed = true;
                    self.verdicts.fail(*number, Seq(0), error);
                }
                Some(_) => {}
            }
        }
    }

    /// Sends the verdicts that wait for nothing more.
    pub(super) fn release(&mut self, cx: &mut InputContext<'_, '_>) {
        if self.verdicts.len() == 0 || !self.is_serving() {
            return;
        }
        self.pass_others(cx.env.rings);
        for number in self.verdicts.due(|collection| self.reached(collection)) {
            match self.verdicts.take_due(number) {
                Some(DueVerdict::Ack(ack)) => self.send_message(&ServerMessage::Ack(*ack), cx),
                Some(DueVerdict::Error(error)) => {
                    self.send_message(&ServerMessage::Error(*error), cx);
                }
                Some(DueVerdict::Together(acks)) => self.send_acks(acks, cx),
                None => {}
            }
        }
    }
}
