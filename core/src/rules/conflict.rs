//! Conflicts: two sides changed one record, and a strategy decides its next state.
//!
//! Every decision is three-way. A field that only one side changed is never lost. A strategy
//! decides which side wins a field that *both* sides changed, and an edit against a delete.
//! Ready-made resolvers that combine both sides' values are in [`merge`](super::merge).

use core::fmt;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::protocol::delta::zip_fields;
use crate::protocol::document::{Document, Fields};
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Timestamp;

/// A conflict to be decided: three states of one record, `None` where it is missing or deleted.
#[derive(Clone, Copy, Debug)]
pub struct Conflict<'a> {
    /// The collection of the record.
    pub collection: &'a Collection,
    /// The record.
    pub record_id: &'a RecordId,
    /// The server's state on which the pending writes stand.
    pub base: Option<&'a Document>,
    /// The state that the app sees here: the base with the pending writes applied.
    pub local: Option<&'a Document>,
    /// The server's newest state.
    pub remote: Option<&'a Document>,
    /// The time of the latest pending write.
    pub local_at: Timestamp,
    /// The time of the latest remote change; [`Timestamp::MAX`] for a deletion of unknown time.
    pub remote_at: Timestamp,
    /// The fields whose time differs from `local_at`, sorted by name.
    pub local_field_at: &'a [(Box<str>, Timestamp)],
    /// The fields whose time differs from `remote_at`, sorted by name.
    pub remote_field_at: &'a [(Box<str>, Timestamp)],
}

impl<'a> Conflict<'a> {
    /// The three-way merge in which one side wins the fields that both sides changed.
    ///
    /// A field that only one side changed is kept as that side has it. If one side deleted the
    /// record, the winner's state is taken whole.
    #[must_use]
    pub fn merge(&self, local_wins: bool) -> Option<Document> {
        self.merge_by(local_wins, |_| local_wins)
    }

    /// The three-way merge in which, of each field that both sides changed, the later write wins,
    /// by the times of that field. The server wins a tie.
    ///
    /// If one side deleted the record, its deletion is compared with the latest change of the other
    /// side, and the winner's state is taken whole.
    #[must_use]
    pub(crate) fn merge_later(&self) -> Option<Document> {
        let is_later = |field: &str| self.local_at(field) > self.remote_at(field);
        self.merge_by(self.local_is_later(), is_later)
    }

    /// The merge in which `local_wins` decides the winner of a field that both sides changed, and
    /// `whole` the winner if one side deleted the record.
    fn merge_by(&self, whole: bool, local_wins: impl Fn(&str) -> bool) -> Option<Document> {
        let winner = if whole { self.local } else { self.remote };
        if self.local.is_none() || self.remote.is_none() {
            return winner.cloned();
        }
        let keeps_local = |field: &FieldStates<'_>| {
            field.changed_locally() && (!field.changed_remotely() || local_wins(field.name))
        };
        let fields: Vec<_> = self
            .fields()
            .map(|field| (field.name, if keeps_local(&field) { field.local } else { field.remote }))
            .filter_map(|(name, text)| Some((name, text?)))
            .collect();
        Some(Document::of_sorted(&fields))
    }

    /// Returns `true` if the local side's last change is later, over all fields. The server wins a
    /// tie.
    #[must_use]
    pub fn local_is_later(&self) -> bool {
        self.local_at > self.remote_at
    }

    /// The time of the last local change of a field. Meaningful only if the field was changed
    /// locally.
    #[must_use]
    pub(crate) fn local_at(&self, field: &str) -> Timestamp {
        at(self.local_field_at, field).unwrap_or(self.local_at)
    }

    /// The time of the last remote change of a field. Meaningful only if the field was changed
    /// remotely.
    #[must_use]
    pub(crate) fn remote_at(&self, field: &str) -> Timestamp {
        at(self.remote_field_at, field).unwrap_or(self.remote_at)
    }

    /// Every field that the local or the remote state has, in order of the names. A missing state
    /// counts as one without fields.
    pub fn fields(&self) -> impl Iterator<Item = FieldStates<'a>> + use<'a> {
        let mut bases = fields_of(self.base).peekable();
        zip_fields(fields_of(self.local), fields_of(self.remote)).map(
            move |(name, local, remote)| {
                while bases.next_if(|(base, _)| *base < name).is_some() {}
                let base = bases.next_if(|(base, _)| *base == name).map(|(_, text)| text);
                FieldStates { name, base, local, remote }
            },
        )
    }
}

