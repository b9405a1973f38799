//! The clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use synclayer_core::{Mono, Now, Timestamp};

/// Both clocks of this machine, the monotonic one counted from the server's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        Now { mono: Mono(millis(self.start.elapsed())), wall: wall() }
    }

    /// When the monotonic clock shows this; `None` where that is beyond all times.
    pub(crate) fn instant(self, mono: Mono) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(mono.0))
    }
}

fn wall() -> Timestamp {
    let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()),
        Err(before) => i64::try_from(before.duration().as_millis()).map(|millis| -millis),
    };
    Timestamp(millis.unwrap_or(i64::MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
