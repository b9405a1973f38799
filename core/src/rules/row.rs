//! A replica's rows and their encoding.
//!
//! | key | value |
//! | --- | --- |
//! | `0x00` user | `Slot`: the user's slot |
//! | `0x01` slot `i` | `Identity` |
//! | `0x01` slot `c` collection | `StreamRow` |
//! | `0x01` slot `d` collection `0x00` record | `Row` |
//! | `0x01` slot `k` collection `0x00` record | empty: the record has a parked change |
//! | `0x01` slot `o` position | `Place`: the outbox |
//! | `0x01` slot `p` collection `0x00` record `0x00` position | empty: which entries a record has |
//! | `0x01` slot `r` position | `Rejected` |
//!
//! Names hold no control characters, so `0x00` ends one. Slots and positions are big endian.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::clocks::{Clocks, Stamped};
use super::forgotten::Forgotten;
use crate::words::codec::{Reader, put_bytes, put_i64, put_option, put_part, put_u64};
use crate::words::delta::Delta;
use crate::words::document::Document;
use crate::words::hash::{Checksum, Digest};
use crate::words::message::{Cursor, ErrorCode, Resume};
use crate::words::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, Position, RecordId, Seq, SessionNumber,
};
use crate::words::store::StoreError;
use crate::words::time::Timestamp;
use crate::words::times::{FieldTimes, others, time_in};
use crate::words::write::{Change, WriteKind};

/// The key prefix of a user's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) number: u32,
    /// `true` while everything in the slot is being removed.
    pub(crate) leaving: bool,
}

impl Slot {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut row = self.number.to_be_bytes().to_vec();
        // rows of those who stay are as they always were
        if self.leaving {
            row.push(1);
        }
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("a stored slot makes no sense");
        let (number, rest) = row.split_first_chunk().ok_or_else(damaged)?;
        let leaving = match rest {
            [] => false,
            [1] => true,
            [..] => return Err(damaged()),
        };
        Ok(Self { number: u32::from_be_bytes(*number), leaving })
    }
}

/// The keys of one user's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keys {
    slot: u32,
}

impl Keys {
    pub(crate) fn new(slot: u32) -> Self {
        Self { slot }
    }

    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    /// The key of the row that names a user's slot.
    pub(crate) fn user(name: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(name.len() + 1);
        key.push(0);
        key.extend_from_slice(name.as_bytes());
        key
    }

    /// The range of all [`Keys::user`] rows.
    pub(crate) fn users() -> (Vec<u8>, Vec<u8>) {
        (Vec::from([0]), Vec::from([1]))
    }

    /// The range of all rows of the user but the first one.
    pub(crate) fn everything(self) -> (Vec<u8>, Vec<u8>) {
        let mut to = self.tagged(u8::MAX, 0);
        to.push(u8::MAX);
        let mut from = self.tagged(0, 0);
        from.pop();
        (from, to)
    }

    pub(crate) fn identity(self) -> Vec<u8> {
        self.tagged(b'i', 0)
    }

    pub(crate) fn stream(self, collection: &Collection) -> Vec<u8> {
        let mut key = self.tagged(b'c', collection.len());
        key.extend_from_slice(collection.as_bytes());
        key
    }

