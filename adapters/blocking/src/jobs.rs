//! Threads for jobs that may block: they come with a job and go with it.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// The time for which jobs under way are waited for at the end. One that takes longer, such as the
/// look-up of a name that nobody answers, is left to its own timeout.
const LAST_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct JobThreads {
    threads: Vec<JoinHandle<()>>,
    /// Every thread holds one: when all are gone, so are the threads.
    alive: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

impl JobThreads {
    pub(crate) fn new() -> Self {
        let (alive, ended) = channel();
        Self { threads: Vec::new(), alive, ended }
    }

    /// Does a job on a thread of its own. Where there is none to be had, the job is dropped.
    pub(crate) fn run(&mut self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.reap();
        let alive = self.alive.clone();
        let thread = Builder::new().name("synclayer-io".into()).spawn(move || {
            job();
            drop(alive);
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Joins the threads that have ended, after having waited for them a little.
    pub(crate) fn close(self) {
        let Self { threads, alive, ended } = self;
        drop(alive);
        // nothing is ever sent: this ends with the last thread, or when it has taken too long
        let _ = ended.recv_timeout(LAST_WAIT);
        join(threads);
    }

    fn reap(&mut self) {
        self.threads = join(std::mem::take(&mut self.threads));
    }
}

/// Joins those that have ended, and gives the others back.
fn join(threads: Vec<JoinHandle<()>>) -> Vec<JoinHandle<()>> {
    let (ended, running) = threads.into_iter().partition::<Vec<_>, _>(JoinHandle::is_finished);
    for thread in ended {
        // a job that panicked has said so, and what it held was dropped
        let _ = thread.join();
    }
    running
}
