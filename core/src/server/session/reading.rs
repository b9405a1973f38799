//! Reads of the store: the pages of those who catch up, and whole collections for level 1.

use core::mem;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::subscription::{PendingRead, PendingSync, Progress, Subscription};
use super::{InputContext, Session, SessionAction, Ticket, TicketAnswer};
use crate::protocol::message::{ErrorCode, ErrorMessage, Level, Mode, ServerMessage, SyncRecord};
use crate::protocol::name::Collection;
use crate::protocol::wire::encode_change;
use crate::rules::page::{
    Content, Next, Page, PageChange, Position, ReadAnswer, ReadRequest, Reader,
};
use crate::server::about::known_by_others;
use crate::server::http::{BUILDING, millis};
use crate::server::looks::Looks;
use crate::server::ring::Rings;
use crate::server::sets::Filter;
use crate::server::sight::Sight;
use crate::store::StoreError;

impl Session {
    /// Returns `true` if a read is due.
    ///
    /// Reads and transactions take turns: a page that was read before a write and came after its
    /// ack would contradict it, in its records and in its checksum.
    pub(super) fn wants_read(&self) -> bool {
        self.pending_read.is_none()
            && self.pending_sync.is_none()
            && self.pending_transaction.is_none()
            && (!self.wanted.is_empty() || self.catching_up().next().is_some())
    }

    /// Returns `true` if the next writes have to wait for a read.
    pub(super) fn read_comes_first(&self) -> bool {
        self.pending_read.is_some()
            || self.pending_sync.is_some()
            || (self.reads_first && self.wants_read())
    }

    fn catching_up(&self) -> impl Iterator<Item = (&Collection, &Subscription, &Position)> {
        self.subscriptions.iter().filter_map(|(collection, subscription)| {
            match &subscription.progress {
                Progress::CatchingUp(position) => Some((collection, subscription, &**position)),
                Progress::Live(_) => None,
            }
        })
    }

    /// The collection to send whole next. One that was subscribed before follows its changes first:
    /// what is committed between the two reads would otherwise be in neither.
    fn next_wanted(&mut self) -> Option<(Collection, Option<Filter>)> {
        let (next, _) = self.wanted.front()?;
        let follows = self.subscriptions.get(next).is_none_or(|s| s.live_at().is_some());
        if follows { self.wanted.pop_front() } else { None }
    }

    pub(super) fn read_next(&mut self, cx: &mut InputContext<'_, '_>) {
        if !self.wants_read() {
            return;
        }
        self.reads_first = false;
        self.round = self.round.wrapping_add(1);
        let turns = self.catching_up().count().max(1);
        let user = self.auth.identified().cloned();
        let (request, whole, filter) = if let Some((collection, filter)) = self.next_wanted() {
            let access = self.access(&collection, filter.as_ref(), cx);
            let scopes = filter.as_ref().map(Filter::scopes);
            let reader = Reader { collection, user, access, stamp: 0, whole: false, scopes };
            (ReadRequest::Whole { reader, bytes: self.limits.sync_bytes }, true, filter)
        } else if let Some((collection, subscription, position)) = self
            .catching_up()
            .find(|(_, subscription, _)| subscription.again)
            .or_else(|| self.catching_up().nth(self.round % turns))
        {
            let Sight { access, stamp } = subscription.sight;
            let whole = self.level() == Level::Plain && cx.env.rings.plain_whole();
            let (collection, scopes) = (collection.clone(), subscription.scopes.clone());
            let reader = Reader { collection, user, access, stamp, whole, scopes };
            let limits = subscription.page;
            (ReadRequest::CatchUp { reader, position: position.clone(), limits }, false, None)
        } else {
            return;
        };
        let collection = request.reader().collection.clone();
        let (conn, generation) = (self.conn, self.next_generation());
        let published = cx.env.rings.published();
        self.pending_read =
            Some(PendingRead { generation, collection, whole, filter, published, stale: false });
        cx.out.push(SessionAction::Read(Ticket { conn, generation, question: request }));
    }

    pub(super) fn read(
        &mut self,
        mut report: TicketAnswer<Result<ReadAnswer, StoreError>>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let expected = report.conn == self.conn
            && self.pending_read.as_ref().is_some_and(|r| r.generation == report.generation);
        if expected {
            self.note_looks(&mut report.answer, cx);
            self.follow_looks(cx);
        }
        let Some(read) = self.pending_read.take_if(|_| expected) else {
            self.counters.late_answers += 1;
            return;
        };
        let counts = self.is_serving() && !has_moved(&report.answer, read.published, cx.env.rings);
        match read.stale {
            false if counts => self.answer_read(read, report.answer, cx),
            // it is read again, by the rights of then
            false if read.whole => self.wanted.push_front((read.collection, read.filter)),
            false | true => {}
        }
        self.finish_sync(cx);
        self.lift_barriers(cx);
        self.advance(cx);
    }