    /// The range of all [`Keys::stream`] rows.
    pub(crate) fn streams(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'c')
    }

    pub(crate) fn row(self, collection: &Collection, id: &str) -> Vec<u8> {
        self.record(b'd', collection, id)
    }

    /// The range of a collection's rows behind `after` and up to `up_to`, open where `None`.
    pub(crate) fn rows(
        self,
        collection: &Collection,
        after: Option<&RecordId>,
        up_to: Option<&RecordId>,
    ) -> (Vec<u8>, Vec<u8>) {
        let from = after.map_or_else(|| self.row(collection, ""), |id| self.behind(collection, id));
        let to = up_to.map_or_else(|| self.end_of(collection), |id| self.behind(collection, id));
        (from, to)
    }

    /// The range of all [`Keys::row`] rows of the collections behind this one, or of all.
    pub(crate) fn records_behind(self, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        self.behind_collection(b'd', collection)
    }

    /// The range of a collection's [`Keys::pending`] rows.
    pub(crate) fn pending_in(self, collection: &Collection) -> (Vec<u8>, Vec<u8>) {
        (self.record(b'p', collection, ""), self.end_of_tagged(b'p', collection))
    }

    /// The range of all [`Keys::pending`] rows of the collections behind this one, or of all.
    pub(crate) fn pending_behind(self, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        self.behind_collection(b'p', collection)
    }

    pub(crate) fn entry(self, position: Position) -> Vec<u8> {
        let mut key = self.tagged(b'o', 8);
        key.extend_from_slice(&position.0.to_be_bytes());
        key
    }

    /// The common prefix of the keys of all [`Keys::entry`] rows.
    pub(crate) fn outbox(self) -> Vec<u8> {
        self.tagged(b'o', 0)
    }

    /// The range of the outbox from a position on.
    pub(crate) fn entries(self, from: Position) -> (Vec<u8>, Vec<u8>) {
        (self.entry(from), self.all(b'o').1)
    }

    pub(crate) fn pending(self, collection: &Collection, id: &str, position: Position) -> Vec<u8> {
        let mut key = self.record(b'p', collection, id);
        key.push(0);
        key.extend_from_slice(&position.0.to_be_bytes());
        key
    }

    /// The range of one record's [`Keys::pending`] rows.
    pub(crate) fn pending_of(self, collection: &Collection, id: &str) -> (Vec<u8>, Vec<u8>) {
        let mut from = self.record(b'p', collection, id);
        let mut to = from.clone();
        from.push(0);
        to.push(1);
        (from, to)
    }

    pub(crate) fn parked(self, collection: &Collection, id: &str) -> Vec<u8> {
        self.record(b'k', collection, id)
    }

    /// The range of all [`Keys::parked`] rows.
    pub(crate) fn all_parked(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'k')
    }

    pub(crate) fn rejected(self, position: Position) -> Vec<u8> {
        let mut key = self.tagged(b'r', 8);
        key.extend_from_slice(&position.0.to_be_bytes());
        key
    }

    /// The range of all [`Keys::rejected`] rows.
    pub(crate) fn all_rejected(self) -> (Vec<u8>, Vec<u8>) {
        self.all(b'r')
    }

    fn tagged(self, tag: u8, room: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(6 + room);
        key.push(1);
        key.extend_from_slice(&self.slot.to_be_bytes());
        key.push(tag);
        key
    }

    fn all(self, tag: u8) -> (Vec<u8>, Vec<u8>) {
        (self.tagged(tag, 0), self.tagged(tag + 1, 0))
    }

    fn record(self, tag: u8, collection: &Collection, id: &str) -> Vec<u8> {
        let mut key = self.tagged(tag, collection.len() + id.len() + 10);
        key.extend_from_slice(collection.as_bytes());
        key.push(0);
        key.extend_from_slice(id.as_bytes());
        key
    }

    fn behind(self, collection: &Collection, id: &RecordId) -> Vec<u8> {
        let mut key = self.row(collection, id);
        key.push(0);
        key
    }

    fn end_of(self, collection: &Collection) -> Vec<u8> {
        self.end_of_tagged(b'd', collection)
    }

    fn end_of_tagged(self, tag: u8, collection: &Collection) -> Vec<u8> {
        let mut key = self.tagged(tag, collection.len() + 1);
        key.extend_from_slice(collection.as_bytes());
        key.push(1);
        key
    }

    fn behind_collection(self, tag: u8, collection: Option<&Collection>) -> (Vec<u8>, Vec<u8>) {
        let (from, to) = self.all(tag);
        (collection.map_or(from, |collection| self.end_of_tagged(tag, collection)), to)
    }
}

