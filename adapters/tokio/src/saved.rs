//! Writes that are saved here, and what becomes of them.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;

use synclayer_client::engine::Made;
use synclayer_client::error::SyncError;
use synclayer_client::fate::FateReceiver;
use synclayer_core::client::fate::Fate;
use synclayer_core::protocol::name::{RecordId, WriteId};

/// A write that is saved here, as durably as the store was set up for. It stands for the record's
/// id wherever one is wanted, and tells what becomes of the write at the server, for as long as the
/// client lives. It may be dropped: the write goes out all the same.
///
/// A write that joins an earlier one of the same record, which has not been sent yet, shares its
/// fate; so do writes that the conflict strategy merges. A write that changes nothing shares the
/// fate of the last one that waits for the record.
#[derive(Clone)]
pub struct Saved {
    /// The record.
    pub id: RecordId,
    /// The write's id in [events](crate::EventKind) and in the list of rejected writes; `None` where
    /// nothing changed.
    pub write: Option<WriteId>,
    fate: FateReceiver,
}

impl Saved {
    pub(crate) fn new(id: RecordId, made: Made) -> Self {
        Self { id, write: made.write, fate: made.fate }
    }

    /// Waits until the server has acknowledged the write, or it is known that it won't: see
    /// [`Fate`]. Without a connection that may take for ever: put a timeout around it where that
    /// matters. May be dropped and called again, and gives the same to all.
    ///
    /// ```no_run
    /// # use serde_json::json;
    /// # use synclayer_tokio::{Collection, Fate};
    /// # async fn run(todos: Collection) -> Result<(), Box<dyn std::error::Error>> {
    /// let saved = todos.save(&json!({ "text": "Buy milk" })).await?;
    /// match saved.confirmed().await? {
    ///     Fate::Rejected { message, .. } => println!("{} was refused: {message}", saved.id),
    ///     fate => println!("the server has it: {}", fate.is_taken()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the store fails, or the client is closed, before it is known. The write stays in the
    /// store, and goes out when the client is opened again.
    pub async fn confirmed(&self) -> Result<Fate, SyncError> {
        poll_fn(|context| self.fate.poll(context)).await
    }
}

impl Deref for Saved {
    type Target = RecordId;

    fn deref(&self) -> &RecordId {
        &self.id
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, write, .. } = self;
        f.debug_struct("Saved").field("id", id).field("write", write).finish_non_exhaustive()
    }
}
