//! The time of the processors, shared fairly.
//!
//! The time for which the tasks of connections run counts to their principals. A principal that uses
//! more than a small part of a processor for a while is busy: from then on its tasks run in turns, of
//! which there are half as many at a time as processors, and the busy principals alternate. So whoever
//! uses little waits for none of them, whatever they send, and finds a processor that is free.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::fairness::{FairQueue, Principal};

/// The time for which a task runs before others have their turn.
pub(crate) const SLICE: Duration = Duration::from_micros(200);
/// The part of one processor's time above which a principal is busy in the end: one of so many.
const SHARE: u32 = 10;
/// The time that a principal may use at once before it is busy.
const BURST: Duration = Duration::from_millis(5);
/// The longest time for which a principal stays busy that uses no more.
const LONGEST: Duration = Duration::from_millis(500);
/// The number of principals that are remembered whether they are there or gone.
const FEW: usize = 256;

/// The turns of all busy principals.
pub(crate) struct Turns {
    started: Instant,
    state: Mutex<State>,
}

struct State {
    free: usize,
    waiting: FairQueue<oneshot::Sender<Turn>>,
    usages: HashMap<Principal, Arc<Usage>>,
    /// The number of principals at which it is looked which of them are gone.
    many: usize,
}

/// The time that a principal has used.
struct Usage {
    principal: Principal,
    /// When all of it is made up for, at its share of a processor: the time since the start.
    even: AtomicU64,
}

/// The place of a task that runs.
struct Turn {
    /// `None` where nobody is there any more who could have it.
    turns: Option<Arc<Turns>>,
}

/// Counts the time of a connection to a principal.
pub(crate) struct Meter {
    turns: Arc<Turns>,
    usage: Mutex<Arc<Usage>>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self::with(processors / 2)
    }

    fn with(turns: usize) -> Self {
        let state = State {
            free: turns.max(1),
            waiting: FairQueue::default(),
            usages: HashMap::new(),
            many: FEW,
        };
        Self { started: Instant::now(), state: Mutex::new(state) }
    }

    /// A meter for a connection, which counts to this principal until it is told another.
    pub(crate) fn meter(self: &Arc<Self>, principal: &Principal) -> Meter {
        Meter { turns: Arc::clone(self), usage: Mutex::new(self.usage(principal)) }
    }

    fn usage(&self, principal: &Principal) -> Arc<Usage> {
        let mut state = self.state();
        if let Some(usage) = state.usages.get(principal) {
            return Arc::clone(usage);
        }
        if state.usages.len() >= state.many {
            state.forget_gone(self.now());
        }
        let usage = Arc::new(Usage { principal: principal.clone(), even: AtomicU64::new(0) });
        state.usages.insert(principal.clone(), Arc::clone(&usage));
        usage
    }

    /// Queues a task of a busy principal.
    fn ask(self: &Arc<Self>, principal: &Principal) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.waiting.push(principal, sender);
        self.grant(state);
        receiver
    }

    fn grant(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        while state.free > 0
            && let Some(sender) = state.waiting.pop()
        {
            if let Err(mut turn) = sender.send(Turn { turns: Some(Arc::clone(self)) }) {
                // it would be given back under the lock
                turn.turns = None;
            } else {
                state.free -= 1;
            }
        }
    }

    /// Takes all turns until the answer is dropped.
    #[cfg(test)]
    pub(crate) fn hold_all(self: &Arc<Self>) -> Box<dyn std::any::Any> {
        let next = || self.ask(&Principal::Local).try_recv().ok();
        Box::new(std::iter::from_fn(next).collect::<Vec<_>>())
    }

    /// Makes a principal busy until it runs next.
    #[cfg(test)]
    pub(crate) fn make_busy(&self, principal: &Principal) {
        self.usage(principal).even.store(u64::MAX / 2, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets the principals without connections that are not busy.
    fn forget_gone(&mut self, now: u64) {
        self.usages.retain(|_, usage| Arc::strong_count(usage) > 1 || usage.is_busy(now));
        self.many = FEW.max(2 * self.usages.len());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            let mut state = turns.state();
            state.free += 1;
            turns.grant(state);
        }
    }
}

impl Usage {
    fn is_busy(&self, now: u64) -> bool {
        self.even.load(Ordering::Relaxed) > now + nanos(BURST * SHARE)
    }

