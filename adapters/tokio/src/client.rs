//! The client as the app holds it.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use synclayer_core::client::event::Status;
use synclayer_core::client::interface::ClientConfig;
use synclayer_core::rules::conflict::ConflictStrategy;
use synclayer_core::rules::row::Rejected;
use synclayer_core::words::limits::Limits;
use synclayer_core::words::message::Token;
use synclayer_core::words::name::{Collection as Name, Position};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::address::Address;
use crate::collection::Collection;
use crate::config::SyncConfig;
use crate::engine::{Answer, Command, Engine, Setup};
use crate::error::{OpenError, SyncError};
use crate::mailbox::mailbox;
use crate::socket::{Dialer, tls};
use crate::stream::{Events, Queue};

/// A client: a replica of some collections, which keeps itself in sync with a server.
///
/// It is cheap to clone, may be used from any thread, and may be dropped at any point: what was
/// saved stays saved. When the last clone and the last [`Collection`] are gone, it ends.
///
/// Calls that are dropped before they resolve may or may not have taken effect.
#[derive(Clone)]
pub struct SyncLayer {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Sender<Command>,
    /// Ends with the engine's thread, after its store is closed.
    ended: watch::Receiver<()>,
    limits: Limits,
    takes_token: bool,
}

impl SyncLayer {
    /// Opens a client with its store, and starts to connect unless it shall not.
    ///
    /// It does not wait for the server: without a connection it works on what is stored.
    ///
    /// # Errors
    /// When the configuration can't be used or the store can't be opened.
    pub async fn open(config: SyncConfig) -> Result<Self, OpenError> {
        let runtime = Handle::try_current().map_err(|error| OpenError::Start(error.to_string()))?;
        let address = Address::new(&config.base_url, config.websocket_url.as_deref())?;
        let takes_token = config.allow_insecure || address.is_private();
        check_token(&config, &address, takes_token)?;
        let limits = config.limits.clone();
        let tls = tls().map_err(|error| OpenError::Start(error.to_string()))?;
        let (inbox, commands) = channel();
        let setup = Setup {
            online: config.enable_realtime_sync,
            dialer: Dialer {
                runtime,
                address: Arc::new(address),
                tls,
                frame_bytes: limits.frame_bytes,
            },
            inbox: inbox.clone(),
            config: client_config(&config)?,
            factory: config.store.into_factory(),
        };
        let (alive, ended) = watch::channel(());
        // from here on, whatever drops this tells the engine to stop
        let shared = Arc::new(Shared { inbox, ended, limits, takes_token });
        start(setup, commands, alive).await?;
        Ok(Self { shared })
    }

    /// A collection, to read, write and watch. It joins those kept in sync at its first use.
    ///
    /// # Errors
    /// When no collection can have this name.
    pub fn collection(&self, name: &str) -> Result<Collection, SyncError> {
        let name =
            Name::new(name).map_err(|reason| SyncError::Name { name: name.to_owned(), reason })?;
        Ok(Collection { sync: self.clone(), name })
    }

    /// What happens from now on: see [`EventKind`](crate::EventKind). It ends when the client does.
    #[must_use]
    pub fn events(&self) -> Events {
        let (outlet, inlet) = mailbox(Queue::default());
        self.tell(move |engine| engine.listen(outlet));
        Events(inlet)
    }

    /// How the client is doing.
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn status(&self) -> Result<Status, SyncError> {
        self.ask(|engine| engine.call(|replica, _, _| Ok(replica.status()))).await?
    }

    /// Connects, and stays connected. Does nothing where that is so already.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn connect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_online(true)).await
    }

    /// Disconnects, and stays disconnected until [`connect`](Self::connect). Writes wait meanwhile.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn disconnect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_online(false)).await
    }

    /// Sets the token by which the server knows the user: a fresh one in place of one that has
    /// expired.
    ///
    /// # Errors
    /// When the token can't be sent in a header or would go over the network in the clear, or the
    /// client is closed.
    pub async fn set_token(&self, token: &str) -> Result<(), SyncError> {
        if !is_sendable(token) {
            return Err(SyncError::Token);
        }
        if !self.shared.takes_token {
            return Err(SyncError::Insecure);
        }
        let token = Token::new(token);
        self.ask(|engine| engine.set_token(token)).await
    }

    /// The writes that the server has refused for good.
    #[must_use]
    pub fn rejected(&self) -> RejectedWrites {
        RejectedWrites { sync: self.clone() }
    }

    /// Waits until every write made before this call is settled, and every collection has been
    /// confirmed by the server after it. Without a connection that may take for ever: put a
    /// timeout around it where that matters.
    ///
    /// # Errors
    /// When the store fails, or the client is closed.
    pub async fn synced(&self) -> Result<(), SyncError> {
        self.answered(Engine::synced).await
    }

    /// Ends the client, for all its clones: it disconnects, makes everything durable that was
    /// saved, and closes the store, which can then be opened again.
    pub async fn close(&self) {
        // an engine that has ended needs no telling
        let _ = self.shared.inbox.send(Command::Stop);
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn engine(&self) -> Sender<Command> {
        self.shared.inbox.clone()
    }

    /// Has the engine do something, and does not wait for it.
    pub(crate) fn tell(&self, call: impl FnOnce(&mut Engine) + Send + 'static) {
        // what the call holds is dropped with it where the engine has ended, and that tells
        let _ = self.shared.inbox.send(Command::Call(Box::new(call)));
    }

    /// Has the engine do something, and waits for what it says.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, SyncError> {
        let (answer, answered) = oneshot::channel();
        self.tell(move |engine| {
            // whoever no longer waits wants no answer
            let _ = answer.send(ask(engine));
        });
        answered.await.map_err(|_| SyncError::Closed)
    }

    /// Has the engine do something that it answers later.
    pub(crate) async fn answered(
        &self,
        ask: impl FnOnce(&mut Engine, Answer) + Send + 'static,
    ) -> Result<(), SyncError> {
        let (answer, answered) = oneshot::channel();
        self.tell(move |engine| ask(engine, answer));
        answered.await.map_err(|_| SyncError::Closed)?
    }
}

