//! A value that is set once, and that many may wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct SetOnceState<T> {
    value: Option<T>,
    /// The setter is gone.
    ended: bool,
    wakers: Vec<Waker>,
}

/// The end that sets the value. Dropping it tells those who wait that there will be none.
pub(crate) struct Setter<T>(Arc<Mutex<SetOnceState<T>>>);

/// The end that waits. All clones get the same value.
#[derive(Clone)]
pub(crate) struct SetOnce<T>(Arc<Mutex<SetOnceState<T>>>);

/// Makes both ends of a value.
pub(crate) fn set_once<T>() -> (Setter<T>, SetOnce<T>) {
    let state =
        Arc::new(Mutex::new(SetOnceState { value: None, ended: false, wakers: Vec::new() }));
    (Setter(Arc::clone(&state)), SetOnce(state))
}

impl<T> Setter<T> {
    /// Sets the value.
    pub(crate) fn set(self, value: T) {
        lock(&self.0).value = Some(value);
    }

    /// Returns `true` if nobody waits any more, nor can.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for Setter<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        let wakers = std::mem::take(&mut state.wakers);
        // a waker must not run into the lock
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> SetOnce<T> {
    /// The value, once it is set; `None` if it never will be.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        if state.ended {
            return Poll::Ready(state.value.clone());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn lock<T>(state: &Mutex<SetOnceState<T>>) -> MutexGuard<'_, SetOnceState<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(value: &SetOnce<u8>) -> Poll<Option<u8>> {
        value.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn all_who_wait_get_the_same() {
        let (setter, a) = set_once();
        let b = a.clone();
        assert!(poll(&a).is_pending() && poll(&b).is_pending());
        assert!(!setter.is_abandoned());
        setter.set(7);
        assert_eq!(poll(&a), Poll::Ready(Some(7)));
        assert_eq!(poll(&b), Poll::Ready(Some(7)));
        assert_eq!(poll(&b), Poll::Ready(Some(7)), "again");
    }

    #[test]
    fn a_setter_that_ends_leaves_nobody_waiting() {
        let (setter, value) = set_once();
        drop(setter);
        assert_eq!(poll(&value), Poll::Ready(None));
        let (setter, value) = set_once::<u8>();
        drop(value);
        assert!(setter.is_abandoned());
    }
}
