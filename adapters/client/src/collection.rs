//! A collection as both faces hold it: its calls, its watches, and the use that they make of it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use serde::Serialize;
use synclayer_core::{
    Collection, Command, Delta, Document, Explanation, NamedScope, Query, Record, RecordId, Write,
};

use crate::command::{EngineCommand, Inbox};
use crate::error::SyncError;
use crate::handle::Handle;
use crate::listen::{QuerySlot, UpdateSlot};
use crate::mailbox::{Buffer, Receiver, mailbox};
use crate::modify::modification;
use crate::pending::{Pending, Responder};
use crate::saved::{Saved, SavedTransaction};
use crate::scope_hold::ScopeHold;
use crate::setup::{collection, fresh_record_id, record_id};
use crate::transaction::{PartWrite, parts};

/// A collection of a client, which it keeps alive.
///
/// The faces document the calls: see [`doc!`](crate::doc).
#[derive(Clone)]
pub struct CollectionHandle {
    client: Handle,
    name: Collection,
    /// The use of the collection by this handle and its clones.
    hold: Use,
}

impl CollectionHandle {
    /// The collection of this name.
    ///
    /// # Errors
    /// When no collection can have this name.
    pub fn new(client: &Handle, name: &str) -> Result<Self, SyncError> {
        let name = collection(name)?;
        let whole = Some(Arc::new(Hold::new(client.inbox().clone(), name.clone())));
        let hold = Use { whole, _scope: None };
        Ok(Self { client: client.clone(), name, hold })
    }

    /// A part of the collection: a scope, or what is held of it. Its use is not that of the whole
    /// collection.
    pub(crate) fn part(&self, scope: Option<&NamedScope>) -> Self {
        let inbox = self.client.inbox();
        let scope = scope.map(|scope| ScopeHold::new(inbox, &self.name, scope));
        let hold = Use { whole: None, _scope: scope };
        Self { client: self.client.clone(), name: self.name.clone(), hold }
    }

    /// Keeps a scope of the collection, or keeps it no longer.
    pub(crate) fn keep_scope(&self, scope: NamedScope, kept: bool) -> Pending<()> {
        self.client.command(Command::KeepScope(self.name.clone(), scope, kept))
    }

    /// Makes a call about the collection, or about the part of it.
    fn ask<T>(&self, command: impl FnOnce(Responder<T>) -> EngineCommand) -> Pending<T> {
        self.client.ask(|reply| self.hold.limited(command(reply)))
    }

    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Saves a new record.
    pub fn save<T: Serialize + ?Sized>(&self, document: &T) -> Pending<Saved> {
        self.save_as(fresh_record_id(), document)
    }

    /// Saves a record under an id.
    pub fn save_with_id<T: Serialize + ?Sized>(&self, id: &str, document: &T) -> Pending<Saved> {
        self.save_as(record_id(id), document)
    }

    /// Sets some fields of a record.
    pub fn update<T: Serialize + ?Sized>(&self, id: &str, fields: &T) -> Pending<Saved> {
        self.write(record_id(id), |name, id| {
            Ok(Write::Update(name, id, Delta::new(self.document(fields)?, Vec::new())))
        })
    }

    /// Sets and removes some fields of a record.
    pub fn change(&self, id: &str, delta: Delta) -> Pending<Saved> {
        self.write(record_id(id), |name, id| Ok(Write::Update(name, id, delta)))
    }

    /// Changes a record by what it is.
    pub fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Pending<Saved> {
        self.write(record_id(id), |name, id| {
            Ok(Write::Modify(name, id, modification(change, self.client.limits())))
        })
    }

    /// Deletes a record.
    pub fn delete(&self, id: &str) -> Pending<Saved> {
        self.write(record_id(id), |name, id| Ok(Write::Delete(name, id)))
    }

    /// Saves many new records. Returns their ids beside the call.
    pub fn save_all<T: Serialize>(
        &self,
        documents: impl IntoIterator<Item = T>,
    ) -> Result<(Vec<RecordId>, Pending<Vec<SavedTransaction>>), SyncError> {
        let save =
            |document: T| Ok((fresh_record_id()?, PartWrite::Save(self.document(&document)?)));
        self.write_all(documents.into_iter().map(save))
    }

    /// Sets some fields of many records.
    pub fn update_all<I: AsRef<str>, T: Serialize>(
        &self,
        updates: impl IntoIterator<Item = (I, T)>,
    ) -> Result<(Vec<RecordId>, Pending<Vec<SavedTransaction>>), SyncError> {
        let update = |(id, fields): (I, T)| {
            let delta = Delta::new(self.document(&fields)?, Vec::new());
            Ok((record_id(id.as_ref())?, PartWrite::Update(delta)))
        };
        self.write_all(updates.into_iter().map(update))
    }

