//! The part of the outbox that is on its way.

use super::{InFlight, Outbox, Sent};
use crate::client::edit::Edit;
use crate::protocol::hash::Digest;
use crate::protocol::name::WriteId;
use crate::rules::row::Entry;

impl Outbox {
    /// The number of writes in flight, those included that are acknowledged and keep their place.
    pub(in super::super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Tells whether a write in flight has no verdict.
    pub(in super::super) fn awaits_verdict(&self) -> bool {
        self.in_flight.iter().any(|sent| !sent.acked)
    }

    pub(in super::super) fn bytes_in_flight(&self) -> usize {
        self.in_flight.iter().filter(|sent| !sent.acked).map(|sent| sent.bytes).sum()
    }

    /// The first write in flight without a verdict, and the bytes of its frame.
    pub(in super::super) fn first_in_flight(&self) -> Option<(WriteId, usize)> {
        let first = self.in_flight.iter().find(|sent| !sent.acked)?;
        let Some((_, end)) = self.units.place_of(first.write) else {
            return Some((first.write, first.bytes));
        };
        let members = self.in_flight.iter().filter(|sent| sent.write >= first.write);
        let bytes = members.take_while(|sent| sent.write < end).map(|sent| sent.bytes).sum();
        Some((first.write, bytes))
    }

    /// Returns `true` if nothing but one write, or one transaction, is in flight.
    pub(in super::super) fn is_one_in_flight(&self) -> bool {
        let (Some(first), Some(last)) = (self.in_flight.front(), self.in_flight.back()) else {
            return false;
        };
        let place = self.units.place_of(first.write);
        first.write == last.write || place.is_some() && place == self.units.place_of(last.write)
    }

    /// The transaction in which the `index`-th write in flight lies, by its first place.
    pub(in super::super) fn unit_in_flight(&self, index: usize) -> Option<WriteId> {
        let sent = self.in_flight.get(index).filter(|sent| !sent.acked)?;
        self.units.place_of(sent.write).map(|(first, _)| first)
    }

    /// The first place of the transaction that a write is of, or the write itself.
    pub(in super::super) fn first_with(&self, write: WriteId) -> WriteId {
        self.units.place_of(write).map_or(write, |(first, _)| first)
    }

    /// Returns `true` if a write is not known to have left.
    pub(in super::super) fn holds(&self, write: WriteId) -> bool {
        self.len > 0 && write >= self.head
    }

    /// The id of the `index`-th write in flight, and whether it is acknowledged.
    pub(in super::super) fn sent(&self, index: usize) -> Option<(WriteId, bool)> {
        self.in_flight.get(index).map(|sent| (sent.write, sent.acked))
    }

    /// Tells whether a write in flight before the `index`-th one has no verdict.
    pub(in super::super) fn is_overtaking(&self, index: usize) -> bool {
        self.in_flight.iter().take(index).any(|sent| !sent.acked)
    }

    /// The first unsent write goes out, and waits for a verdict.
    pub(in super::super) fn send(&mut self, write: WriteId, digest: Digest, bytes: usize) {
        let entry = Sent(self.take_unsent(write));
        self.in_flight.push_back(InFlight { write, digest, bytes, acked: false, entry });
    }

    /// The first unsent write goes out, and no verdict will name it.
    pub(in super::super) fn send_unnumbered(&mut self, write: WriteId) {
        self.take_unsent(write);
    }

    fn take_unsent(&mut self, write: WriteId) -> Option<Entry> {
        self.unsent = write.next();
        self.freeze(write);
        let last = self.ahead.pass(self.unsent);
        last.filter(|(passed, _)| *passed == write).map(|(_, entry)| entry)
    }

    /// Lets the search for the next write to send begin at a place.
    pub(super) fn begin_unsent(&mut self, at: WriteId) {
        if at < self.unsent {
            self.ahead.restart(at);
        } else {
            self.ahead.pass(at);
        }
        self.unsent = at;
    }

    /// A write may have been sent, and so may those in front of it.
    pub(in super::super) fn freeze(&mut self, write: WriteId) {
        self.frozen_until = self.frozen_until.max(write.next());
    }

    /// It is known of every write that waits that it was not applied.
    pub(in super::super) fn thaw(&mut self) {
        self.frozen_until = WriteId(0);
    }

    /// The `index`-th write in flight was taken: only its digest keeps its place.
    pub(in super::super) fn acknowledge(
        &mut self,
        edit: &mut Edit<'_>,
        index: usize,
        entry: &Entry,
    ) {
        if let Some(sent) = self.in_flight.get_mut(index) {
            edit.ack_entry(sent.write, sent.digest);
            self.pending.remove(&entry.collection, &entry.record_id, sent.write);
            self.units.settle(entry);
            (sent.acked, sent.entry) = (true, Sent(None));
        }
    }

    /// Removes the first place where that is in flight and acknowledged. Gives its digest.
    pub(in super::super) fn pop_acked(&mut self, edit: &mut Edit<'_>) -> Option<Digest> {
        self.in_flight.front().filter(|sent| sent.acked)?;
        let sent = self.in_flight.pop_front()?;
        edit.drop_place(sent.write);
        self.pass(sent.write);
        Some(sent.digest)
    }

    /// The connection is gone: what was sent on it stays frozen, and will be numbered anew.
    pub(in super::super) fn lose_connection(&mut self) {
        self.in_flight.clear();
        self.send_again();
    }

    /// Lets the search for the next write to send begin at the first one.
    pub(in super::super) fn send_again(&mut self) {
        self.begin_unsent(self.head);
    }

    /// Lets the search for the next write to send begin behind all that may have been sent.
    pub(in super::super) fn pass_over_frozen(&mut self) {
        self.begin_unsent(self.unsent.max(self.frozen_until));
    }

    /// Everything from the `index`-th write in flight on was not applied, and is free again.
    pub(in super::super) fn go_back(&mut self, index: usize) {
        if let Some(write) = self.in_flight.get(index).map(|sent| sent.write) {
            self.begin_unsent(write);
            self.frozen_until = write;
            self.in_flight.truncate(index);
        }
    }
}
