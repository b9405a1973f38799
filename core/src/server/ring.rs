//! The recent changes of each collection, encoded once and shared by all who follow it.

mod scopes;

use alloc::boxed::Box;
use alloc::string::String;
use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicBool, Ordering};

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::message::{DeleteReason, Level, ServerChange};
use crate::protocol::name::{Collection, RecordId, Seq, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::wire::{encode_change, to_plain};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::page::hidden;
use crate::rules::scope::{Scope, ScopeChange, ScopeSet};
use crate::rules::transaction::{Origin, Published};
use crate::server::checks::ensure;

use scopes::{Forgotten, ScopeIndex};

/// The rings of all collections.
///
/// A collection has one from its first change on; it keeps the head for good (about 200 bytes) and
/// the changes while there is room. Whoever misses one gets it from the store.
#[derive(Clone, Debug)]
pub struct Rings {
    rings: BTreeMap<Collection, Ring>,
    /// Which collections hold changes, the one published to longest ago first.
    by_age: BTreeMap<u64, Collection>,
    clock: u64,
    bytes: usize,
    limits: RingLimits,
}

/// The limits of the rings of recent changes.
///
/// ```
/// use synclayer_core::{RingLimits, Rings};
///
/// let mut limits = RingLimits::default();
/// limits.total_bytes = 256 << 20;
/// assert_eq!(Rings::new(limits).bytes(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RingLimits {
    /// The maximal size of the changes of one collection, in bytes. Default 4 MiB.
    pub collection_bytes: usize,
    /// The maximal size of the changes of all collections together, in bytes. Default 64 MiB.
    pub total_bytes: usize,
    /// `true` to keep each change with the record that it made. Set it if the policy lets users
    /// read some records of a collection: without it they are served from the store.
    /// Default `false`.
    pub documents: bool,
    /// `true` to push the whole record in each `update` to a level-1 reader, as apps expect that put
    /// what is pushed in the place of what they have. A ring then keeps the whole record beside each
    /// change. Default `false`: the changed fields.
    pub plain_whole: bool,
}

impl Default for RingLimits {
    fn default() -> Self {
        let (collection_bytes, total_bytes) = (4 << 20, 64 << 20);
        Self { collection_bytes, total_bytes, documents: false, plain_whole: false }
    }
}

/// The recent changes of one collection. They need not be without gaps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    head: Seq,
    entries: VecDeque<Entry>,
    bytes: usize,
    age: u64,
    /// The last part of a unit of several collections: its seq, and the unit's number.
    spanning: (Seq, u64),
    /// The last such part that is no longer here.
    spanning_gone: (Seq, u64),
    /// The number up to which changes were published that are not here.
    gone: u64,
    scopes: ScopeIndex,
    plain: PlainDemand,
}

/// The next change for a reader.
#[derive(Clone, Copy)]
pub(crate) enum Upcoming<'a> {
    Entry(&'a Entry),
    /// There is one, or there may be, and it is not here.
    Missing,
}

impl<'a> Upcoming<'a> {
    pub(crate) fn entry(self) -> Option<&'a Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Missing => None,
        }
    }

    /// The number of its unit; 0 for a change that is not here.
    pub(crate) fn order(self) -> u64 {
        self.entry().map_or(0, |entry| entry.order)
    }
}

/// The demand for a collection's level-1 frames. A ring keeps them while level-1 readers ask, so
/// that many share one. Without it each is made from the level-2 frame when it is asked for.
#[derive(Debug, Default)]
struct PlainDemand {
    /// `true` if a reader has asked since the last change. Readers share the ring.
    asked: AtomicBool,
    /// The number of changes to come whose level-1 frames are kept.
    left: u32,
}

/// The number of changes whose level-1 frames are kept after a reader has asked for one.
const PLAIN_KEPT: u32 = 1024;