    /// Deletes many records.
    pub fn delete_all<I: AsRef<str>>(
        &self,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<(Vec<RecordId>, Pending<Vec<SavedTransaction>>), SyncError> {
        let delete = |id: I| Ok((record_id(id.as_ref())?, PartWrite::Delete));
        self.write_all(ids.into_iter().map(delete))
    }

    fn write_all(
        &self,
        writes: impl Iterator<Item = Result<(RecordId, PartWrite), SyncError>>,
    ) -> Result<(Vec<RecordId>, Pending<Vec<SavedTransaction>>), SyncError> {
        let writes = writes.collect::<Result<Vec<_>, _>>()?;
        let ids = writes.iter().map(|(id, _)| id.clone()).collect();
        let parts = parts(&self.name, writes);
        let touched = Arc::new(Mutex::new([self.name.clone()].into()));
        let made = self.ask(|reply| EngineCommand::Transact { parts, touched, reply });
        Ok((ids, made))
    }

    /// Reads a record.
    pub fn get(&self, id: &str) -> Pending<Option<Record>> {
        match record_id(id) {
            Ok(id) if self.hold.is_whole() => self.client.inbox().get(&self.name, id),
            Ok(id) => {
                let collection = self.name.clone();
                self.ask(|reply| EngineCommand::Get { collection, id, reply })
            }
            Err(error) => Pending::refused(error),
        }
    }

    /// Reads all records.
    pub fn get_all(&self) -> Pending<Vec<Record>> {
        let collection = self.name.clone();
        self.ask(|reply| EngineCommand::GetAll { collection, reply })
    }

    pub(crate) fn query(&self, query: Query) -> Pending<Vec<Record>> {
        let collection = self.name.clone();
        self.ask(|reply| EngineCommand::Query { collection, query: query.into(), reply })
    }

    pub(crate) fn count(&self, query: Query) -> Pending<usize> {
        let collection = self.name.clone();
        self.ask(|reply| EngineCommand::Count { collection, query: query.into(), reply })
    }

    pub(crate) fn explain(&self, query: Query) -> Pending<Explanation> {
        let collection = self.name.clone();
        self.ask(|reply| EngineCommand::Explain { collection, query: query.into(), reply })
    }

    /// Keeps the collection in sync from now on.
    pub fn subscribe(&self) -> Pending<()> {
        self.client.command(Command::Subscribe(self.name.clone()))
    }

    /// Keeps the collection in sync no longer.
    pub fn unsubscribe(&self) -> Pending<()> {
        self.client.command(Command::Unsubscribe(self.name.clone()))
    }

    /// Watches the collection.
    #[must_use]
    pub fn watch(&self) -> WatchHandle {
        self.watch_records(None)
    }

    /// Watches one record.
    ///
    /// # Errors
    /// When the id can't be one.
    pub fn watch_record(&self, id: &str) -> Result<WatchHandle, SyncError> {
        Ok(self.watch_records(Some(record_id(id)?)))
    }

    fn watch_records(&self, record: Option<RecordId>) -> WatchHandle {
        let (updates, receiver) = mailbox(UpdateSlot::default());
        let collection = self.name.clone();
        self.watched(EngineCommand::Watch { collection, record, updates }, receiver)
    }

    /// Watches a query, which was checked.
    pub(crate) fn watch_query(
        &self,
        scope: Option<NamedScope>,
        query: Query,
    ) -> WatchHandle<QuerySlot> {
        let (updates, receiver) = mailbox(QuerySlot::default());
        let (collection, query) = (self.name.clone(), query.into());
        self.watched(EngineCommand::WatchQuery { collection, scope, query, updates }, receiver)
    }

    fn watched<B: Buffer>(&self, watch: EngineCommand, updates: Receiver<B>) -> WatchHandle<B> {
        let inbox = self.client.inbox().clone();
        inbox.put(self.hold.limited(watch));
        WatchHandle { updates, _notifier: DropNotifier(inbox), _hold: self.hold.clone() }
    }

    fn save_as<T: Serialize + ?Sized>(
        &self,
        id: Result<RecordId, SyncError>,
        document: &T,
    ) -> Pending<Saved> {
        self.write(id, |name, id| Ok(Write::Save(name, id, self.document(document)?)))
    }

    /// Makes a write of a record.
    fn write(
        &self,
        id: Result<RecordId, SyncError>,
        write: impl FnOnce(Collection, RecordId) -> Result<Write, SyncError>,
    ) -> Pending<Saved> {
        let made = id.and_then(|id| Ok((id.clone(), write(self.name.clone(), id)?)));
        match made {
            Ok((id, write)) => self.ask(|reply| EngineCommand::Write { id, write, reply }),
            Err(error) => Pending::refused(error),
        }
    }

    pub(crate) fn document<T: Serialize + ?Sized>(&self, value: &T) -> Result<Document, SyncError> {
        Ok(Document::of(value, self.client.limits())?)
    }
}

impl fmt::Debug for CollectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CollectionHandle").field(&self.name).finish()
    }
}

/// A watch of a collection or a record, or, with its own slot, of a query.
pub struct WatchHandle<B: Buffer = UpdateSlot> {
    updates: Receiver<B>,
    // dropped after the receiver, when the engine finds it abandoned
    _notifier: DropNotifier,
    /// The use of the collection by this watch.
    _hold: Use,
}

impl<B: Buffer> WatchHandle<B> {
    /// The next update; `None` when the client has ended.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Option<B::Item>> {
        self.updates.poll(context)
    }
}

/// Tells the engine that a watch has gone.
struct DropNotifier(Inbox);

impl Drop for DropNotifier {
    fn drop(&mut self) {
        self.0.put(EngineCommand::DismissWatchers);
    }
}

/// The use of a collection, or of a part of it, until it is dropped.
#[derive(Clone)]
struct Use {
    /// The use of the whole collection.
    whole: Option<Arc<Hold>>,
    /// The use of a scope of it; without either, what is held is used as it is.
    _scope: Option<Arc<ScopeHold>>,
}

impl Use {
    fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// Lets a command about a part not use the collection whole.
    fn limited(&self, command: EngineCommand) -> EngineCommand {
        if self.is_whole() { command } else { EngineCommand::Part(Box::new(command)) }
    }
}

/// A use of a collection by a handle or a watch, until it is dropped.
struct Hold {
    inbox: Inbox,
    collection: Collection,
}

impl Hold {
    fn new(inbox: Inbox, collection: Collection) -> Self {
        inbox.put(EngineCommand::Hold(collection.clone()));
        Self { inbox, collection }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inbox.put(EngineCommand::Release(self.collection.clone()));
    }
}
