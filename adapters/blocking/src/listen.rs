//! What the app listens to.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use synclayer_client::callback;
use synclayer_client::listen::EventQueue;
use synclayer_client::mailbox::{Buffer, Inlet};
use synclayer_core::client::event::Event;
use synclayer_core::rules::view::{Slot, Update};

use crate::wire::{Engine, Hold, Inbox};

/// What was waited for did not come in time. It may still come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it did not come in time")]
pub struct TimedOut;

/// What a collection or a record holds, now and after every change: see
/// [`Collection::watch`](crate::Collection::watch).
///
/// It is an iterator that blocks until there is an update, and ends when the client does. A slow
/// reader misses no change, but gets several merged into one update. From inside a callback of the
/// app (see [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
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

    /// The next update, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, patience: Duration) -> Result<Option<Update>, TimedOut> {
        wait_until(&self.inlet, Instant::now().checked_add(patience))
    }
}

impl Iterator for Watch {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        wait(&self.inlet)
    }
}

/// Tells the engine that a watcher has gone.
struct Farewell(Inbox);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.tell(Engine::dismiss_watchers);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// What happens: see [`SyncLayer::events`](crate::SyncLayer::events).
///
/// It is an iterator that blocks until there is an event, and ends when the client does. At most
/// 1,024 events wait for a slow reader; older ones are dropped and counted by
/// [`missed`](Self::missed). From inside a callback of the app (see
/// [`SyncError::InsideCallback`](crate::SyncError::InsideCallback)) it does not wait.
pub struct Events(pub(crate) Inlet<EventQueue>);

impl Events {
    /// The next event, if it comes within that time; `None` when the client has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn next_timeout(&mut self, patience: Duration) -> Result<Option<Event>, TimedOut> {
        wait_until(&self.0, Instant::now().checked_add(patience))
    }

    /// How many events were dropped because they were not read in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.peek(EventQueue::missed)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        wait(&self.0)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed()).finish()
    }
}

fn wait<B: Buffer>(inlet: &Inlet<B>) -> Option<B::Item> {
    wait_until(inlet, None).unwrap_or_default()
}

/// Parks this thread until there is an item, the end, or, if there is one, the deadline.
fn wait_until<B: Buffer>(
    inlet: &Inlet<B>,
    deadline: Option<Instant>,
) -> Result<Option<B::Item>, TimedOut> {
    park_until(deadline, |context| inlet.poll(context))
}

/// Parks this thread until something is ready or, if there is one, the deadline.
pub(crate) fn park_until<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, TimedOut> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(ready) = poll(&mut context) {
            return Ok(ready);
        }
        // nothing comes while the engine waits for this thread
        if callback::is_running() {
            return Err(TimedOut);
        }
        let Some(deadline) = deadline else {
            thread::park();
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TimedOut);
        }
        thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
