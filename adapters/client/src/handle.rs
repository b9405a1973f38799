//! A client as both faces hold it: its calls, and the thread of its engine.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};
use std::thread;

use synclayer_core::{
    Command, Limits, PendingWrite, Rejected, SignOut, Status, StoreError, Token, Write, WriteId,
};

use crate::callback;
use crate::command::{EngineCommand, Inbox};
use crate::engine::Engine;
use crate::error::{OpenError, SyncError};
use crate::listen::EventQueue;
use crate::mailbox::{self, mailbox};
use crate::metrics::Metrics;
use crate::network::Network;
use crate::pending::{Pending, Responder};
use crate::saved::{Saved, SavedTransaction};
use crate::set_once::{SetOnce, set_once};
use crate::setup::{Setup, check_token};
use crate::transaction::{Touched, Transaction, transaction};

/// A client. Clones are of the same one; when the last is dropped, it ends.
///
/// The faces document the calls: see [`doc!`](crate::doc).
#[derive(Clone)]
pub struct Handle {
    shared: Arc<HandleState>,
}

struct HandleState {
    inbox: Inbox,
    /// Ends with the engine's thread, after its store is closed.
    ended: SetOnce<()>,
    limits: Limits,
    takes_token: bool,
}

impl Handle {
    /// Starts a client on a thread of its own. The network shares the inbox.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn open(
        setup: Setup,
        (inbox, commands): (Inbox, Receiver<EngineCommand>),
        network: Box<dyn Network>,
    ) -> Result<Opening, OpenError> {
        let (opening, opened) = mailbox(None);
        let (alive, ended) = set_once();
        let (limits, takes_token) = (setup.client.limits.clone(), setup.takes_token);
        // from here on, whatever drops this tells the engine to stop
        let shared = Arc::new(HandleState { inbox: inbox.clone(), ended, limits, takes_token });
        let engine = move || {
            match Engine::open(setup, network, inbox) {
                Ok(engine) => {
                    opening.finish(|slot| *slot = Some(Ok(())));
                    engine.run(&commands);
                }
                Err(error) => opening.finish(|slot| *slot = Some(Err(error))),
            }
            drop(alive);
        };
        thread::Builder::new()
            .name("synclayer".into())
            .spawn(engine)
            .map_err(|error| OpenError::Start(error.to_string()))?;
        Ok(Opening { handle: Some(Self { shared }), opened })
    }

    /// Reads the status.
    pub fn status(&self) -> Pending<Status> {
        self.ask(EngineCommand::Status)
    }

    /// Reads the figures of the work so far.
    pub fn metrics(&self) -> Pending<Metrics> {
        self.ask(EngineCommand::Metrics)
    }

    /// Connects, or disconnects.
    pub fn set_connected(&self, connected: bool) -> Pending<()> {
        self.command(if connected { Command::Connect } else { Command::Disconnect })
    }

    /// Says whether there is a network.
    pub fn set_online(&self, online: bool) -> Pending<()> {
        self.command(Command::SetOnline(online))
    }

    /// Synchronises now.
    pub fn sync_now(&self) -> Pending<()> {
        self.command(Command::SyncNow)
    }

    /// Sets a fresh token.
    pub fn set_token(&self, token: &str) -> Pending<()> {
        if let Err(error) = check_token(token) {
            return Pending::refused(error);
        }
        if !self.shared.takes_token {
            return Pending::refused(SyncError::Insecure);
        }
        self.command(Command::SetToken(Token::from(token)))
    }

    /// Takes what the server has.
    pub fn adopt(&self) -> Pending<()> {
        self.decide(Write::Adopt)
    }

    /// Sends what the server lacks.
    pub fn offer(&self) -> Pending<()> {
        self.decide(Write::Offer)
    }

    /// Waits until everything is in sync.
    pub fn synced(&self) -> Pending<()> {
        self.ask(EngineCommand::Synced)
    }

    /// Reads the list of rejected writes.
    pub fn rejected(&self) -> Pending<Vec<Rejected>> {
        self.ask(EngineCommand::Rejected)
    }

    /// Makes a transaction: its only one comes back.
    pub fn transaction(
        &self,
        body: impl FnOnce(&mut Transaction<'_, '_>) -> Result<(), SyncError> + Send + 'static,
    ) -> Pending<Vec<SavedTransaction>> {
        let touched = Touched::default();
        let parts = Vec::from([transaction(body, self.limits(), &touched)]);
        self.ask(|reply| EngineCommand::Transact { parts, touched, reply })
    }

    /// Reads the list of the writes that wait for the server.
    pub fn pending(&self) -> Pending<Vec<PendingWrite>> {
        self.ask(EngineCommand::Pending)
    }

    /// Makes a rejected write again.
    pub fn retry(&self, write: WriteId) -> Pending<Saved> {
        self.ask(|reply| EngineCommand::Retry { write, reply })
    }

    /// Takes a rejected write off the list.
    pub fn discard(&self, write: WriteId) -> Pending<()> {
        self.decide(Write::DiscardRejected(write))
    }

    /// Rejects a stalled write by hand.
    pub fn reject_stalled(&self, write: WriteId) -> Pending<()> {
        self.decide(Write::RejectStalled(write))
    }

    /// Signs the user out. Answered when the client has ended.
    pub fn sign_out(&self, how: SignOut) -> Pending<()> {
        self.ask(|reply| EngineCommand::SignOut(how, reply))
    }

    /// Ends the client.
    pub fn close(&self) -> Closing {
        self.put(EngineCommand::Stop);
        Closing(self.shared.ended.clone())
    }

    /// Listens to the events from now on.
    #[must_use]
    pub fn events(&self) -> mailbox::Receiver<EventQueue> {
        let (sender, receiver) = mailbox(EventQueue::default());
        self.put(EngineCommand::Listen(sender));
        receiver
    }

    /// Watches the status.
    #[must_use]
    pub fn watch_status(&self) -> mailbox::Receiver<Option<Status>> {
        let (sender, receiver) = mailbox(None);
        self.put(EngineCommand::WatchStatus(sender));
        receiver
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.shared.inbox
    }

    pub(crate) fn ask<T>(&self, command: impl FnOnce(Responder<T>) -> EngineCommand) -> Pending<T> {
        self.shared.inbox.ask(command)
    }

    pub(crate) fn command(&self, command: Command) -> Pending<()> {
        self.ask(|reply| EngineCommand::Replica(command, reply))
    }

    fn decide(&self, write: Write) -> Pending<()> {
        self.ask(|reply| EngineCommand::Decide { write, reply })
    }

    fn put(&self, command: EngineCommand) {
        self.shared.inbox.put(command);
    }
}

impl Drop for HandleState {
    fn drop(&mut self) {
        self.inbox.put(EngineCommand::Stop);
    }
}

/// A client that opens its store: a future of its handle.
#[must_use = "it ends when this is dropped"]
pub struct Opening {
    handle: Option<Handle>,
    opened: mailbox::Receiver<Option<Result<(), StoreError>>>,
}

impl Future for Opening {
    type Output = Result<Handle, OpenError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let dead = || OpenError::Start("its thread has died".into());
        self.opened.poll(context).map(|opened| {
            opened.ok_or_else(dead)??;
            self.handle.take().ok_or_else(dead)
        })
    }
}

/// A client that ends: a future of its end, or of nothing inside a callback of the app, for whose
/// end the client waits.
#[must_use = "the client ends when this is ready"]
pub struct Closing(SetOnce<()>);

impl Future for Closing {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if callback::is_running() { Poll::Ready(()) } else { self.0.poll(context).map(drop) }
    }
}
