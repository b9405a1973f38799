//! Verdicts about writes, each sent in its place.
//!
//! In a live collection a verdict waits until the stream has passed its record's seq. An ack that
//! has a seq takes the place of the change in the stream. An error waits for all verdicts below
//! its number, so that "not applied, nor anything behind it" can be believed.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::queue::Admission;
use super::stream::Subscription;
use super::{Link, Session, TransactReport, Transacting, Turn};
use crate::protocol::message::{Ack, ErrorCode, ErrorMessage, Features, ServerMessage, Welcome};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::rules::transaction::{
    HelloAnswer, Outcome, TransactError, TransactionAnswer, Verdict, Window,
};
use crate::server::about::About;

/// Numbers and verdicts of a level-2 connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Verdicts {
    /// The next number.
    expected: MutationNumber,
    /// Whether the write with the next number failed, so that everything behind it is ignored.
    failed: bool,
    held: BTreeMap<MutationNumber, Held>,
    window: Window,
    /// How many seqs the window holds.
    remembered: usize,
}

/// A verdict that waits, and the seq that the stream of a live collection has to pass first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Held {
    at: Seq,
    message: Message,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Message {
    /// An ack that takes the place of its change; what it carries is for out of place.
    InPlace(Box<Ack>),
    /// An ack without a seq.
    Ack(Box<Ack>),
    Error(Box<ErrorMessage>),
}

impl Message {
    fn collection(&self) -> Option<&Collection> {
        match self {
            Self::InPlace(ack) | Self::Ack(ack) => Some(&ack.collection),
            Self::Error(error) => error.collection.as_ref(),
        }
    }
}

