//! Queries: conditions, the order, and the calls that carry a query out.

use serde::Serialize;
use synclayer_client::doc;
use synclayer_client::error::SyncError;
use synclayer_client::query::QueryHandle;
pub use synclayer_client::query::{
    Condition, Filter, all_of, any_of, array_contains, array_contains_any, contains,
    does_not_exist, ends_with, exists, field, is_equal_to, is_greater_than,
    is_greater_than_or_equal_to, is_less_than, is_less_than_or_equal_to, is_not_equal_to,
    is_not_null, is_null, not, starts_with, where_in, where_not_in,
};
use synclayer_client::query_methods;
use synclayer_client::saved::Saved;
pub use synclayer_core::Direction::{self, Ascending, Descending};
use synclayer_core::{Explanation, Record};

use crate::stream::QueryWatch;

#[doc = doc!(Query)]
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is carried out"]
pub struct Query(pub(crate) QueryHandle);

impl Query {
    query_methods!();

    #[doc = doc!(query_get)]
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
    /// use synclayer_tokio::query::{Descending, is_equal_to};
    ///
    /// let most_urgent = todos
    ///     .query()
    ///     .where_("done", is_equal_to(false))
    ///     .order_by("priority", Descending)
    ///     .limit(10)
    ///     .get().await?;
    /// assert!(most_urgent.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(self) -> Result<Vec<Record>, SyncError> {
        self.0.get().await
    }

    #[doc = doc!(query_first)]
    pub async fn first(self) -> Result<Option<Record>, SyncError> {
        self.0.first().await
    }

    #[doc = doc!(query_watch)]
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
    /// use synclayer_tokio::QueryChange;
    /// use synclayer_tokio::query::{Ascending, is_equal_to};
    ///
    /// let open = todos.query().where_("done", is_equal_to(false)).order_by("text", Ascending);
    /// let mut updates = open.limit(10).watch()?;
    /// assert!(updates.next().await.expect("the client is open").snapshot.is_empty());
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk", "done": false })).await?;
    /// let update = updates.next().await.expect("the client is open");
    /// assert!(matches!(&update.changes[..], [QueryChange::Entered { at: 0, .. }]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(self) -> Result<QueryWatch, SyncError> {
        Ok(QueryWatch(self.0.watch()?))
    }

    #[doc = doc!(query_count)]
    pub async fn count(self) -> Result<usize, SyncError> {
        self.0.count().await
    }

    #[doc = doc!(query_explain)]
    pub async fn explain(self) -> Result<Explanation, SyncError> {
        self.0.explain().await
    }

    #[doc = doc!(query_delete)]
    pub async fn delete(self) -> Result<Vec<Saved>, SyncError> {
        self.0.delete().await
    }

    #[doc = doc!(query_update)]
    pub async fn update<T: Serialize + ?Sized>(self, fields: &T) -> Result<Vec<Saved>, SyncError> {
        self.0.update(fields).await
    }
}
