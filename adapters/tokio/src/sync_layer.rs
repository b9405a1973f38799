//! The client as the app holds it.

use std::fmt;

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
use synclayer_core::{PendingWrite, Rejected, SignOut, Status, WriteId};
use tokio::runtime;

use crate::collection::Collection;
use crate::network::Sockets;
use crate::stream::{Events, StatusWatch};
use crate::typed::CollectionOf;

#[doc = doc!(SyncLayer)]
///
/// Calls that are dropped before they resolve may or may not have taken effect.
#[derive(Clone)]
pub struct SyncLayer(Handle);

impl SyncLayer {
    #[doc = doc!(open)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use synclayer_tokio::{SyncConfig, SyncLayer};
    ///
    /// let config = SyncConfig::new("http://localhost:8080").collections(["todos"]);
    /// let sync = SyncLayer::open(config).await?;
    /// assert_eq!(sync.status().await?.pending_writes, 0);
    /// sync.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(config: SyncConfig) -> Result<Self, OpenError> {
        let runtime = runtime::Handle::try_current();
        let runtime = runtime.map_err(|error| OpenError::Start(error.to_string()))?;
        let setup = Setup::new(config)?;
        let (inbox, commands) = Inbox::new(|| {});
        let network = Sockets::new(runtime, setup.target.clone(), inbox.clone());
        Ok(Self(Handle::open(setup, (inbox, commands), Box::new(network))?.await?))
    }

    #[doc = doc!(collection)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// let todos = sync.collection("todos")?;
    /// assert_eq!(todos.name(), "todos");
    /// assert!(todos.get_all().await?.is_empty());
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
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// use synclayer_tokio::EventKind;
    ///
    /// let mut events = sync.events();
    /// sync.connect().await?;
    /// while let Some(event) = events.next().await {
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
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// let status = sync.status().await?;
    /// println!("{:?}, {} writes wait", status.connection, status.pending_writes);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<Status, SyncError> {
        self.0.status().await
    }

    #[doc = doc!(watch_status)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// let mut statuses = sync.watch_status();
    /// while let Some(status) = statuses.next().await {
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
    pub async fn metrics(&self) -> Result<Metrics, SyncError> {
        self.0.metrics().await
    }

    #[doc = doc!(connect)]
    pub async fn connect(&self) -> Result<(), SyncError> {
        self.0.set_connected(true).await
    }

    #[doc = doc!(disconnect)]
    pub async fn disconnect(&self) -> Result<(), SyncError> {
        self.0.set_connected(false).await
    }

    #[doc = doc!(set_online)]
    pub async fn set_online(&self, online: bool) -> Result<(), SyncError> {
        self.0.set_online(online).await
    }

    #[doc = doc!(sync_now)]
    pub async fn sync_now(&self) -> Result<(), SyncError> {
        self.0.sync_now().await
    }

    #[doc = doc!(adopt)]
    pub async fn adopt(&self) -> Result<(), SyncError> {
        self.0.adopt().await
    }

    #[doc = doc!(offer)]
    pub async fn offer(&self) -> Result<(), SyncError> {
        self.0.offer().await
    }

    #[doc = doc!(set_token)]
    pub async fn set_token(&self, token: &str) -> Result<(), SyncError> {
        self.0.set_token(token).await
    }

    #[doc = doc!(transaction)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// use serde_json::json;
    ///
    /// let made = sync.transaction(|t| {
    ///     t.save_with_id("accounts", "ann", &json!({ "sum": 10 }))?;
    ///     t.save_with_id("accounts", "bob", &json!({ "sum": 0 }))?;
    ///     t.update("accounts", "ann", &json!({ "sum": 7 }))?;
    ///     t.update("accounts", "bob", &json!({ "sum": 3 }))
    /// }).await?;
    /// assert!(made.transaction.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction(
        &self,
        body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<(), SyncError> + Send + 'static,
    ) -> Result<SavedTransaction, SyncError> {
        let made = self.0.transaction(body).await?;
        made.into_iter().next().ok_or(SyncError::Closed)
    }

    #[doc = doc!(pending)]
    pub async fn pending(&self) -> Result<Vec<PendingWrite>, SyncError> {
        self.0.pending().await
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
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// use synclayer_tokio::SyncError;
    ///
    /// match sync.synced().await {
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
    pub async fn synced(&self) -> Result<(), SyncError> {
        self.0.synced().await
    }

    #[doc = doc!(sign_out)]
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use synclayer_tokio::{SyncConfig, SyncLayer};
    /// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    /// # let sync = SyncLayer::open(config).await?;
    /// use synclayer_tokio::{Misuse, SignOut, SyncError};
    ///
    /// match sync.sign_out(SignOut::Wipe).await {
    ///     Ok(()) => println!("nothing is left of the user on this device"),
    ///     Err(SyncError::Misuse(Misuse::Unsent(unsent))) => println!("not yet: {unsent}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        self.0.sign_out(how).await
    }

    #[doc = doc!(close)]
    pub async fn close(&self) {
        self.0.close().await;
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
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use synclayer_tokio::{SyncConfig, SyncLayer};
/// # let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
/// # let sync = SyncLayer::open(config).await?;
/// let rejected = sync.rejected();
/// for write in rejected.list().await? {
///     println!("{} was refused: {}", write.record_id, write.message);
///     rejected.discard(write.write).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RejectedWrites(Handle);

impl RejectedWrites {
    #[doc = doc!(list)]
    pub async fn list(&self) -> Result<Vec<Rejected>, SyncError> {
        self.0.rejected().await
    }

    #[doc = doc!(retry)]
    pub async fn retry(&self, write: WriteId) -> Result<Saved, SyncError> {
        self.0.retry(write).await
    }

    #[doc = doc!(discard)]
    pub async fn discard(&self, write: WriteId) -> Result<(), SyncError> {
        self.0.discard(write).await
    }

    #[doc = doc!(reject_stalled)]
    pub async fn reject_stalled(&self, write: WriteId) -> Result<(), SyncError> {
        self.0.reject_stalled(write).await
    }
}

impl fmt::Debug for RejectedWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectedWrites").finish_non_exhaustive()
    }
}
