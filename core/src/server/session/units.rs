//! Units in the live streams: a client never sees half of one where both its collections are live.
//!
//! A unit goes out in one frame. A `synced` waits until the live streams have shown every unit of which
//! its pages have shown a part. No live stream shows a unit of several collections while a page is
//! being read or asked for, which might lack its part: one that is read later has it.

use alloc::vec::Vec;

use bytes::Bytes;

use super::streaming::NextChange;
use super::subscription::{PendingSync, Progress, Subscription};
use super::{InputContext, Session};
use crate::protocol::message::{Ack, Level, ServerMessage};
use crate::protocol::name::{Collection, Seq};
use crate::protocol::wire::join;
use crate::server::ring::{Entry, Rings, Upcoming};

impl Session {
    /// Returns `true` if a unit of several collections must not be shown yet, because a collection may
    /// become live without its part of it.
    pub(super) fn is_kept_back(&self, entry: &Entry, rings: &Rings) -> bool {
        if !entry.spanning || self.level() == Level::Plain {
            return false;
        }
        let waiting = self.pending_sync.as_ref();
        self.pending_read.is_some()
            || self.any_again()
            || waiting.is_some_and(|sync| sync.unit(rings).is_none_or(|unit| entry.order > unit))
    }

    /// Returns `true` if a client takes a collection for live that catches up.
    fn any_again(&self) -> bool {
        self.subscriptions.values().any(|subscription| subscription.again)
    }

    /// Sends the next unit, which has parts in these collections, in one frame. Returns the room left;
    /// `None` if it has to wait.
    pub(super) fn stream_unit(
        &mut self,
        parts: &[Collection],
        order: u64,
        room: usize,
        cx: &mut InputContext<'_, '_>,
    ) -> Option<usize> {
        let rings = cx.env.rings;
        let (mut frames, mut places) = (Vec::new(), Vec::new());
        let (mut own, mut in_place) = (None, Vec::new());
        for collection in parts {
            let (Some(ring), Some(subscription)) =
                (rings.get(collection), self.subscriptions.get(collection))
            else {
                continue;
            };
            let (partial, scopes) = (subscription.is_partial(), subscription.scopes.clone());
            let Some(mut at) = subscription.live_at() else { continue };
            if self.level() == Level::Plain {
                ring.ask_plain();
            }
            if let (Some(_), Some(Upcoming::Entry(first))) =
                (&scopes, ring.next(at, scopes.as_ref()))
            {
                at = Seq(first.seq.0 - 1);
            }
            let (from, shown, placed) = (at, frames.len(), in_place.len());
            while let Some(Upcoming::Entry(entry)) = ring.next(at, scopes.as_ref())
                && entry.order == order
            {
                match self.next_change(collection, Some(entry), partial, scopes.as_ref(), cx) {
                    NextChange::Wait => return None,
                    NextChange::Missing => {
                        frames.truncate(shown);
                        in_place.truncate(placed);
                        self.fall_behind(collection, from, cx);
                        break;
                    }
                    NextChange::Frame(frame) => frames.push(frame),
                    NextChange::Own(number) => {
                        own = self.verdicts.unit_of(number);
                        in_place.push((collection.clone(), entry.seq));
                    }
                    NextChange::Skip => {}
                }
                at = entry.seq;
            }
            if self.live_at(collection).is_some() {
                places.push((collection, from, at));
            }
        }
        let size: usize = frames.iter().map(Bytes::len).sum();
        if self.level() == Level::Resumable && size > self.limits.input.frame_bytes / 2 {
            // one frame can't show it, so it is shown while these collections catch up
            for (collection, from, _) in places {
                self.fall_behind(collection, from, cx);
            }
            return Some(room);
        }
        if own.is_some_and(|first| self.verdicts.any_below(first)) {
            // all that was below it in the order of the numbers was below it in that of the streams
            places.iter().for_each(|(collection, from, _)| self.move_to(collection, *from));
            self.release(cx);
        }
        for (collection, _, at) in places {
            self.move_to(collection, at);
        }
        let sent = self.counters.bytes_out;
        match own {
            Some(first) => {
                let acks = self.verdicts.unit_in_place(first, &in_place);
                // records that it has brought into a set come before its acks
                frames.extend(acks.into_iter().map(frame_of));
                self.send_together(frames, cx);
            }
            None => self.send_together(frames, cx),
        }
        let sent = usize::try_from(self.counters.bytes_out - sent).unwrap_or(usize::MAX);
        Some(room.saturating_sub(sent))
    }

