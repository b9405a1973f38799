//! A server turns out to be a plain one, and what is due at one.

use alloc::collections::BTreeSet;

use super::super::config::PlainServers;
use super::super::edit::Edit;
use super::super::machine::Client;
use super::records::hash_of;
use crate::protocol::name::{Collection, WriteId};
use crate::protocol::time::Mono;
use crate::rules::row::PlainMark;
use crate::store::StoreError;

impl Client {
    /// Tells whether a write that may have been sent can be given up by hand: nothing waits for it.
    pub(in super::super) fn plain_may_drop(&self, write: WriteId) -> bool {
        self.peer.plain().is_some_and(|plain| {
            let asked = plain.work.as_ref().is_some_and(|work| work.asked.is_some());
            !asked && !plain.has_sent(write)
        })
    }

    /// Returns the reason why a plain server is not accepted as such.
    pub(super) fn refuses_plain(&self) -> Option<&'static str> {
        match self.config.plain {
            PlainServers::AllowDowngrade => None,
            PlainServers::Never => Some("plain servers are not accepted (PlainServers::Never)"),
            PlainServers::Detect | PlainServers::Silent => {
                self.identity.resumable.contains(&self.address()).then_some(
                    "it offered level 2 before (PlainServers::AllowDowngrade accepts less)",
                )
            }
        }
    }

    pub(super) fn address(&self) -> u64 {
        hash_of(&self.config.address)
    }

    /// This address offers level 2, and is not believed to offer less from now on.
    pub(in super::super) fn remember_resumable(&mut self) {
        let address = self.address();
        let is_known = self.identity.resumable.contains(&address);
        if !is_known {
            self.identity.resumable.push(address);
        }
    }

    /// From now on the server is a plain one: nothing that it says has a seq.
    pub(super) fn become_plain(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.peer.is_plain() {
            return Ok(());
        }
        self.peer.become_plain();
        self.outbox.drop_acked(edit)?;
        self.outbox.advance_head(edit)?;
        let address = self.address();
        for (collection, stream) in self.streams.iter_mut() {
            stream.become_plain();
            if stream.row.plain.is_none_or(|mark| mark.address != address) {
                stream.row.plain = Some(PlainMark { address, ..PlainMark::default() });
            }
            edit.put_stream(collection, &stream.row);
        }
        Ok(())
    }

    /// The mark of a collection at this server.
    pub(super) fn mark(&self, collection: &Collection) -> PlainMark {
        let address = self.address();
        let mark = self.streams.get(collection).and_then(|stream| stream.row.plain);
        let own = mark.filter(|mark| mark.address == address);
        own.unwrap_or(PlainMark { address, ..PlainMark::default() })
    }

    /// When something is due at a plain server.
    pub(in super::super) fn plain_deadline(&self) -> Option<Mono> {
        let plain = self.peer.plain().filter(|_| self.link.ready_since().is_some())?;
        let idle = !self.config.http || plain.work.is_none() && self.may_poll();
        [
            plain.confirm_at.filter(|_| idle),
            plain.settling_until,
            plain.unproven_until(&self.config),
            plain.echoes.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(in super::super) fn plain_due(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let now = self.now.mono;
        let is_due = |at: &mut Mono| *at <= now;
        let Some(plain) = self.peer.plain_mut() else { return Ok(()) };
        plain.settling_until.take_if(is_due);
        if plain.unproven_until(&self.config).is_some_and(|at| at <= now) {
            // the connection lives, so what went out on it has long arrived
            self.proved(edit)?;
        }
        let released = self.peer.plain_mut().map(|plain| plain.echoes.release(now));
        for ((collection, id), news) in released.unwrap_or_default() {
            self.take_plain_change(edit, &collection, &id, &news)?;
        }
        let Some(plain) = self.peer.plain_mut().filter(|plain| plain.work.is_none()) else {
            return Ok(());
        };
        if plain.confirm_at.take_if(is_due).is_some() {
            let missed = core::mem::take(&mut plain.missed);
            if !self.config.http {
                self.ask_incomplete(edit);
                return Ok(());
            }
            let frozen = self.outbox.frozen_records(edit)?;
            let mut due: BTreeSet<_> =
                frozen.into_iter().map(|(collection, _)| collection).collect();
            let again = self.streams.iter().filter(|(_, stream)| stream.plain.incomplete);
            due.extend(again.map(|(collection, _)| collection.clone()));
            // what `synced` waits for could not be read the last time
            let again = missed && !self.syncs.is_empty();
            if again { self.begin_poll() } else { self.begin_work(due) }
        }
        Ok(())
    }
}
