//! Transactions as both faces make them: several writes with one fate.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use synclayer_core::{
    Collection, Delta, Document, Limits, Misuse, RecordId, TransactionBody, TransactionDraft,
};

use crate::callback::caught;
use crate::error::SyncError;
use crate::setup::{collection, fresh_record_id, record_id};

/// The collections that a transaction is about, known when it was made.
pub(crate) type Touched = Arc<Mutex<BTreeSet<Collection>>>;

/// A transaction in the making. It sees what the app sees, its own writes included, and nothing that
/// another task, another thread or the server does comes in between. Two writes of a record become one.
pub struct Transaction<'t, 'd> {
    draft: &'t mut TransactionDraft<'d>,
    limits: &'t Limits,
    touched: &'t Touched,
}

impl Transaction<'_, '_> {
    /// A record, with the transaction's own writes made.
    ///
    /// # Errors
    /// When a name can't be one, or the store has failed.
    pub fn get(&self, collection: &str, id: &str) -> Result<Option<Document>, SyncError> {
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.get(&collection, &id)?)
    }

    /// Saves a new record under an id of its own, and returns that.
    ///
    /// # Errors
    /// When the collection's name can't be one, the document is no JSON object or breaks a limit, or the
    /// store has failed.
    pub fn save<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        document: &T,
    ) -> Result<RecordId, SyncError> {
        let id = fresh_record_id()?;
        self.save_with_id(collection, &id, document)?;
        Ok(id)
    }

    /// Saves a record under an id. A record that exists is replaced as a whole.
    ///
    /// # Errors
    /// As [`save`](Self::save), and when the id can't be one.
    pub fn save_with_id<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        id: &str,
        document: &T,
    ) -> Result<(), SyncError> {
        let document = Document::of(document, self.limits)?;
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.save(&collection, &id, document)?)
    }

    /// Sets some top-level fields of a record.
    ///
    /// # Errors
    /// As [`save_with_id`](Self::save_with_id), and when there is no such record.
    pub fn update<T: Serialize + ?Sized>(
        &mut self,
        collection: &str,
        id: &str,
        fields: &T,
    ) -> Result<(), SyncError> {
        let fields = Document::of(fields, self.limits)?;
        self.change(collection, id, &Delta::new(fields, Vec::new()))
    }

    /// Sets some top-level fields of a record and removes others.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn change(&mut self, collection: &str, id: &str, delta: &Delta) -> Result<(), SyncError> {
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.update(&collection, &id, delta)?)
    }

    /// Deletes a record. Nothing happens if there is none.
    ///
    /// # Errors
    /// When a name can't be one, or the store has failed.
    pub fn delete(&mut self, collection: &str, id: &str) -> Result<(), SyncError> {
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.delete(&collection, &id)?)
    }

    /// Lets the transaction fail where a record is no longer as it was at its begin when it reaches the
    /// server.
    ///
    /// # Errors
    /// When a name can't be one, or the store has failed.
    pub fn expect_unchanged(&mut self, collection: &str, id: &str) -> Result<(), SyncError> {
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.expect_unchanged(&collection, &id)?)
    }

    /// The same, of a state that the app was shown earlier; `None`: there was no record.
    ///
    /// # Errors
    /// When the record is another already ([`Misuse::PreconditionFailed`]); as
    /// [`expect_unchanged`](Self::expect_unchanged).
    pub fn expect(
        &mut self,
        collection: &str,
        id: &str,
        seen: Option<&Document>,
    ) -> Result<(), SyncError> {
        let (collection, id) = self.place(collection, id)?;
        Ok(self.draft.expect(&collection, &id, seen)?)
    }

    /// Lets the other writes go on where the conflict strategy gives one of them up. Otherwise the
    /// transaction is rejected whole then, with the code `LOST`.
    pub fn keep_what_won(&mut self) {
        self.draft.keep_what_won();
    }

    fn place(&self, name: &str, id: &str) -> Result<(Collection, RecordId), SyncError> {
        let (name, id) = (collection(name)?, record_id(id)?);
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.insert(name.clone());
        Ok((name, id))
    }
}

impl fmt::Debug for Transaction<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

/// The app's closure as the engine runs it: its errors, and a panic of it, are errors of the call.
pub(crate) fn transaction(
    body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<(), SyncError> + Send + 'static,
    limits: &Limits,
    touched: &Touched,
) -> TransactionBody {
    let (limits, touched) = (limits.clone(), Arc::clone(touched));
    Box::new(move |draft| {
        let mut transaction = Transaction { draft, limits: &limits, touched: &touched };
        let made = caught(|| body(&mut transaction)).map_err(|panic| {
            Misuse::TransactionFailed { message: format!("its closure has panicked: {panic}") }
        })?;
        made.map_err(misuse)
    })
}

/// An error of the app's closure, for the core.
fn misuse(error: SyncError) -> Misuse {
    if let SyncError::Misuse(misuse) = error {
        return misuse;
    }
    if let SyncError::Document(error) = error {
        return Misuse::Document(error);
    }
    if let SyncError::Store(error) = error {
        return Misuse::Store(error);
    }
    Misuse::TransactionFailed { message: error.to_string() }
}

/// The most bytes of documents of a part, well below what a frame carries.
const PART_BYTES: usize = 1 << 20;

/// One of many writes of a collection.
pub(crate) enum PartWrite {
    Save(Document),
    Update(Delta),
    Delete,
}

impl PartWrite {
    fn bytes(&self) -> usize {
        match self {
            Self::Save(document) => document.to_string().len(),
            Self::Update(delta) => delta.set.to_string().len(),
            Self::Delete => 0,
        }
    }
}

/// Splits many writes of a collection into transactions, which keep what wins a conflict.
pub(crate) fn parts(name: &Collection, writes: Vec<(RecordId, PartWrite)>) -> Vec<TransactionBody> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for write in writes {
        let more = write.1.bytes();
        let full = part.len() == TransactionDraft::MAX_MEMBERS || bytes + more > PART_BYTES;
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += more;
        part.push(write);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts.into_iter().map(|part| part_body(name.clone(), part)).collect()
}

fn part_body(name: Collection, part: Vec<(RecordId, PartWrite)>) -> TransactionBody {
    Box::new(move |draft| {
        draft.keep_what_won();
        part.into_iter().try_for_each(|(id, write)| match write {
            PartWrite::Save(document) => draft.save(&name, &id, document),
            PartWrite::Update(delta) => draft.update(&name, &id, &delta),
            PartWrite::Delete => draft.delete(&name, &id),
        })
    })
}
