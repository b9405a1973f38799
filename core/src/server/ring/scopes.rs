//! The recent changes of each scope of a collection, by their seqs.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use core::hash::{Hash, Hasher};

use crate::protocol::name::Seq;
use crate::rules::scope::{Scope, ScopeChange};
use crate::server::checks::ensure;

/// The changes of scopes that a ring holds, and where those were that it holds no more: a quiet scope of
/// a busy collection is not behind.
#[derive(Clone, Debug, Default)]
pub(super) struct ScopeIndex {
    scopes: BTreeMap<Scope, Recent>,
    /// Of changes up to here nobody knows in which scopes they were, but for those of `scopes`.
    unknown: Seq,
    bytes: usize,
    /// The bytes of scopes that have no change in the ring.
    quiet_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Recent {
    seqs: VecDeque<Seq>,
    /// The last seq that is no longer in the ring.
    gone: Seq,
}

/// A change that may concern a scope is no longer known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Forgotten;

/// The approximate size of a scope besides its bytes, and that of a seq.
const OVERHEAD: usize = 128;
const SEQ: usize = size_of::<Seq>();

/// The number of bytes that a scope takes in a list.
pub(super) fn size(scope: &Scope) -> usize {
    size_of::<Scope>() + scope.size()
}

impl ScopeIndex {
    pub(super) fn unknown_up_to(seq: Seq) -> Self {
        Self { unknown: seq, ..Self::default() }
    }

    /// The seq of the first change above a seq in one of these scopes.
    pub(super) fn next(&self, at: Seq, of: &BTreeSet<Scope>) -> Result<Option<Seq>, Forgotten> {
        if self.is_unknown_above(at) {
            return Err(Forgotten);
        }
        let mut first: Option<Seq> = None;
        for recent in of.iter().filter_map(|scope| self.scopes.get(scope)) {
            if recent.gone > at {
                return Err(Forgotten);
            }
            let next = recent.seqs.get(recent.seqs.partition_point(|seq| *seq <= at));
            first = first.into_iter().chain(next.copied()).min();
        }
        Ok(first)
    }

    /// Returns `true` if changes above a seq may have been in any scope.
    pub(super) fn is_unknown_above(&self, at: Seq) -> bool {
        at < self.unknown
    }

    /// Adds a change. Returns the number of bytes.
    pub(super) fn push(&mut self, seq: Seq, change: &ScopeChange) -> usize {
        let before = self.bytes;
        for scope in change.all() {
            if !self.scopes.contains_key(scope) {
                self.bytes += OVERHEAD + scope.size();
                self.scopes.insert(scope.clone(), Recent::default());
            } else if self.scopes.get(scope).is_some_and(|recent| recent.seqs.is_empty()) {
                self.quiet_bytes -= OVERHEAD + scope.size();
            }
            if let Some(recent) = self.scopes.get_mut(scope) {
                recent.seqs.push_back(seq);
                self.bytes += SEQ;
            }
        }
        self.bytes - before
    }

    /// Takes out the oldest change. Returns the number of bytes.
    pub(super) fn pop(&mut self, seq: Seq, change: &ScopeChange) -> usize {
        let before = self.bytes;
        for scope in change.all() {
            let Some(recent) = self.scopes.get_mut(scope) else { continue };
            if recent.seqs.front() != Some(&seq) {
                continue;
            }
            recent.seqs.pop_front();
            recent.gone = seq;
            self.bytes -= SEQ;
            if recent.seqs.is_empty() {
                recent.seqs = VecDeque::new();
                self.quiet_bytes += OVERHEAD + scope.size();
            }
        }
        before - self.bytes
    }

    /// Forgets the scopes without a change in the ring where they take more bytes than this. Returns the
    /// number of bytes.
    pub(super) fn shrink(&mut self, most: usize) -> usize {
        if self.quiet_bytes <= most {
            return 0;
        }
        let Self { scopes, unknown, .. } = self;
        scopes.retain(|_, recent| {
            if recent.seqs.is_empty() {
                *unknown = recent.gone.max(*unknown);
            }
            !recent.seqs.is_empty()
        });
        let freed = core::mem::take(&mut self.quiet_bytes);
        self.bytes -= freed;
        freed
    }

    /// Nothing is known of the changes up to here that are not in the ring.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        self.unknown = self.unknown.max(seq);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn hash_into(&self, hasher: &mut impl Hasher) {
        for (scope, recent) in &self.scopes {
            (self.unknown, scope, recent.gone, recent.seqs.len()).hash(hasher);
        }
    }

    /// Checks that these changes, and no others, are here.
    pub(super) fn check<'a>(
        &self,
        changes: impl Iterator<Item = (Seq, &'a ScopeChange)>,
    ) -> Result<(), String> {
        let mut found: BTreeMap<&Scope, VecDeque<Seq>> = BTreeMap::new();
        for (seq, change) in changes {
            change.all().for_each(|scope| found.entry(scope).or_default().push_back(seq));
        }
        let busy = self.scopes.iter().filter(|(_, recent)| !recent.seqs.is_empty());
        ensure(busy.map(|(s, r)| (s, &r.seqs)).eq(found.iter().map(|(s, q)| (*s, q))), "scopes")?;
        let size = |scope: &Scope| OVERHEAD + scope.size();
        let bytes = self.scopes.iter().map(|(scope, r)| size(scope) + r.seqs.len() * SEQ);
        ensure(self.bytes == bytes.sum::<usize>(), "the bytes of a ring's scopes")?;
        let quiet = self.scopes.iter().filter(|(_, recent)| recent.seqs.is_empty());
        let quiet: usize = quiet.map(|(scope, _)| size(scope)).sum();
        ensure(self.quiet_bytes == quiet, "the bytes of quiet scopes")?;
        ensure(self.scopes.values().all(|r| r.seqs.front().is_none_or(|s| *s > r.gone)), "gone")
    }
}
