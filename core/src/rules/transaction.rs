//! Transactions on the server's rows. Every rule about writing is here.
//!
//! A [`Transaction`] is decided on a view of the rows. The decision holds the rows to change, the
//! answer, and the changes to publish. Many transactions that wait for the disk share one commit:
//! the server's committer decides each on top of those before it.

mod caps;
mod counting;
mod decide;
mod declare;
mod subject;
mod sweep;
mod unit;
mod write;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::lookups::Looked;
use super::policy::{Policy, User};
use super::query::Index;
use super::record::{self, ClientRow, EpochRow, Totals};
use super::scope::{ScopeChange, ScopeKey};
use crate::protocol::hash::Digest;
use crate::protocol::limits::Limits;
use crate::protocol::message::{ErrorCode, ServerChange};
use crate::protocol::name::{
    ClientId, Collection, ConnId, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber,
    UserId,
};
use crate::protocol::time::Timestamp;
use crate::protocol::unit::Submission;
use crate::protocol::write::Change;
use crate::store::{Batch, Overlay, Rows, StoreError};

pub use sweep::{Sweep, SweepPlace, Swept};

/// A transaction, as requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transaction {
    /// Opens a client's session and fences its earlier ones off.
    Hello {
        /// The client.
        client: ClientId,
        /// The user of the connection.
        user: Option<UserId>,
        /// The session, which must be larger than every earlier one.
        session: SessionNumber,
    },
    /// Applies writes in their order.
    Writes(Run),
    /// Applies the writes of one push by HTTP.
    Push(Push),
    /// Applies one write of a level-1 HTTP call.
    Plain(PlainWrite),
    /// Applies all writes of a level-1 HTTP call, or none.
    PlainUnit(PlainUnit),
    /// Removes rows that are older than the retention.
    Sweep(Sweep),
    /// Begins an epoch. Once at each opening of the database, before anything is served.
    BeginEpoch {
        /// The id of the epoch: random, never used before.
        epoch: Epoch,
        /// A random identity, used if the database has none yet.
        database: DatabaseId,
    },
    /// Replaces the scope keys of all collections. At each opening, after the epoch began; those that are
    /// new are built by sweeps, and the scopes of a key are read when it is.
    DeclareScopes(BTreeMap<Collection, Vec<ScopeKey>>),
    /// Replaces the indexes of all collections, by which REST queries are carried out. At each opening, after
    /// the epoch began; those that are new are built by sweeps, and queries use an index when it is.
    DeclareIndexes(BTreeMap<Collection, Vec<Index>>),
}

/// Writes of one connection, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// The client and session that number the writes; `None` at level 1.
    pub client: Option<(ClientId, SessionNumber)>,
    /// The user of the connection.
    pub user: Option<User>,
    /// The connection; `None` for an exchange by HTTP.
    pub conn: Option<ConnId>,
    /// The writes and units. A write without a number is judged as at level 1.
    pub writes: Vec<Submission>,
    /// The recent seqs of this connection's own writes, which conflict with nothing.
    pub window: Window,
}

/// The seqs of a connection's own writes, by collection, ascending.
pub(crate) type Window = BTreeMap<Collection, Vec<Seq>>;

/// The numbered writes of one exchange by HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// The client and session that number them. The client must belong to this user, and the
    /// session must be its newest.
    pub client: (ClientId, SessionNumber),
    /// The user who pushes.
    pub user: Option<User>,
    /// The epoch that the session's hello named. The bases of the writes are seqs of its history;
    /// after the database was reopened they may be of another history, which nothing else would
    /// show, because no connection breaks (PROTOCOL 5.10).
    pub epoch: Epoch,
    /// The writes and units, all numbered.
    pub writes: Vec<Submission>,
}

/// A write of a level-1 HTTP call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlainWrite {
    /// The user who writes.
    pub user: Option<User>,
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The change of the record.
    pub change: Change,
    /// The time of the write; `None` means now.
    pub timestamp: Option<Timestamp>,
    /// The version that the writer has seen; `None` makes the write unconditional.
    pub base_version: Option<u64>,
}

/// Writes of a level-1 HTTP call, or of the server's own program, that take effect together, one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlainUnit {
    /// The user who writes.
    pub user: Option<User>,
    /// The writes.
    pub writes: Vec<PlainWrite>,
    /// `true` for writes of the server's own program, about which the policy is not asked.
    pub past_policy: bool,
}

/// The inputs of a decision besides the rows.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The permissions.
    pub policy: &'a dyn Policy,
    /// The limits of a document.
    pub limits: &'a Limits,
    /// The present time by the wall clock.
    pub now: Timestamp,
}

/// The decision of a transaction. Nothing of it has happened yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The rows to change.
    pub batch: Batch,
    /// The answer to the requester, to be sent when the batch is durable.
    pub answer: TransactionAnswer,
    /// The changes to publish in this order when the batch is durable.
    pub published: Vec<Published>,
}

