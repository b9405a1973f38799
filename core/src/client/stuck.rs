//! Catch-ups that don't get on because connections break before anything of the next page comes.
//!
//! A page or a write that is larger than what a connection carries breaks each connection on which it is
//! under way. What has met a few breaks in a row is suspected, and from then on goes alone: after all that
//! is not, and one at a time, the one with the fewest breaks first. So the others get on, and the breaks
//! that follow show which one it is.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::edit::Edit;
use super::event::EventKind;
use super::machine::Client;
use super::sending::Readiness;
use super::stream::{SUSPECT_BREAKS, Stream};
use super::streams::Streams;
use crate::protocol::message::Resume;
use crate::protocol::name::{Collection, WriteId};
use crate::protocol::time::Mono;
use crate::rules::row::StreamRow;

/// After this many connections or pulls in a row that broke before anything came, the last of them with
/// the smallest pages, a catch-up is called stalled.
const STALLED_BREAKS: u32 = 5;

impl Streams {
    /// Returns the number of further connections that may tell which catch-ups stall.
    pub(super) fn breaks_to_judge(&self) -> u32 {
        let breaks = |(_, stream): (_, &Stream)| stream.breaks();
        let judged = || self.iter().map(breaks).filter(|breaks| *breaks < STALLED_BREAKS);
        let together = judged().max().unwrap_or(0).min(SUSPECT_BREAKS);
        let alone: u32 = judged().map(|breaks| breaks.saturating_sub(SUSPECT_BREAKS)).sum();
        together + alone
    }
}

impl Client {
    /// Says when a write may go out, as far as it goes alone because it is suspected.
    pub(super) fn turn_of(&self, write: WriteId) -> Readiness {
        let breaks = self.pacing.breaks_of(write);
        if breaks < SUSPECT_BREAKS || self.exchange.is_some() {
            return Readiness::Ready;
        }
        let is_before = |stream: &Stream| {
            stream.is_suspected() && stream.breaks() < breaks && stream.is_subscribe_due(false)
        };
        match self.asked_for_until() {
            Some(until) => Readiness::At(until),
            None if self.streams.any(is_before) && !self.streams.any(Stream::is_asked_for) => {
                Readiness::Later
            }
            None => Readiness::Ready,
        }
    }

    /// Returns the suspected collection to ask for now, if nothing else is under way that may break the
    /// connection.
    pub(super) fn next_suspect(&self, suspects: Vec<Collection>) -> Option<Collection> {
        let breaks = |name: &Collection| self.streams.get(name).map_or(0, Stream::breaks);
        let next = suspects.into_iter().min_by_key(breaks)?;
        let first = self.outbox.first_in_flight();
        let waits = self.asked_for_until().is_some()
            || first.is_some_and(|(write, _)| self.pacing.breaks_of(write) >= SUSPECT_BREAKS);
        (!waits).then_some(next)
    }

    /// The end of the wait for the catch-ups that are under way.
    pub(super) fn asked_for_until(&self) -> Option<Mono> {
        let asked_for = self.streams.values().filter(|stream| stream.is_asked_for());
        let until = asked_for.filter_map(|stream| self.catch_up_deadline(stream)).max();
        until.filter(|until| *until > self.now.mono)
    }

    /// The connection has broken: what was to come or to go may have been too much for it.
    pub(super) fn judge_portions(&mut self, edit: &mut Edit<'_>) {
        if !self.peer.is_plain() && self.streams.any(Stream::is_asked_for) {
            self.break_catch_ups(edit, None);
        }
        if self.is_in_flight() {
            self.portions.writes.fail();
            self.count_break(edit);
        }
    }

    /// The connection of catch-ups has broken, or the pull of one: smaller pages are asked for where
    /// none has come, and the app is told of each collection of which not even the smallest came.
    pub(super) fn break_catch_ups(&mut self, edit: &mut Edit<'_>, pulled: Option<&Collection>) {
        let is_least = self.portions.pages.is_least();
        let mut stalled = Vec::new();
        for (name, stream) in self.streams.iter_mut() {
            if pulled.is_none_or(|pulled| pulled == name)
                && stream.count_break() >= STALLED_BREAKS
                && is_least
                && stream.tell_stalled()
            {
                stalled.push((name.clone(), described(name, &stream.row)));
            }
        }
        self.portions.pages.fail();
        for (collection, message) in stalled {
            let collection = Some(collection);
            let (record_id, cause) = (None, None);
            edit.remote_event(EventKind::Error { collection, record_id, message, cause });
        }
    }

    /// Says where a catch-up does not get on, and why, if that is so.
    pub(super) fn stalls(&self, collection: &Collection, stream: &Stream) -> Option<Box<str>> {
        let stalls = stream.breaks() >= STALLED_BREAKS && self.portions.pages.is_least();
        stalls.then(|| described(collection, &stream.row).into())
    }
}

/// Names the place behind which nothing comes. The record there is not known by its id.
fn described(collection: &Collection, row: &StreamRow) -> String {
    let place = match (&row.resume, &row.cursor) {
        (Some(Resume::Snapshot { after, .. }), _) => format!("behind record {after}"),
        (Some(Resume::Delta { seq, .. }), _) => format!("behind change {}", seq.0),
        (None, Some(cursor)) => format!("behind change {}", cursor.seq.0),
        (None, None) => "at its beginning".into(),
    };
    format!(
        "the next page of {collection}, {place}, does not arrive: {STALLED_BREAKS} connections or more in \
         a row broke before anything of it came, though only 4 KiB or one record were asked for; so it holds \
         a record that is larger than what the connection carries, and what lies behind it in the \
         collection waits: try again over a better connection, or make it smaller where it was written"
    )
}