impl PlainDemand {
    fn ask(&self) {
        // most often it is set: a load does not take the cache line from the other readers
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the level-1 frame of the next change is to be kept.
    fn next(&mut self) -> bool {
        if core::mem::take(self.asked.get_mut()) {
            self.left = PLAIN_KEPT;
        }
        let is_wanted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_wanted
    }

    fn is_open(&self) -> bool {
        self.left > 0 || self.asked.load(Ordering::Relaxed)
    }
}

impl Clone for PlainDemand {
    fn clone(&self) -> Self {
        let asked = AtomicBool::new(self.asked.load(Ordering::Relaxed));
        Self { asked, left: self.left }
    }
}

/// One recent change.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its seq.
    pub(crate) seq: Seq,
    /// The number of its unit, or its own, in the order in which all were published.
    pub(crate) order: u64,
    /// The record.
    pub(crate) record_id: RecordId,
    /// The connection that made it, if one did.
    pub(crate) origin: Option<Origin>,
    /// The record's version after it.
    pub(crate) version: Option<u64>,
    /// The writer's time.
    pub(crate) timestamp: Option<Timestamp>,
    /// The writer.
    pub(crate) user: Option<UserId>,
    /// The record after it, where [`RingLimits::documents`] keeps it and it is not deleted.
    pub(crate) document: Option<Document>,
    deleted: bool,
    /// `true` if an ack tells its writer of all of it.
    told_by_ack: bool,
    /// `true` if the record may not have been there before, or not be there after it.
    comes_or_goes: bool,
    /// `true` if it is not alone in its unit.
    pub(crate) grouped: bool,
    /// `true` if its unit has changes of other collections too.
    pub(crate) spanning: bool,
    frame: Bytes,
    /// The level-1 frame, where it is kept.
    plain: Option<Bytes>,
    /// The record's scopes, if it has any.
    pub(crate) scopes: Option<Box<EntryScopes>>,
}

/// The scopes of a change, and its frames for readers of whose scopes the record enters or leaves one.
#[derive(Clone, Debug)]
pub(crate) struct EntryScopes {
    change: ScopeChange,
    /// The whole record, where `frame` has not got it.
    entering: Option<Bytes>,
    leaving: Bytes,
}

/// The unit of a change that is published.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    order: u64,
    grouped: bool,
    spanning: bool,
}

impl Entry {
    fn new(published: &Published, group: Group, limits: &RingLimits, keeps_plain: bool) -> Self {
        let Published { collection, record_id, change, seq, document, origin, scopes, .. } =
            published;
        let is_update = change.change.kind == WriteKind::Update;
        let of_record = scopes.as_ref().filter(|_| is_update);
        let prev = of_record.and_then(|scopes| scopes.prev);
        let marked = |change: &ServerChange, reason, prev, level| {
            let mut out = Vec::new();
            encode_change(collection, record_id, change, reason, prev, level, &mut out);
            Bytes::from(out)
        };
        let frame = |change: &ServerChange, level| marked(change, None, None, level);
        let plain = match document {
            Some(document) if limits.plain_whole => {
                let delta = Delta::new(document.clone(), Vec::new());
                let whole = Change { kind: change.change.kind, delta };
                Some(frame(&ServerChange { change: whole, ..change.clone() }, Level::Plain))
            }
            Some(_) | None => keeps_plain.then(|| frame(change, Level::Plain)),
        };
        Self {
            seq: *seq,
            order: group.order,
            grouped: group.grouped,
            spanning: group.spanning,
            record_id: record_id.clone(),
            origin: *origin,
            version: change.version,
            timestamp: change.timestamp,
            user: change.user_id.clone(),
            document: document.clone().filter(|_| limits.documents),
            deleted: document.is_none(),
            told_by_ack: published.told_by_ack,
            comes_or_goes: !is_update,
            frame: marked(change, None, prev, Level::Resumable),
            plain,
            scopes: scopes.as_ref().map(|scopes| {
                let entering = scopes.entering.as_ref();
                Box::new(EntryScopes {
                    entering: entering.map(|whole| frame(whole, Level::Resumable)),
                    leaving: marked(
                        &hidden(*seq),
                        Some(DeleteReason::Scope),
                        None,
                        Level::Resumable,
                    ),
                    change: ScopeChange { entering: None, ..(**scopes).clone() },
                })
            }),
        }
    }

