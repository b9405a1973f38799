//! The server as the program that runs it uses it, without a connection.

use std::fmt;
use std::sync::{Arc, Weak};

use serde::Serialize;
use synclayer_core::rules::{
    Content, FoundRecord, HttpQuery, Next, Outcome, PageChange, PageLimits, PlainUnit, PlainWrite,
    Position, Reader, Verdict,
};
use synclayer_core::{
    Change, Collection, Cursor, Delta, Document, DocumentError, ErrorCode, Limits, NameError,
    Query, QueryError, ReadAnswer, ReadRequest, RecordId, StoreError, StoreErrorKind, Timestamp,
    TransactError, Transaction, TransactionAnswer, UserId,
};
use tokio::sync::watch;

use crate::embedded::wait_for_end;
use crate::fairness::Principal;
use crate::reads::ReadError;
use crate::shared::Shared;

/// The server as the program that runs it uses it: it reads, queries, writes and watches without a
/// connection and past all rules, and is bound by the limits of a document alone. What it writes reaches
/// the clients as any other write does, without a user.
///
/// Clones are of the same server. When that has ended, each call says so.
///
/// ```
/// use std::sync::Arc;
///
/// use serde_json::json;
/// use synclayer_server::{Embedded, Local, LocalWrite, MemoryServerStore, Query, ServerConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Embedded::open(ServerConfig::new(), Arc::new(MemoryServerStore::new())).await?;
/// let local: Local = server.local();
/// let mut news = local.watch("accounts").await?;
///
/// local.save("accounts", "ann", &json!({ "sum": 10 })).await?;
/// let ann = local.get("accounts", "ann").await?.expect("it was saved");
/// local
///     .transaction([
///         // only if nobody has changed the account meanwhile
///         LocalWrite::update("accounts", "ann", &json!({ "sum": 7 }))?.at_version(ann.version),
///         LocalWrite::save("accounts", "bob", &json!({ "sum": 3 }))?,
///     ])
///     .await?;
/// assert_eq!(local.query("accounts", Query::default()).await?.len(), 2);
///
/// let told = news.next().await?;
/// assert_eq!(told.changes[0].id.as_str(), "ann");
/// # server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Local {
    // the store is closed with the server
    shared: Weak<Shared>,
    ending: watch::Receiver<bool>,
}

/// A record at the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalRecord {
    /// The record's id.
    pub id: RecordId,
    /// The document.
    pub document: Document,
    /// The number of the record's changes so far.
    pub version: u64,
    /// The server's time of the last change.
    pub updated_at: Timestamp,
}

impl From<FoundRecord> for LocalRecord {
    fn from(found: FoundRecord) -> Self {
        let FoundRecord { id, document, updated_at, version } = found;
        Self { id, document, version, updated_at }
    }
}

/// A write of the server's own program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalWrite {
    collection: Collection,
    id: RecordId,
    change: Change,
    version: Option<u64>,
}

impl LocalWrite {
    /// Saves a record. One that exists is replaced as a whole.
    ///
    /// # Errors
    /// When a name can't be one, or the value is no document.
    pub fn save<T: Serialize + ?Sized>(
        collection: &str,
        id: &str,
        document: &T,
    ) -> Result<Self, LocalError> {
        // the server's limits are looked at when it is written
        Self::new(collection, id, Change::insert(Document::of(document, &Limits::default())?))
    }

    /// Sets some top-level fields of a record, which must exist.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn update<T: Serialize + ?Sized>(
        collection: &str,
        id: &str,
        fields: &T,
    ) -> Result<Self, LocalError> {
        let fields = Document::of(fields, &Limits::default())?;
        Self::change(collection, id, Delta::new(fields, Vec::new()))
    }

    /// Sets some top-level fields of a record, which must exist, and removes others.
    ///
    /// # Errors
    /// When a name can't be one.
    pub fn change(collection: &str, id: &str, delta: Delta) -> Result<Self, LocalError> {
        Self::new(collection, id, Change::update(delta))
    }

    /// Deletes a record. Nothing happens if there is none.
    ///
    /// # Errors
    /// When a name can't be one.
    pub fn delete(collection: &str, id: &str) -> Result<Self, LocalError> {
        Self::new(collection, id, Change::delete())
    }

    fn new(collection: &str, id: &str, change: Change) -> Result<Self, LocalError> {
        let (collection, id) = (Collection::new(collection)?, RecordId::new(id)?);
        Ok(Self { collection, id, change, version: None })
    }

    /// Lets the write fail with `CONFLICT` where a field that it touches was changed after the record had
    /// this version.
    #[must_use]
    pub fn at_version(self, version: u64) -> Self {
        Self { version: Some(version), ..self }
    }
}

