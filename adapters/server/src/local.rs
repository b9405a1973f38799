//! The server as the program that runs it uses it, without a connection.

mod watch;

use std::fmt;
use std::sync::{Arc, Weak};

use serde::Serialize;
use synclayer_core::rules::{
    FoundRecord, HttpQuery, Outcome, PlainUnit, PlainWrite, Reader, Verdict,
};
use synclayer_core::{
    Access, Asker, Change, Collection, Delta, Document, DocumentError, ErrorCode, Limits,
    NameError, Query, QueryError, ReadAnswer, ReadRequest, RecordId, StoreError, StoreErrorKind,
    Timestamp, TransactError, Transaction, TransactionAnswer, User,
};
use tokio::sync::watch::Receiver;

use crate::fairness::Principal;
use crate::reads::ReadError;
use crate::shared::Shared;

pub use self::watch::{LocalChange, LocalChanges, LocalWatch};

/// The server as the program that runs it uses it: it reads, queries, writes and watches without a
/// connection and past all rules, and is bound by the limits of a document alone. What it writes reaches
/// the clients as any other write does, without a user.
///
/// [`as_user`](Self::as_user) is the same under the rules, as some user. A [`Policy`](crate::Policy) is asked before each
/// commit of somebody else; a [`watch`](Self::watch) tells after it.
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
    ending: Receiver<bool>,
    /// The user under whose rights all happens; `None` for no rules.
    user: Option<User>,
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
    /// The user may read nothing of the collection, or not in this way.
    #[error("{0}")]
    Refused(&'static str),
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
}

impl Local {
    pub(crate) fn new(shared: &Arc<Shared>, ending: Receiver<bool>) -> Self {
        Self { shared: Arc::downgrade(shared), ending, user: None }
    }

    /// The same as this user, with the rights that the server's [`Policy`](crate::Policy) gives them: reads return what
    /// they may read, writes that they may not make fail with `UNAUTHORIZED`, and the changes bear their name.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use serde_json::json;
    /// use synclayer_server::{
    ///     Collection, Embedded, ErrorCode, LocalError, MemoryServerStore, Query, Right, Rules, ServerConfig,
    ///     UserId,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let notes = Collection::new("notes")?;
    /// let mut rules = Rules::new(false);
    /// rules.set(notes.clone(), Right::Read, "data.owner == user")?;
    /// rules.set(notes, Right::Create, "new.owner == user")?;
    /// // the rules are asked before each commit
    /// let config = ServerConfig::new().policy(Arc::new(rules));
    /// let server = Embedded::open(config, Arc::new(MemoryServerStore::new())).await?;
    ///
    /// let program = server.local();
    /// let mut commits = program.watch("notes").await?;
    /// let ann = program.as_user(UserId::new("ann")?);
    /// program.save("notes", "1", &json!({ "owner": "bob" })).await?;
    /// ann.save("notes", "2", &json!({ "owner": "ann" })).await?;
    /// let refused = ann.save("notes", "3", &json!({ "owner": "bob" })).await;
    /// let Err(LocalError::Failed(writes)) = refused else { panic!("{refused:?}") };
    /// assert_eq!(writes[0].code, ErrorCode::Unauthorized);
    ///
    /// assert_eq!(program.query("notes", Query::default()).await?.len(), 2);
    /// assert_eq!(ann.query("notes", Query::default()).await?.len(), 1);
    /// // the program is told after each commit
    /// let told = commits.next().await?;
    /// assert_eq!(told.changes[1].user, Some(UserId::new("ann")?));
    /// server.kick(&UserId::new("ann")?);
    /// # server.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn as_user(&self, user: impl Into<User>) -> Self {
        Self { user: Some(user.into()), ..self.clone() }
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
        let collection = Collection::new(collection)?;
        let (reader, bytes) = (self.reader(&collection, self.sight(&collection)?)?, usize::MAX);
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
            user: self.user.clone(),
            collection: write.collection,
            record_id: write.id,
            change: write.change,
            timestamp: None,
            base_version: write.version,
        };
        let writes = writes.into_iter().map(plain).collect();
        let (user, past_policy) = (self.user.clone(), self.user.is_none());
        let unit = PlainUnit { user, writes, past_policy };
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

    /// The part of a collection that is seen.
    fn sight(&self, collection: &Collection) -> Result<Sight, LocalError> {
        let Some(user) = &self.user else { return Ok(Sight { access: Access::All, stamp: 0 }) };
        let shared = self.shared()?;
        let (policy, claims) = (&shared.config.policy, user.claims.as_ref());
        let by = Asker { user: Some(&user.id), claims, records: None };
        let access = policy.access(&by, collection);
        Ok(Sight { access, stamp: policy.stamp(&by, collection) })
    }

    /// A reader of what is seen, to whom each change is told as the whole record.
    fn reader(&self, collection: &Collection, sight: Sight) -> Result<Reader, LocalError> {
        if sight.access == Access::None {
            return Err(LocalError::Refused("this user may not read the collection"));
        }
        let mut reader = Reader::from(collection.clone());
        (reader.user, reader.access, reader.whole) = (self.user.clone(), sight.access, true);
        Ok(reader)
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

/// The part of a collection that is seen, and the policy's number for it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sight {
    access: Access,
    stamp: u64,
}

impl Sight {
    fn is_partial(self) -> bool {
        matches!(self.access, Access::Some | Access::Related)
    }
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
