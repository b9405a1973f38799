//! The meaning of the answer to a write by HTTP. Something on the way may have given it in the server's
//! place: so what does not carry the protocol's form, and whatever would end a write without its
//! having been made, is believed only after the collection was read again.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::super::access::code_of;
use super::super::edit::Edit;
use super::super::failure::{ConnectFailure, FailureCause};
use super::super::machine::Client;
use super::super::step::StepError;
use super::Doubt;
use crate::protocol::message::{ErrorCode, ErrorMessage};
use crate::protocol::name::{Collection, WriteId};
use crate::protocol::rest::{Refusal, decode_refusal, decode_written, speaks_of};
use crate::protocol::write::WriteKind;
use crate::rules::row::{Entry, OutboxRow, PlainMark};
use crate::store::StoreError;

/// So often in a row a write has to be refused, each time right after its collection was read, before
/// it is rejected.
const REFUSALS: u32 = 3;

/// The meaning of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    /// The server has the write.
    Taken,
    /// It was answered well, but not in the form of a server that has it.
    Unclear,
    /// The record does not exist.
    Gone,
    /// The record is another than the write stands on.
    Conflict,
    /// The write is not allowed.
    Refused,
    /// Access is refused.
    Access,
    /// Not now.
    Later,
}

fn word(status: u16, told: &Refusal, body: &[u8], entry: &Entry) -> Word {
    let kind = entry.change.kind;
    let html = body.trim_ascii_start().starts_with(b"<");
    let deletes = kind == WriteKind::Delete;
    match status {
        200..=299 if speaks_of(body, &entry.record_id, deletes) => Word::Taken,
        200..=299 => Word::Unclear,
        404 | 410 if told.code == Some(ErrorCode::CollectionNotFound) => Word::Refused,
        404 | 410 if kind != WriteKind::Insert && !html => Word::Gone,
        409 => Word::Conflict,
        413 if told.code == Some(ErrorCode::PayloadTooLarge) => Word::Refused,
        400 | 403 | 422 if told.json => Word::Refused,
        403 => Word::Access,
        _ => Word::Later,
    }
}

impl Client {
    /// A push was answered.
    pub(super) fn judged_by_http(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Result<(), StepError> {
        let Some(OutboxRow::Entry(entry)) = edit.place(write)? else { return Ok(()) };
        let collection = entry.collection.clone();
        let told = decode_refusal(status, body);
        match word(status, &told, body, &entry) {
            Word::Taken => {
                self.http_reaches(edit);
                self.token_needed = false;
                if let Some(plain) = self.peer.plain_mut() {
                    plain.failures = 0;
                    plain.work.iter_mut().for_each(|work| work.throttle.serve());
                }
                self.confirm_plain(edit, write, &entry, Some(decode_written(body)))?;
            }
            Word::Gone => self.found_gone(edit, write, &entry, status, retry_after, told)?,
            Word::Conflict => self.conflicted_by_http(edit, write, &entry, body)?,
            Word::Unclear => match self.doubts(write, &entry, status) {
                1 => self.read_first(&collection),
                // it was read, and does not show the write: what changed is perhaps not told
                _ => {
                    self.read_whole_next(edit, &collection);
                    self.not_now(edit, write, &entry, status, retry_after, told);
                }
            },
            Word::Refused => {
                if self.doubts(write, &entry, status) < REFUSALS {
                    self.read_first(&collection);
                } else {
                    self.rejected_by_http(edit, write, &entry, status, told)?;
                }
            }
            Word::Access => {
                self.ask_for_token(edit, code_of(status), told.message.clone(), false);
                self.not_now(edit, write, &entry, status, retry_after, told);
                return Ok(());
            }
            Word::Later => {
                self.not_now(edit, write, &entry, status, retry_after, told);
                return Ok(());
            }
        }
        self.save_stream(edit, &collection);
        self.outbox.advance_head(edit)?;
        Ok(())
    }

    /// Notes an answer that is not believed. How often in a row it was given, with a look at the
    /// collection in between.
    fn doubts(&mut self, write: WriteId, entry: &Entry, status: u16) -> u32 {
        let Some(plain) = self.peer.plain_mut() else { return 1 };
        let doubt = plain.doubt.take();
        let same = doubt.filter(|it| it.write == write && it.status == status && it.looked);
        let times = same.map_or(0, |doubt| doubt.times) + 1;
        let (collection, looked) = (entry.collection.clone(), false);
        plain.doubt = Some(Doubt { write, collection, status, times, looked });
        times
    }

    /// Reads a collection before the work goes on with its pushes.
    fn read_first(&mut self, collection: &Collection) {
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.pull = None;
        }
        if let Some(work) = self.peer.work_mut() {
            work.pushing = false;
            work.looks = true;
            work.due.insert(collection.clone());
        }
    }