/// The outcome of a write that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalWritten {
    /// The record.
    pub id: RecordId,
    /// The record's version now; `None` where there is no record.
    pub version: Option<u64>,
    /// The server's time of the record's last change.
    pub updated_at: Timestamp,
}

/// A write for which a transaction failed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FailedWrite {
    /// Its place in the transaction, from 0.
    pub index: usize,
    /// The reason, for programs: `CONFLICT`, `RECORD_NOT_FOUND`, or a limit that it breaks.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
}

/// The changes of a collection since the last that a watch has told.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalChanges {
    /// The changes in their order: each record once, as it is by now.
    pub changes: Vec<LocalChange>,
    /// `true` if the server no longer knows what was deleted since the last change that was told. Then
    /// every record comes anew, perhaps in several parts, and those that do not come are gone.
    pub anew: bool,
    /// The place behind these changes, for [`Local::watch_from`]; `None` where more come before it.
    pub cursor: Option<Cursor>,
}

/// A change of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalChange {
    /// The record.
    pub id: RecordId,
    /// The document now; `None` if it was deleted.
    pub document: Option<Document>,
    /// The number of the record's changes so far, where it is known.
    pub version: Option<u64>,
    /// The user who made the last change, where one did.
    pub user: Option<UserId>,
}

/// The reason why a call of the server's own program has failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// A name can't be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A value can't be a document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A query can't be carried out.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Some writes of a transaction can't be made, so that none was.
    #[error("nothing was written: {}", .0.first().map_or("a write failed", |first| &first.message))]
    Failed(Vec<FailedWrite>),
    /// A read failed, or a transaction of which nothing has happened.
    #[error("the store failed, and nothing was done: {0}")]
    Store(#[source] StoreError),
    /// A transaction failed, and nobody knows if it has happened.
    #[error("the store failed, and perhaps it was written: read again before you go on: {0}")]
    Unknown(#[source] StoreError),
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
}

impl Local {
    pub(crate) fn new(shared: &Arc<Shared>, ending: watch::Receiver<bool>) -> Self {
        Self { shared: Arc::downgrade(shared), ending }
    }

    /// A record, if there is one.
    ///
    /// # Errors
    /// When a name can't be one, the store fails, or the server has ended.
    pub async fn get(&self, collection: &str, id: &str) -> Result<Option<LocalRecord>, LocalError> {
        let query = HttpQuery { id: Some(RecordId::new(id)?), ..HttpQuery::default() };
        Ok(self.find(collection, query).await?.pop())
    }

    /// The records that a query returns, in its order. Mind the memory: without a limit they may be many.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when something is wrong with the query.
    pub async fn query(
        &self,
        collection: &str,
        query: Query,
    ) -> Result<Vec<LocalRecord>, LocalError> {
        query.check()?;
        let query = HttpQuery { query: Some(Box::new(query)), ..HttpQuery::default() };
        self.find(collection, query).await
    }

    async fn find(
        &self,
        collection: &str,
        query: HttpQuery,
    ) -> Result<Vec<LocalRecord>, LocalError> {
        let (reader, bytes) = (reader(Collection::new(collection)?), usize::MAX);
        match self.read(ReadRequest::Query { reader, query, bytes }).await? {
            ReadAnswer::Found(Some(found)) => {
                Ok(found.into_iter().map(LocalRecord::from).collect())
            }
            ReadAnswer::Found(None)
            | ReadAnswer::Page(_)
            | ReadAnswer::Pulled(_)
            | ReadAnswer::Whole(_)
            | ReadAnswer::Refused { .. } => Err(mixed_up()),
        }
    }

    /// Saves a record. One that exists is replaced as a whole. It returns when that is durable.
    ///
    /// # Errors
    /// When a name can't be one, the value is no document or breaks a limit, the store fails, or the
    /// server has ended.
    pub async fn save<T: Serialize + ?Sized>(
        &self,
        collection: &str,
        id: &str,
        document: &T,
    ) -> Result<LocalWritten, LocalError> {
        self.one(LocalWrite::save(collection, id, document)?).await
    }

    /// Sets some top-level fields of a record.
    ///
    /// # Errors
    /// As [`save`](Self::save), and when there is no such record.
    pub async fn update<T: Serialize + ?Sized>(
        &self,
        collection: &str,
        id: &str,
        fields: &T,
    ) -> Result<LocalWritten, LocalError> {
        self.one(LocalWrite::update(collection, id, fields)?).await
    }

    /// Deletes a record. Nothing happens if there is none.
    ///
    /// # Errors
    /// When a name can't be one, the store fails, or the server has ended.
    pub async fn delete(&self, collection: &str, id: &str) -> Result<LocalWritten, LocalError> {
        self.one(LocalWrite::delete(collection, id)?).await
    }

    async fn one(&self, write: LocalWrite) -> Result<LocalWritten, LocalError> {
        self.transaction([write]).await?.pop().ok_or_else(mixed_up)
    }

    /// Makes several writes, one after the other: all of them or none. Readers see them at once. It returns
    /// when they are durable, with an outcome for each.
    ///
    /// # Errors
    /// [`LocalError::Failed`] names the writes that can't be made; also when the store fails, or the server
    /// has ended.
    pub async fn transaction(
        &self,
        writes: impl IntoIterator<Item = LocalWrite>,
    ) -> Result<Vec<LocalWritten>, LocalError> {
        let plain = |write: LocalWrite| PlainWrite {
            user: None,
            collection: write.collection,
            record_id: write.id,
            change: write.change,
            timestamp: None,
            base_version: write.version,
        };
        let writes = writes.into_iter().map(plain).collect();
        let unit = PlainUnit { user: None, writes, past_policy: true };
        let shared = self.shared()?;
        let run = shared.commits.run(&Principal::Local, Transaction::PlainUnit(unit));
        match run.await {
            Ok(TransactionAnswer::PlainUnit(outcomes)) => written(outcomes),
            Ok(
                TransactionAnswer::Hello(_)
                | TransactionAnswer::Writes(_)
                | TransactionAnswer::Pushed(_)
                | TransactionAnswer::Plain(_)
                | TransactionAnswer::Swept(_)
                | TransactionAnswer::Begun,
            ) => Err(mixed_up()),
            Err(TransactError::Failed(error)) => Err(LocalError::Store(error)),
            Err(TransactError::Unknown(error)) => Err(LocalError::Unknown(error)),
        }
    }

    /// Watches a collection: tells what was committed to it from now on, by whomever.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn watch(&self, collection: &str) -> Result<LocalWatch, LocalError> {
        self.watch_at(collection, Position::Now).await
    }

    /// Watches a collection from a place that was told earlier, perhaps before the server was started;
    /// `None` begins with every record that there is.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn watch_from(
        &self,
        collection: &str,
        cursor: Option<Cursor>,
    ) -> Result<LocalWatch, LocalError> {
        self.watch_at(collection, Position::Start { cursor, resume: None }).await
    }

    async fn watch_at(
        &self,
        collection: &str,
        position: Position,
    ) -> Result<LocalWatch, LocalError> {
        let collection = Collection::new(collection)?;
        // before the first read, so that no change falls between
        let moved = self.shared()?.feed.watch(&collection);
        let mut watch =
            LocalWatch { local: self.clone(), collection, moved, position: Some(position) };
        if watch.position == Some(Position::Now) {
            watch.page().await?;
        }
        Ok(watch)
    }

    async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, LocalError> {
        self.shared()?.read_locally(request).await.map_err(|error| match error {
            ReadError::Store(error) => LocalError::Store(error),
            ReadError::TooLong | ReadError::Busy | ReadError::SetBack => {
                let message = "the server had no room for the read: try again later";
                LocalError::Store(StoreError::new(StoreErrorKind::Other, message))
            }
        })
    }

    fn shared(&self) -> Result<Arc<Shared>, LocalError> {
        self.shared.upgrade().filter(|_| !*self.ending.borrow()).ok_or(LocalError::Ended)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// A watch of a collection by the server's own program. One that is slow misses no change, but is told
/// several of a record as one.
pub struct LocalWatch {
    local: Local,
    collection: Collection,
    moved: watch::Receiver<()>,
    /// The place at which the next page begins.
    position: Option<Position>,
}

impl LocalWatch {
    /// Waits for the next changes. One that is dropped before it is through loses none.
    ///
    /// # Errors
    /// When the store fails; the next call tries again. [`LocalError::Ended`] when the server has ended.
    pub async fn next(&mut self) -> Result<LocalChanges, LocalError> {
        loop {
            self.moved.mark_unchanged();
            let told = self.page().await?;
            if !told.changes.is_empty() || told.anew {
                return Ok(told);
            }
            if !matches!(self.position, Some(Position::Start { .. })) {
                continue;
            }
            tokio::select! {
                _ = self.moved.changed() => {}
                () = wait_for_end(&mut self.local.ending) => return Err(LocalError::Ended),
            }
        }
    }

    /// Reads the next page, and notes the place behind it.
    async fn page(&mut self) -> Result<LocalChanges, LocalError> {
        let position = self.position.clone().ok_or_else(mixed_up)?;
        let (reader, limits) = (reader(self.collection.clone()), PageLimits::default());
        let request = ReadRequest::CatchUp { reader, position, limits };
        let page = match self.local.read(request).await? {
            ReadAnswer::Page(page) => page,
            ReadAnswer::Pulled(_)
            | ReadAnswer::Whole(_)
            | ReadAnswer::Found(_)
            | ReadAnswer::Refused { .. } => return Err(mixed_up()),
        };
        let anew = matches!(page.content, Content::Snapshot { .. });
        let changes = match page.content {
            Content::Changes(changes) => changes.into_iter().map(LocalChange::from).collect(),
            Content::Snapshot { records, .. } | Content::Load { records, .. } => records
                .into_iter()
                .map(|record| LocalChange {
                    id: record.id,
                    document: Some(record.document),
                    version: record.version,
                    user: None,
                })
                .collect(),
        };
        let (next, cursor) = match page.next {
            Next::More(position) => (position, None),
            Next::Done { cursor, .. } => {
                (Position::Start { cursor: Some(cursor.clone()), resume: None }, Some(cursor))
            }
        };
        self.position = Some(next);
        Ok(LocalChanges { changes, anew, cursor })
    }
}

impl fmt::Debug for LocalWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalWatch").field(&self.collection).finish()
    }
}