/// The collection and record in a `d` or `k` key.
pub(crate) fn record_of(key: &[u8]) -> Result<(Collection, RecordId), StoreError> {
    let damaged = || StoreError::damaged("a stored key names no record");
    let names = core::str::from_utf8(key.get(6..).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let (collection, id) = names.split_once('\0').ok_or_else(damaged)?;
    let collection = Collection::new(collection).map_err(|_| damaged())?;
    Ok((collection, RecordId::new(id).map_err(|_| damaged())?))
}

/// The collection of the record in a `d`, `k` or `p` key.
pub(crate) fn collection_in(key: &[u8]) -> Result<Collection, StoreError> {
    let name = key.get(6..).and_then(|names| names.split(|byte| *byte == 0).next());
    name.and_then(|name| core::str::from_utf8(name).ok())
        .and_then(|name| Collection::new(name).ok())
        .ok_or_else(|| StoreError::damaged("a stored key names no collection"))
}

/// The collection in a `c` key.
pub(crate) fn collection_of(key: &[u8]) -> Result<Collection, StoreError> {
    key.get(6..)
        .and_then(|name| core::str::from_utf8(name).ok())
        .and_then(|name| Collection::new(name).ok())
        .ok_or_else(|| StoreError::damaged("a stored key names no collection"))
}

/// The position at the end of an `o`, `p` or `r` key.
pub(crate) fn position_of(key: &[u8]) -> Result<Position, StoreError> {
    let bytes = key.last_chunk().ok_or_else(|| StoreError::damaged("a stored key is cut short"))?;
    Ok(Position(u64::from_be_bytes(*bytes)))
}

/// The replica's identity at the server, and the position up to which its writes are confirmed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: ClientId,
    /// The largest session that was ever offered.
    pub(crate) session: SessionNumber,
    /// The number up to which every write is confirmed.
    pub(crate) confirmed: MutationNumber,
    /// The digest of the write with that number, as sent.
    pub(crate) digest: Option<Digest>,
    /// The first position that no entry has had yet.
    pub(crate) next_position: Position,
    /// Hashes of the addresses that ever offered level 2.
    pub(crate) resumable: Vec<u64>,
    /// The identity of the database to which the rows and writes belong; `None` before a server has
    /// told one.
    pub(crate) database: Option<DatabaseId>,
    /// The identity of another database that the server has now, while the app has not decided
    /// about it (PROTOCOL 11.1).
    pub(crate) other_database: Option<DatabaseId>,
    /// The known facts about the device's clock.
    pub(crate) clocks: Clocks,
    /// The writes that the server may have applied and forgotten.
    pub(crate) forgotten: Forgotten,
}

/// The tags of an identity's parts: its databases, its clocks, and its forgotten writes.
const DATABASES: u8 = 1;
const CLOCKS: u8 = 2;
const FORGOTTEN: u8 = 3;

