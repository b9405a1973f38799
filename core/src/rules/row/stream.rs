//! The row of a collection: its cursor, its checksum, and a loss to decide about.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use super::figures::{Figures, Recount};
use super::parts::{epoch, tag, untag};
use super::record::Row;
use super::set::{HeldSet, put_scope, take_scope};
use crate::protocol::codec::{Reader, put_bytes, put_i64, put_part, put_u64};
use crate::protocol::hash::{Checksum, RightsTag};
use crate::protocol::message::{Cursor, Resume};
use crate::protocol::name::{Epoch, RecordId, Seq};
use crate::protocol::time::Timestamp;
use crate::rules::scope::NamedScope;
use crate::store::StoreError;

/// The state of a collection: the position in its stream, and figures of the stored records.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct StreamRow {
    pub(crate) cursor: Option<Cursor>,
    pub(crate) resume: Option<Resume>,
    /// The epoch in which was learnt what is held, while neither of the two tells it: a snapshot has
    /// begun, and none of its pages was taken in yet.
    pub(crate) history: Option<Epoch>,
    /// The rights by which the server has shown what led there.
    pub(crate) rights: Option<RightsTag>,
    /// `true` if the cursor is behind the stored records, so that it is invalid in another epoch
    /// (PROTOCOL 9.26).
    pub(crate) behind: bool,
    /// The generation of the stream. It rises with every snapshot: seqs that were learnt in an
    /// earlier generation tell nothing about the server's present seqs.
    pub(crate) generation: u64,
    /// The figures of the records at the server, as far as it told.
    pub(crate) figures: Figures,
    /// The counting of them that is under way. It is not stored.
    pub(crate) recount: Option<Recount>,
    /// The position in a plain server's collection.
    pub(crate) plain: Option<PlainMark>,
    /// The records that the server may have lost.
    pub(crate) loss: Option<Loss>,
    /// The cursor's seq when the server had forgotten writes that may have been sent: none of them
    /// was applied at or below this seq (PROTOCOL 9.29).
    pub(crate) forgotten_above: Seq,
    /// The scopes that are held; `None`: the collection is held whole.
    pub(crate) set: Option<HeldSet>,
    /// The scopes that the app keeps until it says otherwise.
    pub(crate) kept: BTreeSet<NamedScope>,
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

/// The tags of a stream's parts: its loss, the seq above which writes were forgotten, its scopes, and
/// those that are kept, its rights, and its history.
const LOSS: u8 = 1;
const FORGOTTEN_ABOVE: u8 = 2;
const SET: u8 = 3;
const KEPT: u8 = 4;
const RIGHTS: u8 = 5;
const HISTORY: u8 = 6;

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
        put_u64(&mut out, self.figures.count);
        put_u64(&mut out, self.figures.checksum.0);
        // rows from before the support of plain servers end here
        let plain = self.plain.or_else(|| self.has_parts().then(PlainMark::default));
        if let Some(plain) = plain {
            put_u64(&mut out, plain.address);
            for at in [plain.watermark, plain.reconciled_at] {
                out.push(u8::from(at.is_some()));
                if let Some(at) = at {
                    put_i64(&mut out, at.0);
                }
            }
        }
        // rows from before decisions about losses end here
        if let Some(loss) = &self.loss {
            put_part(&mut out, LOSS, &loss.encode());
        }
        if self.forgotten_above > Seq(0) {
            let mut part = Vec::new();
            put_u64(&mut part, self.forgotten_above.0);
            put_part(&mut out, FORGOTTEN_ABOVE, &part);
        }
        if let Some(set) = &self.set {
            put_part(&mut out, SET, &set.encode());
        }
        if !self.kept.is_empty() {
            let mut part = Vec::new();
            self.kept.iter().for_each(|scope| put_scope(&mut part, scope));
            put_part(&mut out, KEPT, &part);
        }
        if let Some(rights) = self.rights {
            let mut part = Vec::new();
            put_u64(&mut part, rights.rules);
            rights.related.iter().for_each(|related| put_u64(&mut part, *related));
            put_part(&mut out, RIGHTS, &part);
        }
        if let Some(history) = &self.history {
            let mut part = Vec::new();
            put_bytes(&mut part, history.as_bytes());
            put_part(&mut out, HISTORY, &part);
        }
        out
    }

    fn has_parts(&self) -> bool {
        let has_scopes = self.set.is_some() || !self.kept.is_empty();
        let has_loss = self.loss.is_some() || self.forgotten_above > Seq(0);
        has_loss || has_scopes || self.rights.is_some() || self.history.is_some()
    }

    /// Returns `true` if a record is stored that the server has not shown.
    pub(crate) fn is_held(&self, row: &Row) -> bool {
        self.loss.is_some_and(|loss| row.generation < loss.since)
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
        // the count of a set may be too small
        if self.figures.count > 0 || self.loss.is_some() || self.set.is_some() {
            let decision = self.loss.and_then(|loss| loss.decision);
            self.loss = Some(Loss { since: self.generation, missing: None, decision });
            self.figures = Figures::default();
            self.recount = None;
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
            history: None,
            rights: None,
            behind,
            generation: row.u64()?,
            figures: Figures { count: row.u64()?, checksum: Checksum(row.u64()?) },
            recount: None,
            plain: if row.is_empty() { None } else { Some(PlainMark::take(&mut row)?) },
            loss: None,
            forgotten_above: Seq(0),
            set: None,
            kept: BTreeSet::new(),
        };
        if let Some(mut part) = row.part(LOSS)? {
            stream.loss = Some(Loss::take(&mut part)?);
            part.end()?;
        }
        if let Some(mut part) = row.part(FORGOTTEN_ABOVE)? {
            stream.forgotten_above = Seq(part.u64()?);
            part.end()?;
        }
        if let Some(mut part) = row.part(SET)? {
            stream.set = Some(HeldSet::take(&mut part)?);
            part.end()?;
        }
        if let Some(mut part) = row.part(KEPT)? {
            while !part.is_empty() {
                stream.kept.insert(take_scope(&mut part)?);
            }
        }
        if let Some(mut part) = row.part(RIGHTS)? {
            let rules = part.u64()?;
            let related = if part.is_empty() { None } else { Some(part.u64()?) };
            stream.rights = Some(RightsTag { rules, related });
            part.end()?;
        }
        if let Some(mut part) = row.part(HISTORY)? {
            stream.history = Some(epoch(&mut part)?);
            part.end()?;
        }
        if stream.has_parts() {
            // before a further part, an empty mark means none
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
