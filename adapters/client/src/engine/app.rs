//! What the app asks of an engine.

use synclayer_core::client::event::Status;
use synclayer_core::client::interface::{Command, Write, Written};
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::{Collection, RecordId, WriteId};
use synclayer_core::protocol::time::Now;
use synclayer_core::rules::row::Rejected;
use synclayer_core::rules::view::{Record, Slot, Snapshot};

use super::{Actions, Answer, Engine, Network, Replica, Watcher};
use crate::callback;
use crate::error::SyncError;
use crate::fate::FateReceiver;
use crate::listen::EventQueue;
use crate::mailbox::Outlet;

/// A write that was made.
pub struct Made {
    /// Its id in events and in the list of rejected writes; `None` where nothing changed.
    pub write: Option<WriteId>,
    /// What becomes of it.
    pub fate: FateReceiver,
}

impl<N: Network> Engine<N> {
    /// Makes a write and answers when it is durable.
    pub fn write(&mut self, write: Write, answer: Answer<Made>) {
        match &write {
            Write::Save(collection, ..)
            | Write::Update(collection, ..)
            | Write::Modify(collection, ..)
            | Write::Delete(collection, _) => self.join(collection),
            Write::RetryRejected(_)
            | Write::DiscardRejected(_)
            | Write::RejectStalled(_)
            | Write::Adopt
            | Write::Offer => {}
        }
        let made = self.call(|replica, now, out| Ok(replica.write(now, write, out)?));
        self.saved(made, answer);
    }

    /// Answers a write when it is durable, or now where it was not made.
    fn saved(&mut self, made: Result<Written, SyncError>, answer: Answer<Made>) {
        match made {
            Ok(written) => {
                let made = Made { write: written.write, fate: self.follow(written) };
                let answer = Box::new(move |saved: Result<(), _>| answer(saved.map(|()| made)));
                self.saves.push_back((written.commit, answer));
            }
            Err(error) => answer(Err(error)),
        }
    }

    /// A record.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn get(
        &mut self,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<Record>, SyncError> {
        self.join(collection);
        self.call(|replica, _, _| Ok(replica.get(collection, id)?))
    }

    /// All records of a collection.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn get_all(&mut self, collection: &Collection) -> Result<Vec<Record>, SyncError> {
        self.join(collection);
        self.call(|replica, _, _| Ok(replica.get_all(collection)?))
    }

    /// How the replica is doing.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn status(&mut self) -> Result<Status, SyncError> {
        self.call(|replica, _, _| Ok(replica.status()))
    }

    /// The rejected writes.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn rejected(&mut self) -> Result<Vec<Rejected>, SyncError> {
        self.call(|replica, _, _| Ok(replica.rejected()?))
    }

    /// Answers when every write made before is settled and every collection confirmed, or known not
    /// to be in step.
    pub fn synced(&mut self, answer: Answer) {
        let now = self.now();
        let replica = match &mut self.replica {
            Ok(replica) => replica,
            Err(failure) => return answer(Err(failure.error.clone().into())),
        };
        let id = callback::run(|| replica.synced(now, &mut self.effects));
        // it may be answered at once
        self.syncs.insert(id, answer);
        self.act();
    }

    /// Exchanges with the server what there is, whatever the clock says.
    pub fn sync_now(&mut self) {
        self.command(Command::SyncNow);
    }

    /// Shows a collection, or one record of it, in a mailbox.
    pub fn watch(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        outlet: Outlet<Slot>,
    ) {
        self.join(&collection);
        self.waiting.push(Watcher {
            collection,
            record,
            outlet,
            shown: Snapshot::default(),
            reopened: None,
        });
        self.begin_watching();
    }

    /// Forgets the watchers whose reader has gone.
    pub fn dismiss_watchers(&mut self) {
        self.waiting.retain(|watcher| !watcher.outlet.is_abandoned());
        self.watchers.retain(|id, watcher| {
            let stays = !watcher.outlet.is_abandoned();
            if !stays && let Ok(replica) = &mut self.replica {
                replica.unwatch(*id);
            }
            stays
        });
    }

    /// Puts what happens from now on into a mailbox.
    pub fn listen(&mut self, outlet: Outlet<EventQueue>) {
        self.listeners.push(outlet);
    }

    /// Keeps a collection in sync from its first use on, in this replica's life and the next.
    pub fn join(&mut self, collection: &Collection) {
        if !self.config.collections.contains(collection) {
            self.config.collections.push(collection.clone());
        }
        let held = |replica: &Replica| replica.holds(collection);
        if !self.replica.as_ref().is_ok_and(held) {
            self.command(Command::Subscribe(collection.clone()));
        }
    }

    /// Keeps a collection in sync no longer, until it is used again. Its rows stay.
    pub fn leave(&mut self, collection: &Collection) {
        self.config.collections.retain(|joined| joined != collection);
        self.command(Command::Unsubscribe(collection.clone()));
    }

    /// Connects or disconnects, and keeps to it in the next life too.
    pub fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
        self.command(if connected { Command::Connect } else { Command::Disconnect });
    }

    /// Learns whether there is a network.
    pub fn set_online(&mut self, online: bool) {
        self.online = online;
        self.command(Command::SetOnline(online));
    }

    /// Takes a fresh token.
    pub fn set_token(&mut self, token: Token) {
        self.config.token = Some(token.clone());
        self.command(Command::SetToken(token));
    }

    /// Calls the replica and does its actions.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Replica, Now, &mut Actions) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        if self.leaving.is_some() {
            return Err(SyncError::SignedOut);
        }
        let now = self.now();
        let replica = match &mut self.replica {
            Ok(replica) => replica,
            Err(failure) => return Err(failure.error.clone().into()),
        };
        let result = callback::run(|| call(replica, now, &mut self.effects));
        self.act();
        result
    }
}
