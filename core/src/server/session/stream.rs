//! Subscriptions: catching up from the store, then live from the ring.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Action, Link, ReadReport, ReadTicket, Session, Turn};
use crate::protocol::message::{
    Cursor, ErrorCode, Level, Mode, Resume, ServerChange, ServerMessage,
};
use crate::protocol::name::{Collection, Seq};
use crate::protocol::wire::encode_change;
use crate::protocol::write::Change;
use crate::rules::page::{
    Content, Next, Page, PageChange, Position, ReadAnswer, ReadRequest, Reader, hidden,
};
use crate::rules::policy::Access;
use crate::server::ring::{Entry, Ring, Rings};
use crate::store::StoreError;

/// A collection that the client follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Subscription {
    /// Whether each record needs the policy's leave.
    partial: bool,
    stream: Stream,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stream {
    /// The next page begins here.
    CatchingUp(Box<Position>),
    /// Every change up to here was sent.
    Live(Seq),
}

impl Subscription {
    /// Up to where a live stream was sent.
    pub(super) fn live_at(&self) -> Option<Seq> {
        match self.stream {
            Stream::Live(at) => Some(at),
            Stream::CatchingUp(_) => None,
        }
    }
}

/// The read that is under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reading {
    generation: u64,
    collection: Collection,
    /// Whether it is for a level-1 `sync`.
    whole: bool,
    /// Nobody waits for it any more.
    stale: bool,
}

/// What the stream makes of the next change of a ring.
enum Step {
    /// It goes out as this.
    Frame(bytes::Bytes),
    /// It is the place of this session's own ack.
    Own(crate::protocol::name::MutationNumber),
    /// It is not for this client.
    Skip,
    /// Its verdict has yet to come.
    Wait,
    /// It is not in the ring.
    Missing,
    /// There is none.
    End,
}

impl Session {
    pub(super) fn serve_subscribe(
        &mut self,
        collection: Collection,
        cursor: Option<Cursor>,
        resume: Option<Resume>,
        turn: &mut Turn<'_, '_>,
    ) {
        let again = self.subscriptions.contains_key(&collection);
        let access = turn.lent.policy.read(self.auth.user(), &collection);
        if access == Access::None {
            self.unsubscribe(&collection, turn);
            let message = "this user may not read the collection";
            return self.refuse(&collection, ErrorCode::Unauthorized, message, turn);
        }
        if !again && self.subscriptions.len() >= self.config.subscriptions {
            let most = self.config.subscriptions;
            let message = alloc::format!("a connection may have at most {most} subscriptions");
            return self.refuse(&collection, ErrorCode::InvalidMessage, message, turn);
        }
        let position = match self.level() {
            Level::Plain => Position::Now,
            Level::Resumable => Position::Start { cursor, resume },
        };
        if !again {
            turn.out.push(Action::Follow(collection.clone()));
        }
        self.drop_read(&collection);
        let subscription = Subscription {
            partial: access == Access::Some,
            stream: Stream::CatchingUp(Box::new(position)),
        };
        self.subscriptions.insert(collection, subscription);
        self.release(turn);
    }

    /// Ends a subscription, if there is one. The acks that were due go out first.
    pub(super) fn unsubscribe(&mut self, collection: &Collection, turn: &mut Turn<'_, '_>) {
        if self.subscriptions.remove(collection).is_none() {
            return;
        }
        self.drop_read(collection);
        turn.out.push(Action::Unfollow(collection.clone()));
        self.release(turn);
    }

    /// A page that is under way for a collection will be of no use.
    fn drop_read(&mut self, collection: &Collection) {
        if let Some(reading) = &mut self.reading
            && reading.collection == *collection
            && !reading.whole
        {
            reading.stale = true;
        }
    }

    pub(super) fn pump(&mut self, room: usize, turn: &mut Turn<'_, '_>) {
        if !self.is_serving() {
            return;
        }
        // first, so that no live stream can use up the room of those that catch up
        if room > 0 {
            self.read_next(turn);
        }
        let left = self.stream(room, turn);
        self.release(turn);
        self.lift_barriers(turn);
        self.advance(turn);
        if left > 0 && self.is_serving() {
            self.read_next(turn);
        }
    }