/// One field in the three states of a record: JSON texts, `None` where the field is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldStates<'a> {
    /// The field.
    pub name: &'a str,
    /// Its value in the base.
    pub base: Option<&'a str>,
    /// Its value here.
    pub local: Option<&'a str>,
    /// Its value at the server.
    pub remote: Option<&'a str>,
}

impl FieldStates<'_> {
    /// Returns `true` if the local value differs from the base.
    #[must_use]
    pub(crate) fn changed_locally(&self) -> bool {
        self.local != self.base
    }

    /// Returns `true` if the remote value differs from the base.
    #[must_use]
    pub(crate) fn changed_remotely(&self) -> bool {
        self.remote != self.base
    }

    /// Returns `true` if both sides changed the field, and to different values.
    #[must_use]
    pub(crate) fn is_contested(&self) -> bool {
        self.changed_locally() && self.changed_remotely() && self.local != self.remote
    }
}

/// A conflict resolver of the app.
///
/// A resolver is total, fast and deterministic: it answers every conflict, also one in which a side
/// deleted the record, does no I/O, and gives equal answers to equal conflicts. Its result is sent
/// to the server; `None` deletes the record.
///
/// Closures are resolvers:
///
/// ```
/// use synclayer_core::{Conflict, ConflictStrategy};
///
/// // An edit always wins over a delete.
/// let strategy = ConflictStrategy::custom(|conflict: &Conflict<'_>| {
///     conflict.merge(conflict.remote.is_none() || conflict.local_is_later() && conflict.local.is_some())
/// });
/// ```
///
/// Check a resolver in a test with [`Laws`](crate::testing::Laws):
///
/// ```
/// use synclayer_core::Conflict;
/// use synclayer_core::testing::{Broken, Law, Laws};
///
/// let resolver = |conflict: &Conflict<'_>| conflict.merge(conflict.remote.is_none());
/// Laws::default().check(&resolver)?;
///
/// let hasty = |conflict: &Conflict<'_>| conflict.local.cloned();
/// assert_eq!(Laws::default().check(&hasty).unwrap_err().law, Law::KeepsOneSided);
/// # Ok::<(), Broken>(())
/// ```
pub trait Resolver: Send + Sync {
    /// The next state of the record; `None` deletes it.
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document>;

    /// As [`resolve`](Self::resolve), for a resolver that may fail. The client calls this method.
    /// If it fails, the client emits
    /// [`ResolverFailed`](crate::client::event::EventKind::ResolverFailed) and decides by
    /// last-write-wins.
    ///
    /// # Errors
    /// By default never.
    fn try_resolve(&self, conflict: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        Ok(self.resolve(conflict))
    }
}

/// The failure of a resolver to decide a conflict.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ResolverFailure {
    /// The reason, for people.
    pub reason: String,
}

impl<F: Fn(&Conflict<'_>) -> Option<Document> + Send + Sync> Resolver for F {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        self(conflict)
    }
}

/// The rule that decides the winner of a field that both sides changed, and of an edit against a
/// delete.
#[derive(Clone, Default)]
pub enum ConflictStrategy {
    /// The later write of each field wins; if one side deleted the record, the side with the later
    /// change. The server wins a tie.
    #[default]
    LastWriteWins,
    /// The server wins.
    ServerWins,
    /// This client wins.
    ClientWins,
    /// A resolver decides.
    Custom(Arc<dyn Resolver>),
}

impl ConflictStrategy {
    /// The strategy that calls a resolver.
    pub fn custom(resolver: impl Resolver + 'static) -> Self {
        Self::Custom(Arc::new(resolver))
    }

