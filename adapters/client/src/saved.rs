//! Writes that are saved here, and what becomes of them.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use synclayer_core::{Fate, RecordId, WriteId};

use crate::callback;
use crate::error::SyncError;
use crate::set_once::SetOnce;
use crate::wait::{TimedOut, Wait};

/// The fate of a write, or the reason why it will not be known.
pub(crate) type KnownFate = Result<Fate, SyncError>;

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
    /// The write's id in [events](synclayer_core::EventKind) and in the list of
    /// rejected writes; `None` where nothing changed.
    pub write: Option<WriteId>,
    pub(crate) fate: SetOnce<KnownFate>,
}

impl Saved {
    /// Waits until the server has acknowledged the write, or it is known that it won't: see
    /// [`Fate`]. Without a connection that may take for ever: put a timeout around it where that
    /// matters. It gives the same to all who wait.
    ///
    /// # Errors
    /// When the store fails, or the client is closed, before it is known. The write stays in the
    /// store, and goes out when the client is opened again.
    ///
    /// # Examples
    ///
    /// ```
    /// # use synclayer_client::error::SyncError;
    /// # use synclayer_client::saved::Saved;
    /// # use synclayer_core::Fate;
    /// async fn tell(saved: Saved) -> Result<(), SyncError> {
    ///     match saved.confirmed().await? {
    ///         Fate::Rejected { message, .. } => println!("{} was refused: {message}", saved.id),
    ///         fate => println!("the server has it: {}", fate.is_taken()),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use = "it is known when this is awaited"]
    pub fn confirmed(&self) -> Confirmed {
        Confirmed(self.fate.clone())
    }

    /// Waits as [`confirmed`](Self::confirmed), for at most this time, and keeps the thread: it is
    /// not for async tasks.
    ///
    /// # Errors
    /// When it takes longer than `timeout`; the write goes on all the same. Within: as
    /// [`confirmed`](Self::confirmed).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use synclayer_client::saved::Saved;
    /// fn reached(saved: &Saved) -> bool {
    ///     let told = saved.wait_confirmed(Duration::from_secs(10));
    ///     matches!(told, Ok(Ok(fate)) if fate.is_taken())
    /// }
    /// ```
    pub fn wait_confirmed(&self, timeout: Duration) -> Result<Result<Fate, SyncError>, TimedOut> {
        self.confirmed().wait_timeout(timeout)
    }
}

/// A transaction that is saved here, as durably as the store was set up for. It tells what becomes of it
/// at the server, for as long as the client lives, and may be dropped: it goes out all the same.
#[derive(Clone)]
pub struct SavedTransaction {
    /// Its name in [events](synclayer_core::EventKind) and in the list of rejected writes; `None` where
    /// it changes nothing.
    pub transaction: Option<WriteId>,
    pub(crate) fate: SetOnce<KnownFate>,
}

impl SavedTransaction {
    /// Waits until the server has acknowledged the transaction, or it is known that it won't: see
    /// [`Saved::confirmed`].
    #[must_use = "it is known when this is awaited"]
    pub fn confirmed(&self) -> Confirmed {
        Confirmed(self.fate.clone())
    }

    /// Waits as [`confirmed`](Self::confirmed), for at most this time, and keeps the thread: it is
    /// not for async tasks.
    ///
    /// # Errors
    /// As [`Saved::wait_confirmed`].
    pub fn wait_confirmed(&self, timeout: Duration) -> Result<Result<Fate, SyncError>, TimedOut> {
        self.confirmed().wait_timeout(timeout)
    }
}

impl fmt::Debug for SavedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SavedTransaction").field(&self.transaction).finish()
    }
}

/// Many writes of a collection that are saved here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SavedAll {
    /// The records, in the order in which they were given.
    pub ids: Vec<RecordId>,
    /// The transactions that the writes were split into, in their order.
    pub transactions: Vec<SavedTransaction>,
}

impl SavedAll {
    /// Records, with the transactions that wrote them.
    #[must_use]
    pub fn new(ids: Vec<RecordId>, transactions: Vec<SavedTransaction>) -> Self {
        Self { ids, transactions }
    }
}

/// The fate of a write as a future: see [`Saved::confirmed`].
#[derive(Clone)]
pub struct Confirmed(pub(crate) SetOnce<KnownFate>);

impl Future for Confirmed {
    type Output = Result<Fate, SyncError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.poll(context) {
            Poll::Ready(fate) => Poll::Ready(fate.unwrap_or(Err(SyncError::Closed))),
            // the engine waits for this thread
            Poll::Pending => match callback::check() {
                Ok(()) => Poll::Pending,
                Err(inside) => Poll::Ready(Err(inside)),
            },
        }
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

impl fmt::Debug for Confirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirmed").finish_non_exhaustive()
    }
}
