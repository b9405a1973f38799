//! The transactions that wait in the outbox: where each lies, and how much of it is left.

use alloc::collections::BTreeMap;
use core::hash::{Hash, Hasher};

use crate::protocol::name::WriteId;
use crate::rules::row::{Entry, Unit};

/// The transactions that have members in the outbox which are not acknowledged, by their places.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Units {
    waiting: BTreeMap<WriteId, Waiting>,
    /// The number of their members that are expectations.
    expectations: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    /// The place behind its last member.
    end: WriteId,
    /// The number of members that are left.
    left: usize,
}

/// Says nothing that the store does not say.
impl Hash for Units {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Units {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The number of members that change nothing.
    pub(super) fn expectations(&self) -> usize {
        self.expectations
    }

    /// A member more waits, which perhaps is an expectation.
    pub(super) fn add(&mut self, unit: Unit, expects: bool) {
        self.expectations += usize::from(expects);
        let waiting = self.waiting.entry(unit.first).or_insert(Waiting { end: unit.end, left: 0 });
        waiting.left += 1;
    }

    /// An entry is no longer in the outbox.
    pub(super) fn settle(&mut self, entry: &Entry) {
        let Some(unit) = entry.unit else { return };
        self.expectations -= usize::from(entry.expects.is_some());
        if let Some(waiting) = self.waiting.get_mut(&unit.first) {
            waiting.left -= 1;
            if waiting.left == 0 {
                self.waiting.remove(&unit.first);
            }
        }
    }

    /// Returns `true` if a transaction has members left.
    pub(super) fn has(&self, unit: Unit) -> bool {
        self.waiting.contains_key(&unit.first)
    }

    /// The transaction in which a place lies: its first place, and the one behind its last.
    pub(super) fn place_of(&self, write: WriteId) -> Option<(WriteId, WriteId)> {
        let (first, waiting) = self.waiting.range(..=write).next_back()?;
        (write < waiting.end).then_some((*first, waiting.end))
    }

    /// Returns `true` if a transaction lies between two places.
    pub(super) fn lie_between(&self, one: WriteId, other: WriteId) -> bool {
        !self.waiting.is_empty() && self.waiting.range(one..other).next().is_some()
    }
}
