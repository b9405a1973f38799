//! The outbox: the writes that wait for the server, in order. They lie in the store; in memory are its
//! ends, what of it is on its way or goes out next, and which writes each record has.

mod check;
mod in_flight;
mod members;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::ahead::Ahead;
use super::edit::Edit;
use super::pending::PendingWrites;
use super::units::Units;
use crate::protocol::hash::Digest;
use crate::protocol::name::{Collection, CommitNumber, RecordId, WriteId};
use crate::rules::row::{Entry, OutboxRow};
use crate::store::{Scan, StoreError};

/// A write that was sent on this connection and has no verdict yet, or one only behind it has.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    write: WriteId,
    digest: Digest,
    bytes: usize,
    /// `true` if it is acknowledged and only keeps its place.
    acked: bool,
    /// Its entry, as the store has it.
    entry: Sent,
}

/// The entry of a write in flight. It says nothing that the store does not say.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent(Option<Entry>);

impl Hash for Sent {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The visitor of a scan over places of the outbox.
pub(super) type Visit<'a> = dyn FnMut(WriteId, OutboxRow) -> Result<Scan, StoreError> + 'a;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Outbox {
    /// The number of places, acknowledged ones included.
    len: usize,
    /// No place lies in front of this id. A store steps over the remains of what was removed
    /// one by one, so no scan should begin before it.
    head: WriteId,
    /// The id of the next write.
    next: WriteId,
    /// The last entry, while it may be joined by another write to its record.
    tail: Option<(WriteId, Collection, RecordId)>,
    /// Every entry in front of this id may have been sent.
    frozen_until: WriteId,
    /// The first places, in order: what was sent on this connection.
    in_flight: VecDeque<InFlight>,
    /// Where the search for the next write to send begins.
    unsent: WriteId,
    /// The entries from there on, as far as they are in memory.
    ahead: Ahead,
    pending: PendingWrites,
    units: Units,
    /// Commits that are not durable yet, each with the end of the outbox that it made.
    marks: VecDeque<(CommitNumber, WriteId)>,
    /// Every entry in front of this id is durable as it is.
    durable_until: WriteId,
}

impl Outbox {
    /// The outbox as it was found in a store: everything in it may have been sent.
    pub(super) fn found(len: usize, next: WriteId, pending: PendingWrites, units: Units) -> Self {
        let (frozen_until, durable_until) = (next, next);
        Self { len, next, pending, units, frozen_until, durable_until, ..Self::default() }
    }

    /// The number of places, those included that are acknowledged and keep their place.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of writes that wait for the server's word: neither those that it has acknowledged nor
    /// expectations are any.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len().saturating_sub(self.units.expectations())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id that nothing lies in front of.
    pub(super) fn head(&self) -> WriteId {
        self.head
    }

    /// The id of the next write.
    pub(super) fn end(&self) -> WriteId {
        self.next
    }

    /// The id in front of which every entry may have been sent.
    pub(super) fn frozen_until(&self) -> WriteId {
        self.frozen_until
    }

    pub(super) fn is_frozen(&self, write: WriteId) -> bool {
        write < self.frozen_until
    }

    pub(super) fn is_durable(&self, write: WriteId) -> bool {
        write < self.durable_until
    }

    /// Where the search for the next write to send begins.
    pub(super) fn unsent(&self) -> WriteId {
        self.unsent
    }

    // --- the writes of a record ---

