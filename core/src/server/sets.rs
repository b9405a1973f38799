//! Sets of scopes, as clients ask for them and as their users' rights grant them.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::protocol::hash::RightsTag;
use crate::protocol::message::{Cursor, Resume};
use crate::protocol::name::Collection;
use crate::protocol::scopes::{AskedScope, ScopeName, ScopePage, ScopePlace};
use crate::rules::page::{Content, Position};
use crate::rules::policy::{Access, Asker, Policy};
use crate::rules::scope::{Scope, ScopeSet};

/// The place that a reader has reached.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Place {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) resume: Option<Resume>,
    /// The rights by which it was shown what led there.
    pub(crate) rights: Option<RightsTag>,
}

/// A scope that a reader of level 1 asks for instead of the collection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Filter {
    scope: Scope,
    name: ScopeName,
}

/// A set of scopes that a client asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AskedSet {
    scopes: Vec<(Scope, AskedScope)>,
}

/// The scopes of a set with the names that the client gave them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct NamedSet {
    /// The number of the set.
    pub(crate) number: Option<u64>,
    /// The scopes; empty for the whole collection.
    pub(crate) names: BTreeMap<Scope, ScopeName>,
    /// Those of which the user may read nothing, and those whose key is not declared.
    pub(crate) refused: Vec<ScopeName>,
}

/// The part of a set that a user may read.
pub(crate) struct GrantedSet {
    pub(crate) access: Access,
    pub(crate) set: NamedSet,
    places: Vec<(Scope, ScopePlace)>,
}

impl Place {
    /// The position at which a run over a whole collection begins.
    pub(crate) fn start(self, access: Access, followed: bool) -> Position {
        let Self { cursor, resume, rights } = self;
        shown_by(rights, access, followed, Position::Start { cursor, resume })
    }
}

/// A beginning of one who was shown by these rights what they hold; `followed` if the records are followed at
/// which those have looked.
fn shown_by(
    rights: Option<RightsTag>,
    access: Access,
    followed: bool,
    start: Position,
) -> Position {
    if rights.is_none() && !access.is_partial() {
        return start;
    }
    Position::ShownBy { rights, followed, start: Box::new(start) }
}

impl Filter {
    /// The scope with these values of the parts of its key, each a JSON text; `None` if there are none.
    ///
    /// # Errors
    /// The problem, for people.
    pub(crate) fn read(parts: Vec<(String, String)>) -> Result<Option<Self>, String> {
        if parts.is_empty() {
            return Ok(None);
        }
        let scope = Scope::of(&parts).map_err(|error| error.to_string())?;
        Ok(Some(Self { scope, name: ScopeName { parts } }))
    }

    pub(crate) fn scopes(&self) -> ScopeSet {
        Arc::new([self.scope.clone()].into())
    }

    /// The access of a user to the scope.
    pub(crate) fn access(
        &self,
        policy: &dyn Policy,
        by: &Asker<'_>,
        collection: &Collection,
    ) -> Access {
        policy.access_to_scope(by, collection, &self.name.parts)
    }
}

impl AskedSet {
    /// The scopes of a message; `None` if it is about the whole collection.
    ///
    /// # Errors
    /// The problem, for people.
    pub(crate) fn read(scopes: Vec<AskedScope>) -> Result<Option<Self>, String> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::with_capacity(scopes.len());
        for asked in scopes {
            let scope = Scope::of(&asked.name.parts).map_err(|error| error.to_string())?;
            if !seen.insert(scope.clone()) {
                return Err(format!("the scope {} is there twice", asked.name));
            }
            found.push((scope, asked));
        }
        Ok((!found.is_empty()).then_some(Self { scopes: found }))
    }

    /// The part of the set that a user may read; `None` if that is nothing.
    pub(crate) fn grant(
        self,
        number: Option<u64>,
        policy: &dyn Policy,
        by: &Asker<'_>,
        collection: &Collection,
    ) -> Option<GrantedSet> {
        let mut set = NamedSet { number, ..NamedSet::default() };
        let mut access = Access::All;
        let mut places = Vec::with_capacity(self.scopes.len());
        for (scope, AskedScope { name, place }) in self.scopes {
            let own = policy.access_to_scope(by, collection, &name.parts);
            if own == Access::None {
                set.refused.push(name);
                continue;
            }
            access = wider(access, own);
            set.names.insert(scope.clone(), name);
            places.push((scope, place));
        }
        (!places.is_empty()).then_some(GrantedSet { access, set, places })
    }
}

/// The access that asks about each record that one of both asks about.
fn wider(one: Access, other: Access) -> Access {
    match (one, other) {
        (Access::Related, _) | (_, Access::Related) => Access::Related,
        (Access::Some, _) | (_, Access::Some) => Access::Some,
        (_, _) => Access::All,
    }
}

impl GrantedSet {
    /// The scopes, and the position at which the catch-up of a reader begins.
    pub(crate) fn start(self, place: Place, followed: bool) -> (NamedSet, ScopeSet, Position) {
        let (scopes, Place { cursor, resume, rights }) = (self.set.scopes(), place);
        let start = Position::StartOfSet { cursor, resume, places: self.places };
        (self.set, scopes, shown_by(rights, self.access, followed, start))
    }
}

impl NamedSet {
    pub(crate) fn scopes(&self) -> ScopeSet {
        Arc::new(self.names.keys().cloned().collect())
    }

    /// Leaves scopes out of which nothing is told, and returns their names.
    pub(crate) fn refuse(&mut self, scopes: &[Scope]) -> Vec<ScopeName> {
        let names: Vec<_> = scopes.iter().filter_map(|scope| self.names.remove(scope)).collect();
        self.refused.extend(names.iter().cloned());
        names
    }

    /// The access of a user to the set, and the scopes of which they may read nothing.
    pub(crate) fn access(
        &self,
        policy: &dyn Policy,
        by: &Asker<'_>,
        collection: &Collection,
    ) -> (Access, Vec<Scope>) {
        let (mut access, mut lost) = (Access::All, Vec::new());
        for (scope, name) in &self.names {
            match policy.access_to_scope(by, collection, &name.parts) {
                Access::None => lost.push(scope.clone()),
                own @ (Access::All | Access::Some | Access::Related) => {
                    access = wider(access, own);
                }
            }
        }
        (if lost.len() == self.names.len() { Access::None } else { access }, lost)
    }

    /// A page of the load of a scope, as the client is told it; `None` if the scope is lost, or the content is
    /// no such page.
    pub(crate) fn page(&self, collection: &Collection, content: Content) -> Option<ScopePage> {
        let Content::Load { scope, records, left, after, up_to, snapshot_seq } = content else {
            return None;
        };
        Some(ScopePage {
            collection: collection.clone(),
            set: self.number.unwrap_or_default(),
            scope: self.names.get(&scope)?.clone(),
            records,
            left,
            after,
            up_to,
            snapshot_seq,
        })
    }

    /// The position that forgets what the reader holds.
    pub(crate) fn reload(&self) -> Position {
        Position::reload(self.names.keys().cloned())
    }
}
