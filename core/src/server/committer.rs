//! The only way from a transaction to its answer, in five steps that every server takes alike:
//!
//! ```text
//! submit ─► next_batch ─► decide ─► the store commits ─┬─► committed: publish ─┐
//!                         (inside its transaction)     └─► failed ─────────────┤
//!                                    answer ◄─ wake the followers ◄─ settle ◄──┘
//! ```
//!
//! A [`Committer`] is a queue without a thread: its owner says when a batch is taken, runs the
//! store, and says how that ended. While one batch waits for the disk, further transactions queue
//! up, and together they are the next batch: many writers share a commit, and one alone waits for
//! nobody.
//!
//! The types keep the order. A job leaves its [`JobBatch`] only by way of [`JobBatch::committed`],
//! which publishes, or [`JobBatch::failed`]; the [`CompletedBatch`] of either has to be settled
//! before another batch is taken; and [`Settled::deliver`] wakes before it answers. So nobody learns
//! of a change that the rings don't show yet.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;

use super::followers::Moved;
use super::ring::Rings;
use super::session::Ticket;
use crate::protocol::name::{Collection, Seq};
use crate::rules::record::Head;
use crate::rules::transaction::{
    Context, Decided, TransactError, Transaction, TransactionAnswer, decide_all,
};
use crate::store::{Batch, Rows, ServerStore, StoreError, StoreErrorKind};

/// A transaction, together with whoever waits for its answer.
pub trait Job {
    /// The transaction.
    fn transaction(&self) -> &Transaction;
}

impl Job for Transaction {
    fn transaction(&self) -> &Transaction {
        self
    }
}

impl Job for Ticket<Transaction> {
    fn transaction(&self) -> &Transaction {
        self.question()
    }
}

/// The transactions that wait to be committed, and the result of those that were.
///
/// ```
/// use synclayer_core::rules::{Context, Transaction};
/// use synclayer_core::{
///     AllowAll, Committer, DatabaseId, Epoch, Limits, MemoryRows, RingLimits, Rings, Timestamp,
/// };
///
/// let (mut rows, mut rings) = (MemoryRows::default(), Rings::new(RingLimits::default()));
/// let mut committer = Committer::new(1);
/// let (epoch, database) = (Epoch::new("e1")?, DatabaseId::new("d1")?);
/// committer.submit(Transaction::BeginEpoch { epoch, database });
///
/// let mut batch = committer.next_batch(4096).expect("a transaction waits");
/// let context = Context { policy: &AllowAll, limits: &Limits::default(), now: Timestamp(0) };
/// let changes = batch.decide(&rows, context);
/// rows.apply(changes); // a store makes them durable first
/// let settled = committer.settle(batch.committed(&mut rings));
/// settled.deliver(
///     |moved| println!("wake the followers of {moved:?}"),
///     |_job, answer| assert!(answer.is_ok()),
/// );
/// assert_eq!(committer.health().commits, 1);
/// # Ok::<(), synclayer_core::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Committer<J> {
    waiting: VecDeque<J>,
    depth: usize,
    under_way: usize,
    health: Health,
    /// The collections of changes of which nobody knows if they were committed.
    doubtful: BTreeSet<Collection>,
}

/// Health of a store, as its commits show it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Transactions that were decided and, where they changed something, committed.
    pub transactions: u64,
    /// Commits of the store that changed something. Group commit makes them fewer.
    pub commits: u64,
    /// The reason why the last batch failed, until one that changes something succeeds.
    pub failure: Option<StoreError>,
}

/// Jobs that are decided, committed and answered together.
#[derive(Clone, Debug)]
#[must_use = "its jobs are answered only when it ends"]
pub struct JobBatch<J> {
    jobs: Vec<J>,
    decided: Option<Decided>,
    changed: bool,
    /// The collections of whose changes nobody knows, and their heads once the rows were read.
    doubtful: BTreeMap<Collection, Option<Seq>>,
}

/// The end of a batch, to be handed to [`Committer::settle`]. Its changes are published.
#[derive(Debug)]
#[must_use = "its jobs are answered only when it is settled"]
pub struct CompletedBatch<J> {
    settled: Settled<J>,
    changed: bool,
    failure: Option<StoreError>,
    /// The collections that are doubtful from now on.
    doubtful: BTreeSet<Collection>,
}

/// The answers of a batch, to be delivered.
#[derive(Debug)]
#[must_use = "its jobs are answered only when it is delivered"]
pub struct Settled<J> {
    moved: Moved,
    answers: Vec<(J, Result<TransactionAnswer, TransactError>)>,
}

