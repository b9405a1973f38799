//! The client as the app holds it.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;

use synclayer_client::callback;
use synclayer_client::config::SyncConfig;
use synclayer_client::engine::{Answer, Command, Made, Parts};
use synclayer_client::error::{OpenError, SyncError};
use synclayer_client::listen::EventQueue;
use synclayer_client::mailbox::mailbox;
use synclayer_client::setup::{self, Setup, check_token};
use synclayer_core::client::event::Status;
use synclayer_core::client::interface::{Misuse, Write};
use synclayer_core::client::sign_out::SignOut;
use synclayer_core::protocol::limits::Limits;
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::WriteId;
use synclayer_core::rules::row::Rejected;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::collection::Collection;
use crate::network::{Engine, Hold, Inbox, Sockets};
use crate::saved::Saved;
use crate::socket::Dialer;
use crate::stream::Events;

/// How many commands are handled before the watchers are told.
const RUN: usize = 256;

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
    inbox: Inbox,
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
        let setup = Setup::new(config)?;
        let (takes_token, limits) = (setup.takes_token, setup.client.limits.clone());
        let (inbox, commands) = Inbox::new(|| {});
        let dialer = Dialer {
            runtime,
            address: Arc::new(setup.address.websocket),
            tls: setup.tls.config,
            frame_bytes: limits.frame_bytes,
        };
        let parts = Parts {
            config: setup.client,
            connected: setup.connected,
            factory: setup.factory,
            http: setup.http,
            network: Sockets::new(dialer, inbox.clone()),
            inbox: inbox.clone(),
        };
        let (alive, ended) = watch::channel(());
        // from here on, whatever drops this tells the engine to stop
        let shared = Arc::new(Shared { inbox, ended, limits, takes_token });
        start(parts, commands, alive).await?;
        Ok(Self { shared })
    }

    /// A collection, to read, write and watch. It joins those kept in sync at its first use.
    ///
    /// # Errors
    /// When no collection can have this name.
    pub fn collection(&self, name: &str) -> Result<Collection, SyncError> {
        let name = setup::collection(name)?;
        let hold = Arc::new(Hold::new(self.inbox().clone(), name.clone()));
        Ok(Collection { sync: self.clone(), name, hold })
    }

    /// What happens from now on: see [`EventKind`](crate::EventKind). It ends when the client does.
    ///
    /// A client that connects at the start may have told something before this is called. To miss
    /// nothing, open it without [`connect_at_start`](SyncConfig::connect_at_start), and connect it
    /// after this call.
    #[must_use]
    pub fn events(&self) -> Events {
        let (outlet, inlet) = mailbox(EventQueue::default());
        self.inbox().tell(move |engine| engine.listen(outlet));
        Events(inlet)
    }

    /// How the client is doing.
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn status(&self) -> Result<Status, SyncError> {
        self.ask(Engine::status).await?
    }

    /// Connects, and stays connected. Does nothing where that is so already.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn connect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_connected(true)).await
    }

    /// Disconnects, and stays disconnected until [`connect`](Self::connect). Writes wait meanwhile.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn disconnect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_connected(false)).await
    }

    /// Says whether the device has a network. With `false` nothing is tried any more; with `true`
    /// everything is tried at once. A hint: without it the client finds out by itself, later.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn set_online(&self, online: bool) -> Result<(), SyncError> {
        self.ask(move |engine| engine.set_online(online)).await
    }

    /// Synchronises now, and does not wait for the next time that it would by itself.
    /// [`synced`](Self::synced) tells when it is done.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn sync_now(&self) -> Result<(), SyncError> {
        self.ask(Engine::sync_now).await
    }

    /// Takes what the server has, where it lacks records that are held here, of which
    /// [`RecordsMissing`] tells, or has another database, of which [`DifferentDatabase`] tells. Those
    /// records go; in the second case when everything that the server has was shown. Writes that wait
    /// for another database go to the list of [rejected](Self::rejected) ones, from where they can be
    /// made again. Nothing happens where there is nothing to decide. Returns when the decision is
    /// durable.
    ///
    /// [`RecordsMissing`]: synclayer_core::client::event::EventKind::RecordsMissing
    /// [`DifferentDatabase`]: synclayer_core::client::event::EventKind::DifferentDatabase
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn adopt(&self) -> Result<(), SyncError> {
        self.write(Write::Adopt).await.map(drop)
    }

    /// Sends what is held here, where the server lacks it, of which [`RecordsMissing`] tells, or has
    /// another database, of which [`DifferentDatabase`] tells. The records go out as new ones, and
    /// meet what the server has by the conflict strategy. Nothing happens where there is nothing to
    /// decide. Returns when the decision is durable.
    ///
    /// [`RecordsMissing`]: synclayer_core::client::event::EventKind::RecordsMissing
    /// [`DifferentDatabase`]: synclayer_core::client::event::EventKind::DifferentDatabase
    ///
    /// # Errors
    /// When the store has failed, or the client is closed.
    pub async fn offer(&self) -> Result<(), SyncError> {
        self.write(Write::Offer).await.map(drop)
    }

    /// Sets the token by which the server knows the user: a fresh one in place of one that has
    /// expired.
    ///
    /// # Errors
    /// When the token can't be sent in a header or would go over the network in the clear, or the
    /// client is closed.
    pub async fn set_token(&self, token: &str) -> Result<(), SyncError> {
        check_token(token)?;
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

    /// Waits until every write made before this call is settled, and every collection in use has
    /// been confirmed by the server after it. Without a connection that may take for ever: put a
    /// timeout around it where that matters.
    ///
    /// A collection that the server refuses is not waited for; one that the server can't serve at
    /// the moment is, unless another one is refused.
    ///
    /// # Errors
    /// [`SyncError::NotInSync`] names the collections that are not in sync with the server: it
    /// refuses them, this user may have no more subscriptions, or the server lacks records that are
    /// held here, and the app has not said [`adopt`](Self::adopt) or [`offer`](Self::offer). By then
    /// the writes are settled and every other collection is confirmed. All are named, and nothing is
    /// settled, while the server has another database. Also when the store fails, or the client is
    /// closed.
    pub async fn synced(&self) -> Result<(), SyncError> {
        self.answered(Engine::synced).await
    }

    /// Signs the user out, for all clones of the client: it disconnects, forgets the token, and is
    /// closed; from now on every call fails with [`SyncError::SignedOut`], and watches and events
    /// end. What the store holds of the user stays for their return, or goes: see [`SignOut`]. It
    /// waits until that is durable and the store is closed, so that the next user's client can be
    /// opened on it.
    ///
    /// A wipe that is interrupted, by the end of the process or a store that fails, is finished when
    /// the store is opened next, by whichever user. It removes the rows; how soon a file on disk no
    /// longer holds their bytes is the store's affair.
    ///
    /// # Errors
    /// When [`SignOut::Wipe`] would lose writes that the server does not have, or that it has
    /// rejected: [`Misuse::Unsent`](crate::Misuse::Unsent) names them, and nothing has happened.
    /// When the store fails, or the client is closed.
    pub async fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        self.answered(move |engine, answer| engine.sign_out(how, answer)).await?;
        self.ended().await;
        Ok(())
    }

    /// Ends the client, for all its clones: it disconnects, makes everything durable that was
    /// saved, and closes the store, which can then be opened again. From inside a callback of the
    /// app (see [`SyncError::InsideCallback`]) it does not wait for that.
    pub async fn close(&self) {
        self.inbox().put(Command::Stop);
        if callback::is_running() {
            return;
        }
        self.ended().await;
    }

    /// Waits until the engine's thread has closed its store and ended.
    async fn ended(&self) {
        let mut ended = self.shared.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.shared.inbox
    }

    /// Makes a write, and waits until it is durable.
    pub(crate) async fn write(&self, write: Write) -> Result<Made, SyncError> {
        self.answered(move |engine, answer| engine.write(write, answer)).await
    }

    /// Has the engine do something, and waits for what it says.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, SyncError> {
        self.inbox().check()?;
        let (answer, answered) = oneshot::channel();
        self.inbox().tell(move |engine| {
            // whoever no longer waits wants no answer
            let _ = answer.send(ask(engine));
        });
        answered.await.map_err(|_| self.inbox().closed())
    }

    /// Has the engine do something that it answers later.
    async fn answered<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine, Answer<T>) + Send + 'static,
    ) -> Result<T, SyncError> {
        self.inbox().check()?;
        let (answer, answered) = oneshot::channel();
        let answer: Answer<T> = Box::new(move |result| {
            // whoever no longer waits has what it asked for all the same
            let _ = answer.send(result);
        });
        self.inbox().tell(move |engine| ask(engine, answer));
        answered.await.map_err(|_| self.inbox().closed())?
    }
}

