//! What the app listens to.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};

use futures_util::Stream;
use synclayer_core::client::event::Event;
use synclayer_core::rules::view::{Slot, Update};

use crate::engine::{Command, Engine};
use crate::mailbox::{Buffer, Inlet};

/// How many events wait for a listener; then the oldest are dropped, and counted.
const WAITING_EVENTS: usize = 1024;

/// What a collection or a record holds, now and after every change: see
/// [`Collection::watch`](crate::Collection::watch).
///
/// A slow reader misses no change, but gets several merged into one update.
pub struct Watch {
    inlet: Inlet<Slot>,
    // dropped after the inlet, when the engine finds it abandoned
    _farewell: Farewell,
}

impl Watch {
    pub(crate) fn new(inlet: Inlet<Slot>, engine: Sender<Command>) -> Self {
        Self { inlet, _farewell: Farewell(engine) }
    }

    /// The next update, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again.
    pub async fn next(&mut self) -> Option<Update> {
        poll_fn(|context| self.inlet.poll(context)).await
    }
}

/// Tells the engine that a watcher has gone.
struct Farewell(Sender<Command>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // an engine that has ended needs no telling
        let _ = self.0.send(Command::Call(Box::new(Engine::dismiss_watchers)));
    }
}

impl Buffer for Slot {
    type Item = Update;

    fn take(&mut self) -> Option<Update> {
        Self::take(self)
    }
}

impl Stream for Watch {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        self.inlet.poll(context)
    }
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
pub struct Events(pub(crate) Inlet<Queue>);

impl Events {
    /// The next event, as soon as there is one; `None` when the client has ended. May be dropped
    /// and called again.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.0.poll(context)).await
    }

    /// How many events were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.peek(|queue| queue.missed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll(context)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish()
    }
}

/// The events that wait for one listener.
#[derive(Default)]
pub(crate) struct Queue {
    events: VecDeque<Event>,
    missed: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() == WAITING_EVENTS {
            self.events.pop_front();
            self.missed += 1;
        }
        self.events.push_back(event);
    }
}

impl Buffer for Queue {
    type Item = Event;

    fn take(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
