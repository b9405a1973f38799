//! One collection's stream, as the client sees it.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use super::plain::PlainStream;
use crate::protocol::hash::Checksum;
use crate::protocol::message::{Cursor, ErrorCode, PageRange, Resume};
use crate::protocol::name::{Epoch, RecordId, Seq};
use crate::protocol::time::Mono;
use crate::rules::row::StreamRow;

/// The error by which the server refused a collection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct StreamError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

impl StreamError {
    pub(super) fn new(code: &ErrorCode, message: &str) -> Box<Self> {
        Box::new(Self { code: code.clone(), message: message.to_owned() })
    }
}

/// Where a subscription stands on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Phase {
    /// Not asked for yet.
    #[default]
    Idle,
    /// Asked for; what still comes of an earlier subscription is not listened to.
    Subscribing,
    /// Changes come that bring it up to the head.
    CatchingUp,
    /// Every change comes as it is made.
    Live,
    /// The server has refused it.
    Refused,
    /// The app has ended it, and the server has not confirmed that.
    Leaving,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Stream {
    /// The stored part of it.
    pub(super) row: StreamRow,
    /// `true` if the collection is kept in sync.
    pub(super) wanted: bool,
    /// `true` if the app uses it now; waiting writes use it too.
    pub(super) held: bool,
    /// Since when nothing uses it while it is in step, and for how long that was so before.
    pub(super) unused_since: Option<Mono>,
    pub(super) unused_for: Duration,
    pub(super) phase: Phase,
    /// `true` if the server withholds some records; `None` until it has said so since the start.
    pub(super) withholds: Option<bool>,
    /// `true` if the answer to the hello may take the cursor back, so that it is not offered before.
    pub(super) in_doubt: bool,
    /// `true` if the cursor is known to be of the server's present history.
    pub(super) trusted: bool,
    /// `true` if it was in step with the server since contact was made, and nothing says that it is
    /// so no longer.
    pub(super) confirmed: bool,
    /// `true` until what the store held at the start has been compared.
    pub(super) unverified: bool,
    /// The number of times in a row that its contents differed from the server's.
    pub(super) mismatches: u32,
    /// `true` if something has come of it since it was last proved to be in step.
    pub(super) moved: bool,
    /// `true` if it was live and is asked for again only for a fresh proof.
    pub(super) refreshing: bool,
    /// The last HTTP exchange in which it was pulled or refused.
    pub(super) pulled: u64,
    /// Since when the server's answer to a `subscribe` is awaited, or its changes come, on this
    /// connection, unless it was live before.
    pub(super) awaited_since: Option<Mono>,
    /// When it is asked for again after a failure.
    pub(super) retry_at: Option<Mono>,
    /// The error by which the server refused the collection, until it serves it or is asked on
    /// another connection.
    pub(super) error: Option<Box<StreamError>>,
    /// The last of the held records that was offered to the server, or has gone, while they do.
    pub(super) passed: Option<RecordId>,
    pub(super) plain: PlainStream,
}

impl Stream {
    /// The seq up to which everything is known; 0 where there is no cursor.
    pub(super) fn reached(&self) -> Seq {
        self.row.cursor.as_ref().map_or(Seq(0), |cursor| cursor.seq)
    }

    /// The number of held records, and their checksum.
    pub(super) fn held(&self) -> (u64, Checksum) {
        (self.row.count, self.row.checksum)
    }

    /// Returns `true` if every change comes as it is made. A collection that is asked for again for a
    /// fresh proof goes on as it was until the answer comes.
    pub(super) fn follows(&self) -> bool {
        match self.phase {
            Phase::Live => true,
            Phase::Idle | Phase::Subscribing => self.refreshing,
            Phase::CatchingUp | Phase::Refused | Phase::Leaving => false,
        }
    }

    /// Returns `true` if the app sees changes as they are made.
    pub(super) fn is_live(&self) -> bool {
        (self.phase == Phase::Live || self.refreshing) && !self.is_short()
    }

    /// Returns `true` if the app sees a catch-up under way.
    pub(super) fn is_catching_up(&self) -> bool {
        self.phase == Phase::CatchingUp && !self.refreshing || self.is_short()
    }

    /// Returns `true` if records are held that the server lacks and about which nothing is decided.
    pub(super) fn is_short(&self) -> bool {
        self.row.loss.is_some_and(|loss| loss.missing.is_some())
    }

    /// Returns `true` if the server is known to withhold some records.
    pub(super) fn is_partial(&self) -> bool {
        self.withholds == Some(true)
    }

    /// Returns `true` if the server is known to withhold none.
    pub(super) fn is_complete(&self) -> bool {
        self.withholds == Some(false)
    }

