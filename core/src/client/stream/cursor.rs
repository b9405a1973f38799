//! The cursor of a stream, and the history of the server that it belongs to.

use super::{Phase, Stream};
use crate::protocol::hash::RightsTag;
use crate::protocol::message::{Cursor, Mode, PageRange, Resume};
use crate::protocol::name::{Epoch, RecordId, Seq};
use crate::protocol::wire::http::PageFrom;
use crate::rules::row::StreamRow;

impl Stream {
    /// The seq up to which everything is known; 0 where there is no cursor.
    pub(in super::super) fn reached(&self) -> Seq {
        self.row.cursor.as_ref().map_or(Seq(0), |cursor| cursor.seq)
    }

    /// The server names its head before a catch-up. A change to come may be a part of a transaction whose
    /// other parts come later, so a collection of which there is news is no longer shown as live.
    pub(in super::super) fn told_head(&mut self, head: Option<Seq>) {
        self.refreshing &= head.is_some_and(|head| head <= self.reached());
    }

    /// Returns the position from which a page goes on.
    pub(in super::super) fn from(&self) -> PageFrom {
        let (set, scopes) = self.asked_set();
        let StreamRow { cursor, resume, rights, .. } = &self.row;
        let (cursor, resume, rights) = (cursor.clone(), resume.clone(), *rights);
        PageFrom { cursor, resume, rights, set, scopes }
    }

    /// Everything up to a seq of the live stream is known.
    pub(in super::super) fn advance(&mut self, epoch: Option<&Epoch>, seq: Seq) {
        self.moved = true;
        if let Some(epoch) = epoch
            && seq > self.reached()
        {
            self.row.cursor = Some(Cursor { epoch: epoch.clone(), seq });
            self.row.history = None;
        }
    }

    /// A page of a snapshot was taken in.
    pub(in super::super) fn page_taken(&mut self, epoch: Epoch, range: &PageRange) {
        self.trusted = true;
        let snapshot_seq = range.snapshot_seq;
        match &range.up_to {
            Some(after) => {
                let after = after.clone();
                self.row.resume = Some(Resume::Snapshot { epoch, snapshot_seq, after });
                self.row.history = None;
            }
            None => self.arrive_at(Cursor { epoch, seq: snapshot_seq }),
        }
    }

    /// The first scope was loaded, without a cursor: it begins where that load began.
    pub(in super::super) fn begin_cursor(&mut self, epoch: Epoch, seq: Seq) {
        if self.row.cursor.is_none() {
            self.arrive_at(Cursor { epoch, seq });
        }
    }

    /// All that was under way has led to this cursor.
    pub(super) fn arrive_at(&mut self, cursor: Cursor) {
        self.row.cursor = Some(cursor);
        (self.row.resume, self.row.history) = (None, None);
    }

    /// The collection is asked for whole, from the beginning.
    pub(in super::super) fn ask_whole(&mut self) {
        self.drop_cursor();
        self.set_changed();
        self.confirmed = false;
    }

    /// Returns `true` if nothing of the collection is held or under way.
    pub(in super::super) fn holds_nothing(&self) -> bool {
        let row = &self.row;
        let is_empty = row.figures.count == 0 && row.loss.is_none() && row.cursor.is_none();
        is_empty && row.resume.is_none() && !self.wanted
    }

    /// Returns `true` if the cursor may not be offered: it is behind the held records, and of a history of
    /// which the server has not said that it still counts.
    pub(in super::super) fn is_doubtful(&self) -> bool {
        self.row.behind && !self.trusted
    }

    /// Lets no base of another history go out if nobody will say whether it still counts. Returns
    /// `true` if that changes the stream.
    pub(in super::super) fn vouch(&mut self) -> bool {
        let unsaid = !self.trusted;
        if unsaid {
            self.begin_generation();
            self.trusted = true;
        }
        unsaid
    }

    /// The cursor counts; there may be none.
    pub(in super::super) fn trust(&mut self) {
        self.trusted = true;
    }

    /// The server has not said whether the cursor counts.
    pub(in super::super) fn distrust(&mut self) {
        self.trusted = false;
    }

    /// Offers no cursor before the hello is answered: with `doubt`, or if it is behind the stored
    /// records.
    pub(in super::super) fn doubt_cursor(&mut self, doubt: bool) {
        self.in_doubt = doubt || self.row.behind;
    }

