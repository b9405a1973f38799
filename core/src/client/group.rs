//! Calls that share one commit: their changes and their actions wait until the commit is made.

use alloc::vec::Vec;

use super::output::{Output, Outputs, StoreAction};
use crate::protocol::name::CommitNumber;
use crate::store::{Changes, Layered, Rows};

/// The most bytes of changes that wait, so that a group takes no more memory than that and the
/// changes of its last call.
const MOST_BYTES: usize = 1 << 20;

/// The calls that share the commit to come, if any do.
#[derive(Default)]
pub(super) struct Group {
    open: bool,
    number: Option<CommitNumber>,
    flush: Option<CommitNumber>,
    changes: Changes,
    /// The actions of the calls; none of them may precede the commit.
    waiting: Vec<Output>,
}

impl Group {
    /// Lets the calls that follow share a commit.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Returns `true` if no more changes should be taken in.
    pub(super) fn is_full(&self) -> bool {
        self.changes.bytes() >= MOST_BYTES
    }

    /// The rows as the group's calls see them.
    pub(super) fn rows<'a>(&'a self, store: &'a dyn Rows) -> Layered<'a> {
        Layered::new(store, &self.changes)
    }

    /// Takes in the actions of one of its calls.
    pub(super) fn take_in(&mut self, actions: &mut Outputs) {
        for action in actions.drain(..) {
            match action {
                Output::Store(StoreAction::Commit { number, batch }) => {
                    self.number = Some(number);
                    self.changes.apply(batch);
                }
                Output::Store(StoreAction::Flush { up_to }) => {
                    self.flush = self.flush.max(Some(up_to));
                }
                Output::Net(_)
                | Output::View(_)
                | Output::Event(_)
                | Output::Synced { .. }
                | Output::Halted(_) => self.waiting.push(action),
            }
        }
    }

    /// Ends the group. Returns its actions: the commit first, and then those of its calls.
    pub(super) fn close(&mut self) -> Outputs {
        let Self { number, flush, changes, waiting, .. } = core::mem::take(self);
        let commit =
            number.map(|number| StoreAction::Commit { number, batch: changes.into_batch() });
        let flush = flush.map(|up_to| StoreAction::Flush { up_to });
        let mut actions: Outputs = commit.into_iter().chain(flush).map(Output::Store).collect();
        actions.extend(waiting);
        actions
    }
}