impl From<PageChange> for LocalChange {
    fn from(PageChange { record_id, change: news, .. }: PageChange) -> Self {
        let document = news.change.apply(None);
        Self { id: record_id, document, version: news.version, user: news.user_id }
    }
}

/// A reader who sees everything, and each change as the whole record.
fn reader(collection: Collection) -> Reader {
    let mut reader = Reader::from(collection);
    reader.whole = true;
    reader
}

/// The outcomes of writes, of which each was made or failed.
fn written(outcomes: Vec<Outcome>) -> Result<Vec<LocalWritten>, LocalError> {
    let (mut written, mut failed) = (Vec::with_capacity(outcomes.len()), Vec::new());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let (id, updated_at) = (outcome.record_id, outcome.committed_at);
        let (code, message) = match outcome.verdict {
            Verdict::Applied { version, .. } => {
                written.push(LocalWritten { id, version: Some(version), updated_at });
                continue;
            }
            Verdict::Unchanged { version } => {
                written.push(LocalWritten { id, version, updated_at });
                continue;
            }
            Verdict::Conflict { .. } => {
                let message = "a field of the write was changed after the version that it names";
                (ErrorCode::Conflict, message.to_owned())
            }
            Verdict::Refused { code, message } => (code, message),
            Verdict::Superseded | Verdict::OutOfOrder { .. } => return Err(mixed_up()),
        };
        failed.push(FailedWrite { index, code, message });
    }
    if failed.is_empty() { Ok(written) } else { Err(LocalError::Failed(failed)) }
}

fn mixed_up() -> LocalError {
    LocalError::Store(StoreError::new(StoreErrorKind::Other, "the server mixed up its answers"))
}
