//! The judgement and application of single writes.

use core::cell::RefCell;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::subject::{Subject, conflicts};
use super::{
    Context, Decision, Origin, Outcome, PlainWrite, Published, TransactionAnswer, Verdict, Window,
};
use crate::protocol::document::Document;
use crate::protocol::hash::Digest;
use crate::protocol::message::{ErrorCode, Mutation, ServerChange};
use crate::protocol::name::{
    ClientId, Collection, ConnId, MutationNumber, RecordId, Seq, SessionNumber,
};
use crate::protocol::time::Timestamp;
use crate::protocol::times::time_in;
use crate::protocol::unit::Submission;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::lookups::{LookUps, Looked};
use crate::rules::plain::adopt;
use crate::rules::policy::{Access, Asker, ProposedWrite, User};
use crate::rules::record::indexes::DeclaredIndexes;
use crate::rules::record::scopes::Declared;
use crate::rules::record::{self, ClientRow, Head, RecordRow, Stamp, Totals};
use crate::store::{Batch, Overlay, Rows, StoreError};

/// Writes in order.
pub(super) struct Writes<'a> {
    pub(super) conn: Option<ConnId>,
    pub(super) submitted: &'a [Submission],
    pub(super) window: Window,
}

impl ClientRow {
    /// The fence.
    pub(super) fn holds(&self, session: SessionNumber) -> bool {
        self.session == session
    }

    pub(super) fn consume(&mut self, digest: Digest, number: MutationNumber) {
        self.last_mutation = number;
        self.last_digest = Some(digest);
    }
}

/// A write without a conflict so far.
struct Asked<'a> {
    change: &'a Change,
    timestamp: Option<Timestamp>,
    /// The times of the fields that were written at another time.
    at: &'a [(Box<str>, Timestamp)],
    origin: Option<Origin>,
    /// The seq up to which the writer knows the record. The echo holds the changes above it.
    floor: Seq,
    number: Option<MutationNumber>,
}

/// Where a write of a connection came from.
pub(super) fn origin(conn: Option<ConnId>, mutation: &Mutation) -> Option<Origin> {
    conn.map(|conn| Origin { conn, mutation: mutation.number })
}