impl<J: Job> Committer<J> {
    /// A committer for a store that takes `depth` batches at a time, at least one.
    ///
    /// Batches settle in the order in which they were taken. With a depth above one a batch is
    /// decided on rows whose commit has not ended, so one that fails takes all that were taken
    /// after it along: they fail too.
    #[must_use]
    pub fn new(depth: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            depth: depth.max(1),
            under_way: 0,
            health: Health::default(),
            doubtful: BTreeSet::new(),
        }
    }

    /// Queues a job.
    pub fn submit(&mut self, job: J) {
        self.waiting.push_back(job);
    }

    /// Takes the next jobs: as many as have about `limit` writes together, and at least one.
    /// `None` while none waits, or as many batches are under way as the store takes.
    pub fn next_batch(&mut self, limit: usize) -> Option<JobBatch<J>> {
        if self.waiting.is_empty() || self.under_way >= self.depth {
            return None;
        }
        let mut writes: usize = 0;
        let fits = |job: &&J| {
            writes = writes.saturating_add(job.transaction().writes());
            writes <= limit
        };
        let count = self.waiting.iter().take_while(fits).count().max(1);
        let jobs = if count == self.waiting.len() {
            mem::take(&mut self.waiting).into()
        } else {
            self.waiting.drain(..count).collect()
        };
        self.under_way += 1;
        let doubtful = self.doubtful.iter().map(|collection| (collection.clone(), None)).collect();
        Some(JobBatch { jobs, decided: None, changed: false, doubtful })
    }

    /// Notes how a batch ended, and lets the next one begin.
    pub fn settle(&mut self, completed: CompletedBatch<J>) -> Settled<J> {
        let CompletedBatch { settled, changed, failure, mut doubtful } = completed;
        self.under_way = self.under_way.saturating_sub(1);
        match failure {
            Some(error) => {
                self.health.failure = Some(error);
                self.doubtful.append(&mut doubtful);
            }
            None => {
                self.doubtful = doubtful;
                self.health.transactions += settled.answers.len() as u64;
                self.health.commits += u64::from(changed);
                if changed {
                    self.health.failure = None;
                }
            }
        }
        settled
    }

    /// The jobs that wait, in their order.
    pub(crate) fn waiting(&self) -> impl ExactSizeIterator<Item = &J> {
        self.waiting.iter()
    }

    /// The health of the store.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl<J: Job> JobBatch<J> {
    /// The jobs, in their order.
    pub(crate) fn jobs(&self) -> impl ExactSizeIterator<Item = &J> {
        self.jobs.iter()
    }

    /// Decides the jobs, each on top of those before it, and returns the rows to commit.
    ///
    /// It is called inside [`ServerStore::transact`], on the rows that the store lends; by a store
    /// that tries again perhaps more than once, of which the last counts.
    pub fn decide(&mut self, rows: &dyn Rows, context: Context<'_>) -> Batch {
        let mut decided = decide_all(self.jobs.iter().map(Job::transaction), rows, context);
        let batch = mem::take(&mut decided.batch);
        for (collection, head) in &mut self.doubtful {
            // what can't be read stays doubtful
            *head = Head::load(rows, collection).ok().map(|head| head.seq);
        }
        self.changed = !batch.is_empty();
        self.decided = Some(decided);
        batch
    }

    /// The decisions without the rows to commit, for journals and metrics. Nothing of them has
    /// happened yet.
    #[must_use]
    pub(crate) fn decided(&self) -> Option<&Decided> {
        self.decided.as_ref()
    }

    /// Decides the jobs in a transaction of this store, and waits until that is durable.
    ///
    /// # Errors
    /// When the store fails, with whether something may have happened.
    pub fn commit(
        &mut self,
        store: &dyn ServerStore,
        context: Context<'_>,
    ) -> Result<(), TransactError> {
        store.transact(&mut |rows| Ok(self.decide(rows, context))).map_err(|error| {
            match self.changed {
                true => TransactError::Unknown(error),
                false => TransactError::Failed(error),
            }
        })
    }

    /// The rows are durable: publishes the changes, after which the jobs may be answered.
    pub fn committed(self, rings: &mut Rings) -> CompletedBatch<J> {
        let Some(decided) = self.decided else {
            let error = StoreError::new(StoreErrorKind::Other, "the store decided nothing");
            return self.failed(TransactError::Failed(error));
        };
        let (mut elsewhere, mut doubtful) = (Vec::new(), BTreeSet::new());
        for (collection, head) in self.doubtful {
            match head {
                Some(head) if head > rings.head(&collection) => {
                    rings.note_head(&collection, head);
                    elsewhere.push(collection);
                }
                Some(_) => {}
                None => drop(doubtful.insert(collection)),
            }
        }
        rings.publish_all(&decided.published);
        let mut moved: Moved = elsewhere.into_iter().collect();
        decided.published.iter().for_each(|change| moved.note(change));
        let answers = decided.answers.into_iter().map(|a| a.map_err(TransactError::Failed));
        let answers = self.jobs.into_iter().zip(answers).collect();
        let settled = Settled { moved, answers };
        CompletedBatch { settled, changed: self.changed, failure: None, doubtful }
    }

    /// Ends a batch whose rows were not committed, or perhaps were: nothing is published, and every job
    /// gets this error.
    pub fn failed(self, error: TransactError) -> CompletedBatch<J> {
        let (TransactError::Failed(cause) | TransactError::Unknown(cause)) = &error;
        let failure = Some(cause.clone());
        let published = self.decided.into_iter().flat_map(|decided| decided.published);
        let doubtful = published.map(|change| change.collection).collect();
        let answers = self.jobs.into_iter().map(|job| (job, Err(error.clone()))).collect();
        let settled = Settled { moved: Moved::default(), answers };
        CompletedBatch { settled, changed: false, failure, doubtful }
    }
}

impl<J> Settled<J> {
    /// Wakes the followers of the collections that moved, where there are any, and then answers
    /// each job, in their order.
    pub fn deliver(
        self,
        wake: impl FnOnce(&Moved),
        mut answer: impl FnMut(J, Result<TransactionAnswer, TransactError>),
    ) {
        if !self.moved.is_empty() {
            wake(&self.moved);
        }
        self.answers.into_iter().for_each(|(job, result)| answer(job, result));
    }
}

#[cfg(test)]
mod tests;
