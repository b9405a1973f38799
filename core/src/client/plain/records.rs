//! Records at a plain server: what its words make of them, and what they say of own writes.

use alloc::vec::Vec;

use xxhash_rust::xxh3::xxh3_64;

use super::super::edit::Edit;
use super::super::machine::Client;
use super::super::records::Taken;
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::message::ServerChange;
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::rest::{PlainRecord, Written};
use crate::protocol::write::Change;
use crate::rules::plain::{Arrival, arrival, in_own_words, told};
use crate::rules::row::{Entry, Row};
use crate::store::StoreError;

/// The outcome of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Learnt {
    /// The record is another now.
    News,
    /// It was known already.
    Known,
    /// It changes fields of a record that is not held.
    Unfit,
}

/// The verdict about writes that may have reached the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// They are settled.
    Settled,
    /// They did not arrive.
    Missing,
    /// It is too early to tell.
    Open,
}

pub(super) fn hash_of(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

impl Client {
    /// Takes in what a plain server says of a record.
    pub(super) fn learn_plain(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        news: &ServerChange,
    ) -> Result<Learnt, StoreError> {
        let before = edit.row(collection, id)?;
        let known = before.as_ref().and_then(|row| row.server.as_ref());
        let Some(state) = told(known, &news.change) else { return Ok(Learnt::Unfit) };
        let view = before.as_ref().and_then(Row::view);
        let state = state.map(|state| in_own_words(known, view, state));
        let changed = state.as_ref() != known;
        let newer = news.version.filter(|version| {
            state.is_some() && before.as_ref().is_some_and(|row| row.version != *version)
        });
        if !changed && newer.is_none() {
            return Ok(Learnt::Known);
        }
        let mut row = before.clone().unwrap_or_default();
        if changed {
            let at = news.timestamp.unwrap_or_else(|| self.server_time());
            let Some(mut records) = self.records(collection) else { return Ok(Learnt::Known) };
            records.defer(&mut row);
            records.take_plain_state(id, &mut row, news, state, at);
            self.know_own_writes(collection, id, &mut row);
            let Some(mut records) = self.records(collection) else { return Ok(Learnt::Known) };
            records.rebase(edit, id, &mut row)?;
        }
        row.version = news.version.unwrap_or(0);
        edit.put_row(collection, id, before.as_ref(), &row);
        Ok(if changed { Learnt::News } else { Learnt::Known })
    }

    /// Takes no recent own write for a change of somebody else's, even if a later write has taken its
    /// place in the outbox.
    fn know_own_writes(&self, collection: &Collection, id: &RecordId, row: &mut Row) {
        let (Some(pending), Some(server)) = (&mut row.pending, &row.server) else { return };
        let Some(deferred) = &mut pending.deferred else { return };
        let Some(plain) = self.peer.plain() else { return };
        let (key, now) = ((collection.clone(), id.clone()), self.now.mono);
        let is_own = |(name, text): &(&str, &str)| plain.echoes.is_own(&key, name, Some(text), now);
        deferred.base = match &deferred.base {
            None if server.iter().all(|field| is_own(&field)) => Some(server.clone()),
            None => None,
            Some(base) => {
                let own: Vec<_> = server.iter().filter(is_own).collect();
                Some(Delta::new(Document::of_sorted(&own), Vec::new()).apply(base))
            }
        };
    }

    /// Takes in a row of a page, or of a whole collection.
    pub(super) fn learn_record(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        record: &PlainRecord,
    ) -> Result<Learnt, StoreError> {
        let news = ServerChange {
            change: Change::insert(record.document.clone()),
            seq: None,
            version: record.version,
            timestamp: record.updated_at,
            at: Vec::new(),
            user_id: None,
        };
        if let Some(plain) = self.peer.plain_mut() {
            plain.echoes.supersede(&(collection.clone(), record.id.clone()));
        }
        self.learn_plain(edit, collection, &record.id, &news)
    }

    /// The server does not have a record.
    pub(in super::super) fn learn_gone(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Learnt, StoreError> {
        let (seq, version, timestamp, at, user_id) = (None, None, None, Vec::new(), None);
        let change = Change::delete();
        let news = ServerChange { change, seq, version, timestamp, at, user_id };
        self.learn_plain(edit, collection, id, &news)
    }

    /// The held records that are not among the existing ones, by the hashes of their ids, and how
    /// many records are held.
    pub(super) fn absent(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        existing: &[u64],
    ) -> Result<(Vec<RecordId>, u64), StoreError> {
        let (mut absent, mut held) = (Vec::new(), 0);
        edit.each_row(collection, &mut |id, row| {
            held += u64::from(row.server.is_some());
            if row.server.is_some() && existing.binary_search(&hash_of(id)).is_err() {
                absent.push(id.clone());
            }
        })?;
        Ok((absent, held))
    }

    /// Judges by what is known of the server's state which of a record's writes have arrived. All
    /// that are older than `sent` must have, if any has.
    pub(super) fn judge(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
        is_old: impl Fn(WriteId) -> bool,
    ) -> Result<Verdict, StoreError> {
        let mut frozen = self.outbox.entries_of(edit, collection, id)?;
        frozen.retain(|(write, _)| self.outbox.is_frozen(*write));
        let old = frozen.iter().take_while(|(write, _)| is_old(*write)).count();
        let Some(row) = edit.row(collection, id)? else { return Ok(Verdict::Missing) };
        if frozen.is_empty() || old == 0 {
            return Ok(if frozen.is_empty() { Verdict::Settled } else { Verdict::Open });
        }
        let changes: Vec<_> = frozen.iter().map(|(_, entry)| &entry.change).collect();
        let found = arrival(row.base(), &changes, old, row.server.as_ref());
        match found {
            Arrival::Shown(count) => {
                for (write, entry) in &frozen[..count] {
                    self.confirm_plain(edit, *write, entry, None)?;
                }
                Ok(if count == frozen.len() { Verdict::Settled } else { Verdict::Open })
            }
            Arrival::Missing | Arrival::Overtaken if old < frozen.len() => Ok(Verdict::Open),
            Arrival::Missing => Ok(Verdict::Missing),
            Arrival::Overtaken => {
                if let Some(mut records) = self.records(collection) {
                    records.rebase_frozen(edit, id)?;
                }
                Ok(Verdict::Settled)
            }
        }
    }

    /// The server has a write.
    pub(super) fn confirm_plain(
        &mut self,
        edit: &mut Edit<'_>,
        write: WriteId,
        entry: &Entry,
        written: Option<Written>,
    ) -> Result<(), StoreError> {
        self.outbox.remove(edit, write, entry);
        self.peer.forget_write(write);
        let Entry { collection, record_id: id, .. } = entry;
        if let Some(mut records) = self.records(collection) {
            records.fold(edit, write, entry, &Taken::Bare)?;
        }
        self.touch(collection, id);
        if let (Some(written), Some(before)) = (written, edit.row(collection, id)?) {
            let mut row = before.clone();
            row.version = written.version.unwrap_or(0);
            row.updated_at = written.updated_at.unwrap_or(row.updated_at);
            edit.put_row(collection, id, Some(&before), &row);
        }
        Ok(())
    }

    /// Notes that a record's state was learnt just now: pages that were asked for earlier may show
    /// an older one.
    pub(super) fn touch(&mut self, collection: &Collection, id: &RecordId) {
        let now = self.now.mono;
        if let Some(stream) = self.streams.get_mut(collection) {
            stream.plain.touch(hash_of(id), now);
        }
    }
}