impl Verdicts {
    pub(super) fn expected(&self) -> MutationNumber {
        self.expected
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The number below which every write was received whose verdict can still be held.
    pub(super) fn received_below(&self) -> MutationNumber {
        let failing = self.held.contains_key(&self.expected);
        if failing { self.expected.next() } else { self.expected }
    }

    /// Whether a verdict below a number is still held.
    pub(super) fn any_below(&self, number: MutationNumber) -> bool {
        self.held.first_key_value().is_some_and(|(held, _)| *held < number)
    }

    /// Whether an ack without a seq is held for a write below a number.
    pub(super) fn any_ack_below(&self, number: MutationNumber) -> bool {
        self.held.range(..number).any(|(_, held)| matches!(held.message, Message::Ack(_)))
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Remembers a seq that an own write got. Of the fullest collection the older half goes first.
    fn remember(&mut self, collection: &Collection, seq: Seq, most: usize) {
        self.window.entry(collection.clone()).or_default().push(seq);
        self.remembered += 1;
        while self.remembered > most {
            let fullest = self.window.iter_mut().max_by_key(|(_, seqs)| seqs.len());
            let Some((_, seqs)) = fullest else { return };
            let gone = seqs.len().div_ceil(2);
            seqs.drain(..gone);
            self.remembered -= gone;
            self.window.retain(|_, seqs| !seqs.is_empty());
        }
    }

    /// What comes under a number. Nobody can know of an error that was not sent: whoever uses its
    /// number again has only pipelined.
    pub(super) fn admit(&self, number: MutationNumber) -> Admission {
        if self.failed && number == self.expected && self.held.contains_key(&number) {
            Admission::Ignore
        } else if number <= self.expected {
            Admission::Take
        } else if self.failed {
            Admission::Ignore
        } else {
            Admission::OutOfOrder
        }
    }

    /// Counts a write that goes into a transaction.
    pub(super) fn take(&mut self, number: Option<MutationNumber>) {
        if number == Some(self.expected) {
            self.expected = self.expected.next();
            self.failed = false;
        }
    }

    /// A write failed: everything behind it is ignored until its number comes again.
    pub(super) fn fail(&mut self, number: MutationNumber, at: Seq, error: ErrorMessage) {
        self.expected = number;
        self.failed = true;
        self.hold(number, at, Message::Error(Box::new(error)));
    }

    fn hold(&mut self, number: MutationNumber, at: Seq, message: Message) {
        self.held.entry(number).or_insert(Held { at, message });
    }

    /// Whether this is the place of an ack in its stream.
    pub(super) fn holds(&self, number: MutationNumber, seq: Seq) -> bool {
        self.held
            .get(&number)
            .is_some_and(|held| held.at == seq && matches!(held.message, Message::InPlace(_)))
    }

    /// Takes out the ack whose place in its stream has come.
    pub(super) fn in_place(&mut self, number: MutationNumber, seq: Seq) -> Option<Ack> {
        if !self.holds(number, seq) {
            return None;
        }
        match self.held.remove(&number)?.message {
            Message::InPlace(ack) => Some(Ack { seq: Some(seq), echo: None, ..*ack }),
            Message::Ack(_) | Message::Error(_) => None,
        }
    }

    /// The numbers of the verdicts that wait for nothing more, in their order.
    fn due(&self, subscriptions: &BTreeMap<Collection, Subscription>) -> Vec<MutationNumber> {
        let passed = |held: &Held| {
            let subscription = held.message.collection().and_then(|c| subscriptions.get(c));
            let live_at = subscription.and_then(Subscription::live_at);
            live_at.is_none_or(|live_at| held.at <= live_at)
        };
        let (mut waiting, mut due) = (BTreeSet::new(), Vec::new());
        for (number, held) in &self.held {
            let (free, early) = match &held.message {
                Message::InPlace(_) => (true, false),
                Message::Ack(ack) => (!waiting.contains(&ack.collection), planted!(BareAckEarly)),
                Message::Error(_) => {
                    (waiting.is_empty() || planted!(ErrorOvertakesAcks), planted!(ConflictEarly))
                }
            };
            if free && (passed(held) || early) {
                due.push(*number);
            } else if let Some(collection) = held.message.collection() {
                waiting.insert(collection.clone());
            }
        }
        due
    }

    pub(super) fn check(&self, subscriptions: &BTreeMap<Collection, Subscription>) {
        let last = self.held.last_key_value().map(|(number, _)| *number);
        assert!(last < Some(self.received_below()), "a verdict of a write that never came");
        assert!(self.due(subscriptions).is_empty(), "a verdict that is due is sent");
        let remembered: usize = self.window.values().map(Vec::len).sum();
        assert_eq!(self.remembered, remembered, "the window's size");
        assert!(self.window.values().all(|seqs| seqs.is_sorted()), "the window's order");
    }
}

impl Session {
    pub(super) fn transacted(&mut self, report: TransactReport, turn: &mut Turn<'_, '_>) {
        let expected = report.conn == self.conn
            && self.transacting.as_ref().is_some_and(|t| t.generation == report.generation);
        let Some(transacting) = self.transacting.take_if(|_| expected) else {
            self.counters.late_answers += 1;
            return;
        };
        match report.result {
            Ok(TransactionAnswer::Hello(answer)) => self.greeted(answer, turn),
            Ok(TransactionAnswer::Writes(outcomes)) => {
                for outcome in outcomes {
                    self.outcome(outcome, turn);
                }
            }
            Ok(
                TransactionAnswer::Pushed(_)
                | TransactionAnswer::Plain(_)
                | TransactionAnswer::Swept(_)
                | TransactionAnswer::Begun,
            ) => {
                self.close(1011, "the server mixed up its answers", turn);
            }
            Err(TransactError::Unknown(_)) if planted!(UnknownIsFailure) => {
                self.failed(&transacting, turn);
            }
            Err(TransactError::Failed(_)) => self.failed(&transacting, turn),
            // whether the writes were applied is not known: the next hello tells
            Err(TransactError::Unknown(_)) => {
                self.close(1011, "the server's database failed", turn);
            }
        }
        self.release(turn);
        self.reads_first = true;
        self.lift_barriers(turn);
        self.advance(turn);
    }

    fn greeted(&mut self, answer: HelloAnswer, turn: &mut Turn<'_, '_>) {
        let Link::Greeting { client, session } = self.link.clone() else { return };
        match answer {
            HelloAnswer::Open { database, epoch, last_mutation, last_digest, first_session } => {
                self.link = Link::Resumable { client, session };
                self.verdicts.expected = last_mutation.next();
                let welcome = Welcome {
                    database: database.filter(|_| !planted!(DatabaseUnsaid)),
                    epoch,
                    last_mutation,
                    last_digest,
                    first_session,
                    user_id: self.auth.user().cloned(),
                    max_batch_bytes: self.config.max_batch_bytes,
                    features: Features::ALL,
                };
                let timestamp = Some(turn.now.wall);
                self.say(&ServerMessage::Pong { timestamp, welcome: Some(welcome) }, turn);
            }
            HelloAnswer::Superseded => self.superseded(turn),
            HelloAnswer::OtherUser => {
                let message = "the client id belongs to another user: take a new one";
                self.error(ErrorCode::Unauthorized, message, turn);
                self.close(1008, "the client belongs to another user", turn);
            }
        }
    }

    fn superseded(&mut self, turn: &mut Turn<'_, '_>) {
        let message = "a newer session of this client exists";
        self.error(ErrorCode::SessionSuperseded, message, turn);
        self.close(1008, "a newer session of this client exists", turn);
    }

    fn outcome(&mut self, outcome: Outcome, turn: &mut Turn<'_, '_>) {
        if self.closed {
            return;
        }
        let at = outcome.at;
        let (about, verdict) = About::of(outcome);
        match (verdict, about.mutation) {
            (Verdict::Superseded, _) => self.superseded(turn),
            (Verdict::OutOfOrder { .. }, number) => self.out_of_order(number, turn),
            (Verdict::Applied { seq, version, echo }, Some(number)) => {
                self.verdicts.remember(&about.collection, seq, self.config.window);
                let ack = about.ack(number, Some(version), echo);
                self.verdicts.hold(number, seq, Message::InPlace(Box::new(ack)));
            }
            (Verdict::Unchanged { version }, Some(number)) => {
                let ack = about.ack(number, version, None);
                self.verdicts.hold(number, at, Message::Ack(Box::new(ack)));
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
                self.say(&ServerMessage::Error(error), turn);
            }
            (Verdict::Refused { code, message }, None) => {
                let error = about.error(code, message);
                self.say(&ServerMessage::Error(error), turn);
            }
        }
    }

    /// Nothing of the transaction has happened.
    fn failed(&mut self, transacting: &Transacting, turn: &mut Turn<'_, '_>) {
        const MESSAGE: &str = "the server's database failed: nothing was changed, try again";
        if transacting.writes.is_empty() {
            self.error(ErrorCode::ServerError, MESSAGE, turn);
            self.close(1011, "the server's database failed", turn);
            return;
        }
        let mut failed = false;
        for (collection, record_id, mutation) in &transacting.writes {
            let error = ErrorMessage {
                collection: Some(collection.clone()),
                record_id: Some(record_id.clone()),
                mutation: *mutation,
                ..ErrorMessage::new(ErrorCode::ServerError, MESSAGE)
            };
            match mutation {
                None => self.say(&ServerMessage::Error(error), turn),
                // a write that had been applied before: nobody may say that it was not
                Some(number) if *number < transacting.first => {
                    self.close(1011, "the server's database failed", turn);
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
    pub(super) fn release(&mut self, turn: &mut Turn<'_, '_>) {
        if self.verdicts.held.is_empty() || self.closed {
            return;
        }
        for number in self.verdicts.due(&self.subscriptions) {
            match self.verdicts.held.remove(&number).map(|held| held.message) {
                Some(Message::InPlace(ack) | Message::Ack(ack)) => {
                    self.say(&ServerMessage::Ack(*ack), turn);
                }
                Some(Message::Error(error)) => self.say(&ServerMessage::Error(*error), turn),
                None => {}
            }
        }
    }
}
