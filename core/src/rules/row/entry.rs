//! The rows of the outbox and of rejected writes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::parts::{put_times, times};
use crate::protocol::codec::{Reader, put_bytes, put_i64, put_part, put_u64};
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::hash::Digest;
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{Collection, RecordId, WriteId};
use crate::protocol::time::Timestamp;
use crate::protocol::times::{FieldTimes, others, time_in};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::clocks::Stamped;
use crate::store::StoreError;

/// A pending write in the outbox.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) collection: Collection,
    pub(crate) record_id: RecordId,
    pub(crate) change: Change,
    /// The time of its latest field.
    pub(crate) written_at: Timestamp,
    /// The times of the fields that were written at another time, sorted by name.
    pub(crate) at: FieldTimes,
    /// The origin of these times, if they are not by the server's clock.
    pub(crate) stamped: Option<Stamped>,
    /// The transaction that it is a member of.
    pub(crate) unit: Option<Unit>,
    /// Of an expectation: the state of the record that was seen. It changes nothing.
    pub(crate) expects: Option<Seen>,
}

/// The tags of an entry's parts: the times of its fields, the origin of its time, its transaction, and
/// the state that it expects.
const TIMES: u8 = 1;
const STAMPED: u8 = 2;
const UNIT: u8 = 3;
const EXPECTS: u8 = 4;

/// A transaction, as each of its members in the outbox knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Unit {
    /// The place of its first member, which names it.
    pub(crate) first: WriteId,
    /// The place behind its last member.
    pub(crate) end: WriteId,
    /// `true` if the others go on where a conflict strategy gives a member up.
    pub(crate) keeps_won: bool,
}

impl Unit {
    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.first.0);
        put_u64(&mut out, self.end.0);
        out.push(u8::from(self.keeps_won));
        out
    }

    fn decode(mut part: Reader) -> Result<Self, StoreError> {
        let (first, end) = (WriteId(part.u64()?), WriteId(part.u64()?));
        let unit = Self { first, end, keeps_won: part.flag()? };
        part.end()?;
        Ok(unit)
    }
}

/// The state of a record that an app has seen: a hash of it, or that there was no record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Seen(Option<u64>);

impl Seen {
    pub(crate) fn of(state: Option<&Document>) -> Self {
        Self(state.map(|state| xxh3_64(state.as_row())))
    }

    /// Returns `true` if no record was seen.
    pub(crate) fn is_absence(self) -> bool {
        self.0.is_none()
    }

    fn encode(self) -> Vec<u8> {
        self.0.map_or_else(Vec::new, |hash| hash.to_le_bytes().into())
    }

    fn decode(mut part: Reader) -> Result<Self, StoreError> {
        if part.is_empty() {
            return Ok(Self(None));
        }
        let mut hash = [0; 8];
        for byte in &mut hash {
            *byte = part.byte()?;
        }
        part.end()?;
        Ok(Self(Some(u64::from_le_bytes(hash))))
    }
}

impl Entry {
    /// A write by itself, whose fields are all of one time.
    pub(crate) fn new(
        collection: Collection,
        record_id: RecordId,
        change: Change,
        written_at: Timestamp,
    ) -> Self {
        let (at, stamped, unit, expects) = (Vec::new(), None, None, None);
        Self { collection, record_id, change, written_at, at, stamped, unit, expects }
    }

    /// The expectation that a record is as it was seen.
    pub(crate) fn expectation(
        collection: Collection,
        record_id: RecordId,
        seen: Seen,
        at: Timestamp,
    ) -> Self {
        let nothing = Change::update(Delta::empty());
        Self { expects: Some(seen), ..Self::new(collection, record_id, nothing, at) }
    }

    pub(crate) fn digest(&self) -> Digest {
        if self.expects.is_some() {
            return Digest::of_expectation(&self.collection, &self.record_id);
        }
        let Self { collection, record_id, change, written_at, at, .. } = self;
        Digest::of(change.kind, collection, record_id, &change.delta, *written_at, at)
    }

