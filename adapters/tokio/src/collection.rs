//! A collection as the app holds it.

use serde::Serialize;
use synclayer_client::collection::CollectionHandle;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::handle::Handle;
use synclayer_client::saved::Saved;
use synclayer_core::{Delta, Document, Record};

use crate::stream::Watch;

#[doc = doc!(Collection)]
#[derive(Clone, Debug)]
pub struct Collection(CollectionHandle);

impl Collection {
    pub(crate) fn new(client: &Handle, name: &str) -> Result<Self, SyncError> {
        Ok(Self(CollectionHandle::new(client, name)?))
    }

    #[doc = doc!(name)]
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
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

    #[doc = doc!(get)]
    pub async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        self.0.get(id).await
    }

    #[doc = doc!(get_all)]
    pub async fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        self.0.get_all().await
    }

    #[doc = doc!(subscribe)]
    pub async fn subscribe(&self) -> Result<(), SyncError> {
        self.0.subscribe().await
    }

    #[doc = doc!(unsubscribe)]
    pub async fn unsubscribe(&self) -> Result<(), SyncError> {
        self.0.unsubscribe().await
    }

    #[doc = doc!(watch)]
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.0.watch())
    }

    #[doc = doc!(watch_record)]
    pub fn watch_record(&self, id: &str) -> Result<Watch, SyncError> {
        Ok(Watch(self.0.watch_record(id)?))
    }
}
