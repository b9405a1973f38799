//! Commands for an engine, and the inbox that takes them from any thread.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use synclayer_core::{
    Collection, Command, ConnId, Disconnect, Explanation, Input, NamedScope, PendingWrite, Query,
    Record, RecordId, Rejected, RequestId, SignOut, Status, TransactionBody, Write, WriteId,
};

use crate::listen::{EventQueue, QuerySlot, UpdateSlot};
use crate::mailbox;
use crate::metrics::Metrics;
use crate::pending::{EndReason, Pending, Responder};
use crate::reads::SharedReads;
use crate::saved::{Saved, SavedTransaction};

/// A command for an engine. Those of the app are answered by their `Responder`.
pub enum EngineCommand {
    /// Makes a write of a record.
    Write {
        /// The record.
        id: RecordId,
        /// The write.
        write: Write,
        /// Answered when the write is durable.
        reply: Responder<Saved>,
    },
    /// Makes transactions, one after the other.
    Transact {
        /// The transactions.
        parts: Vec<TransactionBody>,
        /// The collections that they are about, known when they were made.
        touched: Arc<Mutex<BTreeSet<Collection>>>,
        /// Answered when all are durable.
        reply: Responder<Vec<SavedTransaction>>,
    },
    /// Makes a rejected write again.
    Retry {
        /// The rejected write.
        write: WriteId,
        /// Answered when the new write is durable.
        reply: Responder<Saved>,
    },
    /// Makes a decision of the app's: a write that is not of one record.
    Decide {
        /// The decision.
        write: Write,
        /// Answered when it is durable.
        reply: Responder<()>,
    },
    /// Reads a record.
    Get {
        /// Its collection.
        collection: Collection,
        /// Its id.
        id: RecordId,
        /// Answered at once.
        reply: Responder<Option<Record>>,
    },
    /// Reads all records of a collection.
    GetAll {
        /// The collection.
        collection: Collection,
        /// Answered at once.
        reply: Responder<Vec<Record>>,
    },
    /// Reads the records that a query returns.
    Query {
        /// The collection.
        collection: Collection,
        /// The query.
        query: Box<Query>,
        /// Answered at once.
        reply: Responder<Vec<Record>>,
    },
    /// Counts the records that a query returns.
    Count {
        /// The collection.
        collection: Collection,
        /// The query.
        query: Box<Query>,
        /// Answered at once.
        reply: Responder<usize>,
    },
    /// Carries a query out, and says how.
    Explain {
        /// The collection.
        collection: Collection,
        /// The query.
        query: Box<Query>,
        /// Answered at once.
        reply: Responder<Explanation>,
    },
    /// Reads the status.
    Status(Responder<Status>),
    /// Reads the figures of the work so far.
    Metrics(Responder<Metrics>),
    /// Reads the list of rejected writes.
    Rejected(Responder<Vec<Rejected>>),
    /// Reads the list of the writes that wait for the server.
    Pending(Responder<Vec<PendingWrite>>),
    /// Waits for the server: answered when every write made before is settled, and every collection
    /// is confirmed or known not to be in sync.
    Synced(Responder<()>),
    /// Gives the replica a command, which is answered at once. Settings outlive the replica.
    Replica(Command, Responder<()>),
    /// Signs the user out: answered when that is durable and the client has ended.
    SignOut(SignOut, Responder<()>),
    /// Shows a collection, or one record of it, in a mailbox.
    Watch {
        /// The collection.
        collection: Collection,
        /// The record, if it is one.
        record: Option<RecordId>,
        /// The mailbox.
        updates: mailbox::Sender<UpdateSlot>,
    },
    /// Shows the result of a query in a mailbox.
    WatchQuery {
        /// The collection.
        collection: Collection,
        /// The scope that it asks about; `None` if it is all that is held.
        scope: Option<NamedScope>,
        /// The query, which was checked.
        query: Box<Query>,
        /// The mailbox.
        updates: mailbox::Sender<QuerySlot>,
    },
    /// Forgets the watchers whose reader has gone.
    DismissWatchers,
    /// Puts events into a mailbox from now on.
    Listen(mailbox::Sender<EventQueue>),
    /// Shows the status in a mailbox.
    WatchStatus(mailbox::Sender<Option<Status>>),
    /// Counts one more user of a collection: a handle or a watch.
    Hold(Collection),
    /// Counts one less.
    Release(Collection),
    /// Counts one more user of a scope.
    HoldScope(Collection, NamedScope),
    /// Counts one less.
    ReleaseScope(Collection, NamedScope),
    /// Carries a command out that is about a part of a collection: it does not use the whole.
    Part(Box<Self>),
    /// Takes news of a connection.
    Socket {
        /// The life of the replica that asked for the connection.
        life: u64,
        /// The connection.
        conn: ConnId,
        /// The news.
        event: SocketEvent,
    },
    /// Takes note that bytes of an HTTP request, or of its answer, have moved.
    RequestProgress {
        /// The life of the replica that asked for it.
        life: u64,
        /// The request.
        request: RequestId,
    },
    /// Takes the answer to an HTTP request.
    Answered {
        /// The life of the replica that asked for it.
        life: u64,
        /// The answer.
        input: Input<'static>,
    },
    /// Looks what the store has made durable.
    Durable,
    /// Ends the client.
    Stop,
}

