//! The fate of the app's writes: what became of each, told once to whoever follows it.
//!
//! Only writes that somebody follows are kept here. A write is known by its place in the outbox, so
//! one that joined another shares its place and its fate. Where a conflict strategy collapses
//! writes into one, they share the fate of the outcome. A transaction of which a member goes on in a
//! write of its own is taken when both are.

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
    /// All that must be taken before a follower is told that it is.
    writes: BTreeMap<FateId, BTreeSet<Followed>>,
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
        self.await_too(id, followed);
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
        if self.writes.contains_key(&id) {
            self.forget(id);
        } else {
            self.held.retain(|(_, held, _)| *held != id);
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
            let ids = self.take(followed).into_iter();
            return ids.filter(|id| self.is_at_rest(*id)).map(|id| (id, fate.clone())).collect();
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
        if let EventKind::ConflictResolved { write, merged, transaction, ends, .. } = event {
            self.merge(merged, *write, &Fate::GivenUp, commit);
            if let (Some(outcome), Some(transaction)) = (write, transaction) {
                self.go_on(Followed::Transaction(*transaction), *outcome, *ends);
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
        self.go_on(followed, outcome, true);
    }

    /// Lets the followers of this follow the outcome of a part too, and no more than that where
    /// nothing else is left of it.
    fn go_on(&mut self, followed: Followed, outcome: WriteId, ends: bool) {
        let ids = if ends { self.take(followed) } else { self.following(followed) };
        for id in ids {
            self.await_too(id, Followed::Write(outcome));
        }
    }

    fn decide(&mut self, followed: Followed, fate: &Fate, commit: CommitNumber) {
        for id in self.following(followed) {
            self.forget(id);
            self.held.push_back((commit, id, fate.clone()));
        }
    }

    fn await_too(&mut self, id: FateId, followed: Followed) {
        self.writes.entry(id).or_default().insert(followed);
        self.followers.insert((followed, id));
    }

    /// The followers of a write or a transaction.
    fn following(&self, followed: Followed) -> Vec<FateId> {
        let of = self.followers.range((followed, FateId(0))..=(followed, FateId(u64::MAX)));
        of.map(|(_, id)| *id).collect()
    }

    /// The followers of a write or a transaction, which are no longer that.
    fn take(&mut self, followed: Followed) -> Vec<FateId> {
        let ids = self.following(followed);
        for id in &ids {
            self.followers.remove(&(followed, *id));
            if let Some(awaited) = self.writes.get_mut(id) {
                awaited.remove(&followed);
            }
        }
        ids
    }

    /// Forgets a follower that has nothing left to wait for. Returns `true` if it had not.
    fn is_at_rest(&mut self, id: FateId) -> bool {
        let is_at_rest = self.writes.get(&id).is_none_or(BTreeSet::is_empty);
        if is_at_rest {
            self.writes.remove(&id);
        }
        is_at_rest
    }

    fn forget(&mut self, id: FateId) {
        for followed in self.writes.remove(&id).into_iter().flatten() {
            self.followers.remove(&(followed, id));
        }
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
        let (write, transaction) = (write.map(WriteId), None);
        let ends = false;
        EventKind::ConflictResolved { collection, record_id, write, merged, transaction, ends }
    }

    /// A member of a transaction goes on in a write of its own.
    fn goes_on(member: u64, transaction: u64, write: u64, ends: bool) -> EventKind {
        let (collection, record_id) = place();
        let (write, merged) = (Some(WriteId(write)), vec![WriteId(member)]);
        let transaction = Some(WriteId(transaction));
        EventKind::ConflictResolved { collection, record_id, write, merged, transaction, ends }
    }

    fn transaction_synced(transaction: u64) -> EventKind {
        let transaction = WriteId(transaction);
        EventKind::TransactionSynced { transaction, level: Level::Plain }
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
        assert_eq!(fates.hear(&goes_on(2, 1, 9, true), CommitNumber(1)), []);
        assert_eq!(fates.hear(&resolved(Some(10), &[9]), CommitNumber(1)), []);
        let told = fates.hear(&synced(10, Level::Plain), CommitNumber(1));
        assert_eq!(told, [(id, Fate::Settled)]);
    }

    #[test]
    fn a_transaction_waits_for_its_members_that_go_on_alone() {
        let mut fates = Fates::default();
        let id = fates.follow_transaction(WriteId(1));
        assert_eq!(fates.hear(&goes_on(1, 1, 9, false), CommitNumber(1)), []);
        assert_eq!(fates.hear(&goes_on(2, 1, 10, false), CommitNumber(1)), []);
        assert_eq!(fates.hear(&transaction_synced(1), CommitNumber(1)), []);
        assert_eq!(fates.hear(&synced(10, Level::Plain), CommitNumber(1)), []);
        assert_eq!(fates.hear(&resolved(Some(11), &[9]), CommitNumber(1)), []);
        let told = fates.hear(&synced(11, Level::Plain), CommitNumber(1));
        assert_eq!(told, [(id, Fate::Settled)]);
        assert!(fates.is_empty());
    }

    #[test]
    fn a_transaction_s_fate_is_that_of_the_first_part_that_is_not_taken() {
        for first_is_lost in [true, false] {
            let mut fates = Fates::default();
            let id = fates.follow_transaction(WriteId(1));
            assert_eq!(fates.hear(&goes_on(1, 1, 9, false), CommitNumber(1)), []);
            if !first_is_lost {
                assert_eq!(fates.hear(&transaction_synced(1), CommitNumber(1)), []);
            }
            assert_eq!(fates.hear(&failed(9, &[]), CommitNumber(1)), []);
            assert_eq!(fates.hear(&transaction_synced(1), CommitNumber(1)), []);
            assert_eq!(fates.durable(CommitNumber(1)), [(id, refused())]);
            assert!(fates.is_empty());
        }
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
        let c = fates.follow_transaction(WriteId(3));
        assert_eq!(fates.hear(&goes_on(3, 3, 9, false), CommitNumber(1)), []);
        fates.unfollow(c);
        assert_eq!(fates.hear(&synced(9, Level::Plain), CommitNumber(1)), []);
        assert!(fates.is_empty());
        assert_eq!(fates.durable(CommitNumber(1)), []);
    }
}