/// The answer to the requester of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransactionAnswer {
    /// The answer to [`Transaction::Hello`].
    Hello(HelloAnswer),
    /// The answer to [`Transaction::Writes`]: one outcome for each write that was judged, in order. Of
    /// a unit that failed there are those of the members that failed.
    Writes(Vec<Outcome>),
    /// The answer to [`Transaction::Push`].
    Pushed(PushOutcome),
    /// The answer to [`Transaction::Plain`].
    Plain(Outcome),
    /// The answer to [`Transaction::PlainUnit`]: an outcome for each write, in order. If one of them
    /// failed, nothing was changed.
    PlainUnit(Vec<Outcome>),
    /// The answer to [`Transaction::Sweep`].
    Swept(Swept),
    /// The answer to [`Transaction::BeginEpoch`], [`Transaction::DeclareScopes`] and [`Transaction::DeclareIndexes`].
    Begun,
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloAnswer {
    /// The session is open.
    Open {
        /// The identity of the database.
        database: Option<DatabaseId>,
        /// The current epoch.
        epoch: Epoch,
        /// The number of the client's last applied write.
        last_mutation: MutationNumber,
        /// The digest of that write.
        last_digest: Option<Digest>,
        /// The session of the client's first remembered hello.
        first_session: Option<SessionNumber>,
    },
    /// The session is not larger than the stored one.
    Superseded,
    /// The client belongs to another user.
    OtherUser,
    /// The user has as many client ids as one may have: this many.
    TooMany(u64),
}

/// The outcome of a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PushOutcome {
    /// The writes were judged.
    Judged {
        /// One outcome for each write that was judged, in order.
        outcomes: Vec<Outcome>,
        /// The number of the client's last applied write after these.
        last_mutation: MutationNumber,
    },
    /// The session is not the newest one of a client of this user: nothing was applied.
    Superseded,
    /// The session's hello was answered in an earlier epoch: nothing was applied.
    OtherEpoch,
}

/// The outcome of one write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The write's number; `None` at level 1.
    pub mutation: Option<MutationNumber>,
    /// The number of the first member of its unit, if it is a member of one.
    pub unit: Option<MutationNumber>,
    /// The seq of the record or its tombstone after the write; if there is neither, the horizon. In
    /// a live stream the verdict waits until this seq has passed (PROTOCOL 9.20).
    pub at: Seq,
    /// The server's time of the record's last change; that of the decision if there is no record.
    pub committed_at: Timestamp,
    /// The verdict.
    pub verdict: Verdict,
    /// The records at which it was looked whether the record may be shown.
    pub(crate) looked: Option<Box<Looked>>,
}

/// A verdict about one write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The write was applied.
    Applied {
        /// The seq of the write.
        seq: Seq,
        /// The record's version after the write.
        version: u64,
        /// Every field that changed above the write's base, by whomever. For a writer that may not
        /// read the record: its own write, or nothing if others changed the record as well
        /// (PROTOCOL 9.16).
        echo: Option<ServerChange>,
    },
    /// The write changed nothing, or had been applied before: acknowledged without a seq.
    Unchanged {
        /// The record's version; `None` if there is no record, or it was not read.
        version: Option<u64>,
    },
    /// Something that the write touches was changed by someone else.
    Conflict {
        /// The present state of the record.
        current: ServerChange,
    },
    /// The write was refused.
    Refused {
        /// The reason, for programs.
        code: ErrorCode,
        /// The reason, for people.
        message: String,
    },
    /// The session is no longer the client's newest: none of the writes was applied.
    Superseded,
    /// The write's number is above the next one.
    OutOfOrder {
        /// The next number.
        next: MutationNumber,
    },
}

/// A committed change, for the followers of its collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The change; its seq is always present.
    pub change: ServerChange,
    /// Its seq.
    pub seq: Seq,
    /// The record after the change, for permissions that read the content.
    pub document: Option<crate::protocol::document::Document>,
    /// The connection that made it, if there is one.
    pub origin: Option<Origin>,
    /// `true` if it belongs to the same unit as the change before it. Readers see a unit at once.
    pub joined: bool,
    /// `true` if an ack tells its writer of all of it: they may read the record after it, and what they could
    /// not read before, it has brought.
    pub(crate) told_by_ack: bool,
    /// The scopes of the record; `None` if it was in none and is in none.
    pub(crate) scopes: Option<Box<ScopeChange>>,
}

/// The connection that made a change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The connection.
    pub conn: ConnId,
    /// The number of the write; `None` at level 1.
    pub mutation: Option<MutationNumber>,
}

/// The joint decision of many transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Decided {
    /// The rows to change.
    pub(crate) batch: Batch,
    /// An answer for each transaction, in order. A failed one has changed nothing.
    pub(crate) answers: Vec<Result<TransactionAnswer, StoreError>>,
    /// The changes to publish in this order.
    pub(crate) published: Vec<Published>,
}

