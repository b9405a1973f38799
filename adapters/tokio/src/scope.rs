//! A part of a collection as the app holds it.

use serde::Serialize;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::saved::Saved;
use synclayer_client::scope::ScopeHandle;
use synclayer_core::{Delta, Document, Record};

use crate::query::Query;

#[doc = doc!(Scope)]
#[derive(Clone, Debug)]
pub struct Scope(pub(crate) ScopeHandle);

impl Scope {
    /// The name of the collection.
    pub(crate) fn collection(&self) -> &str {
        self.0.collection()
    }

    #[doc = doc!(save)]
    pub async fn save<T: Serialize + ?Sized>(&self, document: &T) -> Result<Saved, SyncError> {
        self.0.save(document).await
    }

    #[doc = doc!(save_with_id)]
    pub async fn save_with_id<T: Serialize + ?Sized>(
        &self,
        id: &str,
        document: &T,
    ) -> Result<Saved, SyncError> {
        self.0.save_with_id(id, document).await
    }

    #[doc = doc!(update)]
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        id: &str,
        fields: &T,
    ) -> Result<Saved, SyncError> {
        self.0.update(id, fields).await
    }

    #[doc = doc!(change)]
    pub async fn change(&self, id: &str, delta: Delta) -> Result<Saved, SyncError> {
        self.0.change(id, delta).await
    }

    #[doc = doc!(modify)]
    pub async fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        self.0.modify(id, change).await
    }

    #[doc = doc!(delete)]
    pub async fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        self.0.delete(id).await
    }

    #[doc = doc!(scope_get)]
    pub async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        self.0.get(id).await
    }

    #[doc = doc!(scope_get_all)]
    pub async fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        self.0.get_all().await
    }

    #[doc = doc!(scope_query)]
    pub fn query(&self) -> Query {
        Query(self.0.query())
    }

    #[doc = doc!(keep)]
    pub async fn keep(&self) -> Result<(), SyncError> {
        self.0.keep().await
    }

    #[doc = doc!(release)]
    pub async fn release(&self) -> Result<(), SyncError> {
        self.0.release().await
    }
}
