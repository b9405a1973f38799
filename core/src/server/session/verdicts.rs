//! The verdicts on the writes of a level-2 connection, each sent in its place.
//!
//! In a live collection a verdict waits until the stream has passed its record's seq. An ack that
//! has a seq takes the place of the change in the stream. An error waits for all verdicts below
//! its number, so that "not applied, nor anything behind it" can be believed.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::message::{Ack, ErrorMessage};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::rules::transaction::Window;
use crate::server::about::MemberAck;
use crate::server::checks::ensure;
use crate::server::looks::Looks;
use crate::server::ring::Rings;

/// Numbers and verdicts of a level-2 connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Verdicts {
    /// The next number.
    expected: MutationNumber,
    /// `true` if the write with the next number failed, so that everything behind it is ignored.
    failed: bool,
    held: BTreeMap<MutationNumber, PendingVerdict>,
    /// The records at which it was looked whether those may show theirs.
    looks: Looks,
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
    /// The acks of a unit, held under its first number.
    Unit(Vec<MemberAck>),
    /// The error of a unit, and the records whose streams it waits for.
    UnitError(Box<ErrorMessage>, Vec<(Collection, Seq)>),
}

/// The place up to which a stream was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reached {
    Live(Seq),
    /// It catches up, and its client has yet to be told so: it takes an ack that tells nothing of its record
    /// for the answer to a write without effect.
    Unsaid,
    /// It catches up, or is not there.
    Nowhere,
}

impl PendingVerdict {
    /// Returns `true` if it is an ack that leaves it to the stream to tell of its record.
    fn tells_nothing(&self) -> bool {
        match &self.message {
            VerdictMessage::InPlace(ack) => ack.echo.is_none(),
            VerdictMessage::Unit(acks) => {
                acks.iter().any(|member| member.applied && member.ack.echo.is_none())
            }
            VerdictMessage::Ack(_) | VerdictMessage::Error(_) | VerdictMessage::UnitError(..) => {
                false
            }
        }
    }

    /// The collections that it is about, and the seqs that their streams have to pass first.
    fn places(&self) -> impl Iterator<Item = (&Collection, Seq)> {
        let (one, acks, failed): (_, &[MemberAck], &[_]) = match &self.message {
            VerdictMessage::InPlace(ack) | VerdictMessage::Ack(ack) => {
                (Some(&ack.collection), &[], &[])
            }
            VerdictMessage::Error(error) => (error.collection.as_ref(), &[], &[]),
            VerdictMessage::Unit(acks) => (None, acks, &[]),
            VerdictMessage::UnitError(_, places) => (None, &[], places),
        };
        let of_unit = acks.iter().map(|member| (&member.ack.collection, member.at));
        let of_error = failed.iter().map(|(collection, at)| (collection, *at));
        one.map(|collection| (collection, self.at)).into_iter().chain(of_unit).chain(of_error)
    }
}

/// A verdict that is due.
pub(super) enum DueVerdict {
    Ack(Box<Ack>),
    Error(Box<ErrorMessage>),
    /// Acks that go out in one frame.
    Together(Vec<Ack>),
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
        self.held.range(..number).any(|(_, held)| match held.message {
            VerdictMessage::Ack(_) | VerdictMessage::Unit(_) => true,
            VerdictMessage::InPlace(_)
            | VerdictMessage::Error(_)
            | VerdictMessage::UnitError(..) => false,
        })
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

