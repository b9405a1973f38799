//! Writes that a server may have applied and forgotten.

use super::edit::Edit;
use super::exchange::Exchange;
use super::machine::Client;
use super::stream::Stream;
use crate::protocol::message::Welcome;
use crate::protocol::name::{Seq, WriteId};
use crate::protocol::write::WriteKind;
use crate::rules::row::{Entry, Row};
use crate::store::StoreError;

impl Stream {
    /// Returns `true` if an insert that may have been forgotten was applied, as far as can be told
    /// from the seq up to which its record was deleted. Applied, it would have been shown, or have
    /// come above the seq that was known when it was forgotten; and a deletion comes later still.
    pub(super) fn may_show_applied(&self, deleted: Seq) -> bool {
        // a stream with gaps may not have shown it
        let vouched = self.is_complete();
        deleted > if vouched { self.row.forgotten_above } else { Seq(0) }
    }
}

impl Client {
    /// The server has answered a hello, and says since when it remembers this replica. To be called
    /// while it is still known which writes may have been sent.
    pub(super) fn compare_memory(
        &mut self,
        edit: &mut Edit<'_>,
        welcome: &Welcome,
    ) -> Result<(), StoreError> {
        let forgotten = &self.identity.forgotten;
        let (told, known) = (welcome.first_session, forgotten.first_session);
        let is_news = told.is_some() && told != known;
        // what may be sent from now on must not count as unsent after a crash
        if is_news || forgotten.unsent_from.is_some() {
            (edit.gates, edit.flush) = (true, true);
        }
        if is_news && known.is_some() {
            self.forget_sent(edit)?;
        }
        let forgotten = &mut self.identity.forgotten;
        forgotten.unsent_from = None;
        forgotten.first_session = told.or(known);
        Ok(())
    }

    /// Nobody knows what became of the writes that may have been sent.
    pub(super) fn forget_sent(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        // what was seen since an earlier time says nothing of what was sent before that, and still
        // waits
        let earlier = self.identity.forgotten.is_open(self.outbox.first_place(edit)?);
        for (collection, stream) in self.streams.iter_mut() {
            let reached = stream.reached();
            let above = if earlier { stream.row.forgotten_above.min(reached) } else { reached };
            if stream.row.forgotten_above != above {
                stream.row.forgotten_above = above;
                edit.put_stream(collection, &stream.row);
            }
        }
        self.identity.forgotten.begin(self.outbox.frozen_until());
        // another write can't join one that may have been applied
        self.outbox.seal();
        edit.gates = true;
        Ok(())
    }

    /// Remembers that what was written in this step, from `from` on, was not sent, where nothing can
    /// be sent before the next hello is answered.
    pub(super) fn note_unsent(&mut self, edit: &mut Edit<'_>, from: WriteId) {
        let welcomed = self.exchange.as_ref().is_some_and(Exchange::is_welcomed);
        let may_send = self.link.ready_since().is_some() || welcomed || self.peer.is_plain();
        let is_noted = self.identity.forgotten.unsent_from.is_some();
        if self.outbox.end() > from && !may_send && !is_noted {
            self.identity.forgotten.unsent_from = Some(from);
            self.put_identity(edit);
        }
    }

    /// Returns `true` if a write is an insert that may have been applied and forgotten, so that its record may
    /// have been deleted since. What stands on earlier writes of the record shares their fate: an
    /// update would be merged into what they make.
    pub(super) fn is_forgotten(
        &self,
        edit: &Edit<'_>,
        write: WriteId,
        entry: &Entry,
        row: Option<&Row>,
    ) -> Result<bool, StoreError> {
        let unknown = row.is_none_or(|row| row.base().is_none());
        let insert = entry.change.kind == WriteKind::Insert;
        if !insert || !unknown || !self.identity.forgotten.covers(write) {
            return Ok(false);
        }
        let first = self.outbox.first_of(edit, &entry.collection, &entry.record_id)?;
        Ok(first == Some(write))
    }

    /// The server has shown the record of the first write that waits: what is made of it is sent as
    /// it is.
    pub(super) fn is_told(&mut self, edit: &mut Edit<'_>, write: WriteId) {
        if self.identity.forgotten.covers(write) {
            self.identity.forgotten.from = write.next();
            self.put_identity(edit);
        }
    }
}
