//! The inside of the machines, for tests and simulators.

use alloc::sync::Arc;

use crate::client::replica::Replica;
use crate::protocol::message::Token;
use crate::protocol::name::{Collection, ConnId, Seq};
use crate::rules::page::ReadRequest;
use crate::rules::policy::Policy;
use crate::rules::transaction::{Published, Transaction, TransactionAnswer};
use crate::server::{CallId, Hub, HubJob, HubRead, Job as _, JobBatch, Session, Ticket};
use crate::store::{ClientStore, StoreError};

/// A replica whose store a test looks into.
pub trait InspectReplica {
    /// Its store's type.
    type Store;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// The store, which a test lets fail, or make commits durable.
    fn store_mut(&mut self) -> &mut Self::Store;

    /// The number of records with changes of others that wait beside writes without a verdict; 0 if
    /// the store can't be read.
    fn deferred(&self) -> usize;

    /// Returns `true` if the replica has stopped because its store has failed. It costs nothing,
    /// unlike a whole status.
    fn has_halted(&self) -> bool;

    /// A hash of what the machine holds, whatever is sent and heard: its identity, its writes, its
    /// cursors.
    fn held_digest(&self) -> u64;

    /// A hash of the places that catch-ups and verdicts move: cursors, positions in catch-ups, and the
    /// writes that wait.
    fn place_digest(&self) -> u64;
}

impl<S: ClientStore> InspectReplica for Replica<S> {
    type Store = S;

    fn store(&self) -> &S {
        self.store()
    }

    fn store_mut(&mut self) -> &mut S {
        self.store_mut()
    }

    fn deferred(&self) -> usize {
        self.client().deferred(&self.rows()).unwrap_or(0)
    }

    fn has_halted(&self) -> bool {
        self.client().halted().is_some()
    }

    fn held_digest(&self) -> u64 {
        self.client().held_digest()
    }

    fn place_digest(&self) -> u64 {
        self.client().place_digest()
    }
}

/// A hub whose work a test does in an order of its choice.
pub trait InspectHub {
    /// All sessions, in the order of their connections.
    fn sessions(&self) -> impl Iterator<Item = (ConnId, &Session)>;

    /// Returns `true` if nothing of a connection is under way: no message, transaction, read or
    /// answer.
    fn is_idle(&self, conn: ConnId) -> bool;

    /// The last seq of a collection in the rings; 0 while nothing is known.
    fn head(&self, collection: &Collection) -> Seq;

    /// The number of bytes that the changes in the rings take.
    fn ring_bytes(&self) -> usize;

    /// Forgets all recent changes, and knows these heads only: the sessions get from the store what
    /// they miss.
    fn forget_changes(&mut self, heads: impl IntoIterator<Item = (Collection, Seq)>);

    /// Sets who may do what from now on.
    fn set_policy(&mut self, policy: Arc<dyn Policy>);

    /// The connection whose token is to be checked.
    fn asking(&self, ticket: &Ticket<Token>) -> ConnId;

    /// The data that a read is for.
    fn requested<'a>(&self, read: &'a HubRead) -> &'a ReadRequest;

    /// The transactions that wait to be committed, in their order.
    fn waiting_transactions(&self) -> impl ExactSizeIterator<Item = &Transaction>;

    /// Takes the first transactions that wait: this many, and at least one. Otherwise as
    /// [`Hub::next_batch`].
    fn next_transactions(&mut self, count: usize) -> Option<JobBatch<HubJob>>;

    /// The number of reads that wait to be taken.
    fn waiting_reads(&self) -> usize;

    /// The connections whose sessions have an answer to hear, one for each answer, in the order in
    /// which these came.
    fn waiting_answers(&self) -> impl ExactSizeIterator<Item = ConnId>;
}

impl InspectHub for Hub {
    fn sessions(&self) -> impl Iterator<Item = (ConnId, &Session)> {
        self.sessions()
    }

    fn is_idle(&self, conn: ConnId) -> bool {
        self.is_idle(conn)
    }

    fn head(&self, collection: &Collection) -> Seq {
        self.rings().head(collection)
    }

    fn ring_bytes(&self) -> usize {
        self.rings().bytes()
    }

    fn forget_changes(&mut self, heads: impl IntoIterator<Item = (Collection, Seq)>) {
        self.forget_changes(heads);
    }

    fn set_policy(&mut self, policy: Arc<dyn Policy>) {
        self.set_policy(policy);
    }

    fn asking(&self, ticket: &Ticket<Token>) -> ConnId {
        ticket.conn()
    }

    fn requested<'a>(&self, read: &'a HubRead) -> &'a ReadRequest {
        read.request()
    }

    fn waiting_transactions(&self) -> impl ExactSizeIterator<Item = &Transaction> {
        self.committer().waiting().map(|job| job.transaction())
    }

    fn next_transactions(&mut self, count: usize) -> Option<JobBatch<HubJob>> {
        let first = self.committer().waiting().take(count);
        let limit = first.map(|job| job.transaction().writes()).sum();
        self.next_batch(limit)
    }

    fn waiting_reads(&self) -> usize {
        self.waiting_reads()
    }

    fn waiting_answers(&self) -> impl ExactSizeIterator<Item = ConnId> {
        self.waiting_answers()
    }
}

/// A batch of a hub, whose decisions a test compares with what it expects.
pub trait InspectBatch {
    /// The transactions, in their order; those by HTTP with their call.
    fn transactions(&self) -> impl ExactSizeIterator<Item = (&Transaction, Option<CallId>)>;

    /// The answers to come, one for each transaction; none before the batch is decided.
    fn answers(&self) -> &[Result<TransactionAnswer, StoreError>];

    /// The changes to publish, in their order; none before the batch is decided.
    fn published(&self) -> &[Published];
}

impl InspectBatch for JobBatch<HubJob> {
    fn transactions(&self) -> impl ExactSizeIterator<Item = (&Transaction, Option<CallId>)> {
        self.jobs().map(|job| (job.transaction(), job.call()))
    }

    fn answers(&self) -> &[Result<TransactionAnswer, StoreError>] {
        self.decided().map_or(&[], |decided| &decided.answers)
    }

    fn published(&self) -> &[Published] {
        self.decided().map_or(&[], |decided| &decided.published)
    }
}