impl Identity {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        put_bytes(&mut out, self.client_id.as_bytes());
        put_u64(&mut out, self.session.0);
        put_u64(&mut out, self.confirmed.0);
        out.push(u8::from(self.digest.is_some()));
        if let Some(digest) = self.digest {
            put_u64(&mut out, digest.0);
        }
        put_u64(&mut out, self.next_position.0);
        let databases = self.databases();
        // rows of before there were plain servers end here
        let clocks = (!self.clocks.is_default()).then(|| self.clocks.encode());
        let forgotten = (!self.forgotten.is_default()).then(|| self.forgotten.encode());
        let has_parts = [&databases, &clocks, &forgotten].iter().any(|part| part.is_some());
        if !self.resumable.is_empty() || has_parts {
            put_u64(&mut out, self.resumable.len() as u64);
            self.resumable.iter().for_each(|address| put_u64(&mut out, *address));
        }
        // rows of before databases had identities end here
        if let Some(databases) = databases {
            put_part(&mut out, DATABASES, &databases);
        }
        if let Some(clocks) = clocks {
            put_part(&mut out, CLOCKS, &clocks);
        }
        if let Some(forgotten) = forgotten {
            put_part(&mut out, FORGOTTEN, &forgotten);
        }
        out
    }

    fn databases(&self) -> Option<Vec<u8>> {
        let databases = [&self.database, &self.other_database];
        databases.iter().any(|database| database.is_some()).then(|| {
            let mut out = Vec::new();
            for database in databases {
                put_option(&mut out, database.as_ref().map(|database| database.as_bytes()));
            }
            out
        })
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let mut identity = Self {
            client_id: row.str(|text| ClientId::new(text).ok())?,
            session: SessionNumber(row.u64()?),
            confirmed: MutationNumber(row.u64()?),
            digest: if row.flag()? { Some(Digest(row.u64()?)) } else { None },
            next_position: Position(row.u64()?),
            resumable: if row.is_empty() { Vec::new() } else { addresses(&mut row)? },
            database: None,
            other_database: None,
            clocks: Clocks::default(),
            forgotten: Forgotten::default(),
        };
        if let Some(mut part) = row.part(DATABASES)? {
            identity.database = database(&mut part)?;
            identity.other_database = database(&mut part)?;
            part.end()?;
        }
        if let Some(part) = row.part(CLOCKS)? {
            identity.clocks = Clocks::decode(part)?;
        }
        if let Some(part) = row.part(FORGOTTEN)? {
            identity.forgotten = Forgotten::decode(part)?;
        }
        row.end()?;
        Ok(identity)
    }
}

/// The state of a collection: the position in its stream, and figures of the stored records.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct StreamRow {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) resume: Option<Resume>,
    /// `true` if the cursor is behind the stored records, so that it is invalid in another epoch
    /// (PROTOCOL 9.26).
    pub(crate) behind: bool,
    /// The generation of the stream. It rises with every snapshot: seqs that were learnt in an
    /// earlier generation tell nothing about the server's present seqs.
    pub(crate) generation: u64,
    /// The number of records at the server, as far as it told.
    pub(crate) count: u64,
    /// The checksum of these records.
    pub(crate) checksum: Checksum,
    /// The position in a plain server's collection.
    pub(crate) plain: Option<PlainMark>,
    /// The records that the server may have lost.
    pub(crate) loss: Option<Loss>,
    /// The cursor's seq when the server had forgotten writes that may have been sent: none of them
    /// was applied at or below this seq (PROTOCOL 9.29).
    pub(crate) forgotten_above: Seq,
}

/// The stored records of a collection that the server has not shown since it lost changes (PROTOCOL
/// 11.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Loss {
    /// The limit of the lost records: those of an earlier generation than this one. They are not
    /// included in the collection's count and checksum, and nothing is known of them at the server.
    pub(crate) since: u64,
    /// The number of lost records; known after the server has shown everything that it has.
    pub(crate) missing: Option<u64>,
    /// The decision about them, by the app or its configuration; `None` if there is none yet.
    pub(crate) decision: Option<LossDecision>,
}

/// A decision about records that the server lacks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum LossDecision {
    /// Remove them.
    Adopt,
    /// Send them as inserts.
    Offer,
}

/// The tags of a stream's parts: its loss, and the seq above which writes were forgotten.
const LOSS: u8 = 1;
const FORGOTTEN_ABOVE: u8 = 2;

impl Loss {
    /// The generation that stands for records which a plain server lacks: those that the next
    /// reconcile does not find.
    pub(crate) const PLAIN: u64 = 0;

    /// Returns `true` if a plain server lacks the records.
    pub(crate) fn is_plain(&self) -> bool {
        self.since == Self::PLAIN
    }

    /// Returns `true` if the app must decide.
    pub(crate) fn asks(&self) -> bool {
        self.missing.is_some() && self.decision.is_none()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.since);
        out.push(u8::from(self.missing.is_some()));
        if let Some(missing) = self.missing {
            put_u64(&mut out, missing);
        }
        out.push(match self.decision {
            None => 0,
            Some(LossDecision::Adopt) => 1,
            Some(LossDecision::Offer) => 2,
        });
        out
    }

    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let since = row.u64()?;
        let missing = if row.flag()? { Some(row.u64()?) } else { None };
        let decision = match row.byte()? {
            0 => None,
            1 => Some(LossDecision::Adopt),
            2 => Some(LossDecision::Offer),
            _ => return Err(StoreError::damaged("a stored decision is none")),
        };
        Ok(Self { since, missing, decision })
    }
}

