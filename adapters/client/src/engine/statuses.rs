//! The watchers of the status.

use synclayer_core::Status;

use crate::mailbox::Sender;

/// The watchers of the status, and what they were shown. Without one the status is not even read.
#[derive(Default)]
pub(super) struct StatusWatchers {
    told: Vec<Sender<Option<Status>>>,
    /// Those that were shown nothing yet.
    new: Vec<Sender<Option<Status>>>,
    /// The status that the others were shown last.
    shown: Option<Status>,
}

impl StatusWatchers {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.told.len() + self.new.len()
    }

    pub(super) fn add(&mut self, watcher: Sender<Option<Status>>) {
        self.new.push(watcher);
    }

    /// Shows the status to whom it is news. A mailbox has the latest one.
    pub(super) fn show(&mut self, status: impl FnOnce() -> Status) {
        self.told.retain(|watcher| !watcher.is_abandoned());
        if self.told.is_empty() && self.new.is_empty() {
            self.shown = None;
            return;
        }
        let now = Some(status());
        let put = |watcher: &Sender<Option<Status>>| watcher.put(|slot| slot.clone_from(&now));
        if self.shown != now {
            self.told.iter().for_each(put);
        }
        self.new.iter().for_each(put);
        self.told.append(&mut self.new);
        self.shown = now;
    }
}
