//! The chain of commits: a row for each, written in the same batch, by which a store knows when it
//! is opened that no commit is missing and that none was replayed out of order.
//!
//! A row says the commit's number and a hash over it and everything before it. The rows of all
//! commits that may still lie in a journal are kept; older ones, whose contents are in tables with
//! checksums of their own, are cut off a few at a time.

use std::collections::VecDeque;

use fjall::{AbstractTree, Keyspace, OwnedWriteBatch, SeqNo};
use synclayer_core::Op;
use xxhash_rust::xxh3::Xxh3;

use crate::rows::ROW;

/// The first byte of the key of a row of the chain.
pub(crate) const CHAIN: u8 = b'c';
/// Old rows that a commit removes at most.
const CUT_AT_ONCE: u64 = 8;
/// The database gives its sequence numbers in steps of a few; a step of this size is a wrong bit.
const FAR: SeqNo = 1 << 32;

/// A commit's place in the chain. Number 0 stands before the first commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ChainLink {
    pub(crate) number: u64,
    pub(crate) hash: u64,
}

impl ChainLink {
    fn next(self, ops: &[Op]) -> Self {
        let number = self.number + 1;
        let mut hash = Xxh3::new();
        hash.update(&self.hash.to_le_bytes());
        hash.update(&number.to_le_bytes());
        for op in ops {
            let (tag, key, value) = match op {
                Op::Put(key, value) => (1, &key[..], &value[..]),
                Op::Delete(key) => (2, &key[..], &[][..]),
            };
            hash.update(&[tag]);
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(key);
            hash.update(&(value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        Self { number, hash: hash.digest() }
    }
}

/// The chain's two ends, and what may be cut off.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) last: ChainLink,
    /// The number of the oldest row that is kept.
    pub(crate) first: u64,
    marks: VecDeque<Mark>,
    /// Rows below this one may go.
    cut_to: u64,
}

/// All commits up to a number lie in journals up to an id.
#[derive(Clone, Copy, Debug)]
struct Mark {
    number: u64,
    journal: u64,
}

impl Chain {
    /// Returns true if the journals should be listed again.
    pub(crate) fn wants_journals(&self) -> bool {
        self.last.number.is_multiple_of(256)
    }

    /// Takes note of the oldest and the newest journal that there are.
    pub(crate) fn journals(&mut self, oldest: u64, newest: u64) {
        let mark = Mark { number: self.last.number, journal: newest };
        match self.marks.back_mut() {
            Some(last) if last.journal == newest => *last = mark,
            Some(_) | None => self.marks.push_back(mark),
        }
        while let Some(mark) = self.marks.front()
            && mark.journal < oldest
        {
            // the row of the last commit outside the journals stays, for the next one to follow
            self.cut_to = mark.number;
            self.marks.pop_front();
        }
    }

    /// Adds a commit's row to its batch, and what is to be cut off. The commit counts when
    /// [`advance`](Self::advance) is told so.
    pub(crate) fn write(
        &self,
        ops: &[Op],
        batch: &mut OwnedWriteBatch,
        rows: &Keyspace,
    ) -> Advance {
        let last = self.last.next(ops);
        let first = self.cut_to.min(self.first + CUT_AT_ONCE).max(self.first);
        for number in self.first..first {
            batch.remove(rows, chain_key(number));
        }
        let value = [last.hash.to_le_bytes(), first.to_le_bytes()].concat();
        batch.insert(rows, chain_key(last.number), value);
        Advance { last, first }
    }

    /// The batch is in the database.
    pub(crate) fn advance(&mut self, step: Advance) {
        self.last = step.last;
        self.first = step.first;
    }

    /// Reads the chain of a database and checks it: its rows are there without a gap, and were
    /// committed in their order. `seen` is shown every link.
    ///
    /// # Errors
    /// When the database can't be read; the flaw, when the chain has one.
    pub(crate) fn read(
        rows: &Keyspace,
        seen: &mut dyn FnMut(ChainLink),
    ) -> fjall::Result<Result<Self, String>> {
        let mut found: Option<Found> = None;
        for row in rows.prefix([CHAIN]) {
            let (key, value) = row.into_inner()?;
            let Some((last, first)) = decode(&key, &value) else {
                return Ok(Err("a row of its chain of commits is unreadable".into()));
            };
            let order = replayed_as(rows, &key)?;
            let oldest = match &found {
                None => last.number,
                Some(before) => match before.flaw_of_next(last.number, order) {
                    Some(flaw) => return Ok(Err(flaw)),
                    None => before.oldest,
                },
            };
            seen(last);
            found = Some(Found { oldest, last, first, order });
        }
        let Some(Found { oldest, last, first, .. }) = found else {
            return Ok(Self::of_empty(rows));
        };
        if oldest != first {
            return Ok(Err(format!("its chain of commits starts at {oldest} and not at {first}")));
        }
        Ok(Ok(Self { last, first, marks: VecDeque::new(), cut_to: first }))
    }

    fn of_empty(rows: &Keyspace) -> Result<Self, String> {
        if rows.prefix([ROW]).next().is_some() {
            return Err("it has rows and no chain of commits".into());
        }
        Ok(Self { last: ChainLink::default(), first: 1, marks: VecDeque::new(), cut_to: 1 })
    }
}

/// The change of the chain by a commit.
pub(crate) struct Advance {
    last: ChainLink,
    first: u64,
}

/// The progress of reading a chain.
struct Found {
    oldest: u64,
    last: ChainLink,
    first: u64,
    order: Option<SeqNo>,
}

impl Found {
    fn flaw_of_next(&self, number: u64, order: Option<SeqNo>) -> Option<String> {
        let before = self.last.number;
        if number != before + 1 {
            return Some(format!("the commits between {before} and {number} are missing"));
        }
        let in_order = match (self.order, order) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(before), Some(order)) => order > before && order - before < FAR,
        };
        (!in_order).then(|| format!("the commits {before} and {number} are out of order"))
    }
}

