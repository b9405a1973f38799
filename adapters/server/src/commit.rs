//! The one thread that writes.
//!
//! While one batch of transactions waits for the disk, further ones queue up; together they are
//! the next batch. So many writers share a commit, and one alone waits for nobody.

use std::collections::VecDeque;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use synclayer_core::rules::policy::Policy;
use synclayer_core::rules::transaction::{
    Answer, Context, Decided, TransactError, Transaction, decide_all,
};
use synclayer_core::server::session::TransactTicket;
use synclayer_core::words::limits::Limits;
use synclayer_core::words::store::{ServerStore, StoreError, StoreErrorKind};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::feed::Feed;
use crate::mailbox::Mailbox;

/// About how many writes go into one commit.
const WRITES: usize = 4096;

/// What a transaction comes to.
pub(crate) type Result<T = Answer, E = TransactError> = std::result::Result<T, E>;

/// What committing needs.
pub(crate) struct Desk {
    pub(crate) store: Arc<dyn ServerStore>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) feed: Arc<Feed>,
}

/// The transactions that wait to be committed, and what was counted of those that were.
#[derive(Default)]
pub(crate) struct Commits {
    queue: Mutex<Queue>,
    filled: Condvar,
    transactions: AtomicU64,
    commits: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Why the store takes nothing more.
    failed: Option<StoreError>,
}

/// A transaction and whom to answer.
pub(crate) enum Job {
    /// A session's.
    Ticket(TransactTicket, Arc<Mailbox>),
    /// Somebody else's.
    Call(Transaction, oneshot::Sender<Result>),
}

impl Job {
    fn transaction(&self) -> &Transaction {
        match self {
            Self::Ticket(ticket, _) => ticket.transaction(),
            Self::Call(transaction, _) => transaction,
        }
    }

    fn writes(&self) -> usize {
        match self.transaction() {
            Transaction::Writes(run) => run.mutations.len(),
            Transaction::Push(push) => push.mutations.len(),
            Transaction::Hello { .. }
            | Transaction::Plain(_)
            | Transaction::Sweep(_)
            | Transaction::BeginEpoch { .. } => 1,
        }
    }

    fn answer(self, result: Result) {
        match self {
            Self::Ticket(ticket, mailbox) => mailbox.put(ticket.answer(result)),
            // who asked may have gone
            Self::Call(_, asked) => drop(asked.send(result)),
        }
    }
}

impl Commits {
    /// Queues a transaction. After the end it is answered as failed.
    pub(crate) fn submit(&self, job: Job) {
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            let error = StoreError::new(StoreErrorKind::Other, "the server is shutting down");
            job.answer(Err(TransactError::Failed(error)));
            return;
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.filled.notify_one();
    }

    /// Runs a transaction, and waits until it is durable.
    pub(crate) async fn run(&self, transaction: Transaction) -> Result {
        let (asked, answer) = oneshot::channel();
        self.submit(Job::Call(transaction, asked));
        answer.await.unwrap_or_else(|_| Err(TransactError::Unknown(panicked())))
    }

    /// Lets the thread end when everything that waits is committed.
    pub(crate) fn close(&self) {
        self.queue().closed = true;
        self.filled.notify_one();
    }

    /// Why the store takes nothing more, if it has failed.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.queue().failed.clone()
    }

    /// How many transactions were committed, and in how many commits.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.transactions.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }

    /// Starts the thread. It ends after [`close`](Self::close).
    pub(crate) fn start(self: &Arc<Self>, desk: Desk) -> std::io::Result<JoinHandle<()>> {
        let commits = Arc::clone(self);
        let work = move || {
            while let Some(batch) = commits.next_batch() {
                commits.commit(&desk, batch);
            }
        };
        thread::Builder::new().name("synclayer-commit".into()).spawn(work)
    }

    /// Waits for transactions, and takes as many as one commit holds.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue();
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut writes = 0;
        let fits = |job: &&Job| {
            writes += job.writes();
            writes <= WRITES
        };
        let count = queue.jobs.iter().take_while(fits).count().max(1);
        if count == queue.jobs.len() {
            return Some(mem::take(&mut queue.jobs).into());
        }
        Some(queue.jobs.drain(..count).collect())
    }

    /// Commits, then shows, then answers.
    fn commit(&self, desk: &Desk, batch: Vec<Job>) {
        let transactions: Vec<&Transaction> = batch.iter().map(Job::transaction).collect();
        // a policy that panics must not leave everyone waiting for ever
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| transact(desk, &transactions)))
            .unwrap_or_else(|_| Err(TransactError::Unknown(panicked())));
        match outcome {
            Ok((decided, changed)) => {
                self.transactions.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.commits.fetch_add(changed.into(), Ordering::Relaxed);
                if changed {
                    self.queue().failed = None;
                }
                desk.feed.publish(&decided.published);
                for (job, answer) in batch.into_iter().zip(decided.answers) {
                    job.answer(answer.map_err(TransactError::Failed));
                }
            }
            Err(error) => {
                let (TransactError::Failed(cause) | TransactError::Unknown(cause)) = &error;
                tracing::error!(error = %cause, "the store failed: no write is taken any more");
                self.queue().failed = Some(cause.clone());
                batch.into_iter().for_each(|job| job.answer(Err(error.clone())));
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides and commits, and tells whether anything changed.
pub(crate) fn transact(desk: &Desk, transactions: &[&Transaction]) -> Result<(Decided, bool)> {
    let context =
        Context { policy: &*desk.policy, limits: &desk.limits, now: desk.clock.now().wall };
    let mut decided = None;
    let mut changed = false;
    let committed = desk.store.transact(&mut |rows| {
        let mut decision = decide_all(transactions.iter().copied(), rows, context);
        let batch = mem::take(&mut decision.batch);
        changed = !batch.is_empty();
        decided = Some(decision);
        Ok(batch)
    });
    match (committed, decided) {
        (Ok(()), Some(decided)) => Ok((decided, changed)),
        (Ok(()), None) => {
            let error = StoreError::new(StoreErrorKind::Other, "the store decided nothing");
            Err(TransactError::Failed(error))
        }
        (Err(error), Some(_)) if changed => Err(TransactError::Unknown(error)),
        (Err(error), _) => Err(TransactError::Failed(error)),
    }
}

fn panicked() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "a transaction panicked")
}
