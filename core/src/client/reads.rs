//! The app's reads: how the machine is doing, and what its store holds.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::edit::{Edit, shown};
use super::event::{CollectionStatus, PendingWrite, Status};
use super::interface::Misuse;
use super::machine::Client;
use super::stream::Stream;
use super::wipe::Unsent;
use crate::protocol::name::{Collection, CommitNumber, RecordId, WriteId};
use crate::protocol::time::Now;
use crate::rules::query::{self, Explanation, Query, Selection};
use crate::rules::row::{Entry, Keys, OutboxRow, Rejected, Row, record_id_of, write_id_of};
use crate::rules::scope::NamedScope;
use crate::rules::view::Record;
use crate::store::{Rows, Scan, StoreError};

impl Client {
    /// Returns the state of the replica.
    #[must_use]
    pub(crate) fn status(&self) -> Status {
        let collection = |(name, stream): (&Collection, &Stream)| {
            let status = CollectionStatus {
                in_use: stream.is_wanted(),
                live: stream.is_live(),
                catching_up: stream.is_catching_up(),
                received_records: stream.received.records,
                received_bytes: stream.received.bytes,
                expected_records: stream.received.of,
                from_cache: !stream.is_confirmed(),
                cursor: stream.row.cursor.clone(),
                count: stream.row.figures.count,
                checksum: stream.row.figures.checksum,
                missing: stream.asks(),
                stalled: self.stalls(name, stream),
                scopes: stream.scope_standings(),
            };
            (name.clone(), status)
        };
        let transport = self.transport();
        Status {
            connection: self.connection(),
            transport,
            failure: self.failure.clone(),
            level: transport.map(|_| self.peer.level()),
            guarantees: transport.map(|_| self.offered()),
            client_id: self.identity.client_id.clone(),
            other_database: self.identity.other_database.clone(),
            pending_writes: self.outbox.waiting(),
            stalled: self.pacing.told().filter(|told| self.outbox.holds(told.write)).cloned(),
            rejected_writes: self.rejected,
            collections: self.streams.iter().map(collection).collect(),
            clock_offset_ms: self.clock_offset_ms(),
            clock_is_off: self.clock_is_off(),
            knows_server_time: self.knows_server_time(),
            progress: self.progress,
            ignored_frames: self.ignored_frames,
            halted: self.halted.clone(),
        }
    }

    /// Returns `true` if the held records are not confirmed by the server in this time of contact with
    /// it, and `true` if the collection is catching up.
    #[must_use]
    pub(crate) fn standing(&self, collection: &Collection) -> (bool, bool) {
        let stream = self.streams.get(collection);
        let from_cache = stream.is_none_or(|stream| !stream.is_confirmed());
        (from_cache, stream.is_some_and(Stream::is_catching_up))
    }

    /// Returns `true` if nothing can be missing of a scope, or of all that is held of a collection.
    pub(crate) fn is_complete(&self, collection: &Collection, scope: Option<&NamedScope>) -> bool {
        let in_step = |stream: &Stream| stream.is_confirmed() && !stream.is_catching_up();
        let has = |stream: &Stream| scope.is_none_or(|scope| stream.has_loaded(scope));
        self.streams.get(collection).is_some_and(|stream| in_step(stream) && has(stream))
    }

