//! Waiting on a thread for what async programs await.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// The error of waiting in vain: it did not come in time. It may still come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it did not come in time")]
pub struct TimedOut;

/// Waits for a future by parking the thread.
pub trait Wait: Future + Unpin + Sized {
    /// Waits for the output.
    fn wait(mut self) -> Self::Output {
        loop {
            // without a deadline, nothing else ends it
            if let Ok(output) = park_until(None, |context| Pin::new(&mut self).poll(context)) {
                return output;
            }
        }
    }

    /// Waits for the output for at most this time.
    ///
    /// # Errors
    /// When it takes longer.
    fn wait_timeout(mut self, timeout: Duration) -> Result<Self::Output, TimedOut> {
        let deadline = Instant::now().checked_add(timeout);
        park_until(deadline, |context| Pin::new(&mut self).poll(context))
    }
}

impl<F: Future + Unpin> Wait for F {}

/// Parks the thread until something is ready or, if there is one, the deadline has come.
///
/// # Errors
/// When the deadline comes first.
pub fn park_until<T>(
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, TimedOut> {
    // a thread that is ending has none any more
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| waker());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(ready) = poll(&mut context) {
            return Ok(ready);
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

thread_local! {
    /// Wakes this thread.
    static WAKER: Waker = waker();
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
