//! The queries that somebody watches.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::replica::WatchId;
use crate::protocol::name::{Collection, RecordId};
use crate::rules::query::{LiveQuery, Query, QuerySnapshot, QueryUpdate};
use crate::rules::scope::NamedScope;
use crate::rules::view::Record;
use crate::store::StoreError;

/// Reads a record of the store as of the last commit.
type Load<'a> = dyn Fn(&Collection, &RecordId) -> Result<Option<Record>, StoreError> + 'a;
/// Reads the records that a query returns from the store as of the last commit.
type More<'a> = dyn Fn(&Collection, &Query) -> Result<Vec<Record>, StoreError> + 'a;

/// All queries of a replica, with the updates that wait to be taken.
#[derive(Clone, Default)]
pub(super) struct WatchedQueries {
    queries: BTreeMap<WatchId, WatchedQuery>,
}

#[derive(Clone)]
struct WatchedQuery {
    collection: Collection,
    /// The scope that it asks about; `None` if it is all that is held.
    scope: Option<NamedScope>,
    live: LiveQuery,
    /// The result that was taken last.
    taken: QuerySnapshot,
    /// The update that waits to be taken.
    update: Option<QueryUpdate>,
}

impl WatchedQueries {
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// Adds a query. Its first update waits.
    pub(super) fn add(
        &mut self,
        id: WatchId,
        (collection, scope): (&Collection, Option<NamedScope>),
        live: LiveQuery,
    ) {
        let (taken, update) = (QuerySnapshot::default(), Some(live.first_update()));
        let collection = collection.clone();
        self.queries.insert(id, WatchedQuery { collection, scope, live, taken, update });
    }

    pub(super) fn remove(&mut self, id: WatchId) {
        self.queries.remove(&id);
    }

    pub(super) fn take(&mut self, id: WatchId) -> Option<QueryUpdate> {
        let watched = self.queries.get_mut(&id)?;
        let update = watched.update.take()?;
        watched.taken = update.snapshot.clone();
        Some(update)
    }

    /// Takes note of a record's new state.
    pub(super) fn touch(&mut self, of: &Collection, id: &RecordId, record: Option<&Record>) {
        for WatchedQuery { live, .. } in self.of(of) {
            live.touch(id, record.cloned());
        }
    }

    /// Takes note of whether everything is here that the queries of a collection ask about: all of it, or
    /// a scope.
    pub(super) fn set_complete(
        &mut self,
        of: &Collection,
        is_complete: impl Fn(Option<&NamedScope>) -> bool,
    ) {
        for WatchedQuery { scope, live, .. } in self.of(of) {
            live.set_complete(is_complete(scope.as_ref()));
        }
    }

    fn of<'a>(
        &'a mut self,
        collection: &'a Collection,
    ) -> impl Iterator<Item = &'a mut WatchedQuery> {
        self.queries.values_mut().filter(move |of| of.collection == *collection)
    }

    /// Brings all queries to the last commit, and names those that have something to be taken and had
    /// nothing before.
    pub(super) fn show(
        &mut self,
        load: &Load<'_>,
        more: &More<'_>,
        mut tell: impl FnMut(WatchId),
    ) -> Result<(), StoreError> {
        for (id, WatchedQuery { collection, live, taken, update, .. }) in &mut self.queries {
            let news = live.update(&|id| load(collection, id), &|query| more(collection, query))?;
            let Some(mut news) = news else { continue };
            if update.is_some() {
                news.changes = news.snapshot.changes_since(taken);
            } else {
                tell(*id);
            }
            *update = Some(news);
        }
        Ok(())
    }

    /// Checks that each shows what a fresh query returns.
    pub(super) fn check(
        &self,
        fresh: impl Fn(&Collection, &Query) -> Result<Vec<Record>, String>,
    ) -> Result<(), String> {
        for WatchedQuery { collection, live, .. } in self.queries.values() {
            if !live.window().iter().eq(&fresh(collection, live.query())?) {
                return Err(format!("a live query of {collection} shows {:?}", live.window()));
            }
        }
        Ok(())
    }
}