    /// The next state of the record; `None` deletes it.
    #[must_use]
    pub(crate) fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        match self {
            Self::LastWriteWins => conflict.merge_later(),
            Self::ServerWins => conflict.merge(false),
            Self::ClientWins => conflict.merge(true),
            Self::Custom(resolver) => resolver.resolve(conflict),
        }
    }

    /// As [`resolve`](Self::resolve), with the failure of a resolver that may fail.
    ///
    /// # Errors
    /// When a resolver fails.
    pub(crate) fn try_resolve(
        &self,
        conflict: &Conflict<'_>,
    ) -> Result<Option<Document>, ResolverFailure> {
        match self {
            Self::LastWriteWins | Self::ServerWins | Self::ClientWins => Ok(self.resolve(conflict)),
            Self::Custom(resolver) => resolver.try_resolve(conflict),
        }
    }
}

impl Resolver for ConflictStrategy {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        self.resolve(conflict)
    }

    fn try_resolve(&self, conflict: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        self.try_resolve(conflict)
    }
}

impl fmt::Debug for ConflictStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LastWriteWins => "LastWriteWins",
            Self::ServerWins => "ServerWins",
            Self::ClientWins => "ClientWins",
            Self::Custom(_) => "Custom(..)",
        })
    }
}

fn at(times: &[(Box<str>, Timestamp)], field: &str) -> Option<Timestamp> {
    let i = times.binary_search_by(|(name, _)| (**name).cmp(field)).ok()?;
    Some(times[i].1)
}