impl EngineCommand {
    /// Returns `true` if a read that begins after the command was made must see its effect.
    pub(crate) fn is_seen_by_reads(&self) -> bool {
        match self {
            Self::Write { .. }
            | Self::Transact { .. }
            | Self::Retry { .. }
            | Self::Decide { .. }
            | Self::Replica(..)
            | Self::SignOut(..)
            | Self::Stop => true,
            Self::Get { .. }
            | Self::GetAll { .. }
            | Self::Query { .. }
            | Self::Count { .. }
            | Self::Explain { .. }
            | Self::Status(_)
            | Self::Metrics(_)
            | Self::Rejected(_)
            | Self::Pending(_)
            | Self::Synced(_)
            | Self::Watch { .. }
            | Self::WatchQuery { .. }
            | Self::DismissWatchers
            | Self::Listen(_)
            | Self::WatchStatus(_)
            | Self::Hold(_)
            | Self::Release(_)
            | Self::HoldScope(..)
            | Self::ReleaseScope(..)
            | Self::Socket { .. }
            | Self::Answered { .. }
            | Self::RequestProgress { .. }
            | Self::Durable => false,
            Self::Part(command) => command.is_seen_by_reads(),
        }
    }
}

/// News of a connection.
pub enum SocketEvent {
    /// The connection is open.
    Connected,
    /// A frame has arrived.
    Frame(Bytes),
    /// The server has shown a sign of life.
    Heard,
    /// Bytes of a frame that is not whole have arrived, or bytes that had to wait have gone out.
    Progress,
    /// The connection has ended. Said exactly once.
    Disconnected(Disconnect),
}

/// The place to put commands for an engine, from any thread.
#[derive(Clone)]
pub struct Inbox {
    commands: Sender<EngineCommand>,
    reads: Arc<SharedReads>,
    wake: Arc<dyn Fn() + Send + Sync>,
    end: EndReason,
}

impl Inbox {
    /// Makes an inbox and the end that the engine empties. `wake` is called after a command was put
    /// in; it does nothing for a network that waits for the receiver alone.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> (Self, Receiver<EngineCommand>) {
        let (commands, inbox) = channel();
        let (reads, wake, end) = (Arc::default(), Arc::new(wake), EndReason::default());
        (Self { commands, reads, wake, end }, inbox)
    }

    /// Puts a command in. If the engine has ended, it is dropped with what it holds.
    pub fn put(&self, command: EngineCommand) {
        if command.is_seen_by_reads() {
            self.reads.count_made();
        }
        // nobody to be told: what the command holds is dropped with it, and that tells
        if self.commands.send(command).is_ok() {
            (self.wake)();
        }
    }

    /// Makes a call.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Responder<T>) -> EngineCommand) -> Pending<T> {
        if let Err(refused) = self.end.check() {
            return Pending::refused(refused);
        }
        let (reply, pending) = Pending::new(&self.end);
        self.put(command(reply));
        pending
    }

    /// Reads a record, here if that can be.
    pub(crate) fn get(&self, collection: &Collection, id: RecordId) -> Pending<Option<Record>> {
        match self.end.check() {
            Ok(()) => match self.reads.get(collection, &id) {
                Some(record) => Pending::answered(Ok(record)),
                None => {
                    let collection = collection.clone();
                    self.ask(|reply| EngineCommand::Get { collection, id, reply })
                }
            },
            Err(refused) => Pending::refused(refused),
        }
    }

    /// The view of the store for reads beside the engine.
    pub(crate) fn reads(&self) -> &SharedReads {
        &self.reads
    }

    /// Makes it known that the user has signed out: no call is taken any more.
    pub(crate) fn sign_out(&self) {
        self.end.set_signed_out();
    }
}
