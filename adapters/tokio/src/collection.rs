//! A collection as the app holds it.

use serde::Serialize;
use synclayer_client::collection::CollectionHandle;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::handle::Handle;
use synclayer_client::query::QueryHandle;
use synclayer_client::saved::{Saved, SavedAll};
use synclayer_client::scope::ScopeHandle;
use synclayer_core::{Delta, Document, Record};

use crate::query::Query;
use crate::scope::Scope;
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
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// let milk = todos.save(&json!({ "text": "Buy milk", "done": false })).await?;
    /// assert!(todos.get(&milk.id).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn save<T: Serialize + ?Sized>(&self, document: &T) -> Result<Saved, SyncError> {
        self.0.save(document).await
    }

    #[doc = doc!(save_with_id)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" })).await?;
    /// assert_eq!(todos.get_all().await?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn save_with_id<T: Serialize + ?Sized>(
        &self,
        id: &str,
        document: &T,
    ) -> Result<Saved, SyncError> {
        self.0.save_with_id(id, document).await
    }

    #[doc = doc!(update)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk", "done": false })).await?;
    /// todos.update("milk", &json!({ "done": true })).await?;
    /// let milk = todos.get("milk").await?.expect("it was saved");
    /// assert_eq!(milk.document.get::<bool>("done")?, Some(true));
    /// assert_eq!(milk.document.get::<String>("text")?.as_deref(), Some("Buy milk"));
    /// # Ok(())
    /// # }
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::{Value, json};
    ///
    /// todos.save_with_id("milk", &json!({ "bottles": 1 })).await?;
    /// todos
    ///     .modify("milk", |todo| {
    ///         let mut todo: Value = todo?.to().expect("a record is a JSON object");
    ///         todo["bottles"] = json!(todo["bottles"].as_u64().unwrap_or(0) + 1);
    ///         Some(todo)
    ///     })
    ///     .await?;
    /// let milk = todos.get("milk").await?.expect("it was saved");
    /// assert_eq!(milk.document.get::<u32>("bottles")?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        self.0.modify(id, change).await
    }

    #[doc = doc!(delete)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" })).await?;
    /// todos.delete("milk").await?;
    /// assert!(todos.get("milk").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        self.0.delete(id).await
    }

    #[doc = doc!(save_all)]
    pub async fn save_all<T: Serialize>(
        &self,
        documents: impl IntoIterator<Item = T>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.save_all(documents)?;
        Ok(SavedAll::new(ids, made.await?))
    }

    #[doc = doc!(update_all)]
    pub async fn update_all<I: AsRef<str>, T: Serialize>(
        &self,
        updates: impl IntoIterator<Item = (I, T)>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.update_all(updates)?;
        Ok(SavedAll::new(ids, made.await?))
    }

    #[doc = doc!(delete_all)]
    pub async fn delete_all<I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<SavedAll, SyncError> {
        let (ids, made) = self.0.delete_all(ids)?;
        Ok(SavedAll::new(ids, made.await?))
    }

    #[doc = doc!(get)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::Value;
    ///
    /// if let Some(todo) = todos.get("milk").await? {
    ///     let fields: Value = todo.document.to()?;
    ///     println!("{}: {}", todo.id, fields["text"]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        self.0.get(id).await
    }

    #[doc = doc!(get_all)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// for todo in todos.get_all().await? {
    ///     println!("{}: {}", todo.id, todo.document);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        self.0.get_all().await
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
    pub async fn subscribe(&self) -> Result<(), SyncError> {
        self.0.subscribe().await
    }

    #[doc = doc!(unsubscribe)]
    pub async fn unsubscribe(&self) -> Result<(), SyncError> {
        self.0.unsubscribe().await
    }

    #[doc = doc!(watch)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// # let todos = sync.collection("todos")?;
    /// use serde_json::json;
    ///
    /// let mut updates = todos.watch();
    /// let first = updates.next().await.expect("the client is open");
    /// assert!(first.snapshot.is_empty());
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk" })).await?;
    /// let update = updates.next().await.expect("the client is open");
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