    /// The effect of the change on a reader of these scopes.
    pub(crate) fn effect_on(&self, scopes: &BTreeSet<Scope>) -> Effect {
        let Some(own) = &self.scopes else { return Effect::None };
        let meets = |all: &[Scope]| all.iter().any(|scope| scopes.contains(scope));
        match (meets(&own.change.before), meets(&own.change.after)) {
            (_, true) if self.deleted => Effect::None,
            (true, true) => Effect::Changes,
            (false, true) => Effect::Enters,
            (true, false) => Effect::Leaves,
            (false, false) => Effect::None,
        }
    }

    /// Returns `true` if its writer, who follows the collection or these scopes, can tell the record by the ack
    /// in its place.
    pub(crate) fn is_told_by_ack(&self, scopes: Option<&ScopeSet>) -> bool {
        let in_scopes = |scopes: &ScopeSet| match self.effect_on(scopes) {
            Effect::Changes | Effect::Leaves => true,
            // an insert is all of the record
            Effect::Enters => self.scopes.as_ref().is_some_and(|own| own.entering.is_none()),
            Effect::None => false,
        };
        self.told_by_ack && scopes.is_none_or(in_scopes)
    }

    /// The frame that tells a reader of scopes of this effect.
    pub(crate) fn frame_of(&self, effect: Effect, level: Level) -> Bytes {
        let own = match (effect, &self.scopes) {
            (Effect::Enters, Some(scopes)) => scopes.entering.as_ref(),
            (Effect::Leaves, Some(scopes)) if !self.deleted => Some(&scopes.leaving),
            _ => None,
        };
        match own {
            None => self.frame(level),
            Some(frame) if level == Level::Plain => to_plain(frame),
            Some(frame) => frame.clone(),
        }
    }

    /// Returns `true` if the policy can judge it: by the record, or for a deletion without it.
    pub(crate) fn can_be_judged(&self) -> bool {
        self.deleted || self.document.is_some()
    }

    /// The frame that tells of the change.
    #[must_use]
    pub(crate) fn frame(&self, level: Level) -> Bytes {
        match level {
            Level::Plain => self.plain.clone().unwrap_or_else(|| to_plain(&self.frame)),
            Level::Resumable => self.frame.clone(),
        }
    }

    fn size(&self) -> usize {
        let document = self.document.as_ref().map_or(0, Document::size);
        let plain = self.plain.as_ref().map_or(0, Bytes::len);
        let scopes = self.scopes.as_ref().map_or(0, |scopes| {
            let frames = scopes.leaving.len() + scopes.entering.as_ref().map_or(0, Bytes::len);
            let names = scopes.change.before.iter().chain(&scopes.change.after);
            size_of::<EntryScopes>() + frames + names.map(scopes::size).sum::<usize>()
        });
        size_of::<Self>() + self.frame.len() + plain + document + scopes
    }
}

/// The effect of a change on a reader of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// A record of theirs changes.
    Changes,
    /// The record enters one, and was in none of them.
    Enters,
    /// The record is in none of them any more.
    Leaves,
    /// It is nothing to them.
    None,
}

impl Ring {
    /// The last seq that is known to be committed, whether or not its change is here.
    #[must_use]
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Notes that a level-1 reader follows: the level-1 frames of the next changes are kept.
    pub(crate) fn ask_plain(&self) {
        self.plain.ask();
    }

    /// The change with this seq, if it is here.
    #[must_use]
    pub(crate) fn entry(&self, seq: Seq) -> Option<&Entry> {
        // mostly the seqs follow each other up to the last one
        let before_last = self.entries.back()?.seq.0.checked_sub(seq.0)?;
        let place =
            usize::try_from(before_last).ok().and_then(|n| self.entries.len().checked_sub(n + 1));
        let guess =
            place.and_then(|place| self.entries.get(place)).filter(|entry| entry.seq == seq);
        guess.or_else(|| {
            let place = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
            self.entries.get(place)
        })
    }