    /// Counts the time from `begun` to `now`.
    fn charge(&self, begun: u64, now: u64) {
        let cost = (now - begun) * u64::from(SHARE);
        let latest = now + nanos(BURST * SHARE + LONGEST);
        let charged = |even: u64| Some((even.max(now) + cost).min(latest));
        // it always has a new value
        let _ = self.even.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged);
    }
}

impl Meter {
    /// Counts to another principal from now on.
    pub(crate) fn set_principal(&self, principal: &Principal) {
        if self.usage().principal != *principal {
            let usage = self.turns.usage(principal);
            *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        }
    }

    /// Runs a task of the connection, in turns while its principal is busy.
    pub(crate) async fn run<F: Future>(&self, mut task: Pin<&mut F>) -> F::Output {
        let mut waiting = None;
        poll_fn(|cx| self.poll(cx, &mut waiting, task.as_mut())).await
    }

    fn poll<F: Future>(
        &self,
        cx: &mut Context<'_>,
        waiting: &mut Option<oneshot::Receiver<Turn>>,
        task: Pin<&mut F>,
    ) -> Poll<F::Output> {
        let usage = self.usage();
        let mut turn = None;
        if usage.is_busy(self.turns.now()) {
            let asked = waiting.get_or_insert_with(|| self.turns.ask(&usage.principal));
            turn = ready!(Pin::new(asked).poll(cx)).ok();
        }
        *waiting = None;
        let begun = self.turns.now();
        let polled = task.poll(cx);
        // its principal may have become known meanwhile
        self.usage().charge(begun, self.turns.now());
        if turn.is_some() {
            // whatever else waits for this processor runs before the next turn
            thread::yield_now();
        }
        polled
    }

    fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.usage.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const MS: u64 = 1_000_000;

    fn principal(n: u8) -> Principal {
        Principal::Address([192, 0, 2, n].into())
    }

    #[test]
    fn a_principal_is_busy_above_its_burst_and_share_and_recovers() {
        let usage = Arc::new(Turns::with(1)).usage(&principal(1));
        usage.charge(0, 4 * MS);
        assert!(!usage.is_busy(4 * MS), "within its burst");
        usage.charge(4 * MS, 8 * MS);
        assert!(usage.is_busy(8 * MS) && !usage.is_busy(100 * MS));
        usage.charge(100 * MS, 10_000 * MS);
        let over = 10_000 * MS + nanos(LONGEST);
        assert!(usage.is_busy(over - 1) && !usage.is_busy(over));
        for second in 20..30 {
            let now = second * 1_000 * MS;
            usage.charge(now - 4 * MS, now);
            assert!(!usage.is_busy(now), "a little now and then");
        }
    }

    #[test]
    fn busy_principals_alternate_and_others_wait_for_nobody() {
        let turns = Arc::new(Turns::with(1));
        let held = turns.ask(&principal(1)).try_recv().unwrap();
        let mut asked = [1, 1, 2].map(|n| turns.ask(&principal(n)));
        let is_granted = |asked: &mut oneshot::Receiver<Turn>| {
            asked.try_recv().is_ok_and(|turn| {
                drop(turn);
                true
            })
        };
        assert!(!asked.iter_mut().any(is_granted));
        let (light, busy) = (turns.meter(&principal(3)), turns.meter(&principal(1)));
        busy.usage().charge(0, turns.now() + 100 * MS);
        let mut cx = Context::from_waker(Waker::noop());
        let mut run = |meter: &Meter| {
            let mut waiting = None;
            let ready = meter.poll(&mut cx, &mut waiting, std::pin::pin!(async {}));
            ready.is_ready()
        };
        assert!(run(&light) && !run(&busy));
        drop(held);
        let mut order = Vec::new();
        while order.len() < 3 {
            order.extend((0..3).filter(|n| is_granted(&mut asked[*n])));
        }
        assert_eq!(order, [0, 2, 1]);
        assert!(run(&busy), "there is a turn again");
    }

    #[test]
    fn a_principal_is_forgotten_when_it_is_gone_and_has_recovered() {
        let turns = Arc::new(Turns::with(1));
        let (gone, busy) = (turns.meter(&principal(1)), turns.meter(&principal(2)));
        let kept = turns.meter(&principal(3));
        busy.usage().charge(0, turns.now() + 100 * MS);
        drop((gone, busy));
        let mut state = turns.state();
        state.forget_gone(turns.now());
        let left = [1, 2, 3].map(|n| state.usages.contains_key(&principal(n)));
        assert_eq!(left, [false, true, true]);
        drop(state);
        drop(kept);
    }
}