    /// Sends the acks of a unit in one frame.
    pub(super) fn send_acks(&mut self, acks: Vec<Ack>, cx: &mut InputContext<'_, '_>) {
        self.send_together(acks.into_iter().map(frame_of).collect(), cx);
    }

    /// Sends messages in one frame; at level 1, which has none for several, one after the other.
    pub(super) fn send_together(&mut self, frames: Vec<Bytes>, cx: &mut InputContext<'_, '_>) {
        if frames.len() > 1 && self.level() == Level::Resumable {
            let mut batch = Vec::new();
            join(&frames, &mut batch);
            self.send_frame(batch.into(), cx);
        } else {
            frames.into_iter().for_each(|frame| self.send_frame(frame, cx));
        }
    }

    /// Sends the `synced` of a collection whose last page has gone out, once it may be sent.
    pub(super) fn finish_sync(&mut self, cx: &mut InputContext<'_, '_>) {
        if !self.is_serving() || !self.can_finish_sync(cx.env.rings) {
            return;
        }
        let resumable = self.level() == Level::Resumable;
        let (any_again, outrun) = (resumable && self.any_again(), self.is_outrun(cx.env.rings));
        let Some(PendingSync { collection, cursor, count, checksum }) = self.pending_sync.take()
        else {
            return;
        };
        let at = cursor.seq;
        let mut set = None;
        if let Some(subscription) = self.subscriptions.get_mut(&collection) {
            set = subscription.numbered().0;
            // what its pages have shown may be half of a unit: another one of it is needed
            if (any_again || outrun) && !subscription.again {
                return;
            }
            // if its pages have shown nothing, the client sees of it what it saw while all were live
            subscription.again = false;
            subscription.progress = Progress::Live(at);
            subscription.told_live = true;
        }
        if self.level() == Level::Resumable {
            let synced = ServerMessage::Synced { collection, cursor, count, checksum, set };
            self.send_message(&synced, cx);
        }
    }

    /// Returns `true` if the ring has forgotten of which units the pages have shown a part, while other
    /// streams are live. It has no change any more that follows the pages.
    fn is_outrun(&self, rings: &Rings) -> bool {
        let Some(sync) = &self.pending_sync else { return false };
        let is_other = |it: &(&Collection, &Subscription)| *it.0 != sync.collection;
        let ring = rings.get(&sync.collection).filter(|ring| ring.head() >= sync.cursor.seq);
        self.level() == Level::Resumable
            && ring.is_some_and(|ring| ring.spanning_up_to(sync.cursor.seq).is_none())
            && self.subscriptions.iter().filter(is_other).any(|(_, it)| it.live_at().is_some())
    }

    /// Returns `true` if a `synced` waits for nothing more: the other live streams have shown every
    /// unit of which its page has shown a part. Or it will be of no use.
    pub(super) fn can_finish_sync(&self, rings: &Rings) -> bool {
        let Some(sync) = &self.pending_sync else { return false };
        let mut others = self.subscriptions.iter().filter_map(|(collection, subscription)| {
            subscription.live_at().filter(|_| *collection != sync.collection)?;
            Some(rings.get(collection).and_then(|ring| subscription.upcoming(ring)))
        });
        if self.level() == Level::Plain || self.any_again() || self.is_outrun(rings) {
            return true;
        }
        match sync.unit(rings) {
            Some(unit) => others.all(|next| next.is_none_or(|next| next.order() > unit)),
            // the page has shown what is not published yet: nobody knows of what units that is; or what
            // the ring has forgotten
            None => others.next().is_none(),
        }
    }
}

fn frame_of(ack: Ack) -> Bytes {
    let mut frame = Vec::new();
    ServerMessage::Ack(ack).encode(Level::Resumable, &mut frame);
    frame.into()
}

impl PendingSync {
    /// The number of the last unit of several collections of which its pages may have shown a part;
    /// `None` if that is not known.
    fn unit(&self, rings: &Rings) -> Option<u64> {
        let at = self.cursor.seq;
        match rings.get(&self.collection) {
            Some(ring) if ring.head() >= at => ring.spanning_up_to(at),
            Some(_) => None,
            None => (at == Seq(0)).then_some(0),
        }
    }
}