/// Applies writes one after the other, each on top of those before it.
pub(super) struct Writer<'a> {
    pub(super) rows: Overlay<'a>,
    pub(super) context: Context<'a>,
    pub(super) user: Option<&'a User>,
    pub(super) published: Vec<Published>,
    /// The records at which it was looked whether that of the present write may be shown.
    looked: RefCell<Looked>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(rows: &'a dyn Rows, context: Context<'a>, user: Option<&'a User>) -> Self {
        let looked = RefCell::default();
        Self { rows: Overlay::new(rows), context, user, published: Vec::new(), looked }
    }

    pub(super) fn decision(self, answer: TransactionAnswer) -> Decision {
        Decision { batch: self.rows.into_batch(), answer, published: self.published }
    }

    /// Stores the state of a client after a sign of life.
    pub(super) fn see(&mut self, id: &ClientId, mut client: ClientRow) {
        client.seen_at = self.context.now;
        let mut batch = Batch::default();
        batch.put(record::client_key(id), client.to_row());
        self.rows.apply(&batch);
    }

    /// Judges and applies writes. Returns one outcome for each write that was judged.
    pub(super) fn write_all(
        &mut self,
        writes: Writes<'_>,
        mut client: Option<&mut ClientRow>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let Writes { conn, submitted, mut window } = writes;
        let mut outcomes = Vec::with_capacity(submitted.len());
        // the number of a failed write: the writes behind it are ignored until it comes again
        let mut failed: Option<MutationNumber> = None;
        for submission in submitted {
            let number = submission.first();
            if failed.zip(number).is_some_and(|(failed, number)| number > failed) {
                continue;
            }
            let (Some(client), Some(number)) = (client.as_deref_mut(), number) else {
                if let Submission::One(mutation) = submission {
                    outcomes.push(self.write_plain(mutation, origin(conn, mutation))?);
                }
                continue;
            };
            let judged = outcomes.len();
            match submission {
                Submission::One(mutation) => {
                    outcomes.push(self.write_next(mutation, number, conn, client, &mut window)?);
                }
                Submission::Unit(unit) => {
                    outcomes.extend(self.write_unit(unit, conn, client, &mut window)?);
                }
            }
            let verdict = outcomes.get(judged).map(|outcome| &outcome.verdict);
            failed = verdict.is_some_and(Verdict::is_failure).then_some(number);
            if let Some(Verdict::OutOfOrder { .. }) = verdict {
                break;
            }
        }
        Ok(outcomes)
    }

    /// Judges a numbered write, and applies it if nothing speaks against it.
    fn write_next(
        &mut self,
        mutation: &Mutation,
        number: MutationNumber,
        conn: Option<ConnId>,
        client: &mut ClientRow,
        window: &mut Window,
    ) -> Result<Outcome, StoreError> {
        let next = client.last_mutation.next();
        if number < next {
            return self.write_again(&mutation.collection, &mutation.record_id, number);
        }
        if number > next {
            let (collection, record_id) = (&mutation.collection, &mutation.record_id);
            return Ok(self.out_of_order(collection, record_id, number, next));
        }
        let outcome = self.write_numbered(mutation, origin(conn, mutation), window)?;
        if let Verdict::Applied { seq, .. } = outcome.verdict {
            window.entry(mutation.collection.clone()).or_default().push(seq);
        }
        if !outcome.verdict.is_failure() {
            client.consume(mutation.digest(), number);
        }
        Ok(outcome)
    }

    /// Judges and applies a write of a level-1 HTTP call.
    pub(super) fn write_http(&mut self, write: &PlainWrite) -> Result<Outcome, StoreError> {
        let subject = self.subject(&write.collection, &write.record_id)?;
        let speaks_against = match self.forbidden(&subject, &write.change)? {
            Some(verdict) => Some(verdict),
            None => self.judge_http(write, &subject)?,
        };
        match speaks_against {
            Some(verdict) => Ok(self.outcome(&subject, None, verdict)),
            None => {
                let asked = Asked {
                    change: &write.change,
                    timestamp: write.timestamp,
                    at: &[],
                    origin: None,
                    floor: Seq(0),
                    number: None,
                };
                self.write(subject, asked)
            }
        }
    }

    /// Applies a level-1 write: unconditional, without a number.
    fn write_plain(
        &mut self,
        mutation: &Mutation,
        origin: Option<Origin>,
    ) -> Result<Outcome, StoreError> {
        let subject = self.subject(&mutation.collection, &mutation.record_id)?;
        let kind = mutation.change.kind;
        let missing = subject.document().is_none() && kind != WriteKind::Insert;
        let forbidden = self.forbidden(&subject, &mutation.change)?;
        match forbidden.or_else(|| missing.then(|| not_found(kind))) {
            Some(verdict) => Ok(self.outcome(&subject, mutation.number, verdict)),
            None => self.write(subject, Asked::of(mutation, origin)),
        }
    }

    /// Acknowledges a write again that was applied before.
    pub(super) fn write_again(
        &mut self,
        collection: &Collection,
        record_id: &RecordId,
        number: MutationNumber,
    ) -> Result<Outcome, StoreError> {
        let subject = self.subject(collection, record_id)?;
        Ok(self.outcome(&subject, Some(number), Verdict::Unchanged { version: None }))
    }

    /// Applies the next write of a numbered sequence.
    pub(super) fn write_numbered(
        &mut self,
        mutation: &Mutation,
        origin: Option<Origin>,
        window: &Window,
    ) -> Result<Outcome, StoreError> {
        let subject = self.subject(&mutation.collection, &mutation.record_id)?;
        let own = window.get(&mutation.collection).map_or(&[][..], |seqs| seqs);
        let speaks_against = match self.forbidden(&subject, &mutation.change)? {
            Some(verdict) => Some(verdict),
            None => match (subject.document().is_some(), mutation.change.kind) {
                (false, WriteKind::Delete) => Some(Verdict::Unchanged { version: None }),
                (false, WriteKind::Update) => Some(self.conflict(&subject)?),
                (_, WriteKind::Insert) | (true, WriteKind::Update | WriteKind::Delete) => {
                    let conflicts = conflicts(mutation, &subject, own);
                    conflicts.then(|| self.conflict(&subject)).transpose()?
                }
            },
        };
        match speaks_against {
            Some(verdict) => Ok(self.outcome(&subject, mutation.number, verdict)),
            None => self.write(subject, Asked::of(mutation, origin)),
        }
    }

    pub(super) fn out_of_order(
        &self,
        collection: &Collection,
        record_id: &RecordId,
        number: MutationNumber,
        next: MutationNumber,
    ) -> Outcome {
        Outcome {
            collection: collection.clone(),
            record_id: record_id.clone(),
            mutation: Some(number),
            unit: None,
            at: Seq(0),
            committed_at: self.context.now,
            verdict: Verdict::OutOfOrder { next },
            looked: None,
        }
    }

    pub(super) fn subject(
        &self,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<Subject, StoreError> {
        let head = self.rows.get(&record::head_key(collection))?.map(Head::from_row).transpose()?;
        let (record, size) = RecordRow::load_sized(&self.rows, collection, id)?;
        let begins = if head.is_none() { Some(Totals::load(&self.rows)?) } else { None };
        let scopes = Declared::of(&self.rows, collection, head.as_ref())?;
        let indexes = DeclaredIndexes::of(&self.rows, collection, head.as_ref())?;
        Ok(Subject {
            collection: collection.clone(),
            id: id.clone(),
            head: head.unwrap_or_default(),
            record,
            size,
            begins,
            scopes,
            indexes,
        })
    }

    pub(super) fn outcome(
        &self,
        subject: &Subject,
        mutation: Option<MutationNumber>,
        verdict: Verdict,
    ) -> Outcome {
        let committed_at = subject.record.as_ref().map(|record| record.committed_at);
        Outcome {
            collection: subject.collection.clone(),
            record_id: subject.id.clone(),
            mutation,
            unit: None,
            at: subject.seq(),
            committed_at: committed_at.unwrap_or(self.context.now),
            verdict,
            looked: Some(self.looked.take()).filter(|looked| !looked.is_empty()).map(Box::new),
        }
    }

    /// The verdict of a conflict: the record's state, unless the writer may not read the record.
    pub(super) fn conflict(&self, subject: &Subject) -> Result<Verdict, StoreError> {
        if self.may_read(subject)? {
            return Ok(Verdict::Conflict { current: subject.state() });
        }
        let message = "the record was changed by someone else, and this user may not read it";
        Ok(Verdict::Refused { code: ErrorCode::Unauthorized, message: message.into() })
    }

    pub(super) fn may_read(&self, subject: &Subject) -> Result<bool, StoreError> {
        let Subject { collection, id, .. } = subject;
        let policy = self.context.policy;
        let (shown, looked) = self.judged(|by| match policy.access(by, collection) {
            Access::All => true,
            Access::Some | Access::Related => {
                subject.document().is_none_or(|document| policy.shows(by, collection, id, document))
            }
            Access::None => false,
        })?;
        self.looked.borrow_mut().add(looked);
        Ok(shown)
    }

    /// The judgement of the policy about the writer, which may look at the rows as they are, and at which it
    /// has looked.
    fn judged<T>(&self, judge: impl FnOnce(&Asker<'_>) -> T) -> Result<(T, Looked), StoreError> {
        let looks = LookUps::new(&self.rows);
        let judgement = judge(&Asker::new(self.user, Some(&looks)));
        looks.finish().map(|looked| (judgement, looked))
    }

    /// Checks permissions before anything else, so that a forbidden write discloses nothing of the
    /// record.
    fn forbidden(&self, subject: &Subject, change: &Change) -> Result<Option<Verdict>, StoreError> {
        let Subject { collection, id, .. } = subject;
        let (before, now) = (subject.document(), self.context.now);
        let write = ProposedWrite { collection, id, before, change, now };
        let (judged, _) = self.judged(|by| self.context.policy.permits(by, &write))?;
        Ok(judged.err().map(|message| Verdict::Refused { code: ErrorCode::Unauthorized, message }))
    }

    /// The refusal of a level-1 HTTP write, if there is a reason.
    fn judge_http(
        &self,
        write: &PlainWrite,
        subject: &Subject,
    ) -> Result<Option<Verdict>, StoreError> {
        let kind = write.change.kind;
        Ok(match (&subject.record, kind) {
            (Some(record), WriteKind::Update) if record.document.is_some() => {
                let Some(base) = write.base_version else { return Ok(None) };
                let changed = |name: &str| record.stamp(name).version > base;
                let meets = write.change.delta.fields().any(|(name, _)| changed(name));
                let outdated = meets || base > record.last.version;
                // an app may send by HTTP too what it has said on its socket (PROTOCOL 5.2)
                let after = outdated.then(|| write.change.apply(subject.document())).flatten();
                let Some(after) = after else { return Ok(None) };
                if Some(&adopt(subject.document(), &after)) == subject.document() {
                    return Ok(Some(Verdict::Unchanged { version: Some(record.last.version) }));
                }
                Some(self.conflict(subject)?)
            }
            (_, WriteKind::Update) => Some(not_found(kind)),
            (Some(record), WriteKind::Delete) if record.document.is_some() => None,
            (_, WriteKind::Delete) => Some(Verdict::Unchanged { version: None }),
            (_, WriteKind::Insert) => None,
        })
    }

    /// Applies a change, unless it changes nothing or makes a document or collection too large.
    fn write(&mut self, mut subject: Subject, asked: Asked<'_>) -> Result<Outcome, StoreError> {
        let version = subject.record.as_ref().map(|record| record.last.version);
        let after = asked.change.apply(subject.document());
        if after.as_ref() == subject.document() {
            return Ok(self.outcome(&subject, asked.number, Verdict::Unchanged { version }));
        }
        let makes_one = after.is_some() && subject.document().is_none();
        let reason = after.as_ref().and_then(|document| self.too_large(&subject, document));
        let reason = reason.or_else(|| self.too_many(&subject).filter(|_| makes_one));
        let refused = |message| Verdict::Refused { code: ErrorCode::PayloadTooLarge, message };
        if let Some(message) = reason {
            return Ok(self.outcome(&subject, asked.number, refused(message)));
        }
        let knew = asked.change.kind != WriteKind::Update || self.may_read(&subject)?;
        // the writer's own earlier writes as well: their acks may have told nothing of the record
        let tells_all = asked.change.kind != WriteKind::Update || subject.seq() <= asked.floor;
        let head = subject.head;
        let mut record = self.successor(&subject, &asked, version.unwrap_or(0) + 1, after);
        let last = record.last;
        let (batch, scopes) = subject.move_in_scopes(&self.rows, &mut record)?;
        let row = record.to_row();
        let size = record::size_of_record(&subject.id, &row);
        if let Some(message) = self.too_full(&subject, size).filter(|_| record.document.is_some()) {
            return Ok(self.outcome(&subject, asked.number, refused(message)));
        }
        self.store(&subject, &record, row, batch);
        let (change, above) = (record.change_above(head.seq), record.change_above(asked.floor));
        let document = record.document.clone();
        subject.record = Some(record);
        let may_read = self.may_read(&subject)?;
        self.published.push(Published {
            collection: subject.collection.clone(),
            record_id: subject.id.clone(),
            change,
            seq: last.seq,
            document,
            origin: asked.origin,
            joined: false,
            told_by_ack: knew && may_read,
            scopes,
        });
        let echo = if may_read {
            Some(above)
        } else {
            // without the changes before it, the writer would take the echo for the whole record
            tells_all.then(|| ServerChange { change: asked.change.clone(), ..above })
        };
        let verdict = Verdict::Applied { seq: last.seq, version: last.version, echo };
        Ok(self.outcome(&subject, asked.number, verdict))
    }

    /// The row of a record after a change.
    fn successor(
        &self,
        subject: &Subject,
        asked: &Asked<'_>,
        version: u64,
        document: Option<Document>,
    ) -> RecordRow {
        let (head, now) = (subject.head, self.context.now);
        let last = Stamp { seq: head.seq.next(), version, at: asked.time_or(now).min(now) };
        let mut record = RecordRow {
            last,
            whole: last,
            fields: Vec::new(),
            removed: Vec::new(),
            committed_at: now.max(head.committed_at),
            user: self.user.map(|user| user.id.clone()),
            document,
            left: Vec::new(),
        };
        match (asked.change.kind, &subject.record) {
            (WriteKind::Update, Some(before)) => {
                // a scope's horizon may be lower than the collection's
                let horizon = if subject.scopes.is_some() { Seq(0) } else { head.horizon };
                self.keep_stamps(&mut record, before, asked, horizon);
            }
            (WriteKind::Insert | WriteKind::Update | WriteKind::Delete, _) => {
                keep_times(&mut record, |name| self.stamp(last, asked, name).at);
            }
        }
        record
    }

    /// Keeps the stamps of the fields that an update does not touch.
    ///
    /// If the record would have more tombstones of removed fields than a document may have fields,
    /// the update counts as an insert of the whole record, which needs none (PROTOCOL 13.5).
    fn keep_stamps(
        &self,
        record: &mut RecordRow,
        before: &RecordRow,
        asked: &Asked<'_>,
        horizon: Seq,
    ) {
        let (last, change) = (record.last, asked.change);
        let existed = |name: &str| {
            before.document.as_ref().is_some_and(|document| document.text(name).is_some())
        };
        let mut fields: BTreeMap<Box<str>, Stamp> = before.fields.iter().cloned().collect();
        let mut removed: BTreeMap<Box<str>, Stamp> =
            before.removed.iter().filter(|(_, stamp)| stamp.seq > horizon).cloned().collect();
        for (name, value) in change.delta.fields() {
            let had_tombstone = removed.remove(name).is_some();
            fields.remove(name);
            if value.is_some() {
                fields.insert(name.into(), self.stamp(last, asked, name));
            } else if existed(name) || had_tombstone {
                removed.insert(name.into(), self.stamp(last, asked, name));
            }
        }
        if removed.len() <= self.context.limits.fields {
            record.whole = before.whole;
            record.fields = fields.into_iter().collect();
            record.removed = removed.into_iter().collect();
        } else {
            keep_times(record, |name| match change.touches(name) {
                true => self.stamp(last, asked, name).at,
                false => before.stamp(name).at,
            });
        }
    }

    /// The stamp of a touched field. A time in the future is replaced by the present.
    fn stamp(&self, last: Stamp, asked: &Asked<'_>, name: &str) -> Stamp {
        let own = time_in(asked.at, name);
        let at = own.unwrap_or(asked.time_or(self.context.now));
        let at = at.min(self.context.now);
        Stamp { at, ..last }
    }

    /// Stores the record, its entries in the change index and in the collection's indexes, and the
    /// collection's head, beside the changes of scopes.
    fn store(&mut self, subject: &Subject, record: &RecordRow, row: Vec<u8>, mut batch: Batch) {
        let (collection, id, mut head) = (&subject.collection, &subject.id, subject.head());
        batch.append(subject.move_in_indexes(record));
        if let Some(totals) = &subject.begins {
            Totals { collections: totals.collections + 1, ..totals.clone() }.put(&mut batch);
        }
        if let Some(before) = &subject.record {
            batch.delete(record::index_key(collection, before.last.seq));
            if before.last.seq <= head.measured {
                head.bytes = head.bytes.saturating_sub(subject.size);
            }
            if let Some(document) = &before.document {
                head.count = head.count.saturating_sub(1);
                head.checksum.remove(id, before.last.seq, document);
            }
        }
        if let Some(document) = &record.document {
            head.count += 1;
            head.checksum.add(id, record.last.seq, document);
        }
        if head.measured == head.seq {
            head.bytes += record::size_of_record(id, &row);
            head.measured = record.last.seq;
        }
        head.seq = record.last.seq;
        head.committed_at = record.committed_at;
        let id_bytes = bytes::Bytes::copy_from_slice(id.as_bytes());
        batch.put(record::index_key(collection, record.last.seq), id_bytes);
        batch.put(record::record_key(collection, id), row);
        batch.put(record::head_key(collection), head.to_row());
        self.rows.apply(&batch);
    }
}

/// Keeps the times of the fields that were written before the rest of a record that is written as a
/// whole.
fn keep_times(record: &mut RecordRow, time: impl Fn(&str) -> Timestamp) {
    let Some(document) = &record.document else { return };
    let last = record.last;
    let own = document.iter().map(|(name, _)| (name, Stamp { at: time(name), ..last }));
    let own = own.filter(|(_, stamp)| stamp.at != last.at);
    record.fields = own.map(|(name, stamp)| (name.into(), stamp)).collect();
}

impl<'a> Asked<'a> {
    /// The time of the write; `now` if it has none.
    fn time_or(&self, now: Timestamp) -> Timestamp {
        self.timestamp.unwrap_or(now)
    }

    fn of(mutation: &'a Mutation, origin: Option<Origin>) -> Self {
        Self {
            change: &mutation.change,
            timestamp: mutation.timestamp,
            at: &mutation.at,
            origin,
            floor: mutation.base.unwrap_or_default(),
            number: mutation.number,
        }
    }
}

fn not_found(kind: WriteKind) -> Verdict {
    let message = format!("there is no such record to {kind}; insert it first");
    Verdict::Refused { code: ErrorCode::RecordNotFound, message }
}
