//! A write by HTTP at a plain server, and its verdict.

use alloc::vec::Vec;
use core::time::Duration;

use super::super::edit::Edit;
use super::super::machine::Client;
use super::What;
use super::records::Verdict;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, WriteId};
use crate::protocol::rest::{
    collection_path, decode_current, insert_body, record_path, update_body,
};
use crate::protocol::write::WriteKind;
use crate::rules::row::{Entry, OutboxRow, PlainMark};
use crate::store::{Scan, StoreError};

/// After this many conflicts in a row that tell nothing new, a write no longer asks for one.
const VAIN_CONFLICTS: u32 = 3;

impl Client {
    /// Pushes the next write. Says whether there was one.
    pub(super) fn push_next(&mut self, edit: &mut Edit<'_>) -> Result<bool, StoreError> {
        let held = self.pacing.holds(self.now.mono);
        if held || self.peer.plain().is_none_or(|plain| !plain.proven) {
            return Ok(false);
        }
        let Some((write, entry)) = self.next_push(edit)? else { return Ok(false) };
        let Entry { collection, record_id: id, change, written_at, .. } = entry;
        let at = written_at;
        let (method, path, body) = match change.kind {
            WriteKind::Insert => {
                let body = insert_body(&id, &change.delta.set, at);
                ("POST", collection_path(&collection), Some(body))
            }
            WriteKind::Update => {
                let version = edit.row(&collection, &id)?.map(|row| row.version);
                let version = version.filter(|version| {
                    *version > 0 && self.pacing.conflicts_of(write) < VAIN_CONFLICTS
                });
                let body = update_body(&change, version, at);
                ("PATCH", record_path(&collection, &id), Some(body))
            }
            WriteKind::Delete => ("DELETE", record_path(&collection, &id), None),
        };
        self.outbox.freeze(write);
        // what comes by HTTP, a server may send to every socket
        if let Some(plain) = self.peer.plain_mut() {
            plain.echoes.expect((collection, id), &change, self.now.mono);
        }
        self.ask_plain(edit, What::Push(write), method, path, body);
        Ok(true)
    }

    /// The next write that goes by HTTP: over a WebSocket only what has not arrived by it.
    fn next_push(&mut self, edit: &Edit<'_>) -> Result<Option<(WriteId, Entry)>, StoreError> {
        if self.link.ready_since().is_some() {
            let Some(work) = self.peer.work_mut() else { return Ok(None) };
            while let Some(write) = work.missing.first().copied() {
                if let Some(OutboxRow::Entry(entry)) = edit.place(write)?
                    && entry.expects.is_none()
                {
                    return Ok(Some((write, entry)));
                }
                work.missing.remove(&write);
            }
            return Ok(None);
        }
        let mut next = None;
        let missed = self.peer.work().map(|work| &work.missed);
        self.outbox.each(edit, &mut |write, place| {
            let OutboxRow::Entry(entry) = place else { return Ok(Scan::Next) };
            if entry.expects.is_some() {
                return Ok(Scan::Stop);
            }
            if missed.is_some_and(|missed| missed.contains(&entry.collection)) {
                return Ok(Scan::Next);
            }
            next = self.outbox.is_durable(write).then_some((write, entry));
            Ok(Scan::Stop)
        })?;
        Ok(next)
    }

    /// The server has another state of the record than the one that the write stands on.
    pub(super) fn conflicted_by_http(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let Entry { collection, record_id: id, .. } = entry;
        match decode_current(body, id, &self.config.limits) {
            Some(Some(record)) => drop(self.learn_record(edit, collection, &record)?),
            Some(None) => drop(self.learn_gone(edit, collection, id)?),
            None => {
                // what the server has is to be read before the write is tried again
                self.read_whole_next(edit, collection);
                self.turned_down(edit, write, entry);
                let message = alloc::format!(
                    "{collection}/{id}: the server reports a conflict without the record"
                );
                self.fail_work(edit, message, Duration::ZERO);
                return Ok(());
            }
        }
        self.touch(collection, id);
        self.overtaken(edit, write, entry)
    }

    /// Decides by the state that the server has shown what becomes of the record's writes.
    pub(super) fn overtaken(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        let Entry { collection, record_id: id, .. } = entry;
        match self.judge(edit, collection, id, |_| true)? {
            Verdict::Settled | Verdict::Open => {}
            // no update goes on top of nothing, even where one of the writes behind it is what has
            // left nothing: the strategy decides
            Verdict::Missing
                if entry.change.kind == WriteKind::Update && self.is_gone(edit, entry)? =>
            {
                self.turned_down(edit, write, entry);
                if let Some(mut records) = self.records(collection) {
                    records.rebase_frozen(edit, id)?;
                }
            }
            // it changed in fields that the write does not touch: it goes on top of them
            Verdict::Missing => self.turned_down(edit, write, entry),
        }
        Ok(())
    }

    /// Returns `true` if the server does not have the record of a write.
    pub(super) fn is_gone(&self, edit: &Edit<'_>, entry: &Entry) -> Result<bool, StoreError> {
        let row = edit.row(&entry.collection, &entry.record_id)?;
        Ok(row.is_none_or(|row| row.server.is_none()))
    }

    fn turned_down(&mut self, edit: &mut Edit<'_>, write: WriteId, entry: &Entry) {
        self.count_conflict(edit, write, entry, &ErrorCode::Conflict);
    }

    pub(super) fn read_whole_next(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let mark = self.mark(collection);
        let Some(stream) = self.streams.get_mut(collection) else { return };
        stream.row.plain = Some(PlainMark { watermark: None, ..mark });
        stream.plain.incomplete = true;
        edit.put_stream(collection, &stream.row);
    }
}

impl super::Plain {
    /// Copies the writes that were sent on this connection, to be read while the rest changes.
    pub(super) fn clone_sent(&self) -> Sent {
        Sent(self.sent.iter().copied().collect())
    }
}

/// The writes that were sent on a connection, with their times.
#[derive(Default)]
pub(super) struct Sent(Vec<(WriteId, crate::protocol::time::Mono)>);

impl Sent {
    /// Returns `true` if a write has been sent so long ago that it must have arrived at `at`, if at all.
    pub(super) fn is_old(&self, write: WriteId, at: crate::protocol::time::Mono) -> bool {
        let sent = self.0.iter().find(|(sent, _)| *sent == write);
        sent.is_none_or(|(_, sent)| *sent + super::ARRIVAL <= at)
    }
}
