//! The one thread that writes: it gives the core's [`Committer`] a store, a lock and a signal.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use synclayer_core::{
    Committer, Context, Health, JobBatch, Limits, Policy, ServerStore, StoreError, StoreErrorKind,
    Sweep, SweepPlace, Ticket, TransactError, Transaction, TransactionAnswer,
};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::fairness::{FairQueue, Principal};
use crate::feed::Feed;
use crate::mailbox::Mailbox;

/// The approximate number of writes in one commit: few enough that those who come meanwhile don't wait
/// for long.
const WRITES: usize = 512;
/// The approximate number of writes that one principal has in a commit while others write too. They wait
/// for it, however few they write.
pub(crate) const SHARE: usize = 32;
/// The time for which such a principal waits behind a commit, in times of what that took: tables are
/// written from what it commits, and for those all would have to wait in the end.
const REST: u32 = 4;
/// The time for which others count as writing too.
const CONTENDED: Duration = Duration::from_secs(1);
/// The number of commits that a store has under way at a time.
const DEPTH: usize = 1;

/// The interval at which a store that has failed is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The end of a transaction.
pub(crate) type Result<T = TransactionAnswer, E = TransactError> = std::result::Result<T, E>;

/// The parts of a server that a commit needs.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ServerStore>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) feed: Arc<Feed>,
}

impl Backend {
    fn context(&self) -> Context<'_> {
        Context { policy: &*self.policy, limits: &self.limits, now: self.clock.now().wall }
    }

    /// Runs the transactions with which an opening begins, one after the other, before
    /// anything is served.
    pub(crate) fn begin(&self, transactions: &[Transaction]) -> Result<(), StoreError> {
        for begin in transactions {
            self.store.transact(&mut |rows| Ok(begin.decide(rows, self.context())?.batch))?;
        }
        Ok(())
    }
}

/// The transactions that wait to be committed.
pub(crate) struct Commits {
    queue: Mutex<Queue>,
    filled: Condvar,
    /// More than one principal has written of late.
    contended: AtomicBool,
}

struct Queue {
    committer: Committer<Job>,
    /// The transactions that are in no batch yet, by the principal that asked for them.
    waiting: FairQueue<Job>,
    /// The principal that asked last.
    last: Principal,
    /// When a principal last asked behind another one.
    contended: Option<Instant>,
    /// Some of the last commit was of a principal with more than its share.
    had_heavy: bool,
    /// When such principals may commit again.
    rested: Option<Instant>,
    /// The store failed, and no transaction has succeeded since.
    failing: bool,
    closed: bool,
}

/// A transaction, and the receiver of its answer.
pub(crate) enum Job {
    /// A session's.
    Ticket(Ticket<Transaction>, Arc<Mailbox>),
    /// Somebody else's.
    Call(Transaction, oneshot::Sender<Result>),
    /// One that looks if a store that has failed works again.
    Look(Transaction),
}

impl synclayer_core::Job for Job {
    fn transaction(&self) -> &Transaction {
        match self {
            Self::Ticket(ticket, _) => ticket.question(),
            Self::Call(transaction, _) | Self::Look(transaction) => transaction,
        }
    }
}

impl Job {
    /// The number of writes, at least one.
    fn writes(&self) -> usize {
        synclayer_core::Job::transaction(self).writes()
    }

    fn answer(self, result: Result) {
        match self {
            Self::Ticket(ticket, mailbox) => mailbox.put(ticket.answer(result)),
            // who asked may have gone
            Self::Call(_, asked) => drop(asked.send(result)),
            Self::Look(_) => {}
        }
    }
}

impl Default for Commits {
    fn default() -> Self {
        let queue = Queue {
            committer: Committer::new(DEPTH),
            waiting: FairQueue::default(),
            last: Principal::Local,
            contended: None,
            had_heavy: false,
            rested: None,
            failing: false,
            closed: false,
        };
        let contended = AtomicBool::new(false);
        Self { queue: Mutex::new(queue), filled: Condvar::new(), contended }
    }
}

impl Queue {
    fn is_contended(&self, now: Instant) -> bool {
        self.contended.is_some_and(|at| now < at + CONTENDED)
    }

