//! A mailbox between the engine's thread and one reader: what was not read yet is merged or
//! bounded by the buffer in it, so that a slow reader costs nothing more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What lies in a mailbox.
pub trait Buffer {
    /// What the reader takes.
    type Item;

    /// The next item, if there is one.
    fn take(&mut self) -> Option<Self::Item>;
}

struct State<B> {
    buffer: B,
    waker: Option<Waker>,
    ended: bool,
}

/// The writer's end. Dropping it ends the reader's stream, after what is in the box.
pub struct Outlet<B>(Arc<Mutex<State<B>>>);

/// The reader's end.
pub struct Inlet<B>(Arc<Mutex<State<B>>>);

/// A mailbox: both its ends.
pub fn mailbox<B>(buffer: B) -> (Outlet<B>, Inlet<B>) {
    let state = Arc::new(Mutex::new(State { buffer, waker: None, ended: false }));
    (Outlet(state.clone()), Inlet(state))
}

impl<B> Outlet<B> {
    /// Changes what is in the box and wakes the reader.
    pub fn put(&self, put: impl FnOnce(&mut B)) {
        let mut state = lock(&self.0);
        put(&mut state.buffer);
        wake(state);
    }

    /// Whether nobody will read any more.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl<B> Drop for Outlet<B> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        wake(state);
    }
}

impl<B: Buffer> Inlet<B> {
    /// The next item; `None` when there will be no more.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<Option<B::Item>> {
        let mut state = lock(&self.0);
        match state.buffer.take() {
            Some(item) => Poll::Ready(Some(item)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Looks at the buffer.
    pub fn peek<T>(&self, look: impl FnOnce(&B) -> T) -> T {
        look(&lock(&self.0).buffer)
    }
}

fn lock<B>(state: &Mutex<State<B>>) -> MutexGuard<'_, State<B>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the reader with the lock released, or it would run into it.
fn wake<B>(mut state: MutexGuard<'_, State<B>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