impl fmt::Debug for SyncLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncLayer").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // an engine that has ended needs no telling
        let _ = self.inbox.send(Command::Stop);
    }
}

/// The writes that the server has refused for good. They are out of the outbox, the records are as
/// if they had not been made, and they stay in this durable list until the app has seen to them.
#[derive(Clone, Debug)]
pub struct RejectedWrites {
    sync: SyncLayer,
}

impl RejectedWrites {
    /// The writes, in their order.
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn list(&self) -> Result<Vec<Rejected>, SyncError> {
        self.sync.ask(|engine| engine.call(|replica, _, _| Ok(replica.rejected()?))).await?
    }

    /// Makes a write again, as a new one, and takes it off the list.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub async fn retry(&self, write: Position) -> Result<(), SyncError> {
        self.sync
            .answered(move |engine, answer| {
                engine
                    .save(answer, |replica, now, out| Ok(replica.retry_rejected(now, write, out)?));
            })
            .await
    }

    /// Takes a write off the list for good.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub async fn discard(&self, write: Position) -> Result<(), SyncError> {
        self.sync
            .answered(move |engine, answer| {
                engine.save(answer, |replica, now, out| {
                    Ok(replica.discard_rejected(now, write, out)?)
                });
            })
            .await
    }

    /// Rejects a write by hand that
    /// [stalls](synclayer_core::client::event::EventKind::WriteStalled): it moves from the outbox
    /// to this list, and the writes behind it go on.
    ///
    /// # Errors
    /// When the write does not stall, the store has failed, or the client is closed.
    pub async fn reject_stalled(&self, write: Position) -> Result<(), SyncError> {
        self.sync
            .answered(move |engine, answer| {
                engine.save(answer, |replica, now, out| {
                    Ok(replica.reject_stalled_write(now, write, out)?)
                });
            })
            .await
    }
}

fn check_token(config: &SyncConfig, address: &Address, may_go: bool) -> Result<(), OpenError> {
    let Some(token) = &config.auth_token else { return Ok(()) };
    if !may_go {
        return Err(OpenError::Insecure { host: address.host.clone() });
    }
    if is_sendable(token) { Ok(()) } else { Err(OpenError::Token) }
}

fn is_sendable(token: &str) -> bool {
    token.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn client_config(config: &SyncConfig) -> Result<ClientConfig, OpenError> {
    let name = |name: &String| {
        Name::new(name).map_err(|reason| OpenError::Collection { name: name.clone(), reason })
    };
    let strategy = match &config.custom_conflict_resolver {
        Some(resolver) => ConflictStrategy::Custom(resolver.clone()),
        None => config.conflict_strategy.clone(),
    };
    Ok(ClientConfig {
        user: config.user.clone(),
        token: config.auth_token.as_deref().map(Token::new),
        collections: config.collections.iter().map(name).collect::<Result<_, _>>()?,
        conflict_strategy: strategy,
        limits: config.limits.clone(),
        reconnect_delay: config.reconnect_delay,
        max_reconnect_attempts: config.max_reconnect_attempts,
        ..ClientConfig::default()
    })
}

/// Starts the engine's thread, and waits until its store is open.
async fn start(
    setup: Setup,
    commands: Receiver<Command>,
    alive: watch::Sender<()>,
) -> Result<(), OpenError> {
    let (opening, opened) = oneshot::channel();
    let engine = move || {
        match Engine::open(setup) {
            Ok(engine) => {
                // whoever no longer waits has told the engine to stop
                let _ = opening.send(Ok(()));
                engine.run(&commands);
            }
            Err(error) => {
                let _ = opening.send(Err(error));
            }
        }
        drop(alive);
    };
    thread::Builder::new()
        .name("synclayer".into())
        .spawn(engine)
        .map_err(|error| OpenError::Start(error.to_string()))?;
    opened.await.map_err(|_| OpenError::Start("its thread has died".into()))?.map_err(Into::into)
}
