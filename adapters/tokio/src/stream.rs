//! What the app listens to.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use synclayer_client::callback;
use synclayer_client::listen::EventQueue;
use synclayer_client::mailbox::{Buffer, Inlet};
use synclayer_core::client::event::Event;
use synclayer_core::rules::view::{Slot, Update};

use crate::network::{Engine, Hold, Inbox};

/// What a collection or a record holds, now and after every change: see
/// [`Collection::watch`](crate::Collection::watch).
///
/// A slow reader misses no change, but gets several merged into one update.
pub struct Watch {
    inlet: Inlet<Slot>,
    // dropped after the inlet, when the engine finds it abandoned
    _farewell: Farewell,
    /// The use of the collection by this watch.
    _hold: Arc<Hold>,
}

impl Watch {
    pub(crate) fn new(inlet: Inlet<Slot>, engine: Inbox, hold: Arc<Hold>) -> Self {
        Self { inlet, _farewell: Farewell(engine), _hold: hold }
    }

    /// The next update, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again. From inside a callback of the app (see
    /// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it is also `None` where
    /// there is nothing yet.
    pub async fn next(&mut self) -> Option<Update> {
        poll_fn(|context| poll(&self.inlet, context)).await
    }
}

/// Tells the engine that a watcher has gone.
struct Farewell(Inbox);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.tell(Engine::dismiss_watchers);
    }
}

impl Stream for Watch {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        poll(&self.inlet, context)
    }
}

/// Looks into a mailbox. Nothing comes into it while the engine waits for the caller.
fn poll<B: Buffer>(inlet: &Inlet<B>, context: &mut Context<'_>) -> Poll<Option<B::Item>> {
    let polled = inlet.poll(context);
    if polled.is_pending() && callback::is_running() { Poll::Ready(None) } else { polled }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// What happens: see [`SyncLayer::events`](crate::SyncLayer::events).
///
/// At most 1,024 events wait for a slow reader; older ones are dropped and counted by
/// [`missed`](Self::missed).
pub struct Events(pub(crate) Inlet<EventQueue>);

impl Events {
    /// The next event, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again. From inside a callback of the app (see
    /// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it is also `None` where
    /// there is nothing yet.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| poll(&self.0, context)).await
    }

    /// How many events were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.peek(EventQueue::missed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        poll(&self.0, context)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish()
    }
}