/// The position in a collection that is read from a plain server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PlainMark {
    /// A hash of the server's address.
    pub(crate) address: u64,
    /// The time before which every change that the server stamped is known.
    pub(crate) watermark: Option<Timestamp>,
    /// The wall-clock time of the last reconcile.
    pub(crate) reconciled_at: Option<Timestamp>,
}

impl StreamRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.push(tag(self.cursor.is_some(), self.behind));
        if let Some(Cursor { epoch, seq }) = &self.cursor {
            put_bytes(&mut out, epoch.as_bytes());
            put_u64(&mut out, seq.0);
        }
        match &self.resume {
            None => out.push(0),
            Some(Resume::Delta { epoch, seq }) => {
                out.push(1);
                put_bytes(&mut out, epoch.as_bytes());
                put_u64(&mut out, seq.0);
            }
            Some(Resume::Snapshot { epoch, snapshot_seq, after }) => {
                out.push(2);
                put_bytes(&mut out, epoch.as_bytes());
                put_u64(&mut out, snapshot_seq.0);
                put_bytes(&mut out, after.as_bytes());
            }
        }
        put_u64(&mut out, self.generation);
        put_u64(&mut out, self.count);
        put_u64(&mut out, self.checksum.0);
        // rows of before there were plain servers end here
        let has_parts = self.loss.is_some() || self.forgotten_above > Seq(0);
        let plain = self.plain.or_else(|| has_parts.then(PlainMark::default));
        if let Some(plain) = plain {
            put_u64(&mut out, plain.address);
            for at in [plain.watermark, plain.reconciled_at] {
                out.push(u8::from(at.is_some()));
                if let Some(at) = at {
                    put_i64(&mut out, at.0);
                }
            }
        }
        // rows of before a loss was asked about end here
        if let Some(loss) = &self.loss {
            put_part(&mut out, LOSS, &loss.encode());
        }
        if self.forgotten_above > Seq(0) {
            let mut part = Vec::new();
            put_u64(&mut part, self.forgotten_above.0);
            put_part(&mut out, FORGOTTEN_ABOVE, &part);
        }
        out
    }

    /// Returns `true` if a record is stored that the server has not shown.
    pub(crate) fn is_held(&self, row: &Row) -> bool {
        let held = self.loss.is_some_and(|loss| row.generation < loss.since);
        held && !planted!(HeldRowsCounted)
    }

    /// Adds to the number of stored records that the server has not shown.
    pub(crate) fn miss(&mut self, more: i64) {
        if let Some(missing) = self.loss.as_mut().and_then(|loss| loss.missing.as_mut()) {
            *missing = missing.saturating_add_signed(more);
        }
    }

    /// Marks every counted record as not shown by the server, as of the present generation. A
    /// decision that was not carried out yet applies to them too.
    pub(crate) fn begin_loss(&mut self) {
        if self.count > 0 || self.loss.is_some() {
            let decision = self.loss.and_then(|loss| loss.decision);
            self.loss = Some(Loss { since: self.generation, missing: None, decision });
            (self.count, self.checksum) = (0, Checksum::default());
        }
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let (is_there, behind) = untag(row.byte()?)?;
        let cursor = if is_there {
            Some(Cursor { epoch: epoch(&mut row)?, seq: Seq(row.u64()?) })
        } else {
            None
        };
        let resume = match row.byte()? {
            0 => None,
            1 => Some(Resume::Delta { epoch: epoch(&mut row)?, seq: Seq(row.u64()?) }),
            2 => Some(Resume::Snapshot {
                epoch: epoch(&mut row)?,
                snapshot_seq: Seq(row.u64()?),
                after: row.str(|text| RecordId::new(text).ok())?,
            }),
            _ => return Err(StoreError::damaged("a stored place in a catch-up is of no kind")),
        };
        let mut stream = Self {
            cursor,
            resume,
            behind,
            generation: row.u64()?,
            count: row.u64()?,
            checksum: Checksum(row.u64()?),
            plain: if row.is_empty() { None } else { Some(PlainMark::take(&mut row)?) },
            loss: None,
            forgotten_above: Seq(0),
        };
        if let Some(mut part) = row.part(LOSS)? {
            stream.loss = Some(Loss::take(&mut part)?);
            part.end()?;
        }
        if let Some(mut part) = row.part(FORGOTTEN_ABOVE)? {
            stream.forgotten_above = Seq(part.u64()?);
            part.end()?;
        }
        if stream.loss.is_some() || stream.forgotten_above > Seq(0) {
            // an empty mark stands for none in front of a part
            stream.plain = stream.plain.filter(|mark| *mark != PlainMark::default());
        }
        row.end()?;
        Ok(stream)
    }
}