    /// The server, or something on the way, says that there is no such record. An update meets a
    /// delete only where a reading of the whole collection shows it; a delete is settled when it was
    /// answered so again and again, each time right after the collection was read.
    fn found_gone(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        status: u16,
        retry_after: Option<Duration>,
        told: Refusal,
    ) -> Result<(), StoreError> {
        let Entry { collection, record_id: id, .. } = entry;
        let was_read = self.peer.work().is_some_and(|work| work.reconciled.contains(collection));
        let gone = was_read && self.is_gone(edit, entry)?;
        match (gone, entry.change.kind) {
            (true, WriteKind::Delete) => self.confirm_plain(edit, write, entry, None)?,
            (true, WriteKind::Insert | WriteKind::Update) => {
                self.learn_gone(edit, collection, id)?;
                self.overtaken(edit, write, entry)?;
            }
            // it may have gone by WebSocket, and a server says so of each: nothing whole is read
            (false, WriteKind::Delete) => {
                if self.doubts(write, entry, status) < REFUSALS {
                    self.read_first(collection);
                } else {
                    self.confirm_plain(edit, write, entry, None)?;
                }
            }
            (false, WriteKind::Insert | WriteKind::Update) if was_read => {
                self.not_now(edit, write, entry, status, retry_after, told);
            }
            (false, WriteKind::Insert | WriteKind::Update) => {
                self.read_whole_soon(collection);
                self.read_first(collection);
            }
        }
        Ok(())
    }

    /// The next reading of a collection shows what is gone.
    fn read_whole_soon(&mut self, collection: &Collection) {
        let mark = self.mark(collection);
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.row.plain = Some(PlainMark { reconciled_at: None, ..mark });
        }
    }

    /// The write waits, and is sent again.
    fn not_now(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        status: u16,
        retry_after: Option<Duration>,
        told: Refusal,
    ) {
        let wait = retry_after.or(told.retry_after_ms.map(Duration::from_millis));
        let Entry { collection, record_id, .. } = entry;
        let why = format!("{collection}/{record_id} could not be written: {}", told.message);
        if status == 429 && self.pause_work(wait) {
            return edit.error(why);
        }
        let code = match status {
            413 => ErrorCode::PayloadTooLarge,
            429 => ErrorCode::RateLimitExceeded,
            _ => ErrorCode::ServerError,
        };
        let retry_after_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let error =
            ErrorMessage { retry_after_ms, ..ErrorMessage::new(code, told.message.clone()) };
        self.postpone(edit, write, entry, &error);
        let wait = self.pacing.held_until().map(|until| until.since(self.now.mono));
        let failure = ConnectFailure::new(FailureCause::Declined, why);
        self.fail_work(edit, failure, wait.unwrap_or_default());
    }

    fn rejected_by_http(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        status: u16,
        told: Refusal,
    ) -> Result<(), StoreError> {
        let code = told.code.unwrap_or(match status {
            403 => ErrorCode::Unauthorized,
            404 | 410 => ErrorCode::CollectionNotFound,
            413 => ErrorCode::PayloadTooLarge,
            _ => ErrorCode::InvalidMessage,
        });
        let message: String = told.message;
        if let Some(plain) = self.peer.plain_mut() {
            plain.doubt = None;
            plain.forget(write);
        }
        self.reject(edit, write, entry, code, message)
    }
}