    fn push(&mut self, principal: &Principal, job: Job, now: Instant) {
        if self.last != *principal {
            self.last = principal.clone();
            self.contended = Some(now);
        }
        self.waiting.push(principal, job);
    }

    /// Hands as many transactions to the committer as one commit holds. While others write too, those of
    /// principals who write more than their share are in every other commit at most.
    fn fill(&mut self, now: Instant) {
        let is_contended = self.is_contended(now);
        let share = if is_contended { SHARE } else { WRITES };
        let heavy = if is_contended { self.heavy() } else { HashSet::new() };
        let all_are_heavy = self.waiting.iter().all(|(principal, _)| heavy.contains(principal));
        let rests = self.rests(now).is_some() && !self.closed;
        let without_heavy = rests || self.had_heavy && !all_are_heavy;
        self.had_heavy = !heavy.is_empty() && !without_heavy;
        let (mut writes, mut shares) = (0, HashMap::new());
        let mut fits = |principal: &Principal, job: &Job| {
            if without_heavy && heavy.contains(principal) {
                return false;
            }
            let more = job.writes();
            let of_principal = shares.get(principal).copied().unwrap_or(0);
            let has_room = |before: usize, most| before == 0 || before + more <= most;
            let fits = has_room(writes, WRITES) && has_room(of_principal, share);
            if fits {
                writes += more;
                shares.insert(principal.clone(), of_principal + more);
            }
            fits
        };
        while let Some(job) = self.waiting.pop_if(&mut fits) {
            self.committer.submit(job);
        }
    }

    /// The time for which those with more than their share still have to wait.
    fn rests(&self, now: Instant) -> Option<Duration> {
        let left = self.rested?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The principals that wait with more than their share.
    fn heavy(&self) -> HashSet<Principal> {
        let is_heavy = |jobs: &VecDeque<Job>| {
            let mut writes = 0;
            jobs.iter().any(|job| {
                writes += job.writes();
                writes > SHARE
            })
        };
        let heavy = self.waiting.iter().filter(|(_, jobs)| is_heavy(jobs));
        heavy.map(|(principal, _)| principal.clone()).collect()
    }
}

impl Commits {
    /// Queues a transaction. After the end it is answered as failed.
    pub(crate) fn submit(&self, principal: &Principal, job: Job) {
        let mut queue = self.queue();
        if queue.closed {
            drop(queue);
            let error = StoreError::new(StoreErrorKind::Other, "the server is shutting down");
            job.answer(Err(TransactError::Failed(error)));
            return;
        }
        let now = Instant::now();
        queue.push(principal, job, now);
        self.contended.store(queue.is_contended(now), Ordering::Relaxed);
        drop(queue);
        self.filled.notify_one();
    }

    /// Returns `true` if more than one principal writes, so that a connection should have no more than
    /// [`SHARE`] writes ready for a transaction.
    pub(crate) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
    }

    /// Runs a transaction, and waits until it is durable.
    pub(crate) async fn run(&self, principal: &Principal, transaction: Transaction) -> Result {
        let (asked, answer) = oneshot::channel();
        self.submit(principal, Job::Call(transaction, asked));
        answer.await.unwrap_or_else(|_| Err(TransactError::Unknown(panicked())))
    }

    /// Lets the thread end when everything that waits is committed.
    pub(crate) fn close(&self) {
        self.queue().closed = true;
        self.filled.notify_one();
    }

    /// The health of the store. It is well again when any transaction has succeeded.
    pub(crate) fn health(&self) -> Health {
        let queue = self.queue();
        let mut health = queue.committer.health().clone();
        health.failure = health.failure.filter(|_| queue.failing);
        health
    }

    /// Starts the thread. It ends after [`close`](Self::close).
    pub(crate) fn start(self: &Arc<Self>, backend: Backend) -> std::io::Result<JoinHandle<()>> {
        let commits = Arc::clone(self);
        let work = move || {
            while let Some(batch) = commits.next_batch() {
                commits.commit(&backend, batch);
            }
        };
        thread::Builder::new().name("synclayer-commit".into()).spawn(work)
    }

