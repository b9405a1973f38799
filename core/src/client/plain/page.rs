//! A page of a collection at a plain server: its rows, and what follows where there is none.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::super::edit::Edit;
use super::super::event::EventKind;
use super::super::exchange::MOST_DECLINED;
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::machine::Client;
use super::super::stream::{Stream, StreamError};
use super::pull::{Glimpse, Outcome, Step};
use super::records::{Learnt, hash_of};
use super::socket::latest_believed;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::Collection;
use crate::protocol::rest::{PlainPage, PlainRecord, Refusal};
use crate::protocol::time::{Mono, Timestamp};
use crate::rules::row::PlainMark;
use crate::store::StoreError;

impl Client {
    /// A page has come that can be read.
    pub(super) fn turn_plain_page(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        page: PlainPage,
    ) -> Result<(), StoreError> {
        if let Some(work) = self.peer.work_mut() {
            work.read = true;
            work.throttle.serve();
        }
        self.fallback.unstick(collection);
        let (now, latest) = (self.now.mono, latest_believed(self.server_time()));
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        let began = stream.plain.pull_began;
        let Some(mut pull) = stream.plain.pull.take() else { return Ok(()) };
        if let (Some(why), false) = (&page.unreadable, stream.plain.complained) {
            let message = format!("records are left out that can't be read: {why}");
            stream.plain.complained = true;
            let collection = Some(collection.clone());
            edit.remote_event(EventKind::Error {
                collection,
                record_id: None,
                message,
                cause: None,
            });
        }
        let glimpses: alloc::vec::Vec<_> =
            page.rows.iter().map(|row| glimpse(row.as_ref().map_err(|raw| *raw), latest)).collect();
        let mut changed = false;
        for record in page.rows.iter().filter_map(|row| row.as_ref().ok()) {
            changed |= self.take_row(edit, collection, record, began)?;
        }
        if let Some(work) = self.peer.work_mut() {
            work.changed |= changed;
        }
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        let step = pull.page(&glimpses, now, &mut stream.plain.habits);
        match step {
            Step::More => stream.plain.pull = Some(pull),
            Step::Done(outcome) => self.pulled(edit, collection, outcome)?,
            Step::Failed(why) => {
                let (code, message) = (ErrorCode::ServerError, why.into());
                self.not_read(edit, collection, code, message);
            }
        }
        self.save_stream(edit, collection);
        Ok(())
    }

