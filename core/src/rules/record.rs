//! The server's rows and their encoding.
//!
//! | key | value |
//! | --- | --- |
//! | `c` collection | [`Head`]: head, count, checksum, horizon, time of the last commit, size |
//! | `r` collection 0 record id | [`RecordRow`], a tombstone too |
//! | `x` collection 0 seq | the id of the record whose last change has this seq |
//! | `u` client id | [`ClientRow`] |
//! | `n` user | the number of the user's client ids; without a name, of those without a user |
//! | `t` | [`Totals`]: the number of collections, and which clients are counted |
//! | `d` | the [`DatabaseId`] |
//! | `e` number | [`EpochRow`]: the id of an epoch and when it began |
//! | `i` epoch id | its number |
//! | `g` collection 0 number | the collection's head when this epoch began |
//! | `k` collection, `s` collection 0 … | its scope keys and the rows of its scopes: see [`scopes`] |
//! | `j` collection, `y` collection 0 … | its indexes and their rows: see [`indexes`] |
//!
//! Numbers in keys take 8 bytes, big endian. Names hold no control characters, so a 0 byte ends
//! them, and the records of a collection are sorted by the bytes of their ids. A `g` row is written
//! only if the head moved in the epoch before: the last one at or below a number counts, and
//! without one the head is 0.

pub(crate) mod declared;
pub(crate) mod indexes;
pub(crate) mod left;
pub(crate) mod scopes;
mod totals;

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use self::left::Left;
pub(crate) use self::totals::{Counted, Totals, clients_of, counted_user, put_clients_of};
use crate::protocol::codec::{Reader, put_bytes, put_i64, put_option, put_part, put_u64};
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::hash::{Checksum, Digest};
use crate::protocol::message::ServerChange;
use crate::protocol::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use crate::protocol::time::Timestamp;
use crate::protocol::times::{FieldTimes, others};
use crate::protocol::write::{Change, WriteKind};
use crate::store::{Rows, StoreError};

/// The server's state of a collection as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Head {
    /// The largest seq that was assigned.
    pub seq: Seq,
    /// The number of live records.
    pub count: u64,
    /// The checksum of the live records.
    pub checksum: Checksum,
    /// The horizon: every removed tombstone has a seq up to this one.
    pub horizon: Seq,
    /// The seq up to which the change index was searched for old tombstones.
    pub swept: Seq,
    /// The server's time of the last change; it never goes back.
    pub committed_at: Timestamp,
    /// The size of the records and tombstones whose seq is at most `measured`, in bytes of their ids
    /// and rows.
    pub bytes: u64,
    /// The seq up to which the size is known: that of the head, but for a collection from before
    /// sizes were stored, until sweeps have read it.
    pub measured: Seq,
    /// `true` if rows of its scopes are kept, or not yet removed.
    pub scoped: bool,
    /// `true` if rows of its indexes are kept, or not yet removed.
    pub indexed: bool,
}

/// The tag of a collection's size.
const SIZE: u8 = 1;
/// The tag of a collection with rows of scopes.
const SCOPED: u8 = 2;
/// The tag of a collection with rows of indexes.
const INDEXED: u8 = 3;

/// The stamp of a change of a record or field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Stamp {
    /// The seq of the change.
    pub seq: Seq,
    /// The record's version after it.
    pub version: u64,
    /// The writer's time of the change.
    pub at: Timestamp,
}

/// A record as the server stores it. Without a document it is the tombstone of a deleted record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordRow {
    /// The content; `None` if the record is deleted.
    pub document: Option<Document>,
    /// The last change.
    pub last: Stamp,
    /// The last insert or delete. It is the stamp of every field without a stamp of its own.
    pub whole: Stamp,
    /// The fields of the document whose last change was another than `whole`, or was written at
    /// another time, sorted by name.
    pub fields: Vec<(Box<str>, Stamp)>,
    /// The tombstones of removed fields, sorted by name.
    pub removed: Vec<(Box<str>, Stamp)>,
    /// The server's time of the last change.
    pub committed_at: Timestamp,
    /// The user who made the last change.
    pub user: Option<UserId>,
    /// The scopes that the record has left and not entered again, in the order of the seqs at which it
    /// did, as far as that is not forgotten.
    pub left: Vec<Left>,
}