    /// The next change above a seq, of the whole collection or of these scopes; `None` if there is none.
    #[must_use]
    #[inline]
    pub(crate) fn next(&self, at: Seq, scopes: Option<&ScopeSet>) -> Option<Upcoming<'_>> {
        // nearly always: a session asks for each of its streams, and one of them has moved
        if self.head <= at { None } else { self.next_of_more(at, scopes) }
    }

    fn next_of_more(&self, at: Seq, scopes: Option<&ScopeSet>) -> Option<Upcoming<'_>> {
        let next = match scopes {
            None => Some(at.next()),
            Some(scopes) => match self.scopes.next(at, scopes) {
                Ok(None) => return None,
                Ok(next) => next,
                Err(Forgotten) => None,
            },
        };
        Some(next.and_then(|seq| self.entry(seq)).map_or(Upcoming::Missing, Upcoming::Entry))
    }

    /// Returns `true` if nobody knows in which scopes the changes above a seq were.
    pub(crate) fn has_forgotten(&self, at: Seq) -> bool {
        self.head > at && self.scopes.is_unknown_above(at)
    }

    /// The number of the last unit of several collections whose part in this collection is at or below
    /// a seq, 0 if there was none; `None` if that is forgotten, because changes above the seq are gone.
    #[must_use]
    pub(crate) fn spanning_up_to(&self, seq: Seq) -> Option<u64> {
        let (last, order) = self.spanning;
        if last <= seq {
            return Some(order);
        }
        let mut parts = self.entries.iter().rev().filter(|entry| entry.spanning);
        let (gone, order) = self.spanning_gone;
        let known = parts.find(|e| e.seq <= seq).map(|entry| entry.order);
        known.or_else(|| (gone <= seq).then_some(order))
    }

    /// Returns `true` if one of some records may have come or gone by what was published above a number.
    pub(crate) fn moved_above(&self, number: u64, is_one: impl Fn(&RecordId) -> bool) -> bool {
        let mut newer = self.entries.iter().rev().take_while(|entry| entry.order > number);
        self.gone > number || newer.any(|entry| entry.comes_or_goes && is_one(&entry.record_id))
    }

    /// Takes out the oldest change. Returns its size.
    fn pop(&mut self) -> Option<usize> {
        let oldest = self.entries.pop_front()?;
        self.gone = oldest.order;
        if oldest.spanning {
            self.spanning_gone = (oldest.seq, oldest.order);
        }
        let before = self.bytes;
        self.bytes -= oldest.size();
        if let Some(scopes) = &oldest.scopes {
            self.bytes -= self.scopes.pop(oldest.seq, &scopes.change);
        }
        Some(before - self.bytes)
    }

    /// Forgets the scopes without a change in the ring where they take more bytes than this. Returns the
    /// number of bytes.
    fn shrink(&mut self, most: usize) -> usize {
        let quiet = self.scopes.shrink(most);
        self.bytes -= quiet;
        quiet
    }

    /// Takes out all changes. Returns their size.
    fn clear(&mut self) -> usize {
        self.gone = self.entries.back().map_or(self.gone, |newest| newest.order);
        self.entries = VecDeque::new();
        self.scopes = ScopeIndex::unknown_up_to(self.head);
        self.spanning_gone = self.spanning;
        core::mem::take(&mut self.bytes)
    }
}

impl Rings {
    /// Empty rings.
    #[must_use]
    pub fn new(limits: RingLimits) -> Self {
        Self { rings: BTreeMap::new(), by_age: BTreeMap::new(), clock: 0, bytes: 0, limits }
    }

    /// The ring of a collection; `None` while nothing is known of it.
    #[must_use]
    pub(crate) fn get(&self, collection: &Collection) -> Option<&Ring> {
        self.rings.get(collection)
    }

    /// The last seq of a collection that is known to be committed; 0 while nothing is known.
    #[must_use]
    pub(crate) fn head(&self, collection: &Collection) -> Seq {
        self.rings.get(collection).map_or(Seq(0), Ring::head)
    }

    /// The number of bytes that the changes take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the last change that was published.
    pub(crate) fn published(&self) -> u64 {
        self.clock
    }

    /// Returns `true` if level-1 readers get whole records in updates.
    pub(crate) fn plain_whole(&self) -> bool {
        self.limits.plain_whole
    }

    /// Adds changes that are durable, those of each unit under one number. Changes of a collection
    /// come in the order of their seqs; one that comes late is left out.
    pub(crate) fn publish_all(&mut self, published: &[Published]) {
        for unit in published.chunk_by(|_, next| next.joined) {
            let spanning = unit.iter().any(|change| change.collection != unit[0].collection);
            let group = Group { order: self.clock + 1, grouped: unit.len() > 1, spanning };
            unit.iter().for_each(|change| self.publish(change, group));
        }
    }

