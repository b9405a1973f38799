//! The set of scopes that a replica holds of a collection.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use super::parts::epoch;
use crate::protocol::codec::{Reader, put_bytes, put_u64};
use crate::protocol::document::Document;
use crate::protocol::name::Seq;
use crate::protocol::scopes::{AskedScope, LoadPlace, MAX_SET, ScopePlace};
use crate::rules::scope::{NamedScope, Scope, ScopeKey};
use crate::store::StoreError;

/// The scopes of a collection that a replica holds, beside one cursor for all that are loaded.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct HeldSet {
    scopes: BTreeMap<Scope, HeldScope>,
    /// The keys of these scopes.
    keys: BTreeSet<ScopeKey>,
    /// `true` if a scope has come to the set since the rows were counted: those of other scopes that lie
    /// in it too were counted without it.
    pub(crate) uncounted: bool,
}

/// A scope of the set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct HeldScope {
    name: NamedScope,
    place: ScopePlace,
}

impl HeldSet {
    pub(crate) fn len(&self) -> usize {
        self.scopes.len()
    }

    /// Returns `true` if no more scopes fit.
    pub(crate) fn is_full(&self) -> bool {
        self.scopes.len() >= MAX_SET
    }

    pub(crate) fn contains(&self, scope: &NamedScope) -> bool {
        self.scopes.contains_key(scope.scope())
    }

    pub(crate) fn scopes(&self) -> impl Iterator<Item = &NamedScope> {
        self.scopes.values().map(|held| &held.name)
    }

    /// The part of a scope that is held; `None` if it is not in the set.
    pub(crate) fn place(&self, scope: &NamedScope) -> Option<&ScopePlace> {
        self.scopes.get(scope.scope()).map(|held| &held.place)
    }

    /// The set as a `subscribe` names it.
    pub(crate) fn asked(&self) -> Vec<AskedScope> {
        let asked =
            |held: &HeldScope| AskedScope { name: held.name.name(), place: held.place.clone() };
        self.scopes.values().map(asked).collect()
    }

    /// The places of the loads that are under way.
    pub(crate) fn loads(&self) -> impl Iterator<Item = &LoadPlace> {
        self.scopes.values().filter_map(|held| match &held.place {
            ScopePlace::Loading(load) => Some(load),
            ScopePlace::Loaded | ScopePlace::Waiting => None,
        })
    }

    /// Returns `true` if some scope is loaded.
    pub(crate) fn has_loaded(&self) -> bool {
        self.scopes.values().any(|held| held.place == ScopePlace::Loaded)
    }

    /// Returns `true` if every scope is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.scopes.values().all(|held| held.place == ScopePlace::Loaded)
    }

    /// Adds a scope of which this much is held, unless it is there.
    pub(crate) fn add(&mut self, scope: NamedScope, place: ScopePlace) {
        self.uncounted |= !self.contains(&scope);
        self.keys.insert(scope.key().clone());
        let of = scope.scope().clone();
        self.scopes.entry(of).or_insert(HeldScope { name: scope, place });
    }

    /// Sets how much of a scope of the set is held.
    pub(crate) fn set_place(&mut self, scope: &NamedScope, place: ScopePlace) {
        if let Some(held) = self.scopes.get_mut(scope.scope()) {
            held.place = place;
        }
    }

    /// Takes a scope out. Returns its place.
    pub(crate) fn remove(&mut self, scope: &NamedScope) -> Option<ScopePlace> {
        let removed = self.scopes.remove(scope.scope())?;
        self.keys = self.scopes.values().map(|held| held.name.key().clone()).collect();
        Some(removed.place)
    }

    /// Lets all scopes wait to be loaded.
    pub(crate) fn begin_anew(&mut self) {
        self.scopes.values_mut().for_each(|held| held.place = ScopePlace::Waiting);
    }

    /// The number of scopes of the set that a document lies in.
    pub(crate) fn count(&self, document: &Document) -> u64 {
        self.count_where(document, |_| true)
    }

    /// Returns `true` if a document lies in a scope of which something was loaded.
    pub(crate) fn holds(&self, document: &Document) -> bool {
        self.count_where(document, |place| *place != ScopePlace::Waiting) > 0
    }

    fn count_where(&self, document: &Document, counts: impl Fn(&ScopePlace) -> bool) -> u64 {
        let mut count = 0;
        for key in &self.keys {
            for value in key.scopes(document).unwrap_or_default() {
                let held = self.scopes.get(&Scope::new(key, &value));
                count += u64::from(held.is_some_and(|held| counts(&held.place)));
            }
        }
        count
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([u8::from(self.uncounted)]);
        put_u64(&mut out, self.scopes.len() as u64);
        for held in self.scopes.values() {
            put_scope(&mut out, &held.name);
            match &held.place {
                ScopePlace::Waiting => out.push(0),
                ScopePlace::Loaded => out.push(1),
                ScopePlace::Loading(LoadPlace { epoch, snapshot_seq, after }) => {
                    out.push(2);
                    put_bytes(&mut out, epoch.as_bytes());
                    put_u64(&mut out, snapshot_seq.0);
                    put_u64(&mut out, after.0);
                }
            }
        }
        out
    }

    pub(super) fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let mut set = Self::default();
        let uncounted = row.flag()?;
        for _ in 0..row.u64()? {
            let scope = take_scope(row)?;
            let place = match row.byte()? {
                0 => ScopePlace::Waiting,
                1 => ScopePlace::Loaded,
                2 => ScopePlace::Loading(LoadPlace {
                    epoch: epoch(row)?,
                    snapshot_seq: Seq(row.u64()?),
                    after: Seq(row.u64()?),
                }),
                _ => return Err(StoreError::damaged("a stored scope is in no place")),
            };
            set.add(scope, place);
        }
        set.uncounted = uncounted;
        Ok(set)
    }
}

pub(super) fn put_scope(out: &mut Vec<u8>, scope: &NamedScope) {
    put_u64(out, scope.parts().count() as u64);
    for (part, json) in scope.parts() {
        put_bytes(out, part.as_bytes());
        put_bytes(out, json.as_bytes());
    }
}

pub(super) fn take_scope(row: &mut Reader) -> Result<NamedScope, StoreError> {
    let mut parts = Vec::new();
    for _ in 0..row.u64()? {
        let mut text = || row.str(|text| Some(String::from(text)));
        parts.push((text()?, text()?));
    }
    let parts = parts.iter().map(|(part, json)| (part.as_str(), json.as_str()));
    NamedScope::new(parts).map_err(|_| StoreError::damaged("a stored scope can't be one"))
}
