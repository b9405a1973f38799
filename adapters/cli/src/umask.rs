//! The permissions of the files that the program makes: none for others than its user, whatever the
//! shell would give.

#[cfg(unix)]
mod system {
    use std::sync::OnceLock;

    use rustix::fs::Mode;
    use rustix::process::umask;

    const PRIVATE: Mode = Mode::RWXG.union(Mode::RWXO);
    /// The mask with which the program was called.
    static CALLERS: OnceLock<Mode> = OnceLock::new();

    pub(crate) fn make_private() {
        let callers = umask(PRIVATE);
        CALLERS.get_or_init(|| callers);
    }

    /// Starts another program, which makes its files as the shell would have it.
    pub(crate) fn for_others<T>(start: impl FnOnce() -> T) -> T {
        // what a store makes meanwhile still lies in a directory of its user alone
        umask(CALLERS.get().copied().unwrap_or(PRIVATE));
        let started = start();
        umask(PRIVATE);
        started
    }
}

#[cfg(not(unix))]
mod system {
    pub(crate) fn make_private() {}

    pub(crate) fn for_others<T>(start: impl FnOnce() -> T) -> T {
        start()
    }
}

pub(crate) use system::{for_others, make_private};