impl fmt::Debug for SyncLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncLayer").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.put(Command::Stop);
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
        self.sync.ask(Engine::rejected).await?
    }

    /// Makes a write again, as a new one, and takes it off the list.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub async fn retry(&self, write: WriteId) -> Result<Saved, SyncError> {
        let rejected = self.list().await?.into_iter().find(|rejected| rejected.write == write);
        let missing = SyncError::Misuse(Misuse::NoSuchRejected(write));
        let id = rejected.ok_or(missing)?.record_id;
        Ok(Saved::new(id, self.sync.write(Write::RetryRejected(write)).await?))
    }

    /// Takes a write off the list for good.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub async fn discard(&self, write: WriteId) -> Result<(), SyncError> {
        self.sync.write(Write::DiscardRejected(write)).await.map(drop)
    }

    /// Rejects a write by hand that
    /// [stalls](synclayer_core::client::event::EventKind::WriteStalled): it moves from the outbox
    /// to this list, and the writes behind it go on.
    ///
    /// # Errors
    /// When the write does not stall, the store has failed, or the client is closed.
    pub async fn reject_stalled(&self, write: WriteId) -> Result<(), SyncError> {
        self.sync.write(Write::RejectStalled(write)).await.map(drop)
    }
}

/// Starts the engine's thread, and waits until its store is open.
async fn start(
    parts: Parts<Sockets>,
    commands: Receiver<Command<Sockets>>,
    alive: watch::Sender<()>,
) -> Result<(), OpenError> {
    let (opening, opened) = oneshot::channel();
    let engine = move || {
        match Engine::open(parts) {
            Ok(engine) => {
                // whoever no longer waits has told the engine to stop
                let _ = opening.send(Ok(()));
                run(engine, &commands);
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

/// The thread's loop: waits for a command or the deadline and does what there is to do, until the
/// client is no longer wanted.
fn run(mut engine: Engine, commands: &Receiver<Command<Sockets>>) {
    while !engine.is_done() {
        let first = match engine.patience() {
            Some(patience) => commands.recv_timeout(patience),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(first) => {
                engine.take(first);
                commands.try_iter().take(RUN).for_each(|command| engine.take(command));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        engine.turn();
    }
}