/// The tag of the scopes that a record has left.
const LEFT: u8 = 1;

/// The server's state of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClientRow {
    /// The user of the client.
    pub user: Option<UserId>,
    /// The largest session that the client opened.
    pub session: SessionNumber,
    /// The number of its last applied write.
    pub last_mutation: MutationNumber,
    /// The digest of that write.
    pub last_digest: Option<Digest>,
    /// The time of the last sign of life.
    pub seen_at: Timestamp,
    /// The session at which this row was created: nothing is known of the client from before.
    /// `None` in rows from before this field existed.
    pub first_session: Option<SessionNumber>,
}

/// The tag of a client's first session.
const FIRST_SESSION: u8 = 1;

/// The time between two openings of the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EpochRow {
    /// Its id.
    pub id: Epoch,
    /// The time at which it began.
    pub started_at: Timestamp,
}

impl Head {
    /// A collection's head; the default if the collection is empty.
    pub(crate) fn load(rows: &dyn Rows, collection: &Collection) -> Result<Self, StoreError> {
        rows.get(&head_key(collection))?.map_or_else(|| Ok(Self::default()), Self::from_row)
    }

    pub(crate) fn to_row(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        put_u64(&mut out, self.seq.0);
        put_u64(&mut out, self.count);
        out.extend_from_slice(&self.checksum.0.to_be_bytes());
        put_u64(&mut out, self.horizon.0);
        put_u64(&mut out, self.swept.0);
        put_i64(&mut out, self.committed_at.0);
        if self.measured > Seq(0) {
            let mut part = Vec::with_capacity(16);
            put_u64(&mut part, self.bytes);
            put_u64(&mut part, self.measured.0);
            put_part(&mut out, SIZE, &part);
        }
        if self.scoped {
            put_part(&mut out, SCOPED, &[]);
        }
        if self.indexed {
            put_part(&mut out, INDEXED, &[]);
        }
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let mut head = Self {
            seq: Seq(reader.u64()?),
            count: reader.u64()?,
            checksum: Checksum(be_u64(&mut reader)?),
            horizon: Seq(reader.u64()?),
            swept: Seq(reader.u64()?),
            committed_at: Timestamp(reader.i64()?),
            bytes: 0,
            measured: Seq(0),
            scoped: false,
            indexed: false,
        };
        if let Some(mut part) = reader.part(SIZE)? {
            (head.bytes, head.measured) = (part.u64()?, Seq(part.u64()?));
            part.end()?;
        }
        if let Some(part) = reader.part(SCOPED)? {
            part.end()?;
            head.scoped = true;
        }
        if let Some(part) = reader.part(INDEXED)? {
            part.end()?;
            head.indexed = true;
        }
        reader.end()?;
        if head.measured > head.seq {
            return Err(StoreError::damaged("a collection is measured beyond its head"));
        }
        if head.horizon > head.seq {
            // every catch-up would begin again at every page
            return Err(StoreError::damaged("a collection's horizon lies above its head"));
        }
        Ok(head)
    }
}

