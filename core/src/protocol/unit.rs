//! Units: several writes of a client that take effect together or not at all.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::hash::Digest;
use super::message::Mutation;
use super::name::{Collection, MutationNumber, RecordId, Seq};

/// The writes and expectations of one transaction, in the order of their numbers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Unit {
    /// The members. A server takes 1 to 256 of them, with consecutive numbers, and at most one write
    /// and one expectation of a record.
    pub members: Vec<Member>,
}

/// Writes as a client submits them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Submission {
    /// One write.
    One(Mutation),
    /// A unit.
    Unit(Unit),
}

/// A part of a [`Unit`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Member {
    /// A write, with its number.
    Write(Mutation),
    /// A condition that changes nothing.
    Expect(Expectation),
}

/// The condition that a record is as its writer saw it. It is judged by the state before its unit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Expectation {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// Its number.
    pub number: MutationNumber,
    /// The seq of the server state on which the expectation stands: the record exists, and nothing
    /// of it changed since. `None`: there is no such record.
    pub base: Option<Seq>,
}

/// A flaw of a unit as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UnitFlaw {
    /// The place of the member that is wrong.
    pub(crate) place: usize,
    /// `true` if the unit has too many members.
    pub(crate) too_large: bool,
    /// The flaw, for people.
    pub(crate) message: String,
}

/// One write.
impl From<Mutation> for Submission {
    fn from(mutation: Mutation) -> Self {
        Self::One(mutation)
    }
}

impl Submission {
    /// The number of writes and expectations.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Unit(unit) => unit.members.len(),
        }
    }

    /// The number of the write, or of the first member; `None` at level 1.
    #[must_use]
    pub(crate) fn first(&self) -> Option<MutationNumber> {
        match self {
            Self::One(mutation) => mutation.number,
            Self::Unit(unit) => unit.first(),
        }
    }
}

impl Unit {
    /// The maximal number of members.
    pub(crate) const MAX_MEMBERS: usize = 256;

    /// The number of its first member. Its verdict names the unit.
    #[must_use]
    pub(crate) fn first(&self) -> Option<MutationNumber> {
        self.members.first().and_then(Member::number)
    }

    /// The number of its last member.
    #[must_use]
    pub(crate) fn last(&self) -> Option<MutationNumber> {
        self.members.last().and_then(Member::number)
    }

    /// Checks the number of members, their numbers and their records.
    ///
    /// # Errors
    /// The first flaw (PROTOCOL 9.38).
    pub(crate) fn check(&self) -> Result<(), UnitFlaw> {
        let flaw = |place, message: String| UnitFlaw { place, too_large: false, message };
        let most = Self::MAX_MEMBERS;
        if self.members.len() > most {
            let count = self.members.len();
            let message = format!("a transaction has {count} members, at most {most} are taken");
            return Err(UnitFlaw { too_large: true, ..flaw(most, message) });
        }
        let Some(first) = self.first() else {
            return Err(flaw(0, "a transaction has no members, or one without a number".into()));
        };
        let (mut next, mut seen) = (first, BTreeSet::new());
        for (place, member) in self.members.iter().enumerate() {
            if member.number() != Some(next) {
                let message = format!("the numbers of a transaction have to rise by one: {next}");
                return Err(flaw(place, message));
            }
            next = next.next();
            let is_write = matches!(member, Member::Write(_));
            if !seen.insert((member.collection(), member.record_id(), is_write)) {
                let (collection, id) = (member.collection(), member.record_id());
                let message = format!("a transaction writes or expects {collection}/{id} twice");
                return Err(flaw(place, message));
            }
        }
        Ok(())
    }
}

impl Member {
    /// Its number; `None` for a write that has none, which is no member.
    #[must_use]
    pub(crate) fn number(&self) -> Option<MutationNumber> {
        match self {
            Self::Write(mutation) => mutation.number,
            Self::Expect(expectation) => Some(expectation.number),
        }
    }

    /// Its collection.
    #[must_use]
    pub(crate) fn collection(&self) -> &Collection {
        match self {
            Self::Write(mutation) => &mutation.collection,
            Self::Expect(expectation) => &expectation.collection,
        }
    }

    /// Its record.
    #[must_use]
    pub(crate) fn record_id(&self) -> &RecordId {
        match self {
            Self::Write(mutation) => &mutation.record_id,
            Self::Expect(expectation) => &expectation.record_id,
        }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Write(mutation) => mutation.digest(),
            Self::Expect(expectation) => expectation.digest(),
        }
    }
}

impl Expectation {
    /// Its digest, which neither number nor base is part of.
    #[must_use]
    pub(crate) fn digest(&self) -> Digest {
        Digest::of_expectation(&self.collection, &self.record_id)
    }
}
