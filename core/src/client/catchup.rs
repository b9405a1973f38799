//! Collections: subscribing, catching up, following.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::edit::Edit;
use super::event::{EventKind, Transport};
use super::machine::Client;
use super::received::Received;
use super::records::Records;
use super::step::StepError;
use super::stream::{Phase, Stream, StreamError};
use crate::protocol::hash::{Checksum, RightsTag};
use crate::protocol::message::{
    Cursor, ErrorCode, ErrorMessage, Mode, PageRange, Resume, ServerChange, SyncRecord,
};
use crate::protocol::name::{Collection, RecordId, Seq};
use crate::protocol::scopes::ScopeName;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::row::{Figures, Row, StreamRow};
use crate::store::StoreError;

/// The approximate number of bytes of a record besides its content.
const ABOUT_A_RECORD: usize = 100;

/// The beginning of a catch-up, as the server announces it.
pub(super) struct Subscribed {
    pub(super) record_count: Option<u64>,
    pub(super) head: Option<Seq>,
    pub(super) mode: Option<Mode>,
    pub(super) partial: bool,
    pub(super) rights: Option<RightsTag>,
    pub(super) set: Option<u64>,
    pub(super) refused: Vec<ScopeName>,
}

impl Client {
    /// A catch-up begins.
    pub(super) fn subscribed(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        answer: &Subscribed,
    ) -> Result<(), StepError> {
        let Subscribed { record_count, head, mode, partial, rights, set, refused } = answer;
        let (record_count, head, partial) = (*record_count, *head, *partial);
        let Some(mode) = *mode else {
            return Err(StepError::peer("a level-2 server has subscribed without a mode"));
        };
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        // what comes of a subscription that was ended here has gaps, since changes were ignored
        let over = matches!(stream.phase(), Phase::Idle | Phase::Refused | Phase::Leaving)
            && !stream.follows();
        // it continues a cursor that was dropped meanwhile: the snapshot asked for since comes
        let cursor_is_dropped = stream.row.cursor.is_none() && !stream.is_scoped();
        let outdated = mode == Mode::Delta && cursor_is_dropped || !stream.answers(*set);
        if over || outdated {
            edit.ignore();
            return Ok(());
        }
        // with other rights a cursor does not count, nor where rights look at other records
        let by_rights = stream.row.rights != *rights || partial && rights.is_some();
        if let Some(kind) = setback(collection, stream, head, mode, by_rights) {
            edit.remote_event(kind);
        }
        let goes_on = edit.transport == Transport::Http && stream.phase() == Phase::CatchingUp;
        stream.told_head(head);
        stream.shown_by(*rights, mode);
        stream.begin_catch_up(mode, partial, goes_on);
        edit.put_stream(collection, &stream.row);
        if !goes_on {
            let cursor = stream.row.cursor.as_ref();
            stream.received = Received::nothing_of(match mode {
                // the head tells nothing of the scopes
                _ if stream.is_scoped() => None,
                Mode::Snapshot => record_count,
                // a record that was changed twice comes once
                Mode::Delta => {
                    head.zip(cursor).map(|(head, cursor)| head.0.saturating_sub(cursor.seq.0))
                }
            });
            edit.remote_event(EventKind::SyncStarted { collection: collection.clone() });
        }
        edit.show_status(collection, stream);
        self.scopes_refused(edit, collection, refused)?;
        self.falls_short(edit);
        Ok(())
    }

    pub(super) fn unsubscribed(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let Some(stream) = self.streams.get_mut(collection) else { return };
        stream.unsubscribed();
        edit.show_status(collection, stream);
    }

    /// The server has refused a subscription, or could not serve it now.
    pub(super) fn subscription_failed(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        error: ErrorMessage,
    ) {
        let later = matches!(error.code, ErrorCode::ServerError | ErrorCode::RateLimitExceeded);
        let wait = later.then(|| {
            let told = error.retry_after_ms.map(Duration::from_millis);
            told.unwrap_or(self.config.reconnect_delay)
                + self.random.below(self.config.reconnect_delay)
        });
        let retry_at = wait.map(|wait| self.now.mono + wait);
        let Some(stream) = self.streams.get_mut(collection) else { return };
        if stream.phase() == Phase::Leaving {
            // an `unsubscribe` that came too fast was not looked at; any other error answers what was
            // asked before it, and `unsubscribed` is still to come
            stream.ask_again_at(retry_at.filter(|_| error.code == ErrorCode::RateLimitExceeded));
            return;
        }
        stream.answered();
        if stream.follows() && error.code == ErrorCode::RateLimitExceeded {
            stream.postpone(retry_at);
        } else {
            stream.refuse(StreamError::new(&error.code, &error.message), retry_at);
            stream.set_refused();
        }
        // writes go out without catching up first, and nothing vouches for their bases
        if stream.vouch() {
            edit.put_stream(collection, &stream.row);
        }
        let ErrorMessage { code, message, .. } = error;
        let of = collection.clone();
        edit.remote_event(EventKind::SyncFailed { collection: of, code, message });
        edit.show_status(collection, stream);
    }

