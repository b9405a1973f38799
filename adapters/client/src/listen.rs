//! The mailboxes of the app: one slot of each watcher, and a queue of events of each listener.

use std::collections::VecDeque;
use std::mem;

use synclayer_core::{Event, QuerySnapshot, QueryUpdate, Slot, Update};

use crate::mailbox::Buffer;

/// The number of events that wait for a listener. Beyond it the oldest are dropped and counted.
const WAITING_EVENTS: usize = 1024;

/// The slot of one watcher: the latest snapshot, and the changes since the reader last took one.
#[derive(Default)]
pub enum UpdateSlot {
    /// The reader has seen everything.
    #[default]
    Empty,
    /// A single update waits. Most are taken before the next comes.
    One(Update),
    /// Several updates wait, merged.
    Merged(Slot),
}

impl UpdateSlot {
    pub(crate) fn put(&mut self, update: Update) {
        *self = match mem::take(self) {
            Self::Empty => Self::One(update),
            Self::One(first) => Self::merged(Slot::from(first), update),
            Self::Merged(slot) => Self::merged(slot, update),
        };
    }

    fn merged(mut slot: Slot, update: Update) -> Self {
        slot.put(update.snapshot, update.changes);
        Self::Merged(slot)
    }
}

impl Buffer for UpdateSlot {
    type Item = Update;

    fn take(&mut self) -> Option<Update> {
        match mem::take(self) {
            Self::Empty => None,
            Self::One(update) => Some(update),
            Self::Merged(mut slot) => slot.take(),
        }
    }
}

/// The slot of one watcher of a query: the latest result, and the changes since the reader last took
/// one.
#[derive(Default)]
pub struct QuerySlot {
    taken: QuerySnapshot,
    update: Option<QueryUpdate>,
}

impl QuerySlot {
    pub(crate) fn put(&mut self, mut update: QueryUpdate) {
        if self.update.is_some() {
            update.changes = update.snapshot.changes_since(&self.taken);
        }
        self.update = Some(update);
    }
}

impl Buffer for QuerySlot {
    type Item = QueryUpdate;

    fn take(&mut self) -> Option<QueryUpdate> {
        let update = self.update.take()?;
        self.taken = update.snapshot.clone();
        Some(update)
    }
}

/// The events that wait for one listener: at most 1,024.
#[derive(Default, Debug)]
pub struct EventQueue {
    events: VecDeque<Event>,
    missed: u64,
}

impl EventQueue {
    /// The number of events that were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() == WAITING_EVENTS {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
    }
}

impl Buffer for EventQueue {
    type Item = Event;

    fn take(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use synclayer_core::{RecordChange, RecordId, Snapshot};

    use super::*;

    fn removed(id: &str) -> Update {
        let changes = vec![RecordChange::Removed(RecordId::new(id).unwrap())];
        Update { snapshot: Snapshot::default(), changes }
    }

    #[test]
    fn a_slot_holds_one_update_however_many_came() {
        let mut slot = UpdateSlot::default();
        assert_eq!(slot.take(), None);
        slot.put(removed("a"));
        assert_eq!(slot.take(), Some(removed("a")));
        for id in ["b", "a", "c", "a"] {
            slot.put(removed(id));
        }
        let merged = slot.take().unwrap();
        let ids: Vec<_> = merged.changes.iter().map(|change| change.id().to_string()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(slot.take(), None);
    }
}
