//! Queries: conditions, the order, and the calls that carry a query out.

use std::pin::pin;

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
use synclayer_client::wait::Wait;
pub use synclayer_core::Direction::{self, Ascending, Descending};
use synclayer_core::{Explanation, Record};

use crate::listen::QueryWatch;

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
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// # let todos = sync.collection("todos")?;
    /// use synclayer_blocking::query::{Descending, is_equal_to};
    ///
    /// let most_urgent = todos
    ///     .query()
    ///     .where_("done", is_equal_to(false))
    ///     .order_by("priority", Descending)
    ///     .limit(10)
    ///     .get()?;
    /// assert!(most_urgent.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get(self) -> Result<Vec<Record>, SyncError> {
        self.0.get().wait()
    }

    #[doc = doc!(query_first)]
    pub fn first(self) -> Result<Option<Record>, SyncError> {
        pin!(self.0.first()).wait()
    }

    #[doc = doc!(query_watch)]
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
    /// use synclayer_blocking::QueryChange;
    /// use synclayer_blocking::query::{Ascending, is_equal_to};
    ///
    /// let open = todos.query().where_("done", is_equal_to(false)).order_by("text", Ascending);
    /// let mut updates = open.limit(10).watch()?;
    /// assert!(updates.next().expect("the client is open").snapshot.is_empty());
    /// todos.save_with_id("milk", &json!({ "text": "Buy milk", "done": false }))?;
    /// let update = updates.next().expect("the client is open");
    /// assert!(matches!(&update.changes[..], [QueryChange::Entered { at: 0, .. }]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(self) -> Result<QueryWatch, SyncError> {
        Ok(QueryWatch(self.0.watch()?))
    }

    #[doc = doc!(query_count)]
    pub fn count(self) -> Result<usize, SyncError> {
        self.0.count().wait()
    }

    #[doc = doc!(query_explain)]
    pub fn explain(self) -> Result<Explanation, SyncError> {
        self.0.explain().wait()
    }

    #[doc = doc!(query_delete)]
    pub fn delete(self) -> Result<Vec<Saved>, SyncError> {
        pin!(self.0.delete()).wait()
    }

    #[doc = doc!(query_update)]
    pub fn update<T: Serialize + ?Sized>(self, fields: &T) -> Result<Vec<Saved>, SyncError> {
        pin!(self.0.update(fields)).wait()
    }
}
