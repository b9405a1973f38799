//! The client as the app holds it.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use synclayer_client::command::Inbox;
use synclayer_client::config::SyncConfig;
use synclayer_client::doc;
use synclayer_client::error::{OpenError, SyncError};
use synclayer_client::handle::Handle;
use synclayer_client::metrics::Metrics;
use synclayer_client::saved::{Saved, SavedTransaction};
use synclayer_client::setup::Setup;
use synclayer_client::transaction::Transaction;
use synclayer_client::wait::{TimedOut, Wait};
use synclayer_core::{PendingWrite, Rejected, SignOut, Status, WriteId};

use crate::collection::Collection;
use crate::listen::{Events, StatusWatch};
use crate::network::Polled;
use crate::typed::CollectionOf;

#[doc = doc!(SyncLayer)]
#[derive(Clone)]
pub struct SyncLayer(Handle);

impl SyncLayer {
    #[doc = doc!(open)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use synclayer_blocking::{SyncConfig, SyncLayer};
    ///
    /// let config = SyncConfig::new("http://localhost:8080").collections(["todos"]);
    /// let sync = SyncLayer::open(config)?;
    /// assert_eq!(sync.status()?.pending_writes, 0);
    /// sync.close();
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(config: SyncConfig) -> Result<Self, OpenError> {
        let setup = Setup::new(config)?;
        let refuse = |error: io::Error| OpenError::Start(error.to_string());
        let (network, waker) = Polled::new(setup.target.clone()).map_err(refuse)?;
        // a waker that fails has a thread that has ended, and that tells
        let inbox = Inbox::new(move || drop(waker.wake()));
        Ok(Self(Handle::open(setup, inbox, Box::new(network))?.wait()?))
    }

