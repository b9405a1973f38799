//! Live streams: the changes of the rings, for each subscription in its turn.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::subscription::{Progress, Subscription};
use super::{Handshake, InputContext, Session, SessionAction};
use crate::protocol::message::{DeleteReason, ErrorCode, Level, Mode, ServerChange, ServerMessage};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::protocol::wire::encode_change;
use crate::protocol::write::Change;
use crate::rules::page::{Position, hidden};
use crate::rules::policy::Access;
use crate::rules::scope::ScopeSet;
use crate::server::looks::Looks;
use crate::server::ring::{Effect, Entry, Rings, Upcoming};
use crate::server::sets::{AskedSet, Filter, NamedSet, Place};
use crate::server::sight::Sight;

/// The use of the next change of a ring for a stream.
pub(super) enum NextChange {
    /// It goes out as this.
    Frame(Bytes),
    /// It is the place of this session's own ack.
    Own(MutationNumber),
    /// It is not for this client.
    Skip,
    /// Its verdict has yet to come.
    Wait,
    /// It is not in the ring.
    Missing,
}

/// The part of a collection that is subscribed.
struct Part {
    /// `None` for the whole collection.
    scopes: Option<ScopeSet>,
    filter: Option<Filter>,
    set: Option<NamedSet>,
}

impl Session {
    pub(super) fn serve_subscribe(
        &mut self,
        collection: Collection,
        place: Place,
        (filter, number): (Option<Filter>, Option<u64>),
        page_bytes: Option<usize>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let access = self.access(&collection, filter.as_ref(), cx);
        let sight = self.sight(access, &collection, cx);
        if sight.access == Access::None {
            return self.refuse_sight(&collection, cx);
        }
        let position = match self.level() {
            Level::Plain => Position::Now,
            Level::Resumable => {
                let followed = self.has_followed(&collection, place.rights);
                place.start(sight.access, followed)
            }
        };
        let set = number.map(|number| NamedSet { number: Some(number), ..NamedSet::default() });
        let part = Part { scopes: filter.as_ref().map(Filter::scopes), filter, set };
        self.follow(collection, position, part, sight, page_bytes, cx);
    }

    /// Serves a subscription of a set of scopes.
    pub(super) fn serve_set(
        &mut self,
        collection: Collection,
        place: Place,
        (number, set): (Option<u64>, AskedSet),
        page_bytes: Option<usize>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let (policy, asker) = (cx.env.policy, self.asker());
        let Some(granted) = set.grant(number, policy, &asker, &collection) else {
            return self.refuse_sight(&collection, cx);
        };
        let sight = self.sight(granted.access, &collection, cx);
        let followed = self.has_followed(&collection, place.rights);
        let (set, scopes, position) = granted.start(place, followed);
        let part = Part { scopes: Some(scopes), filter: None, set: Some(set) };
        self.follow(collection, position, part, sight, page_bytes, cx);
    }

    fn refuse_sight(&mut self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        let message = "this user may not read the collection";
        self.end_with(collection, ErrorCode::Unauthorized, message, cx);
    }

    fn follow(
        &mut self,
        collection: Collection,
        position: Position,
        Part { scopes, filter, set }: Part,
        sight: Sight,
        page_bytes: Option<usize>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let subscription = Subscription {
            sight,
            rights: None,
            scopes,
            filter,
            set: set.map(Box::new),
            looks: Looks::default(),
            page: self.limits.page.at_most(page_bytes),
            progress: Progress::CatchingUp(Box::new(position)),
            again: false,
            told_live: false,
        };
        let others = self.subscriptions.iter().filter(|(other, _)| **other != collection);
        let taken: usize = others.map(|(_, other)| other.weight()).sum();
        if taken + subscription.weight() > self.limits.subscriptions {
            let most = self.limits.subscriptions;
            let counted = if subscription.set.is_some() { ", each scope counted" } else { "" };
            let message =
                alloc::format!("a connection may have at most {most} subscriptions{counted}");
            return self.end_with(&collection, ErrorCode::InvalidMessage, message, cx);
        }
        let scopes = &subscription.scopes;
        let before = self.subscriptions.get(&collection);
        let same = before.is_some_and(|before| before.scopes == *scopes);
        if !same {
            let interest = self.interest(&collection, scopes.clone());
            cx.out.push(SessionAction::Follow(interest));
        }
        self.drop_read(&collection);
        let before = self.subscriptions.get(&collection);
        let again = before.is_some_and(|before| before.again || before.live_at().is_some());
        let told_live = same && before.is_some_and(|before| before.told_live);
        let looks = before.map_or_else(Looks::default, |before| before.looks.clone());
        let again = again && same;
        let subscription = Subscription { again, told_live, looks, ..subscription };
        self.subscriptions.insert(collection, subscription);
        self.release(cx);
    }