/// An error of a transaction without an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransactError {
    /// The transaction failed before the commit: nothing has happened.
    #[error("the write failed: {0}")]
    Failed(StoreError),
    /// The commit failed or its outcome was lost: it may have happened.
    #[error("it is unknown whether the write happened: {0}")]
    Unknown(StoreError),
}

/// Decides transactions in order, each on top of those before it.
#[must_use]
pub(crate) fn decide_all<'a>(
    transactions: impl IntoIterator<Item = &'a Transaction>,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Decided {
    let mut overlay = Overlay::new(rows);
    let (mut answers, mut published) = (Vec::new(), Vec::new());
    for transaction in transactions {
        answers.push(transaction.decide(&overlay, context).map(|decision| {
            overlay.apply(&decision.batch);
            published.extend(decision.published);
            decision.answer
        }));
    }
    Decided { batch: overlay.into_batch(), answers, published }
}

impl Transaction {
    /// Decides this transaction on these rows.
    ///
    /// # Errors
    /// When the rows can't be read or are damaged.
    pub fn decide(&self, rows: &dyn Rows, context: Context<'_>) -> Result<Decision, StoreError> {
        match self {
            Self::Hello { client, user, session } => {
                decide_hello(client, user.as_ref(), *session, rows, context)
            }
            Self::Writes(run) => decide::decide_run(run, rows, context),
            Self::Push(push) => decide::decide_push(push, rows, context),
            Self::Plain(write) => decide::decide_plain(write, rows, context),
            Self::PlainUnit(unit) => unit::decide_plain_unit(unit, rows, context),
            Self::Sweep(sweep) => sweep.decide(rows, context.now),
            Self::BeginEpoch { epoch, database } => {
                sweep::begin_epoch(epoch, database, rows, context.now)
            }
            Self::DeclareScopes(keys) => declare::declare(keys, rows),
            Self::DeclareIndexes(indexes) => declare::declare(indexes, rows),
        }
    }

    /// The number of its writes, for the size of a commit; 1 for a transaction without writes.
    #[must_use]
    pub fn writes(&self) -> usize {
        let writes = match self {
            Self::Writes(Run { writes, .. }) | Self::Push(Push { writes, .. }) => {
                writes.iter().map(Submission::size).sum()
            }
            Self::PlainUnit(unit) => unit.writes.len(),
            Self::Hello { .. }
            | Self::Plain(_)
            | Self::Sweep(_)
            | Self::BeginEpoch { .. }
            | Self::DeclareScopes(_)
            | Self::DeclareIndexes(_) => 1,
        };
        writes.max(1)
    }
}

/// The fence: compares the session, stores it, and reads the last number, in one step (PROTOCOL
/// 7.6).
fn decide_hello(
    id: &ClientId,
    user: Option<&UserId>,
    session: SessionNumber,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Result<Decision, StoreError> {
    let mut batch = Batch::default();
    let stored = ClientRow::load(rows, id)?;
    let answer = match stored {
        Some(client) if client.user.as_ref() != user => HelloAnswer::OtherUser,
        Some(client) if client.session >= session => HelloAnswer::Superseded,
        None if !register(id, user, rows, context.limits, &mut batch)? => {
            HelloAnswer::TooMany(context.limits.user_clients)
        }
        Some(_) | None => {
            let (_, epoch) = EpochRow::current(rows)?
                .ok_or_else(|| StoreError::damaged("the store has no epoch: begin one first"))?;
            let client = ClientRow {
                user: user.cloned(),
                session,
                seen_at: context.now,
                last_mutation: stored.as_ref().map_or(MutationNumber(0), |c| c.last_mutation),
                last_digest: stored.as_ref().and_then(|client| client.last_digest),
                // a row from before this field is at least as old as the session that it names
                first_session: Some(
                    stored.map_or(session, |client| client.first_session.unwrap_or(client.session)),
                ),
            };
            batch.put(record::client_key(id), client.to_row());
            HelloAnswer::Open {
                database: record::database(rows)?,
                epoch: epoch.id,
                last_mutation: client.last_mutation,
                last_digest: client.last_digest,
                first_session: client.first_session,
            }
        }
    };
    Ok(Decision { batch, answer: TransactionAnswer::Hello(answer), published: Vec::new() })
}

/// Counts a new client of a user. Returns `false` if it would be one too many.
fn register(
    id: &ClientId,
    user: Option<&UserId>,
    rows: &dyn Rows,
    limits: &Limits,
    batch: &mut Batch,
) -> Result<bool, StoreError> {
    let count = record::clients_of(rows, user)?;
    if count >= limits.user_clients {
        return Ok(false);
    }
    if Totals::load(rows)?.counted.includes(id) {
        record::put_clients_of(user, count + 1, batch);
    }
    Ok(true)
}

#[cfg(test)]
pub(crate) mod tests;