    /// Counts a write, or a unit of this size, that goes into a transaction.
    pub(super) fn take(&mut self, number: Option<MutationNumber>, size: usize) {
        if number == Some(self.expected) {
            self.expected = MutationNumber(self.expected.0 + size as u64);
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

    /// Holds the acks of a unit, and remembers the seqs of its writes, of at most `most`.
    pub(super) fn unit(&mut self, first: MutationNumber, acks: Vec<MemberAck>, most: usize) {
        for member in acks.iter().filter(|member| member.applied) {
            self.remember(&member.ack.collection, member.at, most);
        }
        self.hold(first, Seq(0), VerdictMessage::Unit(acks));
    }

    /// A unit failed: everything behind it is ignored until its first number comes again. The error
    /// waits until the streams have shown these places.
    pub(super) fn fail_unit(
        &mut self,
        first: MutationNumber,
        error: Box<ErrorMessage>,
        places: Vec<(Collection, Seq)>,
    ) {
        self.expected = first;
        self.failed = true;
        self.hold(first, Seq(0), VerdictMessage::UnitError(error, places));
    }

    fn hold(&mut self, number: MutationNumber, at: Seq, message: VerdictMessage) {
        self.held.entry(number).or_insert(PendingVerdict { at, message });
    }

    /// The records of the verdicts to come may be shown by what was looked at.
    pub(super) fn look_at(&mut self, looks: Looks) {
        if self.held.is_empty() {
            self.looks = looks;
        } else {
            self.looks.join(looks);
        }
    }

    /// Returns `true` if held verdicts may show records by rights that are others by what was published.
    pub(super) fn are_outdated(&self, rings: &Rings) -> bool {
        !self.held.is_empty() && self.looks.have_moved(rings)
    }

    /// The rights of the user have changed: held acks tell nothing of their records any more. Returns `true` if
    /// an error is held that shows one, which can't do without.
    pub(super) fn hide_records(&mut self) -> bool {
        self.looks = Looks::default();
        let mut shown = false;
        for held in self.held.values_mut() {
            match &mut held.message {
                VerdictMessage::InPlace(ack) | VerdictMessage::Ack(ack) => ack.echo = None,
                VerdictMessage::Unit(acks) => acks.iter_mut().for_each(|it| it.ack.echo = None),
                VerdictMessage::Error(error) | VerdictMessage::UnitError(error, _) => {
                    let failed = error.failed.iter().any(|member| member.current.is_some());
                    shown |= failed || error.current.is_some();
                }
            }
        }
        shown
    }

    /// Returns `true` if acks of a unit are held that leave it to the stream of this collection to tell of
    /// one of its records.
    pub(super) fn hold_silent_member(&self, collection: &Collection) -> bool {
        self.held.values().any(|held| match &held.message {
            VerdictMessage::Unit(acks) => acks.iter().any(|member| {
                member.applied && member.ack.echo.is_none() && member.ack.collection == *collection
            }),
            VerdictMessage::InPlace(_)
            | VerdictMessage::Ack(_)
            | VerdictMessage::Error(_)
            | VerdictMessage::UnitError(..) => false,
        })
    }

    /// Takes out a verdict that is due.
    pub(super) fn take_due(&mut self, number: MutationNumber) -> Option<DueVerdict> {
        Some(match self.held.remove(&number)?.message {
            VerdictMessage::InPlace(ack) | VerdictMessage::Ack(ack) => DueVerdict::Ack(ack),
            VerdictMessage::Error(error) | VerdictMessage::UnitError(error, _) => {
                DueVerdict::Error(error)
            }
            VerdictMessage::Unit(acks) => {
                DueVerdict::Together(acks.into_iter().map(|member| member.ack).collect())
            }
        })
    }

    /// The first number of the unit whose acks are held and that has this write.
    pub(super) fn unit_of(&self, number: MutationNumber) -> Option<MutationNumber> {
        let (first, held) = self.held.range(..=number).next_back()?;
        let VerdictMessage::Unit(acks) = &held.message else { return None };
        (number.0 - first.0 < acks.len() as u64).then_some(*first)
    }

    /// Takes out the acks of a unit whose place has come in these streams: in place at these seqs, out
    /// of place in other collections.
    pub(super) fn unit_in_place(
        &mut self,
        first: MutationNumber,
        shown: &[(Collection, Seq)],
    ) -> Vec<Ack> {
        let Some(VerdictMessage::Unit(acks)) = self.held.remove(&first).map(|held| held.message)
        else {
            return Vec::new();
        };
        let placed = |MemberAck { ack, at, applied }: MemberAck| {
            let is_shown =
                |(collection, seq): &(Collection, Seq)| *collection == ack.collection && *seq == at;
            match applied && shown.iter().any(is_shown) {
                true => Ack { seq: Some(at), echo: None, ..ack },
                false => ack,
            }
        };
        acks.into_iter().map(placed).collect()
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
            VerdictMessage::Ack(_)
            | VerdictMessage::Error(_)
            | VerdictMessage::Unit(_)
            | VerdictMessage::UnitError(..) => None,
        }
    }

    /// The numbers of the verdicts that wait for nothing more, in their order.
    pub(super) fn due(&self, reached: impl Fn(&Collection) -> Reached) -> Vec<MutationNumber> {
        let passed = |held: &PendingVerdict| {
            let silent = held.tells_nothing();
            held.places().all(|(collection, at)| match reached(collection) {
                Reached::Live(live) => at <= live,
                Reached::Unsaid => !silent,
                Reached::Nowhere => true,
            })
        };
        let (mut waiting, mut due) = (BTreeSet::new(), Vec::new());
        for (number, held) in &self.held {
            let free = match &held.message {
                // a unit may wait for the stream of another collection
                VerdictMessage::InPlace(ack) | VerdictMessage::Ack(ack) => {
                    !waiting.contains(&ack.collection)
                }
                // nothing below may be open, whatever it is about
                VerdictMessage::Error(_)
                | VerdictMessage::Unit(_)
                | VerdictMessage::UnitError(..) => waiting.is_empty(),
            };
            if free && passed(held) {
                due.push(*number);
            } else {
                waiting.extend(held.places().map(|(collection, _)| collection.clone()));
            }
        }
        due
    }

    pub(super) fn check(
        &self,
        serves: bool,
        reached: impl Fn(&Collection) -> Reached,
    ) -> Result<(), String> {
        let last = self.held.last_key_value().map(|(number, _)| *number);
        ensure(last < Some(self.received_below()), "a verdict of a write that never came")?;
        ensure(!serves || self.due(reached).is_empty(), "a verdict that is due is sent")?;
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