    /// Waits for transactions, and takes as many as one commit holds.
    fn next_batch(&self) -> Option<JobBatch<Job>> {
        let mut queue = self.queue();
        loop {
            queue.fill(Instant::now());
            if let Some(batch) = queue.committer.next_batch(WRITES) {
                return Some(batch);
            }
            let rest = queue.rests(Instant::now()).filter(|_| !queue.waiting.is_empty());
            if queue.closed && rest.is_none() {
                return None;
            }
            if let Some(rest) = rest {
                let waited = self.filled.wait_timeout(queue, rest);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if !queue.failing {
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.filled.wait_timeout(queue, LOOK_INTERVAL);
            let (waited_for, ended) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = waited_for;
            if ended.timed_out() && !queue.closed {
                queue.committer.submit(Job::Look(look()));
            }
        }
    }

    fn commit(&self, backend: &Backend, mut batch: JobBatch<Job>) {
        let begun = Instant::now();
        let commit = AssertUnwindSafe(|| batch.commit(&*backend.store, backend.context()));
        // a policy that panics must not leave everyone waiting for ever
        let ended =
            panic::catch_unwind(commit).unwrap_or_else(|_| Err(TransactError::Unknown(panicked())));
        let mut failing = false;
        let outcome = match ended {
            Ok(()) => batch.committed(&mut backend.feed.rings_mut()),
            Err(error) => {
                let (TransactError::Failed(cause) | TransactError::Unknown(cause)) = &error;
                if !self.queue().failing {
                    tracing::error!(error = %cause, "the store failed: no write is taken");
                }
                failing = true;
                batch.failed(error)
            }
        };
        let mut queue = self.queue();
        if queue.failing && !failing {
            tracing::info!("the store works again: writes are taken");
        }
        queue.failing = failing;
        queue.rested = queue.had_heavy.then(|| Instant::now() + REST * begun.elapsed());
        let settled = queue.committer.settle(outcome);
        drop(queue);
        settled.deliver(|moved| backend.feed.wake(moved), Job::answer);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that changes nothing.
fn look() -> Transaction {
    Transaction::Sweep(Sweep { retention: Duration::MAX, from: SweepPlace::Start, budget: 1 })
}

fn panicked() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "a transaction panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(commits: &Commits, principal: u8, count: usize) {
        for _ in 0..count {
            let (asked, _) = oneshot::channel();
            let principal = Principal::Address([192, 0, 2, principal].into());
            commits.submit(&principal, Job::Call(look(), asked));
        }
    }

    #[test]
    fn a_principal_that_writes_much_holds_no_other_up() {
        let commits = Commits::default();
        let batch = || {
            let mut queue = commits.queue();
            let before = queue.waiting.len();
            queue.fill(Instant::now());
            let taken = before - queue.waiting.len();
            assert!(queue.committer.next_batch(WRITES).is_some_and(|batch| {
                // it ends at once
                drop(queue.committer.settle(batch.failed(TransactError::Failed(panicked()))));
                true
            }));
            taken
        };
        ask(&commits, 1, 3 * WRITES);
        ask(&commits, 2, 1);
        assert_eq!(batch(), SHARE + 1, "its share, and the other's one");
        ask(&commits, 2, 2);
        assert_eq!(batch(), 2, "the other's alone");
        ask(&commits, 2, 1);
        assert_eq!(batch(), SHARE + 1, "by turns");
        assert_eq!(batch(), SHARE, "it need not wait for others who ask for nothing");
        let now = Instant::now();
        let mut queue = commits.queue();
        queue.rested = Some(now + CONTENDED / 2);
        for (after, left) in [(CONTENDED / 4, 0), (CONTENDED / 2, SHARE)] {
            let before = queue.waiting.len();
            queue.fill(now + after);
            assert_eq!(before - queue.waiting.len(), left, "it rests, and then goes on");
        }
    }

    #[test]
    fn a_principal_that_writes_alone_has_whole_commits() {
        let commits = Commits::default();
        ask(&commits, 1, 2 * WRITES);
        let mut queue = commits.queue();
        queue.fill(Instant::now() + CONTENDED);
        assert_eq!(queue.waiting.len(), WRITES, "one batch is full");
    }
}