impl PlainMark {
    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let address = row.u64()?;
        let mut at = || Ok(if row.flag()? { Some(Timestamp(row.i64()?)) } else { None });
        Ok(Self { address, watermark: at()?, reconciled_at: at()? })
    }
}

/// The first byte of an optional part of a row, with a flag in it.
fn tag(is_there: bool, mark: bool) -> u8 {
    u8::from(is_there) | u8::from(mark) << 1
}

fn untag(tag: u8) -> Result<(bool, bool), StoreError> {
    match tag {
        0..=3 => Ok((tag & 1 == 1, tag & 2 == 2)),
        _ => Err(StoreError::damaged("a stored part is neither there nor absent")),
    }
}

fn addresses(row: &mut Reader) -> Result<Vec<u64>, StoreError> {
    let count = row.u64()?;
    (0..count).map(|_| row.u64()).collect()
}

/// A record as a replica keeps it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Row {
    /// The latest known server state, with this replica's confirmed writes folded in.
    pub(crate) server: Option<Document>,
    /// The seq up to which that state is known.
    pub(crate) seq: Seq,
    /// The generation of the stream in which the seq was learnt.
    pub(crate) generation: u64,
    pub(crate) version: u64,
    pub(crate) updated_at: Timestamp,
    /// The state of the record's pending writes.
    pub(crate) pending: Option<Pending>,
}

/// The part of a row that exists while the outbox has entries for the record.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pending {
    /// The state that the app sees: the base with the pending writes applied.
    pub(crate) view: Option<Document>,
    /// The time of the latest pending write.
    pub(crate) written_at: Timestamp,
    /// The state on which the writes stand, if the server's state has moved on from it; otherwise
    /// they stand on the server's.
    pub(crate) parked: Option<Parked>,
}

/// The state beneath frozen writes, kept while a newer one waits beside it (PROTOCOL 9.22).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Parked {
    pub(crate) base: Option<Document>,
    /// The seq up to which that state was known.
    pub(crate) seq: Seq,
    /// The times of the fields that changed since, sorted by name.
    pub(crate) at: FieldTimes,
    /// `true` if the record was deleted meanwhile, at an unknown time.
    pub(crate) undated: bool,
    /// `true` if the server withholds the record, so that its present state is unknown.
    pub(crate) hidden: bool,
}

impl Row {
    /// The state that the app sees.
    pub(crate) fn view(&self) -> Option<&Document> {
        match &self.pending {
            Some(pending) => pending.view.as_ref(),
            None => self.server.as_ref(),
        }
    }

    /// The state on which the pending writes stand.
    pub(crate) fn base(&self) -> Option<&Document> {
        match self.parked() {
            Some(parked) => parked.base.as_ref(),
            None => self.server.as_ref(),
        }
    }

    pub(crate) fn parked(&self) -> Option<&Parked> {
        self.pending.as_ref()?.parked.as_ref()
    }

