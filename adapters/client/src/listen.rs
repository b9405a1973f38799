//! What waits for the app: the latest of a watched collection, and events.

use std::collections::VecDeque;

use synclayer_core::client::event::Event;
use synclayer_core::rules::view::{Slot, Update};

use crate::mailbox::Buffer;

/// How many events wait for a listener; then the oldest are dropped, and counted.
const WAITING_EVENTS: usize = 1024;

impl Buffer for Slot {
    type Item = Update;

    fn take(&mut self) -> Option<Update> {
        Self::take(self)
    }
}

/// The events that wait for one listener: at most 1,024.
#[derive(Default, Debug)]
pub struct EventQueue {
    events: VecDeque<Event>,
    missed: u64,
}

impl EventQueue {
    /// How many events were dropped because they were not read in time.
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