    /// Ends a subscription, if there is one. The acks that were due go out first.
    pub(super) fn unsubscribe(&mut self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        self.end_subscription(collection, cx);
        self.release(cx);
    }

    /// Ends a subscription with an error. The acks come behind it: one that tells nothing of its record is
    /// an answer to a write without effect to whoever takes the stream for live.
    pub(super) fn end_with(
        &mut self,
        collection: &Collection,
        code: ErrorCode,
        message: impl Into<String>,
        cx: &mut InputContext<'_, '_>,
    ) {
        self.end_subscription(collection, cx);
        self.refuse(collection, code, message, cx);
        self.release(cx);
    }

    pub(super) fn end_subscription(
        &mut self,
        collection: &Collection,
        cx: &mut InputContext<'_, '_>,
    ) {
        let Some(subscription) = self.subscriptions.remove(collection) else { return };
        self.drop_read(collection);
        self.follow_collection(collection, cx);
        self.forget_looks(&subscription.looks, cx);
    }

    /// A page that is under way for a collection, and a `synced` that waits, will be of no use.
    pub(super) fn drop_read(&mut self, collection: &Collection) {
        self.pending_sync.take_if(|sync| sync.collection == *collection);
        if let Some(read) = &mut self.pending_read
            && read.collection == *collection
            && !read.whole
        {
            read.stale = true;
        }
    }

    pub(super) fn pump(&mut self, room: usize, cx: &mut InputContext<'_, '_>) {
        if !self.is_serving() {
            return;
        }
        // first, so that no live stream can use up the room of those that catch up; but units that
        // the last read has kept back go out before the next one
        if room > 0 && !self.units_wait {
            self.read_next(cx);
        }
        let left = self.stream(room, cx);
        self.pass_others(cx.env.rings);
        self.release(cx);
        self.finish_sync(cx);
        self.lift_barriers(cx);
        self.advance(cx);
        if left > 0 && self.is_serving() {
            self.read_next(cx);
        }
    }

    /// Returns `true` if the live streams could go on.
    pub(super) fn is_behind(&self, rings: &Rings) -> bool {
        // the streams are one in the order of the numbers: what is next for one of them is first
        let first = self.behind(rings).map(|(_, next)| next).min_by_key(|next| next.order());
        first.is_some_and(|next| self.can_go_on(next, rings))
    }

    /// Returns `true` if the live streams could go on, and not only because a ring has forgotten in
    /// which scopes the changes since then were.
    pub(super) fn is_surely_behind(&self, rings: &Rings) -> bool {
        let sure = self.behind(rings).filter(|(collection, _)| {
            let subscription = self.subscriptions.get(*collection).zip(rings.get(collection));
            subscription.is_some_and(|(it, ring)| !it.may_lack_nothing(ring))
        });
        let first = sure.min_by_key(|(_, next)| next.order());
        first.is_some_and(|(_, next)| self.can_go_on(next, rings))
    }

    fn can_go_on(&self, next: Upcoming<'_>, rings: &Rings) -> bool {
        next.entry()
            .is_none_or(|entry| !self.awaits_verdict(entry) && !self.is_kept_back(entry, rings))
    }

