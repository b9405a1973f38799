//! Watches and events.

use std::fmt;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use synclayer_client::callback;
use synclayer_client::collection::WatchHandle;
use synclayer_client::doc;
use synclayer_client::listen::{EventQueue, QuerySlot};
use synclayer_client::mailbox::Receiver;
use synclayer_client::wait::{TimedOut, park_until};
use synclayer_core::{Event, QueryUpdate, Status, Update};

#[doc = doc!(Watch)]
///
/// It is an iterator that blocks until there is an update, and ends when the client does. From
/// inside a callback of the app (see
/// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
pub struct Watch(pub(crate) WatchHandle);

impl Watch {
    /// The next update, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Update>, TimedOut> {
        wait_until(Instant::now().checked_add(timeout), |context| self.0.poll(context))
    }
}

impl Iterator for Watch {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        wait_until(None, |context| self.0.poll(context)).unwrap_or_default()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

#[doc = doc!(QueryWatch)]
///
/// It is an iterator that blocks until there is an update, and ends when the client does. From
/// inside a callback of the app (see
/// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
pub struct QueryWatch(pub(crate) WatchHandle<QuerySlot>);

impl QueryWatch {
    /// The next update, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<QueryUpdate>, TimedOut> {
        wait_until(Instant::now().checked_add(timeout), |context| self.0.poll(context))
    }
}

impl Iterator for QueryWatch {
    type Item = QueryUpdate;

    fn next(&mut self) -> Option<QueryUpdate> {
        wait_until(None, |context| self.0.poll(context)).unwrap_or_default()
    }
}

impl fmt::Debug for QueryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryWatch")
    }
}

#[doc = doc!(Events)]
///
/// It is an iterator that blocks until there is an event, and ends when the client does. From
/// inside a callback of the app (see
/// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
pub struct Events(pub(crate) Receiver<EventQueue>);

impl Events {
    /// The next event, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Event>, TimedOut> {
        wait_until(Instant::now().checked_add(timeout), |context| self.0.poll(context))
    }

    #[doc = doc!(missed)]
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.peek(EventQueue::missed)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        wait_until(None, |context| self.0.poll(context)).unwrap_or_default()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish()
    }
}

#[doc = doc!(StatusWatch)]
///
/// It is an iterator that blocks until there is a new status, and ends when the client does. From
/// inside a callback of the app (see
/// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
pub struct StatusWatch(pub(crate) Receiver<Option<Status>>);

impl StatusWatch {
    /// The next status, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Status>, TimedOut> {
        wait_until(Instant::now().checked_add(timeout), |context| self.0.poll(context))
    }
}

impl Iterator for StatusWatch {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        wait_until(None, |context| self.0.poll(context)).unwrap_or_default()
    }
}

impl fmt::Debug for StatusWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusWatch")
    }
}

/// Waits for the next item until the deadline, if there is one. Inside a callback it does not wait:
/// nothing comes while the engine waits for it to return.
fn wait_until<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
) -> Result<Option<T>, TimedOut> {
    if callback::is_running() {
        return match poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => Ok(item),
            Poll::Pending => Err(TimedOut),
        };
    }
    park_until(deadline, poll)
}
