//! A collection as the app holds it.

use serde::Serialize;
use synclayer_client::collection::CollectionHandle;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::handle::Handle;
use synclayer_client::saved::Saved;
use synclayer_client::wait::Wait;
use synclayer_core::{Delta, Document, Record};

use crate::listen::Watch;

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
    pub fn save<T: Serialize + ?Sized>(&self, document: &T) -> Result<Saved, SyncError> {
        self.0.save(document).wait()
    }

    #[doc = doc!(save_with_id)]
    pub fn save_with_id<T: Serialize + ?Sized>(
        &self,
        id: &str,
        document: &T,
    ) -> Result<Saved, SyncError> {
        self.0.save_with_id(id, document).wait()
    }

    #[doc = doc!(update)]
    pub fn update<T: Serialize + ?Sized>(&self, id: &str, fields: &T) -> Result<Saved, SyncError> {
        self.0.update(id, fields).wait()
    }

    #[doc = doc!(change)]
    pub fn change(&self, id: &str, delta: Delta) -> Result<Saved, SyncError> {
        self.0.change(id, delta).wait()
    }

    #[doc = doc!(modify)]
    pub fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        self.0.modify(id, change).wait()
    }

    #[doc = doc!(delete)]
    pub fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        self.0.delete(id).wait()
    }

    #[doc = doc!(get)]
    pub fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        self.0.get(id).wait()
    }

    #[doc = doc!(get_all)]
    pub fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        self.0.get_all().wait()
    }

    #[doc = doc!(subscribe)]
    pub fn subscribe(&self) -> Result<(), SyncError> {
        self.0.subscribe().wait()
    }

    #[doc = doc!(unsubscribe)]
    pub fn unsubscribe(&self) -> Result<(), SyncError> {
        self.0.unsubscribe().wait()
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