    /// A catch-up is complete, and what is held must be what the server holds.
    pub(super) fn synced_with(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        cursor: Cursor,
        (count, checksum): (u64, Option<Checksum>),
        set: Option<u64>,
    ) -> Result<(), StepError> {
        self.tell_progress(edit);
        let most = self.rows_at_once();
        let Some(mut records) = self.records(collection) else { return Ok(()) };
        if records.stream.phase() != Phase::CatchingUp || !records.stream.answers(set) {
            edit.ignore();
            return Ok(());
        }
        if records.stream.row.cursor.is_none() {
            return Err(StepError::peer("a snapshot ended before its last page"));
        }
        if records.stream.row.set.as_ref().is_some_and(|set| !set.is_loaded()) {
            return Err(StepError::peer("a catch-up ended before every scope was loaded"));
        }
        if let Some(checksum) = checksum {
            let told = Figures { count, checksum };
            // of a set of scopes not so much is held that it has to be counted in parts
            let is_set = records.stream.row.set.is_some();
            if records.stream.held() != told || is_set && records.stream.is_unverified() {
                records.recount(edit)?;
            } else if records.stream.is_unverified() {
                records.begin_counting(edit, most)?;
            }
            if records.stream.held() != told {
                self.mismatched(edit, collection);
                return Ok(());
            }
        } else if records.stream.row.set.is_some() && records.stream.row.behind {
            // records that were held count for each scope that was loaded as well
            records.recount(edit)?;
        }
        records.stream.caught_up(cursor);
        records.save(edit);
        if records.stream.is_counting() {
            self.count_soon();
        }
        if self.take_stock(edit, collection)?
            && let Some(mut records) = self.records(collection)
        {
            records.in_step(edit);
        }
        self.show_status(edit, collection);
        Ok(())
    }

    /// Tells how far the catch-ups are of which something has come in this step.
    pub(super) fn tell_progress(&self, edit: &mut Edit<'_>) {
        for collection in core::mem::take(&mut edit.caught) {
            let Some(stream) = self.streams.get(&collection) else { continue };
            let Received { records, bytes, of } = stream.received;
            edit.remote_event(EventKind::SyncProgress { collection, records, bytes, of });
        }
    }

    /// The held records differ from the server's: a snapshot is taken, and where that did not help, not
    /// before a while.
    fn mismatched(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        edit.remote_event(EventKind::ChecksumMismatch { collection: collection.clone() });
        let Some(mut records) = self.records(collection) else { return };
        records.take_snapshot(edit, "what is held differs from what the server holds");
        let mismatches = records.stream.count_mismatch();
        if mismatches < 2 {
            return;
        }
        let wait = self.config.reconnect_delay.saturating_mul(1 << mismatches.min(10));
        let wait = wait.min(self.config.max_reconnect_delay);
        let retry_at = self.now.mono + wait + self.random.below(wait);
        let Some(stream) = self.streams.get_mut(collection) else { return };
        let message = String::from("a fresh snapshot, too, differs from what the server holds");
        let code = ErrorCode::ServerError;
        stream.refuse(StreamError::new(&code, &message), Some(retry_at));
        let collection = collection.clone();
        edit.remote_event(EventKind::SyncFailed { collection, code, message });
    }

    /// The store vouches for the rows that it held at the start.
    pub(crate) fn trust_rows(&mut self) {
        self.streams.trust_rows();
    }

    /// Returns `true` if no collection has rows that are not counted.
    pub(crate) fn has_counted_rows(&self) -> bool {
        self.streams.are_counted()
    }

    pub(super) fn save_stream(&self, edit: &mut Edit<'_>, collection: &Collection) {
        if let Some(stream) = self.streams.get(collection) {
            edit.put_stream(collection, &stream.row);
        }
    }

