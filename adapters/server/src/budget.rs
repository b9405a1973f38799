//! The memory that frames being read and answers being written share.
//!
//! Each connection and each answer has an [`Account`]. A principal has room as long as its accounts hold
//! less than twice of what is free: alone it has two thirds of the budget at most, and those who come
//! later find the rest. Where it has no room, nothing more is read from its sockets and no large answer
//! is made, but for the first [`FLOOR`] bytes of each account: so those who send little go on. When that
//! lasts, the account that holds the most ends, of the principal that holds the most.

use std::collections::HashMap;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::admission::ConnectionPermit;
use crate::fairness::Principal;

/// The number of bytes that an account holds without asking.
pub(crate) const FLOOR: usize = 16 << 10;
/// The time for which a principal may have no room before the largest holder is ended, and for which
/// that one must have held it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The part of the budget that is kept for what is not counted to the byte: one of so many.
const RESERVE_SHARE: usize = 8;
/// A principal holds at most so many times of what is free.
const SHARE: usize = 2;
/// The number of holders that are ended at a time: the peers of many may be gone, which shows only when
/// they are read again.
const ENDED: usize = 8;
/// The interval at which it is looked who has room again.
const INTERVAL: Duration = Duration::from_secs(1);
/// The steps in which connections count, so that small frames cost no lock.
const STEP: usize = 4 << 10;

/// A number of bytes that many share.
pub(crate) struct Budget {
    limit: usize,
    state: Mutex<State>,
    /// Somebody was found without room.
    spent: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    accounts: HashMap<u64, Holder>,
    /// The bytes that each principal holds.
    shares: HashMap<Principal, usize>,
    last: u64,
    /// The principals that have no room, and since when.
    blocked: HashMap<Principal, Instant>,
    waiting: Vec<Waker>,
}

struct Holder {
    principal: Principal,
    bytes: usize,
    /// When it rose above the floor.
    since: Instant,
    permit: Option<Arc<ConnectionPermit>>,
}

