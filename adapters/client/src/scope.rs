//! Parts of a collection: its scopes, and what is held of it, as both faces hold them.

use std::fmt;

use serde::Serialize;
use synclayer_core::{Delta, Document, Misuse, NamedScope, QueryError, Record};

use crate::collection::CollectionHandle;
use crate::error::SyncError;
use crate::pending::Pending;
use crate::query::QueryHandle;
use crate::saved::Saved;

/// A part of a collection: a scope, or all that is held of it. Its calls don't make the whole
/// collection join those that are kept in sync.
///
/// The faces document the calls: see [`doc!`](crate::doc).
#[derive(Clone)]
pub struct ScopeHandle {
    part: CollectionHandle,
    scope: Option<NamedScope>,
}

impl ScopeHandle {
    /// The scope of a collection with these values, and its use by this handle and its clones.
    ///
    /// # Errors
    /// When the parts can't be a scope key, or no record can have the values.
    pub fn new<'a, T: Serialize>(
        collection: &CollectionHandle,
        parts: impl IntoIterator<Item = (&'a str, T)>,
    ) -> Result<Self, SyncError> {
        let scope = named(parts).map_err(|error| SyncError::Misuse(Misuse::Query(error)))?;
        let part = collection.part(Some(&scope));
        Ok(Self { part, scope: Some(scope) })
    }

    /// All that is held of a collection, whatever that is.
    #[must_use]
    pub fn held(collection: &CollectionHandle) -> Self {
        Self { part: collection.part(None), scope: None }
    }

    /// The name of the collection.
    #[must_use]
    pub fn collection(&self) -> &str {
        self.part.name()
    }

    /// Saves a new record.
    pub fn save<T: Serialize + ?Sized>(&self, document: &T) -> Pending<Saved> {
        self.part.save(document)
    }

    /// Saves a record under an id.
    pub fn save_with_id<T: Serialize + ?Sized>(&self, id: &str, document: &T) -> Pending<Saved> {
        self.part.save_with_id(id, document)
    }

    /// Sets some fields of a record.
    pub fn update<T: Serialize + ?Sized>(&self, id: &str, fields: &T) -> Pending<Saved> {
        self.part.update(id, fields)
    }

    /// Sets and removes some fields of a record.
    pub fn change(&self, id: &str, delta: Delta) -> Pending<Saved> {
        self.part.change(id, delta)
    }

    /// Changes a record by what it is.
    pub fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Pending<Saved> {
        self.part.modify(id, change)
    }

    /// Deletes a record.
    pub fn delete(&self, id: &str) -> Pending<Saved> {
        self.part.delete(id)
    }

    /// Reads a record, if it is in the part.
    ///
    /// # Errors
    /// As of a read.
    pub async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        let record = self.part.get(id).await?;
        let Some(scope) = &self.scope else { return Ok(record) };
        let is_in = scope.condition().map_err(|error| SyncError::Misuse(Misuse::Query(error)))?;
        Ok(record.filter(|record| is_in.matches(&record.document)))
    }

    /// Reads all records of the part.
    pub fn get_all(&self) -> Pending<Vec<Record>> {
        self.query().get()
    }

    /// The query of all records of the part.
    pub fn query(&self) -> QueryHandle {
        match &self.scope {
            Some(scope) => QueryHandle::of_scope(&self.part, scope),
            None => QueryHandle::new(&self.part),
        }
    }

    /// Keeps the scope in sync until [`release`](Self::release), whatever uses it.
    pub fn keep(&self) -> Pending<()> {
        self.set_kept(true)
    }

    /// Keeps the scope no longer than something uses it.
    pub fn release(&self) -> Pending<()> {
        self.set_kept(false)
    }

    fn set_kept(&self, kept: bool) -> Pending<()> {
        match &self.scope {
            Some(scope) => self.part.keep_scope(scope.clone(), kept),
            None => Pending::answered(Ok(())),
        }
    }
}

impl fmt::Debug for ScopeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeHandle").field("of", &self.part).field("scope", &self.scope).finish()
    }
}

/// The scope with these values.
///
/// # Errors
/// When the parts can't be a scope key, or no record can have the values.
pub fn named<'a, T: Serialize>(
    parts: impl IntoIterator<Item = (&'a str, T)>,
) -> Result<NamedScope, QueryError> {
    let json = |(part, value): (&'a str, T)| match serde_json::to_string(&value) {
        Ok(json) => Ok((part, json)),
        Err(error) => Err(QueryError {
            message: format!("the value of {part:?} can't be written as JSON: {error}"),
        }),
    };
    let parts = parts.into_iter().map(json).collect::<Result<Vec<_>, _>>()?;
    NamedScope::new(parts.iter().map(|(part, json)| (*part, json.as_str())))
}