    fn answer_read(
        &mut self,
        read: PendingRead,
        result: Result<ReadAnswer, StoreError>,
        cx: &mut InputContext<'_, '_>,
    ) {
        match result {
            Ok(ReadAnswer::Page(page)) if !read.whole => {
                self.send_page(read.collection, page, cx);
            }
            Ok(ReadAnswer::Whole(whole)) if read.whole => {
                self.send_whole(read.collection, whole.records, cx);
            }
            Ok(ReadAnswer::Refused { code, message }) => {
                if !read.whole {
                    self.end_subscription(&read.collection, cx);
                }
                let later = (code == ErrorCode::ServerError).then(|| millis(BUILDING));
                let error = ErrorMessage {
                    collection: Some(read.collection),
                    retry_after_ms: later,
                    ..ErrorMessage::new(code, message)
                };
                self.send_message(&ServerMessage::Error(error), cx);
                self.release(cx);
            }
            Ok(
                ReadAnswer::Page(_)
                | ReadAnswer::Pulled(_)
                | ReadAnswer::Whole(_)
                | ReadAnswer::Found(_),
            ) => {
                self.close(1011, "the server mixed up its answers", cx);
            }
            Err(_) => self.read_failed(&read, cx),
        }
    }

    fn read_failed(&mut self, read: &PendingRead, cx: &mut InputContext<'_, '_>) {
        let (collection, code) = (&read.collection, ErrorCode::ServerError);
        let message = "the server could not read its database: try again";
        match read.whole {
            true => self.refuse(collection, code, message, cx),
            false => self.end_with(collection, code, message, cx),
        }
    }

    fn send_whole(
        &mut self,
        collection: Collection,
        records: Option<Vec<SyncRecord>>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let Some(records) = records else {
            let message = "the collection is too large for one `sync`: use level 2, or page \
                           through `GET /sync/{collection}?limit=…&offset=…`";
            return self.refuse(&collection, ErrorCode::PayloadTooLarge, message, cx);
        };
        self.send_message(&ServerMessage::Sync { collection, records, range: None }, cx);
    }

    /// Sends a page of a catch-up, and makes the stream live after the last.
    fn send_page(&mut self, collection: Collection, page: Page, cx: &mut InputContext<'_, '_>) {
        if let Some(opened) = page.opened.as_ref().filter(|opened| !opened.refused.is_empty()) {
            self.refuse_scopes(&collection, &opened.refused, cx);
        }
        let Some(subscription) = self.subscriptions.get_mut(&collection) else { return };
        let (set, refused) = subscription.numbered();
        let partial = subscription.is_partial();
        if let Some(opened) = &page.opened {
            subscription.rights = opened.rights;
        }
        let level = self.level();
        let shows = !page.content.is_empty();
        if let Some(opened) = page.opened {
            if level == Level::Plain && opened.mode == Mode::Snapshot {
                // level 1 has no words for it: whoever subscribes anew starts afresh
                return self.close(1013, "the connection fell too far behind", cx);
            }
            if let Some(rights) = opened.others.filter(|_| level == Level::Resumable) {
                self.send_message(&known_by_others(&collection, opened.head, rights, set), cx);
            }
            let subscribed = ServerMessage::Subscribed {
                collection: collection.clone(),
                record_count: (!partial).then_some(opened.count),
                head: Some(opened.head),
                mode: Some(opened.mode),
                partial,
                rights: opened.rights,
                set,
                refused,
            };
            self.send_message(&subscribed, cx);
            self.told_of_a_run(&collection, cx);
        }
        if self.verdicts.hold_silent_member(&collection) {
            // a unit waits for another stream: behind this page its ack would let its writer hold what they
            // may not read. The next hello confirms it before anything is shown
            return self.close(1013, "the rights of this user have changed", cx);
        }
        self.send_content(&collection, page.content, cx);
        let position = match page.next {
            Next::More(position) => position,
            Next::Done { cursor, count, checksum } => {
                let after = cursor.seq;
                self.pending_sync =
                    Some(PendingSync { collection: collection.clone(), cursor, count, checksum });
                self.subscriptions.get(&collection).map_or(Position::Now, |it| it.behind(after))
            }
        };
        if let Some(subscription) = self.subscriptions.get_mut(&collection) {
            subscription.progress = Progress::CatchingUp(Box::new(position));
            subscription.again &= !shows;
        }
    }

    /// The client knows that a collection is not live: acks that tell nothing of their records may come.
    fn told_of_a_run(&mut self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        if let Some(subscription) = self.subscriptions.get_mut(collection)
            && mem::take(&mut subscription.told_live)
        {
            self.release(cx);
        }
    }

    fn send_content(
        &mut self,
        collection: &Collection,
        content: Content,
        cx: &mut InputContext<'_, '_>,
    ) {
        match content {
            Content::Changes(changes) => {
                for PageChange { record_id, change, reason } in changes {
                    let (level, mut frame) = (self.level(), Vec::new());
                    encode_change(collection, &record_id, &change, reason, None, level, &mut frame);
                    self.send_frame(frame.into(), cx);
                }
            }
            Content::Snapshot { records, range } => {
                let collection = collection.clone();
                self.send_message(
                    &ServerMessage::Sync { collection, records, range: Some(range) },
                    cx,
                );
            }
            Content::Loads(loads) => {
                loads.into_iter().for_each(|load| self.send_content(collection, load, cx));
            }
            load @ Content::Load { .. } => {
                let set = self.subscriptions.get(collection).and_then(|it| it.set.as_ref());
                if let Some(page) = set.and_then(|set| set.page(collection, load)) {
                    self.send_message(&ServerMessage::Load(page), cx);
                }
            }
        }
    }
}

/// Returns `true` if a whole collection was read by rights that may be others by what was published since.
fn has_moved(answer: &Result<ReadAnswer, StoreError>, published: u64, rings: &Rings) -> bool {
    let Ok(ReadAnswer::Whole(whole)) = answer else { return false };
    let mut looks = Looks::default();
    looks.add((*whole.looked).clone(), published);
    looks.have_moved(rings)
}