    pub(crate) fn parked_mut(&mut self) -> Option<&mut Parked> {
        self.pending.as_mut()?.parked.as_mut()
    }

    /// Returns `true` if pending writes stand on a state that the server now withholds (PROTOCOL
    /// 9.27).
    pub(crate) fn is_hidden(&self) -> bool {
        self.parked().is_some_and(|parked| parked.hidden)
    }

    /// The latest time in the record that a new write's author has seen.
    pub(crate) fn seen_at(&self) -> Timestamp {
        let local = self.pending.as_ref().map(|pending| pending.written_at);
        local.map_or(self.updated_at, |local| local.max(self.updated_at))
    }

    /// Returns `true` if the row holds nothing worth storing.
    pub(crate) fn is_void(&self) -> bool {
        self.server.is_none() && self.pending.is_none()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let size = self.server.as_ref().map_or(0, Document::size);
        let mut out = Vec::with_capacity(size + 32);
        put_document(&mut out, self.server.as_ref());
        put_u64(&mut out, self.seq.0);
        put_u64(&mut out, self.generation);
        put_u64(&mut out, self.version);
        put_i64(&mut out, self.updated_at.0);
        out.push(u8::from(self.pending.is_some()));
        if let Some(pending) = &self.pending {
            pending.put(&mut out);
        }
        out
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let record = Self {
            server: document(&mut row)?,
            seq: Seq(row.u64()?),
            generation: row.u64()?,
            version: row.u64()?,
            updated_at: Timestamp(row.i64()?),
            pending: if row.flag()? { Some(Pending::take(&mut row)?) } else { None },
        };
        row.end()?;
        Ok(record)
    }
}

impl Pending {
    fn put(&self, out: &mut Vec<u8>) {
        put_document(out, self.view.as_ref());
        put_i64(out, self.written_at.0);
        let (hidden, undated) =
            self.parked.as_ref().map_or((false, false), |parked| (parked.hidden, parked.undated));
        out.push(tag(self.parked.is_some(), hidden) | u8::from(undated) << 2);
        if let Some(parked) = &self.parked {
            put_document(out, parked.base.as_ref());
            put_u64(out, parked.seq.0);
            put_times(out, &parked.at);
        }
    }

    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let view = document(row)?;
        let written_at = Timestamp(row.i64()?);
        let marks = row.byte()?;
        let undated = marks & 4 == 4;
        let (is_there, hidden) = untag(if undated { marks & 3 } else { marks })?;
        let parked = if is_there { Some(Parked::take(row, hidden, undated)?) } else { None };
        Ok(Self { view, written_at, parked })
    }
}

impl Parked {
    /// A state that waits beside a newer one, whose changed fields have these times.
    pub(crate) fn new(base: Option<Document>, seq: Seq, at: FieldTimes) -> Self {
        Self { base, seq, at, undated: false, hidden: false }
    }

    fn take(row: &mut Reader, hidden: bool, undated: bool) -> Result<Self, StoreError> {
        let base = document(row)?;
        let seq = Seq(row.u64()?);
        Ok(Self { base, seq, at: times(row)?, hidden, undated })
    }
}

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
}

/// The tags of an entry's parts: the times of its fields, and the origin of its time.
const TIMES: u8 = 1;
const STAMPED: u8 = 2;

impl Entry {
    pub(crate) fn digest(&self) -> Digest {
        let Self { collection, record_id, change, written_at, at, .. } = self;
        Digest::of(change.kind, collection, record_id, &change.delta, *written_at, at)
    }

    /// The update that is sent in place of an insert which may bring a record back (PROTOCOL 9.29).
    pub(crate) fn into_update(self) -> Self {
        Self { change: Change::update(self.change.delta), ..self }
    }

    /// Returns `true` if the write may have been sent as the one with this digest.
    pub(crate) fn may_be(&self, sent: Digest) -> bool {
        let asks = self.change.kind == WriteKind::Insert && !planted!(AskedInsertUnknown);
        self.digest() == sent || asks && self.clone().into_update().digest() == sent
    }