impl RecordRow {
    pub(crate) fn load(
        rows: &dyn Rows,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Option<Self>, StoreError> {
        rows.get(&record_key(collection, id))?.map(Self::from_row).transpose()
    }

    /// A record and its size; `None` and 0 if there is none.
    pub(crate) fn load_sized(
        rows: &dyn Rows,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<(Option<Self>, u64), StoreError> {
        let Some(row) = rows.get(&record_key(collection, id))? else { return Ok((None, 0)) };
        let size = size_of_record(id, &row);
        Ok((Some(Self::from_row(row)?), size))
    }

    /// The stamp of a field's last change. A field that the record never had has the stamp of
    /// `whole`.
    #[must_use]
    pub(crate) fn stamp(&self, field: &str) -> Stamp {
        let own = find(&self.fields, field).or_else(|| find(&self.removed, field));
        own.unwrap_or(self.whole)
    }

    /// The change above a seq: the changed fields, or the whole record if it was inserted or
    /// deleted since.
    #[must_use]
    pub(crate) fn change_above(&self, floor: Seq) -> ServerChange {
        match &self.document {
            Some(document) if self.whole.seq <= floor => {
                let set: Vec<_> =
                    document.iter().filter(|(name, _)| self.stamp(name).seq > floor).collect();
                let unset = self.removed.iter().filter(|(_, stamp)| stamp.seq > floor);
                let unset = unset.map(|(name, _)| name.clone()).collect();
                self.say(Change::update(Delta::new(Document::of_sorted(&set), unset)))
            }
            Some(_) | None => self.state(),
        }
    }

    /// The whole record as an insert, or its deletion.
    #[must_use]
    pub(crate) fn state(&self) -> ServerChange {
        self.say(match &self.document {
            Some(document) => Change::insert(document.clone()),
            None => Change::delete(),
        })
    }

    /// The times of all fields that differ from that of the last change, removed fields included.
    pub(crate) fn times(&self) -> FieldTimes {
        let names = self.document.iter().flat_map(Document::iter).map(|(name, _)| name);
        let removed = self.removed.iter().map(|(name, _)| &**name);
        self.times_of(names.chain(removed))
    }

    fn times_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> FieldTimes {
        others(names.map(|name| (name, self.stamp(name).at)), self.last.at)
    }

    fn say(&self, change: Change) -> ServerChange {
        let at = match change.kind {
            WriteKind::Insert => self.times(),
            WriteKind::Update => self.times_of(change.delta.fields().map(|(name, _)| name)),
            WriteKind::Delete => Vec::new(),
        };
        ServerChange {
            at,
            change,
            seq: Some(self.last.seq),
            version: Some(self.last.version),
            timestamp: Some(self.last.at),
            user_id: self.user.clone(),
        }
    }

    pub(crate) fn to_row(&self) -> Vec<u8> {
        let size = self.document.as_ref().map_or(0, Document::size);
        let mut out = Vec::with_capacity(size + 64);
        put_stamp(&mut out, self.last);
        put_stamp(&mut out, self.whole);
        put_i64(&mut out, self.committed_at.0);
        put_option(&mut out, self.user.as_ref().map(|user| user.as_bytes()));
        for stamps in [&self.fields, &self.removed] {
            put_u64(&mut out, stamps.len() as u64);
            for (name, stamp) in stamps {
                put_bytes(&mut out, name.as_bytes());
                put_stamp(&mut out, *stamp);
            }
        }
        put_option(&mut out, self.document.as_ref().map(Document::as_row));
        if !self.left.is_empty() {
            let mut part = Vec::new();
            Left::put_all(&self.left, &mut part);
            put_part(&mut out, LEFT, &part);
        }
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let mut record = Self {
            last: read_stamp(&mut reader)?,
            whole: read_stamp(&mut reader)?,
            committed_at: Timestamp(reader.i64()?),
            user: read_user(&mut reader)?,
            fields: read_stamps(&mut reader)?,
            removed: read_stamps(&mut reader)?,
            document: reader.option()?.map(Document::from_row).transpose()?,
            left: Vec::new(),
        };
        if let Some(part) = reader.part(LEFT)? {
            record.left = Left::take_all(part)?;
        }
        reader.end()?;
        Ok(record)
    }
}

impl ClientRow {
    pub(crate) fn load(rows: &dyn Rows, id: &ClientId) -> Result<Option<Self>, StoreError> {
        rows.get(&client_key(id))?.map(Self::from_row).transpose()
    }

    pub(crate) fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        put_option(&mut out, self.user.as_ref().map(|user| user.as_bytes()));
        put_u64(&mut out, self.session.0);
        put_u64(&mut out, self.last_mutation.0);
        put_option(
            &mut out,
            self.last_digest.map(|digest| digest.0.to_be_bytes()).as_ref().map(|d| &d[..]),
        );
        put_i64(&mut out, self.seen_at.0);
        if let Some(first) = self.first_session {
            let mut part = Vec::new();
            put_u64(&mut part, first.0);
            put_part(&mut out, FIRST_SESSION, &part);
        }
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let mut client = Self {
            user: read_user(&mut reader)?,
            session: SessionNumber(reader.u64()?),
            last_mutation: MutationNumber(reader.u64()?),
            last_digest: reader.option()?.map(|bytes| to_u64(&bytes).map(Digest)).transpose()?,
            seen_at: Timestamp(reader.i64()?),
            first_session: None,
        };
        if let Some(mut part) = reader.part(FIRST_SESSION)? {
            client.first_session = Some(SessionNumber(part.u64()?));
            part.end()?;
        }
        reader.end()?;
        Ok(client)
    }
}

impl EpochRow {
    pub(crate) fn to_row(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.id.as_bytes());
        put_i64(&mut out, self.started_at.0);
        out
    }

    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let epoch = Self {
            id: reader.str(|text| Epoch::new(text).ok())?,
            started_at: Timestamp(reader.i64()?),
        };
        reader.end()?;
        Ok(epoch)
    }

    /// The current epoch and its number.
    pub(crate) fn current(rows: &dyn Rows) -> Result<Option<(u64, Self)>, StoreError> {
        let (from, to) = range_of(b'e');
        rows.last(&from, &to)?
            .map(|(key, row)| Ok((to_u64(&key[1..])?, Self::from_row(row)?)))
            .transpose()
    }

    /// The number of a known epoch.
    pub(crate) fn number(rows: &dyn Rows, id: &Epoch) -> Result<Option<u64>, StoreError> {
        rows.get(&epoch_id_key(id))?.map(|row| to_u64(&row)).transpose()
    }

    /// A collection's head at the beginning of an epoch.
    pub(crate) fn began_at(
        rows: &dyn Rows,
        collection: &Collection,
        number: u64,
    ) -> Result<Seq, StoreError> {
        let (from, _) = beginnings_of(collection);
        let to = beginning_key(collection, number.saturating_add(1));
        Ok(Seq(rows.last(&from, &to)?.map_or(Ok(0), |(_, row)| to_u64(&row))?))
    }
}

