//! The fate of the app's writes: what became of each, told once to whoever follows it.
//!
//! Only writes that somebody follows are kept here. A write is known by its place in the outbox, so
//! one that joined another shares its place and its fate. Where a conflict strategy collapses
//! writes into one, they share the fate of the outcome.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::event::EventKind;
use crate::protocol::message::{ErrorCode, Level};
use crate::protocol::name::{CommitNumber, WriteId};

/// The fate of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fate {
    /// The server has it, and has said so.
    Acknowledged,
    /// A plain server seems to have it: it shows the record like this, or has read everything that
    /// was sent up to the write. It does not acknowledge, so this is no proof: see "this client at
    /// a plain server" in the protocol's text.
    Settled,
    /// The server has refused it for good. It is in the list of rejected writes, and the record is
    /// as if it had not been made.
    Rejected {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
    /// It was in conflict with a change of somebody else, and the conflict strategy has given it up:
    /// the record stays as the server has it.
    GivenUp,
    /// Nothing had to be written: as far as is known here, the record was like this already.
    Unchanged,
}

impl Fate {
    /// Returns `true` if the record at the server is as the write wanted it, as far as is known.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            Self::Acknowledged | Self::Settled | Self::Unchanged => true,
            Self::Rejected { .. } | Self::GivenUp => false,
        }
    }
}

/// Somebody who follows a write, to be told from others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FateId(pub u64);

/// A write or a transaction. A transaction has the id of its first member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Followed {
    Write(WriteId),
    Transaction(WriteId),
}

/// The writes and transactions that are followed.
#[derive(Clone, Default)]
pub(crate) struct Fates {
    next: u64,
    writes: BTreeMap<FateId, Followed>,
    followers: BTreeSet<(Followed, FateId)>,
    /// Fates that count from when this commit is durable: a crash before it brings the write back.
    held: VecDeque<(CommitNumber, FateId, Fate)>,
}

impl Fates {
    /// A new follower of a write.
    pub(crate) fn follow(&mut self, write: WriteId) -> FateId {
        self.begin(Followed::Write(write))
    }

    /// A new follower of a transaction.
    pub(crate) fn follow_transaction(&mut self, transaction: WriteId) -> FateId {
        self.begin(Followed::Transaction(transaction))
    }

    fn begin(&mut self, followed: Followed) -> FateId {
        let id = self.next_id();
        self.writes.insert(id, followed);
        self.followers.insert((followed, id));
        id
    }

    /// An id for a follower who need not wait.
    pub(crate) fn next_id(&mut self) -> FateId {
        let id = FateId(self.next);
        self.next += 1;
        id
    }

    /// Nobody wants to be told any more.
    pub(crate) fn unfollow(&mut self, id: FateId) {
        match self.writes.remove(&id) {
            Some(followed) => drop(self.followers.remove(&(followed, id))),
            None => self.held.retain(|(_, held, _)| *held != id),
        }
    }

    /// Takes in what has happened to writes, which `commit` makes durable. Returns whose fate is
    /// known by it.
    pub(crate) fn hear(&mut self, event: &EventKind, commit: CommitNumber) -> Vec<(FateId, Fate)> {
        if self.writes.is_empty() {
            return Vec::new();
        }
        let mut synced = None;
        if let EventKind::OperationSynced { write, level, .. } = event {
            synced = Some((Followed::Write(*write), level));
        }
        if let EventKind::TransactionSynced { transaction, level } = event {
            synced = Some((Followed::Transaction(*transaction), level));
        }
        if let Some((followed, level)) = synced {
            let fate = match level {
                Level::Resumable => Fate::Acknowledged,
                Level::Plain => Fate::Settled,
            };
            // the server has it, whatever this side still remembers of that
            return self.take(followed).into_iter().map(|id| (id, fate.clone())).collect();
        }
        if let EventKind::TransactionFailed { transaction, code, message, .. } = event {
            let (code, message) = (code.clone(), message.clone());
            let fate = Fate::Rejected { code, message };
            self.decide(Followed::Transaction(*transaction), &fate, commit);
        }
        if let EventKind::OperationFailed { write, code, message, with, .. } = event {
            let (code, message) = (code.clone(), message.clone());
            let fate = Fate::Rejected { code, message };
            let all = with.iter().chain([write]);
            all.for_each(|write| self.decide(Followed::Write(*write), &fate, commit));
        }
        if let EventKind::ConflictResolved { write, merged, transaction, .. } = event {
            self.merge(merged, *write, &Fate::GivenUp, commit);
            if let (Some(outcome), Some(transaction)) = (write, transaction) {
                self.pass_on(Followed::Transaction(*transaction), *outcome);
            }
        }
        if let EventKind::OperationsMerged { write, merged, .. } = event {
            self.merge(merged, *write, &Fate::Unchanged, commit);
        }
        Vec::new()
    }