/// The share of one connection, or of one answer.
pub(crate) struct Account {
    budget: Arc<Budget>,
    id: u64,
    principal: Principal,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = (limit - limit / RESERVE_SHARE).max(FLOOR);
        Self { limit, state: Mutex::default(), spent: Notify::new() }
    }

    /// Opens an account of a principal. If it holds too much for too long, the connection of this permit
    /// ends.
    pub(crate) fn open(
        self: &Arc<Self>,
        principal: &Principal,
        permit: Option<Arc<ConnectionPermit>>,
    ) -> Account {
        let principal = principal.clone();
        let holder =
            Holder { principal: principal.clone(), bytes: 0, since: Instant::now(), permit };
        let mut state = self.state();
        state.last += 1;
        let id = state.last;
        state.accounts.insert(id, holder);
        drop(state);
        Account { budget: Arc::clone(self), id, principal, bytes: 0 }
    }

    /// The number of bytes that are held.
    pub(crate) fn used(&self) -> usize {
        self.state().used
    }

    /// Ends the largest holders where principals have no room for too long.
    pub(crate) async fn watch(&self) {
        loop {
            self.spent.notified().await;
            while self.is_spent() {
                sleep(INTERVAL).await;
                for _ in 0..ENDED {
                    let Some(permit) = self.state().largest_to_end(Instant::now()) else { break };
                    tracing::warn!(
                        peer = ?permit.peer(),
                        "ended the connection that held the most of the memory budget, which is spent"
                    );
                    permit.end();
                }
            }
        }
    }

    /// Returns `false` if all have room again.
    fn is_spent(&self) -> bool {
        let mut state = self.state();
        // with room for more than the few bytes that made the difference
        let free = self.free(&state).saturating_sub(self.limit / 8);
        let State { blocked, shares, .. } = &mut *state;
        let has_room =
            |principal: &Principal| shares.get(principal).is_none_or(|share| *share < SHARE * free);
        blocked.retain(|principal, _| !has_room(principal));
        !state.blocked.is_empty()
    }

    fn free(&self, state: &State) -> usize {
        self.limit.saturating_sub(state.used)
    }

    fn has_room(&self, state: &State, principal: &Principal) -> bool {
        state.share(principal) < SHARE * self.free(state)
    }

    /// Notes that a principal was found without room.
    fn block(&self, state: &mut State, principal: &Principal) {
        if !state.blocked.contains_key(principal) {
            state.blocked.insert(principal.clone(), Instant::now());
            self.spent.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn share(&self, principal: &Principal) -> usize {
        self.shares.get(principal).copied().unwrap_or_default()
    }

    fn largest_to_end(&mut self, now: Instant) -> Option<Arc<ConnectionPermit>> {
        let lasts = |since: &Instant| now.saturating_duration_since(*since) >= PATIENCE;
        if !self.blocked.values().any(lasts) {
            return None;
        }
        let shares = &self.shares;
        let is_old = |holder: &&mut Holder| {
            holder.permit.is_some() && holder.bytes > FLOOR && lasts(&holder.since)
        };
        let share_and_bytes =
            |holder: &&mut Holder| (shares.get(&holder.principal).copied(), holder.bytes);
        let holders = self.accounts.values_mut().filter(is_old);
        holders.max_by_key(share_and_bytes)?.permit.take()
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

    /// Counts what it holds to another principal, now that this is known.
    pub(crate) fn set_principal(&mut self, principal: &Principal) {
        let bytes = self.bytes;
        self.set(0);
        self.principal = principal.clone();
        if let Some(holder) = self.budget.state().accounts.get_mut(&self.id) {
            holder.principal = principal.clone();
        }
        self.set(bytes);
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
        if self.budget.has_room(&state, &self.principal) {
            return Poll::Ready(());
        }
        self.budget.block(&mut state, &self.principal);
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until more may be read.
    pub(crate) async fn room(&self) {
        poll_fn(|cx| self.poll_room(cx)).await;
    }

    /// Returns `true` if it holds its floor and there is no more to be had.
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes >= FLOOR && !self.budget.has_room(&self.budget.state(), &self.principal)
    }

    /// Returns `true` if there is no room for what it holds, and notes that somebody was refused.
    pub(crate) fn is_refused(&self) -> bool {
        let mut state = self.budget.state();
        // what it holds is counted already
        let most = SHARE * self.budget.free(&state);
        let is_refused = self.bytes >= FLOOR && state.share(&self.principal) > most;
        if is_refused {
            self.budget.block(&mut state, &self.principal);
        }
        is_refused
    }

    fn change(&mut self, state: &mut State, bytes: usize) -> Vec<Waker> {
        state.used = state.used - self.bytes + bytes;
        let share = state.share(&self.principal) - self.bytes + bytes;
        match share {
            0 => drop(state.shares.remove(&self.principal)),
            1.. => drop(state.shares.insert(self.principal.clone(), share)),
        }
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

    fn principal(n: u8) -> Principal {
        Principal::Address([192, 0, 2, n].into())
    }

    fn open(budget: &Arc<Budget>, n: u8) -> Account {
        budget.open(&principal(n), None)
    }

    #[test]
    fn whoever_holds_much_leaves_room_for_others() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let (mut large, mut more, mut other) =
            (open(&budget, 1), open(&budget, 1), open(&budget, 2));
        large.set(MIB / 2);
        assert!(is_ready(|cx| large.poll_room(cx)) && !large.is_spent());
        more.set(MIB / 5);
        assert!(!is_ready(|cx| large.poll_room(cx)) && !is_ready(|cx| more.poll_room(cx)));
        assert!(large.is_spent() && budget.is_spent());
        // another has as much of the rest
        other.set(MIB / 8);
        assert!(is_ready(|cx| other.poll_room(cx)) && !other.is_spent());
        other.set(MIB / 4);
        assert!(!is_ready(|cx| other.poll_room(cx)));
        drop(large);
        assert!(is_ready(|cx| more.poll_room(cx)) && is_ready(|cx| other.poll_room(cx)));
        assert!(!budget.is_spent());
        drop((more, other));
        assert_eq!(budget.used(), 0);
        assert!(budget.state().shares.is_empty() && budget.state().waiting.is_empty());
    }

    #[test]
    fn a_spent_budget_leaves_a_floor_to_everyone() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let (mut large, mut small) = (open(&budget, 1), open(&budget, 1));
        large.set(MIB);
        small.set(FLOOR);
        assert!(!is_ready(|cx| small.poll_room(cx)) && small.is_spent());
        small.set(FLOOR - 1);
        assert!(is_ready(|cx| small.poll_room(cx)) && !small.is_spent());
    }

    #[test]
    fn an_answer_without_room_is_refused() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let (mut large, mut small) = (open(&budget, 1), open(&budget, 2));
        large.set(MIB * 2 / 3);
        small.set(FLOOR - 1);
        assert!(large.is_refused() && !small.is_refused());
        drop(small);
        assert!(!large.is_refused());
    }

    #[test]
    fn an_account_counts_to_the_principal_that_is_known_at_last() {
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let mut account = open(&budget, 1);
        account.set(FLOOR);
        account.set_principal(&principal(2));
        let state = budget.state();
        assert_eq!([1, 2].map(|n| state.share(&principal(n))), [0, FLOOR]);
        assert_eq!(state.used, FLOOR);
    }

    #[tokio::test]
    async fn the_largest_holder_is_ended_when_there_is_no_room_for_long() {
        let config = crate::ServerConfig::new().max_connections(40);
        let admission = Arc::new(crate::admission::Admission::new(&config));
        let budget = Arc::new(Budget::new(MIB * 8 / 7));
        let permits: Vec<_> = (0..3).map(|_| admission.permit_now(None).unwrap()).collect();
        let open = |(n, permit)| budget.open(&principal(n), Some(Arc::clone(permit)));
        let mut accounts: Vec<_> = [1, 1, 2].into_iter().zip(&permits).map(open).collect();
        for (account, bytes) in accounts.iter_mut().zip([MIB / 4, MIB / 3, MIB / 2]) {
            account.set(bytes);
        }
        let now = Instant::now();
        let late = now + PATIENCE + INTERVAL;
        assert!(budget.state().largest_to_end(late).is_none(), "nobody is without room");
        assert!(!is_ready(|cx| accounts[2].poll_room(cx)));
        assert!(budget.state().largest_to_end(now).is_none());
        // of the principal that holds the most
        let ended = || budget.state().largest_to_end(late).unwrap();
        assert!(Arc::ptr_eq(&ended(), &permits[1]));
        // each is ended once
        assert!(Arc::ptr_eq(&ended(), &permits[0]) && Arc::ptr_eq(&ended(), &permits[2]));
        assert!(budget.state().largest_to_end(late).is_none());
        accounts.truncate(1);
        assert!(!budget.is_spent());
    }
}
