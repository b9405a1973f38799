//! The row of a record: its server state and its pending writes.

use alloc::vec::Vec;

use bytes::Bytes;

use super::parts::{document, put_document, put_times, tag, times, untag};
use crate::protocol::codec::{Reader, put_i64, put_u64};
use crate::protocol::document::Document;
use crate::protocol::name::Seq;
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::store::StoreError;

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
    pub(crate) deferred: Option<Deferred>,
}

/// The state beneath frozen writes, kept while a newer one waits beside it (PROTOCOL 9.22).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Deferred {
    pub(crate) base: Option<Document>,
    /// The seq up to which that state was known.
    pub(crate) seq: Seq,
    /// The times of the fields that changed since, sorted by name.
    pub(crate) at: FieldTimes,
    /// `true` if the record was deleted meanwhile, at an unknown time.
    pub(crate) undated: bool,
    /// `true` if the server withholds the record, so that its present state is unknown.
    pub(crate) withheld: bool,
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
        match self.deferred() {
            Some(deferred) => deferred.base.as_ref(),
            None => self.server.as_ref(),
        }
    }

    pub(crate) fn deferred(&self) -> Option<&Deferred> {
        self.pending.as_ref()?.deferred.as_ref()
    }

    pub(crate) fn deferred_mut(&mut self) -> Option<&mut Deferred> {
        self.pending.as_mut()?.deferred.as_mut()
    }

    /// Returns `true` if pending writes stand on a state that the server now withholds (PROTOCOL
    /// 9.27).
    pub(crate) fn is_withheld(&self) -> bool {
        self.deferred().is_some_and(|deferred| deferred.withheld)
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
        let (withheld, undated) = self
            .deferred
            .as_ref()
            .map_or((false, false), |deferred| (deferred.withheld, deferred.undated));
        out.push(tag(self.deferred.is_some(), withheld) | u8::from(undated) << 2);
        if let Some(deferred) = &self.deferred {
            put_document(out, deferred.base.as_ref());
            put_u64(out, deferred.seq.0);
            put_times(out, &deferred.at);
        }
    }

    fn take(row: &mut Reader) -> Result<Self, StoreError> {
        let view = document(row)?;
        let written_at = Timestamp(row.i64()?);
        let marks = row.byte()?;
        let undated = marks & 4 == 4;
        let (is_there, withheld) = untag(if undated { marks & 3 } else { marks })?;
        let deferred = if is_there { Some(Deferred::take(row, withheld, undated)?) } else { None };
        Ok(Self { view, written_at, deferred })
    }
}

impl Deferred {
    /// A state that waits beside a newer one, whose changed fields have these times.
    pub(crate) fn new(base: Option<Document>, seq: Seq, at: FieldTimes) -> Self {
        Self { base, seq, at, undated: false, withheld: false }
    }

    fn take(row: &mut Reader, withheld: bool, undated: bool) -> Result<Self, StoreError> {
        let base = document(row)?;
        let seq = Seq(row.u64()?);
        Ok(Self { base, seq, at: times(row)?, withheld, undated })
    }
}
