//! A mailbox between the engine's thread and one reader. Its buffer merges or bounds what was not
//! read yet, so that a slow reader costs nothing more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The contents of a mailbox.
pub trait Buffer {
    /// An item as the reader takes it.
    type Item;

    /// Takes the next item, if there is one.
    fn take(&mut self) -> Option<Self::Item>;
}

/// A buffer of one item.
impl<T> Buffer for Option<T> {
    type Item = T;

    fn take(&mut self) -> Self {
        Self::take(self)
    }
}

struct MailboxState<B> {
    buffer: B,
    waker: Option<Waker>,
    ended: bool,
}

/// The writer's end. Dropping it ends the reader's stream, after what is in the mailbox.
pub struct Sender<B> {
    state: Arc<Mutex<MailboxState<B>>>,
    /// The stream has ended already.
    ended: bool,
}

/// The reader's end.
pub struct Receiver<B>(Arc<Mutex<MailboxState<B>>>);

/// Makes a mailbox.
pub fn mailbox<B>(buffer: B) -> (Sender<B>, Receiver<B>) {
    let state = Arc::new(Mutex::new(MailboxState { buffer, waker: None, ended: false }));
    (Sender { state: Arc::clone(&state), ended: false }, Receiver(state))
}

impl<B> Sender<B> {
    /// Changes the contents and wakes the reader.
    pub fn put(&self, put: impl FnOnce(&mut B)) {
        let mut state = lock(&self.state);
        put(&mut state.buffer);
        wake(state);
    }

    /// Changes the contents for the last time, and wakes the reader.
    pub fn finish(mut self, put: impl FnOnce(&mut B)) {
        self.ended = true;
        let mut state = lock(&self.state);
        put(&mut state.buffer);
        state.ended = true;
        wake(state);
    }

    /// Returns `true` if nobody will read any more.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.state) == 1
    }
}

impl<B> Drop for Sender<B> {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = lock(&self.state);
            state.ended = true;
            wake(state);
        }
    }
}

impl<B: Buffer> Receiver<B> {
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

fn lock<B>(state: &Mutex<MailboxState<B>>) -> MutexGuard<'_, MailboxState<B>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the reader with the lock released, or it would run into it.
fn wake<B>(mut state: MutexGuard<'_, MailboxState<B>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