    /// The live streams that are behind their rings, each with its next change.
    fn behind<'a>(
        &'a self,
        rings: &'a Rings,
    ) -> impl Iterator<Item = (&'a Collection, Upcoming<'a>)> {
        self.subscriptions.iter().filter_map(|(collection, subscription)| {
            Some((collection, self.upcoming_in(collection, subscription, rings)?))
        })
    }

    /// The next change for the stream of a collection, if it is live and there is one.
    fn upcoming<'r>(&self, collection: &Collection, rings: &'r Rings) -> Option<Upcoming<'r>> {
        self.upcoming_in(collection, self.subscriptions.get(collection)?, rings)
    }

    fn upcoming_in<'r>(
        &self,
        collection: &Collection,
        subscription: &Subscription,
        rings: &'r Rings,
    ) -> Option<Upcoming<'r>> {
        subscription.live_at().filter(|_| !self.is_sending_whole(collection))?;
        subscription.upcoming(rings.get(collection)?)
    }

    /// Lets the streams of scopes pass the changes of others, which are nothing to them.
    pub(super) fn pass_others(&mut self, rings: &Rings) {
        for (collection, subscription) in &mut self.subscriptions {
            if subscription.scopes.is_some()
                && let Some(ring) = rings.get(collection)
                && subscription.live_at().is_some_and(|at| at < ring.head())
                && subscription.upcoming(ring).is_none()
            {
                subscription.progress = Progress::Live(ring.head());
            }
        }
    }

    /// Returns `true` if a level-1 reader waits for this whole collection. Its changes wait too: the
    /// older state that was read would undo one that is sent before it.
    fn is_sending_whole(&self, collection: &Collection) -> bool {
        self.pending_read.as_ref().is_some_and(|r| r.whole && r.collection == *collection)
    }

    /// Returns `true` if a change was made by this session's transaction under way. Its ack has to
    /// wait for the acks of the writes before it, which have not come yet.
    fn awaits_verdict(&self, entry: &Entry) -> bool {
        let Some(origin) = entry.origin.filter(|origin| origin.conn == self.conn) else {
            return false;
        };
        let is_number = |number| number == origin.mutation;
        origin.mutation.is_some()
            && self
                .pending_transaction
                .as_ref()
                .is_some_and(|pending| pending.writes.iter().any(|(_, _, n)| is_number(*n)))
    }

    /// Sends what the rings hold for the live streams, in the order in which it was published.
    /// Returns the room left.
    pub(super) fn stream(&mut self, room: usize, cx: &mut InputContext<'_, '_>) -> usize {
        let mut behind = self.behind(cx.env.rings);
        let Some((first, ..)) = behind.next() else { return room };
        let alone = behind.next().is_none().then(|| first.clone());
        drop(behind);
        self.round = self.round.wrapping_add(1);
        self.units_wait = false;
        match alone {
            Some(collection) => self.stream_alone(&collection, room, cx),
            None => self.stream_merged(room, cx),
        }
    }

    /// Sends what the ring of the only stream holds that is behind.
    fn stream_alone(
        &mut self,
        collection: &Collection,
        mut room: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> usize {
        let rings = cx.env.rings;
        let parts = core::slice::from_ref(collection);
        while room > 0 {
            let Some(left) = self.stream_one(collection, u64::MAX, room, cx) else { return room };
            room = left;
            if room == 0 || self.upcoming(collection, rings).is_none() {
                return room;
            }
            // a unit stopped it
            let Some(left) = self.stream_some(parts, u64::MAX, room, cx) else { return room };
            room = left;
        }
        room
    }

    /// Sends what the rings of several streams hold, in the order of its numbers.
    fn stream_merged(&mut self, mut room: usize, cx: &mut InputContext<'_, '_>) -> usize {
        let rings = cx.env.rings;
        let next = self.behind(rings).map(|(collection, next)| (next.order(), collection.clone()));
        let mut next: BTreeSet<(u64, Collection)> = next.collect();
        while room > 0
            && let Some((order, collection)) = next.pop_first()
        {
            let mut parts = Vec::from([collection]);
            while next.first().is_some_and(|(other, _)| *other == order && order > 0) {
                parts.extend(next.pop_first().map(|(_, collection)| collection));
            }
            let until = next.first().map_or(u64::MAX, |(order, _)| *order);
            match self.stream_some(&parts, until, room, cx) {
                Some(left) => room = left,
                None => return room,
            }
            for collection in parts {
                let Some(order) = self.upcoming(&collection, rings).map(Upcoming::order) else {
                    continue;
                };
                next.insert((order, collection));
            }
        }
        room
    }

    /// Sends the next unit, which has parts in these collections, or the changes of one collection up
    /// to the unit with the number `until`. Returns the room left; `None` if the next one has to wait.
    fn stream_some(
        &mut self,
        parts: &[Collection],
        until: u64,
        room: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> Option<usize> {
        let rings = cx.env.rings;
        let first = parts.first()?;
        match self.upcoming(first, rings).and_then(Upcoming::entry) {
            Some(entry) if self.is_kept_back(entry, rings) => {
                self.units_wait = true;
                None
            }
            Some(entry) if entry.grouped => self.stream_unit(parts, entry.order, room, cx),
            Some(_) | None => self.stream_one(first, until, room, cx),
        }
    }

    /// Sends changes of one collection that are units of their own. Returns the room left; `None` if
    /// the next one has to wait.
    fn stream_one(
        &mut self,
        collection: &Collection,
        until: u64,
        mut room: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> Option<usize> {
        let rings = cx.env.rings;
        let (Some(ring), Some(subscription)) =
            (rings.get(collection), self.subscriptions.get(collection))
        else {
            return Some(room);
        };
        let (partial, scopes) = (subscription.is_partial(), subscription.scopes.clone());
        let Some(mut at) = subscription.live_at() else { return Some(room) };
        if self.level() == Level::Plain {
            ring.ask_plain();
        }
        while room > 0
            && let Some(next) = ring.next(at, scopes.as_ref())
        {
            let entry = next.entry();
            if entry.is_some_and(|entry| entry.order >= until || entry.grouped) {
                return Some(room);
            }
            if let Some(entry) = entry.filter(|entry| entry.seq > at.next()) {
                at = self.pass_up_to(collection, entry, cx);
            }
            let frame = match self.next_change(collection, entry, partial, scopes.as_ref(), cx) {
                NextChange::Wait => return None,
                NextChange::Missing => {
                    self.fall_behind(collection, at, cx);
                    return Some(room);
                }
                NextChange::Skip => None,
                NextChange::Frame(frame) => Some(frame),
                NextChange::Own(number) if self.verdicts.unit_of(number).is_some() => {
                    let order = entry.map_or(0, |entry| entry.order);
                    let parts = core::slice::from_ref(collection);
                    return self.stream_unit(parts, order, room, cx);
                }
                NextChange::Own(number) => {
                    // an ack without a place, or that has lost it, goes first if it waited for the last one
                    let may_lose = partial || scopes.is_some();
                    if self.verdicts.any_ack_below(number)
                        || may_lose && self.verdicts.any_below(number)
                    {
                        self.release(cx);
                    }
                    let seq = entry.map_or(at.next(), |entry| entry.seq);
                    self.verdicts.in_place(number, seq).map(|ack| {
                        let mut frame = Vec::new();
                        ServerMessage::Ack(ack).encode(Level::Resumable, &mut frame);
                        frame.into()
                    })
                }
            };
            if let Some(frame) = frame {
                room = room.saturating_sub(frame.len());
                self.send_frame(frame, cx);
            }
            at = entry.map_or(at.next(), |entry| entry.seq);
            self.move_to(collection, at);
        }
        Some(room)
    }

    /// The stream of scopes passes what lies before its next change. Acks whose writes are nothing to it go
    /// out before that of a later one.
    pub(super) fn pass_up_to(
        &mut self,
        collection: &Collection,
        next: &Entry,
        cx: &mut InputContext<'_, '_>,
    ) -> Seq {
        let at = Seq(next.seq.0 - 1);
        self.move_to(collection, at);
        if !self.awaits_verdict(next) {
            self.release(cx);
        }
        at
    }

    /// The stream of a live collection was sent up to this seq.
    pub(super) fn move_to(&mut self, collection: &Collection, at: Seq) {
        if let Some(subscription) = self.subscriptions.get_mut(collection) {
            subscription.progress = Progress::Live(at);
        }
    }

    /// Decides on the next change of a stream, as its ring has it.
    pub(super) fn next_change(
        &self,
        collection: &Collection,
        entry: Option<&Entry>,
        partial: bool,
        scopes: Option<&ScopeSet>,
        cx: &InputContext<'_, '_>,
    ) -> NextChange {
        let Some(entry) = entry else { return NextChange::Missing };
        if self.awaits_verdict(entry) {
            return NextChange::Wait;
        }
        let is_related = || self.subscriptions.get(collection).is_some_and(|it| it.is_related());
        if partial && (!entry.can_be_judged() || is_related()) {
            return NextChange::Missing;
        }
        if let Some(origin) = entry.origin.filter(|origin| origin.conn == self.conn) {
            match (&self.handshake, origin.mutation) {
                (Handshake::Resumable { .. }, Some(number))
                    if self.verdicts.holds(number, entry.seq)
                        || self.verdicts.unit_of(number).is_some() =>
                {
                    if entry.is_told_by_ack(scopes) {
                        return NextChange::Own(number);
                    }
                }
                // acknowledged out of place, or never to be: the stream has no gaps
                (Handshake::Resumable { .. }, _) => {}
                (Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. }, _) => {
                    return NextChange::Skip;
                }
            }
        }
        let effect = scopes.map_or(Effect::Changes, |scopes| entry.effect_on(scopes));
        NextChange::Frame(if partial && effect != Effect::Leaves {
            self.partial_frame(collection, entry, cx)
        } else {
            entry.frame_of(effect, self.level())
        })
    }

    /// The frame for a user who may not read some records. It carries the whole record, since the
    /// client may never have seen the state before the change.
    fn partial_frame(
        &self,
        collection: &Collection,
        entry: &Entry,
        cx: &InputContext<'_, '_>,
    ) -> Bytes {
        let Some(document) = &entry.document else { return entry.frame(self.level()) };
        let shown = cx.env.policy.shows(&self.asker(), collection, &entry.record_id, document);
        let change = if shown {
            ServerChange {
                change: Change::insert(document.clone()),
                version: entry.version,
                timestamp: entry.timestamp,
                user_id: entry.user.clone(),
                ..hidden(entry.seq)
            }
        } else {
            hidden(entry.seq)
        };
        let mut frame = Vec::new();
        let (reason, level) = ((!shown).then_some(DeleteReason::Filter), self.level());
        encode_change(collection, &entry.record_id, &change, reason, None, level, &mut frame);
        frame.into()
    }

    /// The ring has moved on: the client is told that the collection catches up from the store, and the
    /// acks due so far go out of place. Behind that, since they may show a part of a transaction.
    pub(super) fn fall_behind(
        &mut self,
        collection: &Collection,
        at: Seq,
        cx: &mut InputContext<'_, '_>,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        self.counters.fell_behind += 1;
        subscription.told_live = false;
        subscription.progress = Progress::CatchingUp(Box::new(subscription.behind(at)));
        let (set, refused) = subscription.numbered();
        let (partial, rights) = (subscription.is_partial(), subscription.rights);
        if self.level() == Level::Resumable {
            let subscribed = ServerMessage::Subscribed {
                collection: collection.clone(),
                record_count: None,
                head: Some(cx.env.rings.head(collection)),
                mode: Some(Mode::Delta),
                partial,
                rights,
                set,
                refused,
            };
            self.send_message(&subscribed, cx);
        }
        self.release(cx);
    }
}
