//! The memory that frames being read and answers being written share.
//!
//! Each connection and each answer has an [`Account`]. When the budget is spent, nothing more is
//! read from sockets and no large answer is made, but for the first [`FLOOR`] bytes of each
//! account: so those who send little go on. Whoever has held the most is ended when that lasts.

use std::collections::HashMap;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::admission::ConnectionPermit;

/// The number of bytes that an account holds without asking.
pub(crate) const FLOOR: usize = 16 << 10;
/// The time for which a budget may be spent before its largest holder is ended, and for which that
/// one must have held it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The share of the budget that is kept for what is not counted to the byte.
const RESERVE_SHARE: usize = 8;
/// The interval at which a spent budget is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The steps in which connections count, so that small frames cost no lock.
const STEP: usize = 4 << 10;

/// A number of bytes that many share.
pub(crate) struct Budget {
    limit: usize,
    state: Mutex<State>,
    /// Somebody began to wait.
    spent: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    accounts: HashMap<u64, Holder>,
    last: u64,
    /// When somebody first waited for the budget.
    spent_since: Option<Instant>,
    waiting: Vec<Waker>,
}

struct Holder {
    bytes: usize,
    /// When it rose above the floor.
    since: Instant,
    permit: Option<Arc<ConnectionPermit>>,
}