    /// Whether a live stream could go on.
    pub(super) fn is_behind(&self, rings: &Rings) -> bool {
        self.subscriptions.iter().any(|(collection, subscription)| {
            let live_at = subscription.live_at().filter(|_| !self.is_sending_whole(collection));
            live_at.is_some_and(|at| match rings.get(collection) {
                Some(ring) if ring.head() > at => {
                    !ring.entry(at.next()).is_some_and(|entry| self.has_to_wait(entry, ring))
                }
                Some(_) | None => false,
            })
        })
    }

    /// Whether a level-1 reader waits for this whole collection. Its changes wait too: one that
    /// came before what was read earlier would be taken back by it.
    fn is_sending_whole(&self, collection: &Collection) -> bool {
        self.reading.as_ref().is_some_and(|r| r.whole && r.collection == *collection)
    }

    /// Whether a read is to be started.
    ///
    /// Reads and transactions take turns: a page that was read before a write and came after its
    /// ack would contradict it, in its records and in its checksum.
    pub(super) fn wants_read(&self) -> bool {
        self.reading.is_none()
            && (self.transacting.is_none() || planted!(ReadsCrossWrites) || self.is_hasty())
            && (!self.wanted.is_empty() || self.catching_up().next().is_some())
    }

    /// Whether the next writes have to wait for a read.
    pub(super) fn read_comes_first(&self) -> bool {
        self.reading.is_some() || (self.reads_first && self.wants_read())
    }

    /// Whether the stream can't go on with a change yet.
    fn has_to_wait(&self, entry: &Entry, ring: &Ring) -> bool {
        let foreign = || entry.origin.is_none_or(|origin| origin.conn != self.conn);
        self.awaits_verdict(entry)
            || planted!(LastChangeHeldBack) && entry.seq == ring.head() && foreign()
    }

    /// Whether a change is this session's own, of the transaction that is under way. Its ack must
    /// not overtake those of the writes before it, which are as near.
    fn awaits_verdict(&self, entry: &Entry) -> bool {
        let Some(origin) = entry.origin.filter(|origin| origin.conn == self.conn) else {
            return false;
        };
        let is_number = |number| number == origin.mutation;
        origin.mutation.is_some()
            && !planted!(ChangeBeforeVerdict)
            && self
                .transacting
                .as_ref()
                .is_some_and(|transacting| transacting.writes.iter().any(|(_, _, n)| is_number(*n)))
    }

    /// Sends what the rings hold for the live streams, each in its turn. Returns the room left.
    fn stream(&mut self, mut room: usize, turn: &mut Turn<'_, '_>) -> usize {
        let rings = turn.lent.rings;
        let behind = |(collection, subscription): (&Collection, &Subscription)| {
            let at = subscription.live_at().filter(|_| !self.is_sending_whole(collection))?;
            (rings.head(collection) > at).then(|| collection.clone())
        };
        let mut behind: Vec<Collection> = self.subscriptions.iter().filter_map(behind).collect();
        if behind.is_empty() {
            return room;
        }
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % behind.len();
        behind.rotate_left(first);
        for collection in &behind {
            room = self.stream_one(collection, room, turn);
        }
        room
    }

