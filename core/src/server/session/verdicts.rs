//! The verdicts on the writes of a level-2 connection, each sent in its place.
//!
//! In a live collection a verdict waits until the stream has passed its record's seq. An ack that
//! has a seq takes the place of the change in the stream. An error waits for all verdicts below
//! its number, so that "not applied, nor anything behind it" can be believed.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::message::{Ack, ErrorMessage, ServerMessage};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::rules::transaction::Window;
use crate::server::checks::ensure;

/// Numbers and verdicts of a level-2 connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Verdicts {
    /// The next number.
    expected: MutationNumber,
    /// `true` if the write with the next number failed, so that everything behind it is ignored.
    failed: bool,
    held: BTreeMap<MutationNumber, PendingVerdict>,
    window: Window,
    /// The number of seqs that the window holds.
    remembered: usize,
}

/// A verdict that waits, and the seq that the stream of a live collection has to pass first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct PendingVerdict {
    at: Seq,
    message: VerdictMessage,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum VerdictMessage {
    /// An ack that takes the place of its change; what it carries is for out of place.
    InPlace(Box<Ack>),
    /// An ack without a seq.
    Ack(Box<Ack>),
    Error(Box<ErrorMessage>),
}

impl VerdictMessage {
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

    /// Returns `true` if a verdict below a number is still held.
    pub(super) fn any_below(&self, number: MutationNumber) -> bool {
        self.held.first_key_value().is_some_and(|(held, _)| *held < number)
    }

    /// Returns `true` if an ack without a seq is held for a write below a number.
    pub(super) fn any_ack_below(&self, number: MutationNumber) -> bool {
        self.held.range(..number).any(|(_, held)| matches!(held.message, VerdictMessage::Ack(_)))
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

    /// The treatment of a write with this number. A client can't know of an error that was not sent
    /// yet: if it uses the number again, it has only pipelined.
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
        self.hold(number, at, VerdictMessage::Error(Box::new(error)));
    }

    /// Holds the ack of a write that was applied, and remembers its seq, of at most `most`.
    pub(super) fn applied(&mut self, number: MutationNumber, seq: Seq, ack: Ack, most: usize) {
        self.remember(&ack.collection, seq, most);
        self.hold(number, seq, VerdictMessage::InPlace(Box::new(ack)));
    }

    /// Holds the ack of a write that changed nothing.
    pub(super) fn unchanged(&mut self, number: MutationNumber, at: Seq, ack: Ack) {
        self.hold(number, at, VerdictMessage::Ack(Box::new(ack)));
    }

    fn hold(&mut self, number: MutationNumber, at: Seq, message: VerdictMessage) {
        self.held.entry(number).or_insert(PendingVerdict { at, message });
    }

    /// Takes out a verdict that is due.
    pub(super) fn take_due(&mut self, number: MutationNumber) -> Option<ServerMessage> {
        Some(match self.held.remove(&number)?.message {
            VerdictMessage::InPlace(ack) | VerdictMessage::Ack(ack) => ServerMessage::Ack(*ack),
            VerdictMessage::Error(error) => ServerMessage::Error(*error),
        })
    }

    /// Expects the writes behind the last one that the server knows of.
    pub(super) fn expect_after(&mut self, last: MutationNumber) {
        self.expected = last.next();
    }

    /// Returns `true` if this is the place of an ack in its stream.
    pub(super) fn holds(&self, number: MutationNumber, seq: Seq) -> bool {
        self.held.get(&number).is_some_and(|held| {
            held.at == seq && matches!(held.message, VerdictMessage::InPlace(_))
        })
    }

    /// Takes out the ack whose place in its stream has come.
    pub(super) fn in_place(&mut self, number: MutationNumber, seq: Seq) -> Option<Ack> {
        if !self.holds(number, seq) {
            return None;
        }
        match self.held.remove(&number)?.message {
            VerdictMessage::InPlace(ack) => Some(Ack { seq: Some(seq), echo: None, ..*ack }),
            VerdictMessage::Ack(_) | VerdictMessage::Error(_) => None,
        }
    }

    /// The numbers of the verdicts that wait for nothing more, in their order. `live_at` tells the
    /// seq up to which the stream of a live collection was sent.
    pub(super) fn due(&self, live_at: impl Fn(&Collection) -> Option<Seq>) -> Vec<MutationNumber> {
        let passed = |held: &PendingVerdict| {
            let live_at = held.message.collection().and_then(&live_at);
            live_at.is_none_or(|live_at| held.at <= live_at)
        };
        let (mut waiting, mut due) = (BTreeSet::new(), Vec::new());
        for (number, held) in &self.held {
            let free = match &held.message {
                VerdictMessage::InPlace(_) => true,
                VerdictMessage::Ack(ack) => !waiting.contains(&ack.collection),
                VerdictMessage::Error(_) => waiting.is_empty(),
            };
            if free && passed(held) {
                due.push(*number);
            } else if let Some(collection) = held.message.collection() {
                waiting.insert(collection.clone());
            }
        }
        due
    }

    pub(super) fn check(&self, live_at: impl Fn(&Collection) -> Option<Seq>) -> Result<(), String> {
        let last = self.held.last_key_value().map(|(number, _)| *number);
        ensure(last < Some(self.received_below()), "a verdict of a write that never came")?;
        ensure(self.due(live_at).is_empty(), "a verdict that is due is sent")?;
        let remembered: usize = self.window.values().map(Vec::len).sum();
        ensure(self.remembered == remembered, "the window's size")?;
        ensure(self.window.values().all(|seqs| seqs.is_sorted()), "the window's order")?;
        Ok(())
    }
}

/// The treatment of a write that has come to the front of the queue.
pub(super) enum Admission {
    /// It goes into the next transaction.
    Take,
    /// It was pipelined behind one that failed.
    Ignore,
    /// It can't be served.
    Refuse(&'static str),
    /// It is above the next number.
    OutOfOrder,
}