    /// A record as the app sees it, with its pending writes made.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn get(
        &self,
        collection: &Collection,
        id: &RecordId,
        store: &dyn Rows,
    ) -> Result<Option<Record>, StoreError> {
        record_in(self.keys, collection, id, store)
    }

    /// Reads records of these rows as [`get`](Self::get) does, wherever and whenever it is called.
    pub(crate) fn reader(
        &self,
        rows: Arc<dyn Rows + Send + Sync>,
    ) -> impl Fn(&Collection, &RecordId) -> Result<Option<Record>, StoreError> + Send + Sync + use<>
    {
        let keys = self.keys;
        move |collection, id| record_in(keys, collection, id, &*rows)
    }

    /// Shows the records of a collection in order of their ids, until `visit` ends it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn each(
        &self,
        collection: &Collection,
        store: &dyn Rows,
        visit: &mut dyn FnMut(Record) -> Scan,
    ) -> Result<(), StoreError> {
        let (from, to) = self.keys.rows(collection, None, None);
        store.scan(&from, &to, &mut |key, value| {
            let id = record_id_of(key)?;
            Ok(shown(&id, &Row::decode(value)?).map_or(Scan::Next, &mut *visit))
        })
    }

    /// The records that a query returns, in its order.
    ///
    /// # Errors
    /// When the query can't be carried out, or the store can't be read.
    pub(crate) fn query(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<Vec<Record>, Misuse> {
        Ok(self.carry_out_query(collection, query, store)?.0)
    }

    /// Carries a query out, and says how.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub(crate) fn carry_out_query(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<(Vec<Record>, Explanation), Misuse> {
        query.check()?;
        Ok(self.find_records(collection, query, store)?)
    }

    /// The records that a query returns, which was checked.
    pub(crate) fn found(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<Vec<Record>, StoreError> {
        Ok(self.find_records(collection, query, store)?.0)
    }

    /// Returns `true` if an index has the order of a query with a limit, so that no more is read than it
    /// returns.
    pub(crate) fn reads_in_order(&self, collection: &Collection, query: &Query) -> bool {
        let plan = self.indexes.plan(self.keys, collection, query);
        query.limit.is_some() && plan.is_some_and(|(_, plan)| plan.is_ordered())
    }

    fn find_records(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<(Vec<Record>, Explanation), StoreError> {
        let mut selection = Selection::new(query);
        let walked = self.walk(collection, query, store, &mut |key, record| {
            let document = record.document.clone();
            selection.keep(key, &document, || Some(record));
            Scan::Next
        })?;
        let Some(mut explanation) = walked else {
            return self.query_all(collection, query, store);
        };
        let records = selection.finish();
        explanation.returned = records.len();
        Ok((records, explanation))
    }

    /// Shows the records that a query finds by indexes, as [`query::walk`] does. `None` if no index serves
    /// the query.
    fn walk(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
        visit: &mut dyn FnMut(Vec<u8>, Record) -> Scan,
    ) -> Result<Option<Explanation>, StoreError> {
        let Some(branches) = self.indexes.branches(self.keys, collection, query) else {
            return Ok(None);
        };
        let branches: Vec<_> =
            branches.iter().map(|(found, branch)| (found.rows(store), branch)).collect();
        let load = |id: &RecordId| self.get(collection, id, store);
        query::walk(query, &branches, &load, visit).map(Some)
    }

    /// Carries a query out by reading all records.
    pub(crate) fn query_all(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<(Vec<Record>, Explanation), StoreError> {
        let mut selection = Selection::new(query);
        let mut explanation = Explanation { ordered: query.order.is_empty(), ..Default::default() };
        self.each(collection, store, &mut |record| {
            explanation.read += 1;
            selection.offer(&record.id, &record.document, || Some(record.clone()))
        })?;
        let records = selection.finish();
        explanation.returned = records.len();
        Ok((records, explanation))
    }

    /// The number of the records that a query returns.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub(crate) fn count(
        &self,
        collection: &Collection,
        query: &Query,
        store: &dyn Rows,
    ) -> Result<usize, Misuse> {
        query.check()?;
        let limit = query.limit.unwrap_or(usize::MAX);
        let most = limit.saturating_add(query.offset);
        let mut count = 0;
        let mut count_one = || {
            count += 1;
            if count < most { Scan::Next } else { Scan::Stop }
        };
        if self.walk(collection, query, store, &mut |_, _| count_one())?.is_none() {
            self.each(collection, store, &mut |record| {
                if query.finds(&record.id, &record.document) { count_one() } else { Scan::Next }
            })?;
        }
        Ok(limit.min(count.saturating_sub(query.offset)))
    }

    /// The writes that the server has refused for good, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn rejected(&self, store: &dyn Rows) -> Result<Vec<Rejected>, StoreError> {
        let mut all = Vec::new();
        let (from, to) = self.keys.all_rejected();
        store.scan(&from, &to, &mut |key, value| {
            all.push(Rejected::decode(write_id_of(key)?, value)?);
            Ok(Scan::Next)
        })?;
        Ok(all)
    }

    /// See [`Replica::pending`](crate::client::replica::Replica::pending).
    pub(crate) fn pending(&self, store: &dyn Rows) -> Result<Vec<PendingWrite>, StoreError> {
        let mut all = Vec::new();
        let mut edit = Edit::new(store, self.keys, self.now.wall);
        edit.in_time(&self.identity.clocks, self.clock.unsettled_runs());
        edit.places(WriteId(0), &mut |write, place| {
            match place {
                OutboxRow::Entry(entry) if entry.expects.is_none() => all.push(PendingWrite {
                    write,
                    collection: entry.collection,
                    record_id: entry.record_id,
                    operation: entry.change.kind,
                    written_at: entry.written_at,
                    transaction: entry.unit.map(|unit| unit.first),
                }),
                OutboxRow::Entry(_) | OutboxRow::Acked(_) => {}
            }
            Ok(Scan::Next)
        })?;
        Ok(all)
    }

    /// See [`Replica::unsent`](crate::client::replica::Replica::unsent).
    pub(crate) fn unsent(&self, store: &dyn Rows) -> Result<Unsent, StoreError> {
        let mut unsent = Unsent::default();
        Edit::new(store, self.keys, self.now.wall).places(WriteId(0), &mut |_, place| {
            // the others were acknowledged
            if let OutboxRow::Entry(Entry { collection, record_id, expects: None, .. }) = place {
                unsent.waiting += 1;
                unsent.name(&collection, &record_id);
            }
            Ok(Scan::Next)
        })?;
        let (from, to) = self.keys.all_rejected();
        store.scan(&from, &to, &mut |key, value| {
            let rejected = Rejected::decode(write_id_of(key)?, value)?;
            if rejected.expects.is_none() {
                unsent.rejected += 1;
                unsent.name(&rejected.collection, &rejected.record_id);
            }
            Ok(Scan::Next)
        })?;
        Ok(unsent)
    }

    /// Returns the user whose data this is.
    #[must_use]
    pub(crate) fn user(&self) -> &str {
        &self.config.user
    }

    /// A new record id, drawn from the seed.
    pub(crate) fn new_record_id(&mut self, now: Now) -> Option<RecordId> {
        self.random.record_id(now.wall)
    }

    /// Returns the reason why the machine has stopped, if its store has failed.
    #[must_use]
    pub(crate) fn halted(&self) -> Option<&StoreError> {
        self.halted.as_ref()
    }

    /// The last commit that was made.
    #[must_use]
    pub(crate) fn last_commit(&self) -> CommitNumber {
        self.commits.last()
    }
}

fn record_in(
    keys: Keys,
    collection: &Collection,
    id: &RecordId,
    rows: &dyn Rows,
) -> Result<Option<Record>, StoreError> {
    let row = rows.get(&keys.row(collection, id))?.map(Row::decode).transpose()?;
    Ok(row.and_then(|row| shown(id, &row)))
}
