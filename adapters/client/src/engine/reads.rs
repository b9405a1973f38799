//! The view of the engine's store that is lent to reads on other threads.

use synclayer_core::Collection;

use super::Engine;
use crate::command::{EngineCommand, Inbox};
use crate::reads::ReadView;

/// The engine's end of the view. When it is dropped, nobody reads any more.
pub(super) struct PublishedReads {
    inbox: Inbox,
    /// The commands of this turn that reads must see.
    taken: u64,
}

impl PublishedReads {
    pub(super) fn new(inbox: &Inbox) -> Self {
        Self { inbox: inbox.clone(), taken: 0 }
    }

    /// Counts a command that is carried out in this turn.
    pub(super) fn took(&mut self, command: &EngineCommand) {
        self.taken += u64::from(command.is_seen_by_reads());
    }

    /// All that was taken has had its effect on the rows.
    pub(super) fn have_been_committed(&mut self) {
        self.inbox.reads().count_done(std::mem::take(&mut self.taken));
    }

    /// Lets the rows be read by nobody any more. Returns when that is so.
    pub(super) fn end(&self) {
        self.inbox.reads().show(None);
    }

    pub(super) fn set_joined(&self, collection: &Collection, joined: bool) {
        self.inbox.reads().set_joined(collection, joined);
    }
}

impl Drop for PublishedReads {
    fn drop(&mut self) {
        self.end();
    }
}

impl Engine {
    /// Lets others read the rows of the present replica.
    pub(super) fn publish_reads(&self) {
        let Ok(replica) = &self.replica else { return };
        let reader = replica.reader();
        self.inbox.reads().show(reader.map(|reader| {
            let joined = self.config.collections.iter();
            let joined = joined.filter(|name| replica.holds(name)).cloned().collect();
            ReadView { reader: Box::new(reader), joined }
        }));
    }
}
