//! The numbers of the machine's commits: how far its store has come with them.

use crate::protocol::name::CommitNumber;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Commits {
    next: CommitNumber,
    durable: CommitNumber,
    /// The last commit that has to be durable before anything is sent.
    gate: CommitNumber,
    /// `true` if the steps that follow share the commit to come.
    shared: bool,
    /// `true` if a step has its changes in the commit to come.
    begun: bool,
}

impl Commits {
    /// The numbers after the last one that a store has seen.
    pub(super) fn after(last: CommitNumber) -> Self {
        Self { next: last.next(), durable: last, gate: last, shared: false, begun: false }
    }

    /// The number of the commit to come.
    pub(super) fn next(&self) -> CommitNumber {
        self.next
    }

    /// The last commit that was made, or the one to come if a step has its changes in it.
    pub(super) fn last(&self) -> CommitNumber {
        if self.begun { self.next } else { CommitNumber(self.next.0 - 1) }
    }

    /// Lets the steps that follow share one commit.
    pub(super) fn share(&mut self) {
        self.shared = true;
    }

    /// The shared commit has every step that it will have.
    pub(super) fn end_sharing(&mut self) {
        self.shared = false;
        if core::mem::take(&mut self.begun) {
            self.made();
        }
    }

    /// Lets nothing be sent before the commit to come is durable.
    pub(super) fn gate(&mut self) {
        self.gate = self.next;
    }

    /// The commit to come was made, or has the changes of one more step.
    pub(super) fn made(&mut self) {
        match self.shared {
            true => self.begun = true,
            false => self.next = self.next.next(),
        }
    }

    /// The store reports that every commit up to this one is durable. Returns up to which one that
    /// can be: what was not made yet can't.
    pub(super) fn durable(&mut self, up_to: CommitNumber) -> CommitNumber {
        let up_to = up_to.min(self.last());
        self.durable = self.durable.max(up_to);
        up_to
    }

    pub(super) fn is_durable(&self, number: CommitNumber) -> bool {
        self.durable >= number
    }

    /// Tells whether everything is durable that has to be before anything is sent.
    pub(super) fn may_send(&self) -> bool {
        self.durable >= self.gate
    }
}
