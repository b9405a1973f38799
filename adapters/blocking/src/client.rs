//! The client as the app holds it.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use synclayer_client::callback;
use synclayer_client::config::SyncConfig;
use synclayer_client::engine::{Answer, Command, Made};
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

use crate::collection::Collection;
use crate::listen::{Events, TimedOut};
use crate::saved::Saved;
use crate::thread::start;
use crate::wire::{Engine, Hold, Inbox};

/// A client: a replica of some collections, which keeps itself in sync with a server.
///
/// It is cheap to clone, may be used from any thread, and may be dropped at any point: what was
/// saved stays saved. When the last clone and the last [`Collection`] are gone, it ends.
#[derive(Clone)]
pub struct SyncLayer {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Inbox,
    /// The engine's thread, until somebody has joined it.
    thread: Mutex<Option<JoinHandle<()>>>,
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
    pub fn open(config: SyncConfig) -> Result<Self, OpenError> {
        let setup = Setup::new(config)?;
        let (takes_token, limits) = (setup.takes_token, setup.client.limits.clone());
        let (inbox, thread) = start(setup)?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { shared: Arc::new(Shared { inbox, thread, limits, takes_token }) })
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
    pub fn status(&self) -> Result<Status, SyncError> {
        self.ask(Engine::status)?
    }

    /// Connects, and stays connected. Does nothing where that is so already.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn connect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_connected(true))
    }

    /// Disconnects, and stays disconnected until [`connect`](Self::connect). Writes wait meanwhile.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn disconnect(&self) -> Result<(), SyncError> {
        self.ask(|engine| engine.set_connected(false))
    }

    /// Says whether the device has a network. With `false` nothing is tried any more; with `true`
    /// everything is tried at once. A hint: without it the client finds out by itself, later.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn set_online(&self, online: bool) -> Result<(), SyncError> {
        self.ask(move |engine| engine.set_online(online))
    }

    /// Synchronises now, and does not wait for the next time that it would by itself.
    /// [`synced`](Self::synced) tells when it is done.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn sync_now(&self) -> Result<(), SyncError> {
        self.ask(Engine::sync_now)
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
    pub fn adopt(&self) -> Result<(), SyncError> {
        self.write(Write::Adopt).map(drop)
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
    pub fn offer(&self) -> Result<(), SyncError> {
        self.write(Write::Offer).map(drop)
    }

    /// Sets the token by which the server knows the user: a fresh one in place of one that has
    /// expired.
    ///
    /// # Errors
    /// When the token can't be sent in a header or would go over the network in the clear, or the
    /// client is closed.
    pub fn set_token(&self, token: &str) -> Result<(), SyncError> {
        check_token(token)?;
        if !self.shared.takes_token {
            return Err(SyncError::Insecure);
        }
        let token = Token::new(token);
        self.ask(|engine| engine.set_token(token))
    }

    /// The writes that the server has refused for good.
    #[must_use]
    pub fn rejected(&self) -> RejectedWrites {
        RejectedWrites { sync: self.clone() }
    }

    /// Waits until every write made before this call is settled, and every collection in use has
    /// been confirmed by the server after it. Without a connection that may take for ever:
    /// [`synced_timeout`](Self::synced_timeout) does not.
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
    pub fn synced(&self) -> Result<(), SyncError> {
        self.answered(Engine::synced)
    }

    /// As [`synced`](Self::synced), for as long as that.
    ///
    /// # Errors
    /// When it takes longer; the writes go on all the same.
    pub fn synced_timeout(&self, patience: Duration) -> Result<Result<(), SyncError>, TimedOut> {
        let answered = match self.begin(Engine::synced) {
            Ok(answered) => answered,
            Err(error) => return Ok(Err(error)),
        };
        match answered.recv_timeout(patience) {
            Ok(result) => Ok(result),
            Err(RecvTimeoutError::Timeout) => Err(TimedOut),
            Err(RecvTimeoutError::Disconnected) => Ok(Err(self.inbox().closed())),
        }
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
    pub fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        self.answered(move |engine, answer| engine.sign_out(how, answer))?;
        self.join();
        Ok(())
    }

    /// Ends the client, for all its clones: it disconnects, makes everything durable that was
    /// saved, and closes the store, which can then be opened again. It waits for the client's
    /// threads to end, except for the look-up of a name or an HTTP call that takes longer than a
    /// second more. From inside a callback of the app (see [`SyncError::InsideCallback`]) it does
    /// not wait.
    pub fn close(&self) {
        self.inbox().put(Command::Stop);
        if callback::is_running() {
            return;
        }
        self.join();
    }

    /// Waits until the engine's thread has closed its store and ended.
    fn join(&self) {
        let mut thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // one that panicked has ended too
            let _ = thread.join();
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.shared.inbox
    }

    /// Makes a write, and waits until it is durable.
    pub(crate) fn write(&self, write: Write) -> Result<Made, SyncError> {
        self.answered(move |engine, answer| engine.write(write, answer))
    }

    /// Has the engine do something, and waits for what it says.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, SyncError> {
        self.inbox().check()?;
        let (answer, answered) = sync_channel(1);
        self.inbox().tell(move |engine| {
            // whoever asks waits
            let _ = answer.send(ask(engine));
        });
        answered.recv().map_err(|_| self.inbox().closed())
    }

    /// Has the engine do something that it answers later, and waits for that.
    fn answered<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine, Answer<T>) + Send + 'static,
    ) -> Result<T, SyncError> {
        self.begin(ask)?.recv().map_err(|_| self.inbox().closed())?
    }

    /// Has the engine do something that it answers later.
    fn begin<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Engine, Answer<T>) + Send + 'static,
    ) -> Result<Receiver<Result<T, SyncError>>, SyncError> {
        self.inbox().check()?;
        let (answer, answered) = sync_channel(1);
        let answer: Answer<T> = Box::new(move |result| {
            // whoever no longer waits has what it asked for all the same
            let _ = answer.send(result);
        });
        self.inbox().tell(move |engine| ask(engine, answer));
        Ok(answered)
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
    pub fn list(&self) -> Result<Vec<Rejected>, SyncError> {
        self.sync.ask(Engine::rejected)?
    }

    /// Makes a write again, as a new one, and takes it off the list.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub fn retry(&self, write: WriteId) -> Result<Saved, SyncError> {
        let rejected = self.list()?.into_iter().find(|rejected| rejected.write == write);
        let missing = SyncError::Misuse(Misuse::NoSuchRejected(write));
        let id = rejected.ok_or(missing)?.record_id;
        Ok(Saved::new(id, self.sync.write(Write::RetryRejected(write))?))
    }

    /// Takes a write off the list for good.
    ///
    /// # Errors
    /// When there is no such write, the store has failed, or the client is closed.
    pub fn discard(&self, write: WriteId) -> Result<(), SyncError> {
        self.sync.write(Write::DiscardRejected(write)).map(drop)
    }

    /// Rejects a write by hand that
    /// [stalls](synclayer_core::client::event::EventKind::WriteStalled): it moves from the outbox
    /// to this list, and the writes behind it go on.
    ///
    /// # Errors
    /// When the write does not stall, the store has failed, or the client is closed.
    pub fn reject_stalled(&self, write: WriteId) -> Result<(), SyncError> {
        self.sync.write(Write::RejectStalled(write)).map(drop)
    }
}
