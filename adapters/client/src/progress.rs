//! Progress: bytes that move, of which the engine is told now and then.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The shortest time from one report of progress to the next.
const INTERVAL: Duration = Duration::from_millis(250);

/// Reports of progress, not too many of them.
pub struct Progress<R> {
    report: R,
    next: Instant,
}

impl<R: Fn()> Progress<R> {
    /// Progress that is told by `report`.
    pub fn new(report: R) -> Self {
        Self { report, next: Instant::now() }
    }

    /// Takes note that bytes have moved, and tells it unless that was done just now.
    pub fn note(&mut self) {
        let now = Instant::now();
        if now >= self.next {
            self.next = now + INTERVAL;
            (self.report)();
        }
    }
}

/// Takes note of the bytes that a socket moves. Those that are written count only if they had to wait
/// for room: the system takes the others whatever becomes of them.
#[derive(Default)]
pub struct Moved {
    /// The socket had no room when it was last written to.
    blocked: AtomicBool,
    moved: AtomicBool,
}

impl Moved {
    /// Returns `true` if bytes have moved since this was last asked.
    pub fn take(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// Takes note of bytes that were read.
    pub fn read(&self, bytes: usize) {
        if bytes > 0 {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of a write, which `waits` for room if it wrote nothing.
    pub fn written(&self, waits: bool) {
        let waited = self.blocked.swap(waits, Ordering::Relaxed);
        if waited && !waits {
            self.moved.store(true, Ordering::Relaxed);
        }
    }
}

/// The HTTP call that a thread makes. The HTTP library hands nothing of a call on to its connection.
struct Call {
    /// The time for which no byte may move.
    silence: Duration,
    progress: Progress<Box<dyn Fn()>>,
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Makes a call on this thread that may be silent for so long. As its bytes move, `report` is called.
pub(crate) fn call<T>(
    silence: Duration,
    report: impl Fn() + 'static,
    make: impl FnOnce() -> T,
) -> T {
    let progress = Progress::new(Box::new(report) as Box<dyn Fn()>);
    CALL.set(Some(Call { silence, progress }));
    let made = make();
    CALL.set(None);
    made
}

/// The time for which no byte of this thread's call may move.
pub(crate) fn silence() -> Option<Duration> {
    CALL.with_borrow(|call| call.as_ref().map(|call| call.silence))
}

/// Bytes of this thread's call have moved.
pub(crate) fn note() {
    CALL.with_borrow_mut(|call| {
        if let Some(call) = call {
            call.progress.note();
        }
    });
}