/// The size of a record with this row, as its collection's size counts it.
pub(crate) fn size_of_record(id: &RecordId, row: &[u8]) -> u64 {
    (id.len() + row.len()) as u64
}

/// The key of the row that holds the database's identity.
pub(crate) const DATABASE: &[u8] = b"d";

/// The identity of the database; `None` before its first epoch.
///
/// # Errors
/// When the store can't be read or the row is damaged.
pub fn database(rows: &dyn Rows) -> Result<Option<DatabaseId>, StoreError> {
    rows.get(DATABASE)?.map(|row| name_of(&row, DatabaseId::new)).transpose()
}

pub(crate) fn head_key(collection: &Collection) -> Vec<u8> {
    tagged(b'c', collection)
}

pub(crate) fn record_key(collection: &Collection, id: &RecordId) -> Vec<u8> {
    let mut key = within(b'r', collection);
    key.extend_from_slice(id.as_bytes());
    key
}

pub(crate) fn index_key(collection: &Collection, seq: Seq) -> Vec<u8> {
    let mut key = within(b'x', collection);
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

pub(crate) fn client_key(id: &ClientId) -> Vec<u8> {
    tagged(b'u', id)
}

pub(crate) fn epoch_key(number: u64) -> Vec<u8> {
    let mut key = alloc::vec![b'e'];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn epoch_id_key(id: &Epoch) -> Vec<u8> {
    tagged(b'i', id)
}

pub(crate) fn beginning_key(collection: &Collection, number: u64) -> Vec<u8> {
    let mut key = within(b'g', collection);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// All rows of a kind.
pub(crate) fn range_of(tag: u8) -> (Vec<u8>, Vec<u8>) {
    (alloc::vec![tag], alloc::vec![tag + 1])
}

/// The records of a collection, in the order of their ids.
pub(crate) fn records_of(collection: &Collection) -> (Vec<u8>, Vec<u8>) {
    all_within(b'r', collection)
}

/// The change index of a collection.
pub(crate) fn index_of(collection: &Collection) -> (Vec<u8>, Vec<u8>) {
    all_within(b'x', collection)
}

/// The heads of a collection at the beginnings of epochs.
pub(crate) fn beginnings_of(collection: &Collection) -> (Vec<u8>, Vec<u8>) {
    all_within(b'g', collection)
}

/// The name in the key of a head or a client.
pub(crate) fn name_in<T>(
    key: &[u8],
    make: impl FnOnce(&str) -> Option<T>,
) -> Result<T, StoreError> {
    let name = key.get(1..).and_then(|name| core::str::from_utf8(name).ok());
    name.and_then(make).ok_or_else(|| StoreError::damaged("a stored key holds no valid name"))
}

/// The name that is a row's whole value.
fn name_of<T, E>(row: &[u8], make: impl FnOnce(&str) -> Result<T, E>) -> Result<T, StoreError> {
    let name = core::str::from_utf8(row).ok().and_then(|name| make(name).ok());
    name.ok_or_else(|| StoreError::damaged("a stored identity is no valid name"))
}

/// The record id in an index row or at the end of a record's key.
pub(crate) fn record_id(bytes: &[u8]) -> Result<RecordId, StoreError> {
    let text = core::str::from_utf8(bytes).ok();
    text.and_then(|text| RecordId::new(text).ok())
        .ok_or_else(|| StoreError::damaged("a stored record id is no valid name"))
}

/// The number at the end of a key, or in a row that holds nothing else.
pub(crate) fn to_u64(bytes: &[u8]) -> Result<u64, StoreError> {
    let number = bytes.try_into().map(u64::from_be_bytes);
    number.map_err(|_| StoreError::damaged("a stored number does not have 8 bytes"))
}

fn tagged(tag: u8, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 10);
    key.push(tag);
    key.extend_from_slice(name.as_bytes());
    key
}

fn within(tag: u8, collection: &Collection) -> Vec<u8> {
    let mut key = tagged(tag, collection);
    key.push(0);
    key
}

fn all_within(tag: u8, collection: &Collection) -> (Vec<u8>, Vec<u8>) {
    let from = within(tag, collection);
    let mut to = tagged(tag, collection);
    to.push(1);
    (from, to)
}

fn find(stamps: &[(Box<str>, Stamp)], field: &str) -> Option<Stamp> {
    let place = stamps.binary_search_by(|(name, _)| (**name).cmp(field)).ok()?;
    Some(stamps[place].1)
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    put_u64(out, stamp.seq.0);
    put_u64(out, stamp.version);
    put_i64(out, stamp.at.0);
}

fn read_stamp(reader: &mut Reader) -> Result<Stamp, StoreError> {
    let (seq, version) = (Seq(reader.u64()?), reader.u64()?);
    Ok(Stamp { seq, version, at: Timestamp(reader.i64()?) })
}

fn read_stamps(reader: &mut Reader) -> Result<Vec<(Box<str>, Stamp)>, StoreError> {
    let count = reader.u64()?;
    let mut stamps = Vec::new();
    for _ in 0..count {
        let name = reader.str(|text| Some(Box::from(text)))?;
        stamps.push((name, read_stamp(reader)?));
    }
    Ok(stamps)
}

fn read_user(reader: &mut Reader) -> Result<Option<UserId>, StoreError> {
    let Some(bytes) = reader.option()? else { return Ok(None) };
    let user = core::str::from_utf8(&bytes).ok().and_then(|text| UserId::new(text).ok());
    user.map(Some).ok_or_else(|| StoreError::damaged("a stored user id is no valid name"))
}

fn be_u64(reader: &mut Reader) -> Result<u64, StoreError> {
    let mut value = 0;
    for _ in 0..8 {
        value = value << 8 | u64::from(reader.byte()?);
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