    /// The time at which a touched field was written.
    pub(crate) fn time_of(&self, field: &str) -> Timestamp {
        time_in(&self.at, field).unwrap_or(self.written_at)
    }

    /// A single write with the effect of this write followed by `later`, each field with its own
    /// time. `None` if there is none.
    pub(crate) fn then(&self, later: &Self) -> Option<Self> {
        // a joined write can be of one clock only
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
        let at = if planted!(JoinedTimesLost) { Vec::new() } else { at };
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
    }

    fn take_parts(&mut self, row: &mut Reader) -> Result<(), StoreError> {
        if let Some(mut part) = row.part(TIMES)? {
            self.at = times(&mut part)?;
            part.end()?;
        }
        if let Some(part) = row.part(STAMPED)? {
            self.stamped = Some(Stamped::decode(part)?);
        }
        Ok(())
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
        let (at, stamped) = (Vec::new(), None);
        Ok(Self { collection, record_id, change, written_at, at, stamped })
    }
}

/// The content of a position in the outbox.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Place {
    /// A write without a verdict.
    Entry(Entry),
    /// A write that was acknowledged before an earlier one. Its position keeps its number, and the
    /// digest of the applied write.
    Hollow(Digest),
}

impl Place {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Entry(entry) => {
                out.push(0);
                entry.put(&mut out);
                entry.put_parts(&mut out);
            }
            Self::Hollow(digest) => {
                out.push(1);
                put_u64(&mut out, digest.0);
            }
        }
        out
    }

    pub(crate) fn decode(row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let place = if row.flag()? {
            Self::Hollow(Digest(row.u64()?))
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
    pub write: Position,
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

    pub(crate) fn decode(write: Position, row: Bytes) -> Result<Self, StoreError> {
        let mut row = Reader::new(row);
        let mut entry = Entry::take(&mut row)?;
        let code = row.str(|text| Some(ErrorCode::parse(text)))?;
        let message = row.str(|text| Some(text.to_string()))?;
        entry.take_parts(&mut row)?;
        row.end()?;
        Ok(Self::of(write, entry, code, message))
    }

    /// The rejection of an entry.
    pub(crate) fn of(write: Position, entry: Entry, code: ErrorCode, message: String) -> Self {
        let Entry { collection, record_id, change, written_at, at, .. } = entry.corrected(0);
        Self { write, collection, record_id, change, written_at, at, code, message }
    }

    /// The rejected entry.
    pub(crate) fn entry(&self) -> Entry {
        let Self { collection, record_id, change, written_at, at, .. } = self.clone();
        Entry { collection, record_id, change, written_at, at, stamped: None }
    }
}

fn put_times(out: &mut Vec<u8>, times: &FieldTimes) {
    put_u64(out, times.len() as u64);
    for (name, at) in times {
        put_bytes(out, name.as_bytes());
        put_i64(out, at.0);
    }
}

fn times(row: &mut Reader) -> Result<FieldTimes, StoreError> {
    let count = row.u64()?;
    let mut times = Vec::new();
    for _ in 0..count {
        let name = row.str(|text| Some(text.into()))?;
        times.push((name, Timestamp(row.i64()?)));
    }
    Ok(times)
}

fn put_document(out: &mut Vec<u8>, document: Option<&Document>) {
    put_option(out, document.map(Document::as_row));
}

fn document(row: &mut Reader) -> Result<Option<Document>, StoreError> {
    row.option()?.map(Document::from_row).transpose()
}

fn database(row: &mut Reader) -> Result<Option<DatabaseId>, StoreError> {
    let Some(bytes) = row.option()? else { return Ok(None) };
    let name = core::str::from_utf8(&bytes).ok().and_then(|text| DatabaseId::new(text).ok());
    name.map(Some).ok_or_else(|| StoreError::damaged("a stored database id is no valid name"))
}

fn epoch(row: &mut Reader) -> Result<Epoch, StoreError> {
    row.str(|text| Epoch::new(text).ok())
}

#[cfg(test)]
mod tests;