    /// The entries that a record has, in their order.
    pub(super) fn entries_of(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Vec<(WriteId, Entry)>, StoreError> {
        let mut entries = Vec::new();
        for write in self.pending.of(collection, id) {
            let entry = self.entry(edit, write)?;
            if is_of(&entry, collection, id) {
                entries.push((write, entry));
            }
        }
        Ok(entries)
    }

    /// The id of a record's first write.
    pub(super) fn first_of(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<WriteId>, StoreError> {
        self.find(edit, self.pending.of(collection, id), &|it| is_of(it, collection, id))
    }

    /// The id of a record's last write that changes something.
    pub(super) fn last_of(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<WriteId>, StoreError> {
        let changes = |it: &Entry| is_of(it, collection, id) && it.expects.is_none();
        self.find(edit, self.pending.of(collection, id).rev(), &changes)
    }

    /// The first of some writes that is sought.
    fn find(
        &self,
        edit: &Edit<'_>,
        writes: impl Iterator<Item = WriteId>,
        is_sought: &dyn Fn(&Entry) -> bool,
    ) -> Result<Option<WriteId>, StoreError> {
        for write in writes {
            let found = match self.kept(write) {
                Some(entry) => is_sought(entry),
                None => is_sought(&edit.entry(write)?),
            };
            if found {
                return Ok(Some(write));
            }
        }
        Ok(None)
    }

    /// Returns `true` if a collection has entries.
    pub(super) fn has_entries(&self, collection: &Collection) -> bool {
        self.pending.has(collection)
    }

    /// The collections that have entries.
    pub(super) fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.pending.collections()
    }

    /// The entry of a write that has to have one.
    pub(super) fn entry(&self, edit: &Edit<'_>, write: WriteId) -> Result<Entry, StoreError> {
        match self.kept(write) {
            Some(entry) => Ok(edit.corrected_entry(entry.clone())),
            None => edit.entry(write),
        }
    }

    /// The entry of a write, if there is one: as it was stamped, if its correction is not settled.
    pub(super) fn stamped(
        &self,
        edit: &Edit<'_>,
        write: WriteId,
    ) -> Result<Option<Entry>, StoreError> {
        match self.kept(write) {
            Some(entry) => Ok(Some(edit.settled(entry.clone()))),
            None => edit.stamped(write),
        }
    }

    /// An entry as the store has it, if it is in memory.
    fn kept(&self, write: WriteId) -> Option<&Entry> {
        match self.in_flight.binary_search_by_key(&write, |sent| sent.write) {
            Ok(index) => self.in_flight.get(index)?.entry.0.as_ref(),
            Err(_) => self.ahead.get(write),
        }
    }

    // --- what waits ---

    /// Shows the places from the first one on, as long as `visit` wants to go on.
    pub(super) fn each(&self, edit: &Edit<'_>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        edit.places(self.head, visit)
    }

    /// Shows the places of what may have been sent.
    pub(super) fn each_frozen(
        &self,
        edit: &Edit<'_>,
        visit: &mut dyn FnMut(WriteId, OutboxRow),
    ) -> Result<(), StoreError> {
        self.each(edit, &mut |write, place| {
            if !self.is_frozen(write) {
                return Ok(Scan::Stop);
            }
            visit(write, place);
            Ok(Scan::Next)
        })
    }

    /// Shows the entries that were not sent, as long as `visit` wants to go on.
    pub(super) fn each_unsent(
        &self,
        edit: &Edit<'_>,
        visit: &mut dyn FnMut(WriteId, Entry) -> Scan,
    ) -> Result<(), StoreError> {
        for (write, entry) in self.ahead.iter() {
            if visit(*write, edit.corrected_entry(entry.clone())) == Scan::Stop {
                return Ok(());
            }
        }
        if self.ahead.until() >= self.next {
            return Ok(());
        }
        edit.places(self.ahead.until(), &mut |write, place| match place {
            OutboxRow::Entry(entry) => Ok(visit(write, entry)),
            OutboxRow::Acked(_) => Ok(Scan::Next),
        })
    }

    /// Reads the entries that are sent next, if none of them is in memory.
    pub(super) fn read_ahead(&mut self, edit: &Edit<'_>) -> Result<(), StoreError> {
        if !self.ahead.is_empty() || self.ahead.until() >= self.next {
            return Ok(());
        }
        let (ahead, mut is_all) = (&mut self.ahead, true);
        edit.stored_places(ahead.until(), &mut |write, place| {
            if ahead.is_full() {
                is_all = false;
                return Ok(Scan::Stop);
            }
            ahead.reach(write);
            match place {
                OutboxRow::Entry(entry) => ahead.push(write, &entry),
                OutboxRow::Acked(_) => ahead.reach(write.next()),
            }
            Ok(Scan::Next)
        })?;
        if is_all {
            ahead.reach(self.next);
        }
        Ok(())
    }

    /// The first entry that was not sent.
    pub(super) fn first_unsent(&self, edit: &Edit<'_>) -> Result<Option<WriteId>, StoreError> {
        let mut first = None;
        self.each_unsent(edit, &mut |write, _| {
            first = Some(write);
            Scan::Stop
        })?;
        Ok(first)
    }

    /// The same, as it goes out.
    pub(super) fn first_unsent_entry(&self, edit: &Edit<'_>) -> Result<Option<Entry>, StoreError> {
        let mut first = None;
        self.each_unsent(edit, &mut |_, entry| {
            first = Some(entry);
            Scan::Stop
        })?;
        Ok(first)
    }

    /// The first entry.
    pub(super) fn first_entry(
        &self,
        edit: &Edit<'_>,
    ) -> Result<Option<(WriteId, Entry)>, StoreError> {
        let mut first = None;
        self.each(edit, &mut |write, place| {
            let OutboxRow::Entry(entry) = place else { return Ok(Scan::Next) };
            first = Some((write, entry));
            Ok(Scan::Stop)
        })?;
        Ok(first)
    }

    /// The id of the first place; the outbox's end where nothing is in it.
    pub(super) fn first_place(&self, edit: &Edit<'_>) -> Result<WriteId, StoreError> {
        match self.in_flight.front() {
            Some(sent) => Ok(sent.write),
            None => self.first_stored(edit),
        }
    }

    fn first_stored(&self, edit: &Edit<'_>) -> Result<WriteId, StoreError> {
        let mut first = self.next;
        self.each(edit, &mut |write, _| {
            first = write;
            Ok(Scan::Stop)
        })?;
        Ok(first)
    }

    /// The records that have writes which may have been sent, in order.
    pub(super) fn frozen_records(
        &self,
        edit: &Edit<'_>,
    ) -> Result<Vec<(Collection, RecordId)>, StoreError> {
        let mut records = Vec::new();
        self.each_frozen(edit, &mut |_, place| {
            if let OutboxRow::Entry(Entry { collection, record_id, .. }) = place {
                records.push((collection, record_id));
            }
        })?;
        records.sort_unstable();
        records.dedup();
        Ok(records)
    }

    // --- what comes in and goes out ---

    /// Lets a write join the last entry where that is of the same record and was not sent. Gives the
    /// entry's id.
    pub(super) fn join(
        &mut self,
        edit: &mut Edit<'_>,
        entry: &Entry,
    ) -> Result<Option<WriteId>, StoreError> {
        let Some(write) = self.joinable(&entry.collection, &entry.record_id) else {
            return Ok(None);
        };
        let Some(joined) = self.stamped(edit, write)?.and_then(|last| last.then(entry)) else {
            return Ok(None);
        };
        edit.put_entry(write, &joined);
        self.ahead.set(write, &joined);
        edit.written = Some(write);
        Ok(Some(write))
    }

    fn joinable(&self, collection: &Collection, id: &RecordId) -> Option<WriteId> {
        let (write, of, record) = self.tail.as_ref()?;
        let free = !self.is_frozen(*write);
        (of == collection && record == id && free).then_some(*write)
    }

    /// Lets no write join the last entry.
    pub(super) fn seal(&mut self) {
        self.tail = None;
    }

    /// Appends an entry.
    pub(super) fn append(&mut self, edit: &mut Edit<'_>, entry: Entry) -> WriteId {
        let write = self.next;
        edit.put_entry(write, &entry);
        edit.written = Some(write);
        self.wait(write, &entry);
        self.ahead.push(write, &entry);
        self.len += 1;
        self.next = write.next();
        // nothing joins what is one with others
        let alone = entry.unit.is_none();
        self.tail = alone.then_some((write, entry.collection, entry.record_id));
        write
    }

    /// A write is one of its record's, and a member of its transaction.
    fn wait(&mut self, write: WriteId, entry: &Entry) {
        self.pending.add(&entry.collection, &entry.record_id, write);
        if let Some(unit) = entry.unit {
            self.units.add(unit, entry.expects.is_some());
        }
    }

    /// Puts an entry into the place from which another one was removed, or behind all others where
    /// there is none. Gives its id.
    pub(super) fn replace(
        &mut self,
        edit: &mut Edit<'_>,
        place: Option<WriteId>,
        entry: Entry,
    ) -> WriteId {
        let Some(write) = place else { return self.append(edit, entry) };
        edit.put_entry(write, &entry);
        self.wait(write, &entry);
        if write >= self.unsent {
            self.ahead.set(write, &entry);
        }
        self.len += 1;
        write
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, edit: &mut Edit<'_>, write: WriteId, entry: &Entry) {
        edit.drop_place(write);
        self.settle(write, entry);
        self.forget(write);
    }

    /// A write is no longer one of its record's.
    fn settle(&mut self, write: WriteId, entry: &Entry) {
        self.pending.remove(&entry.collection, &entry.record_id, write);
        self.units.settle(entry);
        self.ahead.remove(write);
    }

    /// Removes the first place, whose write is confirmed.
    pub(super) fn confirm(&mut self, edit: &mut Edit<'_>, write: WriteId, place: &OutboxRow) {
        edit.drop_place(write);
        if let OutboxRow::Entry(entry) = place {
            self.settle(write, entry);
        }
        self.pass(write);
    }

    /// Removes the places that writes keep which are acknowledged.
    pub(super) fn drop_acked(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut acked = Vec::new();
        self.each(edit, &mut |write, place| {
            match place {
                OutboxRow::Acked(_) => acked.push(write),
                OutboxRow::Entry(Entry { .. }) => {}
            }
            Ok(if self.is_frozen(write) { Scan::Next } else { Scan::Stop })
        })?;
        for write in acked {
            edit.drop_place(write);
            self.forget(write);
        }
        Ok(())
    }

    fn pass(&mut self, write: WriteId) {
        self.head = self.head.max(write.next());
        self.forget(write);
    }

    fn forget(&mut self, write: WriteId) {
        self.len = self.len.saturating_sub(1);
        if self.tail.as_ref().is_some_and(|(tail, ..)| *tail == write) {
            self.tail = None;
        }
    }

    /// Lets the outbox begin at its first place.
    pub(super) fn advance_head(&mut self, edit: &Edit<'_>) -> Result<(), StoreError> {
        self.head = self.head.max(self.first_stored(edit)?);
        self.begin_unsent(self.unsent.max(self.head));
        Ok(())
    }

    // --- what is durable ---

    /// The entry of `write`, the last one, is as commit `number` makes it.
    pub(super) fn written(&mut self, number: CommitNumber, write: WriteId) {
        self.durable_until = self.durable_until.min(write);
        while self.marks.back().is_some_and(|(of, end)| *of == number || *end > write) {
            self.marks.pop_back();
        }
        self.marks.push_back((number, write.next()));
    }

    pub(super) fn durable(&mut self, up_to: CommitNumber) {
        while let Some((number, end)) = self.marks.front()
            && *number <= up_to
        {
            self.durable_until = *end;
            self.marks.pop_front();
        }
    }
}

fn is_of(entry: &Entry, collection: &Collection, id: &RecordId) -> bool {
    entry.collection == *collection && entry.record_id == *id
}
