//! A collection as the app holds it.

use std::sync::Arc;

use serde::Serialize;
use synclayer_client::error::SyncError;
use synclayer_client::mailbox::mailbox;
use synclayer_client::modify::modification;
use synclayer_client::setup::{fresh_record_id, record_id};
use synclayer_core::client::interface::Write;
use synclayer_core::protocol::delta::Delta;
use synclayer_core::protocol::document::Document;
use synclayer_core::protocol::name::{Collection as Name, RecordId};
use synclayer_core::rules::view::{Record, Slot};

use crate::client::SyncLayer;
use crate::network::Hold;
use crate::saved::Saved;
use crate::stream::Watch;

/// A collection: records by their ids, each a JSON object.
///
/// Writes resolve when they are saved here, as durably as the store was set up for; the server
/// gets them when it can be reached, and [`Saved`] tells what became of one. Reads see every write that was made before them.
#[derive(Clone, Debug)]
pub struct Collection {
    pub(crate) sync: SyncLayer,
    pub(crate) name: Name,
    /// The use of the collection by this handle and its clones.
    pub(crate) hold: Arc<Hold>,
}

impl Collection {
    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Saves a new record under an id of its own, which is returned as [`Saved::id`]. Ids are UUIDs
    /// that rise with the time.
    ///
    /// # Errors
    /// When the document is no JSON object or breaks a limit, too many writes wait for the server,
    /// the store has failed, or the client is closed.
    pub async fn save<T: Serialize + ?Sized>(&self, document: &T) -> Result<Saved, SyncError> {
        let id = fresh_record_id()?;
        self.save_as(id, self.document(document)?).await
    }

    /// Saves a record under an id. Where there is one, it is replaced whole.
    ///
    /// # Errors
    /// As [`save`](Self::save), and when the id can't be one.
    pub async fn save_with_id<T: Serialize + ?Sized>(
        &self,
        id: &str,
        document: &T,
    ) -> Result<Saved, SyncError> {
        self.save_as(record_id(id)?, self.document(document)?).await
    }

    /// Sets some top-level fields of a record. The others stay as they are, also when someone else
    /// changes them at the same time.
    ///
    /// The fields are set to these values whatever they were: where a new value depends on the old
    /// one (a counter, a list that grows), what arrives between a [`get`](Self::get) and this call
    /// would be overwritten. [`modify`](Self::modify) does both in one step.
    ///
    /// # Errors
    /// As [`save`](Self::save), and when there is no such record.
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        id: &str,
        fields: &T,
    ) -> Result<Saved, SyncError> {
        let delta = Delta::new(self.document(fields)?, Vec::new());
        self.change(id, delta).await
    }

    /// Sets some top-level fields of a record and removes others.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn change(&self, id: &str, delta: Delta) -> Result<Saved, SyncError> {
        let id = record_id(id)?;
        let update = Write::Update(self.name.clone(), id.clone(), delta);
        Ok(Saved::new(id, self.sync.write(update).await?))
    }

    /// Changes a record by what it is, in one step: nothing that another task or the server does
    /// comes in between. `change` gets the document, `None` where there is no record, and returns
    /// the one that takes its place, or `None` to delete it. What it was given leaves all as it is.
    ///
    /// ```no_run
    /// # use serde_json::{Value, json};
    /// # async fn run(todos: synclayer_tokio::Collection) -> Result<(), Box<dyn std::error::Error>> {
    /// todos
    ///     .modify("milk", |todo| {
    ///         let mut todo: Value = todo?.to().expect("a record is a JSON object");
    ///         todo["bottles"] = json!(todo["bottles"].as_u64().unwrap_or(0) + 1);
    ///         Some(todo)
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Only the fields that differ are written. Devices that change the same field while they don't
    /// see each other are in conflict as by [`update`](Self::update), and the conflict strategy
    /// decides: to count on several devices, use
    /// [`sum_numbers`](synclayer_core::rules::merge::FieldWise::sum_numbers) too.
    ///
    /// `change` runs on the client's own thread: it must be quick, and what it calls of a client is
    /// refused ([`SyncError::InsideCallback`]).
    ///
    /// # Errors
    /// As [`save`](Self::save), and when `change` panics
    /// ([`Misuse::ModifyFailed`](crate::Misuse::ModifyFailed)); the record is then as it was. A
    /// program that is built with `panic = "abort"` ends there.
    pub async fn modify<T: Serialize>(
        &self,
        id: &str,
        change: impl FnOnce(Option<&Document>) -> Option<T> + Send + 'static,
    ) -> Result<Saved, SyncError> {
        let (name, id) = (self.name.clone(), record_id(id)?);
        let modify = modification(change, self.sync.limits());
        Ok(Saved::new(id.clone(), self.sync.write(Write::Modify(name, id, modify)).await?))
    }

    /// Deletes a record. Where there is none, nothing happens.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub async fn delete(&self, id: &str) -> Result<Saved, SyncError> {
        let id = record_id(id)?;
        let delete = Write::Delete(self.name.clone(), id.clone());
        Ok(Saved::new(id, self.sync.write(delete).await?))
    }

    /// A record, if there is one.
    ///
    /// # Errors
    /// When the id can't be one, the store has failed, or the client is closed.
    pub async fn get(&self, id: &str) -> Result<Option<Record>, SyncError> {
        let (name, id) = (self.name.clone(), record_id(id)?);
        self.sync.ask(move |engine| engine.get(&name, &id)).await?
    }

    /// All records in order of their ids. Mind the memory: [`watch`](Self::watch) shares it.
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn get_all(&self) -> Result<Vec<Record>, SyncError> {
        let name = self.name.clone();
        self.sync.ask(move |engine| engine.get_all(&name)).await?
    }

    /// Keeps the collection in sync from now on, as any first use of it does, without reading it.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn subscribe(&self) -> Result<(), SyncError> {
        let name = self.name.clone();
        self.sync.ask(move |engine| engine.join(&name)).await
    }

    /// Keeps the collection in sync no longer, until it is used again: any read, write or watch
    /// that begins later joins it. What is stored of it stays, and its unsent writes go out.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn unsubscribe(&self) -> Result<(), SyncError> {
        let name = self.name.clone();
        self.sync.ask(move |engine| engine.leave(&name)).await
    }

    /// The collection as it is, at once, and again whenever it has changed, here or at the server.
    ///
    /// Every update holds the whole collection and says what changed since the one before. While
    /// nobody reads, updates are merged into one. It ends when the client does.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch_records(None)
    }

    /// As [`watch`](Self::watch), of one record alone.
    ///
    /// # Errors
    /// When the id can't be one.
    pub fn watch_record(&self, id: &str) -> Result<Watch, SyncError> {
        Ok(self.watch_records(Some(record_id(id)?)))
    }

    fn watch_records(&self, only: Option<RecordId>) -> Watch {
        let (outlet, inlet) = mailbox(Slot::default());
        let name = self.name.clone();
        self.sync.inbox().tell(move |engine| engine.watch(name, only, outlet));
        Watch::new(inlet, self.sync.inbox().clone(), Arc::clone(&self.hold))
    }

    async fn save_as(&self, id: RecordId, document: Document) -> Result<Saved, SyncError> {
        let save = Write::Save(self.name.clone(), id.clone(), document);
        Ok(Saved::new(id, self.sync.write(save).await?))
    }

    fn document<T: Serialize + ?Sized>(&self, value: &T) -> Result<Document, SyncError> {
        Ok(Document::of(value, self.sync.limits())?)
    }
}
