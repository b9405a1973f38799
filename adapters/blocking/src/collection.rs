//! A collection as the app holds it.

use serde::Serialize;
use synclayer_client::collection::CollectionHandle;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::handle::Handle;
use synclayer_client::query::QueryHandle;
use synclayer_client::saved::{Saved, SavedAll};
use synclayer_client::scope::ScopeHandle;
use synclayer_client::wait::Wait;
use synclayer_core::{Delta, Document, Record};

use crate::listen::Watch;
use crate::query::Query;
use crate::scope::Scope;

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
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// let milk = todos.save(&json!({ "text": "Buy milk", "done": false }))?;
    /// assert!(todos.get(&milk.id)?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn save<T: Serialize + ?Sized>(&self, document: &T) -> Result<Saved, SyncError> {
        self.0.save(document).wait()
    }

    #[doc = doc!(save_with_id)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" }))?;
    /// assert_eq!(todos.get_all()?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn save_with_id<T: Serialize + ?Sized>(
        &self,
        id: &str,
        document: &T,
    ) -> Result<Saved, SyncError> {
        self.0.save_with_id(id, document).wait()
    }

    #[doc = doc!(update)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk", "done": false }))?;
    /// todos.update("milk", &json!({ "done": true }))?;
    /// let milk = todos.get("milk")?.expect("it was saved");
    /// assert_eq!(milk.document.get::<bool>("done")?, Some(true));
    /// assert_eq!(milk.document.get::<String>("text")?.as_deref(), Some("Buy milk"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn update<T: Serialize + ?Sized>(&self, id: &str, fields: &T) -> Result<Saved, SyncError> {
        self.0.update(id, fields).wait()
    }

    #[doc = doc!(change)]
    pub fn change(&self, id: &str, delta: Delta) -> Result<Saved, SyncError> {
        self.0.change(id, delta).wait()
    }

    #[doc = doc!(modify)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::{Value, json};
    ///
    /// todos.save_with_id("milk", &json!({ "bottles": 1 }))?;
    /// todos
    ///     .modify("milk", |todo| {
    ///         let mut todo: Value = todo?.to().expect("a record is a JSON object");
    ///         todo["bottles"] = json!(todo["bottles"].as_u64().unwrap_or(0) + 1);
    ///         Some(todo)
    ///     })?;
    /// let milk = todos.get("milk")?.expect("it was saved");
    /// assert_eq!(milk.document.get::<u32>("bottles")?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        self.0.modify(id, change).wait()
    }

    #[doc = doc!(delete)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" }))?;
    /// todos.delete("milk")?;
    /// assert!(todos.get("milk")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        self.0.delete(id).wait()
    }

    #[doc = doc!(save_all)]
    pub fn save_all<T: Serialize>(
        &self,
        documents: impl IntoIterator<Item = T>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.save_all(documents)?;
        Ok(SavedAll::new(ids, made.wait()?))
    }

    #[doc = doc!(update_all)]
    pub fn update_all<I: AsRef<str>, T: Serialize>(
        &self,
        updates: impl IntoIterator<Item = (I, T)>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.update_all(updates)?;
        Ok(SavedAll::new(ids, made.wait()?))
    }

    #[doc = doc!(delete_all)]
    pub fn delete_all<I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.delete_all(ids)?;
        Ok(SavedAll::new(ids, made.wait()?))
    }

    #[doc = doc!(get)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::Value;
    ///
    /// if let Some(todo) = todos.get("milk")? {
    ///     let fields: Value = todo.document.to()?;
    ///     println!("{}: {}", todo.id, fields["text"]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        self.0.get(id).wait()
    }

    #[doc = doc!(get_all)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// for todo in todos.get_all()? {
    ///     println!("{}: {}", todo.id, todo.document);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        self.0.get_all().wait()
    }

    #[doc = doc!(query)]
    pub fn query(&self) -> Query {
        Query(QueryHandle::new(&self.0))
    }

    #[doc = doc!(scope)]
    pub fn scope<T: Serialize>(&self, field: &str, value: T) -> Result<Scope, SyncError> {
        self.scope_of([(field, value)])
    }

    #[doc = doc!(scope_of)]
    pub fn scope_of<'a, T: Serialize>(
        &self,
        parts: impl IntoIterator<Item = (&'a str, T)>,
    ) -> Result<Scope, SyncError> {
        Ok(Scope(ScopeHandle::new(&self.0, parts)?))
    }

    #[doc = doc!(held)]
    #[must_use]
    pub fn held(&self) -> Scope {
        Scope(ScopeHandle::held(&self.0))
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
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// let mut updates = todos.watch();
    /// let first = updates.next().expect("the client is open");
    /// assert!(first.snapshot.is_empty());
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" }))?;
    /// let update = updates.next().expect("the client is open");
    /// assert_eq!((update.snapshot.len(), update.changes.len()), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.0.watch())
    }

    #[doc = doc!(watch_record)]
    pub fn watch_record(&self, id: &str) -> Result<Watch, SyncError> {
        Ok(Watch(self.0.watch_record(id)?))
    }
}
