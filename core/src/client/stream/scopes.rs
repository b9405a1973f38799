//! The scopes of a collection: those that the app uses, and those that are held in sync.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::event::ScopeStanding;
use super::super::unused::Unused;
use super::{Phase, Stream, StreamError};
use crate::protocol::message::ErrorCode;
use crate::protocol::scopes::{AskedScope, MAX_SET, ScopePlace};
use crate::protocol::time::Mono;
use crate::rules::row::HeldSet;
use crate::rules::scope::NamedScope;

impl Stream {
    /// Returns `true` if the collection is held by scopes.
    pub(in super::super) fn is_scoped(&self) -> bool {
        self.row.set.is_some()
    }

    /// The scopes that are held.
    pub(in super::super) fn scopes(&self) -> impl Iterator<Item = &NamedScope> {
        self.row.set.iter().flat_map(HeldSet::scopes)
    }

    /// Returns `true` if all of a scope was received: by itself, or with the whole collection.
    pub(in super::super) fn has_loaded(&self, scope: &NamedScope) -> bool {
        let set = self.row.set.as_ref();
        set.is_none_or(|set| set.place(scope) == Some(&ScopePlace::Loaded))
    }

    /// The scopes that are held or were refused, as the app sees them; `None` of a collection that is held
    /// whole.
    pub(in super::super) fn scope_standings(&self) -> Option<BTreeMap<NamedScope, ScopeStanding>> {
        let set = self.row.set.as_ref()?;
        let standing = |scope: &NamedScope| match set.place(scope) {
            Some(ScopePlace::Loaded) => ScopeStanding::Loaded,
            Some(ScopePlace::Loading(_)) => ScopeStanding::Loading,
            Some(ScopePlace::Waiting) => ScopeStanding::Waiting,
            None => ScopeStanding::Refused,
        };
        let all = set.scopes().chain(&self.scoping.refused);
        Some(all.map(|scope| (scope.clone(), standing(scope))).collect())
    }

    /// Returns `true` if a scope is wanted that is not loaded.
    pub(in super::super) fn lacks_scopes(&self) -> bool {
        self.row.set.as_ref().is_some_and(|set| !set.is_loaded())
            || self.scoping.changed && self.missing_scopes().next().is_some()
    }

    // --- the app's use ---

    /// The app uses a scope.
    pub(in super::super) fn use_scope(&mut self, scope: NamedScope) {
        self.scoping.changed = true;
        // used anew, it is asked for again: what the app may do can have changed
        self.scoping.refused.remove(&scope);
        self.scoping.used.insert(scope);
    }

    /// Nothing of the app's uses a scope any more.
    pub(in super::super) fn release_scope(&mut self, scope: &NamedScope) {
        self.scoping.used.remove(scope);
        self.scoping.changed = true;
    }

    /// The app keeps a scope until it says otherwise, or no longer.
    pub(in super::super) fn keep_scope(&mut self, scope: NamedScope, kept: bool) {
        self.scoping.changed = true;
        self.scoping.refused.remove(&scope);
        if kept {
            self.row.kept.insert(scope);
        } else {
            self.row.kept.remove(&scope);
        }
    }

    /// Returns `true` if the app uses or keeps a scope.
    pub(in super::super) fn uses_scopes(&self) -> bool {
        !self.scoping.used.is_empty() || !self.row.kept.is_empty()
    }

    /// Returns the time for which the collection is kept whole while nothing uses it; `None`: for ever. One
    /// that is used by scopes, and was not used whole since the start, is kept no longer than a scope.
    pub(in super::super) fn keep_for(
        &self,
        keep_for: Option<Duration>,
        keep_scopes_for: Duration,
    ) -> Option<Duration> {
        let by_scopes = self.uses_scopes() && !self.was_subscribed;
        keep_for.or_else(|| by_scopes.then_some(keep_scopes_for))
    }

    /// Returns `true` if the time is counted for which it, or a scope of it, is unused.
    pub(in super::super) fn ages(
        &self,
        keep_for: Option<Duration>,
        keep_scopes_for: Duration,
    ) -> bool {
        match self.is_scoped() {
            true => !self.scoping.idle.is_empty(),
            false => self.keep_for(keep_for, keep_scopes_for).is_some(),
        }
    }

    /// The scopes that the app uses or keeps, each once.
    pub(in super::super) fn used_scopes(&self) -> impl Iterator<Item = &NamedScope> {
        let used = &self.scoping.used;
        used.iter().chain(self.row.kept.iter().filter(|kept| !used.contains(kept)))
    }

    /// The scopes that are to come to the set.
    pub(in super::super) fn missing_scopes(&self) -> impl Iterator<Item = &NamedScope> {
        let is_there = |scope: &NamedScope| {
            let held = self.row.set.as_ref().is_some_and(|set| set.contains(scope));
            held || self.scoping.refused.contains(scope)
        };
        self.used_scopes().filter(move |scope| !is_there(scope))
    }

    /// Returns `true` if the set may have to be brought in line with what the app uses.
    pub(in super::super) fn is_set_due(&self) -> bool {
        self.scoping.changed
    }

