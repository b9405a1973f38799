//! The fate of a write, between the engine's thread and whoever waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use synclayer_core::client::fate::Fate;

use crate::callback;
use crate::error::SyncError;

struct State {
    told: Option<Result<Fate, SyncError>>,
    wakers: Vec<Waker>,
}

/// The engine's end. Dropping it says that the client is closed.
pub(crate) struct FateSender(Arc<Mutex<State>>);

/// The end of whoever waits; all clones are told the same.
#[derive(Clone)]
pub struct FateReceiver(Arc<Mutex<State>>);

/// Both ends of a fate that isn't known yet.
pub(crate) fn fate() -> (FateSender, FateReceiver) {
    let state = Arc::new(Mutex::new(State { told: None, wakers: Vec::new() }));
    (FateSender(Arc::clone(&state)), FateReceiver(state))
}

impl FateSender {
    /// Tells it. What was told before stays.
    pub(crate) fn tell(&self, fate: Result<Fate, SyncError>) {
        let mut state = lock(&self.0);
        state.told.get_or_insert(fate);
        let wakers = std::mem::take(&mut state.wakers);
        // a waker must not run into the lock
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether nobody waits any more, nor can.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Drop for FateSender {
    fn drop(&mut self) {
        self.tell(Err(SyncError::Closed));
    }
}

impl FateReceiver {
    /// The fate, once it is known. From inside a callback it can't be waited for.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Fate, SyncError>> {
        let mut state = lock(&self.0);
        if let Some(told) = &state.told {
            return Poll::Ready(told.clone());
        }
        if let Err(inside) = callback::check() {
            return Poll::Ready(Err(inside));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(receiver: &FateReceiver) -> Poll<Result<Fate, SyncError>> {
        receiver.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn all_who_wait_are_told_the_same_and_once() {
        let (sender, a) = fate();
        let b = a.clone();
        assert!(poll(&a).is_pending() && poll(&b).is_pending());
        assert!(!sender.is_abandoned());
        sender.tell(Ok(Fate::GivenUp));
        drop(sender);
        assert_eq!(poll(&a), Poll::Ready(Ok(Fate::GivenUp)));
        assert_eq!(poll(&b), Poll::Ready(Ok(Fate::GivenUp)));
    }

    #[test]
    fn a_client_that_ends_leaves_nobody_waiting() {
        let (sender, receiver) = fate();
        drop(sender);
        assert_eq!(poll(&receiver), Poll::Ready(Err(SyncError::Closed)));
        let (sender, receiver) = fate();
        assert_eq!(callback::run(|| poll(&receiver)), Poll::Ready(Err(SyncError::InsideCallback)));
        drop(receiver);
        assert!(sender.is_abandoned());
    }
}