    /// Every commit up to this one is durable. Returns whose fate counts by it.
    pub(crate) fn durable(&mut self, up_to: CommitNumber) -> Vec<(FateId, Fate)> {
        let due = self.held.partition_point(|(commit, ..)| *commit <= up_to);
        self.held.drain(..due).map(|(_, id, fate)| (id, fate)).collect()
    }

    /// Returns `true` if nobody follows anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.held.is_empty()
    }

    /// Writes have become one, or where there is none, have met this fate.
    fn merge(
        &mut self,
        merged: &[WriteId],
        write: Option<WriteId>,
        fate: &Fate,
        commit: CommitNumber,
    ) {
        for old in merged.iter().filter(|old| Some(**old) != write) {
            match write {
                None => self.decide(Followed::Write(*old), fate, commit),
                Some(outcome) => self.pass_on(Followed::Write(*old), outcome),
            }
        }
    }

    /// Lets the followers of this follow its outcome from now on.
    fn pass_on(&mut self, followed: Followed, outcome: WriteId) {
        let outcome = Followed::Write(outcome);
        for id in self.take(followed) {
            self.writes.insert(id, outcome);
            self.followers.insert((outcome, id));
        }
    }

    fn decide(&mut self, followed: Followed, fate: &Fate, commit: CommitNumber) {
        for id in self.take(followed) {
            self.held.push_back((commit, id, fate.clone()));
        }
    }

    /// The followers of a write or a transaction, which are no longer that.
    fn take(&mut self, followed: Followed) -> Vec<FateId> {
        let of = self.followers.range((followed, FateId(0))..=(followed, FateId(u64::MAX)));
        let ids: Vec<_> = of.map(|(_, id)| *id).collect();
        for id in &ids {
            self.followers.remove(&(followed, *id));
            self.writes.remove(id);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::protocol::name::{Collection, RecordId};

    fn place() -> (Collection, RecordId) {
        (Collection::new("todos").unwrap(), RecordId::new("a").unwrap())
    }

    fn synced(write: u64, level: Level) -> EventKind {
        let (collection, record_id) = place();
        let (write, transaction) = (WriteId(write), None);
        EventKind::OperationSynced { collection, record_id, write, level, transaction }
    }

    fn resolved(write: Option<u64>, merged: &[u64]) -> EventKind {
        let merged = merged.iter().map(|write| WriteId(*write)).collect();
        let (collection, record_id) = place();
        let write = write.map(WriteId);
        EventKind::ConflictResolved { collection, record_id, write, merged, transaction: None }
    }

    fn failed(write: u64, with: &[u64]) -> EventKind {
        let (collection, record_id) = place();
        EventKind::OperationFailed {
            collection,
            record_id,
            write: WriteId(write),
            code: ErrorCode::Unauthorized,
            message: "no".into(),
            with: with.iter().map(|write| WriteId(*write)).collect(),
            kept: vec![],
            transaction: None,
        }
    }

    fn refused() -> Fate {
        Fate::Rejected { code: ErrorCode::Unauthorized, message: "no".into() }
    }

    #[test]
    fn a_write_is_acknowledged_or_at_a_plain_server_settled() {
        let mut fates = Fates::default();
        let (a, joined, b) =
            (fates.follow(WriteId(1)), fates.follow(WriteId(1)), fates.follow(WriteId(2)));
        let told = fates.hear(&synced(1, Level::Resumable), CommitNumber(9));
        assert_eq!(told, [(a, Fate::Acknowledged), (joined, Fate::Acknowledged)]);
        assert_eq!(fates.hear(&synced(1, Level::Resumable), CommitNumber(9)), []);
        let told = fates.hear(&synced(2, Level::Plain), CommitNumber(9));
        assert_eq!(told, [(b, Fate::Settled)]);
        assert!(fates.is_empty());
    }

    #[test]
    fn what_a_crash_could_undo_is_told_when_it_is_durable() {
        let mut fates = Fates::default();
        let ids: Vec<_> = (1..=3).map(|write| fates.follow(WriteId(write))).collect();
        assert_eq!(fates.hear(&failed(1, &[2]), CommitNumber(5)), []);
        assert_eq!(fates.hear(&resolved(None, &[3]), CommitNumber(6)), []);
        assert_eq!(fates.durable(CommitNumber(4)), []);
        assert_eq!(fates.durable(CommitNumber(5)), [(ids[1], refused()), (ids[0], refused())]);
        assert!(!fates.is_empty());
        assert_eq!(fates.durable(CommitNumber(7)), [(ids[2], Fate::GivenUp)]);
        assert!(fates.is_empty());
    }

    #[test]
    fn what_a_strategy_merges_shares_the_fate_of_the_outcome() {
        let mut fates = Fates::default();
        let ids: Vec<_> = (1..=2).map(|write| fates.follow(WriteId(write))).collect();
        assert_eq!(fates.hear(&resolved(Some(1), &[1, 2]), CommitNumber(1)), []);
        assert_eq!(fates.hear(&synced(2, Level::Resumable), CommitNumber(1)), []);
        assert_eq!(fates.hear(&resolved(Some(9), &[1]), CommitNumber(1)), []);
        let told = fates.hear(&synced(9, Level::Resumable), CommitNumber(1));
        assert_eq!(told, [(ids[0], Fate::Acknowledged), (ids[1], Fate::Acknowledged)]);
    }

    #[test]
    fn a_transaction_that_ends_in_a_write_shares_its_fate() {
        let mut fates = Fates::default();
        let id = fates.follow_transaction(WriteId(1));
        let (collection, record_id) = place();
        let (write, transaction) = (Some(WriteId(9)), Some(WriteId(1)));
        let merged = vec![WriteId(2)];
        let ends =
            EventKind::ConflictResolved { collection, record_id, write, merged, transaction };
        assert_eq!(fates.hear(&ends, CommitNumber(1)), []);
        assert_eq!(fates.hear(&resolved(Some(10), &[9]), CommitNumber(1)), []);
        let told = fates.hear(&synced(10, Level::Plain), CommitNumber(1));
        assert_eq!(told, [(id, Fate::Settled)]);
    }

    #[test]
    fn an_offered_record_s_writes_share_the_fate_of_the_offer() {
        let mut fates = Fates::default();
        let ids: Vec<_> = (1..=3).map(|write| fates.follow(WriteId(write))).collect();
        let merged = |write: Option<u64>, merged: &[u64]| {
            let merged = merged.iter().map(|write| WriteId(*write)).collect();
            let (collection, record_id) = place();
            let write = write.map(WriteId);
            EventKind::OperationsMerged { collection, record_id, write, merged }
        };
        assert_eq!(fates.hear(&merged(Some(1), &[1, 2]), CommitNumber(1)), []);
        assert_eq!(fates.hear(&merged(None, &[3]), CommitNumber(1)), []);
        assert_eq!(fates.durable(CommitNumber(1)), [(ids[2], Fate::Unchanged)]);
        let told = fates.hear(&synced(1, Level::Resumable), CommitNumber(2));
        assert_eq!(told, [(ids[0], Fate::Acknowledged), (ids[1], Fate::Acknowledged)]);
    }

    #[test]
    fn whoever_unfollows_is_told_nothing() {
        let mut fates = Fates::default();
        let (a, b) = (fates.follow(WriteId(1)), fates.follow(WriteId(2)));
        fates.unfollow(a);
        assert_eq!(fates.hear(&failed(2, &[]), CommitNumber(1)), []);
        fates.unfollow(b);
        assert!(fates.is_empty());
        assert_eq!(fates.durable(CommitNumber(1)), []);
    }
}
