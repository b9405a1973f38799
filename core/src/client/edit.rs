//! One step's changes to the store: read through, and committed as one batch at its end.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use bytes::Bytes;

use super::event::{Event, EventKind, Transport};
use super::failure::{ConnectFailure, FailureCause};
use super::indexes::KeptIndexes;
use super::interface::{NetAction, SyncId, SyncOutcome};
use super::output::ViewAction;
use super::stream::Stream;
use crate::protocol::document::Document;
use crate::protocol::hash::Digest;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::WriteKind;
use crate::rules::clocks::Clocks;
use crate::rules::row::{
    Entry, IndexRow, Keys, OutboxRow, Rejected, Row, StreamRow, Unit, index_number_of, record_of,
    write_id_of,
};
use crate::rules::view::Record;
use crate::store::{Batch, Overlay, Rows, Scan, StoreError};

/// The reason why a transaction can't be any more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum LostBy {
    /// A record is no longer as it was seen.
    Expectation,
    /// The conflict strategy has given a member up.
    Strategy,
    /// Its members no longer fit into a frame, as the conflict strategy has made them.
    Size,
}

impl LostBy {
    pub(super) fn code(self) -> ErrorCode {
        match self {
            Self::Expectation => ErrorCode::Other("PRECONDITION_FAILED".into()),
            Self::Strategy => ErrorCode::Other("LOST".into()),
            Self::Size => ErrorCode::PayloadTooLarge,
        }
    }

    pub(super) fn message(self) -> String {
        String::from(match self {
            Self::Expectation => {
                "a record that the transaction expects is no longer as it was seen: nothing of it was \
                 done; read again and decide anew"
            }
            Self::Strategy => {
                "somebody else has changed a record of the transaction, and the conflict strategy has \
                 kept that change: nothing of it was done; read again and decide anew"
            }
            Self::Size => {
                "the transaction is larger than a frame may be, as the conflict strategy has made it: \
                 nothing of it was done; make it anew, in several"
            }
        })
    }
}