    /// The update that is sent in place of an insert which may bring a record back (PROTOCOL 9.29).
    pub(crate) fn into_update(self) -> Self {
        Self { change: Change::update(self.change.delta), ..self }
    }

    /// Returns `true` if the write may have been sent as the one with this digest.
    pub(crate) fn may_be(&self, sent: Digest) -> bool {
        let asks = self.change.kind == WriteKind::Insert;
        self.digest() == sent || asks && self.clone().into_update().digest() == sent
    }

    /// The time at which a touched field was written.
    pub(crate) fn time_of(&self, field: &str) -> Timestamp {
        time_in(&self.at, field).unwrap_or(self.written_at)
    }

    /// A single write with the effect of this write followed by `later`, each field with its own
    /// time. `None` if there is none.
    pub(crate) fn then(&self, later: &Self) -> Option<Self> {
        // a merged write has the times of one clock only
        let stamped = match (self.stamped, later.stamped) {
            (None, None) => None,
            (Some(one), Some(two)) if one.run == two.run => {
                Some(Stamped { floor: one.floor.max(two.floor), ..two })
            }
            (Some(_) | None, Some(_) | None) => return None,
        };
        let change = self.change.then(&later.change)?;
        let written_at = later.written_at.max(self.written_at);
        let writer = |name: &str| if later.change.touches(name) { later } else { self };
        let fields = change.delta.fields().map(|(name, _)| (name, writer(name).time_of(name)));
        let at = others(fields, written_at);
        Some(Self { change, written_at, at, stamped, ..later.clone() })
    }

    /// The write with its times by the server's clock, which are later than those of its run by
    /// `correction`.
    pub(crate) fn corrected(mut self, correction: i64) -> Self {
        let Some(stamped) = self.stamped else { return self };
        let correct = |at| stamped.corrected(at, correction);
        let latest = correct(self.written_at);
        self.at.iter_mut().for_each(|(_, at)| *at = correct(*at));
        self.at.retain(|(_, at)| *at != latest);
        Self { written_at: latest, stamped: None, ..self }
    }

    /// The last parts of a row, each absent if it has its default value.
    fn put_parts(&self, out: &mut Vec<u8>) {
        if !self.at.is_empty() {
            let mut times = Vec::new();
            put_times(&mut times, &self.at);
            put_part(out, TIMES, &times);
        }
        if let Some(stamped) = self.stamped {
            put_part(out, STAMPED, &stamped.encode());
        }
        if let Some(unit) = self.unit {
            put_part(out, UNIT, &unit.encode());
        }
        if let Some(expects) = self.expects {
            put_part(out, EXPECTS, &expects.encode());
        }
    }

    fn take_parts(&mut self, row: &mut Reader) -> Result<(), StoreError> {
        if let Some(mut part) = row.part(TIMES)? {
            self.at = times(&mut part)?;
            part.end()?;
        }
        if let Some(part) = row.part(STAMPED)? {
            self.stamped = Some(Stamped::decode(part)?);
        }
        self.unit = row.part(UNIT)?.map(Unit::decode).transpose()?;
        self.expects = row.part(EXPECTS)?.map(Seen::decode).transpose()?;
        Ok(())
    }

    /// The row of the outbox that holds the write, as [`OutboxRow::encode`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.change.delta.set.size() + 96);
        out.push(0);
        self.put(&mut out);
        self.put_parts(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.collection.as_bytes());
        put_bytes(out, self.record_id.as_bytes());
        out.push(self.change.kind as u8);
        put_bytes(out, self.change.delta.set.as_row());
        put_u64(out, self.change.delta.unset.len() as u64);
        for name in &self.change.delta.unset {
            put_bytes(out, name.as_bytes());
        }
        put_i64(out, self.written_at.0);
    }

    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let collection = row.str(|text| Collection::new(text).ok())?;
        let record_id = row.str(|text| RecordId::new(text).ok())?;
        let kind = WriteKind::from_byte(row.byte()?)
            .ok_or_else(|| StoreError::damaged("a stored write is of no kind"))?;
        let set = Document::from_row(row.bytes()?)?;
        let count = row.u64()?;
        let mut unset = Vec::new();
        for _ in 0..count {
            unset.push(row.str(|text| Some(text.into()))?);
        }
        let written_at = Timestamp(row.i64()?);
        let change = Change { kind, delta: Delta { set, unset } };
        Ok(Self::new(collection, record_id, change, written_at))
    }
}