    pub(super) fn show_status(&self, edit: &mut Edit<'_>, collection: &Collection) {
        if let Some(stream) = self.streams.get(collection) {
            edit.show_status(collection, stream);
        }
    }
}

impl Records<'_> {
    /// A change has come.
    pub(super) fn changed(
        &mut self,
        edit: &mut Edit<'_>,
        id: &RecordId,
        news: &ServerChange,
        filtered: bool,
        prev: Option<Seq>,
    ) -> Result<(), StepError> {
        let live = self.stream.follows();
        if !live && self.stream.phase() != Phase::CatchingUp {
            edit.ignore();
            return Ok(());
        }
        let Some(seq) = news.seq else {
            return Err(StepError::peer("a level-2 server has sent a change without a seq"));
        };
        let Some(before) = self.row_that_fits(edit, id, news, (seq, prev))? else {
            self.take_snapshot(edit, "the server's changes have a gap");
            return Ok(());
        };
        let is_news = if filtered {
            self.lose_sight(edit, id, before, seq)?
        } else {
            self.learn(edit, id, before, news)?
        };
        if live {
            self.advance(seq);
            if is_news {
                edit.remote_event(EventKind::realtime(news.change.kind, self.collection, id));
            }
        } else if let Some(epoch) = self.peer.epoch().cloned() {
            self.stream.row.resume = Some(Resume::Delta { epoch, seq });
            self.stream.arrive();
            self.receive(edit, 1, news.change.delta.set.size() + ABOUT_A_RECORD);
        }
        edit.moved = true;
        self.save(edit);
        Ok(())
    }

    /// Returns the row of a changed record, if the change continues what is known: no seq is left
    /// out, of the collection or, if it is held by scopes, of the record; and no fields come of a record
    /// that is not held.
    fn row_that_fits(
        &self,
        edit: &Edit<'_>,
        id: &RecordId,
        news: &ServerChange,
        (seq, prev): (Seq, Option<Seq>),
    ) -> Result<Option<Option<Row>>, StoreError> {
        let stream = &self.stream;
        let has_gaps = stream.is_partial() || stream.is_scoped();
        if stream.follows() && !has_gaps && seq != stream.reached().next() {
            return Ok(None);
        }
        let row = edit.row(self.collection, id)?;
        // of scopes only the record's own seq tells of a gap
        let learnt = stream.row.learnt(row.as_ref());
        let is_gap = |prev| prev != learnt && seq > learnt;
        if stream.is_scoped() && stream.follows() && prev.is_some_and(is_gap) {
            return Ok(None);
        }
        let is_known = |row: &Row| row.server.is_some() && !stream.row.is_held(row);
        let fits = news.change.kind != WriteKind::Update || row.as_ref().is_some_and(is_known);
        Ok(fits.then_some(row))
    }

    /// A page of a snapshot has come: its range becomes what the page holds.
    pub(super) fn paged(
        &mut self,
        edit: &mut Edit<'_>,
        records: &[SyncRecord],
        range: Option<&PageRange>,
    ) -> Result<(), StepError> {
        if self.stream.phase() != Phase::CatchingUp {
            edit.ignore();
            return Ok(());
        }
        let (Some(range), Some(epoch)) = (range, self.peer.epoch().cloned()) else {
            return Err(StepError::peer("a snapshot's page does not say which keys it covers"));
        };
        self.stream.continue_snapshot(range).map_err(StepError::peer)?;
        self.learn_records(edit, records)?;
        // some may have changed since the snapshot began
        let is_newer = |record: &SyncRecord| record.seq > Some(range.snapshot_seq);
        self.stream.row.behind |= records.iter().any(is_newer);
        self.drop_absent(edit, records, range)?;
        self.stream.page_taken(epoch, range);
        self.page_received(edit, records);
        Ok(())
    }

    /// Takes in the records of a page, each whole.
    pub(super) fn learn_records(
        &mut self,
        edit: &mut Edit<'_>,
        records: &[SyncRecord],
    ) -> Result<(), StoreError> {
        for record in records {
            let news = ServerChange {
                change: Change::insert(record.document.clone()),
                seq: record.seq,
                version: record.version,
                timestamp: record.updated_at,
                at: record.at.clone(),
                user_id: None,
            };
            let before = edit.row(self.collection, &record.id)?;
            self.learn(edit, &record.id, before, &news)?;
        }
        Ok(())
    }

    /// A page was taken in, and stays.
    pub(super) fn page_received(&mut self, edit: &mut Edit<'_>, records: &[SyncRecord]) {
        self.stream.arrive();
        edit.moved = true;
        let bytes = records.iter().map(|record| record.document.size() + ABOUT_A_RECORD).sum();
        self.receive(edit, records.len(), bytes);
        self.save(edit);
        let (collection, records) = (self.collection.clone(), records.len());
        edit.remote_event(EventKind::RealtimeSync { collection, records });
    }

    /// Counts what has come of the catch-up.
    fn receive(&mut self, edit: &mut Edit<'_>, records: usize, bytes: usize) {
        edit.fetched += bytes;
        self.stream.received.add(records, bytes);
        if !edit.caught.contains(self.collection) {
            edit.caught.insert(self.collection.clone());
        }
    }

    /// Records in a page's range that the page lacks are gone.
    fn drop_absent(
        &mut self,
        edit: &mut Edit<'_>,
        records: &[SyncRecord],
        range: &PageRange,
    ) -> Result<(), StoreError> {
        for id in edit.ids(self.collection, range.after.as_ref(), range.up_to.as_ref())? {
            let absent = records.binary_search_by(|record| record.id.cmp(&id)).is_err();
            if absent {
                self.learn_absence(edit, &id, range.snapshot_seq)?;
            }
        }
        Ok(())
    }

    /// The collection holds what the server has.
    pub(super) fn in_step(&mut self, edit: &mut Edit<'_>) {
        self.stream.confirm();
        edit.remote_event(EventKind::SyncCompleted { collection: self.collection.clone() });
    }

    /// Counts what is held by the rows themselves. The running figures tell nothing of a row that
    /// was altered behind the replica's back; and they would stay wrong by it when it has healed.
    pub(super) fn recount(&mut self, edit: &Edit<'_>) -> Result<(), StoreError> {
        let figures = count_rows(edit, self.collection, &self.stream.row, None)?;
        self.stream.recounted(figures);
        Ok(())
    }

    /// Asks for the collection whole, because the held records can't be continued.
    pub(super) fn take_snapshot(&mut self, edit: &mut Edit<'_>, why: &str) {
        let message = format!("{why}; {}", read_again(self.stream));
        self.stream.start_over();
        self.save(edit);
        let collection = Some(self.collection.clone());
        edit.remote_event(EventKind::Error { collection, record_id: None, message, cause: None });
        self.show_status(edit);
    }

    /// Everything up to a seq of a live stream is known.
    pub(super) fn advance(&mut self, seq: Seq) {
        self.stream.advance(self.peer.epoch(), seq);
    }

    pub(super) fn save(&self, edit: &mut Edit<'_>) {
        edit.put_stream(self.collection, &self.stream.row);
    }

    pub(super) fn show_status(&self, edit: &mut Edit<'_>) {
        edit.show_status(self.collection, self.stream);
    }
}