pub(super) struct Edit<'a> {
    rows: Overlay<'a>,
    keys: Keys,
    pub(super) views: Vec<ViewAction>,
    pub(super) events: Vec<Event>,
    /// The wall clock at this step.
    now: Timestamp,
    pub(super) net: Vec<NetAction>,
    /// By which transport what this step is about has come.
    pub(super) transport: Transport,
    pub(super) synced: Vec<(SyncId, SyncOutcome)>,
    /// The last entry of the outbox, where this step wrote it.
    pub(super) written: Option<WriteId>,
    /// The last write that waits for the record that the app has written, where nothing changed.
    pub(super) shares: Option<WriteId>,
    /// The transaction that the app has made.
    pub(super) transaction: Option<WriteId>,
    /// Transactions that can't be any more, each with the reason.
    pub(super) lost: Vec<(Unit, LostBy)>,
    /// Transactions of which the conflict strategy has made a member anew.
    pub(super) made_anew: Vec<Unit>,
    /// The number of messages and answers that were ignored.
    pub(super) ignored: u64,
    /// The number of held records that this step has let go.
    pub(super) adopted: usize,
    /// `true` if an entry of the outbox changed otherwise than by being appended or confirmed:
    /// then nothing is sent before this step is durable.
    pub(super) gates: bool,
    /// `true` if the app or the protocol waits for this step to be durable.
    pub(super) flush: bool,
    /// `true` if a page, a change or a verdict has brought a place forward.
    pub(super) moved: bool,
    /// The approximate number of bytes of a catch-up that have come.
    pub(super) fetched: usize,
    /// The collections of whose catch-ups something has come, until that is told.
    pub(super) caught: BTreeSet<Collection>,
    /// The corrections of entries that were stamped without the server's time.
    clocks: Clocks,
    /// The runs that are not settled, whose entries may be joined as they were stamped.
    unsettled: Option<RangeInclusive<u64>>,
    /// The indexes that are kept in step with the records.
    indexes: Option<Arc<KeptIndexes>>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(store: &'a dyn Rows, keys: Keys, now: Timestamp) -> Self {
        Self {
            clocks: Clocks::default(),
            unsettled: None,
            indexes: None,
            rows: Overlay::new(store),
            keys,
            views: Vec::new(),
            events: Vec::new(),
            now,
            net: Vec::new(),
            transport: Transport::WebSocket,
            synced: Vec::new(),
            written: None,
            shares: None,
            transaction: None,
            lost: Vec::new(),
            made_anew: Vec::new(),
            ignored: 0,
            adopted: 0,
            gates: false,
            moved: false,
            fetched: 0,
            caught: BTreeSet::new(),
            flush: false,
        }
    }

    /// Lets entries be read with their times by the server's clock, as far as that is known.
    pub(super) fn in_time(&mut self, clocks: &Clocks, unsettled: Option<RangeInclusive<u64>>) {
        self.clocks.clone_from(clocks);
        self.unsettled = unsettled;
    }

    /// Lets the indexes go along with the records.
    pub(super) fn keep_indexes(&mut self, kept: Option<Arc<KeptIndexes>>) {
        self.indexes = kept;
    }

    /// Tells the app of something that happened on this side.
    pub(super) fn event(&mut self, kind: EventKind) {
        self.events.push(Event { timestamp: self.now, transport: None, kind });
    }

    /// Tells the app that a write of a record waits, in a transaction or by itself.
    pub(super) fn queued(
        &mut self,
        (collection, id): (&Collection, &RecordId),
        write: WriteId,
        operation: WriteKind,
        unit: Option<Unit>,
    ) {
        self.event(EventKind::OperationQueued {
            collection: collection.clone(),
            record_id: id.clone(),
            write,
            operation,
            transaction: unit.map(|unit| unit.first),
        });
    }

    /// Tells the app of something that came by the transport of this step.
    pub(super) fn remote_event(&mut self, kind: EventKind) {
        self.event_by(self.transport, kind);
    }

    /// Tells the app of something that came by a transport.
    pub(super) fn event_by(&mut self, transport: Transport, kind: EventKind) {
        self.events.push(Event { timestamp: self.now, transport: Some(transport), kind });
    }

    /// Tells the app of an error that is about no collection.
    pub(super) fn error(&mut self, message: impl Into<alloc::string::String>) {
        self.tell(message.into(), None);
    }

    /// Tells the app why the server is out of reach.
    pub(super) fn unreachable(&mut self, failure: &ConnectFailure) {
        self.tell(failure.message.clone(), Some(failure.cause));
    }

    fn tell(&mut self, message: alloc::string::String, cause: Option<FailureCause>) {
        self.remote_event(EventKind::Error { collection: None, record_id: None, message, cause });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_unchanged()
    }

    pub(super) fn into_batch(self) -> Batch {
        self.rows.into_batch()
    }

    /// Sets a row. Stores may keep what they are given, so it is given without spare capacity.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.put(key.into_boxed_slice(), value.into_boxed_slice());
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.rows.delete(key);
    }

    pub(super) fn put_stream(&mut self, collection: &Collection, row: &StreamRow) {
        self.put(self.keys.stream(collection), row.encode());
    }

    /// Shows how well a collection is known. The end of a step does that for every collection of which it
    /// is news; before, it says where among the changes it belongs.
    pub(super) fn show_status(&mut self, collection: &Collection, stream: &Stream) {
        let (from_cache, catching_up) = (!stream.is_confirmed(), stream.is_catching_up());
        let collection = collection.clone();
        self.views.push(ViewAction::Status { collection, from_cache, catching_up });
    }

    /// Nothing is left of a transaction, because the conflict strategy has given up its last member.
    pub(super) fn give_up(&mut self, unit: Unit, last: (Collection, RecordId)) {
        let (code, message) = (LostBy::Strategy.code(), LostBy::Strategy.message());
        let (transaction, records) = (unit.first, Vec::from([last]));
        self.remote_event(EventKind::TransactionFailed { transaction, records, code, message });
    }

    /// Counts what the step is about as ignored.
    pub(super) fn ignore(&mut self) {
        self.ignored += 1;
    }

    pub(super) fn row(&self, collection: &Collection, id: &str) -> Result<Option<Row>, StoreError> {
        self.rows.get(&self.keys.row(collection, id))?.map(Row::decode).transpose()
    }

    /// Stores a record's row where it differs from the one before, with its entries in the indexes, and
    /// says what to show. There is no other way to change a row.
    pub(super) fn put_row(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Row>,
        row: &Row,
    ) {
        let key = self.keys.row(collection, id);
        if row.is_void() {
            self.delete(key);
        } else {
            self.put(key, row.encode());
        }
        let was_deferred = before.and_then(Row::deferred).is_some();
        match (was_deferred, row.deferred().is_some()) {
            (false, true) => self.put(self.keys.deferred(collection, id), Vec::new()),
            (true, false) => self.delete(self.keys.deferred(collection, id)),
            (true, true) | (false, false) => {}
        }
        self.put_index_entries(collection, id, before.and_then(Row::view), row.view());
        if before.and_then(shown_parts) != shown_parts(row) {
            let record = shown(id, row);
            let (collection, record_id) = (collection.clone(), id.clone());
            self.views.push(ViewAction::Record { collection, record_id, record });
        }
    }

    /// Brings the indexes of a collection in step with a record that was seen in one state before and is
    /// in another one now.
    fn put_index_entries(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Document>,
        now: Option<&Document>,
    ) {
        let Some(indexes) = self.indexes.clone() else { return };
        let Some(indexes) = indexes.get(collection).filter(|_| before != now) else { return };
        for index in indexes {
            let entry = |document| index.entry(self.keys, id, document);
            let (old, new) = (before.map(entry), now.map(entry));
            if old == new {
                continue;
            }
            if let Some((key, _)) = old {
                self.delete(key);
            }
            if let Some((key, value)) = new {
                self.put(key, value);
            }
        }
    }

    /// The indexes that the store has rows of, by their numbers.
    pub(super) fn indexes(&self) -> Result<BTreeMap<u32, IndexRow>, StoreError> {
        let mut indexes = BTreeMap::new();
        let (from, to) = self.keys.indexes();
        self.rows.scan(&from, &to, &mut |key, value| {
            indexes.insert(index_number_of(key)?, IndexRow::decode(value)?);
            Ok(Scan::Next)
        })?;
        Ok(indexes)
    }

    /// All rows of all indexes, for checks.
    pub(super) fn index_entries(&self) -> Result<BTreeMap<Vec<u8>, Bytes>, StoreError> {
        let mut entries = BTreeMap::new();
        let (from, to) = self.keys.all_indexed();
        self.rows.scan(&from, &to, &mut |key, value| {
            entries.insert(key.to_vec(), value);
            Ok(Scan::Next)
        })?;
        Ok(entries)
    }

    /// Removes so many rows of an index at most. Returns `true` if there are no more.
    pub(super) fn delete_index_entries(
        &mut self,
        number: u32,
        most: usize,
    ) -> Result<bool, StoreError> {
        let mut keys = Vec::new();
        let (from, to) = (self.keys.indexed(number), self.keys.end_of_index(number));
        self.rows.scan(&from, &to, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(if keys.len() < most { Scan::Next } else { Scan::Stop })
        })?;
        let is_last = keys.len() < most;
        keys.into_iter().for_each(|key| self.delete(key));
        Ok(is_last)
    }

    /// Returns `true` if a collection has no rows.
    pub(super) fn is_without_rows(&self, collection: &Collection) -> Result<bool, StoreError> {
        let mut is_empty = true;
        self.rows_behind(collection, None, &mut |_, _| {
            is_empty = false;
            Scan::Stop
        })?;
        Ok(is_empty)
    }

    /// Removes the rows by which earlier versions found the writes of a record.
    pub(super) fn drop_index_of_writes(&mut self) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        let (from, to) = self.keys.pending_behind(None);
        self.rows.scan(&from, &to, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(Scan::Next)
        })?;
        keys.into_iter().for_each(|key| self.delete(key));
        Ok(())
    }

    pub(super) fn place(&self, write: WriteId) -> Result<Option<OutboxRow>, StoreError> {
        let row = self.rows.get(&self.keys.entry(write))?;
        row.map(|row| Ok(self.corrected(OutboxRow::decode(row)?))).transpose()
    }

    fn corrected(&self, place: OutboxRow) -> OutboxRow {
        match place {
            OutboxRow::Entry(entry) => OutboxRow::Entry(self.corrected_entry(entry)),
            OutboxRow::Acked(digest) => OutboxRow::Acked(digest),
        }
    }

    /// An entry with its times by the server's clock, as far as that is known.
    pub(super) fn corrected_entry(&self, entry: Entry) -> Entry {
        let correction = entry.stamped.map_or(0, |it| self.clocks.correction_of(it));
        entry.corrected(correction)
    }

    /// The entry of a write, if there is one: as it was stamped, if its correction is not settled
    /// yet, because no server has told its time since.
    pub(super) fn stamped(&self, write: WriteId) -> Result<Option<Entry>, StoreError> {
        let Some(row) = self.rows.get(&self.keys.entry(write))? else { return Ok(None) };
        let OutboxRow::Entry(entry) = OutboxRow::decode(row)? else { return Ok(None) };
        Ok(Some(self.settled(entry)))
    }

    /// An entry with its times by the server's clock, if that is settled.
    pub(super) fn settled(&self, entry: Entry) -> Entry {
        match entry.stamped {
            Some(stamped) if !self.is_unsettled(stamped.run) && self.clocks.settle(stamped) => {
                entry.corrected(self.clocks.correction_of(stamped))
            }
            Some(_) | None => entry,
        }
    }

    fn is_unsettled(&self, run: u64) -> bool {
        self.unsettled.as_ref().is_some_and(|runs| runs.contains(&run))
    }

    /// The entry of a write that has to have one.
    pub(super) fn entry(&self, write: WriteId) -> Result<Entry, StoreError> {
        match self.place(write)? {
            Some(OutboxRow::Entry(entry)) => Ok(entry),
            Some(OutboxRow::Acked(_)) | None => {
                Err(StoreError::damaged(alloc::format!("write {write} is missing in the store")))
            }
        }
    }

    /// Shows the rows of the outbox from a write on, as long as `visit` wants to go on.
    pub(super) fn places(
        &self,
        from: WriteId,
        visit: &mut dyn FnMut(WriteId, OutboxRow) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        self.stored_places(from, &mut |write, place| visit(write, self.corrected(place)))
    }

    /// The same, with the times as they were stamped.
    pub(super) fn stored_places(
        &self,
        from: WriteId,
        visit: &mut dyn FnMut(WriteId, OutboxRow) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        let (from, to) = self.keys.entries(from);
        self.rows
            .scan(&from, &to, &mut |key, value| visit(write_id_of(key)?, OutboxRow::decode(value)?))
    }

    pub(super) fn put_entry(&mut self, write: WriteId, entry: &Entry) {
        self.put(self.keys.entry(write), entry.encode());
    }

    /// Leaves only the digest of an entry.
    pub(super) fn ack_entry(&mut self, write: WriteId, digest: Digest) {
        self.put(self.keys.entry(write), OutboxRow::Acked(digest).encode());
    }

    pub(super) fn drop_place(&mut self, write: WriteId) {
        self.delete(self.keys.entry(write));
    }

    /// All records with a change that waits beside their base.
    pub(super) fn deferred(&self) -> Result<Vec<(Collection, RecordId)>, StoreError> {
        let mut records = Vec::new();
        let (from, to) = self.keys.all_deferred();
        self.rows.scan(&from, &to, &mut |key, _| {
            records.push(record_of(key)?);
            Ok(Scan::Next)
        })?;
        Ok(records)
    }

    /// The ids of the records that a key range of a collection holds.
    pub(super) fn ids(
        &self,
        collection: &Collection,
        after: Option<&RecordId>,
        up_to: Option<&RecordId>,
    ) -> Result<Vec<RecordId>, StoreError> {
        let mut ids = Vec::new();
        let (from, to) = self.keys.rows(collection, after, up_to);
        self.rows.scan(&from, &to, &mut |key, _| {
            ids.push(record_of(key)?.1);
            Ok(Scan::Next)
        })?;
        Ok(ids)
    }

    /// Shows the rows of a collection behind an id, as long as `visit` wants to go on.
    pub(super) fn rows_behind(
        &self,
        collection: &Collection,
        after: Option<&RecordId>,
        visit: &mut dyn FnMut(RecordId, Row) -> Scan,
    ) -> Result<(), StoreError> {
        let (from, to) = self.keys.rows(collection, after, None);
        self.rows
            .scan(&from, &to, &mut |key, value| Ok(visit(record_of(key)?.1, Row::decode(value)?)))
    }

    /// Shows all rows of a collection.
    pub(super) fn each_row(
        &self,
        collection: &Collection,
        visit: &mut dyn FnMut(&RecordId, Row),
    ) -> Result<(), StoreError> {
        self.each_row_up_to(collection, None, visit)
    }

    /// Shows the rows of a collection up to a record, that one included, or all of them.
    pub(super) fn each_row_up_to(
        &self,
        collection: &Collection,
        up_to: Option<&RecordId>,
        visit: &mut dyn FnMut(&RecordId, Row),
    ) -> Result<(), StoreError> {
        let (from, to) = self.keys.rows(collection, None, up_to);
        self.rows.scan(&from, &to, &mut |key, value| {
            visit(&record_of(key)?.1, Row::decode(value)?);
            Ok(Scan::Next)
        })
    }

    pub(super) fn put_rejected(&mut self, rejected: &Rejected) {
        self.put(self.keys.rejected(rejected.write), rejected.encode());
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(key)
    }
}

/// The parts of a row that the watchers show.
fn shown_parts(row: &Row) -> Option<(&Document, u64, Timestamp, bool)> {
    Some((row.view()?, row.version, row.seen_at(), row.pending.is_some()))
}

/// Returns a record as the watchers show it.
pub(crate) fn shown(id: &RecordId, row: &Row) -> Option<Record> {
    let (document, version, updated_at, pending) = shown_parts(row)?;
    Some(Record { id: id.clone(), document: document.clone(), version, updated_at, pending })
}