/// The sequence number of a commit that was replayed from a journal; `None` for one that lies in a
/// table, which a journal can no longer change.
fn replayed_as(rows: &Keyspace, key: &[u8]) -> fjall::Result<Option<SeqNo>> {
    if rows.sealed_memtable_count() > 0 {
        // threads of the database may be turning these into tables right now
        let entry = rows.tree.get_internal_entry(key, SeqNo::MAX)?;
        return Ok(entry.map(|entry| entry.key.seqno));
    }
    let entry = rows.tree.active_memtable().get(key, SeqNo::MAX);
    Ok(entry.map(|entry| entry.key.seqno))
}

fn chain_key(number: u64) -> [u8; 9] {
    let mut key = [CHAIN; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The number of the commit whose row has this key; `None` for another kind of row.
pub(crate) fn number(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&[CHAIN])?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// The commits of which a damaged store has no row.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// The numbers that were seen since the last gap began, and how many there were before.
    oldest: Option<u64>,
    last: u64,
    seen: u64,
    /// From where on the last row says that there are rows.
    first: u64,
}

impl Gaps {
    /// Takes the store's own rows, in the order of their keys.
    pub(crate) fn see(&mut self, key: &[u8], value: &[u8]) {
        let Some((link, first)) = decode(key, value) else { return };
        self.oldest.get_or_insert(link.number);
        self.seen += 1;
        (self.last, self.first) = (link.number, first);
    }

    /// Counts the missing commits. Those up to `required` were acknowledged.
    pub(crate) fn count(&self, required: Option<u64>) -> u64 {
        let behind = required.unwrap_or(0).saturating_sub(self.last);
        let Some(oldest) = self.oldest else { return behind };
        // older rows than the first one that counts may have come back
        let from = self.first.max(1);
        let old = from.saturating_sub(oldest).min(self.seen);
        let all = (self.last + 1).saturating_sub(from);
        behind + all.saturating_sub(self.seen - old)
    }
}

fn decode(key: &[u8], value: &[u8]) -> Option<(ChainLink, u64)> {
    let number = number(key)?;
    let (hash, first) = value.split_at_checked(8)?;
    let hash = u64::from_le_bytes(hash.try_into().ok()?);
    let first = u64::from_le_bytes(first.try_into().ok()?);
    Some((ChainLink { number, hash }, first))
}
