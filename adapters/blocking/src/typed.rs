//! Collections, and parts of them, whose documents are values of a type.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::saved::Saved;
use synclayer_client::typed::{Typed, TypedUpdate};
use synclayer_client::wait::TimedOut;

use crate::collection::Collection;
use crate::listen::QueryWatch;
use crate::query::Query;
use crate::scope::Scope;

#[doc = doc!(CollectionOf)]
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use synclayer_blocking::{SyncConfig, SyncLayer};
/// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
/// # let sync = SyncLayer::open(config)?;
/// use std::collections::BTreeMap;
///
/// let stock = sync.collection_of::<BTreeMap<String, u32>>("stock")?;
/// stock.save_with_id("shop", &BTreeMap::from([("milk".into(), 3)]))?;
/// assert_eq!(stock.get("shop")?.expect("it was saved").value["milk"], 3);
/// # Ok(())
/// # }
/// ```
pub struct CollectionOf<T> {
    untyped: Collection,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> CollectionOf<T> {
    pub(crate) fn new(untyped: Collection) -> Self {
        Self { untyped, of: PhantomData }
    }

    #[doc = doc!(untyped)]
    #[must_use]
    pub fn untyped(&self) -> &Collection {
        &self.untyped
    }

    #[doc = doc!(save)]
    pub fn save(&self, value: &T) -> Result<Saved, SyncError> {
        self.untyped.save(value)
    }

    #[doc = doc!(save_with_id)]
    pub fn save_with_id(&self, id: &str, value: &T) -> Result<Saved, SyncError> {
        self.untyped.save_with_id(id, value)
    }

    #[doc = doc!(typed_get)]
    pub fn get(&self, id: &str) -> Result<Option<Typed<T>>, SyncError> {
        let record = self.untyped.get(id)?;
        record.map(|record| Typed::read(self.untyped.name(), record)).transpose()
    }

    #[doc = doc!(typed_get_all)]
    pub fn get_all(&self) -> Result<Vec<Typed<T>>, SyncError> {
        Typed::read_all(self.untyped.name(), self.untyped.get_all()?)
    }

    #[doc = doc!(typed_find)]
    pub fn find(&self, query: impl FnOnce(Query) -> Query) -> Result<Vec<Typed<T>>, SyncError> {
        Typed::read_all(self.untyped.name(), query(self.untyped.query()).get()?)
    }

    #[doc = doc!(typed_watch)]
    pub fn watch(&self, query: impl FnOnce(Query) -> Query) -> Result<WatchOf<T>, SyncError> {
        WatchOf::new(self.untyped.name(), query(self.untyped.query()))
    }

    #[doc = doc!(typed_scope)]
    pub fn scope<V: Serialize>(&self, field: &str, value: V) -> Result<ScopeOf<T>, SyncError> {
        self.untyped.scope(field, value).map(ScopeOf::new)
    }

    #[doc = doc!(scope_of)]
    pub fn scope_of<'a, V: Serialize>(
        &self,
        parts: impl IntoIterator<Item = (&'a str, V)>,
    ) -> Result<ScopeOf<T>, SyncError> {
        self.untyped.scope_of(parts).map(ScopeOf::new)
    }

    #[doc = doc!(held)]
    #[must_use]
    pub fn held(&self) -> ScopeOf<T> {
        ScopeOf::new(self.untyped.held())
    }
}

impl<T> Clone for CollectionOf<T> {
    fn clone(&self) -> Self {
        Self { untyped: self.untyped.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for CollectionOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CollectionOf").field(&self.untyped).finish()
    }
}

#[doc = doc!(ScopeOf)]
pub struct ScopeOf<T> {
    untyped: Scope,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> ScopeOf<T> {
    fn new(untyped: Scope) -> Self {
        Self { untyped, of: PhantomData }
    }

    #[doc = doc!(untyped)]
    #[must_use]
    pub fn untyped(&self) -> &Scope {
        &self.untyped
    }

    #[doc = doc!(save)]
    pub fn save(&self, value: &T) -> Result<Saved, SyncError> {
        self.untyped.save(value)
    }

    #[doc = doc!(save_with_id)]
    pub fn save_with_id(&self, id: &str, value: &T) -> Result<Saved, SyncError> {
        self.untyped.save_with_id(id, value)
    }

    #[doc = doc!(typed_get)]
    pub fn get(&self, id: &str) -> Result<Option<Typed<T>>, SyncError> {
        let record = self.untyped.get(id)?;
        record.map(|record| Typed::read(self.untyped.collection(), record)).transpose()
    }

    #[doc = doc!(typed_get_all)]
    pub fn get_all(&self) -> Result<Vec<Typed<T>>, SyncError> {
        Typed::read_all(self.untyped.collection(), self.untyped.get_all()?)
    }

    #[doc = doc!(typed_find)]
    pub fn find(&self, query: impl FnOnce(Query) -> Query) -> Result<Vec<Typed<T>>, SyncError> {
        Typed::read_all(self.untyped.collection(), query(self.untyped.query()).get()?)
    }

    #[doc = doc!(typed_watch)]
    pub fn watch(&self, query: impl FnOnce(Query) -> Query) -> Result<WatchOf<T>, SyncError> {
        WatchOf::new(self.untyped.collection(), query(self.untyped.query()))
    }
}

impl<T> Clone for ScopeOf<T> {
    fn clone(&self) -> Self {
        Self { untyped: self.untyped.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for ScopeOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopeOf").field(&self.untyped).finish()
    }
}

#[doc = doc!(WatchOf)]
///
/// It is an iterator that blocks until there is an update, and ends when the client does.
pub struct WatchOf<T> {
    updates: QueryWatch,
    collection: Box<str>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> WatchOf<T> {
    fn new(collection: &str, query: Query) -> Result<Self, SyncError> {
        Ok(Self { updates: query.watch()?, collection: collection.into(), of: PhantomData })
    }

    /// The next update, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Result<TypedUpdate<T>, SyncError>>, TimedOut> {
        let update = self.updates.next_timeout(timeout)?;
        Ok(update.map(|update| TypedUpdate::read(&self.collection, update)))
    }
}

impl<T: DeserializeOwned> Iterator for WatchOf<T> {
    type Item = Result<TypedUpdate<T>, SyncError>;

    fn next(&mut self) -> Option<Self::Item> {
        let update = self.updates.next()?;
        Some(TypedUpdate::read(&self.collection, update))
    }
}

impl<T> fmt::Debug for WatchOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WatchOf").field(&self.collection).finish()
    }
}