    /// The set is the one that the app uses: the others in it are counted as unused.
    pub(in super::super) fn set_is_right(&mut self) {
        self.scoping.changed = false;
        let mut before = core::mem::take(&mut self.scoping.idle);
        let used: BTreeSet<_> = self.used_scopes().cloned().collect();
        let idle = self.scopes().filter(|scope| !used.contains(scope)).cloned();
        self.scoping.idle =
            idle.map(|scope| (scope.clone(), before.remove(&scope).unwrap_or_default())).collect();
        if self.is_scoped() {
            self.wanted = !used.is_empty() || self.scopes().next().is_some();
        }
    }

    /// The scopes that nothing uses and that have to go for those that are used to fit; all of them, if the
    /// server can't serve the set: one of them may be why.
    pub(in super::super) fn superfluous_scopes(&self) -> Vec<NamedScope> {
        let held = self.row.set.as_ref().map_or(0, HeldSet::len);
        let excess = match self.is_set_invalid() {
            true => held,
            false => (held + self.missing_scopes().count()).saturating_sub(MAX_SET),
        };
        let used: BTreeSet<_> = self.used_scopes().collect();
        let unused = self.scopes().filter(|scope| !used.contains(scope));
        unused.take(excess).cloned().collect()
    }

    /// Returns `true` if the server has refused the set as one that it can't serve.
    fn is_set_invalid(&self) -> bool {
        let invalid = |error: &StreamError| error.code == ErrorCode::InvalidMessage;
        self.error.as_deref().is_some_and(invalid)
    }

    /// The server has refused the whole set.
    pub(in super::super) fn set_refused(&mut self) {
        self.scoping.changed |= self.is_scoped();
    }

    /// Counts the time in which scopes of the set are unused and the collection is in step. Returns those
    /// for which that was long enough.
    pub(in super::super) fn count_idle_scopes(
        &mut self,
        now: Mono,
        keep_for: Duration,
    ) -> Vec<NamedScope> {
        let confirmed = self.confirmed;
        let mut over = Vec::new();
        for (scope, unused) in &mut self.scoping.idle {
            if unused.count(confirmed, now, keep_for) {
                over.push(scope.clone());
            }
        }
        over
    }

    /// Something else uses all scopes of the set.
    pub(in super::super) fn count_scopes_used(&mut self) {
        self.scoping.idle.values_mut().for_each(|unused| *unused = Unused::default());
    }

    /// Returns the time at which the next scope of the set has been unused for long enough.
    pub(in super::super) fn idle_scope_until(&self, keep_for: Duration) -> Option<Mono> {
        self.scoping.idle.values().filter_map(|unused| unused.until(keep_for)).min()
    }

    // --- subscriptions ---

    /// The set has changed: it is asked for anew, and what still comes of the one before does not count.
    pub(in super::super) fn set_changed(&mut self) {
        self.refreshing = false;
        self.scoping.asked += 1;
        match self.phase {
            Phase::Subscribing | Phase::CatchingUp | Phase::Live | Phase::Refused => {
                self.phase = Phase::Idle;
            }
            Phase::Idle | Phase::Leaving => {}
        }
        self.refuse_if_empty();
    }

    /// A set of which the server refuses all that is used is refused: there is nothing to ask for, and
    /// so nothing to wait for. Returns `true` if it is so.
    pub(in super::super) fn refuse_if_empty(&mut self) -> bool {
        let is_refused = self.scopes().next().is_none() && !self.scoping.refused.is_empty();
        if is_refused {
            let message = "the server refuses all its scopes";
            self.refuse(StreamError::new(&ErrorCode::Unauthorized, message), None);
        }
        is_refused
    }

    /// Returns the set for a `subscribe` or a pull, with its number; no scopes of a whole collection.
    pub(in super::super) fn ask_set(&mut self) -> (Option<u64>, Vec<AskedScope>) {
        self.scoping.numbered |= self.is_scoped();
        self.scoping.asked += u64::from(self.scoping.numbered);
        self.asked_set()
    }

    /// The set that was asked for last, with its number.
    pub(super) fn asked_set(&self) -> (Option<u64>, Vec<AskedScope>) {
        (self.set_number(), self.row.set.as_ref().map(HeldSet::asked).unwrap_or_default())
    }

    fn set_number(&self) -> Option<u64> {
        self.scoping.numbered.then_some(self.scoping.asked)
    }

    /// Returns `true` if an answer with this number of a set is one to what was asked last.
    pub(in super::super) fn answers(&self, set: Option<u64>) -> bool {
        set == self.set_number()
    }

    /// The server refuses a scope.
    pub(in super::super) fn refuse_scope(&mut self, scope: NamedScope) {
        self.scoping.refused.insert(scope);
    }

    /// Returns the scopes that the server refuses as an error of the collection, if there are any.
    pub(in super::super) fn scope_error(&self) -> Option<StreamError> {
        let refused: Vec<_> = self.scoping.refused.iter().map(ToString::to_string).collect();
        let message = format!("the scopes {}", refused.join(", "));
        let error = || StreamError { code: ErrorCode::Unauthorized, message };
        (!refused.is_empty()).then(error)
    }

    /// Asks again for the scopes that were refused.
    pub(in super::super) fn ask_refused_scopes_again(&mut self) {
        let refused = core::mem::take(&mut self.scoping.refused);
        self.scoping.changed |= !refused.is_empty();
    }

    /// The connection is gone.
    pub(super) fn detach_scopes(&mut self) {
        (self.scoping.asked, self.scoping.numbered) = (0, false);
        self.ask_refused_scopes_again();
    }
}
