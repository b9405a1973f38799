//! Collections that matter: those that the app has used, or has unsettled writes or stored rows of.
//! Anything that a server says of another leaves no trace but a count.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::boot::collections_of;
use super::edit::Edit;
use super::machine::Client;
use super::rebase::knows_gone_fields;
use super::records::Records;
use super::stream::Stream;
use crate::protocol::message::ServerMessage;
use crate::protocol::name::Collection;
use crate::protocol::scopes::ScopePage;
use crate::protocol::time::Mono;
use crate::store::{Rows, StoreError};

impl Client {
    /// Returns the records of a collection, if it matters.
    pub(super) fn records<'a>(&'a mut self, collection: &'a Collection) -> Option<Records<'a>> {
        let decides_later = self.decides_later();
        Some(Records {
            collection,
            stream: self.streams.get_mut(collection)?,
            outbox: &mut self.outbox,
            strategy: &self.config.conflict_strategy,
            on_server_loss: self.config.on_server_loss,
            peer: &mut self.peer,
            decides_later,
        })
    }

    /// Rebases every record whose writes are no longer frozen.
    pub(super) fn rebase_deferred(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        for (collection, id) in edit.deferred()? {
            if let Some(mut records) = self.records(&collection) {
                records.rebase_row(edit, &id)?;
            }
        }
        Ok(())
    }

    /// The app uses a collection, from now on or still.
    pub(super) fn want(&mut self, collection: &Collection) {
        let welcomed = self.link.ready_since().is_some();
        let is_new = !self.streams.contains(collection);
        self.streams.used(collection).want(is_new && welcomed);
    }

    /// The app uses a collection no longer.
    pub(super) fn leave(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let is_up = self.link.is_up();
        let Some(stream) = self.streams.get_mut(collection) else { return };
        if !stream.leave(is_up) {
            edit.show_status(collection, stream);
        }
    }

    /// When the next collection or scope that nothing uses is left.
    pub(super) fn leave_deadline(&self) -> Option<Mono> {
        self.streams.unused_until(self.config.keep_for, self.config.keep_scopes_for)
    }

    /// Counts the time in which nothing uses a collection that is in step, or a scope of it, and leaves it
    /// when that was long enough.
    pub(super) fn leave_unused(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let now = self.now.mono;
        let (keep_for, keep_scopes_for) = (self.config.keep_for, self.config.keep_scopes_for);
        let (mut over, mut idle) = (Vec::new(), Vec::new());
        for collection in self.streams.lingering() {
            let ages = |stream: &Stream| stream.ages(keep_for, keep_scopes_for);
            if !self.streams.get(&collection).is_some_and(ages) {
                continue;
            }
            let Some(stream) = self.streams.get_mut(&collection) else { continue };
            let is_free = stream.is_wanted() && !stream.is_subscribed();
            if !is_free || self.outbox.has_entries(&collection) {
                stream.count_used();
                stream.count_scopes_used();
            } else if stream.is_scoped() {
                let scopes = stream.count_idle_scopes(now, keep_scopes_for);
                if !scopes.is_empty() {
                    idle.push((collection, scopes));
                }
            } else if let Some(keep_for) = stream.keep_for(keep_for, keep_scopes_for)
                && stream.count_unused(now, keep_for)
            {
                over.push(collection);
            }
        }
        for (collection, scopes) in idle {
            if let Some(mut records) = self.records(&collection) {
                records.take_out_idle(edit, &scopes)?;
            }
        }
        for collection in over {
            match self.records(&collection) {
                Some(mut records) if records.stream.uses_scopes() => records.become_scoped(edit)?,
                Some(_) | None => self.leave(edit, &collection),
            }
        }
        Ok(())
    }

    /// Asks again for the collections that the server has refused, where it may think otherwise by
    /// now. With `at_once` also for those that are asked for later.
    pub(super) fn ask_refused_again(&mut self, at_once: bool) {
        let plain = self.peer.is_plain();
        for stream in self.streams.values_mut().filter(|stream| stream.is_wanted()) {
            stream.ask_refused_scopes_again();
            stream.ask_again(plain, at_once);
        }
    }

    /// Returns `true` if a message is about a collection that does not matter. Verdicts are about
    /// writes.
    pub(super) fn is_foreign(&mut self, message: &ServerMessage) -> bool {
        let collection = match message {
            ServerMessage::Subscribed { collection, .. }
            | ServerMessage::Unsubscribed { collection, .. }
            | ServerMessage::Change { collection, .. }
            | ServerMessage::Sync { collection, .. }
            | ServerMessage::Load(ScopePage { collection, .. })
            | ServerMessage::Synced { collection, .. } => collection,
            ServerMessage::Authenticated { .. }
            | ServerMessage::Error(_)
            | ServerMessage::Ack(_)
            | ServerMessage::Pong { .. }
            | ServerMessage::Unknown { .. } => return false,
        };
        !self.matters(collection)
    }

    /// Checks that nothing is kept that only a peer has asked for.
    pub(super) fn check_kept(&self, store: &dyn Rows) -> Result<(), String> {
        let out_of_reach = self.transport().is_none();
        if out_of_reach && self.streams.any(Stream::is_confirmed) {
            return Err(
                "a collection is shown as confirmed by a server that is out of reach".into()
            );
        }
        let stored = collections_of(self.keys, store).map_err(|error| error.message)?;
        let mut all = stored.iter().chain(self.outbox.collections());
        if let Some(of) = all.find(|of| !self.streams.contains(of)) {
            return Err(format!("{of} has stored rows, and was never used"));
        }
        let edit = Edit::new(store, self.keys, self.now.wall);
        for (of, id) in edit.deferred().map_err(|error| error.message)? {
            let row = edit.row(&of, &id).map_err(|error| error.message)?;
            if row.as_ref().is_some_and(knows_gone_fields) {
                return Err(format!("times of fields that are gone are kept of {of}/{id}"));
            }
        }
        self.check_scopes(&edit)
    }

    /// Returns `true` if a collection matters.
    pub(super) fn matters(&mut self, collection: &Collection) -> bool {
        self.streams.contains(collection)
    }
}
