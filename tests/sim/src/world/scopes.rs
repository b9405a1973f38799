//! Collections that devices hold by scopes: what their apps use, and what they hold of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use synclayer_core::{
    Collection, CollectionStatus, Command, Document, NamedScope, ScopeStanding, Transaction,
};

use super::{Device, World};

/// The standing of each scope of a collection, as a device says; `None` of one that it holds whole.
type Standings = Option<BTreeMap<NamedScope, ScopeStanding>>;

/// The scopes that an app uses, by collections.
pub(super) type Used = BTreeMap<Collection, BTreeSet<NamedScope>>;

/// Returns `true` if a record lies in a scope.
///
/// # Panics
/// When the scope's fields can't be named in a query.
#[must_use]
pub fn lies_in(scope: &NamedScope, record: &Document) -> bool {
    scope.condition().expect("its fields can be named").matches(record)
}

/// Returns `true` if a record belongs to what is held of its collection, as far as that is loaded.
#[must_use]
pub fn is_held(status: &CollectionStatus, record: &Document) -> bool {
    let is_in = |(scope, standing): (&NamedScope, &ScopeStanding)| {
        *standing == ScopeStanding::Loaded && lies_in(scope, record)
    };
    status.scopes.as_ref().is_none_or(|set| set.iter().any(is_in))
}

impl Device {
    /// The collections that its app uses, whole or by scopes.
    #[must_use]
    pub fn collections(&self) -> Vec<Collection> {
        self.config.collections.iter().chain(self.config.scopes.keys()).cloned().collect()
    }

    /// The scopes of a collection that its app uses.
    pub fn used_scopes(&self, collection: &Collection) -> impl Iterator<Item = &NamedScope> {
        self.used.get(collection).into_iter().flatten()
    }

    /// Returns `true` if a collection may be held by scopes.
    #[must_use]
    pub fn may_hold_scopes(&self, collection: &Collection) -> bool {
        self.config.scopes.contains_key(collection)
    }

    /// The scopes with which its app starts.
    pub(super) fn start_with_scopes(&mut self) {
        let of = |(name, scopes): (&Collection, &Vec<NamedScope>)| {
            (name.clone(), scopes.iter().cloned().collect())
        };
        self.used = self.config.scopes.iter().map(of).collect();
        self.standings.clear();
    }
}

impl World {
    /// The server takes its scope keys over, as at each opening.
    pub(super) fn declare_scopes(&mut self) {
        if self.config.scopes.is_empty() {
            return;
        }
        let declare = Transaction::DeclareScopes(self.config.scopes.clone());
        let context = self.server.hub.context(self.server_clock.read(self.now));
        let decision = declare.decide(&self.store.rows, context).expect("the rows can be read");
        self.store.rows.apply(decision.batch);
    }

    /// The server builds its scopes, as sweeps do in the background.
    pub fn build_scopes(&mut self) {
        if !self.config.scopes.is_empty() {
            self.sweep(Duration::MAX, 1_000_000);
        }
    }

    /// The app of a device uses a scope, or does so no longer.
    pub fn use_scope(
        &mut self,
        device: usize,
        collection: &Collection,
        scope: &NamedScope,
        used: bool,
    ) {
        self.note(|| format!("device {device} uses {scope} of {collection}: {used}"));
        let (name, of) = (collection.clone(), scope.clone());
        let scopes = self.devices[device].used.entry(name.clone()).or_default();
        let command = match used {
            true => {
                scopes.insert(of.clone());
                Command::UseScope(name, of)
            }
            false => {
                scopes.remove(&of);
                Command::ReleaseScope(name, of)
            }
        };
        let is_unused = scopes.is_empty();
        self.count(if used { "scope used" } else { "scope released" });
        if is_unused {
            self.vouches_no_more(device, collection);
        }
        self.with(device, |replica, now, actions| replica.command(now, command, actions));
    }

    /// The app of a device keeps a scope until it says otherwise.
    pub fn keep_scope(
        &mut self,
        device: usize,
        collection: &Collection,
        scope: &NamedScope,
        kept: bool,
    ) {
        self.note(|| format!("device {device} keeps {scope} of {collection}: {kept}"));
        self.count("scope kept");
        let command = Command::KeepScope(collection.clone(), scope.clone(), kept);
        self.with(device, |replica, now, actions| replica.command(now, command, actions));
    }

    /// Returns `true` if a device holds a scope in part.
    pub fn is_loading(&self, device: usize, collection: &Collection, scope: &NamedScope) -> bool {
        let standings = self.devices[device].standings.get(collection);
        let standing = standings.and_then(|all| all.as_ref()?.get(scope));
        standing == Some(&ScopeStanding::Loading)
    }

    /// Counts what a frame or a body has of scopes.
    pub(super) fn count_said(&mut self, said: &[u8]) {
        if self.config.scopes.is_empty() {
            return;
        }
        const SIGNS: [(&str, &[&str]); 5] = [
            ("left the scopes", &[r#""reason":"scope""#]),
            ("change that names the one before it", &[r#""prev":"#]),
            ("page of a load", &[r#""type":"sync""#, r#""scope":{"#]),
            ("page with leaves", &[r#""left":[{"#]),
            ("load resumed", &[r#""by":["#, r#""resume":{"epoch":"#, r#""snapshotSeq":"#]),
        ];
        let said = String::from_utf8_lossy(said);
        for (what, signs) in SIGNS {
            if signs.iter().all(|sign| said.contains(sign)) {
                self.count(what);
            }
        }
    }

    /// Counts what has become of the scopes of a device.
    pub(super) fn count_scopes(&mut self, device: usize) {
        let names: Vec<_> = self.devices[device].config.scopes.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let mut status = self.devices[device].replica.status();
        for name in names {
            let now = status.collections.remove(&name).and_then(|of| of.scopes);
            let before = self.devices[device].standings.insert(name, now.clone());
            if let Some(before) = before.filter(|before| *before != now) {
                what_became(&before, &now).into_iter().for_each(|what| self.count(what));
            }
        }
    }
}

/// Returns what has become of the scopes of a collection, by the names of the counts.
fn what_became(before: &Standings, now: &Standings) -> Vec<&'static str> {
    use ScopeStanding::{Loaded, Loading, Refused, Waiting};
    let (before, now) = match (before, now) {
        (None, Some(_)) => return vec!["from whole to scopes"],
        (Some(_), None) => return vec!["from scopes to whole"],
        (Some(before), Some(now)) => (before, now),
        (None, None) => return Vec::new(),
    };
    let all: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let of = |scope: &&NamedScope| (before.get(*scope).copied(), now.get(*scope).copied());
    let changes = all.iter().map(of).filter_map(|change| match change {
        (Some(Waiting | Loading) | None, Some(Loaded)) => Some("scope loaded"),
        (Some(Loaded), Some(Waiting)) => Some("scope to be loaded anew"),
        (Some(Loading), Some(Waiting)) => Some("load begun anew"),
        (Some(Loaded), None) => Some("scope taken out"),
        (Some(Loading), None) => Some("scope taken out while it was loaded"),
        (Some(_) | None, Some(Refused)) => Some("scope refused"),
        (Some(Refused), Some(Waiting)) => Some("refused scope asked for again"),
        _ => None,
    });
    let joins = |(scope, place): (&NamedScope, &ScopeStanding)| {
        *place == Waiting && !before.contains_key(scope)
    };
    let beside = before.values().any(|place| *place == Loaded) && now.iter().any(joins);
    changes.chain(beside.then_some("scope beside a loaded one")).collect()
}