    /// Nothing that was learnt of the server counts, and the collection is asked for whole.
    pub(in super::super) fn start_over(&mut self) {
        self.begin_generation();
        self.phase = Phase::Idle;
    }

    /// The server has said which epoch it is in: knowledge from another one waits for the server's
    /// word, and where there is no place to go on from, nothing is known.
    pub(in super::super) fn meet_epoch(&mut self, now: &Epoch) {
        self.in_doubt = false;
        match self.epoch() {
            Some(epoch) if epoch == now || !self.row.behind => {
                self.trusted = epoch == now;
            }
            // nor where there is one that does not tell how much is held
            Some(_) | None => {
                self.begin_generation();
                self.trusted = true;
            }
        }
    }

    /// The epoch in which was learnt what is held, as far as a place in it tells.
    fn epoch(&self) -> Option<&Epoch> {
        let StreamRow { cursor, resume, history, set, .. } = &self.row;
        let resume = resume.as_ref().map(|resume| match resume {
            Resume::Delta { epoch, .. } | Resume::Snapshot { epoch, .. } => epoch,
        });
        let load = || set.as_ref()?.loads().next().map(|load| &load.epoch);
        let cursor = cursor.as_ref().map(|cursor| &cursor.epoch);
        cursor.or(resume).or_else(load).or(history.as_ref())
    }

    /// A snapshot begins. Knowledge of the server's present history stays: acks of this
    /// connection may be newer than the first page.
    pub(in super::super) fn begin_snapshot(&mut self) {
        if !self.trusted {
            self.begin_generation();
        }
        self.drop_cursor();
        self.trusted = true;
    }

    /// The server shows the collection by these rights. A snapshot by others does not go on with pages that
    /// were shown by those from before.
    pub(in super::super) fn shown_by(&mut self, rights: Option<RightsTag>, mode: Mode) {
        let changed = self.row.rights != rights;
        self.row.rights = rights;
        if changed && mode == Mode::Snapshot {
            self.drop_resume();
        }
    }

    /// A page of a snapshot goes on where the last one ended, or begins a new run.
    pub(in super::super) fn continue_snapshot(
        &mut self,
        range: &PageRange,
    ) -> Result<(), &'static str> {
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

    /// Returns `true` if a partial stream has passed a state of a record, which is not held: it was withheld.
    pub(in super::super) fn has_withheld(&self, id: &RecordId, seq: Seq) -> bool {
        let has_passed = match (&self.row.resume, &self.row.cursor) {
            (Some(Resume::Snapshot { snapshot_seq, after, .. }), _) => {
                seq <= *snapshot_seq && id <= after
            }
            (Some(Resume::Delta { seq: at, .. }), _) => seq <= *at,
            (None, Some(cursor)) => seq <= cursor.seq,
            (None, None) => false,
        };
        let is_served = matches!(self.phase, Phase::CatchingUp | Phase::Live);
        has_passed && is_served && self.is_partial() && !self.is_scoped()
    }

    /// Nothing that was learnt so far says anything about the server's records: the held ones stay,
    /// until it is known whether the server still has them.
    pub(in super::super) fn begin_generation(&mut self) {
        self.forget_seqs();
        self.confirmed = false;
        self.row.begin_loss();
    }

    /// Nothing that was learnt so far says anything about the server's present seqs.
    pub(in super::super) fn forget_seqs(&mut self) {
        self.refreshing = false;
        self.row.generation += 1;
        self.drop_cursor();
        self.row.history = None;
        if let Some(set) = &mut self.row.set {
            set.begin_anew();
        }
    }

    /// Forgets the place from which to go on. What is held still counts in its epoch, also if nothing
    /// is taken in before the connection breaks.
    pub(super) fn drop_cursor(&mut self) {
        self.drop_resume();
        self.row.cursor = None;
        self.row.behind = false;
    }

    fn drop_resume(&mut self) {
        self.row.history = self.epoch().cloned();
        self.row.resume = None;
    }

    /// Asks for everything above a seq again.
    pub(in super::super) fn rewind(&mut self, to: Seq) {
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
    pub(in super::super) fn hold(&mut self, seq: Seq) {
        let told = match &self.row.resume {
            Some(Resume::Delta { seq, .. }) => *seq,
            Some(Resume::Snapshot { snapshot_seq, .. }) => *snapshot_seq,
            None => self.reached(),
        };
        self.row.behind |= seq > told;
    }
}
