//! The entries of the outbox that are sent next, kept in memory, so that sending them reads nothing.

use alloc::collections::VecDeque;
use core::hash::{Hash, Hasher};

use crate::protocol::name::WriteId;
use crate::rules::row::Entry;

/// The most entries that are kept, and bytes of their documents.
pub(super) const AHEAD: usize = 256;
const AHEAD_BYTES: usize = 256 << 10;

/// Entries as the store has them: all those between two places.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ahead {
    entries: VecDeque<(WriteId, Entry)>,
    bytes: usize,
    until: WriteId,
}

/// Says nothing that the store does not say.
impl Hash for Ahead {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Ahead {
    /// The place behind the entries.
    pub(super) fn until(&self) -> WriteId {
        self.until
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= AHEAD || self.bytes >= AHEAD_BYTES
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(WriteId, Entry)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, write: WriteId) -> Option<&Entry> {
        let index = self.entries.binary_search_by_key(&write, |(at, _)| *at).ok()?;
        self.entries.get(index).map(|(_, entry)| entry)
    }

    /// Holds nothing from a place on.
    pub(super) fn restart(&mut self, from: WriteId) {
        *self = Self { until: from, ..Self::default() };
    }

    /// Nothing lies between the entries and a place.
    pub(super) fn reach(&mut self, until: WriteId) {
        self.until = self.until.max(until);
    }

    /// Takes the entry at its end, if there is room.
    pub(super) fn push(&mut self, write: WriteId, entry: &Entry) {
        if write == self.until && !self.is_full() {
            self.bytes += size(entry);
            self.entries.push_back((write, entry.clone()));
            self.until = write.next();
        }
    }

    /// The entry of a place is another one, or there is one now.
    pub(super) fn set(&mut self, write: WriteId, entry: &Entry) {
        if write >= self.until {
            return;
        }
        self.remove(write);
        let index = self.entries.partition_point(|(at, _)| *at < write);
        self.entries.insert(index, (write, entry.clone()));
        self.bytes += size(entry);
    }

    /// The entry of a place is gone.
    pub(super) fn remove(&mut self, write: WriteId) {
        if let Ok(index) = self.entries.binary_search_by_key(&write, |(at, _)| *at)
            && let Some((_, entry)) = self.entries.remove(index)
        {
            self.bytes -= size(&entry);
        }
    }

    /// Forgets what lies in front of a place. Returns the last entry of that.
    pub(super) fn pass(&mut self, to: WriteId) -> Option<(WriteId, Entry)> {
        let mut last = None;
        while self.entries.front().is_some_and(|(write, _)| *write < to) {
            last = self.entries.pop_front();
            self.bytes -= last.as_ref().map_or(0, |(_, entry)| size(entry));
        }
        self.reach(to);
        last
    }
}

fn size(entry: &Entry) -> usize {
    entry.change.delta.set.size()
}
