//! The part of a collection that a command is about: the whole, or some scopes of it.

use std::collections::BTreeMap;

use serde::Serialize;
use synclayer_core::Predicate;
use synclayer_tokio::{
    Collection, Delta, Document, Query, Record, Saved, Scope, ScopeStanding, Status, SyncError,
};

use crate::args::ScopeArgs;
use crate::failure::{Code, Failure};
use crate::replica::OpenReplica;

/// A part of a collection, in use for as long as this is there.
pub(crate) enum Part {
    Whole(Collection),
    Scopes {
        held: Scope,
        /// The condition that the records of one of the scopes meet.
        condition: Predicate,
        _used: Vec<Scope>,
    },
}

impl Part {
    /// The scopes that the command names, or else the whole collection.
    pub(crate) fn of(
        replica: &OpenReplica,
        collection: &str,
        args: &ScopeArgs,
    ) -> Result<Self, Failure> {
        let collection = replica.collection(collection)?;
        if args.scopes.is_empty() {
            return Ok(Self::Whole(collection));
        }
        let unusable = |error: &dyn std::error::Error| Failure::new(Code::Usage, error.to_string());
        let conditions: Result<Vec<_>, _> =
            args.scopes.iter().map(|scope| scope.named.condition()).collect();
        let conditions = conditions.map_err(|error| unusable(&error))?;
        let condition = Predicate::any(conditions).map_err(|error| unusable(&error))?;
        let used = args.scopes.iter().map(|scope| {
            collection.scope_of(scope.parts.iter().map(|(part, json)| (part.as_str(), json)))
        });
        let used = used.collect::<Result<_, SyncError>>()?;
        Ok(Self::Scopes { held: collection.held(), condition, _used: used })
    }

    /// Lets the whole collection join those that are kept in sync. Scopes have joined by their use.
    pub(crate) async fn subscribe(&self) -> Result<(), SyncError> {
        match self {
            Self::Whole(collection) => collection.subscribe().await,
            Self::Scopes { .. } => Ok(()),
        }
    }

    pub(crate) async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        match self {
            Self::Whole(collection) => collection.get(id).await,
            Self::Scopes { held, condition, .. } => {
                Ok(held.get(id).await?.filter(|record| condition.matches(&record.document)))
            }
        }
    }

    pub(crate) async fn lacks(&self, id: &str) -> Result<bool, SyncError> {
        Ok(self.get(id).await?.is_none())
    }

    pub(crate) fn query(&self) -> Query {
        match self {
            Self::Whole(collection) => collection.query(),
            Self::Scopes { held, condition, .. } => held.query().filter(condition.clone()),
        }
    }

    pub(crate) async fn change(&self, id: &str, delta: Delta) -> Result<Saved, SyncError> {
        match self {
            Self::Whole(collection) => collection.change(id, delta).await,
            Self::Scopes { held, .. } => held.change(id, delta).await,
        }
    }

    pub(crate) async fn modify(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<Document> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        match self {
            Self::Whole(collection) => collection.modify(id, change).await,
            Self::Scopes { held, .. } => held.modify(id, change).await,
        }
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        match self {
            Self::Whole(collection) => collection.delete(id).await,
            Self::Scopes { held, .. } => held.delete(id).await,
        }
    }

    pub(crate) async fn save(
        &self,
        id: Option<&str>,
        document: &Document,
    ) -> Result<Saved, SyncError> {
        match (self, id) {
            (Self::Whole(collection), None) => collection.save(document).await,
            (Self::Whole(collection), Some(id)) => collection.save_with_id(id, document).await,
            (Self::Scopes { held, .. }, None) => held.save(document).await,
            (Self::Scopes { held, .. }, Some(id)) => held.save_with_id(id, document).await,
        }
    }
}

/// A scope that is held, or that the server refuses, with the number of its records that are here.
#[derive(Serialize)]
pub(crate) struct HeldScope {
    pub(crate) scope: String,
    pub(crate) standing: &'static str,
    pub(crate) count: usize,
}

/// The scopes by which collections are held.
pub(crate) async fn held_scopes(
    replica: &OpenReplica,
    status: &Status,
) -> Result<BTreeMap<String, Vec<HeldScope>>, Failure> {
    let mut all = BTreeMap::new();
    for (name, of) in &status.collections {
        let Some(scopes) = &of.scopes else { continue };
        let held = replica.collection(name)?.held();
        let mut of_collection = Vec::with_capacity(scopes.len());
        for (scope, standing) in scopes {
            let count = held.query().filter(scope.condition()).count().await?;
            let standing = standing_of(*standing);
            of_collection.push(HeldScope { scope: scope.to_string(), standing, count });
        }
        all.insert(name.to_string(), of_collection);
    }
    Ok(all)
}

fn standing_of(standing: ScopeStanding) -> &'static str {
    match standing {
        ScopeStanding::Loaded => "loaded",
        ScopeStanding::Loading => "loading",
        ScopeStanding::Waiting => "waiting",
        ScopeStanding::Refused => "refused",
    }
}