/// A row of the outbox.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum OutboxRow {
    /// A write without a verdict.
    Entry(Entry),
    /// A write that was acknowledged before an earlier one. Its row keeps its number, and the
    /// digest of the applied write.
    Acked(Digest),
}

/// The record that a write is of, and its transaction, with `true` if it is an expectation there.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) collection: Collection,
    pub(crate) record_id: RecordId,
    pub(crate) unit: Option<(Unit, bool)>,
}

impl OutboxRow {
    /// The owner of a row's write, if it has no verdict. Reads nothing else of it.
    pub(crate) fn owner_of(row: Bytes) -> Result<Option<Owner>, StoreError> {
        let mut row = Reader::new(row);
        if row.flag()? {
            return Ok(None);
        }
        let collection = row.str(|text| Collection::new(text).ok())?;
        let record_id = row.str(|text| RecordId::new(text).ok())?;
        row.byte()?;
        row.bytes()?;
        for _ in 0..row.u64()? {
            row.bytes()?;
        }
        row.i64()?;
        row.part(TIMES)?;
        row.part(STAMPED)?;
        let unit = row.part(UNIT)?.map(Unit::decode).transpose()?;
        let expects = row.part(EXPECTS)?.is_some();
        Ok(Some(Owner { collection, record_id, unit: unit.map(|unit| (unit, expects)) }))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Entry(entry) => return entry.encode(),
            Self::Acked(digest) => {
                out.push(1);
                put_u64(&mut out, digest.0);
            }
        }
        out
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let place = if row.flag()? {
            Self::Acked(Digest(row.u64()?))
        } else {
            let mut entry = Entry::take(&mut row)?;
            entry.take_parts(&mut row)?;
            Self::Entry(entry)
        };
        row.end()?;
        Ok(place)
    }
}

/// A rejected write.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rejected {
    /// The write's id, as returned by the call that made the write.
    pub write: WriteId,
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The change of the record.
    pub change: Change,
    /// The time at which the app made the write; for a merged write, the time of its last part.
    pub written_at: Timestamp,
    /// The times of the fields that were written at another time, sorted by name.
    pub at: FieldTimes,
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
    /// The transaction that it is a member of: they are rejected, made again and discarded together.
    pub transaction: Option<WriteId>,
    pub(crate) unit: Option<Unit>,
    /// Of an expectation: what was seen. Its `change` is an update of nothing.
    pub(crate) expects: Option<Seen>,
}

impl Rejected {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let entry = self.entry();
        let mut out = Vec::new();
        entry.put(&mut out);
        put_bytes(&mut out, self.code.as_str().as_bytes());
        put_bytes(&mut out, self.message.as_bytes());
        entry.put_parts(&mut out);
        out
    }

    pub(crate) fn decode(write: WriteId, row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let mut entry = Entry::take(&mut row)?;
        let code = row.str(|text| Some(ErrorCode::parse(text)))?;
        let message = row.str(|text| Some(text.to_string()))?;
        entry.take_parts(&mut row)?;
        row.end()?;
        Ok(Self::of(write, entry, code, message))
    }

    /// The rejection of an entry.
    pub(crate) fn of(write: WriteId, entry: Entry, code: ErrorCode, message: String) -> Self {
        let entry = entry.corrected(0);
        let Entry { collection, record_id, change, written_at, at, unit, expects, .. } = entry;
        let transaction = unit.map(|unit| unit.first);
        Self {
            write,
            collection,
            record_id,
            change,
            written_at,
            at,
            code,
            message,
            transaction,
            unit,
            expects,
        }
    }

    /// The rejected entry.
    pub(crate) fn entry(&self) -> Entry {
        let Self { collection, record_id, change, written_at, at, unit, expects, .. } =
            self.clone();
        Entry { at, unit, expects, ..Entry::new(collection, record_id, change, written_at) }
    }
}
