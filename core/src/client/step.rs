//! One step of the machine: a change is decided, committed to the store, and followed by whatever may
//! be sent after it. A store that fails ends the machine.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::edit::Edit;
use super::event::{Event, EventKind, Transport};
use super::failure::{ConnectFailure, FailureCause};
use super::interface::NetAction;
use super::machine::Client;
use super::output::{Output, Outputs, StoreAction, ViewAction};
use crate::protocol::name::WriteId;
use crate::store::{Rows, StoreError};

/// The reason why a step could not be taken.
pub(super) enum StepError {
    /// The peer broke the protocol: the connection is given up.
    Peer(String),
    /// The store failed: the machine stops.
    Store(StoreError),
}

impl StepError {
    pub(super) fn peer(what: &str) -> Self {
        Self::Peer(what.into())
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Client {
    /// Takes one step: `change` decides, then everything that follows from it goes out.
    pub(super) fn step(
        &mut self,
        store: &dyn Rows,
        out: &mut Outputs,
        change: impl FnOnce(&mut Self, &mut Edit<'_>) -> Result<(), StepError>,
    ) -> Result<(), StoreError> {
        if let Some(error) = &self.halted {
            return Err(error.clone());
        }
        let mut edit = Edit::new(store, self.keys, self.now.wall);
        edit.in_time(&self.identity.clocks, self.clock.unsettled_runs());
        edit.keep_indexes(self.indexes.kept());
        let next = self.outbox.end();
        self.keep_offset(&mut edit);
        let changed = change(self, &mut edit);
        if edit.moved {
            self.made_progress(edit.transport);
            self.progress += 1;
            self.portions.pages.carry(edit.fetched);
            if edit.fetched > 0 {
                // a verdict may stand behind the rest of the catch-up
                self.pacing.await_verdict(self.now.mono);
            }
        }
        self.tell_progress(&mut edit);
        let changed = match changed {
            Err(StepError::Peer(what)) => {
                let failure = ConnectFailure::new(FailureCause::Protocol, what);
                match edit.transport {
                    Transport::Http => self.fail_exchange(&mut edit, failure),
                    Transport::WebSocket => {
                        edit.error(alloc::format!("the connection is given up: {failure}"));
                        self.fail_connection(&mut edit, failure);
                    }
                }
                Ok(())
            }
            Err(StepError::Store(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        self.ignored_frames += edit.ignored;
        if changed.is_ok() && core::mem::take(&mut self.slept) {
            self.wake_up(&mut edit);
        }
        changed
            .and_then(|()| self.finish(edit, next, out))
            .inspect_err(|error| self.halt(error, out))
    }

    /// Commits a step, before which `next` was the id of the next write, and sends what may be
    /// sent after it.
    pub(super) fn finish(
        &mut self,
        mut edit: Edit<'_>,
        next: WriteId,
        out: &mut Outputs,
    ) -> Result<(), StoreError> {
        self.reject_lost(&mut edit)?;
        let number = self.commits.next();
        if let Some(write) = edit.written {
            self.outbox.written(number, write);
        }
        let written = edit.written;
        self.pursue_losses(&mut edit)?;
        // what was released in this step counts as unused from now on
        self.adjust_sets(&mut edit)?;
        self.leave_unused(&mut edit)?;
        self.prepare_exchange(&mut edit)?;
        self.drop_expectations(&mut edit)?;
        self.note_unsent(&mut edit, next);
        if let Some(write) = edit.written.filter(|_| edit.written != written) {
            self.outbox.written(number, write);
        }
        if edit.gates && !edit.is_empty() {
            self.commits.gate();
        }
        if self.commits.may_send() {
            self.pump(&mut edit)?;
        }
        self.show_standings(&mut edit);
        let (views, events) = (core::mem::take(&mut edit.views), core::mem::take(&mut edit.events));
        let (net, synced) = (core::mem::take(&mut edit.net), core::mem::take(&mut edit.synced));
        if !edit.is_empty() {
            let flush = edit.flush;
            self.commits.made();
            out.push(Output::Store(StoreAction::Commit { number, batch: edit.into_batch() }));
            if flush {
                out.push(Output::Store(StoreAction::Flush { up_to: number }));
            }
        }
        out.extend(views.into_iter().map(Output::View));
        out.extend(events.into_iter().map(Output::Event));
        out.extend(net.into_iter().map(Output::Net));
        out.extend(synced.into_iter().map(|(id, outcome)| Output::Synced { id, outcome }));
        Ok(())
    }

    /// Ends the step of the streams, and shows the status of those that have another one than before,
    /// unless it was shown where the change was made.
    fn show_standings(&mut self, edit: &mut Edit<'_>) {
        let mut news = self.streams.end_step();
        let mut last = BTreeMap::new();
        for view in edit.views.iter().filter(|_| !news.is_empty()) {
            if let ViewAction::Status { collection, from_cache, catching_up } = view {
                last.insert(collection, (*from_cache, *catching_up));
            }
        }
        news.retain(|of| last.get(of) != Some(&self.standing(of)));
        news.iter().for_each(|collection| self.show_status(edit, collection));
    }

    fn halt(&mut self, error: &StoreError, out: &mut Outputs) {
        if self.halted.is_some() {
            return;
        }
        if self.link.is_open() {
            out.push(Output::Net(NetAction::Close { conn: self.link.conn() }));
        }
        self.exchange = None;
        let (was_ready, polled) = (self.link.ready_since().is_some(), self.fallback.lose_reach());
        self.link.give_up();
        self.halted = Some(error.clone());
        let reason = alloc::format!("the store has failed: {error}");
        for (collection, stream) in self.streams.iter_mut() {
            stream.detach();
            stream.lose_confirmation();
            let (collection, from_cache) = (collection.clone(), true);
            let status = ViewAction::Status { collection, from_cache, catching_up: false };
            out.push(Output::View(status));
        }
        let timestamp = self.now.wall;
        let mut tell =
            |transport, kind| out.push(Output::Event(Event { timestamp, transport, kind }));
        if was_ready {
            let kind = EventKind::RealtimeDisconnected { reason: reason.clone() };
            tell(Some(Transport::WebSocket), kind);
        }
        if was_ready || polled {
            tell(None, EventKind::ConnectivityChanged { online: false });
        }
        tell(
            None,
            EventKind::Error { collection: None, record_id: None, message: reason, cause: None },
        );
        out.push(Output::Halted(error.clone()));
    }
}