/// The share of one connection, or of one answer.
pub(crate) struct Account {
    budget: Arc<Budget>,
    id: u64,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = (limit - limit / RESERVE_SHARE).max(FLOOR);
        Self { limit, state: Mutex::default(), spent: Notify::new() }
    }

    /// Opens an account. If it holds too much for too long, the connection of this permit ends.
    pub(crate) fn open(self: &Arc<Self>, permit: Option<Arc<ConnectionPermit>>) -> Account {
        let mut state = self.state();
        state.last += 1;
        let id = state.last;
        state.accounts.insert(id, Holder { bytes: 0, since: Instant::now(), permit });
        drop(state);
        Account { budget: Arc::clone(self), id, bytes: 0 }
    }

    /// The number of bytes that are held.
    pub(crate) fn used(&self) -> usize {
        self.state().used
    }

    /// Ends the largest holders while others wait for too long.
    pub(crate) async fn watch(&self) {
        loop {
            self.spent.notified().await;
            while self.is_waited_for() {
                sleep(INTERVAL).await;
                if let Some(permit) = self.state().largest_to_end(Instant::now()) {
                    tracing::warn!(
                        peer = ?permit.peer(),
                        "ended the connection that held the most of the memory budget, which is spent"
                    );
                    permit.end();
                }
            }
        }
    }

    /// Returns `false` if there is room again, and lets those who wait look for themselves.
    fn is_waited_for(&self) -> bool {
        let mut state = self.state();
        // the largest answer finds room in the rest
        let is_spent = state.used >= self.limit - self.limit / 8;
        if !is_spent {
            state.spent_since = None;
            let woken = state.wake();
            drop(state);
            woken.into_iter().for_each(Waker::wake);
        }
        is_spent
    }

    fn wait(&self, state: &mut State, cx: &mut Context<'_>) {
        self.note_spent(state);
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
    }

    fn note_spent(&self, state: &mut State) {
        if state.spent_since.is_none() {
            state.spent_since = Some(Instant::now());
            self.spent.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn largest_to_end(&mut self, now: Instant) -> Option<Arc<ConnectionPermit>> {
        if now.saturating_duration_since(self.spent_since?) < PATIENCE {
            return None;
        }
        let is_old = |holder: &&mut Holder| {
            let held = now.saturating_duration_since(holder.since);
            holder.permit.is_some() && holder.bytes > FLOOR && held >= PATIENCE
        };
        self.accounts.values_mut().filter(is_old).max_by_key(|holder| holder.bytes)?.permit.take()
    }

    /// Those who wait, to look again.
    fn wake(&mut self) -> Vec<Waker> {
        mem::take(&mut self.waiting)
    }
}

impl Account {
    /// Sets the number of bytes that it holds, whatever the budget.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let budget = Arc::clone(&self.budget);
        let woken = self.change(&mut budget.state(), bytes);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The number of bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same as [`set`](Self::set) for what changes with every frame.
    pub(crate) fn set_about(&mut self, bytes: usize) {
        self.set(bytes - bytes % STEP);
    }

    /// Ready as long as more may be read.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes < FLOOR {
            return Poll::Ready(());
        }
        let mut state = self.budget.state();
        if state.used < self.budget.limit {
            return Poll::Ready(());
        }
        self.budget.wait(&mut state, cx);
        Poll::Pending
    }

    /// Waits until more may be read.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| self.poll_room(cx)).await;
    }

    /// Returns `true` if it holds its floor and there is no more to be had.
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes >= FLOOR && self.budget.used() >= self.budget.limit
    }

    /// Returns `true` if there is no room for what it holds, and notes that somebody was refused.
    pub(crate) fn is_refused(&self) -> bool {
        let mut state = self.budget.state();
        let is_refused = self.bytes >= FLOOR && state.used > self.budget.limit;
        if is_refused {
            self.budget.note_spent(&mut state);
        }
        is_refused
    }

    fn change(&mut self, state: &mut State, bytes: usize) -> Vec<Waker> {
        state.used = state.used - self.bytes + bytes;
        if let Some(holder) = state.accounts.get_mut(&self.id) {
            if holder.bytes <= FLOOR && bytes > FLOOR {
                holder.since = Instant::now();
            }
            holder.bytes = bytes;
        }
        let has_less = bytes < self.bytes;
        self.bytes = bytes;
        let is_spent = state.used >= self.budget.limit;
        if has_less && !is_spent { state.wake() } else { Vec::new() }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
        self.budget.state().accounts.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn is_ready(ready: impl FnOnce(&mut Context<'_>) -> Poll<()>) -> bool {
        ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_spent_budget_leaves_a_floor_to_everyone() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let (mut large, mut small) = (budget.open(None), budget.open(None));
        large.set(MIB - FLOOR);
        assert!(is_ready(|cx| large.poll_room(cx)));
        small.set(FLOOR);
        assert!(!is_ready(|cx| large.poll_room(cx)) && !is_ready(|cx| small.poll_room(cx)));
        assert!(small.is_spent());
        small.set(FLOOR - 1);
        assert!(is_ready(|cx| small.poll_room(cx)) && !small.is_spent());
        assert_eq!(budget.used(), MIB - 1);
        drop(large);
        assert_eq!(budget.used(), FLOOR - 1);
    }

    #[test]
    fn an_answer_without_room_is_refused() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let (mut large, mut small) = (budget.open(None), budget.open(None));
        large.set(MIB);
        small.set(FLOOR - 1);
        assert!(large.is_refused() && !small.is_refused());
        drop(small);
        assert!(!large.is_refused());
    }

    #[tokio::test]
    async fn the_largest_holder_is_ended_when_others_wait_for_long() {
        let config = crate::ServerConfig::new().max_connections(40);
        let admission = Arc::new(crate::admission::Admission::new(&config));
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let permits: Vec<_> = (0..3).map(|_| admission.permit_now(None).unwrap()).collect();
        let open = |permit| budget.open(Some(Arc::clone(permit)));
        let mut accounts: Vec<_> = permits.iter().map(open).collect();
        for (account, bytes) in accounts.iter_mut().zip([MIB / 2, MIB, FLOOR]) {
            account.set(bytes);
        }
        let now = Instant::now();
        let late = now + PATIENCE + INTERVAL;
        assert!(budget.state().largest_to_end(late).is_none(), "nobody waits");
        assert!(!is_ready(|cx| accounts[2].poll_room(cx)));
        assert!(budget.state().largest_to_end(now).is_none());
        assert!(Arc::ptr_eq(&budget.state().largest_to_end(late).unwrap(), &permits[1]));
        // each is ended once
        assert!(Arc::ptr_eq(&budget.state().largest_to_end(late).unwrap(), &permits[0]));
        assert!(budget.state().largest_to_end(late).is_none());
        accounts[1].set(0);
        assert!(!budget.is_waited_for());
        assert!(budget.state().spent_since.is_none() && budget.state().waiting.is_empty());
    }
}
