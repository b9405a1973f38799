//! Callbacks of the app that the engine waits for on its own thread: conflict resolvers, closures of
//! `modify`, and stores.
//!
//! The engine does nothing else while one runs. A call of a client that is made from inside one, and
//! waits for an answer, would therefore wait for ever. Such a call is refused at once, whichever
//! client it is made on: two clients whose callbacks call each other would hang in the same way.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use synclayer_core::{Conflict, Document, Resolver, ResolverFailure};

use crate::error::SyncError;

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs something that may call back into the app.
pub(crate) fn run<T>(call: impl FnOnce() -> T) -> T {
    let _left = Left(RUNNING.replace(true));
    call()
}

/// Restores the mark when a callback has returned or panicked.
struct Left(bool);

impl Drop for Left {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// Returns `true` if this thread is an engine's and runs a callback.
#[must_use]
pub fn is_running() -> bool {
    RUNNING.get()
}

/// Checks that a call may wait for an engine's answer.
///
/// # Errors
/// When it is made from inside a callback.
pub fn check() -> Result<(), SyncError> {
    if is_running() { Err(SyncError::InsideCallback) } else { Ok(()) }
}

/// A resolver of the app's whose panics are failures: they would end the engine's thread. A program
/// that is built with `panic = "abort"` ends all the same.
pub(crate) struct CatchPanics(pub(crate) Arc<dyn Resolver>);

impl Resolver for CatchPanics {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        self.0.resolve(conflict)
    }

    fn try_resolve(&self, conflict: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        // what the resolver has left half done is its own, and it is asked again all the same
        caught(|| self.0.try_resolve(conflict)).unwrap_or_else(|panic| {
            Err(ResolverFailure { reason: format!("the conflict resolver panicked: {panic}") })
        })
    }
}

/// Runs a callback, and says with which text it has panicked, if it has. With `panic = "abort"`
/// nothing can be caught.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|panic| text_of(&*panic).unwrap_or("for a reason that is no text").to_owned())
}

/// The text of a panic.
fn text_of(panic: &(dyn Any + Send)) -> Option<&str> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_restored_when_a_callback_returns_or_panics() {
        run(|| {
            assert_eq!(check(), Err(SyncError::InsideCallback));
            run(|| ());
            assert!(is_running(), "the outer callback goes on");
        });
        assert!(!is_running());
        let panicked = catch_unwind(|| run(|| panic!("an app's bug")));
        assert!(panicked.is_err());
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_panic_is_caught_with_its_text() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught::<()>(|| panic!("no {}", 7)), Err("no 7".into()));
        assert_eq!(caught::<()>(|| panic!("no")), Err("no".into()));
        assert_eq!(
            caught::<()>(|| std::panic::panic_any(7)),
            Err("for a reason that is no text".into())
        );
    }
}
