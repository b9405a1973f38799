//! Live streams: the changes of the rings, for each subscription in its turn.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::subscription::{Progress, Subscription};
use super::{Handshake, InputContext, Session, SessionAction};
use crate::protocol::message::{ErrorCode, Level, Mode, ServerChange, ServerMessage};
use crate::protocol::name::{Collection, MutationNumber, Seq};
use crate::protocol::wire::encode_change;
use crate::protocol::write::Change;
use crate::rules::page::{Position, hidden};
use crate::rules::policy::Access;
use crate::server::ring::{Entry, Ring, Rings};

/// The use of the next change of a ring for a stream.
enum NextChange {
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

impl Session {
    pub(super) fn serve_subscribe(
        &mut self,
        collection: Collection,
        position: Position,
        page_bytes: Option<usize>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let again = self.subscriptions.contains_key(&collection);
        let access = cx.env.policy.read(self.auth.user(), &collection);
        if access == Access::None {
            self.unsubscribe(&collection, cx);
            let message = "this user may not read the collection";
            return self.refuse(&collection, ErrorCode::Unauthorized, message, cx);
        }
        if !again && self.subscriptions.len() >= self.limits.subscriptions {
            let most = self.limits.subscriptions;
            let message = alloc::format!("a connection may have at most {most} subscriptions");
            return self.refuse(&collection, ErrorCode::InvalidMessage, message, cx);
        }
        if !again {
            cx.out.push(SessionAction::Follow(collection.clone()));
        }
        self.drop_read(&collection);
        let subscription = Subscription {
            partial: access == Access::Some,
            page: self.limits.page.at_most(page_bytes),
            progress: Progress::CatchingUp(Box::new(position)),
        };
        self.subscriptions.insert(collection, subscription);
        self.release(cx);
    }

    /// Ends a subscription, if there is one. The acks that were due go out first.
    pub(super) fn unsubscribe(&mut self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        if self.subscriptions.remove(collection).is_none() {
            return;
        }
        self.drop_read(collection);
        cx.out.push(SessionAction::Unfollow(collection.clone()));
        self.release(cx);
    }

    /// A page that is under way for a collection will be of no use.
    fn drop_read(&mut self, collection: &Collection) {
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
        // first, so that no live stream can use up the room of those that catch up
        if room > 0 {
            self.read_next(cx);
        }
        let left = self.stream(room, cx);
        self.release(cx);
        self.lift_barriers(cx);
        self.advance(cx);
        if left > 0 && self.is_serving() {
            self.read_next(cx);
        }
    }

    /// Returns `true` if a live stream could go on.
    pub(super) fn is_behind(&self, rings: &Rings) -> bool {
        self.subscriptions.iter().any(|(collection, subscription)| {
            let live_at = subscription.live_at().filter(|_| !self.is_sending_whole(collection));
            live_at.is_some_and(|at| match rings.get(collection) {
                Some(ring) if ring.head() > at => {
                    !ring.entry(at.next()).is_some_and(|entry| self.awaits_verdict(entry))
                }
                Some(_) | None => false,
            })
        })
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

    /// Sends what the rings hold for the live streams, each in its turn. Returns the room left.
    fn stream(&mut self, mut room: usize, cx: &mut InputContext<'_, '_>) -> usize {
        let rings = cx.env.rings;
        let behind = |(collection, subscription): (&Collection, &Subscription)| {
            let at = subscription.live_at().filter(|_| !self.is_sending_whole(collection))?;
            (rings.head(collection) > at).then(|| collection.clone())
        };
        let mut behind: Vec<Collection> = self.subscriptions.iter().filter_map(behind).collect();
        if behind.is_empty() {
            return room;
        }
        self.round = self.round.wrapping_add(1);
        let first = self.round % behind.len();
        behind.rotate_left(first);
        for collection in &behind {
            room = self.stream_one(collection, room, cx);
        }
        room
    }

    fn stream_one(
        &mut self,
        collection: &Collection,
        mut room: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> usize {
        let rings = cx.env.rings;
        let (Some(ring), Some(subscription)) =
            (rings.get(collection), self.subscriptions.get(collection))
        else {
            return room;
        };
        let partial = subscription.partial;
        let Some(mut at) = subscription.live_at() else { return room };
        if self.level() == Level::Plain {
            ring.ask_plain();
        }
        while room > 0 && ring.head() > at {
            let frame = match self.next_change(collection, ring, partial, at, cx) {
                NextChange::Wait => return room,
                NextChange::Missing => {
                    self.fall_behind(collection, at, cx);
                    return room;
                }
                NextChange::Skip => None,
                NextChange::Frame(frame) => Some(frame),
                NextChange::Own(number) => {
                    // an ack without a place that waited for the last one goes first
                    if self.verdicts.any_ack_below(number) {
                        self.release(cx);
                    }
                    self.verdicts.in_place(number, at.next()).map(|ack| {
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
            at = at.next();
            if let Some(subscription) = self.subscriptions.get_mut(collection) {
                subscription.progress = Progress::Live(at);
            }
        }
        room
    }

    /// Decides on the change behind `at`, of a ring whose head is above it.
    fn next_change(
        &self,
        collection: &Collection,
        ring: &Ring,
        partial: bool,
        at: Seq,
        cx: &InputContext<'_, '_>,
    ) -> NextChange {
        let Some(entry) = ring.entry(at.next()) else { return NextChange::Missing };
        if self.awaits_verdict(entry) {
            return NextChange::Wait;
        }
        if partial && !entry.can_be_judged() {
            return NextChange::Missing;
        }
        if let Some(origin) = entry.origin.filter(|origin| origin.conn == self.conn) {
            match (&self.handshake, origin.mutation) {
                (Handshake::Resumable { .. }, Some(number))
                    if self.verdicts.holds(number, entry.seq) =>
                {
                    return NextChange::Own(number);
                }
                // acknowledged out of place, or never to be: the stream has no gaps
                (Handshake::Resumable { .. }, _) => {}
                (Handshake::Undecided | Handshake::Plain | Handshake::Opening { .. }, _) => {
                    return NextChange::Skip;
                }
            }
        }
        NextChange::Frame(if partial {
            self.partial_frame(collection, entry, cx)
        } else {
            entry.frame(self.level())
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
        let user = self.auth.user();
        let Some(document) = &entry.document else { return entry.frame(self.level()) };
        let shown = cx.env.policy.read_record(user, collection, &entry.record_id, document);
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
        encode_change(collection, &entry.record_id, &change, !shown, self.level(), &mut frame);
        frame.into()
    }

    /// The ring has moved on: the acks due so far go out of place, and the client is told that the
    /// collection catches up from the store.
    fn fall_behind(&mut self, collection: &Collection, at: Seq, cx: &mut InputContext<'_, '_>) {
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        self.counters.fell_behind += 1;
        subscription.progress =
            Progress::CatchingUp(Box::new(Position::Delta { floor: at, after: at }));
        let partial = subscription.partial;
        self.release(cx);
        if self.level() == Level::Resumable {
            let subscribed = ServerMessage::Subscribed {
                collection: collection.clone(),
                record_count: None,
                head: Some(cx.env.rings.head(collection)),
                mode: Some(Mode::Delta),
                partial,
            };
            self.send_message(&subscribed, cx);
        }
    }
}