    /// Takes a row in, unless its record was learnt on another way since it was asked for: then
    /// only what is proved to be newer counts.
    fn take_row(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        record: &PlainRecord,
        began: Mono,
    ) -> Result<bool, StoreError> {
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(false) };
        if stream.plain.is_touched(hash_of(&record.id), began) {
            let held = edit.row(collection, &record.id)?.map_or(0, |row| row.version);
            if held == 0 || record.version.is_none_or(|version| version <= held) {
                stream.plain.incomplete |= record.version != Some(held);
                return Ok(false);
            }
        }
        Ok(self.learn_record(edit, collection, record)? == Learnt::News)
    }

    /// A collection was read.
    fn pulled(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let mut mark = PlainMark { watermark: outcome.watermark, ..self.mark(collection) };
        if let Some(plain) = self.peer.plain_mut() {
            plain.looked_at(collection);
        }
        if let Some(existing) = outcome.existing {
            if let Some(work) = self.peer.work_mut() {
                work.reconciled.insert(collection.clone());
            }
            mark.reconciled_at = Some(self.now.wall);
            let (mut gone, held) = self.absent(edit, collection, &existing)?;
            if let Some(Stream { plain, .. }) = self.streams.get(collection) {
                gone.retain(|id| !plain.is_touched(hash_of(id), plain.pull_began));
            }
            if !self.take_gone(edit, collection, &gone, held)? {
                mark.reconciled_at = None;
            }
        }
        let whole = self.peer.work_mut().is_some_and(|work| {
            work.due.remove(collection);
            work.whole
        });
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(()) };
        stream.row.plain = Some(mark);
        stream.plain.habits.grow();
        let was_confirmed = stream.read_whole();
        if self.config.http {
            stream.plain.asked_whole = None;
            stream.plain.rest();
        }
        if whole {
            edit.remote_event(EventKind::SyncCompleted { collection: collection.clone() });
        }
        if !was_confirmed {
            edit.show_status(collection, stream);
        }
        Ok(())
    }

    /// A collection can't be read now; the others can.
    fn not_read(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        code: ErrorCode,
        message: String,
    ) {
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.pull = None;
            stream.note_error(StreamError::new(&code, &message));
            stream.lose_confirmation();
        }
        if let Some(work) = self.peer.work_mut() {
            work.due.remove(collection);
            work.troubled = true;
        }
        self.show_status(edit, collection);
        let collection = collection.clone();
        edit.remote_event(EventKind::SyncFailed { collection, code, message });
    }

    /// The server, or something on the way, has answered with another status than success.
    pub(super) fn plain_page_declined(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        status: u16,
        retry_after: Option<Duration>,
        told: Refusal,
    ) {
        let wait = retry_after.or(told.retry_after_ms.map(Duration::from_millis));
        self.rest(wait);
        if wait.is_none() && self.disappoints(collection, status, &told.message) {
            return;
        }
        match (status, told.json) {
            (403, false) => {
                self.refuse_access(edit, ErrorCode::Unauthorized, told.message, false);
            }
            (413, _) => {
                let Some(stream) = self.streams.get_mut(collection) else { return };
                let habits = &mut stream.plain.habits;
                let before = habits.limit;
                habits.shrink();
                if habits.limit == before {
                    self.not_read(edit, collection, ErrorCode::PayloadTooLarge, told.message);
                }
            }
            (400 | 403 | 404, true) if !self.looks_at(collection) => {
                let code = told.code.unwrap_or(match status {
                    403 => ErrorCode::Unauthorized,
                    404 => ErrorCode::CollectionNotFound,
                    _ => ErrorCode::InvalidMessage,
                });
                self.not_read(edit, collection, code, told.message);
            }
            _ => {
                let why = format!("{collection} could not be read: {}", told.message);
                if status == 429 && self.pause_work(wait) {
                    return edit.error(why);
                }
                match wait {
                    Some(wait) => {
                        let failure = ConnectFailure::new(FailureCause::Declined, why);
                        self.fail_work(edit, failure, wait);
                    }
                    None => self.page_missed(edit, collection, &why),
                }
            }
        }
    }

    /// A collection can't be read now, be it because of the server or because of something on the
    /// way. The others go on, as long as one of them shows that the server is there.
    pub(super) fn page_missed(&mut self, edit: &mut Edit<'_>, collection: &Collection, why: &str) {
        let looks = self.looks_at(collection);
        let goes_on = self.peer.work_mut().is_some_and(|work| {
            work.missed.insert(collection.clone());
            let many = work.missed.len() > MOST_DECLINED as usize;
            !looks && !many && (work.read || work.due.len() > 1)
        });
        if !goes_on {
            return self.fail_work(edit, why, Duration::ZERO);
        }
        let mut why = String::from(why);
        if matches!(&**collection, "." | "..") {
            why.push_str("; its name stands in the path, where a proxy may take it for a step");
        }
        self.not_read(edit, collection, ErrorCode::ServerError, why);
    }

    /// The request for a page was not answered. Where the same happens again although others were
    /// answered, the collection is left out.
    pub(super) fn page_unanswered(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        failure: ConnectFailure,
    ) {
        if self.ends_search(edit, collection) {
            return;
        }
        let again = self.fallback.stick(collection);
        let read = self.peer.work().is_some_and(|work| work.read);
        if again.as_ref() == Some(collection) && read {
            self.page_missed(edit, collection, &failure.message);
        } else {
            self.fail_work(edit, failure, Duration::ZERO);
        }
    }

    /// Returns `true` if a collection is read to find out whether an answer can be believed.
    fn looks_at(&self, collection: &Collection) -> bool {
        self.peer.plain().is_some_and(|plain| plain.looks_at(collection))
    }
}

/// The part of a row that the pager sees; one that could not be read is only a hash.
fn glimpse(row: Result<&PlainRecord, u64>, latest: Timestamp) -> Glimpse {
    match row {
        Err(whole) => Glimpse { id: None, whole, stamp: None },
        Ok(record) => {
            let mut hash = Xxh3::new();
            hash.update(record.id.as_bytes());
            hash.update(&[0]);
            hash.update(&record.document.to_json());
            hash.update(&record.version.unwrap_or(0).to_le_bytes());
            hash.update(&record.updated_at.map_or(0, |at| at.0).to_le_bytes());
            let stamp = record.updated_at.filter(|at| *at <= latest);
            Glimpse { id: Some(hash_of(&record.id)), whole: hash.digest(), stamp }
        }
    }
}