    fn publish(&mut self, published: &Published, group: Group) {
        let ring = self.rings.entry(published.collection.clone()).or_default();
        if published.seq <= ring.head {
            return;
        }
        let entry = Entry::new(published, group, &self.limits, ring.plain.next());
        let mut size = entry.size();
        if published.seq > ring.head.next() {
            ring.scopes.forget_up_to(Seq(published.seq.0 - 1));
            ring.gone = group.order;
        }
        if let Some(scopes) = &entry.scopes {
            size += ring.scopes.push(published.seq, &scopes.change);
        }
        ring.head = published.seq;
        if group.spanning {
            ring.spanning = (published.seq, group.order);
        }
        ring.entries.push_back(entry);
        ring.bytes += size;
        self.bytes += size;
        let most = self.limits.collection_bytes;
        self.bytes -= ring.shrink(most / 4);
        while ring.bytes > most
            && let Some(size) = ring.pop()
        {
            // its scopes may be quiet from now on
            self.bytes -= size + ring.shrink(most / 4);
        }
        self.by_age.remove(&ring.age);
        self.clock += 1;
        ring.age = self.clock;
        self.by_age.insert(self.clock, published.collection.clone());
        self.make_room();
    }

    /// Notes that changes up to a seq are committed which are not here, because another server
    /// made them: those who follow the collection get them from the store.
    pub(crate) fn note_head(&mut self, collection: &Collection, head: Seq) {
        let ring = self.rings.entry(collection.clone()).or_default();
        if ring.head < head {
            ring.head = head;
            ring.scopes.forget_up_to(head);
            self.clock += 1;
            ring.gone = self.clock;
        }
    }

    /// Empties the rings that were published to longest ago until the rest fits.
    fn make_room(&mut self) {
        while self.bytes > self.limits.total_bytes
            && let Some((_, collection)) = self.by_age.pop_first()
        {
            if let Some(ring) = self.rings.get_mut(&collection) {
                self.bytes -= ring.clear();
            }
        }
    }

    /// Hashes what is known of each collection, which changes are here, and their order.
    pub(crate) fn hash_into(&self, hasher: &mut impl Hasher) {
        let mut order = Vec::new();
        for (place, (collection, ring)) in self.rings.iter().enumerate() {
            (collection, ring.head, ring.plain.is_open()).hash(hasher);
            (ring.spanning.0, ring.spanning_gone.0).hash(hasher);
            ring.scopes.hash_into(hasher);
            for entry in &ring.entries {
                (entry.seq, &entry.frame, entry.size()).hash(hasher);
                (entry.grouped, entry.spanning).hash(hasher);
                order.push((entry.order, place));
            }
        }
        order.sort_unstable();
        order.iter().for_each(|(_, place)| place.hash(hasher));
    }

    /// Panics where the bookkeeping is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut total = 0;
        for ring in self.rings.values() {
            let bytes: usize = ring.entries.iter().map(Entry::size).sum();
            ensure(ring.bytes == bytes + ring.scopes.bytes(), "a ring's bytes")?;
            let changes = ring.entries.iter().filter_map(|entry| {
                entry.scopes.as_ref().map(|scopes| (entry.seq, &scopes.change))
            });
            ring.scopes.check(changes)?;
            ensure(ring.entries.iter().is_sorted_by(|a, b| a.seq < b.seq), "a ring's order")?;
            ensure(ring.entries.iter().is_sorted_by_key(|e| e.order), "a ring's units")?;
            ensure(
                ring.entries.back().is_none_or(|entry| entry.seq <= ring.head),
                "a ring's head",
            )?;
            ensure(ring.bytes <= self.limits.collection_bytes, "a ring's limit")?;
            total += ring.bytes;
        }
        ensure(self.bytes == total, "the rings' bytes")?;
        ensure(total <= self.limits.total_bytes, "the rings' limit")?;
        Ok(())
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self::new(RingLimits::default())
    }
}

#[cfg(test)]
mod tests;
