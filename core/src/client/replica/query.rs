//! The queries of the app: carried out at once, or watched.

use alloc::vec::Vec;

use super::{Action, Replica, WatchId};
use crate::client::interface::Misuse;
use crate::protocol::name::{Collection, RecordId};
use crate::rules::query::{Explanation, LiveQuery, Query, QueryUpdate};
use crate::rules::scope::NamedScope;
use crate::rules::view::Record;
use crate::store::{ClientStore, StoreError};

impl<S: ClientStore> Replica<S> {
    /// The records that a query returns, in its order, as the app sees them. It reads what an
    /// [index](crate::ClientConfig::indexes) finds, or else the collection once, and keeps no more than
    /// offset and limit of the query together.
    ///
    /// # Errors
    /// When the query can't be carried out, or the store can't be read.
    pub fn query(&self, collection: &Collection, query: &Query) -> Result<Vec<Record>, Misuse> {
        self.client.query(collection, query, &self.rows())
    }

    /// Carries a query out, and says how: by which index, and how many records were read.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn explain(&self, collection: &Collection, query: &Query) -> Result<Explanation, Misuse> {
        Ok(self.client.carry_out_query(collection, query, &self.rows())?.1)
    }

    /// The number of the records that a query returns.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn count(&self, collection: &Collection, query: &Query) -> Result<usize, Misuse> {
        self.client.count(collection, query, &self.rows())
    }

    /// Watches a query: there is an update to [take](Self::take_query) at once, and again after every
    /// commit that changes its result. It reads the collection whole; afterwards it keeps the places of
    /// the records that meet the condition, and the documents of the result. A query with a limit, whose
    /// order an [index](crate::ClientConfig::indexes) has when it begins, reads and keeps the result and
    /// a few places behind it. A change costs what it moves, however many records there are. All queries
    /// show the same commit.
    ///
    /// One that asks about a scope, by the scope's [condition](NamedScope::condition), is
    /// [complete](crate::QuerySnapshot::is_complete) only if that is held; without a scope it asks about
    /// all that is.
    ///
    /// # Errors
    /// When the query can't be carried out, or the store can't be read.
    pub fn watch_query(
        &mut self,
        collection: &Collection,
        scope: Option<NamedScope>,
        query: Query,
        out: &mut Vec<Action>,
    ) -> Result<WatchId, Misuse> {
        query.check()?;
        let complete = self.client.is_complete(collection, scope.as_ref());
        let (client, rows) = (&self.client, self.store.rows());
        let live = if client.reads_in_order(collection, &query) {
            LiveQuery::of_window(query, complete, &|query| client.found(collection, query, rows))?
        } else {
            LiveQuery::new(query, complete, |visit| client.each(collection, rows, visit))?
        };
        let id = self.new_watch();
        self.queries.add(id, (collection, scope), live);
        out.push(Action::Watch(id));
        Ok(id)
    }

    /// Takes the news of a watcher of a query: the latest result, and all changes since the last one
    /// that it took.
    pub fn take_query(&mut self, id: WatchId) -> Option<QueryUpdate> {
        self.queries.take(id)
    }

    /// Shows in the queries what has happened since they showed something.
    pub(super) fn show_queries(&mut self, out: &mut Vec<Action>) -> Result<(), StoreError> {
        let (client, rows) = (&self.client, self.store.rows());
        let load = |collection: &Collection, id: &RecordId| client.get(collection, id, rows);
        let more = |collection: &Collection, query: &Query| client.found(collection, query, rows);
        self.queries.show(&load, &more, |id| out.push(Action::Watch(id)))
    }
}
