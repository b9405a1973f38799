//! The calls of the app.

use std::sync::PoisonError;

use synclayer_core::{
    Action, Collection, Command, Misuse, NamedScope, Now, PendingWrite, Record, RecordId, Rejected,
    Status, TransactionBody, Write, WriteId, Written,
};

use super::waiting::WaitingWrite;
use super::{Engine, Replica};
use crate::callback;
use crate::error::SyncError;
use crate::listen::UpdateSlot;
use crate::mailbox::Sender;
use crate::pending::Responder;
use crate::saved::{KnownFate, Saved, SavedTransaction};
use crate::set_once::{SetOnce, set_once};
use crate::transaction::Touched;

impl Engine {
    /// Makes a write of a record.
    pub(super) fn write(&mut self, id: RecordId, write: Write, reply: Responder<Saved>) {
        match self.make(write) {
            Ok(written) => {
                let saved = Saved { id, write: written.write, fate: self.follow(written) };
                self.calls.add_write(written.commit, WaitingWrite::Record(reply, saved));
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Makes transactions, one after the other; where one can't be made, the later ones are not.
    pub(super) fn transact(
        &mut self,
        parts: Vec<TransactionBody>,
        touched: &Touched,
        reply: Responder<Vec<SavedTransaction>>,
    ) {
        let (mut saved, mut commit) = (Vec::new(), None);
        for part in parts {
            match self.make(Write::Transaction(part)) {
                Ok(written) => {
                    let (transaction, fate) = (written.transaction, self.follow(written));
                    saved.push(SavedTransaction { transaction, fate });
                    commit = Some(written.commit);
                }
                Err(error) => return reply.send(Err(error)),
            }
        }
        let touched = std::mem::take(&mut *touched.lock().unwrap_or_else(PoisonError::into_inner));
        for collection in &touched {
            // what is used by scopes is not used whole because a transaction is made in it
            let scopes = self.config.scopes.get(collection);
            if scopes.is_none_or(Vec::is_empty) {
                self.join(collection);
            }
        }
        match commit {
            Some(commit) => {
                self.calls.add_write(commit, WaitingWrite::Transactions(reply, saved));
            }
            None => reply.send(Ok(saved)),
        }
    }

    /// Reads the list of the writes that wait.
    pub(super) fn pending(&mut self) -> Result<Vec<PendingWrite>, SyncError> {
        self.call(|replica, _, _| Ok(replica.pending()?))
    }

    /// Makes a rejected write again.
    pub(super) fn retry(&mut self, write: WriteId, reply: Responder<Saved>) {
        let rejected = self.rejected().and_then(|rejected| {
            let found = rejected.into_iter().find(|rejected| rejected.write == write);
            found.ok_or(SyncError::Misuse(Misuse::NoSuchRejected(write)))
        });
        match rejected {
            Ok(rejected) => self.write(rejected.record_id, Write::RetryRejected(write), reply),
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Makes a write that is not of one record.
    pub(super) fn decide(&mut self, write: Write, reply: Responder<()>) {
        match self.make(write) {
            Ok(written) => {
                self.calls.add_write(written.commit, WaitingWrite::Decision(reply));
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn make(&mut self, write: Write) -> Result<Written, SyncError> {
        match &write {
            Write::Save(collection, ..)
            | Write::Update(collection, ..)
            | Write::Modify(collection, ..)
            | Write::Delete(collection, _) => self.join(collection),
            // a transaction's collections are known when it is made
            Write::Transaction(_)
            | Write::RetryRejected(_)
            | Write::DiscardRejected(_)
            | Write::RejectStalled(_)
            | Write::Adopt
            | Write::Offer => {}
        }
        self.call(|replica, now, out| Ok(replica.write(now, write, out)?))
    }

    /// Follows a write that was made just now.
    fn follow(&mut self, written: Written) -> SetOnce<KnownFate> {
        let (setter, fate) = set_once();
        if let Ok(replica) = &mut self.replica {
            self.fates.follow(replica, written, setter, &mut self.actions);
            self.act();
        }
        fate
    }

    /// Reads a record.
    pub(super) fn get(
        &mut self,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<Record>, SyncError> {
        self.join(collection);
        self.call(|replica, _, _| Ok(replica.get(collection, id)?))
    }

    /// Reads all records of a collection.
    pub(super) fn get_all(&mut self, collection: &Collection) -> Result<Vec<Record>, SyncError> {
        self.join(collection);
        self.call(|replica, _, _| Ok(replica.get_all(collection)?))
    }

    /// Reads what a query asks for.
    pub(super) fn query<T>(
        &mut self,
        collection: &Collection,
        query: impl FnOnce(&Replica) -> Result<T, Misuse>,
    ) -> Result<T, SyncError> {
        self.join(collection);
        self.call(|replica, _, _| Ok(query(replica)?))
    }

    /// Reads the status.
    pub(super) fn status(&mut self) -> Result<Status, SyncError> {
        self.call(|replica, _, _| Ok(replica.status()))
    }

    /// Reads the list of rejected writes.
    pub(super) fn rejected(&mut self) -> Result<Vec<Rejected>, SyncError> {
        self.call(|replica, _, _| Ok(replica.rejected()?))
    }

    /// Replies when every write made before is settled and every collection confirmed, or known not
    /// to be in sync.
    pub(super) fn await_sync(&mut self, reply: Responder<()>) {
        let now = self.now();
        let replica = match &mut self.replica {
            Ok(replica) => replica,
            Err(failure) => return reply.send(Err(failure.error.clone().into())),
        };
        let id = callback::run(|| replica.synced(now, &mut self.actions));
        // it may be through at once
        self.calls.add_sync(id, reply);
        self.act();
    }

    /// Gives the replica a command, and keeps to it in the lives that follow.
    pub(super) fn command(&mut self, command: Command) {
        match &command {
            Command::Connect => self.connected = true,
            Command::Disconnect => self.connected = false,
            Command::SetOnline(online) => self.online = *online,
            Command::SetToken(token) => self.config.token = Some(token.clone()),
            Command::Subscribe(collection) => return self.join(collection),
            Command::Unsubscribe(collection) => {
                self.reads.set_joined(collection, false);
                self.config.collections.retain(|joined| joined != collection);
            }
            Command::Release(collection) => self.reads.set_joined(collection, false),
            Command::UseScope(collection, scope) => {
                let scopes = self.config.scopes.entry(collection.clone()).or_default();
                if !scopes.contains(scope) {
                    scopes.push(scope.clone());
                }
            }
            Command::ReleaseScope(collection, scope) => {
                if let Some(scopes) = self.config.scopes.get_mut(collection) {
                    scopes.retain(|used| used != scope);
                }
            }
            Command::KeepScope(..) | Command::SyncNow => {}
        }
        self.step(|replica, now, out| replica.command(now, command, out));
    }

    /// Counts one more user of a scope, which holds it in sync.
    pub(super) fn hold_scope(&mut self, collection: Collection, scope: NamedScope) {
        if self.holds.add_scope((collection.clone(), scope.clone())) {
            self.command(Command::UseScope(collection, scope));
        }
    }

    /// Counts one user of a scope less.
    pub(super) fn release_scope(&mut self, collection: Collection, scope: NamedScope) {
        if self.holds.remove_scope(&(collection.clone(), scope.clone())) {
            self.command(Command::ReleaseScope(collection, scope));
        }
    }

    /// Keeps a collection in sync from its first use on, in this replica's life and the next, unless a
    /// part of it is used.
    pub(super) fn join(&mut self, collection: &Collection) {
        if self.is_part {
            return;
        }
        let held = |replica: &Replica| replica.holds(collection);
        // one that the replica holds is among those of the configuration
        if self.replica.as_ref().is_ok_and(held) {
            return;
        }
        if !self.config.collections.contains(collection) {
            self.config.collections.push(collection.clone());
        }
        let subscribe = Command::Subscribe(collection.clone());
        self.step(|replica, now, out| replica.command(now, subscribe, out));
        if self.replica.as_ref().is_ok_and(held) {
            self.reads.set_joined(collection, true);
        }
    }

    /// Shows a collection, or one record of it, from now on.
    pub(super) fn watch(
        &mut self,
        collection: Collection,
        record: Option<RecordId>,
        updates: Sender<UpdateSlot>,
    ) {
        self.join(&collection);
        self.watchers.add(collection, record, updates);
        self.begin_watching();
    }

    /// Makes the watchers that wait known to the replica.
    pub(super) fn begin_watching(&mut self) {
        let Ok(replica) = &mut self.replica else { return };
        callback::run(|| self.watchers.begin(replica, &mut self.actions));
        self.act();
    }

    /// Counts one user less of a collection.
    pub(super) fn release(&mut self, collection: &Collection) {
        self.holds.remove(collection);
        if !self.holds.is_used(collection) {
            self.release_unused();
        }
    }

    /// Tells the replica which of the collections that joined nothing uses any more.
    pub(super) fn release_unused(&mut self) {
        let is_unused = |name: &&Collection| !self.holds.is_used(name);
        let unused: Vec<_> = self.config.collections.iter().filter(is_unused).cloned().collect();
        for collection in unused {
            let held = |replica: &Replica| replica.holds(&collection);
            if self.replica.as_ref().is_ok_and(held) {
                self.command(Command::Release(collection));
            }
        }
    }

    /// Calls the replica and does its actions.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Replica, Now, &mut Vec<Action>) -> Result<T, SyncError>,
    ) -> Result<T, SyncError> {
        if self.signing_out.is_some() {
            return Err(SyncError::SignedOut);
        }
        let now = self.now();
        let replica = match &mut self.replica {
            Ok(replica) => replica,
            Err(failure) => return Err(failure.error.clone().into()),
        };
        let result = callback::run(|| call(replica, now, &mut self.actions));
        self.act();
        result
    }
}