fn fields_of(document: Option<&Document>) -> Fields<'_> {
    document.map_or_else(Fields::default, Document::fields)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::document::tests::documents;
    use crate::protocol::limits::Limits;
    use crate::rules::merge::FieldWise;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    /// The owned parts of a conflict, so that tests can make them up.
    #[derive(Clone, Debug)]
    pub(crate) struct Case {
        pub(crate) base: Option<Document>,
        pub(crate) local: Option<Document>,
        pub(crate) remote: Option<Document>,
        pub(crate) local_at: i64,
        pub(crate) remote_at: i64,
        pub(crate) local_field_at: Vec<(Box<str>, Timestamp)>,
        pub(crate) remote_field_at: Vec<(Box<str>, Timestamp)>,
    }

    impl Case {
        /// A conflict in which the server wins a tie.
        pub(crate) fn new(base: &str, local: &str, remote: &str) -> Self {
            let state = |json| Document::parse(json, &Limits::default()).ok();
            Self {
                base: state(base),
                local: state(local),
                remote: state(remote),
                local_at: 1,
                remote_at: 1,
                local_field_at: Vec::new(),
                remote_field_at: Vec::new(),
            }
        }

        pub(crate) fn at(self, local_at: i64, remote_at: i64) -> Self {
            Self { local_at, remote_at, ..self }
        }

        pub(crate) fn ask(&self, resolver: &dyn Resolver) -> Option<Document> {
            let collection = Collection::new("c").unwrap();
            let record_id = RecordId::new("r").unwrap();
            resolver.resolve(&Conflict {
                collection: &collection,
                record_id: &record_id,
                base: self.base.as_ref(),
                local: self.local.as_ref(),
                remote: self.remote.as_ref(),
                local_at: Timestamp(self.local_at),
                remote_at: Timestamp(self.remote_at),
                local_field_at: &self.local_field_at,
                remote_field_at: &self.remote_field_at,
            })
        }

        pub(crate) fn text(&self, resolver: &dyn Resolver) -> alloc::string::String {
            self.ask(resolver).map_or("deleted".to_string(), |document| document.to_string())
        }
    }

    pub(crate) fn cases(
        documents: impl Strategy<Value = Document> + 'static,
    ) -> impl Strategy<Value = Case> {
        let state = proptest::option::weighted(0.9, documents).boxed();
        let times = || {
            proptest::collection::btree_map("[a-e]", 0..4i64, 0..3).prop_map(|times| {
                times.into_iter().map(|(name, at)| (name.into(), Timestamp(at))).collect()
            })
        };
        (state.clone(), state.clone(), state, 0..4i64, 0..4i64, (times(), times())).prop_map(
            |(base, local, remote, local_at, remote_at, (local_field_at, remote_field_at))| Case {
                base,
                local,
                remote,
                local_at,
                remote_at,
                local_field_at,
                remote_field_at,
            },
        )
    }

    /// Checks the laws of every resolver of this crate in a conflict.
    pub(crate) fn check_laws(case: &Case, resolver: &dyn Resolver) -> Result<(), TestCaseError> {
        let result = case.ask(resolver);
        prop_assert_eq!(&case.ask(resolver), &result, "deterministic");
        let again = Case { base: case.remote.clone(), local: result.clone(), ..case.clone() };
        prop_assert_eq!(&again.ask(resolver), &result, "idempotent");
        let (Some(local), Some(remote)) = (&case.local, &case.remote) else { return Ok(()) };
        let result = result.expect("two edits give a record");
        let base = case.base.clone().unwrap_or_default();
        for name in ["a", "b", "c", "d", "e"] {
            let (b, l, r) = (base.text(name), local.text(name), remote.text(name));
            if b == l {
                prop_assert_eq!(result.text(name), r, "{}: changed remotely at most", name);
            } else if b == r || l == r {
                prop_assert_eq!(result.text(name), l, "{}: changed locally, or alike", name);
            }
        }
        Ok(())
    }

    const STRATEGIES: [ConflictStrategy; 3] = [
        ConflictStrategy::LastWriteWins,
        ConflictStrategy::ServerWins,
        ConflictStrategy::ClientWins,
    ];

    proptest! {
        #[test]
        fn the_strategies_keep_the_laws(case in cases(documents())) {
            for strategy in STRATEGIES {
                check_laws(&case, &strategy)?;
            }
        }

        #[test]
        fn the_winner_has_its_way(case in cases(documents())) {
            let case = Case { local_field_at: vec![], remote_field_at: vec![], ..case };
            let (local, remote) = (case.clone().at(2, 1), case.clone().at(1, 2));
            let lww = ConflictStrategy::LastWriteWins;
            prop_assert_eq!(local.ask(&lww), case.ask(&ConflictStrategy::ClientWins));
            prop_assert_eq!(remote.ask(&lww), case.ask(&ConflictStrategy::ServerWins));
        }
    }

    #[test]
    fn a_field_goes_to_the_side_that_changed_it_else_to_the_winner() {
        let case = Case::new(
            r#"{"a":0,"b":0,"c":0,"gone":0}"#,
            r#"{"a":1,"b":1,"c":0,"l":1}"#,
            r#"{"a":2,"b":0,"c":2,"gone":0,"r":2}"#,
        );
        let [lww, server, client] = STRATEGIES;
        let (remote, local) =
            (r#"{"a":2,"b":1,"c":2,"l":1,"r":2}"#, r#"{"a":1,"b":1,"c":2,"l":1,"r":2}"#);
        assert_eq!(case.text(&server), remote);
        assert_eq!(case.text(&client), local);
        assert_eq!(case.text(&lww), remote, "the server wins a tie");
        assert_eq!(case.at(2, 1).text(&lww), local);
    }

    #[test]
    fn an_edit_against_a_delete_goes_to_the_winner() {
        let [lww, server, client] = STRATEGIES;
        let (edit, deleted) = (r#"{"a":1}"#, "deleted");
        let deleted_there = Case::new(r#"{"a":0}"#, edit, "");
        assert_eq!(deleted_there.text(&server), deleted);
        assert_eq!(deleted_there.text(&client), edit);
        assert_eq!(deleted_there.text(&lww), deleted);
        assert_eq!(deleted_there.at(2, 1).text(&lww), edit);
        let deleted_here = Case::new(r#"{"a":0}"#, "", edit);
        assert_eq!(deleted_here.text(&server), edit);
        assert_eq!(deleted_here.text(&client), deleted);
        assert_eq!(deleted_here.text(&lww), edit);
        assert_eq!(deleted_here.at(2, 1).text(&lww), deleted);
    }

    #[test]
    fn the_later_write_of_each_field_wins() {
        let at = |name: &str, at| vec![(name.into(), Timestamp(at))];
        let base = r#"{"x":0,"y":0}"#;
        let case = Case::new(base, r#"{"x":1,"y":1}"#, r#"{"x":2,"y":0}"#);
        // x was written here long before there, and y after that
        let case = Case { local_field_at: at("x", 3), ..case.at(9, 5) };
        let [lww, server, _] = STRATEGIES;
        assert_eq!(case.text(&lww), r#"{"x":2,"y":1}"#);
        assert_eq!(case.text(&lww), case.text(&server));
        // and the other way round: the server's x is older than its latest change
        let case = Case::new(base, r#"{"x":1,"y":0}"#, r#"{"x":2,"y":2}"#);
        let case = Case { remote_field_at: at("x", 3), ..case.at(5, 9) };
        assert_eq!(case.text(&lww), r#"{"x":1,"y":2}"#);
    }

    #[test]
    fn a_deletion_is_compared_with_the_latest_change_of_any_field() {
        let [lww, ..] = STRATEGIES;
        let case = Case::new(r#"{"x":0,"y":0}"#, r#"{"x":1,"y":1}"#, "");
        let case = Case { local_field_at: vec![("x".into(), Timestamp(3))], ..case };
        assert_eq!(case.clone().at(9, 5).text(&lww), r#"{"x":1,"y":1}"#);
        assert_eq!(case.clone().at(9, 9).text(&lww), "deleted", "the server wins a tie");
        assert_eq!(case.at(9, Timestamp::MAX.0).text(&lww), "deleted", "nobody knows when");
    }

    #[test]
    fn a_resolver_may_say_that_it_has_failed() {
        struct Fails;
        impl Resolver for Fails {
            fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
                conflict.merge_later()
            }
            fn try_resolve(&self, _: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
                Err(ResolverFailure { reason: "no idea".into() })
            }
        }
        let collection = Collection::new("c").unwrap();
        let record_id = RecordId::new("r").unwrap();
        let conflict = Conflict {
            collection: &collection,
            record_id: &record_id,
            base: None,
            local: None,
            remote: None,
            local_at: Timestamp(1),
            remote_at: Timestamp(1),
            local_field_at: &[],
            remote_field_at: &[],
        };
        let failure = Err(ResolverFailure { reason: "no idea".into() });
        assert_eq!(ConflictStrategy::custom(Fails).try_resolve(&conflict), failure);
        let behind = FieldWise::sum_numbers().or_else(ConflictStrategy::custom(Fails));
        assert_eq!(behind.try_resolve(&conflict), failure, "also behind a ready-made one");
        assert_eq!(ConflictStrategy::ServerWins.try_resolve(&conflict), Ok(None));
        let closure = ConflictStrategy::custom(|_: &Conflict<'_>| None);
        assert_eq!(closure.try_resolve(&conflict), Ok(None));
    }

    #[test]
    fn two_inserts_are_merged() {
        let case = Case::new("", r#"{"a":1,"l":1}"#, r#"{"a":2,"r":2}"#).at(2, 1);
        assert_eq!(case.text(&ConflictStrategy::LastWriteWins), r#"{"a":1,"l":1,"r":2}"#);
    }

    #[test]
    fn closures_are_resolvers() {
        let strategy = ConflictStrategy::custom(|_: &Conflict<'_>| None);
        assert_eq!(Case::new("{}", "{}", "{}").text(&strategy), "deleted");
        let strategy = ConflictStrategy::custom(|conflict: &Conflict<'_>| conflict.local.cloned());
        assert_eq!(Case::new("{}", r#"{"a":1}"#, "{}").text(&strategy), r#"{"a":1}"#);
        assert_eq!(alloc::format!("{strategy:?}"), "Custom(..)");
    }
}
