//! Waiting for an event, with a deadline, never for a time.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use synclayer_tokio::{Event, EventKind, Events, Update, Watch};

/// Time limit of each wait in a test. Only a test that fails takes so long.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for something that has to happen soon.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

/// Waits, on a thread, until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not happen");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Takes updates until one is as wanted.
pub async fn shown(watch: &mut Watch, mut wanted: impl FnMut(&Update) -> bool) -> Update {
    let mut last = None;
    let found = async {
        loop {
            let update = watch.next().await.expect("the watch has ended");
            if wanted(&update) {
                return update;
            }
            last = Some(update);
        }
    };
    match tokio::time::timeout(TIMEOUT, found).await {
        Ok(update) => update,
        Err(_) => panic!("no such update; the last one was {last:?}"),
    }
}

/// Takes events until one is as wanted; those before it come along.
pub async fn told(events: &mut Events, mut wanted: impl FnMut(&EventKind) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    let found = async {
        loop {
            let event = events.next().await.expect("the events have ended");
            let found = wanted(&event.kind);
            seen.push(event);
            if found {
                return;
            }
        }
    };
    if tokio::time::timeout(TIMEOUT, found).await.is_err() {
        panic!("no such event: {seen:?}");
    }
    seen
}

/// The events that wait already.
pub fn told_already(events: &mut Events) -> Vec<EventKind> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).map(|event| event.kind).collect()
}
