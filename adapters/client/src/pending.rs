//! Calls that the engine answers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use crate::callback;
use crate::error::SyncError;
use crate::mailbox::{Receiver, Sender, mailbox};

/// The answer to a call that was made. It is a future, and a thread may
/// [wait](crate::wait::Wait::wait) for it. The call takes effect even if this is dropped.
#[must_use = "the call may have failed"]
pub struct Pending<T>(PendingState<T>);

enum PendingState<T> {
    /// The answer is known, until it is taken.
    Answered(Option<Result<T, SyncError>>),
    /// The engine has it.
    Made { answer: Receiver<Option<Result<T, SyncError>>>, end: EndReason },
}

/// The engine's end of a call. If it is dropped, the call fails because the client has ended.
pub struct Responder<T>(Sender<Option<Result<T, SyncError>>>);

/// The reason why a client that has ended answers no more.
#[derive(Clone, Default)]
pub(crate) struct EndReason {
    signed_out: Arc<AtomicBool>,
}

impl<T> Pending<T> {
    /// A call of a client that ends, or has ended, for this reason.
    pub(crate) fn new(end: &EndReason) -> (Responder<T>, Self) {
        let (sender, answer) = mailbox(None);
        (Responder(sender), Self(PendingState::Made { answer, end: end.clone() }))
    }

    /// A call that was not made.
    pub(crate) fn refused(error: SyncError) -> Self {
        Self::answered(Err(error))
    }

    /// A call that needed no engine.
    pub(crate) fn answered(answer: Result<T, SyncError>) -> Self {
        Self(PendingState::Answered(Some(answer)))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, SyncError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            PendingState::Answered(answer) => {
                Poll::Ready(answer.take().unwrap_or(Err(SyncError::Closed)))
            }
            PendingState::Made { answer, end } => match answer.poll(context) {
                Poll::Ready(answer) => Poll::Ready(answer.unwrap_or_else(|| Err(end.error()))),
                // the engine waits for this thread
                Poll::Pending => match callback::check() {
                    Ok(()) => Poll::Pending,
                    Err(inside) => Poll::Ready(Err(inside)),
                },
            },
        }
    }
}

impl<T> Unpin for Pending<T> {}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Responder<T> {
    /// Answers the call.
    pub(crate) fn send(self, answer: Result<T, SyncError>) {
        self.0.finish(|slot| *slot = Some(answer));
    }
}

impl EndReason {
    /// Makes it known that the user has signed out.
    pub(crate) fn set_signed_out(&self) {
        self.signed_out.store(true, Ordering::Relaxed);
    }

    /// Checks that a call can be made and waited for here.
    ///
    /// # Errors
    /// When the user has signed out, or the call is made from inside a callback.
    pub(crate) fn check(&self) -> Result<(), SyncError> {
        if self.signed_out.load(Ordering::Relaxed) {
            return Err(SyncError::SignedOut);
        }
        callback::check()
    }

    /// The error of a call that is not answered.
    fn error(&self) -> SyncError {
        if self.signed_out.load(Ordering::Relaxed) {
            return SyncError::SignedOut;
        }
        SyncError::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Wait;

    #[test]
    fn a_call_is_answered_or_says_why_not() {
        let end = EndReason::default();
        let (reply, pending) = Pending::new(&end);
        reply.send(Ok(7));
        assert_eq!(pending.wait(), Ok(7));
        let (reply, pending) = Pending::<u8>::new(&end);
        drop(reply);
        assert_eq!(pending.wait(), Err(SyncError::Closed));
        let (_reply, pending) = Pending::<u8>::new(&end);
        assert_eq!(callback::run(|| pending.wait()), Err(SyncError::InsideCallback));
        end.set_signed_out();
        let (reply, pending) = Pending::<u8>::new(&end);
        drop(reply);
        assert_eq!(pending.wait(), Err(SyncError::SignedOut));
        assert_eq!(Pending::<u8>::refused(SyncError::Token).wait(), Err(SyncError::Token));
    }
}