    fn stream_one(
        &mut self,
        collection: &Collection,
        mut room: usize,
        turn: &mut Turn<'_, '_>,
    ) -> usize {
        while room > 0 {
            let Some(subscription) = self.subscriptions.get(collection) else { return room };
            let Some(at) = subscription.live_at() else { return room };
            let frame = match self.step(collection, subscription, at, turn) {
                Step::End | Step::Wait => return room,
                Step::Missing => {
                    self.fall_behind(collection, at, turn);
                    return room;
                }
                Step::Skip => None,
                Step::Frame(frame) => Some(frame),
                Step::Own(number) => {
                    // an ack without a place that waited for the last one goes first
                    if self.verdicts.any_ack_below(number) && !planted!(PlacedAckOvertakes) {
                        self.release(turn);
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
                self.send(frame, turn);
            }
            if let Some(subscription) = self.subscriptions.get_mut(collection) {
                subscription.stream = Stream::Live(at.next());
            }
        }
        room
    }

    fn step(
        &self,
        collection: &Collection,
        subscription: &Subscription,
        at: Seq,
        turn: &Turn<'_, '_>,
    ) -> Step {
        let Some(ring) = turn.lent.rings.get(collection) else { return Step::End };
        if ring.head() <= at {
            return Step::End;
        }
        let Some(entry) = ring.entry(at.next()) else { return Step::Missing };
        if self.has_to_wait(entry, ring) {
            return Step::Wait;
        }
        if subscription.partial && !entry.can_be_judged() {
            return Step::Missing;
        }
        if let Some(origin) = entry.origin.filter(|origin| origin.conn == self.conn) {
            match (&self.link, origin.mutation) {
                (Link::Resumable { .. }, Some(number))
                    if self.verdicts.holds(number, entry.seq) =>
                {
                    return Step::Own(number);
                }
                // acknowledged out of place, or never to be: the stream has no gaps
                (Link::Resumable { .. }, _) => {}
                (Link::Undecided | Link::Plain | Link::Greeting { .. }, _) => return Step::Skip,
            }
        }
        Step::Frame(if subscription.partial {
            self.partial_frame(collection, entry, turn)
        } else {
            entry.frame(self.level())
        })
    }

    /// Where some records are hidden, the others are sent whole: the client may never have seen
    /// the state that a change stands on.
    fn partial_frame(
        &self,
        collection: &Collection,
        entry: &Entry,
        turn: &Turn<'_, '_>,
    ) -> bytes::Bytes {
        let user = self.auth.user();
        let Some(document) = &entry.document else { return entry.frame(self.level()) };
        let shown = turn.lent.policy.read_record(user, collection, &entry.record_id, document);
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
    fn fall_behind(&mut self, collection: &Collection, at: Seq, turn: &mut Turn<'_, '_>) {
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        self.counters.fell_behind += 1;
        subscription.stream =
            Stream::CatchingUp(Box::new(Position::Delta { floor: at, after: at }));
        let partial = subscription.partial;
        if !planted!(AcksBehindSubscribed) {
            self.release(turn);
        }
        if self.level() == Level::Resumable && !planted!(RingOverrunUnsaid) {
            let subscribed = ServerMessage::Subscribed {
                collection: collection.clone(),
                record_count: None,
                head: Some(turn.lent.rings.head(collection)),
                mode: Some(Mode::Delta),
                partial,
            };
            self.say(&subscribed, turn);
        }
        if planted!(AcksBehindSubscribed) {
            self.release(turn);
        }
    }

    fn catching_up(&self) -> impl Iterator<Item = (&Collection, &Subscription, &Position)> {
        self.subscriptions.iter().filter_map(|(collection, subscription)| {
            match &subscription.stream {
                Stream::CatchingUp(position) => Some((collection, subscription, &**position)),
                Stream::Live(_) => None,
            }
        })
    }

    /// The collection to send whole next. One that was subscribed before follows its changes first:
    /// what is committed between the two reads would otherwise be in neither.
    fn next_wanted(&mut self) -> Option<Collection> {
        let next = self.wanted.front()?;
        let follows = self.subscriptions.get(next).is_none_or(|s| s.live_at().is_some());
        if follows { self.wanted.pop_front() } else { None }
    }

    fn read_next(&mut self, turn: &mut Turn<'_, '_>) {
        if !self.wants_read() {
            return;
        }
        self.reads_first = false;
        self.turn = self.turn.wrapping_add(1);
        let turns = self.catching_up().count().max(1);
        let user = self.auth.user().cloned();
        let (request, whole) = if let Some(collection) = self.next_wanted() {
            let access = turn.lent.policy.read(user.as_ref(), &collection);
            let reader = Reader { collection, user, partial: access != Access::All };
            (ReadRequest::Whole { reader, bytes: self.config.sync_bytes }, true)
        } else if let Some((collection, subscription, position)) =
            self.catching_up().nth(self.turn % turns)
        {
            let partial = subscription.partial;
            let reader = Reader { collection: collection.clone(), user, partial };
            let limits = self.config.page;
            (ReadRequest::CatchUp { reader, position: position.clone(), limits }, false)
        } else {
            return;
        };
        let collection = request.reader().collection.clone();
        let (conn, generation) = (self.conn, self.next_generation());
        self.reading = Some(Reading { generation, collection, whole, stale: false });
        if planted!(PageReadTwice) {
            let request = request.clone();
            turn.out.push(Action::Read(ReadTicket { conn, generation, request }));
        }
        turn.out.push(Action::Read(ReadTicket { conn, generation, request }));
    }

    pub(super) fn read(&mut self, report: ReadReport, turn: &mut Turn<'_, '_>) {
        let expected = report.conn == self.conn
            && self.reading.as_ref().is_some_and(|r| r.generation == report.generation);
        let Some(reading) = self.reading.take_if(|_| expected) else {
            self.counters.late_answers += 1;
            return;
        };
        if !reading.stale {
            self.answer_read(reading, report.result, turn);
        }
        self.lift_barriers(turn);
        self.advance(turn);
    }

    fn answer_read(
        &mut self,
        reading: Reading,
        result: Result<ReadAnswer, StoreError>,
        turn: &mut Turn<'_, '_>,
    ) {
        match result {
            Ok(ReadAnswer::Page(page)) if !reading.whole => {
                self.show(reading.collection, page, turn);
            }
            Ok(ReadAnswer::Whole(records)) if reading.whole => {
                self.show_whole(reading.collection, records, turn);
            }
            Ok(
                ReadAnswer::Page(_)
                | ReadAnswer::Pulled(_)
                | ReadAnswer::Whole(_)
                | ReadAnswer::Found(_),
            ) => {
                self.close(1011, "the server mixed up its answers", turn);
            }
            Err(_) => self.read_failed(&reading, turn),
        }
    }

    fn read_failed(&mut self, reading: &Reading, turn: &mut Turn<'_, '_>) {
        if !reading.whole {
            self.unsubscribe(&reading.collection, turn);
        }
        let message = "the server could not read its database: try again";
        self.refuse(&reading.collection, ErrorCode::ServerError, message, turn);
    }

    fn show_whole(
        &mut self,
        collection: Collection,
        records: Option<Vec<crate::protocol::message::SyncRecord>>,
        turn: &mut Turn<'_, '_>,
    ) {
        let Some(records) = records else {
            let message = "the collection is too large for one `sync`: use level 2, or page \
                           through `GET /sync/{collection}?limit=…&offset=…`";
            return self.refuse(&collection, ErrorCode::PayloadTooLarge, message, turn);
        };
        self.say(&ServerMessage::Sync { collection, records, range: None }, turn);
    }

    /// Sends a page of a catch-up, and makes the stream live after the last.
    fn show(&mut self, collection: Collection, page: Page, turn: &mut Turn<'_, '_>) {
        let Some(subscription) = self.subscriptions.get(&collection) else { return };
        let partial = subscription.partial;
        let level = self.level();
        if let Some(opened) = page.opened {
            if level == Level::Plain && opened.mode == Mode::Snapshot {
                // level 1 has no words for it: whoever subscribes anew starts afresh
                return self.close(1013, "the connection fell too far behind", turn);
            }
            let subscribed = ServerMessage::Subscribed {
                collection: collection.clone(),
                record_count: (!partial).then_some(opened.count),
                head: Some(opened.head),
                mode: Some(opened.mode),
                partial,
            };
            self.say(&subscribed, turn);
        }
        self.show_content(&collection, page.content, turn);
        let stream = match page.next {
            Next::More(position) => Stream::CatchingUp(Box::new(position)),
            Next::Done { cursor, count, checksum } => {
                let at = cursor.seq;
                if level == Level::Resumable {
                    let collection = collection.clone();
                    let synced = ServerMessage::Synced { collection, cursor, count, checksum };
                    self.say(&synced, turn);
                }
                Stream::Live(at)
            }
        };
        if let Some(subscription) = self.subscriptions.get_mut(&collection) {
            subscription.stream = stream;
        }
    }

    fn show_content(&mut self, collection: &Collection, content: Content, turn: &mut Turn<'_, '_>) {
        match content {
            Content::Changes(changes) => {
                for PageChange { record_id, change, filtered } in changes {
                    let (level, mut frame) = (self.level(), Vec::new());
                    encode_change(collection, &record_id, &change, filtered, level, &mut frame);
                    self.send(frame.into(), turn);
                }
            }
            Content::Snapshot { records, range } => {
                let collection = collection.clone();
                self.say(&ServerMessage::Sync { collection, records, range: Some(range) }, turn);
            }
        }
    }
}