    /// A page of a snapshot was taken in.
    pub(super) fn page_taken(&mut self, epoch: Epoch, range: &PageRange) {
        self.trusted = true;
        let snapshot_seq = range.snapshot_seq;
        match &range.up_to {
            Some(after) => {
                let after = after.clone();
                self.row.resume = Some(Resume::Snapshot { epoch, snapshot_seq, after });
            }
            None => {
                self.row.cursor = Some(Cursor { epoch, seq: snapshot_seq });
                self.row.resume = None;
            }
        }
    }

    /// What is held was counted by the rows themselves.
    pub(super) fn recounted(&mut self, count: u64, checksum: Checksum) {
        (self.row.count, self.row.checksum) = (count, checksum);
        self.unverified = false;
    }

    /// A catch-up is complete, and verified.
    pub(super) fn caught_up(&mut self, cursor: Cursor) {
        self.row.cursor = Some(cursor);
        self.row.resume = None;
        self.row.behind = false;
        self.phase = Phase::Live;
        self.awaited_since = None;
        self.mismatches = 0;
        self.moved = false;
        self.refreshing = false;
    }

    /// The collection can't be followed. With `retry_at` it is asked for again then.
    pub(super) fn refuse(&mut self, error: Box<StreamError>, retry_at: Option<Mono>) {
        self.phase = Phase::Refused;
        self.retry_at = retry_at;
        self.error = Some(error);
    }

    /// The connection is gone.
    pub(super) fn detach(&mut self) {
        self.phase = Phase::Idle;
        self.in_doubt = false;
        self.trusted = false;
        self.refreshing = false;
        self.retry_at = None;
        self.awaited_since = None;
        self.error = None;
    }

    /// Nothing that was learnt so far says anything about what the server has: what is held stays,
    /// and shows whether the server still has it.
    pub(super) fn begin_generation(&mut self) {
        self.forget_seqs();
        self.confirmed = false;
        self.row.begin_loss();
    }

    /// Nothing that was learnt so far says anything about the server's present seqs.
    pub(super) fn forget_seqs(&mut self) {
        self.refreshing = false;
        self.row.generation += 1;
        self.drop_cursor();
    }

    fn drop_cursor(&mut self) {
        self.row.cursor = None;
        self.row.resume = None;
        self.row.behind = false;
    }

    /// Asks for everything above a seq again.
    pub(super) fn rewind(&mut self, to: Seq) {
        self.row.resume = None;
        match &mut self.row.cursor {
            Some(cursor) => {
                cursor.seq = cursor.seq.min(to);
                self.row.behind = true;
            }
            // a snapshot had begun
            None => self.begin_generation(),
        }
    }

    /// A record is known up to a seq.
    pub(super) fn hold(&mut self, seq: Seq) {
        let told = match &self.row.resume {
            Some(Resume::Delta { seq, .. }) => *seq,
            Some(Resume::Snapshot { snapshot_seq, .. }) => *snapshot_seq,
            None => self.reached(),
        };
        self.row.behind |= seq > told;
    }

    /// The server has said which epoch it is in: what was learnt in another one waits for the
    /// server's word, and where there is no place to go on from, nothing is known.
    pub(super) fn greet(&mut self, now: &Epoch) {
        let resume = self.row.resume.as_ref().map(|resume| match resume {
            Resume::Delta { epoch, .. } | Resume::Snapshot { epoch, .. } => epoch,
        });
        match self.row.cursor.as_ref().map(|cursor| &cursor.epoch).or(resume) {
            Some(epoch) if epoch == now || !self.row.behind => {
                self.trusted = epoch == now || planted!(EpochTrustedUnasked);
            }
            // nor where there is one that does not tell how much is held
            Some(_) | None => {
                self.begin_generation();
                self.trusted = true;
            }
        }
    }

    /// A snapshot begins. What was learnt of the server's present history stays: acks of this
    /// connection may be newer than the first page.
    pub(super) fn begin_snapshot(&mut self) {
        if !self.trusted {
            self.begin_generation();
        }
        self.drop_cursor();
        self.trusted = true;
    }

    /// A page of a snapshot goes on where the last one ended, or begins a new run.
    pub(super) fn continue_snapshot(&mut self, range: &PageRange) -> Result<(), &'static str> {
        match (&self.row.resume, &range.after) {
            (None | Some(Resume::Delta { .. }), None) => Ok(()),
            (Some(Resume::Snapshot { .. }), None) => {
                self.begin_snapshot();
                Ok(())
            }
            (Some(Resume::Snapshot { snapshot_seq, after: covered, .. }), Some(after))
                if covered == after && *snapshot_seq == range.snapshot_seq =>
            {
                Ok(())
            }
            (None | Some(_), Some(_)) => Err("a snapshot's page does not follow the one before"),
        }
    }
}
