//! The way to a connection's task from outside of it.

use std::mem;
use std::sync::{Mutex, PoisonError};
use synclayer_core::{SessionInput, UserId};

use tokio::sync::Notify;

/// A message to a connection's task.
#[allow(clippy::large_enum_variant, reason = "nearly all are inputs")]
pub(crate) enum Mail {
    /// An input of its session.
    Input(SessionInput<'static>),
    /// It ends if it is this user's.
    Kick(UserId),
}

impl From<SessionInput<'static>> for Mail {
    fn from(input: SessionInput<'static>) -> Self {
        Self::Input(input)
    }
}

/// The messages that wait for a connection, and the signal that wakes its task.
///
/// It holds little: a session has one transaction and one read under way at most.
#[derive(Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Vec<Mail>>,
    signal: Notify,
}

impl Mailbox {
    /// Hands a message in, and wakes the task.
    pub(crate) fn put(&self, mail: impl Into<Mail>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(mail.into());
        self.wake();
    }

    /// Wakes the task: a collection that it follows has moved.
    pub(crate) fn wake(&self) {
        self.signal.notify_one();
    }

    /// Takes what waits, in its order.
    pub(crate) fn take(&self) -> Vec<Mail> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the task was woken since the last time.
    pub(crate) async fn woken(&self) {
        self.signal.notified().await;
    }
}
