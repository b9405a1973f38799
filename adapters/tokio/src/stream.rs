//! Watches and events.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use synclayer_client::callback;
use synclayer_client::collection::WatchHandle;
use synclayer_client::doc;
use synclayer_client::listen::{EventQueue, QuerySlot};
use synclayer_client::mailbox::Receiver;
use synclayer_core::{Event, QueryUpdate, Status, Update};

#[doc = doc!(Watch)]
pub struct Watch(pub(crate) WatchHandle);

impl Watch {
    /// The next update, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again. From inside a callback of the app (see
    /// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it is also `None` if there
    /// is nothing yet.
    pub async fn next(&mut self) -> Option<Update> {
        poll_fn(|context| outside_callbacks(self.0.poll(context))).await
    }
}

impl Stream for Watch {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        outside_callbacks(self.0.poll(context))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

#[doc = doc!(QueryWatch)]
pub struct QueryWatch(pub(crate) WatchHandle<QuerySlot>);

impl QueryWatch {
    /// The next update, as [`Watch::next`] gives it.
    pub async fn next(&mut self) -> Option<QueryUpdate> {
        poll_fn(|context| outside_callbacks(self.0.poll(context))).await
    }
}

impl Stream for QueryWatch {
    type Item = QueryUpdate;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<QueryUpdate>> {
        outside_callbacks(self.0.poll(context))
    }
}

impl fmt::Debug for QueryWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryWatch")
    }
}

#[doc = doc!(Events)]
pub struct Events(pub(crate) Receiver<EventQueue>);

impl Events {
    /// The next event, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again. From inside a callback of the app (see
    /// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it is also `None` if there
    /// is nothing yet.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| outside_callbacks(self.0.poll(context))).await
    }

    #[doc = doc!(missed)]
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.peek(EventQueue::missed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        outside_callbacks(self.0.poll(context))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish()
    }
}

#[doc = doc!(StatusWatch)]
pub struct StatusWatch(pub(crate) Receiver<Option<Status>>);

impl StatusWatch {
    /// The next status, as [`Watch::next`] gives an update.
    pub async fn next(&mut self) -> Option<Status> {
        poll_fn(|context| outside_callbacks(self.0.poll(context))).await
    }
}

impl Stream for StatusWatch {
    type Item = Status;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Status>> {
        outside_callbacks(self.0.poll(context))
    }
}

impl fmt::Debug for StatusWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusWatch")
    }
}

/// Ends what would wait inside a callback: nothing comes while the engine waits for it to return.
fn outside_callbacks<T>(polled: Poll<Option<T>>) -> Poll<Option<T>> {
    if polled.is_pending() && callback::is_running() { Poll::Ready(None) } else { polled }
}
