//! HTTP: one exchange after another, strictly one request at a time. An exchange is a hello where
//! one is needed, then pages of every collection up to its `synced`, then pushes until the outbox
//! is empty. What the answers say takes the same ways as what comes over a WebSocket.
//!
//! | file | story |
//! | --- | --- |
//! | `asking` | when an exchange begins and ends, and what is asked next |
//! | `answers` | what an answer says |

mod answers;
mod asking;

use core::time::Duration;

use super::interface::{RequestId, SyncId, Timer};
use super::throttle::Throttle;
use crate::protocol::name::Collection;
use crate::protocol::time::Mono;
use crate::protocol::wire::http::PageFrom;

/// The most writes and bytes of documents in one push, below every server's default limits.
const PUSH_WRITES: usize = 1024;
const PUSH_BYTES: usize = 1 << 20;
/// The longest answer to a push: it may hold the whole of every record.
const ANSWER_BYTES: usize = 20 << 20;
/// The number of pages in a row that may be declined before the whole exchange is given up: more are
/// not the fault of single collections.
pub(super) const MOST_DECLINED: u32 = 16;
/// The time after a request's own timeout until the machine gives its answer up.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// An exchange by HTTP that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Exchange {
    /// Which one it is: a stream that was pulled in it notes the number.
    number: u64,
    /// Where the hello stands that opens the right to push.
    hello: HelloState,
    /// `true` if the server has answered well.
    succeeded: bool,
    /// `true` if a part of the exchange has failed.
    troubled: bool,
    /// `true` if a page or a verdict has brought a place forward in it.
    moved: bool,
    /// The time at which the server wants to be asked again about a collection, the earliest of them.
    again_at: Option<Mono>,
    /// The number of pages in a row that were declined.
    declined: u32,
    asked: Option<Asked>,
    throttle: Throttle,
    /// The next call of `synced` when the exchange began. Its end answers the calls before that one.
    syncs: SyncId,
    /// The maximal number of bytes of documents in a push.
    push_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum HelloState {
    /// A pull needs none.
    NotNeeded,
    /// One has to be said; its session is not stored yet.
    Needed,
    /// The session is stored as soon as the step that did it is durable.
    Stored,
    /// The server has answered it.
    Answered,
}

/// The request that is out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked {
    request: RequestId,
    at: Mono,
    /// The run of the clock in which it was asked.
    run: u64,
    /// The time at which bytes of it or of its answer last moved, as far as that was told.
    moved_at: Mono,
    /// The time for which nothing of it may move.
    timeout: Duration,
    /// Until when it has to be answered, because its connection may have died unnoticed.
    hurry: Option<Mono>,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum What {
    Hello,
    Page { collection: Collection, from: PageFrom },
    Push,
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            Self::Hello => "a hello",
            Self::Page { .. } => "a pull",
            Self::Push => "a push",
        }
    }
}

impl Exchange {
    /// Tells whether the server has answered the exchange's hello.
    pub(super) fn is_welcomed(&self) -> bool {
        self.hello == HelloState::Answered
    }

    /// Returns the time by which the request has to be answered, or at which a pause ends.
    pub(super) fn deadline(&self) -> Option<(Mono, Timer)> {
        if let Some(until) = self.throttle.paused_until() {
            return Some((until, Timer::Poll));
        }
        let asked = self.asked.as_ref()?;
        let usual = asked.moved_at + asked.timeout + GRACE;
        Some((asked.hurry.map_or(usual, |hurry| hurry.min(usual)), Timer::Request))
    }

    /// A page or a verdict has brought a place forward.
    pub(super) fn has_moved(&mut self) {
        self.moved = true;
    }

    /// Goes on at once, if it was paused.
    pub(super) fn resume(&mut self) {
        self.throttle.resume();
    }

    /// Bytes of a request, or of its answer, have moved.
    pub(super) fn moves(&mut self, request: RequestId, now: Mono) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.request == request) {
            (asked.moved_at, asked.hurry) = (now, None);
        }
    }

    /// Gives the request up at a time, if it is not answered by then.
    pub(super) fn hurry(&mut self, until: Mono) {
        if let Some(asked) = &mut self.asked {
            asked.hurry = Some(asked.hurry.map_or(until, |hurry| hurry.min(until)));
        }
    }
}
