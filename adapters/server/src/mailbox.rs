//! The way to a connection's task from outside of it.

use std::mem;
use std::sync::{Mutex, PoisonError};
use synclayer_core::SessionInput;

use tokio::sync::Notify;

/// The inputs that wait for a connection, and the signal that wakes its task.
///
/// It holds little: a session has one transaction and one read under way at most.
#[derive(Default)]
pub(crate) struct Mailbox {
    inputs: Mutex<Vec<SessionInput<'static>>>,
    signal: Notify,
}

impl Mailbox {
    /// Hands an input in, and wakes the task.
    pub(crate) fn put(&self, input: SessionInput<'static>) {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner).push(input);
        self.wake();
    }

    /// Wakes the task: a collection that it follows has moved.
    pub(crate) fn wake(&self) {
        self.signal.notify_one();
    }

    /// Takes what waits, in its order.
    pub(crate) fn take(&self) -> Vec<SessionInput<'static>> {
        mem::take(&mut *self.inputs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the task was woken since the last time.
    pub(crate) async fn woken(&self) {
        self.signal.notified().await;
    }
}