    #[doc = doc!(collection)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// let todos = sync.collection("todos")?;
    /// assert_eq!(todos.name(), "todos");
    /// assert!(todos.get_all()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn collection(&self, name: &str) -> Result<Collection, SyncError> {
        Collection::new(&self.0, name)
    }

    #[doc = doc!(collection_of)]
    pub fn collection_of<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<CollectionOf<T>, SyncError> {
        self.collection(name).map(CollectionOf::new)
    }

    #[doc = doc!(events)]
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// use synclayer_blocking::EventKind;
    ///
    /// let events = sync.events();
    /// sync.connect()?;
    /// for event in events {
    ///     match event.kind {
    ///         EventKind::RealtimeConnected => println!("online"),
    ///         EventKind::RealtimeDisconnected { .. } => println!("offline"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.0.events())
    }

    #[doc = doc!(status)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// let status = sync.status()?;
    /// println!("{:?}, {} writes wait", status.connection, status.pending_writes);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status(&self) -> Result<Status, SyncError> {
        self.0.status().wait()
    }

    #[doc = doc!(watch_status)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// for status in sync.watch_status() {
    ///     println!("{:?}, {} writes wait", status.connection, status.pending_writes);
    ///     # break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn watch_status(&self) -> StatusWatch {
        StatusWatch(self.0.watch_status())
    }

    #[doc = doc!(metrics)]
    pub fn metrics(&self) -> Result<Metrics, SyncError> {
        self.0.metrics().wait()
    }

    #[doc = doc!(connect)]
    pub fn connect(&self) -> Result<(), SyncError> {
        self.0.set_connected(true).wait()
    }

    #[doc = doc!(disconnect)]
    pub fn disconnect(&self) -> Result<(), SyncError> {
        self.0.set_connected(false).wait()
    }

    #[doc = doc!(set_online)]
    pub fn set_online(&self, online: bool) -> Result<(), SyncError> {
        self.0.set_online(online).wait()
    }

    #[doc = doc!(sync_now)]
    pub fn sync_now(&self) -> Result<(), SyncError> {
        self.0.sync_now().wait()
    }

    #[doc = doc!(adopt)]
    pub fn adopt(&self) -> Result<(), SyncError> {
        self.0.adopt().wait()
    }

    #[doc = doc!(offer)]
    pub fn offer(&self) -> Result<(), SyncError> {
        self.0.offer().wait()
    }

    #[doc = doc!(set_token)]
    pub fn set_token(&self, token: &str) -> Result<(), SyncError> {
        self.0.set_token(token).wait()
    }

    #[doc = doc!(transaction)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// use serde_json::json;
    ///
    /// let made = sync.transaction(|t| {
    ///     t.save_with_id("accounts", "ann", &json!({ "sum": 10 }))?;
    ///     t.save_with_id("accounts", "bob", &json!({ "sum": 0 }))?;
    ///     t.update("accounts", "ann", &json!({ "sum": 7 }))?;
    ///     t.update("accounts", "bob", &json!({ "sum": 3 }))
    /// })?;
    /// assert!(made.transaction.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn transaction(
        &self,
        body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<(), SyncError> + Send + 'static,
    ) -> Result<SavedTransaction, SyncError> {
        let made = self.0.transaction(body).wait()?;
        made.into_iter().next().ok_or(SyncError::Closed)
    }

    #[doc = doc!(pending)]
    pub fn pending(&self) -> Result<Vec<PendingWrite>, SyncError> {
        self.0.pending().wait()
    }

    #[doc = doc!(rejected)]
    #[must_use]
    pub fn rejected(&self) -> RejectedWrites {
        RejectedWrites(self.0.clone())
    }

    #[doc = doc!(synced)]
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// use synclayer_blocking::SyncError;
    ///
    /// match sync.synced() {
    ///     Ok(()) => println!("the server has everything, and so have we"),
    ///     Err(SyncError::NotInSync(failures)) => {
    ///         for failure in failures {
    ///             println!("{failure}"); // the server refuses notes (UNAUTHORIZED): …
    ///         }
    ///     }
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn synced(&self) -> Result<(), SyncError> {
        self.0.synced().wait()
    }

    /// Waits as [`synced`](Self::synced), for at most this time.
    ///
    /// # Errors
    /// When it takes longer; the writes go on all the same. Within: as [`synced`](Self::synced).
    pub fn synced_timeout(&self, timeout: Duration) -> Result<Result<(), SyncError>, TimedOut> {
        self.0.synced().wait_timeout(timeout)
    }

    #[doc = doc!(sign_out)]
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_blocking::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config)?;
    /// use synclayer_blocking::{Misuse, SignOut, SyncError};
    ///
    /// match sync.sign_out(SignOut::Wipe) {
    ///     Ok(()) => println!("nothing is left of the user on this device"),
    ///     Err(SyncError::Misuse(Misuse::Unsent(unsent))) => println!("not yet: {unsent}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        self.0.sign_out(how).wait()
    }

    #[doc = doc!(close)]
    ///
    /// It waits for the client's threads to end, except for the look-up of a name or an HTTP request
    /// that takes longer than a second more.
    pub fn close(&self) {
        self.0.close().wait();
    }
}

impl fmt::Debug for SyncLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncLayer").finish_non_exhaustive()
    }
}

#[doc = doc!(RejectedWrites)]
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use synclayer_blocking::{SyncConfig, SyncLayer};
/// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
/// # let sync = SyncLayer::open(config)?;
/// let rejected = sync.rejected();
/// for write in rejected.list()? {
///     println!("{} was refused: {}", write.record_id, write.message);
///     rejected.discard(write.write)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RejectedWrites(Handle);

impl RejectedWrites {
    #[doc = doc!(list)]
    pub fn list(&self) -> Result<Vec<Rejected>, SyncError> {
        self.0.rejected().wait()
    }

    #[doc = doc!(retry)]
    pub fn retry(&self, write: WriteId) -> Result<Saved, SyncError> {
        self.0.retry(write).wait()
    }

    #[doc = doc!(discard)]
    pub fn discard(&self, write: WriteId) -> Result<(), SyncError> {
        self.0.discard(write).wait()
    }

    #[doc = doc!(reject_stalled)]
    pub fn reject_stalled(&self, write: WriteId) -> Result<(), SyncError> {
        self.0.reject_stalled(write).wait()
    }
}

impl fmt::Debug for RejectedWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedWrites").finish_non_exhaustive()
    }
}