/// The figures of the stored records that the server has, of those up to one or of all.
pub(super) fn count_rows(
    edit: &Edit<'_>,
    collection: &Collection,
    stream: &StreamRow,
    up_to: Option<&RecordId>,
) -> Result<Figures, StoreError> {
    let mut figures = Figures::default();
    edit.each_row_up_to(collection, up_to, &mut |id, row| {
        stream.add_to(&mut figures, id, &row);
    })?;
    Ok(figures)
}

/// Returns the event for a server that does not go on from a cursor. One beyond the server's head is
/// of changes that it has lost; any other may also be older than the deletes that it remembers. None is
/// told of a cursor that may not count for the rights of its user.
fn setback(
    collection: &Collection,
    stream: &Stream,
    head: Option<Seq>,
    mode: Mode,
    by_rights: bool,
) -> Option<EventKind> {
    let collection = Some(collection.clone());
    if head? < stream.reached() {
        return Some(EventKind::ServerLostChanges { collection });
    }
    let resumes = matches!(stream.row.resume, Some(Resume::Snapshot { .. }));
    if mode == Mode::Delta || resumes || by_rights || stream.row.cursor.is_none() {
        return None;
    }
    let message = format!(
        "the server can't go on from where this replica was, because it was away for too long or the \
         server was restored; {}",
        read_again(stream)
    );
    Some(EventKind::Error { collection, record_id: None, message, cause: None })
}

/// Says what follows where the held records of a collection can't be continued.
fn read_again(stream: &Stream) -> String {
    format!(
        "the whole collection is read again; of the records held here ({}) those go that the server no \
         longer has, writes that wait stay, and nothing has to be done",
        stream.row.figures.count
    )
}
