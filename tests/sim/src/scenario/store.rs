//! A client's store that knows its batches by what they hold, and fails at the one it was told.

use std::collections::BTreeSet;

use serde::Deserialize;
use synclayer_core::testing::SimulatedDisk;
use synclayer_core::{
    Batch, ClientStore, CommitNumber, MemoryClientStore, Op, Rows, StoreError, StoreErrorKind,
};

/// The kinds of contents of a batch, which may have several of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Holds {
    /// A user's first rows.
    User,
    /// A write of the app's: its entry in the outbox, and the row that shows it.
    Write,
    /// That the server has taken a write.
    Ack,
    /// That the server has refused a write for good.
    Rejection,
    /// That a rejected write was taken off the list.
    Discard,
    /// The result of a strategy for pending writes.
    Conflict,
    /// A change of a record by others.
    RemoteChange,
    /// Up to where a collection is known.
    Cursor,
    /// The session that a hello offers, or a new client id.
    Identity,
}

impl Holds {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Write => "write",
            Self::Ack => "ack",
            Self::Rejection => "rejection",
            Self::Discard => "discard",
            Self::Conflict => "conflict",
            Self::RemoteChange => "remoteChange",
            Self::Cursor => "cursor",
            Self::Identity => "identity",
        }
    }

    /// Returns the contents of a batch. The rows' layout is that of the core's `rules::row`.
    fn of(batch: &Batch, by_app: bool, before: &dyn Rows) -> BTreeSet<Self> {
        let mut keys = Keys::default();
        batch.ops().iter().for_each(|op| keys.add(op, before));
        let gone: BTreeSet<_> = keys.settled.iter().cloned().collect();
        let acked = !gone.is_empty()
            && keys.rejected == 0
            && (keys.identity || keys.entries.iter().any(|entry| gone.contains(entry)));
        let changed = keys.entries.iter().any(|entry| !gone.contains(entry));
        let names = [
            (keys.user, Self::User),
            (by_app && changed, Self::Write),
            (acked, Self::Ack),
            (keys.rejected > 0, Self::Rejection),
            (keys.discarded > 0, Self::Discard),
            (
                !by_app && (changed || !gone.is_empty() && !acked && keys.rejected == 0),
                Self::Conflict,
            ),
            (!by_app && keys.row && gone.is_empty() && !changed, Self::RemoteChange),
            (keys.cursor, Self::Cursor),
            (keys.identity && gone.is_empty() && !keys.user, Self::Identity),
        ];
        names.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }
}

/// The rows that a batch changes, by kind.
#[derive(Default)]
struct Keys {
    user: bool,
    identity: bool,
    cursor: bool,
    row: bool,
    rejected: usize,
    discarded: usize,
    /// The positions of the entries that are set.
    entries: Vec<Vec<u8>>,
    /// The positions of the writes that no longer wait.
    settled: Vec<Vec<u8>>,
}

impl Keys {
    fn add(&mut self, op: &Op, before: &dyn Rows) {
        let key = op.key();
        let put = matches!(op, Op::Put(..));
        let position = || key[key.len().saturating_sub(8)..].to_vec();
        match (key.first(), key.get(5)) {
            (Some(0), _) => self.user = true,
            (_, Some(b'i')) => self.identity = true,
            (_, Some(b'c')) => self.cursor = true,
            (_, Some(b'd' | b'k')) => self.row = true,
            (_, Some(b'o')) => {
                if put {
                    self.entries.push(position());
                }
                let waits = |row: &[u8]| row.first() == Some(&0);
                let waited = before.get(key).ok().flatten().is_some_and(|row| waits(&row));
                let waits_on = matches!(op, Op::Put(_, row) if waits(row));
                if waited && !waits_on {
                    self.settled.push(position());
                }
            }
            (_, Some(b'r')) if put => self.rejected += 1,
            (_, Some(b'r')) => self.discarded += 1,
            (_, _) => {}
        }
    }
}

/// A call made to a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Commit(CommitNumber, BTreeSet<Holds>),
    Flush(CommitNumber),
}

/// The store.
#[derive(Clone)]
pub(super) struct NamedStore {
    inner: MemoryClientStore,
    /// Calls made since the last look.
    pub(super) asked: Vec<Asked>,
    /// The failure that is planned.
    pub(super) fails_at: Option<Holds>,
    /// True while the app makes a call, false while the world does.
    pub(super) by_app: bool,
}

impl NamedStore {
    pub(super) fn new(inner: MemoryClientStore) -> Self {
        Self { inner, asked: Vec::new(), fails_at: None, by_app: false }
    }

    pub(super) fn inner(&mut self) -> &mut MemoryClientStore {
        &mut self.inner
    }

    /// The store as it is opened again; with a number, after a crash that lost what is above it.
    pub(super) fn reopen(self, back_to: Option<u64>) -> Self {
        Self::new(match back_to {
            Some(number) => self.inner.crash_to(CommitNumber(number)),
            None => self.inner.reopen(),
        })
    }
}

impl ClientStore for NamedStore {
    fn rows(&self) -> &dyn Rows {
        self.inner.rows()
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        let holds = Holds::of(&batch, self.by_app, self.inner.rows());
        if self.fails_at.is_some_and(|name| holds.contains(&name)) {
            self.fails_at = None;
            self.inner.fail_commit(1, StoreError::new(StoreErrorKind::Full, "the disk is full"));
        }
        self.inner.commit(number, batch)?;
        self.asked.push(Asked::Commit(number, holds));
        Ok(())
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.inner.flush(up_to)?;
        self.asked.push(Asked::Flush(up_to));
        Ok(())
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.inner.durable()
    }
}
